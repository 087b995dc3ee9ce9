"""All that a checkpoint decides with besides its weights, from cells that training kept aside.

The cells are halved by content. The first half, and copies of it that look as other laboratories'
cells do, choose level weights, level plan, variance prior and the calibration of each row; the
second half gives conformal scores and abstention; anomaly references come from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion.anomaly import AnomalyReference, Measurements, fit_anomaly_reference
from diffusion.cell_classifier import CellClassifier, FirstView, Looked
from diffusion.classifier_settings import ClassifierSettings, RowSettings
from diffusion.conformal import (
    AbstentionCalibration,
    fit_abstention,
    fit_conformal,
    keyed_uniforms,
)
from diffusion.draws import DrawPlan, fitted_density
from diffusion.elimination import fit_block_variance_prior
from diffusion.latents import image_digest, images_from_latents, latents_from_images
from diffusion.network import CellDenoiser
from diffusion.probability import Evidence, Row, fit_posterior
from diffusion.weighting import (
    LearnedWeighting,
    Weighting,
    binned_margins,
    block_log_likelihoods,
    fit_learned_weights,
    pair_scores,
    robust,
)
from training.augmentation import Augmentation, augmented
from training.data import LabelledImages, batches
from training.progress import Tenths, progress_bar

IMAGES_AT_ONCE = 32
RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Rates of wrong verdicts that are tried, strictest first, for the checkpoint's default."""
FALSE_ALARM_RATES = (0.01, 0.02, 0.05, 0.1)
WIDE = DrawPlan(log_snr_min=-2.0, log_snr_max=7.0, n_levels=9, n_blocks=1, turned=True)
"""Where weights and density are learned: a pair in every unit of log-SNR."""
N_RACE_LEVELS = 3
"""Width of the race's range, in levels of the wide plan. Fewer would hang on chance."""
NEGLIGIBLE_LOG_LOSS = 0.01
"""In nats: levels that lose less are as good as one another."""
MIN_REFERENCE_PER_CLASS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingPlan:
    """How many cells each step looks at, and the budgets of the races."""

    per_class: int = 40
    """Cells of each class, and as many altered ones, for weights, density and variance prior."""
    calibrated_per_class: int = 80
    """Cells of each class, and as many altered ones, for the rows' calibration."""
    n_levels: int = 1
    """Pairs in a block of the race."""
    generative_blocks: int = 4
    fused_blocks: int = 4
    """Budgets. Most races end after the first block, those of the fused row nearly all, as the head
    starts its class far ahead."""
    head_views: int = 4
    look_again_below: float = 0.95
    altered: bool = True
    """Whether altered copies stand beside the cells that choose and calibrate."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Prepared images of the cells that something is fitted on."""

    prepared: Tensor
    digests: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.intp]) -> "Cells":
        """Some of them, by number."""
        return Cells(
            prepared=self.prepared[torch.from_numpy(chosen)],
            digests=tuple(self.digests[i] for i in chosen),
            labels=self.labels[chosen],
        )


