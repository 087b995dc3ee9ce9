"""Classification by denoising: the best class is the one that explains the noise.

`weighting` says why scores are log-likelihoods, `racing` and `packing` how to spend fewer
evaluations.

Shapes: B images, N noise draws, K classes; * is the shape of one image's latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.draws import DrawPlan
from diffusion.network import SplitDenoiser
from diffusion.packing import noised_latents, race_many, turned_latents, unit_errors
from diffusion.weighting import WEIGHTINGS as WEIGHTINGS
from diffusion.weighting import Weighting as Weighting
from diffusion.weighting import block_log_likelihoods as block_log_likelihoods
from diffusion.weighting import elbo as elbo
from diffusion.weighting import robust as robust


@torch.no_grad()
def paired_class_errors(
    split: SplitDenoiser,
    latents: Tensor,
    sigmas: Tensor,
    noise: Tensor,
    class_labels: Tensor,
    *,
    turns: Tensor | None = None,
    micro_batch: int = 256,
) -> Tensor:
    """Squared error of the noise predicted under every candidate class, for draws of one's own.

    Every class sees the same draws: what a draw adds to all errors alike then cancels in the
    differences between classes, and those are all that decides.

    Args:
        split: the trained model.
        latents: clean images. (B, *)
        sigmas: noise levels, in the units of `latents`. (B, N)
        noise: standard normal draws. (B, N, *)
        class_labels: candidate classes, the same for all images or of each. (K,) or (B, K)
        turns: symmetry of the square in which each draw sees its image, 0..7. (B, N)
        micro_batch: most units (one draw under one class) in one call; at least one draw is.

    Returns:
        `|noise - predicted noise|^2`, summed over the image. (B, N, K)

    Source: Li et al. (2023), "Your diffusion model is secretly a zero-shot classifier", Alg. 1.
    """
    n_images, n_draws = sigmas.shape
    of_image = class_labels.expand(n_images, class_labels.shape[-1])
    n_classes = of_image.shape[1]
    errors = []
    n_rows = max(micro_batch // n_classes, 1)
    for rows in torch.split(torch.arange(n_images * n_draws), n_rows):
        image, draw = rows // n_draws, rows % n_draws
        clean = latents[image]
        if turns is not None:
            clean = turned_latents(clean, turns[image, draw])
        of_rows = unit_errors(
            split,
            clean,
            noised_latents(clean, sigmas[image, draw], noise[image, draw]),
            sigmas[image, draw],
            torch.arange(len(rows), device=clean.device).repeat_interleave(n_classes),
            of_image[image].flatten(),
        )
        errors.append(of_rows)
    return torch.cat(errors).view(n_images, n_draws, n_classes)


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
    split: SplitDenoiser,
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
    """Posterior over the candidate classes of each image, all of them evaluated on the whole plan.

    A race without eliminations (`racing`). An image's answer depends on its digest and the seed,
    not on its neighbours in the batch.

    Args:
        split: the trained model, without guidance.
        latents: clean images. (B, *)
        image_digests: one for each image; keys its noise.
        class_labels: candidate classes, at least two.
        plan: levels and number of draws.
        weighting: see `WEIGHTINGS`.
        temperature: divides the scores; 1 leaves `elbo` scores exact.
        log_prior: of the candidate classes, in nats; None for equal ones. (K,)
        seed: another seed draws other noise.
        micro_batch: most units (one draw under one class) in one call.

    Raises:
        ValueError: if digests and images differ in number, or fewer than two classes are given.
    """
    races = race_many(
        split,
        latents,
        image_digests,
        [class_labels] * len(latents),
        plan,
        weighting=weighting,
        alpha=0.0,
        max_blocks=plan.n_blocks,
        seed=seed,
        micro_batch=micro_batch,
    )
    blocks = block_log_likelihoods(
        torch.stack([race.errors for race in races]),
        torch.stack([race.log_snr for race in races]),
        plan,
        weighting,
    )
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
