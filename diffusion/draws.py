"""Which noise the classifier looks at: levels and noise keyed by (seed, image, block).

Shapes: N draws of one image; * is the shape of its latents.
"""

import hashlib
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor


class DrawPlan(BaseModel):
    """Where on the log-SNR axis the classifier looks, and how often.

    One block is one sweep over `n_levels` strata of equal width, each with an antithetic pair of
    noises. Blocks are independent, so their spread is the Monte-Carlo error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_snr_min: float = -1.0
    log_snr_max: float = 6.0
    n_levels: int = Field(default=6, ge=1, le=10_000)
    n_blocks: int = Field(default=2, ge=1, le=10_000)
    turned: bool = False
    """Show each pair another of the square's eight symmetries; for models trained on all eight."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "DrawPlan":
        if not self.log_snr_min < self.log_snr_max:
            raise ValueError(
                f"log_snr_min={self.log_snr_min} is not below log_snr_max={self.log_snr_max}."
            )
        return self

    @property
    def n_draws(self) -> int:
        """Noise draws, and so forward passes, for each class."""
        return 2 * self.n_levels * self.n_blocks


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
    """The draws that belong to an image: the same in any batch, order or process.

    Stratified: each block shifts all its levels by one uniform offset. Antithetic: each noise is
    used with both signs, which cancels the part of the error that is odd in the noise.
    """
    width = (plan.log_snr_max - plan.log_snr_min) / plan.n_levels
    levels = torch.arange(plan.n_levels)
    log_snr, noise, turns = [], [], []
    for block in range(plan.n_blocks):
        generator = torch.Generator().manual_seed(_key(seed, image_digest, block))
        offset = torch.rand((), generator=generator, dtype=torch.float64)
        drawn = torch.randn((plan.n_levels, *shape), generator=generator)
        log_snr.append(plan.log_snr_min + width * (levels + offset))
        noise.append(torch.stack([drawn, -drawn], dim=1))
        # Blocks start at different symmetries, so that a level meets more than one.
        turns.append((levels + 3 * block) % 8 if plan.turned else torch.zeros_like(levels))
    return Draws(
        log_snr=torch.cat(log_snr).repeat_interleave(2),
        noise=torch.cat(noise).flatten(0, 1),
        turns=torch.cat(turns).repeat_interleave(2),
    )


def _key(seed: int, image_digest: str, block: int) -> int:
    digest = hashlib.sha256(f"{seed}:{image_digest}:{block}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
