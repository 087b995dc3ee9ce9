"""How far confidence can be trusted: of readers and of models, on one footing.

A forecast is a probability, an outcome what then happened. Two conventions make forecasts of a
study, and they are calibrated differently: P(generated), whose outcome is whether the picture is
generated, and P(chosen answer), whose outcome is whether the answer is right. A reader's ordinal
confidence becomes a probability by points that the caller declares; by default they lie equally
spaced from 0.5 (a guess) to 1 (certain).

Bins of equal width are closed on the right, the first also on the left; empty bins are listed, and
weigh nothing. Judgements of one reader, or of one case, are alike: give them as clusters.

Shapes: n forecasts, K points of a confidence scale, m bins, C clusters, B resamples.
"""

from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, ndtr
from scipy.special import logit as log_odds
from scipy.stats import t as student_t

from studies.clustered import label_codes, rao_scott_wilson, resampling_weights
from studies.estimate import Estimate
from studies.proportions import wilson

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

Convention = Literal["P(generated)", "P(chosen answer)"]

N_BINS = 10
FEWEST_CLUSTERS = 5
"""Below this a bootstrap of clusters has too few distinct resamples."""
FEWEST_RESAMPLES = 200
_DECIMALS = 9
"""Forecasts that differ by less are equal, and lie on an edge that near: 1 − 0.7 is not quite 0.3.
"""
_EDGE = 10.0**-_DECIMALS
_SMALL = 1e-12


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


# --- bins -------------------------------------------------------------------------------------


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


# --- scores -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BrierScore:
    """Mean squared error of forecasts, and its parts, which add up exactly.

    score = reliability − resolution + uncertainty + within_variance − within_covariance
    """

    score: Estimate
    reliability: float
    """Squared gap of mean forecast and frequency, over bins; 0 is calibrated."""
    resolution: float
    """Variance of the frequencies over bins; more is better."""
    uncertainty: float
    """Variance of the outcomes, which no forecast changes."""
    within_variance: float
    """Of forecasts within their bin; 0 where a bin holds one value."""
    within_covariance: float
    """Twice that of forecasts and outcomes within their bin."""
    skill: float | None
    """1 − score / uncertainty; None where all outcomes are the same."""
    n_forecasts: int
    bins: str
    """How forecasts were binned."""


