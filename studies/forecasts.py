"""Forecasts and what then happened: of readers and of models, on one footing, and their bins.

A forecast is a probability, an outcome what then happened. Two conventions make forecasts of a
study, and they are calibrated differently: P(generated), whose outcome is whether the picture is
generated, and P(chosen answer), whose outcome is whether the answer is right. A reader's ordinal
confidence becomes a probability by points that the caller declares; by default they lie equally
spaced from 0.5 (a guess) to 1 (certain).

Bins of equal width are closed on the right, the first also on the left; empty bins are listed, and
weigh nothing.

Shapes: n forecasts, K points of a confidence scale, m bins.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.clustered import label_codes

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

Convention = Literal["P(generated)", "P(chosen answer)"]
N_BINS = 10
_DECIMALS = 9
"""Forecasts that differ by less are equal, and lie on an edge that near: 1 − 0.7 is not quite 0.3.
"""
_EDGE = 10.0**-_DECIMALS


class CalibrationError(ValueError):
    """Forecasts or outcomes that cannot be used: which one, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts:
    """Probabilities and what happened, under a named convention."""

    probabilities: Array
    """In [0, 1]. (n,)"""
    outcomes: Array
    """0 or 1. (n,)"""
    convention: Convention


def confidence_points(n_points: int, *, lowest: float = 0.5, highest: float = 1.0) -> Array:
    """Probabilities of a confidence scale, equally spaced. (K,)

    The default says that the lowest answer is a guess between two and the highest is certain. It
    is an assumption about readers, to be declared with the result.

    Raises:
        CalibrationError: for fewer than 2 points, or ends that are no ascending probabilities.
    """
    if n_points < 2 or not 0 <= lowest < highest <= 1:
        raise CalibrationError(
            f"{n_points} points from {lowest:g} to {highest:g} are no confidence scale; give at "
            "least 2, ascending within [0, 1]."
        )
    return np.linspace(lowest, highest, n_points)


def forecasts_of_chosen(
    confidence: ArrayLike, is_correct: ArrayLike, *, points: ArrayLike
) -> Forecasts:
    """P(chosen answer): how sure the reader was, against whether the answer was right.

    Args:
        confidence: answers on the scale, whole numbers from 1 to K. (n,)
        is_correct: whether each answer was right. (n,)
        points: probability of each answer, ascending, such as `confidence_points(K)`. (K,)

    Raises:
        CalibrationError: for lengths that differ, a confidence off the scale, an outcome that is
            neither 0 nor 1, or points that are no ascending probabilities.
    """
    return Forecasts(
        probabilities=_from_scale(confidence, points),
        outcomes=_outcomes(is_correct, len(np.asarray(confidence))),
        convention="P(chosen answer)",
    )


