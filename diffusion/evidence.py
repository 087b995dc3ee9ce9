"""Where in an image, and in which noise band, the odds of one class over another come from.

The generative score is a sum over noise draws and pixels, so its log-odds fall apart into pixels:

    E_p(c over r) = sum_j w_j 1/2 [ (noise - noise_r)^2_p - (noise - noise_c)^2_p ]

summed over channels. Nothing is left over: the map sums to the log-odds. Positive speaks for c.

Shapes: B images, N noise draws, J = N / 2 antithetic pairs, Z noise bands; C, H, W are channels,
height and width of the latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion.draws import DrawPlan, Draws, keyed_draws, log_density
from diffusion.latents import dihedral
from diffusion.network import SplitDenoiser
from diffusion.schedule import sigmas_from_log_snr
from diffusion.weighting import LearnedWeighting, Weighting

SHAPE_STRUCTURE_TEXTURE = (2.0, 5.0)
"""Log-SNR at which the bands meet: below 2 shape, up to 5 structure, above texture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceMaps:
    """Log-odds of a class over a rival in B images, pixel by pixel, in nats where weights are 1."""

    total: Tensor
    """Sum of the bands. (B, H, W)"""
    bands: Tensor
    """From high noise (shape) to low (texture). (B, Z, H, W)"""
    log_odds: Tensor
    """Sum of `total` over the image. (B,)"""
    standard_errors: Tensor | None
    """Monte-Carlo error of `total`; None for a single block. With two blocks it is itself uncertain
    by 70 %, with eight by 27 %. (B, H, W)"""
    band_standard_errors: Tensor | None
    """(B, Z, H, W)"""
    log_odds_standard_errors: Tensor | None
    """(B,)"""


@torch.no_grad()
def evidence_maps(
    split: SplitDenoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    class_labels: Sequence[int],
    rival_labels: Sequence[int],
    plan: DrawPlan,
    *,
    weighting: Weighting,
    kept: Tensor | None = None,
    seed: int = 0,
    band_edges: Sequence[float] = SHAPE_STRUCTURE_TEXTURE,
    micro_batch: int = 64,
) -> EvidenceMaps:
    """Evidence for a class over a rival in each image, on the draws that the classifier used.

    Args:
        split: the classifier's, whose trunk is told nothing: another's maps sum to other log-odds.
        latents: clean images. (B, C, H, W)
        image_digests: as the classifier had them; they key the noise.
        class_labels: class that positive evidence speaks for. (B,)
        rival_labels: class that it speaks against. (B,)
        plan: the classifier's, with the number of blocks that it drew.
        weighting: the classifier's.
        kept: what a cap left of each pair, from `kept_by_cap`; needed with a capped weighting.
            (B, J)
        seed: the classifier's.
        band_edges: rising log-SNR at which bands meet; Z is one more than their number.
        micro_batch: most noised images in one call; the decoder meets each twice.

    Raises:
        ValueError: if numbers of images, digests and labels differ, or a cap is not accounted for.
    """
    n_images = len(latents)
    counts = (len(image_digests), len(class_labels), len(rival_labels))
    if latents.ndim != 4 or counts != (n_images,) * 3:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} with {counts} digests, classes and rivals; "
            "give images as (B, C, H, W) and one of each for every image."
        )
    if isinstance(weighting, LearnedWeighting) and weighting.cap is not None and kept is None:
        raise ValueError(
            "this weighting caps what a pair of draws may say, which depends on the errors of all "
            "classes; give `kept` from `kept_by_cap`, or the map does not sum to the log-odds."
        )
    maps = []
    for i, digest in enumerate(image_digests):
        draws = keyed_draws(plan, tuple(latents.shape[1:]), seed=seed, image_digest=digest)
        kept_here = None if kept is None else kept[i]
        weights = _draw_weights(draws.log_snr, plan, weighting, kept_here)
        labels = (class_labels[i], rival_labels[i])
        maps.append(
            _block_maps(
                split, latents[i], draws, weights, labels, plan.n_blocks, band_edges, micro_batch
            )
        )
    by_block = torch.stack(maps)
    bands, band_errors = _mean_and_error(by_block)
    total, errors = _mean_and_error(by_block.sum(dim=2))
    log_odds, log_odds_errors = _mean_and_error(by_block.sum(dim=(2, 3, 4)))
    return EvidenceMaps(
        total=total,
        bands=bands,
        log_odds=log_odds,
        standard_errors=errors,
        band_standard_errors=band_errors,
        log_odds_standard_errors=log_odds_errors,
    )


