"""One proportion when judgements come in clusters: by reader, by case, or by both.

The judgements of one cluster are alike, so they say less than as many independent ones. Rao–Scott,
`studies.gee` and the cluster bootstrap allow for one kind of cluster; the two-way `bootstrap` for
readers and cases together. Where both are sampled, a one-way interval is still too narrow: the
headline of a crossed study is `studies.crossed`.

m clusters with `n_correct` of `n_trials` each; crossed tables are R readers × N cases; L single
judgements.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import t as student_t

from studies.estimate import Estimate, check_level

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEW_CLUSTERS = 10


class ClusterError(ValueError):
    """Judgements or counts that cannot be used: what is wrong with them, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredProportion:
    """A proportion from clusters, its interval, and what clustering costs."""

    proportion: Estimate
    n_clusters: int
    n_trials: int
    n_correct: int
    design_effect: float | None
    """Variance over that of as many independent trials; None where there is no variance."""
    effective_n_trials: float | None
    """How many independent trials would say as much: `n_trials / design_effect`."""
    intra_cluster_correlation: float | None
    """By analysis of variance, not truncated at 0; None where no cluster has two trials."""
    cautions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWaySandwich:
    """The uncorrected two-way cluster variance and its parts."""

    proportion: Estimate
    standard_error_readers: float
    """Clustered by reader only."""
    standard_error_cases: float
    """Clustered by case only."""
    standard_error_independent: float


def count_by_cluster(correct: ArrayLike, clusters: ArrayLike) -> tuple[Integers, Integers]:
    """`n_correct` and `n_trials` of each cluster, clusters in order of first appearance. (m,) (m,)

    Args:
        correct: whether each judgement was right, as 0 and 1. (L,)
        clusters: the reader (or the case) of each judgement, any label. (L,)

    Raises:
        ClusterError: for no judgement, unequal lengths, a missing label, or values other than 0, 1.
    """
    right = checked_answers(correct)
    codes = label_codes(clusters, len(right), "clusters")
    return np.bincount(codes, right).astype(np.int64), np.bincount(codes)


