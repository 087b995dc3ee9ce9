"""A trained network to a checkpoint folder: calibration, header, files."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion.checkpoint import CheckpointHeader, save_checkpoint
from training.calibration import class_scores, fit_temperature
from training.config import TrainingConfig
from training.data import DataError, LabelledImages, class_counts
from training.loop import TrainedNetwork

MIN_HELD_OUT_PER_CLASS = 2
MAX_CALIBRATED_PER_CLASS = 60
"""More would sharpen one number little and cost minutes on a CPU."""


def refuse_too_few(data: LabelledImages, held_out: LabelledImages) -> None:
    """Say before the training, not after it, that the checkpoint could not be calibrated.

    Raises:
        DataError: naming the classes of which too few cells were kept aside.
    """
    counts = class_counts(held_out)
    scarce = [n for n in data.class_names if counts.get(n, 0) < MIN_HELD_OUT_PER_CLASS]
    if scarce:
        raise DataError(
            f"Fewer than {MIN_HELD_OUT_PER_CLASS} cells of {', '.join(scarce)} were kept aside to "
            "calibrate on; add images of these classes, or raise the recipe's `held_out_fraction`."
        )


def finish(
    config: TrainingConfig,
    data: LabelledImages,
    held_out: LabelledImages,
    trained: TrainedNetwork,
    out: Path,
) -> str:
    """Fit the temperature on held-out cells, write the checkpoint, and return its digest."""
    n_training_images = len(data) - len(held_out)
    held_out = held_out.where(_first_of_each_class(held_out.labels, MAX_CALIBRATED_PER_CLASS))
    plan = config.draw_plan
    scores = class_scores(
        trained.network, held_out, plan, weighting="robust", description="Calibrating"
    )
    labels = torch.from_numpy(held_out.labels)
    right = (scores.argmax(dim=1) == labels).numpy()
    recalls = [float(np.mean(right[held_out.labels == k])) for k in np.unique(held_out.labels)]
    header = CheckpointHeader(
        name=config.name,
        class_names=data.class_names,
        image_size=config.image_size,
        crop_px=config.crop_px,
        data_digest=data.digest,
        n_training_images=n_training_images,
        n_images_seen=trained.n_images_seen,
        training_config=config.as_json(),
        draw_plan=plan,
        weighting="robust",
        temperature=fit_temperature(scores, labels),
        calibration={
            "cells": f"{config.held_out_fraction:.0%} of the training cells, chosen by content",
            "n_cells": len(held_out),
            "data_digest": held_out.digest,
            "balanced_accuracy": float(np.mean(recalls)),
        },
    )
    return save_checkpoint(out, trained.network, header)


def _first_of_each_class(labels: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:n]] = True
    return chosen
