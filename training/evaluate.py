"""Accuracy of a checkpoint on labelled cells, with intervals: head, generative and fused apart."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from diffusion.anomaly import Measurements, assess
from diffusion.cell_classifier import CellClassifier, Looked
from diffusion.checkpoint import Checkpoint
from diffusion.classifier_settings import ROWS
from diffusion.conformal import AbstentionRule, keyed_uniforms
from diffusion.latents import latents_from_images
from diffusion.probability import Row
from studies.proportions import Proportion, wilson
from training.data import DataError, LabelledImages, batches
from training.fitting import IMAGES_AT_ONCE, looked_with_progress
from training.progress import progress_bar
from training.reliability import Calibration, Halves, calibrated_on, calibration_of, repeated_halves

SET_LEVEL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEvaluation:
    """What one kind of evidence was worth on one set of cells."""

    balanced_accuracy: Proportion
    """Mean recall over the classes that occur in the set; n is the number of cells."""
    accuracy: Proportion
    recall: dict[str, Proportion]
    confusion_matrix: NDArray[np.int64]
    """Rows are true classes, columns the most probable ones, in the model's order. (K, K)"""
    calibration: Calibration
    risk: float | None
    """The rate of wrong verdicts that the checkpoint's rule vouches for; None if it has none."""
    foreign_texture: Proportion | None
    """Share of cells withheld for their texture; None where it is not measured."""
    confident: Proportion
    """Share of cells on which the rule of confidence does not abstain."""
    wrong_confident: Proportion | None
    """Share of wrong verdicts among those, whatever their texture; None if there is none."""
    given: Proportion
    """Share of cells that get a verdict: confident, and of no foreign texture."""
    wrong_given: Proportion | None
    """Share of wrong verdicts among those; None if none was given."""
    set_coverage: Proportion
    """Share of cells whose 90 % set holds the true class."""
    set_size: float
    gflop: float
    """Mean over the images."""
    halves: Halves | None = None
    """Conformal sets and calibration refitted on random halves of these very cells."""

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        return {
            "balanced_accuracy": _as_json(self.balanced_accuracy),
            "accuracy": _as_json(self.accuracy),
            "recall": {name: _as_json(value) for name, value in self.recall.items()},
            "confusion_matrix": self.confusion_matrix.tolist(),
            "calibration": self.calibration.as_json(),
            "abstention": {
                "risk": self.risk,
                "confident": _as_json(self.confident),
                "wrong_confident": None
                if self.wrong_confident is None
                else _as_json(self.wrong_confident),
                "foreign_texture": None
                if self.foreign_texture is None
                else _as_json(self.foreign_texture),
                "given": _as_json(self.given),
                "wrong_given": None if self.wrong_given is None else _as_json(self.wrong_given),
            },
            "set": {
                "level": SET_LEVEL,
                "coverage": _as_json(self.set_coverage),
                "mean_size": self.set_size,
            },
            "gflop": self.gflop,
            "halves": None if self.halves is None else self.halves.as_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a checkpoint did on one set of cells."""

    rows: dict[Row, RowEvaluation]
    class_names: tuple[str, ...]
    candidate_class_names: tuple[str, ...]
    """Declared before looking; all of the model's if none were."""
    flagged: Proportion | None
    """Share of cells flagged as anomalous at the checkpoint's rate; None if not measured."""
    images_per_second: float
    data_digest: str
    checkpoint_digest: str
    weighting: str
    seed: int

    @property
    def balanced_accuracy(self) -> Proportion:
        """Of the fused row, which decides."""
        return self.rows["fused"].balanced_accuracy

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        return {
            "rows": {row: value.as_json() for row, value in self.rows.items()},
            "class_names": list(self.class_names),
            "candidate_class_names": list(self.candidate_class_names),
            "flagged_as_anomalous": None if self.flagged is None else _as_json(self.flagged),
            "images_per_second": self.images_per_second,
            "data_digest": self.data_digest,
            "checkpoint_digest": self.checkpoint_digest,
            "weighting": self.weighting,
            "seed": self.seed,
        }

    def as_table(self) -> Table:
        """The same for a terminal."""
        table = Table(title=f"checkpoint {self.checkpoint_digest[:12]}")
        table.add_column("")
        for row in ROWS:
            table.add_column(row, justify="right")
        table.add_column("n", justify="right")

        def add(name: str, values: Sequence[Proportion | None]) -> None:
            known = [v for v in values if v is not None]
            n = f"{known[0].n_trials:,}" if len({v.n_trials for v in known}) == 1 else ""
            table.add_row(name, *("–" if v is None else _words(v) for v in values), n)

        each = [self.rows[row] for row in ROWS]
        add("balanced accuracy", [row.balanced_accuracy for row in each])
        add("accuracy", [row.accuracy for row in each])
        for name in each[0].recall:
            add(f"recall {name}", [row.recall[name] for row in each])
        add("confident", [row.confident for row in each])
        add("wrong of those confident", [row.wrong_confident for row in each])
        if any(row.foreign_texture is not None for row in each):
            add("foreign texture", [row.foreign_texture for row in each])
        add("verdict given", [row.given for row in each])
        add("wrong of those given", [row.wrong_given for row in each])
        add("90 % set holds the class", [row.set_coverage for row in each])
        table.add_row("classes in the set", *(f"{row.set_size:.2f}" for row in each), "")
        table.add_row(
            "calibration error", *(f"{row.calibration.ece.estimate:.3f}" for row in each), ""
        )
        table.add_row("log-loss, nat", *(f"{row.calibration.nll.estimate:.3f}" for row in each), "")
        table.add_row("GFLOP an image", *(f"{row.gflop:.2f}" for row in each), "")
        if self.flagged is not None:
            table.add_row("flagged as anomalous", _words(self.flagged), "", "", "")
        left_out = set(self.class_names) - set(self.candidate_class_names)
        declared = (
            f"declared candidates {', '.join(self.candidate_class_names)} · " if left_out else ""
        )
        table.caption = f"{declared}data {self.data_digest[:12]}"
        return table


def evaluate(
    checkpoint: Checkpoint,
    data: LabelledImages,
    *,
    candidates: Sequence[str] | None = None,
    anomaly: bool = False,
    n_halves: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Classify every cell three ways with the checkpoint's own settings.

    Args:
        checkpoint: the model.
        data: cells at the model's size; their class names are matched to the model's.
        candidates: classes that a laboratory declares; all of the model's by default.
        anomaly: also measure which cells are flagged as anomalous, among all classes whatever is
            declared: the rate of false alarms was measured so.
        n_halves: random halves of these cells on which sets and calibration are refitted; 0 none.
        seed: of the noise draws.

    Raises:
        DataError: if a class of the data is not one of the model's or not declared, or there is no
            image.
    """
    data = data.labelled_for(checkpoint.class_names)
    if not len(data):
        raise DataError("There is no image to evaluate on; check --data and --held-out.")
    names = checkpoint.class_names
    labels = _candidates(names, candidates, data)
    classifier = CellClassifier.from_checkpoint(checkpoint)
    settings = classifier.settings
    if anomaly and settings.anomaly is None:
        raise DataError(
            "This checkpoint has no reference cells to find anomalies with; evaluate without "
            "--anomaly, or train with at least twenty held-out cells of each class."
        )
    if n_halves and (absent := set(names) - {names[k] for k in data.labels.tolist()}):
        raise DataError(
            f"The cells hold no {', '.join(sorted(absent))}, and halves need every class of the "
            "model to calibrate on; evaluate without --halves."
        )
    prepared = classifier.prepared(latents_from_images(data.images).to(checkpoint.device))
    uniforms = keyed_uniforms(data.digests, seed)
    rows: dict[Row, RowEvaluation] = {}
    seconds, seen = {}, {}
    for row in ROWS:
        started = time.perf_counter()
        seen[row] = looked = looked_with_progress(
            classifier,
            prepared,
            data.digests,
            row,
            f"Classifying, {row}",
            candidates=labels,
            seed=seed,
        )
        seconds[row] = time.perf_counter() - started
        own = settings.rows[row]
        log_p = own.posterior.log_probabilities(looked.evidence, candidates=labels)
        rule = (
            None
            if own.abstention is None or own.default_risk is None
            else own.abstention.rule(own.default_risk)
        )
        sets = own.conformal.conforming(log_p, SET_LEVEL, uniforms=uniforms)
        p_values = classifier.texture_p_values(looked)
        rows[row] = _evaluated(
            log_p,
            data.labels,
            names,
            rule,
            None if p_values is None else p_values <= settings.false_alarm_rate,
            sets,
            gflop=float(looked.flops.mean() / 1e9),
            halves=repeated_halves(
                calibrated_on(looked.evidence, data.labels, row),
                data.labels,
                rng=np.random.default_rng(seed),
                level=SET_LEVEL,
                n_halves=n_halves,
            )
            if n_halves
            else None,
        )
    flagged = None
    if anomaly and settings.anomaly is not None:
        of_all = seen["fused"]
        if len(labels) < len(names):
            of_all = looked_with_progress(
                classifier, prepared, data.digests, "fused", "Classifying, all classes", seed=seed
            )
        cells = _measurements(classifier, prepared, data.digests, of_all, seed)
        flags = [a.is_anomalous(settings.false_alarm_rate) for a in assess(settings.anomaly, cells)]
        flagged = wilson(sum(flags), len(flags))
    return Evaluation(
        rows=rows,
        class_names=names,
        candidate_class_names=tuple(names[k] for k in labels),
        flagged=flagged,
        images_per_second=len(data) / seconds["fused"],
        data_digest=data.digest,
        checkpoint_digest=checkpoint.digest,
        weighting=settings.weighting_name,
        seed=seed,
    )


def _measurements(
    classifier: CellClassifier, prepared: Tensor, digests: Sequence[str], fused: Looked, seed: int
) -> Measurements:
    """What the anomaly score looks at, beyond what the fused row has seen already."""
    log_p = classifier.settings.rows["fused"].posterior.log_probabilities(fused.evidence)
    best = log_p.argmax(axis=1).tolist()
    profiles = []
    with progress_bar() as bar:
        task = bar.add_task("Measuring anomaly", total=len(digests))
        for chunk in batches(len(digests), IMAGES_AT_ONCE):
            profiles.append(
                classifier.profiles(prepared[chunk], digests[chunk], best[chunk], seed=seed)
            )
            bar.update(task, completed=chunk.stop)
    assert fused.first is not None
    return Measurements(
        profiles=np.concatenate(profiles),
        features=fused.first.features,
        texture=fused.first.texture,
        doubt=fused.first.doubt,
        posteriors=np.exp(log_p),
    )


def _candidates(
    names: tuple[str, ...], declared: Sequence[str] | None, data: LabelledImages
) -> list[int]:
    if declared is None:
        return list(range(len(names)))
    unknown = [name for name in declared if name not in names]
    if unknown or len(set(declared)) < 2:
        raise DataError(
            f"Declared classes {', '.join(declared)}; give at least two of {', '.join(names)}."
        )
    labels = [k for k, name in enumerate(names) if name in declared]
    missing = sorted({names[k] for k in data.labels.tolist()} - set(declared))
    if missing:
        raise DataError(
            f"The data holds {', '.join(missing)}, which was not declared; declare every class "
            "that can occur."
        )
    return labels


def _evaluated(
    log_p: NDArray[np.float64],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
    rule: AbstentionRule | None,
    is_foreign: NDArray[np.bool_] | None,
    sets: NDArray[np.bool_],
    *,
    gflop: float,
    halves: Halves | None,
) -> RowEvaluation:
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    verdicts = log_p.argmax(axis=1)
    np.add.at(confusion, (labels, verdicts), 1)
    recalls = {
        name: wilson(int(confusion[k, k]), int(confusion[k].sum()))
        for k, name in enumerate(names)
        if confusion[k].sum()
    }
    is_wrong = verdicts != labels
    is_confident = np.ones(len(labels), dtype=np.bool_) if rule is None else ~rule.abstains(log_p)
    is_given = is_confident if is_foreign is None else is_confident & ~is_foreign
    return RowEvaluation(
        balanced_accuracy=mean_of_proportions(list(recalls.values())),
        accuracy=wilson(int(np.trace(confusion)), len(labels)),
        recall=recalls,
        confusion_matrix=confusion,
        calibration=calibration_of(np.exp(log_p), labels, rng=np.random.default_rng(0)),
        risk=None if rule is None else rule.risk,
        foreign_texture=None if is_foreign is None else _share(is_foreign),
        confident=_share(is_confident),
        wrong_confident=_share(is_wrong[is_confident]) if is_confident.any() else None,
        given=_share(is_given),
        wrong_given=_share(is_wrong[is_given]) if is_given.any() else None,
        set_coverage=wilson(int(sets[np.arange(len(labels)), labels].sum()), len(labels)),
        set_size=float(sets.sum(axis=1).mean()),
        gflop=gflop,
        halves=halves,
    )


def _share(claims: NDArray[np.bool_]) -> Proportion:
    return wilson(int(claims.sum()), len(claims))


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


def _words(value: Proportion) -> str:
    return f"{value.estimate:.3f} ({value.ci_low:.3f}–{value.ci_high:.3f})"
