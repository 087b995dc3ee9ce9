"""Resamples of clusters, and a proportion with intervals from them: of readers, cases, or both.

m clusters with `n_correct` of `n_trials` each; crossed tables are R readers × N cases; B resamples.
"""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import t as student_t

from studies.clustered import ClusterError, checked_counts, checked_table, label_codes
from studies.estimate import Estimate, check_level

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_RESAMPLES = 200
FEWEST_RESAMPLED = 5
"""Below this a bootstrap has too few distinct resamples: 4 clusters have 35."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapProportion:
    """A proportion with three intervals from the same bootstrap replicates."""

    percentile: Estimate
    """Quantiles of the replicates."""
    basic: Estimate
    """The same, mirrored at the estimate."""
    standard: Estimate
    """Estimate ± t quantile × standard deviation of the replicates."""
    n_replicates: int
    n_empty: int
    """Replicates left out because none of their readers judged any of their cases."""


def resampling_weights(
    n_units: int, n_replicates: int, rng: np.random.Generator, strata: ArrayLike | None = None
) -> Integers:
    """How often each unit is drawn, with replacement, in each replicate. (B, n_units)

    Weighted sums over the original table replace resampled tables. With `strata` (n_units,), as
    many units are drawn from each stratum as it has.
    """
    weights = np.zeros((n_replicates, n_units), dtype=np.int64)
    labels = np.zeros(n_units) if strata is None else label_codes(strata, n_units, "strata")
    for stratum in np.unique(labels):
        members = np.flatnonzero(labels == stratum)
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=n_replicates)
    return weights


def cluster_bootstrap(
    n_correct: ArrayLike,
    n_trials: ArrayLike,
    *,
    rng: np.random.Generator,
    n_replicates: int = 2000,
    confidence_level: float = 0.95,
) -> BootstrapProportion:
    """Proportion with intervals from whole clusters drawn with replacement.

    The variance is that of the ratio estimator times (m − 1) / m, so it is short with few clusters.

    Args:
        n_correct: right answers of each cluster. (m,)
        n_trials: trials of each cluster, at least 1. (m,)

    Raises:
        ClusterError: if the counts are not proportions, the level is not in (0, 1), or the
            replicates are too few for it.

    Source: Davison & Hinkley (1997), section 3.8.
    """
    correct, trials = checked_counts(n_correct, n_trials)
    _check_replicates(n_replicates, confidence_level)
    # By content: under one seed, neither labels nor order of the rows then change a replicate.
    order = np.lexsort((trials, correct))
    weights = resampling_weights(len(order), n_replicates, rng)
    return _bootstrap(
        weights @ correct[order],
        weights @ trials[order],
        estimate=float(correct.sum() / trials.sum()),
        n_fewest=len(order),
        fewest=f"{len(order)} clusters",
        what="cluster bootstrap",
        confidence_level=confidence_level,
    )


def two_way_bootstrap(
    correct: ArrayLike,
    *,
    rng: np.random.Generator,
    case_strata: ArrayLike | None = None,
    n_replicates: int = 2000,
    confidence_level: float = 0.95,
) -> BootstrapProportion:
    """Accuracy of a crossed study with intervals from readers and cases drawn independently.

    Cautious: the part of the variance that belongs to single judgements is counted up to three
    times, so the interval is somewhat too wide where readers and cases matter little.

    Args:
        correct: whether each reader was right about each case; NaN marks a missing answer. (R, N)
        case_strata: kind of each case where the numbers of each kind are fixed by design, such as
            real and generated; cases are then drawn within kinds. (N,)

    Raises:
        ClusterError: for a table that is not readers × cases, values other than 0 and 1, strata of
            another length, a level not in (0, 1), or too few replicates for it.

    Source: Owen (2007), Annals of Applied Statistics 1:386–411, the pigeonhole bootstrap.
    """
    right, seen = checked_table(correct)
    _check_replicates(n_replicates, confidence_level)
    n_readers, n_cases = seen.shape
    if case_strata is not None and len(np.asarray(case_strata)) != n_cases:
        raise ClusterError(
            f"case_strata has {len(np.asarray(case_strata))} entries for {n_cases} cases; give the "
            "kind of each case."
        )
    readers = resampling_weights(n_readers, n_replicates, rng).astype(np.float64)
    cases = resampling_weights(n_cases, n_replicates, rng, case_strata).astype(np.float64)
    return _bootstrap(
        ((readers @ right) * cases).sum(axis=1),
        ((readers @ seen) * cases).sum(axis=1),
        estimate=float(right.sum() / seen.sum()),
        n_fewest=min(n_readers, n_cases),
        fewest=f"{n_readers} readers and {n_cases} cases",
        what="two-way (pigeonhole) bootstrap over readers and cases",
        confidence_level=confidence_level,
    )


def _bootstrap(
    right: Floats | Integers,
    seen: Floats | Integers,
    *,
    estimate: float,
    n_fewest: int,
    fewest: str,
    what: str,
    confidence_level: float,
) -> BootstrapProportion:
    n_replicates = len(seen)
    replicates = right[seen > 0] / seen[seen > 0]
    reason = None
    if n_fewest < FEWEST_RESAMPLED:
        reason = (
            f"{fewest} are too few to resample; have at least {FEWEST_RESAMPLED} of each, or speak "
            "of these only"
        )
    elif replicates.min() == replicates.max():
        reason = "all replicates are alike, which is no sign of certainty"
    shapes = ("percentile", "basic", "standard")
    if reason is not None:
        percentile, basic, standard = (
            Estimate.not_estimable(f"{what}, {shape} interval", reason, confidence_level, estimate)
            for shape in shapes
        )
    else:
        tail, df = (1 - confidence_level) / 2, n_fewest - 1
        low, high = (float(limit) for limit in np.quantile(replicates, (tail, 1 - tail)))
        error = float(replicates.std(ddof=1))
        half_width = float(student_t.ppf(1 - tail, df)) * error
        limits = {
            "percentile": (low, high),
            "basic": (2 * estimate - high, 2 * estimate - low),
            "standard": (estimate - half_width, estimate + half_width),
        }
        percentile, basic, standard = (
            Estimate(
                estimate=estimate,
                ci_low=limits[shape][0],
                ci_high=limits[shape][1],
                standard_error=error,
                df=df if shape == "standard" else None,
                confidence_level=confidence_level,
                method=f"{what}, {shape} interval, {n_replicates} replicates",
            )
            for shape in shapes
        )
    return BootstrapProportion(
        percentile=percentile,
        basic=basic,
        standard=standard,
        n_replicates=n_replicates,
        n_empty=n_replicates - len(replicates),
    )


def expanded_percentiles(
    values: Floats, n_units: int, confidence_level: float
) -> tuple[float, float]:
    """Percentiles moved out as far as t with n − 1 degrees of freedom is wider than normal. (B,)

    Source: Hesterberg (2015), The American Statistician 69:371–386.
    """
    wide = float(student_t.ppf(0.5 - confidence_level / 2, n_units - 1))
    tail = float(ndtr(wide * sqrt(n_units / (n_units - 1))))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def check_resamples(n_resamples: int, error: type[ValueError]) -> None:
    """Refuse, with the caller's error, fewer resamples than tell a tail."""
    if n_resamples < FEWEST_RESAMPLES:
        raise error(
            f"n_resamples={n_resamples} says nothing about tails; give 2000 or more, and never "
            f"fewer than {FEWEST_RESAMPLES}."
        )


def _check_replicates(n_replicates: int, confidence_level: float) -> None:
    check_level(confidence_level, ClusterError)
    fewest = ceil(round(10 / (1 - confidence_level), 6))
    if n_replicates < fewest:
        raise ClusterError(
            f"{n_replicates} replicates leave fewer than 5 beyond each limit; draw at least "
            f"{fewest}, better 2000."
        )
