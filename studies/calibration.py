"""How far confidence can be trusted: whether forecasts come true as often as they say.

Judgements of one reader, or of one case, are alike: give them as clusters.

Shapes: n forecasts, m bins, C clusters, B resamples.
"""

from dataclasses import dataclass, replace
from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit
from scipy.special import logit as log_odds

from studies.bootstrap import (
    FEWEST_RESAMPLED,
    check_resamples,
    expanded_percentiles,
    resampling_weights,
)
from studies.clustered import rao_scott_wilson
from studies.estimate import Estimate, check_level
from studies.forecasts import (
    Bins,
    CalibrationError,
    checked_forecasts,
    clipped,
    clipping_in_words,
    cluster_codes,
    equal_width_bins,
    fitting_bins,
)
from studies.proportions import wilson

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_SMALL = 1e-12


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
    p, y = checked_forecasts(probabilities, outcomes)
    chosen = fitting_bins(bins or equal_width_bins(p), len(p))
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
    p, y = checked_forecasts(probabilities, outcomes)
    chosen = fitting_bins(bins or equal_width_bins(p), len(p))
    check_level(confidence_level, CalibrationError)
    codes = None if clusters is None else cluster_codes(clusters, len(p))
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
                confidence_level,
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
    p, y = checked_forecasts(probabilities, outcomes)
    check_level(confidence_level, CalibrationError)
    codes = None if clusters is None else cluster_codes(clusters, len(p))
    p = clipped(p, clip)
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
        method = f"logistic calibration, {name}{clipping_in_words(clip)}"
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
    p, y = checked_forecasts(confidence, is_correct)
    check_level(confidence_level, CalibrationError)
    check_resamples(n_resamples, CalibrationError)
    gaps, n = p - y, len(p)
    sides = [
        (name, cluster_codes(labels, n))
        for name, labels in (("readers", readers), ("cases", cases))
        if labels is not None
    ] or [("forecasts", np.arange(n))]
    sizes = [int(codes.max()) + 1 for _, codes in sides]
    what = " and ".join(name for name, _ in sides)
    method = f"mean confidence − accuracy, expanded percentile bootstrap of whole {what}"
    estimate, fewest = float(gaps.mean()), min(sizes)
    reason = None
    if fewest < FEWEST_RESAMPLED:
        reason = (
            f"{fewest} {sides[sizes.index(fewest)][0]} are too few to resample; have at least "
            f"{FEWEST_RESAMPLED}"
        )
    found = Estimate.not_estimable(method, reason or "", confidence_level, estimate)
    if reason is None:
        means = _resampled_means(gaps, sides, sizes, n_resamples, rng)
        if np.ptp(means) < _SMALL:
            found = replace(found, reason="all resamples are alike, which is no sign of certainty")
        else:
            low, high = expanded_percentiles(means, fewest, confidence_level)
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
        return Estimate.not_estimable(method, fit, confidence_level)
    value, error = float(fit[0][position]), sqrt(max(float(fit[1][position, position]), 0.0))
    if error < _SMALL:
        return Estimate.not_estimable(
            method,
            "clusters do not differ at all, which is no sign of certainty",
            confidence_level,
            value,
        )
    df = None if n_clusters is None else n_clusters - 1
    return Estimate.symmetric(
        value,
        error,
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