def fit_classifier(
    network: CellDenoiser,
    held_out: LabelledImages,
    background: Tensor,
    look: Augmentation,
    plan: FittingPlan | None = None,
) -> ClassifierSettings:
    """The settings under which a network decides best on cells it was not trained on.

    Args:
        network: trained, averaged weights.
        held_out: cells kept from training, at least two of each class.
        background: the training set's ground. (3,)
        look: how far altered copies are altered.
        plan: sizes and budgets.
    """
    plan = plan or FittingPlan()
    device = next(network.parameters()).device
    draw_plan = DrawPlan(
        log_snr_min=WIDE.log_snr_min,
        log_snr_max=WIDE.log_snr_max,
        n_levels=plan.n_levels,
        n_blocks=plan.generative_blocks,
        turned=True,
    )
    plain = ClassifierSettings.uncalibrated(len(held_out.class_names), draw_plan).model_copy(
        update={
            "generative_blocks": plan.generative_blocks,
            "fused_blocks": plan.fused_blocks,
            "head_views": plan.head_views,
            "look_again_below": plan.look_again_below,
        }
    )

    def classifier_with(settings: ClassifierSettings) -> CellClassifier:
        return CellClassifier(
            network, settings, held_out.class_names, background=background.tolist()
        )

    # --- the cells, and their altered copies
    classifier = classifier_with(plain)
    is_first = np.array([int(d[8:12], 16) % 2 == 0 for d in held_out.digests])
    # Both halves need cells of every class.
    for k in range(len(held_out.class_names)):
        if len(set(is_first[held_out.labels == k])) < 2:
            return _uncalibrated(plain, "a class has too few held-out cells to halve them")
    clean = _prepared(classifier, held_out, device)
    first = clean.take(np.flatnonzero(is_first))
    second = clean.take(np.flatnonzero(~is_first))
    altered = _altered(classifier, held_out.where(is_first), look, background, plan, device)

    # --- level weights, and where to draw levels
    tuning = [_first_of_each(cells, plan.per_class) for cells in (first, altered) if len(cells)]
    tables = [_errors(classifier, cells, "Learning weights") for cells in tuning]
    errors, log_snr = (torch.cat([table[i] for table in tables]) for i in (0, 1))
    if torch.equal(errors, errors[..., :1].expand_as(errors)):
        return _uncalibrated(plain, "the network denoises alike under every class; train it longer")
    labels = torch.from_numpy(np.concatenate([cells.labels for cells in tuning]))
    kinds = torch.from_numpy(np.repeat(np.arange(len(tuning)), [len(cells) for cells in tuning]))
    levels, level_facts = _race_levels(errors, log_snr, labels, kinds)
    draws = slice(2 * levels.start, 2 * levels.stop)  # two signs at each level
    errors, log_snr = errors[:, draws], log_snr[:, draws]
    narrow = _levels_of_wide(levels)
    weighting, weight_facts = _weighting(errors, log_snr, labels, narrow)
    settings = plain.model_copy(
        update={
            "weighting": weighting or "robust",
            "draw_plan": narrow.model_copy(
                update={
                    "n_levels": plan.n_levels,
                    "n_blocks": plan.generative_blocks,
                    "density": _density(errors, log_snr, narrow, weighting or robust),
                }
            ),
        }
    )

    # --- how much blocks vary
    classifier = classifier_with(settings)
    few = [_first_of_each(cells, max(2, plan.per_class // 4)) for cells in tuning]
    blocks = [_blocks(classifier, cells) for cells in few]
    settings = settings.model_copy(
        update={"variance_prior": fit_block_variance_prior(torch.cat(blocks).numpy())}
    )

    # --- probabilities of each row: the head first, as it prunes for the fused one
    calibrating = [
        _first_of_each(cells, plan.calibrated_per_class) for cells in (first, altered) if len(cells)
    ]
    facts: dict[str, Any] = {
        "n_cells": len(clean),
        "n_altered": len(altered),
        "data_digest": held_out.digest,
        "levels": level_facts,
        "weights": weight_facts,
        "rows": {},
    }
    row: Row
    known = np.concatenate([cells.labels for cells in calibrating])
    for row in ("head", "generative", "fused"):
        # A first calibration tells how far ahead the head starts its class in the fused races; the
        # second one is fitted on races with that start, as later verdicts come from such.
        for _ in range(2 if row == "fused" else 1):
            classifier = classifier_with(settings)
            seen = [_looked(classifier, cells, row, f"Calibrating {row}") for cells in calibrating]
            posterior = fit_posterior(_joined([one.evidence for one in seen]), known, row)
            fitted = settings.rows[row].model_copy(update={"posterior": posterior})
            settings = settings.model_copy(update={"rows": {**settings.rows, row: fitted}})
        after = _looked(classifier_with(settings), second, row, f"Measuring {row}")
        log_p = posterior.log_probabilities(after.evidence)
        abstention, risk = _abstention(log_p, second.labels)
        of_row = RowSettings(
            posterior=posterior,
            conformal=fit_conformal(log_p, second.labels, uniforms=keyed_uniforms(second.digests)),
            abstention=abstention,
            default_risk=risk,
        )
        settings = settings.model_copy(update={"rows": {**settings.rows, row: of_row}})
        facts["rows"][row] = {
            "balanced_accuracy": _balanced_accuracy(log_p, second.labels),
            "n": len(second),
            "gflop": float(after.flops.mean() / 1e9),
        }

    # --- what the reference cells look like
    reference = _anomaly(classifier_with(settings), clean)
    return settings.model_copy(
        update={
            "anomaly": reference,
            "false_alarm_rate": _false_alarm_rate(reference),
            "facts": facts,
        }
    )


def _uncalibrated(settings: ClassifierSettings, reason: str) -> ClassifierSettings:
    return settings.model_copy(update={"facts": {"uncalibrated": reason}})


def _prepared(classifier: CellClassifier, data: LabelledImages, device: torch.device) -> Cells:
    latents = latents_from_images(data.images).to(device)
    return Cells(prepared=classifier.prepared(latents), digests=data.digests, labels=data.labels)


def _altered(
    classifier: CellClassifier,
    data: LabelledImages,
    look: Augmentation,
    background: Tensor,
    plan: FittingPlan,
    device: torch.device,
) -> Cells:
    """Each cell as another laboratory might have photographed it."""
    if not plan.altered:
        none = np.zeros(0, dtype=np.intp)
        return _prepared(classifier, data, device).take(none)
    generator = torch.Generator().manual_seed(plan.seed + 1)
    strongest = replace(look, strong_fraction=1.0, balanced_fraction=0.0)
    latents, _, _ = augmented(latents_from_images(data.images), generator, strongest, background)
    images = images_from_latents(latents)
    return Cells(
        prepared=classifier.prepared(latents_from_images(images).to(device)),
        digests=tuple(image_digest(image) for image in images),
        labels=data.labels,
    )


def _first_of_each(cells: Cells, n: int) -> Cells:
    chosen = [np.flatnonzero(cells.labels == k)[:n] for k in np.unique(cells.labels)]
    return cells.take(np.sort(np.concatenate(chosen)))


def _looked(
    classifier: CellClassifier, cells: Cells, row: Row, description: str, **options: Any
) -> Looked:
    return looked_with_progress(
        classifier, cells.prepared, cells.digests, row, description, **options
    )


def looked_with_progress(
    classifier: CellClassifier,
    prepared: Tensor,
    digests: Sequence[str],
    row: Row,
    description: str,
    **options: Any,
) -> Looked:
    """`CellClassifier.look` at many images, part by part, with progress."""
    parts: list[Looked] = []
    tenths = Tenths(description, len(digests))
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(digests))
        for chunk in batches(len(digests), IMAGES_AT_ONCE):
            parts.append(classifier.look(prepared[chunk], digests[chunk], row=row, **options))
            bar.update(task, completed=chunk.stop)
            tenths.at(chunk.stop)
    return Looked(
        head=_concatenated([part.head for part in parts]),
        first=None
        if row == "generative"
        else FirstView.joined([part.first for part in parts if part.first is not None]),
        n_head_views=np.concatenate([part.n_head_views for part in parts]),
        races=None if row == "head" else [race for part in parts for race in part.races or []],
        flops=np.concatenate([part.flops for part in parts]),
        n_classes=parts[0].n_classes,
    )


def _concatenated(parts: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _errors(classifier: CellClassifier, cells: Cells, description: str) -> tuple[Tensor, Tensor]:
    """Errors (n, N, K) and levels (n, N) of all classes under the wide plan."""
    looked = _looked(
        classifier,
        cells,
        "generative",
        description,
        plan=WIDE,
        max_blocks=WIDE.n_blocks,
        alpha=0.0,
        weighting=robust,
    )
    assert looked.races is not None
    return (
        torch.stack([race.errors for race in looked.races]),
        torch.stack([race.log_snr for race in looked.races]),
    )


def _blocks(classifier: CellClassifier, cells: Cells, n_blocks: int = 4) -> Tensor:
    """Scores of all classes by each block of the settings' own plan. (n, n_blocks, K)"""
    looked = _looked(
        classifier, cells, "generative", "Measuring variance", max_blocks=n_blocks, alpha=0.0
    )
    assert looked.races is not None
    return block_log_likelihoods(
        torch.stack([race.errors for race in looked.races]),
        torch.stack([race.log_snr for race in looked.races]),
        classifier.settings.draw_plan,
        classifier.settings.weighting_function,
    )


def _levels_of_wide(levels: range) -> DrawPlan:
    """The wide plan cut down to some of its levels, one block as it was drawn."""
    width = (WIDE.log_snr_max - WIDE.log_snr_min) / WIDE.n_levels
    return WIDE.model_copy(
        update={
            "log_snr_min": WIDE.log_snr_min + width * levels.start,
            "log_snr_max": WIDE.log_snr_min + width * levels.stop,
            "n_levels": len(levels),
        }
    )


def _race_levels(
    errors: Tensor, log_snr: Tensor, labels: Tensor, kinds: Tensor
) -> tuple[range, dict[str, Any]]:
    """The neighbouring levels of the wide plan at which one pair tells classes apart best.

    A race begins with a single pair, so each level is judged by the log-loss of a pair alone, under
    a temperature of its own. Draws from levels that agree vary little, which is what lets a race
    end early. Cells and altered copies (two `kinds`, (n,)) weigh alike: means of the logarithms, as
    the altered ones' losses are several times the others'.
    """
    pairs = pair_scores(errors, log_snr, WIDE, robust)
    n_levels, n_kinds = pairs.shape[1], int(kinds.max()) + 1
    log_losses = np.array(
        [
            [
                _least_log_loss(pairs[kinds == kind, j], labels[kinds == kind])
                for j in range(n_levels)
            ]
            for kind in range(n_kinds)
        ]
    )
    judged = np.log(log_losses + NEGLIGIBLE_LOG_LOSS).mean(axis=0)
    windows = [judged[i : i + N_RACE_LEVELS].mean() for i in range(n_levels - N_RACE_LEVELS + 1)]
    first = int(np.argmin(windows))
    by_level = {
        f"{level:.1f}": {
            "log_loss": log_losses[:, j].tolist(),
            "balanced_accuracy": [
                _balanced_accuracy(pairs[kinds == kind, j].numpy(), labels[kinds == kind].numpy())
                for kind in range(n_kinds)
            ],
        }
        for j, level in enumerate(log_snr[:, ::2].mean(dim=0).tolist())
    }
    return range(first, first + N_RACE_LEVELS), {"by_level": by_level}


def _weighting(
    errors: Tensor, log_snr: Tensor, labels: Tensor, plan: DrawPlan, n_folds: int = 5
) -> tuple[LearnedWeighting | None, dict[str, Any]]:
    """Learned weights, if they are surely worth more than `robust` on cells they have not seen."""
    fold = torch.arange(len(labels)) % n_folds
    losses = {name: torch.zeros(len(labels), dtype=torch.float64) for name in ("learned", "robust")}
    for i in range(n_folds):
        train, test = fold != i, fold == i
        learned, _ = fit_learned_weights(
            errors[train], log_snr[train], labels[train], plan, n_bins=plan.n_levels, penalty=1e-3
        )
        weightings: dict[str, Weighting] = {"learned": learned, "robust": robust}
        for name, weighting in weightings.items():
            scores = block_log_likelihoods(errors, log_snr, plan, weighting).mean(dim=1)
            temperature = _temperature(scores[train], labels[train])
            losses[name][test] = _log_losses(scores[test] / temperature, labels[test])
    weighting, _ = fit_learned_weights(
        errors, log_snr, labels, plan, n_bins=plan.n_levels, penalty=1e-3
    )
    gain = losses["robust"] - losses["learned"]
    mean, standard_error = float(gain.mean()), float(gain.std() / len(gain) ** 0.5)
    facts = {
        "log_loss": {name: float(values.mean()) for name, values in losses.items()},
        "gain_standard_error": standard_error,
        "factors": list(weighting.weights),
    }
    # Weights that gain nothing certain only make draws at different levels disagree.
    return (weighting if mean > 2 * standard_error else None), facts


def _temperature(scores: Tensor, labels: Tensor) -> float:
    """Divisor of the scores under which the labels are likeliest, on a grid of 3 % steps."""
    largest = float(scores.abs().max())
    if largest == 0:
        return 1.0
    candidates = largest * torch.logspace(-4, 1, 400)
    losses = [_log_loss(scores / t, labels) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def _least_log_loss(scores: Tensor, labels: Tensor) -> float:
    return _log_loss(scores / _temperature(scores, labels), labels)


def _log_loss(logits: Tensor, labels: Tensor) -> float:
    return float(_log_losses(logits, labels).mean())


def _log_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]


def _density(
    errors: Tensor, log_snr: Tensor, plan: DrawPlan, weighting: Weighting
) -> tuple[float, ...]:
    """Where the best two classes' weighted losses differ, by bin of the plan."""
    margins = binned_margins(errors, log_snr, plan, weighting, n_bins=plan.n_levels)
    # A few cells with enormous errors would place all draws.
    largest = margins.abs().quantile(0.98)
    return fitted_density(margins.clamp(-largest, largest).numpy())


def _joined(parts: Sequence[Evidence]) -> Evidence:
    return Evidence(
        scores=_concatenated([part.scores for part in parts]),
        standard_errors=_concatenated([part.standard_errors for part in parts]),
        head=_concatenated([part.head for part in parts]),
    )


def _abstention(
    log_p: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[AbstentionCalibration, float | None]:
    """The calibration, and the strictest of `RISKS` that its cells can vouch for."""
    calibration = fit_abstention(log_p, labels)
    for risk in RISKS:
        try:
            calibration.rule(risk)
        except ValueError:
            continue
        return calibration, risk
    return calibration, None


def _anomaly(classifier: CellClassifier, cells: Cells) -> AnomalyReference | None:
    counts = np.bincount(cells.labels, minlength=len(classifier.class_names))
    if counts.min() < MIN_REFERENCE_PER_CLASS:
        return None
    seen = measured(classifier, cells.prepared, cells.digests, "Measuring reference cells")
    n_bins = classifier.settings.anomaly_plan.n_levels
    return fit_anomaly_reference(
        seen,
        cells.labels,
        high_noise=range(n_bins // 2),
        low_noise=range(n_bins - n_bins // 3, n_bins),
    )


def _false_alarm_rate(reference: AnomalyReference | None) -> float:
    """The lowest of `FALSE_ALARM_RATES` that so many ranked cells can keep."""
    n_ranked = 0 if reference is None else len(reference.surprises)
    possible = [rate for rate in FALSE_ALARM_RATES if (n_ranked + 1) * rate >= 1]
    return possible[0] if possible else FALSE_ALARM_RATES[-1]


def measured(
    classifier: CellClassifier, prepared: Tensor, digests: Sequence[str], description: str
) -> Measurements:
    """What the anomaly score looks at, with progress; the fused row tells the class."""
    posterior = classifier.settings.rows["fused"].posterior
    parts = []
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(prepared))
        for chunk in batches(len(prepared), IMAGES_AT_ONCE):
            looked = classifier.look(prepared[chunk], digests[chunk], row="fused")
            log_p = posterior.log_probabilities(looked.evidence)
            parts.append(classifier.measurements(prepared[chunk], digests[chunk], looked, log_p))
            bar.update(task, completed=chunk.stop)
    return Measurements.joined(parts)


def _balanced_accuracy(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    right = scores.argmax(axis=1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))
