"""Accuracy of a checkpoint on labelled cells, with intervals."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from diffusion.checkpoint import Checkpoint
from diffusion.classifier import posterior
from diffusion.network import count_flops
from studies.proportions import Proportion, wilson
from training.calibration import class_scores
from training.data import DataError, LabelledImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a checkpoint did on one set of cells."""

    balanced_accuracy: Proportion
    """Mean recall over the classes that occur in the set; n is the number of cells."""
    accuracy: Proportion
    recall: dict[str, Proportion]
    log_loss: float
    """Mean negative log of the calibrated probability of the true class, in nats."""
    confusion_matrix: NDArray[np.int64]
    """Rows are true classes, columns verdicts, both in the model's order. (K, K)"""
    class_names: tuple[str, ...]
    flops_per_image: int
    images_per_second: float
    data_digest: str
    checkpoint_digest: str
    n_draws: int
    weighting: str
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        return {
            "balanced_accuracy": _as_json(self.balanced_accuracy),
            "accuracy": _as_json(self.accuracy),
            "recall": {name: _as_json(value) for name, value in self.recall.items()},
            "log_loss": self.log_loss,
            "confusion_matrix": self.confusion_matrix.tolist(),
            "class_names": list(self.class_names),
            "flops_per_image": self.flops_per_image,
            "images_per_second": self.images_per_second,
            "data_digest": self.data_digest,
            "checkpoint_digest": self.checkpoint_digest,
            "n_draws": self.n_draws,
            "weighting": self.weighting,
            "seed": self.seed,
        }

    def as_table(self) -> Table:
        """The same for a terminal."""
        table = Table(title=f"checkpoint {self.checkpoint_digest[:12]} · {self.n_draws} draws")
        for heading in ("", "estimate", "95 % interval", "n"):
            table.add_column(heading, justify="left" if not heading else "right")
        rows = {"balanced accuracy": self.balanced_accuracy, "accuracy": self.accuracy}
        rows |= {f"recall {name}": value for name, value in self.recall.items()}
        for name, value in rows.items():
            table.add_row(
                name,
                f"{value.estimate:.3f}",
                f"{value.ci_low:.3f}–{value.ci_high:.3f}",
                f"{value.n_trials:,}",
            )
        table.caption = (
            f"{self.flops_per_image / 1e9:.0f} GFLOP and {1 / self.images_per_second:.2f} s an "
            f"image · data {self.data_digest[:12]}"
        )
        return table


def evaluate(checkpoint: Checkpoint, data: LabelledImages, *, seed: int = 0) -> Evaluation:
    """Classify every cell with the checkpoint's own draw plan and weighting.

    Args:
        checkpoint: the model; all its classes are candidates, whichever occur in the data.
        data: cells at the model's size; their class names are matched to the model's.
        seed: of the noise draws.

    Raises:
        DataError: if a class of the data is not one of the model's, or there is no image.
    """
    header = checkpoint.header
    data = data.labelled_for(checkpoint.class_names)
    if not len(data):
        raise DataError("There is no image to evaluate on; check --data and --held-out.")
    started = time.perf_counter()
    scores = class_scores(
        checkpoint.network, data, header.draw_plan, weighting=header.weighting, seed=seed
    )
    elapsed_s = time.perf_counter() - started
    verdicts = scores.argmax(dim=1).numpy()
    probabilities = posterior(scores, temperature=header.temperature)
    of_true = probabilities.gather(1, torch.from_numpy(data.labels)[:, None])
    n_classes = len(checkpoint.class_names)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (data.labels, verdicts), 1)
    recalls = {
        name: wilson(int(confusion[k, k]), int(confusion[k].sum()))
        for k, name in enumerate(checkpoint.class_names)
        if confusion[k].sum()
    }
    n_passes = header.draw_plan.n_draws * n_classes
    return Evaluation(
        balanced_accuracy=mean_of_proportions(list(recalls.values())),
        accuracy=wilson(int(np.trace(confusion)), len(data)),
        recall=recalls,
        log_loss=float(-of_true.clamp_min(1e-300).log().mean()),
        confusion_matrix=confusion,
        class_names=checkpoint.class_names,
        flops_per_image=count_flops(checkpoint.network) * n_passes,
        images_per_second=len(data) / elapsed_s,
        data_digest=data.digest,
        checkpoint_digest=checkpoint.digest,
        n_draws=header.draw_plan.n_draws,
        weighting=header.weighting,
        seed=seed,
    )


def mean_of_proportions(proportions: Sequence[Proportion]) -> Proportion:
    """Unweighted mean of independent proportions, with an interval made from theirs.

    Each limit's distance is the root of the summed squared distances of the single limits, so the
    interval keeps their asymmetry near 0 and 1 and does not shrink to a point for a perfect recall.

    Source: MOVER, Zou & Donner (2008), Statistics in Medicine 27:1693, eq. 5-6, for a mean.
    """
    n = len(proportions)
    estimate = sum(p.estimate for p in proportions) / n
    below = sqrt(sum((p.estimate - p.ci_low) ** 2 for p in proportions)) / n
    above = sqrt(sum((p.ci_high - p.estimate) ** 2 for p in proportions)) / n
    return Proportion(
        estimate=estimate,
        ci_low=max(0.0, estimate - below),
        ci_high=min(1.0, estimate + above),
        n_trials=sum(p.n_trials for p in proportions),
    )


def _as_json(value: Proportion) -> dict[str, float | int]:
    return {
        "estimate": value.estimate,
        "ci_low": value.ci_low,
        "ci_high": value.ci_high,
        "n": value.n_trials,
    }
