"""Which noise the classifier looks at: levels and noise keyed by (seed, image, block).

Shapes: N noise draws of one image; * is the shape of its latents.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor


class DrawPlan(BaseModel):
    """Where on the log-SNR axis the classifier looks, and how often.

    One block is one sweep over `n_levels` strata of equal probability, each with an antithetic pair
    of noises. Blocks are independent, so their spread is the Monte-Carlo error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_snr_min: float = -1.0
    log_snr_max: float = 6.0
    n_levels: int = Field(default=6, ge=1, le=10_000)
    n_blocks: int = Field(default=2, ge=1, le=10_000)
    turned: bool = False
    """Show each pair another of the square's eight symmetries; for models trained on all eight."""
    density: tuple[float, ...] | None = None
    """Probability of each of equal bins over the range, from `fitted_density`; None for uniform.
    Weights divide by it, so it changes the Monte-Carlo error of a score and not its expectation."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "DrawPlan":
        if not self.log_snr_min < self.log_snr_max:
            raise ValueError(
                f"log_snr_min={self.log_snr_min} is not below log_snr_max={self.log_snr_max}."
            )
        return self

    @model_validator(mode="after")
    def _density_is_a_distribution(self) -> "DrawPlan":
        if self.density is None:
            return self
        total = sum(self.density)
        if not math.isclose(total, 1, rel_tol=1e-6):
            raise ValueError(
                f"the density's bins sum to {total:.6g}, not 1; divide them by their sum, or make "
                "them with `fitted_density`."
            )
        if min(self.density) <= 0:
            raise ValueError(
                f"the density has a bin of probability {min(self.density)}: levels there would "
                "never be drawn and their evidence would be lost; give every bin a little."
            )
        return self

    @property
    def n_draws(self) -> int:
        """Noise draws, and so forward passes, for each class."""
        return self.n_draws_in_block * self.n_blocks

    @property
    def n_draws_in_block(self) -> int:
        """Noise draws of one block: both signs at each level."""
        return 2 * self.n_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The draws of one image, in order of block, level, sign."""

    log_snr: Tensor
    """(N,)"""
    noise: Tensor
    """Standard normal; draws 2i and 2i + 1 are each other's negative. (N, *)"""
    turns: Tensor
    """Symmetry of the square in which the image is shown, 0..7. (N,)"""


def keyed_draws(plan: DrawPlan, shape: tuple[int, ...], *, seed: int, image_digest: str) -> Draws:
    """The draws that belong to an image: the blocks `keyed_block` gives, one after the other."""
    blocks = [
        keyed_block(plan, shape, seed=seed, image_digest=image_digest, block=block)
        for block in range(plan.n_blocks)
    ]
    return Draws(
        log_snr=torch.cat([block.log_snr for block in blocks]),
        noise=torch.cat([block.noise for block in blocks]),
        turns=torch.cat([block.turns for block in blocks]),
    )


def keyed_block(
    plan: DrawPlan, shape: tuple[int, ...], *, seed: int, image_digest: str, block: int
) -> Draws:
    """One block of an image's draws: the same in any batch, order or process, alone or with others.

    Stratified: a block shifts all its levels by one uniform offset. Antithetic: each noise is used
    with both signs, which cancels the part of the error that is odd in the noise.

    Args:
        plan: its `n_blocks` is not used, so that a race may go on for as long as it likes.
        shape: of the image's latents, *.
        seed: another seed draws other noise.
        image_digest: the image that the noise belongs to.
        block: 0, 1, ...
    """
    generator = torch.Generator().manual_seed(_key(seed, image_digest, block))
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    drawn = torch.randn((plan.n_levels, *shape), generator=generator)
    levels = torch.arange(plan.n_levels)
    # Blocks start at different symmetries, so that a level meets more than one.
    turns = (levels + 3 * block) % 8 if plan.turned else torch.zeros_like(levels)
    return Draws(
        log_snr=_levels(plan, offset).repeat_interleave(2),
        noise=torch.stack([drawn, -drawn], dim=1).flatten(0, 1),
        turns=turns.repeat_interleave(2),
    )


def _levels(plan: DrawPlan, offset: Tensor) -> Tensor:
    """One level in each stratum: the inverse distribution function at even steps. (n_levels,)"""
    steps = torch.arange(plan.n_levels) + offset
    width = plan.log_snr_max - plan.log_snr_min
    if plan.density is None:
        return plan.log_snr_min + width / plan.n_levels * steps
    edges = np.linspace(plan.log_snr_min, plan.log_snr_max, len(plan.density) + 1)
    below = np.concatenate([[0.0], np.cumsum(plan.density)])
    at = np.interp(steps.numpy() / plan.n_levels, below / below[-1], edges)
    return torch.from_numpy(at)


def log_density(plan: DrawPlan, log_snr: Tensor) -> Tensor:
    """ln f of the density f, per unit of log-SNR, that a plan draws its levels from. Same shape."""
    width = plan.log_snr_max - plan.log_snr_min
    if plan.density is None:
        return torch.full_like(log_snr, -math.log(width))
    n_bins = len(plan.density)
    bins = ((log_snr - plan.log_snr_min) / width * n_bins).long().clamp(0, n_bins - 1)
    probabilities = torch.tensor(plan.density, dtype=log_snr.dtype, device=log_snr.device)
    return (probabilities * n_bins / width).log()[bins]


def fitted_density(margins: ArrayLike, floor: float = 0.02) -> tuple[float, ...]:
    """A plan's density: levels are drawn where the two best classes differ.

    In proportion to the root mean square, over images, of the margin in each bin; proportional to
    the size of an integrand is what importance sampling asks for. `floor`, a share of the highest
    bin, keeps every bin drawn and so every weight bounded.

    Args:
        margins: weighted loss of the second-best class minus that of the best, of validation
            images, by equal bins over the plan's range. (n_images, n_bins)
        floor: added to each bin, as a share of the highest.

    Raises:
        ValueError: if the classes do not differ anywhere.
    """
    values: NDArray[np.float64] = np.asarray(margins, dtype=np.float64)
    size = np.sqrt(np.mean(values**2, axis=0))
    if values.ndim != 2 or not np.isfinite(size).all() or size.max() <= 0 or floor <= 0:
        raise ValueError(
            f"margins of shape {values.shape}, floor={floor}; give finite margins as "
            "(n_images, n_bins), somewhere different from zero, and a floor above zero."
        )
    raised = size + floor * size.max()
    return tuple((raised / raised.sum()).tolist())


def _key(seed: int, image_digest: str, block: int) -> int:
    digest = hashlib.sha256(f"{seed}:{image_digest}:{block}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