def naive_wilson(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Estimate:
    """Wilson interval that takes all judgements as independent: a labelled comparison, no result.

    Raises:
        ClusterError: if the counts are not a proportion, or the level is not in (0, 1).
    """
    correct, trials = checked_counts([n_correct], [n_trials])
    check_level(confidence_level, ClusterError)
    p, n = correct[0] / trials[0], float(trials[0])
    low, high = _wilson(p, n, float(ndtri(0.5 + confidence_level / 2)))
    return Estimate(
        estimate=float(p),
        ci_low=low,
        ci_high=high,
        standard_error=sqrt(p * (1 - p) / n),
        confidence_level=confidence_level,
        method="naive: Wilson interval that takes all judgements as independent",
    )


def rao_scott(
    n_correct: ArrayLike, n_trials: ArrayLike, *, confidence_level: float = 0.95
) -> ClusteredProportion:
    """Proportion as a ratio estimator over clusters, with a t interval on clusters − 1 df.

    With residuals r_i = x_i − n_i p of the m clusters, and n = Σ n_i:

        var = m / (m − 1) · Σ r_i² / n²          design effect = var · n / (p (1 − p))

    With one trial in each cluster that is p (1 − p) / (n − 1), the unbiased binomial variance.

    Args:
        n_correct: right answers of each cluster. (m,)
        n_trials: trials of each cluster, at least 1. (m,)

    Raises:
        ClusterError: if the counts are not proportions, or the level is not in (0, 1).

    Source: Rao & Scott (1992), Biometrics 48:577–585; design effects checked against its Table 1.
    """
    counts = _ratio_estimate(n_correct, n_trials, confidence_level)
    method = "ratio estimator over clusters (Rao–Scott), t interval on clusters − 1 df"
    if counts.reason is not None:
        return _clustered(counts, _not_estimable(counts, method, confidence_level))
    return _clustered(
        counts,
        Estimate.symmetric(
            counts.p,
            sqrt(counts.variance),
            df=counts.n_clusters - 1,
            confidence_level=confidence_level,
            method=method,
        ),
    )


def rao_scott_wilson(
    n_correct: ArrayLike,
    n_trials: ArrayLike,
    *,
    with_t_quantile: bool = False,
    confidence_level: float = 0.95,
) -> ClusteredProportion:
    """As `rao_scott`, with the Wilson interval on the effective number of trials.

    It stays inside [0, 1] and is the better one near its ends.

    Args:
        n_correct: right answers of each cluster. (m,)
        n_trials: trials of each cluster, at least 1. (m,)
        with_t_quantile: the t quantile on clusters − 1 df in place of the normal one, which takes
            the design effect as known and makes the interval too narrow with few clusters.

    Raises:
        ClusterError: if the counts are not proportions, or the level is not in (0, 1).

    Source: Rao & Scott (1992), effective sample size, in the interval of Wilson (1927).
    """
    counts = _ratio_estimate(n_correct, n_trials, confidence_level)
    quantile = "t quantile on clusters − 1 df" if with_t_quantile else "normal quantile"
    method = f"Wilson interval on the effective sample size (Rao–Scott), {quantile}"
    if counts.reason is not None:
        return _clustered(counts, _not_estimable(counts, method, confidence_level))
    df, tail = counts.n_clusters - 1, 0.5 + confidence_level / 2
    low, high = _wilson(
        counts.p,
        counts.p * (1 - counts.p) / counts.variance,
        float(student_t.ppf(tail, df) if with_t_quantile else ndtri(tail)),
    )
    return _clustered(
        counts,
        Estimate(
            estimate=counts.p,
            ci_low=low,
            ci_high=high,
            standard_error=sqrt(counts.variance),
            df=df if with_t_quantile else None,
            confidence_level=confidence_level,
            method=method,
        ),
    )


def two_way_sandwich(correct: ArrayLike, *, confidence_level: float = 0.95) -> TwoWaySandwich:
    """Accuracy with the two-way cluster variance, uncorrected, for comparison only.

    Variance by reader plus variance by case less variance of independent trials, each without a
    small-sample factor, and a normal quantile: too narrow with the usual number of readers.

    Args:
        correct: whether each reader was right about each case; NaN marks a missing answer. (R, N)

    Raises:
        ClusterError: for a table that is not readers × cases, or values other than 0 and 1.

    Source: Cameron, Gelbach & Miller (2011), Journal of Business & Economic Statistics 29:238–249.
    """
    right, seen = checked_table(correct)
    check_level(confidence_level, ClusterError)
    n = seen.sum()
    p = float(right.sum() / n)
    # In whole numbers, n times the residual, so that no variance is exactly 0.
    residuals = n * right - right.sum() * seen
    by_reader, by_case = residuals.sum(axis=1), residuals.sum(axis=0)
    parts = [float((sums**2).sum() / n**4) for sums in (by_reader, by_case, residuals)]
    variance = parts[0] + parts[1] - parts[2]
    method = "two-way cluster sandwich without small-sample correction, normal quantile"
    if variance <= 0:
        proportion = Estimate.not_estimable(
            method,
            "the variance by reader and by case together is not above that of single judgements",
            confidence_level,
            p,
        )
    else:
        proportion = Estimate.symmetric(
            p, sqrt(variance), confidence_level=confidence_level, method=method
        )
    return TwoWaySandwich(
        proportion=proportion,
        standard_error_readers=sqrt(parts[0]),
        standard_error_cases=sqrt(parts[1]),
        standard_error_independent=sqrt(parts[2]),
    )


def checked_answers(correct: ArrayLike) -> Floats:
    """The judgements as 0.0 and 1.0. (L,)

    Raises:
        ClusterError: if there are none, or one is neither right nor wrong.
    """
    right = np.asarray(correct, dtype=np.float64)
    if right.ndim != 1 or not len(right):
        raise ClusterError(
            f"judgements of shape {right.shape}; give one entry, 0 or 1, for each judgement."
        )
    bad = np.flatnonzero(~np.isin(right, (0, 1)))
    if len(bad):
        raise ClusterError(
            f"judgement {bad[0] + 1} is {right[bad[0]]:g}; an answer is right (1) or wrong (0), "
            "and a missing one is left out."
        )
    return right


def label_codes(labels: ArrayLike, n_rows: int, name: str) -> Integers:
    """Labels as whole numbers from 0, in order of first appearance. (L,)

    Raises:
        ClusterError: for another length, or a missing label.
    """
    codes, _ = pd.factorize(pd.Series(labels))
    if len(codes) != n_rows:
        raise ClusterError(
            f"{name} has {len(codes)} entries for {n_rows} judgements; give as many."
        )
    if codes.min() < 0:
        raise ClusterError(
            f"{name} of judgement {int(codes.argmin()) + 1} is missing; say whose judgement it is, "
            "or leave it out."
        )
    return codes.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RatioEstimate:
    n_clusters: int
    n_trials: int
    n_correct: int
    p: float
    variance: float
    largest_share: float
    """Of all trials, how many are in the largest cluster."""
    intra_cluster_correlation: float | None
    reason: str | None
    """Why there is no interval."""


def _ratio_estimate(
    n_correct: ArrayLike, n_trials: ArrayLike, confidence_level: float
) -> _RatioEstimate:
    correct, trials = checked_counts(n_correct, n_trials)
    check_level(confidence_level, ClusterError)
    m, n, x = len(trials), int(trials.sum()), int(correct.sum())
    # n times the residual, in whole numbers: clusters that do not differ give exactly 0.
    scaled = (n * correct - x * trials).astype(np.float64)
    reason = None
    if m < 2:
        reason = "1 cluster says nothing about others; have more, or speak of this one only"
    elif x in (0, n):
        reason = (
            f"all answers are {'right' if x else 'wrong'}, so the design effect is unknown; a "
            "cautious bound is the exact interval with one trial for each cluster"
        )
    elif not scaled.any():
        reason = "clusters do not differ at all, which is no sign of certainty"
    return _RatioEstimate(
        n_clusters=m,
        n_trials=n,
        n_correct=x,
        p=x / n,
        variance=float((scaled**2).sum()) / n**4 * m / max(m - 1, 1),
        largest_share=int(trials.max()) / n,
        intra_cluster_correlation=_intra_cluster_correlation(correct, trials),
        reason=reason,
    )


def _intra_cluster_correlation(correct: Integers, trials: Integers) -> float | None:
    m, n = len(trials), int(trials.sum())
    if m < 2 or n == m:
        return None
    shares, p = correct / trials, correct.sum() / n
    between = float((trials * (shares - p) ** 2).sum()) / (m - 1)
    within = float((correct * (1 - shares)).sum()) / (n - m)
    typical = (n - float((trials**2).sum()) / n) / (m - 1)
    total = between + (typical - 1) * within
    return (between - within) / total if total > 0 else None


def _not_estimable(counts: _RatioEstimate, method: str, confidence_level: float) -> Estimate:
    assert counts.reason is not None
    return Estimate.not_estimable(method, counts.reason, confidence_level, counts.p)


def _clustered(counts: _RatioEstimate, proportion: Estimate) -> ClusteredProportion:
    cautions, design_effect = [], None
    if counts.reason is None:
        design_effect = counts.variance * counts.n_trials / (counts.p * (1 - counts.p))
        if counts.n_clusters < FEW_CLUSTERS:
            cautions.append(
                f"With {counts.n_clusters} clusters (fewer than {FEW_CLUSTERS}) the spread between "
                "them is hardly known, and the interval is fragile."
            )
        if counts.largest_share > 0.5:
            cautions.append(
                f"One cluster holds {counts.largest_share:.0%} of all trials: the result is "
                "mostly its own."
            )
        if design_effect < 1:
            cautions.append(
                "The estimated variance is smaller than that of independent trials. Small samples "
                "of clusters often do that: do not take it for precision."
            )
    return ClusteredProportion(
        proportion=proportion,
        n_clusters=counts.n_clusters,
        n_trials=counts.n_trials,
        n_correct=counts.n_correct,
        design_effect=design_effect,
        effective_n_trials=None if design_effect is None else counts.n_trials / design_effect,
        intra_cluster_correlation=counts.intra_cluster_correlation,
        cautions=tuple(cautions),
    )


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    shrink = 1 / (1 + z**2 / n)
    centre = shrink * (p + z**2 / (2 * n))
    half_width = shrink * z * sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    # At 0 and at 1 one limit is exact, which floating point misses by an ulp.
    return (
        max(0.0, centre - half_width) if p > 0 else 0.0,
        min(1.0, centre + half_width) if p < 1 else 1.0,
    )


def checked_counts(n_correct: ArrayLike, n_trials: ArrayLike) -> tuple[Integers, Integers]:
    """Right answers and trials of each cluster, as whole numbers. (m,) (m,)"""
    correct = np.asarray(n_correct, dtype=np.float64)
    trials = np.asarray(n_trials, dtype=np.float64)
    if correct.ndim != 1 or correct.shape != trials.shape or not len(correct):
        raise ClusterError(
            f"n_correct of shape {correct.shape} and n_trials of shape {trials.shape}; give one "
            "count of each for each cluster."
        )
    is_whole = (correct == np.floor(correct)) & (trials == np.floor(trials))
    bad = np.flatnonzero(~(is_whole & (correct >= 0) & (correct <= trials) & (trials >= 1)))
    if len(bad):
        raise ClusterError(
            f"cluster {bad[0] + 1}: {correct[bad[0]]:g} correct of {trials[bad[0]]:g} trials is "
            "not a proportion; leave out clusters without a trial."
        )
    return correct.astype(np.int64), trials.astype(np.int64)


def checked_table(correct: ArrayLike) -> tuple[Floats, Floats]:
    """Right answers, and which cells hold one; both 0 where nothing was answered. (R, N)"""
    table = np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ClusterError(
            f"a table of shape {table.shape} is not readers × cases; give one row for each reader "
            "and one column for each case."
        )
    seen = ~np.isnan(table)
    if not np.isin(table[seen], (0, 1)).all():
        raise ClusterError("an answer is right (1) or wrong (0), or missing (NaN).")
    for axis, what in ((1, "reader"), (0, "case")):
        empty = np.flatnonzero(~seen.any(axis=axis))
        if len(empty):
            raise ClusterError(f"{what} {empty[0] + 1} has no judgement; leave the {what} out.")
    return np.where(seen, table, 0.0), seen.astype(np.float64)
