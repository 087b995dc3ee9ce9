"""How easy a picture must be to be judged right: the curve of readers, groups and the model.

As in Figure 2 of the paper: the proportion that was right against an index of how easy each picture
is to tell, the threshold at 80 % of the unscaled curve, and all observers on one axis.
"""

import re
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from studies.discriminability import (
    Blocks,
    blocks_of_equal_count,
    compare_observers,
    consensus_confidence,
    threshold_difference,
)
from studies.estimate import Estimate
from studies.plotting import as_counted
from studies.protocol import Protocol
from studies.psychometric import PsychometricFit, fit, plot_data

SEED = 1
"""Of the draws from the posterior behind the bands."""
PROPORTION_CORRECT = 0.8
GUESS_RATE = 0.5
"""Of readers: two answers, and as many real as generated pictures."""
MARGINALS = ("threshold_unscaled", "width", "lambda", "gamma", "eta")

Kind = Literal["pooled", "group", "reader", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """ψ level by level, posterior median and credible band; proportions. (100,)"""

    levels: tuple[float, ...]
    proportion: tuple[float, ...]
    band_low: tuple[float, ...]
    band_high: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverCurve:
    """One reader, group of readers or model."""

    kind: Kind
    name: str
    n_trials: int
    n_correct: int
    n_left_out: int
    """Judgements whose picture has no index."""
    threshold: Estimate
    """Level at 80 % of the unscaled sigmoid."""
    width: Estimate
    lapse_rate: Estimate
    guess_rate: Estimate
    eta: Estimate
    block_levels: tuple[float, ...]
    block_proportions: tuple[float, ...]
    block_n_trials: tuple[int, ...]
    curve: Curve | None
    """None where there is none, and for single readers."""
    posteriors: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    """Values and densities of the marginals; empty as `curve`."""
    cautions: tuple[str, ...]
    reason: str | None
    """Why there is no curve, as a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDifference:
    """Threshold of one group less that of another."""

    first: str
    second: str
    difference: Estimate
    probability_greater: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PsychometricResults:
    """The section."""

    confidence_level: float
    index: str | None
    index_label: str
    """The index, as an axis names it."""
    observers: tuple[ObserverCurve, ...]
    """All readers pooled, groups, readers, the model."""
    free_guess: ObserverCurve | None
    """All readers pooled, their guess rate estimated too: whether fixing it at ½ matters."""
    differences: tuple[GroupDifference, ...]
    absent: str | None
    """Why there is no section, as a sentence; None where there is."""


def analyse_psychometric(
    judged: pd.DataFrame, _repeats: pd.DataFrame, protocol: Protocol
) -> PsychometricResults:
    """Curves over the index that the protocol names."""
    level, index = protocol.analysis.confidence_level, protocol.analysis.index
    rows = judged.assign(participant_id=judged["participant_id"].astype(str))
    rows = rows.sort_values(["participant_id", "stimulus_id"], ignore_index=True)
    label, values = _index(rows, index, protocol.confidence_points)
    if isinstance(values, str):
        return PsychometricResults(
            confidence_level=level,
            index=index,
            index_label=label,
            observers=(),
            free_guess=None,
            differences=(),
            absent=values,
        )
    rows = rows.assign(index=values)
    named, parts = _parts(rows)
    compared = compare_observers(
        pd.concat([part.assign(observer=i) for i, part in enumerate(parts)]),
        index="index",
        guess_rate=GUESS_RATE,
        observer="observer",
        proportion_correct=PROPORTION_CORRECT,
        confidence_level=level,
    )
    found = list(zip(named, compared.observers, strict=True))
    rng = np.random.default_rng(SEED)
    observers = [
        _observer(kind, name, one.blocks, one.fit, one.n_left_out, rng)
        for (kind, name), one in found
    ]

    def with_free_guess(kind: Kind, name: str, trials: pd.DataFrame) -> ObserverCurve:
        blocks = blocks_of_equal_count(trials["index"], trials["is_correct"])
        fitted = fit(
            blocks.levels,
            blocks.n_correct,
            blocks.n_trials,
            guess_rate="free",
            proportion_correct=PROPORTION_CORRECT,
            stimulus_range=compared.stimulus_range,
            confidence_level=level,
        )
        return _observer(kind, name, blocks, fitted, 0, rng)

    if "model_confidence" in rows and index != "model_confidence":
        # Every reader is another to the model.
        seen = rows.assign(index=rows["confidence"]) if index == "consensus" else rows
        pictures = seen.groupby("stimulus_id")[["index", "model_confidence"]].mean().dropna()
        is_correct = pictures["model_confidence"] > 0.5
        observers.append(with_free_guess("model", "Model", pictures.assign(is_correct=is_correct)))
    groups = {name: one.fit for (kind, name), one in found if kind == "group"}
    return PsychometricResults(
        confidence_level=level,
        index=index,
        index_label=label,
        observers=tuple(observers),
        free_guess=with_free_guess("pooled", "All readers", rows[rows["index"].notna()]),
        differences=tuple(
            _difference(first, second, groups) for first, second in combinations(groups, 2)
        ),
        absent=None,
    )


def _index(rows: pd.DataFrame, index: str | None, n_points: int) -> tuple[str, pd.Series | str]:
    """How an axis names the index, and its values; or a sentence why there are none. (n,)"""
    if index is None:
        return "", "The protocol names no index of discriminability (`index`)."
    if index == "consensus":
        label = f"mean confidence of the other readers (1 to {n_points})"
        if "confidence" not in rows:
            return label, (
                "The index is the confidence of the other readers, and the response table has no "
                "column `confidence`."
            )
        values = pd.Series(consensus_confidence(rows), index=rows.index)
        if values.isna().all():
            return label, (
                "The index is the confidence of the other readers, and no two readers judged the "
                "same picture."
            )
        return label, values
    label = {"model_confidence": "model’s confidence in the true class"}.get(index, index)
    if index not in rows:
        return label, f"The response table has no column `{index}`, which the protocol names."
    if not pd.api.types.is_numeric_dtype(rows[index]):
        return label, f"The column `{index}`, which the protocol names, does not hold numbers."
    return label, rows[index].astype(float)


def _parts(rows: pd.DataFrame) -> tuple[list[tuple[Kind, str]], list[pd.DataFrame]]:
    """Kind and name of each observer but the model, and its rows."""
    named: list[tuple[Kind, str]] = [("pooled", "All readers")]
    parts = [rows]
    columns: list[tuple[Kind, str]] = [("reader", "participant_id")]
    if "experience" in rows and rows["experience"].nunique() > 1:
        columns.insert(0, ("group", "experience"))
    for kind, column in columns:
        by_name = dict(iter(rows.groupby(column)))
        for name in sorted(map(str, by_name), key=as_counted):
            named.append((kind, name or "not stated"))
            parts.append(by_name[name])
    return named, parts


def _observer(
    kind: Kind,
    name: str,
    blocks: Blocks,
    found: PsychometricFit,
    n_left_out: int,
    rng: np.random.Generator,
) -> ObserverCurve:
    is_drawn = found.is_estimable and kind != "reader"
    curve = None
    if is_drawn:
        plotted = plot_data(found, rng=rng, n_levels=100)
        curve = Curve(
            levels=tuple(plotted.levels.tolist()),
            proportion=tuple(plotted.proportion.tolist()),
            band_low=tuple(plotted.band_low.tolist()),
            band_high=tuple(plotted.band_high.tolist()),
        )
    return ObserverCurve(
        kind=kind,
        name=name,
        n_trials=int(blocks.n_trials.sum()),
        n_correct=int(blocks.n_correct.sum()),
        n_left_out=n_left_out,
        threshold=found.threshold_unscaled,
        width=found.width,
        lapse_rate=found.lapse_rate,
        guess_rate=found.guess_rate,
        eta=found.eta,
        block_levels=tuple(blocks.levels.tolist()),
        block_proportions=tuple((blocks.n_correct / blocks.n_trials).tolist()),
        block_n_trials=tuple(blocks.n_trials.tolist()),
        curve=curve,
        posteriors={
            which: (
                tuple(found.marginals[which].values.tolist()),
                tuple(found.marginals[which].density.tolist()),
            )
            for which in MARGINALS
            if is_drawn and which in found.marginals
        },
        cautions=found.cautions,
        reason=found.reason,
    )


def _difference(first: str, second: str, fits: dict[str, PsychometricFit]) -> GroupDifference:
    found = threshold_difference(fits[first], fits[second])
    return GroupDifference(
        first=first,
        second=second,
        difference=found.difference,
        probability_greater=found.probability_greater,
    )


def psychometric_notes(results: PsychometricResults) -> tuple[str, ...]:
    """Why what is not estimable is not, and what to bear in mind."""
    found: dict[str, list[str]] = {}
    for one in results.observers:
        why_not = (f"The curve is not estimable: {one.reason}.",) if one.reason else ()
        for note in (*why_not, *one.cautions):
            # Without the numbers, which differ between observers.
            found.setdefault(re.sub(r" \([^)]*\)", "", note), []).append(one.name)
    left_out = sum(one.n_left_out for one in results.observers if one.kind == "pooled")
    missing = f"{left_out} judgements of pictures without an index are left out."
    notes = tuple(f"{note} ({', '.join(who)})" for note, who in found.items())
    return notes + ((missing,) if left_out else ())


def psychometric_methods(results: PsychometricResults) -> tuple[str, ...]:
    """What was done, in sentences."""
    if results.absent is not None:
        return ()
    said = [
        "The proportion of right answers was fitted by a cumulative normal curve of the index with "
        "lapse rate and over-dispersion (beta-binomial), with the priors of psignifit 4 and its "
        "posterior on a grid [Schütt 2016]; estimates are posterior medians, intervals "
        "equal-tailed. The guess rate of readers was fixed at ½, chance between two answers.",
        "The threshold is where the curve, unscaled by lapses and guesses, is at "
        f"{100 * PROPORTION_CORRECT:g} %; the width is the distance of its 5 % and 95 % points. "
        "Each observer’s judgements were ordered by the index and divided into at most 10 blocks "
        "of equal count, and all observers have the same prior.",
        "Curves over several readers take their judgements as independent but for the "
        "over-dispersion between blocks, and are for these readers.",
    ]
    if results.index == "consensus":
        said.append(
            "The index of a picture is the mean confidence of all readers but the one who is "
            "judged, so that nobody’s own confidence counts."
        )
    if any(one.kind == "model" for one in results.observers):
        said.append(
            "The model counts as right where its confidence in the true class exceeds ½; its guess "
            "rate is estimated, because its number of classes is not in the table."
        )
    return tuple(said)
