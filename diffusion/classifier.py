"""Classification by denoising: the best class is the one that explains the noise.

    ln p_c(x) - ln p_c'(x) = -1/2 * integral of E( |noise - noise_c|^2 - |noise - noise_c'|^2 )
                             over log-SNR, squared errors summed over pixels

exact for an optimal denoiser (point-wise I-MMSE: Guo, Shamai & Verdu, 2005; Kong et al., 2023,
"Information-theoretic diffusion", eq. 6-9).

Shapes: B images, N noise draws, K classes; * is the shape of one image's latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.draws import DrawPlan, keyed_draws
from diffusion.latents import dihedral
from diffusion.network import Denoiser
from diffusion.schedule import sigmas_from_log_snr

Weighting = Callable[[Tensor], Tensor]
"""Weight of each log-SNR in the integral. (N,) -> (N,)"""


def elbo(log_snr: Tensor) -> Tensor:
    """One at every log-SNR: scores are log-likelihoods in nats, exact for an optimal denoiser."""
    return torch.ones_like(log_snr)


def robust(log_snr: Tensor) -> Tensor:
    """`exp(-log_snr / 2)`: low noise, where a learned network errs most, counts least.

    The same as weighting with sigma. A decision rule, not a likelihood: see
    docs/decisions/0003-two-weightings.md for what each is good for.
    """
    return (-log_snr / 2).exp()


WEIGHTINGS: dict[str, Weighting] = {"elbo": elbo, "robust": robust}


@torch.no_grad()
def paired_class_errors(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    noise: Tensor,
    class_labels: Tensor,
    *,
    turns: Tensor | None = None,
    micro_batch: int = 256,
) -> Tensor:
    """Squared error of the noise predicted under every candidate class.

    Args:
        denoise: the trained model.
        latents: clean images. (B, *)
        sigmas: noise levels, in the units of `latents`. (B, N)
        noise: standard normal draws. (B, N, *)
        class_labels: candidate classes. (K,)
        turns: symmetry of the square in which each draw sees its image, 0..7. (B, N)
        micro_batch: most denoiser inputs in one call; images, draws and classes share it.

    Returns:
        `|noise - predicted noise|^2`, summed over the image. (B, N, K)

    Source: Li et al. (2023), "Your diffusion model is secretly a zero-shot classifier", Alg. 1.
    """
    n_images, n_draws = sigmas.shape
    n_classes = len(class_labels)
    n_units = n_images * n_draws * n_classes
    errors = torch.empty(n_units, dtype=torch.float64)
    for start in range(0, n_units, micro_batch):
        unit = torch.arange(start, min(start + micro_batch, n_units))
        image, draw = unit // (n_draws * n_classes), unit // n_classes % n_draws
        clean = latents[image]
        if turns is not None:
            clean = _turned(clean, turns[image, draw])
        sigma = sigmas[image, draw]
        # Every class sees the same draws: what a draw adds to all errors alike then
        # cancels in the differences between classes, and those are all that decides.
        noised = clean + sigma.view(-1, *[1] * (latents.ndim - 1)) * noise[image, draw]
        denoised = denoise(noised, sigma, class_labels[unit % n_classes])
        squared = ((denoised - clean).flatten(1) / sigma[:, None]).square()
        errors[start : start + len(unit)] = squared.sum(dim=1).double().cpu()
    return errors.view(n_images, n_draws, n_classes)


def block_log_likelihoods(
    errors: Tensor, log_snr: Tensor, plan: DrawPlan, weighting: Weighting
) -> Tensor:
    """Weighted log-likelihood of each class by each block, up to a constant shared by the classes.

    Args:
        errors: from `paired_class_errors`, draws in the order of `keyed_draws`. (B, N, K)
        log_snr: of each draw. (B, N)
        plan: how the draws were made.
        weighting: `elbo` gives nats.

    Returns:
        Centred over classes. (B, n_blocks, K)
    """
    n_images, _, n_classes = errors.shape
    width = (plan.log_snr_max - plan.log_snr_min) / plan.n_levels
    weights = weighting(log_snr.double().cpu()) * width / 2  # two signs share a stratum
    contributions = -0.5 * weights[:, :, None] * errors
    scores = contributions.view(n_images, plan.n_blocks, -1, n_classes).sum(dim=2)
    return scores - scores.mean(dim=-1, keepdim=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Verdicts on B images over K candidate classes."""

    scores: Tensor
    """Weighted log-likelihoods, centred over the classes. (B, K)"""
    standard_errors: Tensor | None
    """Monte-Carlo error of `scores - score of the best class`; None for a single block. (B, K)"""
    posteriors: Tensor
    """`softmax(scores / temperature + log_prior)`. (B, K)"""
    n_draws: int
    """Noise draws for each class."""
    n_forward_passes: int
    """Denoiser evaluations for each image."""


