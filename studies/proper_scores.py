"""Proper scores of forecasts: Brier and logarithmic, best for who says what they believe.

Judgements of one reader, or of one case, are alike: give them as clusters.

Shapes: n forecasts, C clusters.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.estimate import Estimate, check_level
from studies.forecasts import (
    Bins,
    CalibrationError,
    checked_forecasts,
    clipped,
    clipping_in_words,
    cluster_codes,
    distinct_bins,
    fitting_bins,
)

Array = NDArray[np.float64]

_SMALL = 1e-12


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
    p, y = checked_forecasts(probabilities, outcomes)
    check_level(confidence_level, CalibrationError)
    chosen, n = fitting_bins(bins or distinct_bins(p), len(p)), len(p)
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
    p, y = checked_forecasts(probabilities, outcomes)
    check_level(confidence_level, CalibrationError)
    method = "log score in nats" + clipping_in_words(clip)
    p = clipped(p, clip)
    happened = np.where(y == 1, p, 1 - p)
    if (happened == 0).any():
        reason = (
            f"{int((happened == 0).sum())} forecasts were certain and wrong, which is infinitely "
            "bad; declare `clip`"
        )
        return Estimate.not_estimable(method, reason, confidence_level)
    return _mean(-np.log(happened), clusters, confidence_level, method)


def _mean(
    values: Array, clusters: ArrayLike | None, confidence_level: float, method: str
) -> Estimate:
    """Mean with a t interval, of clusters as a ratio estimator where there are some."""
    n, estimate = len(values), float(values.mean())
    codes = np.arange(n) if clusters is None else cluster_codes(clusters, n)
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
        return Estimate.not_estimable(method, reason, confidence_level, estimate)
    return Estimate.symmetric(
        estimate, error, df=m - 1, confidence_level=confidence_level, method=method
    )