def kept_by_cap(
    errors: Tensor,
    log_snr: Tensor,
    plan: DrawPlan,
    weighting: LearnedWeighting,
    classes: Sequence[int],
    rivals: Sequence[int],
) -> Tensor:
    """Share of each pair's log-odds that a weighting's cap leaves; multiplies its map. (B, J)

    Args:
        errors: of the classes that were compared; not a number where one had left the race.
            (B, N, K)
        log_snr: of each draw. (B, N)
        plan: of these draws.
        weighting: the capped one.
        classes: column of each image's class in `errors`. (B,)
        rivals: column of its rival. (B,)

    Raises:
        ValueError: if one of the two had left the race.
    """
    free = weighting.model_copy(update={"cap": None})
    cap = float("inf") if weighting.cap is None else weighting.cap
    kept = []
    for one, levels, column, rival in zip(errors, log_snr, classes, rivals, strict=True):
        pair_errors = one.double().cpu().unflatten(0, (-1, 2)).mean(dim=1)
        if bool(pair_errors[:, [column, rival]].isnan().any()):
            raise ValueError(
                "a class of the pair left the race before its end; give the errors of the blocks "
                "in which both took part, and a plan with as many blocks."
            )
        weights = _draw_weights(levels.double().cpu(), plan, free, None) * plan.n_draws_in_block
        scores = -0.5 * weights[::2, None] * pair_errors
        centred = scores - scores.nanmean(dim=1, keepdim=True)
        capped = centred.clamp(-cap, cap)
        before, after = (s[:, column] - s[:, rival] for s in (centred, capped))
        kept.append(torch.where(before == 0, 1.0, after / before))
    return torch.stack(kept)


def _draw_weights(
    log_snr: Tensor, plan: DrawPlan, weighting: Weighting, kept: Tensor | None
) -> Tensor:
    """Weight of each draw in the sum over its block. (N,)"""
    weights = weighting(log_snr) / log_density(plan, log_snr).exp() / plan.n_draws_in_block
    return weights if kept is None else weights * kept.to(weights).repeat_interleave(2)


def _block_maps(
    split: SplitDenoiser,
    clean: Tensor,
    draws: Draws,
    weights: Tensor,
    labels: tuple[int, int],
    n_blocks: int,
    band_edges: Sequence[float],
    micro_batch: int,
) -> Tensor:
    """One image's evidence from each block alone. (n_blocks, Z, H, W)"""
    n_draws = len(draws.log_snr)
    bands = torch.bucketize(draws.log_snr, torch.tensor(list(band_edges)).to(draws.log_snr))
    blocks = torch.arange(n_draws) // (n_draws // n_blocks)
    shape = (n_blocks, len(band_edges) + 1, *clean.shape[1:])
    maps = torch.zeros(shape, dtype=torch.float64)
    for start in range(0, n_draws, micro_batch):
        chunk = slice(start, start + micro_batch)
        turns = draws.turns[chunk].tolist()
        sigmas = sigmas_from_log_snr(draws.log_snr[chunk]).to(clean)
        seen = torch.stack([dihedral(clean, turn) for turn in turns])
        noised = seen + sigmas.view(-1, 1, 1, 1) * draws.noise[chunk].to(clean)
        rows = torch.arange(len(seen), device=clean.device)
        denoised = split.finish(
            split.share(noised, sigmas),
            rows.repeat(2),
            torch.tensor(labels, device=clean.device).repeat_interleave(len(seen)),
        )
        of_class, of_rival = denoised.chunk(2)
        # |x - D_r|^2 - |x - D_c|^2 as one product: no cancellation between large squares.
        gained = (of_class - of_rival) * (2 * seen - of_class - of_rival)
        scale = weights[chunk].to(clean) / (2 * sigmas.square())
        of_pixel = gained.sum(dim=1) * scale.view(-1, 1, 1)
        upright = torch.stack(
            [dihedral(one, inverse_turn(turn)) for one, turn in zip(of_pixel, turns, strict=True)]
        )
        maps.index_put_((blocks[chunk], bands[chunk]), upright.double().cpu(), accumulate=True)
    return maps