def classify(
    denoise: Denoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    class_labels: Sequence[int],
    plan: DrawPlan,
    *,
    weighting: Weighting,
    temperature: float = 1.0,
    log_prior: Tensor | None = None,
    seed: int = 0,
    micro_batch: int = 256,
) -> Classification:
    """Posterior over the candidate classes of each image.

    An image's answer depends on its digest and the seed, not on its neighbours in the batch.

    Args:
        denoise: the trained model, without guidance.
        latents: clean images. (B, *)
        image_digests: one for each image; keys its noise.
        class_labels: candidate classes, at least two.
        plan: levels and number of draws.
        weighting: see `WEIGHTINGS`.
        temperature: divides the scores; 1 leaves `elbo` scores exact.
        log_prior: of the candidate classes, in nats; None for equal ones. (K,)
        seed: another seed draws other noise.
        micro_batch: most denoiser inputs in one call.

    Raises:
        ValueError: if digests and images differ in number, or fewer than two classes are given.
    """
    if len(image_digests) != len(latents):
        raise ValueError(
            f"{len(image_digests)} digests for {len(latents)} images; give one for each."
        )
    if len(set(class_labels)) < 2 or len(set(class_labels)) != len(class_labels):
        raise ValueError(
            f"class_labels={list(class_labels)}; give at least two different candidate classes."
        )
    draws = [
        keyed_draws(plan, tuple(latents.shape[1:]), seed=seed, image_digest=digest)
        for digest in image_digests
    ]
    log_snr = torch.stack([d.log_snr for d in draws])
    errors = paired_class_errors(
        denoise,
        latents,
        sigmas_from_log_snr(log_snr).to(latents),
        torch.stack([d.noise for d in draws]).to(latents),
        torch.tensor(list(class_labels), device=latents.device),
        turns=torch.stack([d.turns for d in draws]) if plan.turned else None,
        micro_batch=micro_batch,
    )
    blocks = block_log_likelihoods(errors, log_snr, plan, weighting)
    scores = blocks.mean(dim=1)
    return Classification(
        scores=scores,
        standard_errors=_standard_errors(blocks),
        posteriors=posterior(scores, temperature=temperature, log_prior=log_prior),
        n_draws=plan.n_draws,
        n_forward_passes=plan.n_draws * len(class_labels),
    )


def posterior(scores: Tensor, *, temperature: float, log_prior: Tensor | None = None) -> Tensor:
    """Bayes' rule on (tempered) log-likelihoods. (B, K) -> (B, K)"""
    logits = scores / temperature
    if log_prior is not None:
        logits = logits + log_prior.to(logits)
    return logits.softmax(dim=-1)


def _standard_errors(blocks: Tensor) -> Tensor | None:
    """Error of each class's distance to the best one, from the spread of blocks. (B, K)"""
    n_blocks = blocks.shape[1]
    if n_blocks < 2:
        return None
    best = blocks.mean(dim=1).argmax(dim=-1)
    at_best = blocks.gather(2, best[:, None, None].expand(-1, n_blocks, 1))
    spread: Tensor = (blocks - at_best).std(dim=1)
    return spread / float(n_blocks**0.5)


def _turned(latents: Tensor, turns: Tensor) -> Tensor:
    """Each image in its own symmetry of the square. (U, C, H, W), (U,)"""
    turned = torch.empty_like(latents)
    for turn in set(turns.tolist()):
        chosen = turns == turn
        turned[chosen] = dihedral(latents[chosen], turn)
    return turned
