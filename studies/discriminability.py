"""How discriminable a case is, and readers and models compared on that one axis.

The index may be a model's confidence in the case, the mean confidence of the other readers, or any
other number; larger is easier. Trials are counted in blocks along it, and each observer gets a
psychometric function.

N trials, B blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from studies.estimate import Estimate
from studies.psychometric import PsychometricFit, estimate_from, fit
from studies.psychometric_model import PsychometricError, SigmoidName, as_array, refuse_row
from studies.psychometric_posterior import Marginal, distribution

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Trials counted in blocks along the index, which is the input of a fit. (B,)"""

    levels: Array
    """Mean index of the trials of each block."""
    lowest: Array
    highest: Array
    """The smallest and the largest index in each block."""
    n_correct: NDArray[np.int64]
    n_trials: NDArray[np.int64]
    rule: str
    """How the trials were divided, as a methods section would say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdDifference:
    """One observer's threshold minus another's."""

    difference: Estimate
    probability_greater: float | None
    """Posterior probability that the first threshold exceeds the second."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observer:
    """One reader or model on the common axis."""

    name: str
    n_trials: int
    n_correct: int
    n_left_out: int
    """Trials whose index is missing, such as a case that no other reader judged."""
    blocks: Blocks
    fit: PsychometricFit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Readers and models on one axis of discriminability."""

    index: str
    stimulus_range: tuple[float, float] | None
    """Range of the levels of all observers, which sets the same prior for each."""
    observers: tuple[Observer, ...]
    probability_greater: tuple[tuple[float | None, ...], ...]
    """Posterior probability that the row's unscaled threshold exceeds the column's."""

    def table(self) -> pd.DataFrame:
        """One row for each observer; what is not estimable is None, and `reason` says why."""
        return pd.DataFrame([_row(one) for one in self.observers], dtype=object)


def blocks_of_equal_count(index: ArrayLike, is_correct: ArrayLike, *, n_blocks: int = 10) -> Blocks:
    """Trials divided into `n_blocks` blocks of as equal a count as ties allow.

    Trials are ordered by the index. A block may end only between two different values, so that
    equal trials share a block. Of those places, the ends are the ones nearest to 1/n, 2/n, … of
    the trials, the lower one if two are as near; where two ends fall together there is a block
    less. An index of few values (a rating scale) thus makes a block of each.

    Args:
        index: discriminability of each trial. (N,)
        is_correct: whether each answer was right. (N,)

    Raises:
        PsychometricError: for a missing or infinite index, an answer that is neither right nor
            wrong, or fewer than 2 blocks.
    """
    if n_blocks < 2:
        raise PsychometricError(f"n_blocks={n_blocks}; a curve needs at least 2, better 8 to 12.")
    x, correct = _checked_trials(index, is_correct)
    rule = (
        f"trials ordered by the index and divided into at most {n_blocks} blocks of equal count, "
        "without dividing trials of the same index; the level of a block is its mean index"
    )
    values, counts = np.unique(x, return_counts=True)
    ends = np.cumsum(counts)
    last = [len(values) - 1]
    if len(x):
        # argmin takes the first, hence the lower, of two that are as near.
        wanted = len(x) * np.arange(1, n_blocks) / n_blocks
        last += [int(np.abs(ends - place).argmin()) for place in wanted]
    block = np.searchsorted(values[np.unique(last)], x) if len(x) else np.zeros(0, dtype=np.intp)
    trials = pd.DataFrame({"x": x, "correct": correct}).groupby(block)
    return Blocks(
        levels=trials["x"].mean().to_numpy(dtype=np.float64),
        lowest=trials["x"].min().to_numpy(dtype=np.float64),
        highest=trials["x"].max().to_numpy(dtype=np.float64),
        n_correct=trials["correct"].sum().to_numpy(dtype=np.int64),
        n_trials=np.asarray(trials["x"].count(), dtype=np.int64),
        rule=rule,
    )


def consensus_confidence(
    responses: pd.DataFrame,
    *,
    participant: str = "participant_id",
    stimulus: str = "stimulus_id",
    confidence: str = "confidence",
) -> Array:
    """Mean confidence of the other readers in each case: an index that owes the reader nothing.

    Leave-one-out: each other reader counts once, with the mean over repeats; the reader's own
    answers, repeats included, do not count. NaN marks a case that no other reader judged, and
    `compare_observers` counts and leaves out such trials.

    Returns:
        One value for each row of `responses`. (N,)

    Raises:
        PsychometricError: if a column is missing, or a confidence is no finite number.
    """
    _refuse_missing_columns(responses, participant, stimulus, confidence)
    for column in (participant, stimulus):
        refuse_row(responses[column].isna(), f"`{column}` is empty", "fill it in")
    values = pd.to_numeric(responses[confidence], errors="coerce").to_numpy(dtype=np.float64)
    refuse_row(~np.isfinite(values), f"`{confidence}` is no finite number", "give one or drop it")
    reader, _ = pd.factorize(responses[participant])
    case, _ = pd.factorize(responses[stimulus])
    own = pd.Series(values).groupby([reader, case]).transform("mean").to_numpy(dtype=np.float64)
    once = ~pd.DataFrame({"reader": reader, "case": case}).duplicated().to_numpy()
    total = np.bincount(case, weights=own * once)[case] - own
    n_others = np.bincount(case, weights=once)[case] - 1
    return np.where(n_others > 0, total / np.maximum(n_others, 1), np.nan)


def threshold_difference(one: PsychometricFit, other: PsychometricFit) -> ThresholdDifference:
    """Unscaled threshold of `one` minus that of `other`, and the probability that it is positive.

    The two posteriors are taken as independent. Observers who judged the same cases share what
    the index does not say about them; this mostly makes the interval too wide.

    Raises:
        PsychometricError: if the two were read at different proportions or levels of confidence.
    """
    if (one.proportion_correct, one.confidence_level) != (
        other.proportion_correct,
        other.confidence_level,
    ):
        raise PsychometricError(
            f"thresholds at {one.proportion_correct:.0%} and {other.proportion_correct:.0%} "
            f"correct, intervals of {one.confidence_level:.0%} and {other.confidence_level:.0%}: "
            "fit both with the same `proportion_correct` and `confidence_level`."
        )
    level = one.confidence_level
    method = f"difference of thresholds, independent posteriors; {one.method}"
    for fitted in (one, other):
        if not fitted.threshold_unscaled.is_estimable:
            reason = f"one of the thresholds is not estimable: {fitted.threshold_unscaled.reason}"
            refused = Estimate.not_estimable(method, reason, level)
            return ThresholdDifference(difference=refused, probability_greater=None)
    first, second = (each.marginals["threshold_unscaled"] for each in (one, other))
    differences = np.linspace(
        first.values[0] - second.values[-1], first.values[-1] - second.values[0], 801
    )
    found = distribution(differences, _cdf_of_difference(first, second, differences))
    return ThresholdDifference(
        difference=estimate_from(found, method, level),
        probability_greater=_probability_greater(first, second),
    )


def compare_observers(
    trials: pd.DataFrame,
    *,
    index: str,
    guess_rate: float | Literal["free", "lapse"],
    observer: str = "participant_id",
    is_correct: str = "is_correct",
    n_blocks: int = 10,
    sigmoid: SigmoidName = "normal",
    proportion_correct: float = 0.8,
    confidence_level: float = 0.95,
    engine: Literal["own", "psignifit", "auto"] = "own",
) -> Comparison:
    """Readers and models on one axis: thresholds and widths over the same index.

    The trials of each observer are divided into blocks of equal count. The prior is the same for
    all, from the range of all levels, so that observers differ by their answers only.

    Args:
        trials: one row for each answer; a model is an observer like any other.
        index: column of discriminability: confidence of a model in the case,
            `consensus_confidence`, or any other; larger is easier. Missing values are left out.
        is_correct: column of right (1, true) and wrong (0, false) answers.

    Raises:
        PsychometricError: if a column is missing, or holds what it must not; rows count from 1.
    """
    _refuse_missing_columns(trials, index, observer, is_correct)
    refuse_row(trials[observer].isna(), f"`{observer}` is empty", "name the observer")
    values = pd.to_numeric(trials[index], errors="coerce").to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    refuse_row(
        ~known & trials[index].notna(),
        f"`{index}` is no finite number",
        "give a number, or leave the cell empty",
    )
    is_right = {True: 1.0, False: 0.0}  # and 1 and 0, which are equal to them
    correct = as_array([is_right.get(answer, np.nan) for answer in trials[is_correct]])
    refuse_row(
        np.isnan(correct), f"`{is_correct}` is neither right nor wrong", "give true, false, 1 or 0"
    )
    rows_of = dict(trials.groupby(observer, sort=False).indices)
    blocks_of = {
        name: blocks_of_equal_count(values[used], correct[used], n_blocks=n_blocks)
        for name, rows in rows_of.items()
        for used in [rows[known[rows]]]
    }
    levels = np.concatenate([np.empty(0), *(blocks.levels for blocks in blocks_of.values())])
    has_range = len(np.unique(levels)) > 1
    stimulus_range = (float(levels.min()), float(levels.max())) if has_range else None
    observers = tuple(
        Observer(
            name=str(name),
            n_trials=int(blocks.n_trials.sum()),
            n_correct=int(blocks.n_correct.sum()),
            n_left_out=int((~known[rows_of[name]]).sum()),
            blocks=blocks,
            fit=fit(
                blocks.levels,
                blocks.n_correct,
                blocks.n_trials,
                guess_rate=guess_rate,
                sigmoid=sigmoid,
                proportion_correct=proportion_correct,
                stimulus_range=stimulus_range,
                confidence_level=confidence_level,
                engine=engine,
            ),
        )
        for name, blocks in blocks_of.items()
    )
    return Comparison(
        index=index,
        stimulus_range=stimulus_range,
        observers=observers,
        probability_greater=_pairwise([one.fit for one in observers]),
    )


def _cdf_of_difference(first: Marginal, second: Marginal, differences: Array) -> Array:
    """Of first − second, independent."""
    middles = (second.values[1:] + second.values[:-1]) / 2
    masses = np.diff(second.cdf) / (second.cdf[-1] - second.cdf[0])
    shifted = differences[:, None] + middles
    return np.asarray(np.interp(shifted, first.values, first.cdf) @ masses, dtype=np.float64)


def _probability_greater(first: Marginal, second: Marginal) -> float:
    return 1 - float(_cdf_of_difference(first, second, np.zeros(1))[0])


def _pairwise(fits: Sequence[PsychometricFit]) -> tuple[tuple[float | None, ...], ...]:
    n = len(fits)
    table: list[list[float | None]] = [[None] * n for _ in fits]
    for i, one in enumerate(fits):
        for j in range(i + 1, n):
            if one.is_estimable and fits[j].is_estimable:
                greater = _probability_greater(
                    one.marginals["threshold_unscaled"], fits[j].marginals["threshold_unscaled"]
                )
                table[i][j], table[j][i] = greater, 1 - greater
    return tuple(tuple(row) for row in table)


def _checked_trials(index: ArrayLike, is_correct: ArrayLike) -> tuple[Array, Array]:
    x = as_array(index)
    try:
        correct = as_array(is_correct)
    except (TypeError, ValueError):
        raise PsychometricError(
            "an answer is right (1, true) or wrong (0, false); a text or an empty cell is neither."
        ) from None
    if x.ndim != 1 or x.shape != correct.shape:
        raise PsychometricError(
            f"index {x.shape} and is_correct {correct.shape} are not two lists of one length; "
            "give one of each for each trial."
        )
    refuse_row(~np.isfinite(x), "the index is no finite number", "give one or drop the trial")
    refuse_row(
        ~np.isin(correct, (0, 1)),
        "the answer is neither right (1) nor wrong (0)",
        "give 0 or 1, or drop the trial",
    )
    return x, correct


def _refuse_missing_columns(table: pd.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise PsychometricError(
            f"column `{missing[0]}` is missing; the table has {', '.join(map(str, table.columns))}."
        )


def _row(one: Observer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "observer": one.name,
        "n_trials": one.n_trials,
        "n_correct": one.n_correct,
        "n_left_out": one.n_left_out,
        "n_blocks": len(one.blocks.levels),
    }
    for name in (
        "threshold_unscaled",
        "threshold_scaled",
        "width",
        "lapse_rate",
        "guess_rate",
        "eta",
    ):
        estimate: Estimate = getattr(one.fit, name)
        row |= {
            name: estimate.estimate,
            f"{name}_ci_low": estimate.ci_low,
            f"{name}_ci_high": estimate.ci_high,
        }
    return row | {"cautions": " ".join(one.fit.cautions), "reason": one.fit.reason}