def brier_score(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    bins: Bins | None = None,
    clusters: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> BrierScore:
    """Brier score with Murphy's decomposition and the two terms that binning adds.

    Args:
        probabilities: in [0, 1]. (n,)
        outcomes: 0 or 1. (n,)
        bins: of these forecasts; one for each distinct forecast where None.
        clusters: reader or case of each forecast; None takes forecasts as independent. (n,)
        confidence_level: of the score's t interval.

    Raises:
        CalibrationError: for lengths that differ, no forecast, values out of range, or bins of
            other forecasts.

    Source: Brier (1950); Murphy (1973); Stephenson, Coelho & Jolliffe (2008) for the last two.
    """
    p, y = _checked(probabilities, outcomes)
    chosen, n = _fitting(bins or distinct_bins(p), len(p)), len(p)
    index = chosen.index
    counts = np.bincount(index, minlength=chosen.n_bins).astype(np.float64)
    filled = np.maximum(counts, 1)
    mean_p = np.bincount(index, p, chosen.n_bins) / filled
    mean_y = np.bincount(index, y, chosen.n_bins) / filled
    base = float(y.mean())
    off_p, off_y = p - mean_p[index], y - mean_y[index]
    uncertainty = base * (1 - base)
    squared = np.square(p - y)
    score = float(squared.mean())
    return BrierScore(
        score=_mean(squared, clusters, confidence_level, "Brier score"),
        reliability=float(counts @ np.square(mean_p - mean_y)) / n,
        resolution=float(counts @ np.square(mean_y - base)) / n,
        uncertainty=uncertainty,
        within_variance=float(np.square(off_p).mean()),
        within_covariance=2 * float((off_p * off_y).mean()),
        skill=1 - score / uncertainty if uncertainty else None,
        n_forecasts=n,
        bins=chosen.rule,
    )


def log_score(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    clip: float | None = None,
    clusters: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> Estimate:
    """Mean of −log(probability of what happened), in nats; ln 2 is a coin's.

    One forecast of 0 or 1 that fails makes it infinite: it is then not estimable, unless `clip`
    declares how near to 0 and 1 a forecast may come.

    Args:
        probabilities: in [0, 1]. (n,)
        outcomes: 0 or 1. (n,)
        clip: least probability, such as 0.01; None changes nothing.
        clusters, confidence_level: as `brier_score`.

    Raises:
        CalibrationError: as `brier_score`, and for a clip that is not in (0, 0.5).

    Source: Good (1952).
    """
    p, y = _checked(probabilities, outcomes)
    method = "log score in nats" + _clipping(clip)
    p = _clipped(p, clip)
    happened = np.where(y == 1, p, 1 - p)
    if (happened == 0).any():
        reason = (
            f"{int((happened == 0).sum())} forecasts were certain and wrong, which is infinitely "
            "bad; declare `clip`"
        )
        return Estimate.not_estimable(method, reason, confidence_level=_level(confidence_level))
    return _mean(-np.log(happened), clusters, confidence_level, method)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCalibrationError:
    """Gaps of mean forecast and frequency over bins; all are 0 where calibrated in every bin."""

    l1: float
    """Mean absolute gap, weighted by forecasts: the usual ECE."""
    l2: float
    """Root of the weighted mean squared gap."""
    largest: float
    """Over filled bins, however few forecasts they hold."""
    l1_by_chance: float
    """What `l1` would be for forecasts that are calibrated, from noise alone."""
    n_forecasts: int
    n_bins: int
    n_empty_bins: int
    bins: str


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: Bins | None = None
) -> ExpectedCalibrationError:
    """Calibration error over bins; empty bins weigh nothing.

    Noise only ever adds to it: compare `l1` with `l1_by_chance`, which takes outcomes as
    independent and the noise of a bin as normal. Which convention the forecasts follow changes it.

    Args:
        probabilities: in [0, 1]. (n,)
        outcomes: 0 or 1. (n,)
        bins: of these forecasts; 10 of equal width where None.

    Raises:
        CalibrationError: as `brier_score`.

    Source: Naeini, Cooper & Hauskrecht (2015); Kumar, Liang & Ma (2019) for L2.
    """
    p, y = _checked(probabilities, outcomes)
    chosen = _fitting(bins or equal_width_bins(p), len(p))
    n = len(p)
    counts = np.bincount(chosen.index, minlength=chosen.n_bins)
    gaps = np.bincount(chosen.index, y - p, chosen.n_bins)[counts > 0]
    noise = np.bincount(chosen.index, p * (1 - p), chosen.n_bins)
    filled = counts[counts > 0].astype(np.float64)
    return ExpectedCalibrationError(
        l1=float(np.abs(gaps).sum()) / n,
        l2=sqrt(float((np.square(gaps) / filled).sum()) / n),
        largest=float((np.abs(gaps) / filled).max()),
        l1_by_chance=float(np.sqrt(2 * noise / pi).sum()) / n,
        n_forecasts=n,
        n_bins=chosen.n_bins,
        n_empty_bins=int((counts == 0).sum()),
        bins=chosen.rule,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Forecasts of like probability, and how often they came true."""

    low: float
    high: float
    """Edges: (low, high]."""
    n_forecasts: int
    mean_probability: float | None
    """None in an empty bin."""
    frequency: Estimate
    """How often the event happened, with Wilson's interval for independent forecasts."""
    clustered: Estimate | None
    """The same with Wilson's interval on the effective number; None without clusters."""
    n_clusters: int | None


def reliability_diagram(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    bins: Bins | None = None,
    clusters: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> tuple[ReliabilityBin, ...]:
    """Frequency against forecast, bin by bin, ascending; empty bins are there, and say so.

    For readers give them as clusters: the answers of one are alike, and Wilson's interval on all
    judgements is too narrow. Intervals are for one bin at a time, not for all together.

    Args:
        probabilities: in [0, 1]. (n,)
        outcomes: 0 or 1. (n,)
        bins: of these forecasts; 10 of equal width where None.
        clusters: reader (or case) of each forecast. (n,)
        confidence_level: of all intervals.

    Raises:
        CalibrationError: as `brier_score`.

    Source: Murphy & Winkler (1977); Wilson (1927); Rao & Scott (1992) for the effective number.
    """
    p, y = _checked(probabilities, outcomes)
    chosen = _fitting(bins or equal_width_bins(p), len(p))
    _level(confidence_level)
    codes = None if clusters is None else _cluster_codes(clusters, len(p))
    diagram = []
    for i, (low, high) in enumerate(zip(chosen.edges[:-1], chosen.edges[1:], strict=True)):
        inside = chosen.index == i
        n_inside, n_happened = int(inside.sum()), int(y[inside].sum())
        clustered = n_clusters = None
        if n_inside:
            one = wilson(n_happened, n_inside, confidence_level=confidence_level)
            frequency = Estimate(
                estimate=one.estimate,
                ci_low=one.ci_low,
                ci_high=one.ci_high,
                confidence_level=confidence_level,
                method="Wilson interval, forecasts as independent",
            )
        else:
            frequency = Estimate.not_estimable(
                "Wilson interval, forecasts as independent",
                "no forecast fell into this bin",
                confidence_level=confidence_level,
            )
        if codes is not None:
            _, of_cluster = np.unique(codes[inside], return_inverse=True)
            n_clusters = int(of_cluster.max(initial=-1)) + 1
            clustered = frequency
            if n_inside:
                clustered = rao_scott_wilson(
                    np.bincount(of_cluster, y[inside]),
                    np.bincount(of_cluster),
                    with_t_quantile=True,
                    confidence_level=confidence_level,
                ).proportion
        diagram.append(
            ReliabilityBin(
                low=low,
                high=high,
                n_forecasts=n_inside,
                mean_probability=float(p[inside].mean()) if n_inside else None,
                frequency=frequency,
                clustered=clustered,
                n_clusters=n_clusters,
            )
        )
    return tuple(diagram)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationLine:
    """Logistic regression of outcomes on the log-odds of the forecasts."""

    slope: Estimate
    """1 is calibrated; below 1 forecasts are too extreme, above too timid."""
    intercept: Estimate
    """Of the line with that slope, in log-odds."""
    in_the_large: Estimate
    """Intercept where the slope is held at 1: above 0 forecasts are too low on the whole."""
    n_forecasts: int


def calibration_line(
    probabilities: ArrayLike,
    outcomes: ArrayLike,
    *,
    clip: float | None = None,
    clusters: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> CalibrationLine:
    """Calibration intercept and slope: logit P(outcome) = intercept + slope · logit(forecast).

    A forecast of exactly 0 or 1 has no log-odds: the line is then not estimable, unless `clip`
    declares how near to 0 and 1 a forecast may come; the slope depends on it.

    Args:
        probabilities: in [0, 1]. (n,)
        outcomes: 0 or 1. (n,)
        clip: least probability, such as 0.01; None changes nothing.
        clusters: reader or case of each forecast; sandwich standard errors with C − 1 degrees of
            freedom. None: model standard errors and normal quantiles. (n,)
        confidence_level: of all intervals.

    Raises:
        CalibrationError: as `log_score`.

    Source: Cox (1958), Biometrika 45:562–565; Van Calster et al. (2016); Liang & Zeger (1986).
    """
    p, y = _checked(probabilities, outcomes)
    _level(confidence_level)
    codes = None if clusters is None else _cluster_codes(clusters, len(p))
    p = _clipped(p, clip)
    n_certain = int(((p == 0) | (p == 1)).sum())
    n_clusters = None if codes is None else int(codes.max()) + 1
    large: _Fit | str
    line: _Fit | str
    if n_certain:
        large = line = f"{n_certain} forecasts are exactly 0 or 1, without log-odds; declare `clip`"
    elif y.min() == y.max():
        large = line = f"all outcomes are {int(y[0])}"
    elif n_clusters == 1:
        large = line = "1 cluster says nothing about others"
    else:
        x = log_odds(p)
        ones = np.ones_like(x)
        large = _logistic(ones[:, None], y, x, codes)
        line = "all forecasts are the same, so there is no slope"
        if np.ptp(x) > 1e-6:
            line = _logistic(np.stack([ones, x], axis=1), y, np.zeros_like(x), codes)

    def shown(name: str, fit: _Fit | str, position: int) -> Estimate:
        method = f"logistic calibration, {name}{_clipping(clip)}"
        return _coefficient(method, fit, position, n_clusters, confidence_level)

    return CalibrationLine(
        slope=shown("slope", line, 1),
        intercept=shown("intercept", line, 0),
        in_the_large=shown("intercept at slope 1", large, 0),
        n_forecasts=len(p),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overconfidence:
    """Mean confidence less the share that came true."""

    overconfidence: Estimate
    """Above 0 over-confident, below 0 under-confident."""
    mean_confidence: float
    accuracy: float
    n_forecasts: int
    n_readers: int | None
    n_cases: int | None


def overconfidence(
    confidence: ArrayLike,
    is_correct: ArrayLike,
    *,
    rng: np.random.Generator,
    readers: ArrayLike | None = None,
    cases: ArrayLike | None = None,
    n_resamples: int = 4000,
    confidence_level: float = 0.95,
) -> Overconfidence:
    """Mean confidence − accuracy, with an interval from a bootstrap of whole clusters.

    With readers, whole readers are drawn; with cases, whole cases; with both, both at once, which
    is cautious (Owen 2007); with neither, single forecasts. The percentiles are moved out as far
    as t with C − 1 degrees of freedom is wider than normal, for the fewer of the two clusterings.

    Args:
        confidence: probability of the chosen answer. (n,)
        is_correct: whether it was right. (n,)
        rng: of the resamples.
        readers, cases: who judged what. (n,)
        n_resamples: B.
        confidence_level: of the interval.

    Raises:
        CalibrationError: as `brier_score`, and for fewer than 200 resamples.

    Source: Lichtenstein, Fischhoff & Phillips (1982); Hesterberg (2015) for the percentiles.
    """
    p, y = _checked(confidence, is_correct)
    _level(confidence_level)
    if n_resamples < FEWEST_RESAMPLES:
        raise CalibrationError(
            f"n_resamples={n_resamples} says nothing about tails; give 2000 or more, and never "
            f"fewer than {FEWEST_RESAMPLES}."
        )
    gaps, n = p - y, len(p)
    sides = [
        (name, _cluster_codes(labels, n))
        for name, labels in (("readers", readers), ("cases", cases))
        if labels is not None
    ] or [("forecasts", np.arange(n))]
    sizes = [int(codes.max()) + 1 for _, codes in sides]
    what = " and ".join(name for name, _ in sides)
    method = f"mean confidence − accuracy, expanded percentile bootstrap of whole {what}"
    estimate, fewest = float(gaps.mean()), min(sizes)
    reason = None
    if fewest < FEWEST_CLUSTERS:
        reason = (
            f"{fewest} {sides[sizes.index(fewest)][0]} are too few to resample; have at least "
            f"{FEWEST_CLUSTERS}"
        )
    found = Estimate.not_estimable(
        method, reason or "", confidence_level=confidence_level, estimate=estimate
    )
    if reason is None:
        means = _resampled_means(gaps, sides, sizes, n_resamples, rng)
        if np.ptp(means) < _SMALL:
            found = replace(found, reason="all resamples are alike, which is no sign of certainty")
        else:
            wide = float(student_t.ppf(0.5 - confidence_level / 2, fewest - 1))
            tail = float(ndtr(wide * sqrt(fewest / (fewest - 1))))
            low, high = (float(limit) for limit in np.quantile(means, [tail, 1 - tail]))
            found = Estimate(
                estimate=estimate,
                ci_low=low,
                ci_high=high,
                standard_error=float(means.std(ddof=1)),
                confidence_level=confidence_level,
                method=f"{method}, {n_resamples:,} resamples",
            )
    counted = dict(zip((name for name, _ in sides), sizes, strict=True))
    return Overconfidence(
        overconfidence=found,
        mean_confidence=float(p.mean()),
        accuracy=float(y.mean()),
        n_forecasts=n,
        n_readers=counted.get("readers"),
        n_cases=counted.get("cases"),
    )


# --- checks -----------------------------------------------------------------------------------


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


def _checked(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[Array, Array]:
    p = _probabilities(probabilities)
    return p, _outcomes(outcomes, len(p))


def _fitting(bins: Bins, n: int) -> Bins:
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


def _cluster_codes(labels: ArrayLike, n: int) -> Codes:
    try:
        return label_codes(labels, n, "clusters")
    except ValueError as error:
        raise CalibrationError(str(error)) from None


def _level(confidence_level: float) -> float:
    if not 0 < confidence_level < 1:
        raise CalibrationError(
            f"confidence_level={confidence_level}; give a fraction such as 0.95."
        )
    return confidence_level


def _clipped(p: Array, clip: float | None) -> Array:
    if clip is None:
        return p
    if not 0 < clip < 0.5:
        raise CalibrationError(f"clip={clip}; give a small probability such as 0.01.")
    return np.clip(p, clip, 1 - clip)


def _clipping(clip: float | None) -> str:
    return "" if clip is None else f", forecasts clipped to [{clip:g}, {1 - clip:g}]"


# --- intervals --------------------------------------------------------------------------------


def _mean(
    values: Array, clusters: ArrayLike | None, confidence_level: float, method: str
) -> Estimate:
    """Mean with a t interval, of clusters as a ratio estimator where there are some."""
    _level(confidence_level)
    n, estimate = len(values), float(values.mean())
    codes = np.arange(n) if clusters is None else _cluster_codes(clusters, n)
    m = int(codes.max()) + 1
    method += ", t interval" + ("" if clusters is None else " clustered")
    residuals = np.bincount(codes, values - estimate)
    error = sqrt(m / max(m - 1, 1) * float(np.square(residuals).sum())) / n
    reason = None
    if m < 2:
        reason = f"1 {'forecast' if clusters is None else 'cluster'} says nothing about others"
    elif error < _SMALL:
        reason = "there is no variance, which is no sign of certainty"
    if reason:
        return Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=estimate
        )
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, m - 1)) * error
    return Estimate(
        estimate=estimate,
        ci_low=estimate - half_width,
        ci_high=estimate + half_width,
        standard_error=error,
        df=m - 1,
        confidence_level=confidence_level,
        method=method,
    )


_Fit = tuple[Array, Array]
"""Coefficients and their covariance. (k,), (k, k)"""


def _logistic(X: Array, y: Array, offset: Array, codes: Codes | None) -> _Fit | str:
    """Maximum likelihood by Newton's method, or why there is none. (n, k) -> (k,), (k, k)"""
    beta = np.zeros(X.shape[1])
    for _ in range(50):
        fitted = expit(X @ beta + offset)
        information = X.T @ (X * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(information) > 1e12:
            break
        step = np.linalg.solve(information, X.T @ (y - fitted))
        # Half steps until the likelihood does not fall: Newton overshoots far from the maximum.
        while _log_likelihood(X @ (beta + step) + offset, y) < (
            _log_likelihood(X @ beta + offset, y) - 1e-10
        ):
            step /= 2
        beta = beta + step
        if np.abs(step).max() < 1e-10 * (1 + np.abs(beta).max()):
            break
    else:
        return "forecasts separate the outcomes, so the slope is infinite"
    fitted = expit(X @ beta + offset)
    information = X.T @ (X * (fitted * (1 - fitted))[:, None])
    if np.linalg.cond(information) > 1e12 or np.abs(beta).max() > 1e3:
        return "forecasts separate the outcomes, so the slope is infinite"
    inverse = np.linalg.inv(information)
    if codes is None:
        return beta, np.asarray(inverse, dtype=np.float64)
    m = int(codes.max()) + 1
    scores = np.zeros((m, X.shape[1]))
    np.add.at(scores, codes, X * (y - fitted)[:, None])
    meat = scores.T @ scores * m / (m - 1)
    return beta, np.asarray(inverse @ meat @ inverse, dtype=np.float64)


def _log_likelihood(linear: Array, y: Array) -> float:
    return float((log_expit(np.where(y == 1, linear, -linear))).sum())


def _coefficient(
    method: str,
    fit: _Fit | str,
    position: int,
    n_clusters: int | None,
    confidence_level: float,
) -> Estimate:
    if isinstance(fit, str):
        return Estimate.not_estimable(method, fit, confidence_level=confidence_level)
    value, error = float(fit[0][position]), sqrt(max(float(fit[1][position, position]), 0.0))
    if error < _SMALL:
        return Estimate.not_estimable(
            method,
            "clusters do not differ at all, which is no sign of certainty",
            confidence_level=confidence_level,
            estimate=value,
        )
    df = None if n_clusters is None else n_clusters - 1
    quantile = float(student_t.ppf(0.5 + confidence_level / 2, np.inf if df is None else df))
    return Estimate(
        estimate=value,
        ci_low=value - quantile * error,
        ci_high=value + quantile * error,
        standard_error=error,
        df=df,
        confidence_level=confidence_level,
        method=method + ("" if df is None else ", standard error clustered"),
    )


def _resampled_means(
    values: Array,
    sides: list[tuple[str, Codes]],
    sizes: list[int],
    n_resamples: int,
    rng: np.random.Generator,
) -> Array:
    """Means over resampled clusters of one or two kinds. (n,) -> (B,)"""
    codes = (
        [code for _, code in sides]
        if len(sides) == 2
        else [sides[0][1], np.zeros_like(sides[0][1])]
    )
    shape = (sizes[0], sizes[1] if len(sizes) == 2 else 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (codes[0], codes[1]), values)
    np.add.at(counts, (codes[0], codes[1]), 1)
    means, step = [], max(1, 2_000_000 // max(sizes))
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        drawn = [resampling_weights(m, size, rng).astype(np.float64) for m in sizes]
        if len(drawn) == 1:
            drawn.append(np.ones((size, 1)))
        total = ((drawn[0] @ counts) * drawn[1]).sum(axis=1)
        found = ((drawn[0] @ sums) * drawn[1]).sum(axis=1)
        means.append(found[total > 0] / total[total > 0])
    return np.concatenate(means)