def inverse_turn(turn: int) -> int:
    """The symmetry that undoes `dihedral(..., turn)`; mirrored ones undo themselves."""
    return turn if turn >= 4 else -turn % 4


def _mean_and_error(by_block: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean over blocks and its standard error. (B, n_blocks, ...) -> (B, ...)"""
    n_blocks = by_block.shape[1]
    if n_blocks < 2:
        return by_block.mean(dim=1), None
    return by_block.mean(dim=1), by_block.std(dim=1) / float(n_blocks**0.5)


FOR, AGAINST = (0, 114, 178), (213, 94, 0)
"""Blue and vermilion of Okabe & Ito (2008): told apart with every common colour vision."""


def evidence_picture(
    image: NDArray[np.uint8],
    evidence: Tensor,
    standard_errors: Tensor | None = None,
    *,
    scale: float | None = None,
) -> NDArray[np.uint8]:
    """The image in grey under its evidence: blue for, vermilion against. uint8 (H, W, 3)

    Pixels whose evidence is within two standard errors of zero stay grey. Colour deepens with the
    evidence up to `scale`; give the same one to pictures that are to be compared.

    Args:
        image: uint8 (H, W, 3)
        evidence: a map of `evidence_maps`. (H, W)
        standard_errors: of the same map; without them every pixel is coloured. (H, W)
        scale: evidence of full colour; None for `picture_scale`.

    Raises:
        ValueError: if image and map differ in size.
    """
    if image.shape != (*evidence.shape, 3):
        raise ValueError(
            f"the image is {image.shape} and the map {tuple(evidence.shape)}; give an RGB image of "
            "the map's height and width."
        )
    full = picture_scale(evidence, standard_errors) if scale is None else scale
    shown = np.where(_is_clear(evidence, standard_errors).numpy(), evidence.cpu().numpy(), 0)
    # Pale grey: colours of both kinds stay visible on a dark nucleus.
    grey = 110 + 145 / 255 * (image @ np.array([0.299, 0.587, 0.114]))
    strength = 0.9 * np.sqrt(np.clip(np.abs(shown) / full, 0, 1))[:, :, None]
    colour = np.where(shown[:, :, None] > 0, np.array(FOR), np.array(AGAINST))
    mixed: NDArray[np.uint8] = np.rint(
        (1 - strength) * grey[:, :, None] + strength * colour
    ).astype(np.uint8)
    return mixed


def picture_scale(evidence: Tensor, standard_errors: Tensor | None = None) -> float:
    """The evidence that all but the strongest hundredth of the clear pixels stay below."""
    clear = evidence[_is_clear(evidence, standard_errors)].abs().double()
    return max(float(clear.quantile(0.99)), 1e-12) if len(clear) else 1.0


def _is_clear(evidence: Tensor, standard_errors: Tensor | None) -> Tensor:
    if standard_errors is None:
        return torch.ones_like(evidence, dtype=torch.bool).cpu()
    return (evidence.abs() >= 2 * standard_errors).cpu()