def forecasts_of_generated(
    says_generated: ArrayLike, confidence: ArrayLike, is_generated: ArrayLike, *, points: ArrayLike
) -> Forecasts:
    """P(generated): the reader's probability that the picture is generated, against the truth.

    An answer "real" with probability p is P(generated) = 1 − p.

    Args:
        says_generated: whether the answer was "generated". (n,)
        confidence: answers on the scale, whole numbers from 1 to K. (n,)
        is_generated: the truth. (n,)
        points: probability of the chosen answer, ascending, such as `confidence_points(K)`. (K,)

    Raises:
        CalibrationError: as `forecasts_of_chosen`.
    """
    sure = _from_scale(confidence, points)
    says = _outcomes(says_generated, len(sure))
    return Forecasts(
        probabilities=np.where(says == 1, sure, 1 - sure),
        outcomes=_outcomes(is_generated, len(sure)),
        convention="P(generated)",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bins:
    """Which bin each forecast is in."""

    index: Codes
    """From 0, ascending. (n,)"""
    edges: tuple[float, ...]
    """m + 1 of them; bin i is (edge i, edge i + 1], the first closed on both sides."""
    rule: str

    @property
    def n_bins(self) -> int:
        """How many bins, empty ones too."""
        return len(self.edges) - 1


def equal_width_bins(
    probabilities: ArrayLike, n_bins: int = N_BINS, *, lowest: float = 0.0, highest: float = 1.0
) -> Bins:
    """Bins of equal width, closed on the right; the first holds its left end too.

    A forecast within 1e-9 of an edge lies on it, so that 1 − 0.7 and 0.3 share a bin. Mirrored
    forecasts fall on the other side of an edge: 0.3 is in (0.2, 0.3], and 0.7 in (0.6, 0.7].

    Args:
        probabilities: (n,)
        n_bins: m.
        lowest, highest: ends, such as 0.5 and 1 for P(chosen answer) of two answers.

    Raises:
        CalibrationError: for no bin, ends that are none, or a forecast outside them.
    """
    p = _probabilities(probabilities)
    if n_bins < 1 or not 0 <= lowest < highest <= 1:
        raise CalibrationError(
            f"{n_bins} bins from {lowest:g} to {highest:g} are none; give at least 1, from a "
            "lower to a higher probability."
        )
    outside = (p < lowest - _EDGE) | (p > highest + _EDGE)
    if outside.any():
        row = int(np.argmax(outside))
        raise CalibrationError(
            f"forecast {row + 1} is {p[row]:g}, outside the bins from {lowest:g} to {highest:g}; "
            "widen them."
        )
    place = (p - lowest) / (highest - lowest) * n_bins
    nearest = np.rint(place)
    place = np.where(np.abs(place - nearest) < _EDGE * n_bins, nearest, place)
    return Bins(
        index=np.clip(np.ceil(place) - 1, 0, n_bins - 1).astype(np.int64),
        edges=tuple(lowest + (highest - lowest) * i / n_bins for i in range(n_bins + 1)),
        rule=f"{n_bins} bins of equal width, closed on the right",
    )


def equal_mass_bins(probabilities: ArrayLike, n_bins: int = N_BINS) -> Bins:
    """Bins of about as many forecasts each; equal forecasts share one, so there may be fewer.

    A group of equal forecasts (to 1e-9) goes where the middle of its ranks lies, so that it is not
    torn apart; no bin is empty.

    Args:
        probabilities: (n,)
        n_bins: most bins.

    Raises:
        CalibrationError: for no bin, or no forecast.
    """
    p = _probabilities(probabilities)
    if n_bins < 1:
        raise CalibrationError(f"{n_bins} bins are none; give at least 1.")
    values, inverse, counts = np.unique(
        np.round(p, _DECIMALS), return_inverse=True, return_counts=True
    )
    middle = (np.cumsum(counts) - counts / 2) / len(p)
    wanted = np.minimum((n_bins * middle).astype(np.int64), n_bins - 1)
    used, of_value = np.unique(wanted, return_inverse=True)
    last = [float(values[of_value == i].max()) for i in range(len(used))]
    return Bins(
        index=of_value[inverse].astype(np.int64),
        edges=(float(values[0]), *last),
        rule=f"at most {n_bins} bins of equal mass, equal forecasts together",
    )


def distinct_bins(probabilities: ArrayLike) -> Bins:
    """A bin for each distinct forecast (to 1e-9): right for an ordinal scale, and then exact.

    Raises:
        CalibrationError: for no forecast.
    """
    rounded = np.round(_probabilities(probabilities), _DECIMALS)
    values, inverse = np.unique(rounded, return_inverse=True)
    return Bins(
        index=inverse.astype(np.int64),
        edges=(float(values[0]), *(float(value) for value in values)),
        rule="a bin for each distinct forecast",
    )


def _probabilities(values: ArrayLike) -> Array:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 1 or not len(p):
        raise CalibrationError(
            f"forecasts of shape {p.shape}; give one probability for each of at least 1 trial."
        )
    bad = ~((p >= 0) & (p <= 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(
            f"forecast {row + 1} is {p[row]:g}; a probability is from 0 to 1, and a trial without "
            "one is left out."
        )
    return p


def _outcomes(values: ArrayLike, n: int) -> Array:
    y = np.asarray(values, dtype=np.float64)
    if y.shape != (n,):
        raise CalibrationError(f"outcomes of shape {y.shape} for {n} forecasts; give one for each.")
    bad = ~np.isin(y, (0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(
            f"outcome {row + 1} is {y[row]:g}; give 1 where it happened and 0 where it did not."
        )
    return y


def checked_forecasts(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Array, Array]:
    """Forecasts in [0, 1] and outcomes 0 or 1. (n,), (n,)"""
    p = _probabilities(probabilities)
    return p, _outcomes(outcomes, len(p))


def fitting_bins(bins: Bins, n: int) -> Bins:
    """The bins, if they are of n forecasts."""
    if len(bins.index) != n:
        raise CalibrationError(
            f"the bins are of {len(bins.index)} forecasts, not of these {n}; make them from these."
        )
    return bins


def _from_scale(confidence: ArrayLike, points: ArrayLike) -> Array:
    scale = np.asarray(points, dtype=np.float64)
    if (
        scale.ndim != 1
        or len(scale) < 2
        or not ((scale >= 0) & (scale <= 1)).all()
        or not (np.diff(scale) > 0).all()
    ):
        raise CalibrationError(
            f"points {scale.tolist()} are no confidence scale; give an ascending probability for "
            "each answer, such as confidence_points(4)."
        )
    c = np.asarray(confidence, dtype=np.float64)
    if c.ndim != 1:
        raise CalibrationError(f"confidence of shape {c.shape}; give one for each judgement.")
    bad = ~np.isin(c, np.arange(1, len(scale) + 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(
            f"confidence {row + 1} is {c[row]:g}, off the scale from 1 to {len(scale)}; correct "
            "it, or declare a point for it."
        )
    return np.asarray(scale[c.astype(np.int64) - 1], dtype=np.float64)


def cluster_codes(labels: ArrayLike, n: int) -> Codes:
    """Readers or cases as whole numbers from 0. (n,)"""
    try:
        return label_codes(labels, n, "clusters")
    except ValueError as error:
        raise CalibrationError(str(error)) from None


def clipped(p: Array, clip: float | None) -> Array:
    """Forecasts no nearer to 0 and 1 than `clip`. (n,)"""
    if clip is None:
        return p
    if not 0 < clip < 0.5:
        raise CalibrationError(f"clip={clip}; give a small probability such as 0.01.")
    return np.clip(p, clip, 1 - clip)


def clipping_in_words(clip: float | None) -> str:
    """What follows the method's name."""
    return "" if clip is None else f", forecasts clipped to [{clip:g}, {1 - clip:g}]"
