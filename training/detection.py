"""How well a score tells anomalous cells from normal ones, with intervals.

Higher scores are more anomalous; "positive" means anomalous throughout.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import rankdata

from studies.proportions import wilson

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """A measure of separation in [0, 1] with its interval, and the cells behind it."""

    estimate: float
    ci_low: float
    ci_high: float
    n_normal: int
    n_anomalous: int


def auroc(normal: ArrayLike, anomalous: ArrayLike, *, confidence_level: float = 0.95) -> Separation:
    """Probability that an anomalous cell has the higher score, ties counting half.

    The interval is DeLong's on the logit scale, so that it stays below 1. Where nothing overlaps,
    DeLong's variance is 0 and the interval would be a point: there it is Newcombe's, whose variance
    follows from the area itself.

    Args:
        normal: scores of normal cells, at least two. (n,)
        anomalous: scores of anomalous cells, at least two. (m,)
        confidence_level: of the two-sided interval.

    Raises:
        ValueError: if there are fewer than two cells of a kind, or a score is not a number.

    Source: DeLong, DeLong & Clarke-Pearson (1988); midranks as in Sun & Xu (2014). Newcombe
        (2006), Statistics in Medicine 25:559, method 5.
    """
    low, high = _scores(normal), _scores(anomalous)
    quantile = _quantile(confidence_level)
    n, m = len(low), len(high)
    ranks = rankdata(np.concatenate([low, high]))
    # Share of the other kind on the right side of each cell.
    of_normal = 1 - (ranks[:n] - rankdata(low)) / m
    of_anomalous = (ranks[n:] - rankdata(high)) / n
    area = float(of_anomalous.mean())
    variance = float(of_normal.var(ddof=1) / n + of_anomalous.var(ddof=1) / m)
    if variance > 0 and 0 < area < 1:
        logit, half = log(area / (1 - area)), quantile * sqrt(variance) / (area * (1 - area))
        ends = (_expit(logit - half), _expit(logit + half))
    else:
        ends = _newcombe(area, n, m, quantile)
    return Separation(estimate=area, ci_low=ends[0], ci_high=ends[1], n_normal=n, n_anomalous=m)


def fpr_at_tpr(
    normal: ArrayLike,
    anomalous: ArrayLike,
    tpr: float = 0.95,
    *,
    rng: np.random.Generator,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
) -> Separation:
    """Share of normal cells flagged at the threshold that finds at least `tpr` of the anomalous.

    Both kinds are resampled, so that the interval knows that the threshold is estimated too. It is
    never narrower than Wilson's for the normal cells alone: few cells and no false alarm are not a
    certainty.

    Args:
        normal: scores of normal cells. (n,)
        anomalous: scores of anomalous cells. (m,)
        tpr: wanted share of anomalous cells found.
        rng: of the resampling.
        confidence_level: of the two-sided interval.
        n_resamples: stratified bootstrap samples.

    Raises:
        ValueError: as `auroc`, and if `tpr` is not in (0, 1].
    """
    low, high = _scores(normal), _scores(anomalous)
    _quantile(confidence_level)
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr={tpr}; give a share of the anomalous cells such as 0.95.")
    n, m = len(low), len(high)
    low, high = np.sort(low), np.sort(high)
    n_found = int(np.ceil(tpr * m - 1e-9))

    def rate(normal: Array, anomalous: Array) -> Array:
        thresholds = anomalous[:, m - n_found]
        flagged: Array = (normal >= thresholds[:, None]).mean(axis=1)
        return flagged

    estimate = float(rate(low[None], high[None])[0])
    resampled = rate(
        low[rng.integers(n, size=(n_resamples, n))],
        np.sort(high[rng.integers(m, size=(n_resamples, m))], axis=1),
    )
    tail = (1 - confidence_level) / 2
    ends = np.quantile(resampled, [tail, 1 - tail])
    alone = wilson(round(estimate * n), n, confidence_level=confidence_level)
    return Separation(
        estimate=estimate,
        ci_low=min(float(ends[0]), alone.ci_low),
        ci_high=max(float(ends[1]), alone.ci_high),
        n_normal=n,
        n_anomalous=m,
    )


def _scores(values: ArrayLike) -> Array:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or len(scores) < 2 or np.isnan(scores).any():
        raise ValueError(
            f"scores of shape {scores.shape}, {int(np.isnan(scores).sum())} of them not a number; "
            "give the scores of at least two normal and two anomalous cells."
        )
    return scores


def _quantile(confidence_level: float) -> float:
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
    return float(ndtri(0.5 + confidence_level / 2))


def _expit(logit: float) -> float:
    return 1 / (1 + exp(-logit))


def _newcombe(area: float, n: int, m: int, quantile: float) -> tuple[float, float]:
    """Areas whose own standard error reaches just to the one observed."""
    spare = (n + m) / 2 - 1

    def excess(true: float) -> float:
        spread = 1 + spare * (1 - true) / (2 - true) + spare * true / (1 + true)
        return abs(area - true) - quantile * sqrt(true * (1 - true) * spread / (n * m))

    tiny = 1e-12
    low = 0.0 if area <= tiny else float(brentq(excess, tiny, area - tiny))
    high = 1.0 if area >= 1 - tiny else float(brentq(excess, area + tiny, 1 - tiny))
    return low, high
