"""What a training run is: one frozen value, written beside its checkpoints.

A recipe is a function that returns a whole one; the command line picks a recipe by its name.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from training.augmentation import Augmentation
from training.fitting import FittingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Everything that decides the result, besides the data."""

    name: str
    image_size: int = 64
    crop_px: int | None = None
    """Centred square to cut from larger photographs, in their pixels. None: the whole frame."""

    n_images: int = 1_000_000
    """How long to train, in images shown, so that it survives a change of batch size."""
    minutes: float | None = None
    """Train by the clock instead: the learning rate then follows elapsed time."""
    batch_size: int = 64
    seed: int = 0

    widths: tuple[int, ...] = (80, 144, 224)
    n_blocks: tuple[int, ...] = (2, 2, 2)
    n_decoder_blocks: tuple[int, ...] = (1, 1, 1)
    n_shared_stages: int = 1
    """How much of the network all classes share, see `CellDenoiser`."""
    patch_size: int = 4
    dropout: float = 0.0

    lr: float = 2e-3
    warmup_images: int = 12_800
    weight_decay: float = 1e-2
    ema_halflife_images: int = 50_000
    class_dropout: float = 0.1
    told_trunk_fraction: float = 0.3
    """Share of each batch whose trunk is told the class, which teaches to draw. None of them is
    altered strongly, so that what is drawn looks as the training set. They are in the denoising
    loss only: a trunk that is told the class cannot be asked for it."""

    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    """Noise levels seen in training: `ln sigma ~ normal(mean, std)`. Karras et al. (2022)."""
    uniform_fraction: float = 0.1
    """Share of images whose log-SNR is uniform instead, so that every level is trained."""
    told_uniform_fraction: float = 0.4
    """The same where the trunk is told: class and colours of a drawing are settled at high noise,
    which the log-normal hardly visits."""
    uniform_log_snr: tuple[float, float] = (-6.0, 9.0)

    init_from: str | None = None
    """Checkpoint folder whose weights to start from, where names and shapes agree."""
    freeze_trunk: bool = False
    """Train the decoder, and what the trunk is told, only; trunk and head stay as `init_from` has
    them. With `told_trunk_fraction=0` nothing has to be differentiated through the trunk."""

    head_weight: float = 0.05
    """Of the head's cross-entropy on images without noise, beside a denoising loss of about 0.1. At
    0.3, and 0.1 for the next two, their gradients on the encoder were five times denoising's, and
    what the network drew was poor (docs/notes/measurements.md)."""
    noised_head_weight: float = 0.02
    """Of the head's cross-entropy on the noised images."""
    contrast_weight: float = 0.05
    """Of the contrast between the true class and the wrong one that the head finds likeliest."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    held_out_fraction: float = 0.1
    """Share of the training cells, chosen by content, kept for calibration."""

    fitting: FittingPlan = field(default_factory=FittingPlan)
    """How the finished checkpoint's classifier is fitted; training itself does not depend on it."""

    snapshot_minutes: float = 2.0
    grid_minutes: float = 10.0
    """How often a grid of drawn cells goes to TensorBoard."""

    def __post_init__(self) -> None:
        """Refuse a run that cannot be carried out."""
        if self.n_images < 1 or self.batch_size < 1:
            raise ValueError(
                f"n_images={self.n_images} and batch_size={self.batch_size}; "
                "both must be at least 1."
            )
        if self.crop_px is not None and self.crop_px < 1:
            raise ValueError(f"crop_px={self.crop_px}; give pixels, or None for the whole frame.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes={self.minutes}; give a positive number, such as 3.")
        if self.freeze_trunk and self.init_from is None:
            raise ValueError(
                "freeze_trunk without init_from would keep a random trunk; name a checkpoint to "
                "start from."
            )
        if self.freeze_trunk and self.n_shared_stages == 0:
            raise ValueError(
                "freeze_trunk with n_shared_stages=0 has no trunk to freeze; share one stage or "
                "more."
            )
        if not 0 <= self.told_trunk_fraction <= 1:
            raise ValueError(
                f"told_trunk_fraction={self.told_trunk_fraction}; give a share of the batch from 0 "
                "to 1."
            )
        if self.told_trunk_fraction + self.augmentation.strong_fraction > 1:
            raise ValueError(
                f"told_trunk_fraction={self.told_trunk_fraction} and strong_fraction="
                f"{self.augmentation.strong_fraction} are more than the batch: what is altered "
                "strongly is not drawn; lower one of them."
            )
        if self.patch_size < 2 or self.patch_size % 2:
            raise ValueError(
                f"patch_size={self.patch_size}; the network also looks at half patches, so use an "
                "even number, such as 2 or 4."
            )
        if self.image_size % (self.patch_size * 2 ** (len(self.widths) - 1)):
            raise ValueError(
                f"image_size={self.image_size} does not divide into patches of {self.patch_size} "
                f"and {len(self.widths)} resolutions; use a multiple of "
                f"{self.patch_size * 2 ** (len(self.widths) - 1)}."
            )
        if self.n_shared_stages == 0 and self.noised_head_weight > 0:
            raise ValueError(
                f"n_shared_stages=0 with noised_head_weight={self.noised_head_weight}: an encoder "
                "that is told the class cannot be asked for it; set noised_head_weight to 0 or "
                "share the encoder."
            )
        if self.n_shared_stages == 0 and self.told_trunk_fraction > 0:
            raise ValueError(
                f"n_shared_stages=0 with told_trunk_fraction={self.told_trunk_fraction}: all of "
                "the network is told the class already, which leaves no trunk to tell; set "
                "told_trunk_fraction to 0 or share the encoder."
            )

    @property
    def n_steps(self) -> int:
        """Optimiser steps when training is counted in images."""
        return math.ceil(self.n_images / self.batch_size)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for the JSON beside the results."""
        return asdict(self)


def pbc64() -> TrainingConfig:
    """Eight peripheral blood cell types of the PBC data set at 64 px, on one or more CPU cores."""
    return TrainingConfig(name="pbc64", crop_px=200, n_images=1_000_000)


def tiny() -> TrainingConfig:
    """Drawn cells at 32 px on two CPU cores within minutes: the demo."""
    return TrainingConfig(
        name="tiny",
        image_size=32,
        n_images=100_000,
        widths=(64, 96, 128),
        n_blocks=(1, 1, 1),
        patch_size=2,
        # Minutes are too few to learn other microscopes as well.
        augmentation=Augmentation(strong_fraction=0.0),
        told_trunk_fraction=0.5,
        head_weight=0.1,
        noised_head_weight=0.04,
        warmup_images=3_200,
        ema_halflife_images=5_000,
        held_out_fraction=0.1,
        fitting=FittingPlan(per_class=10, calibrated_per_class=20),
        snapshot_minutes=0.5,
    )


def smoke_test() -> TrainingConfig:
    """Seconds on a CPU: proves that the loop runs, learns next to nothing."""
    return replace(
        tiny(),
        name="smoke_test",
        patch_size=4,
        n_images=512,
        batch_size=16,
        widths=(16, 32),
        n_blocks=(1, 1),
        n_decoder_blocks=(1, 1),
        ema_halflife_images=200,
        warmup_images=64,
        held_out_fraction=0.2,
        fitting=FittingPlan(per_class=4, calibrated_per_class=8, generative_blocks=2),
    )


RECIPES: dict[str, Callable[[], TrainingConfig]] = {
    "pbc64": pbc64,
    "tiny": tiny,
    "smoke_test": smoke_test,
}
