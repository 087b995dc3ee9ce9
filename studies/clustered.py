"""One proportion when judgements come in clusters: by reader, by case, or by both.

The judgements of one cluster are alike, so they say less than as many independent ones. Rao–Scott,
GEE and the cluster bootstrap allow for one kind of cluster; the two-way bootstrap for readers and
cases together. Where both are sampled, a one-way interval is still too narrow: the headline of a
crossed study is `studies.crossed`.

m clusters with `n_correct` of `n_trials` each; crossed tables are R readers × N cases; L single
judgements, p coefficients, B bootstrap replicates.
"""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, sqrt
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.special import expit, logit, ndtri
from scipy.stats import t as student_t
from statsmodels.genmod.cov_struct import Exchangeable, Independence
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_estimating_equations import GEE

from studies.estimate import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_RESAMPLED = 5
"""Below this a bootstrap has too few distinct resamples: 4 clusters have 35."""
FEWEST_GEE_DF = 9
"""Clusters less coefficients, below which not even the bias-reduced interval holds its level."""
FEW_CLUSTERS = 10
MANY_CLUSTERS = 40
"""From here the robust and the bias-reduced standard error are close."""
SEPARATED = (
    "the covariates tell right from wrong answers without contradiction, so a coefficient is "
    "infinite; leave out or coarsen a covariate"
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWaySandwich:
    """The uncorrected two-way cluster variance and its parts."""

    proportion: Estimate
    standard_error_readers: float
    """Clustered by reader only."""
    standard_error_cases: float
    """Clustered by case only."""
    standard_error_independent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GeeCoefficient:
    """One coefficient on the logit scale, with three standard errors."""

    name: str
    robust: Estimate
    """Sandwich of Liang & Zeger (1986); too small with few clusters."""
    bias_reduced: Estimate
    """Sandwich of Mancl & DeRouen (2001)."""
    model_standard_error: float | None
    """Right only if the working correlation is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeeFit:
    """Marginal logistic regression by generalised estimating equations."""

    coefficients: tuple[GeeCoefficient, ...]
    """The intercept first, then the covariates; empty where the model cannot be fitted."""
    working_correlation: float | None
    """None for independence, and where no cluster has two trials."""
    accuracy_robust: Estimate
    """Probability of a right answer, averaged over the judgements' covariates; limits by logit."""
    accuracy_bias_reduced: Estimate
    n_clusters: int
    n_trials: int
    cautions: tuple[str, ...]


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
    correct, trials = _checked_counts([n_correct], [n_trials])
    check_level(confidence_level)
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
    error, df = sqrt(counts.variance), counts.n_clusters - 1
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, df)) * error
    return _clustered(
        counts,
        Estimate(
            estimate=counts.p,
            ci_low=counts.p - half_width,
            ci_high=counts.p + half_width,
            standard_error=error,
            df=df,
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
    correct, trials = _checked_counts(n_correct, n_trials)
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
    right, seen = _checked_table(correct)
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
    right, seen = _checked_table(correct)
    check_level(confidence_level)
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
            confidence_level=confidence_level,
            estimate=p,
        )
    else:
        half_width = float(ndtri(0.5 + confidence_level / 2)) * sqrt(variance)
        proportion = Estimate(
            estimate=p,
            ci_low=p - half_width,
            ci_high=p + half_width,
            standard_error=sqrt(variance),
            confidence_level=confidence_level,
            method=method,
        )
    return TwoWaySandwich(
        proportion=proportion,
        standard_error_readers=sqrt(parts[0]),
        standard_error_cases=sqrt(parts[1]),
        standard_error_independent=sqrt(parts[2]),
    )


def gee(
    correct: ArrayLike,
    clusters: ArrayLike,
    *,
    covariates: pd.DataFrame | None = None,
    working_correlation: Literal["independence", "exchangeable"] = "independence",
    confidence_level: float = 0.95,
) -> GeeFit:
    """Marginal logistic regression, one kind of cluster, with robust and bias-reduced intervals.

    Fitted by statsmodels. Without covariates, independence keeps the raw proportion; exchangeable
    weights clusters by their size and does not. Intervals use the t quantile on m − p df.

    Args:
        correct: whether each judgement was right, as 0 and 1. (L,)
        clusters: the reader (or the case) of each judgement, any label. (L,)
        covariates: one numeric column for each, without an intercept. (L, p − 1)

    Raises:
        ClusterError: as `count_by_cluster`, for unusable covariates (named), another working
            correlation, or a level not in (0, 1).

    Source: Liang & Zeger (1986); Mancl & DeRouen (2001), Biometrics 57:126–134. Checked against R's
    `gee` on the data of statsmodels' own tests.
    """
    right = checked_answers(correct)
    codes = label_codes(clusters, len(right), "clusters")
    design, names = design_matrix(covariates, len(right))
    check_level(confidence_level)
    if working_correlation not in ("independence", "exchangeable"):
        raise ClusterError(
            f"working_correlation={working_correlation!r}; choose independence or exchangeable."
        )
    n_clusters, p = int(codes.max()) + 1, len(names)
    method = f"logistic GEE, {working_correlation} working correlation"
    beta, correlation, reason = _solved_gee(right, codes, design, working_correlation)
    if reason is not None:
        nothing = Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=float(right.mean())
        )
        return GeeFit(
            coefficients=(),
            working_correlation=None,
            accuracy_robust=nothing,
            accuracy_bias_reduced=nothing,
            n_clusters=n_clusters,
            n_trials=len(right),
            cautions=(),
        )
    model, robust, reduced = _gee_covariances(right, codes, design, beta, correlation or 0.0)
    wald = partial(
        _gee_interval,
        model=model,
        n_clusters=n_clusters,
        n_coefficients=p,
        confidence_level=confidence_level,
    )
    means = expit(design @ beta)
    centre = float(means.mean())
    slope = (means * (1 - means)) @ design / len(means) / (centre * (1 - centre))
    return GeeFit(
        coefficients=tuple(
            GeeCoefficient(
                name=name,
                robust=wald(float(beta[i]), unit, robust, method=f"{method}, robust"),
                bias_reduced=wald(float(beta[i]), unit, reduced, method=f"{method}, bias-reduced"),
                model_standard_error=sqrt(float(model[i, i])),
            )
            for i, (name, unit) in enumerate(zip(names, np.eye(p), strict=True))
        ),
        working_correlation=correlation,
        accuracy_robust=on_probability_scale(
            wald(float(logit(centre)), slope, robust, method=f"{method}, robust")
        ),
        accuracy_bias_reduced=on_probability_scale(
            wald(float(logit(centre)), slope, reduced, method=f"{method}, bias-reduced")
        ),
        n_clusters=n_clusters,
        n_trials=len(right),
        cautions=(
            f"With {n_clusters} clusters (fewer than {MANY_CLUSTERS}) the robust standard error "
            "is too small; use the bias-reduced one.",
        )
        * (n_clusters < MANY_CLUSTERS),
    )


def on_probability_scale(on_logit: Estimate) -> Estimate:
    """A logit and its interval as a probability; the standard error by the delta method."""
    assert on_logit.estimate is not None
    value = float(expit(on_logit.estimate))
    if on_logit.ci_low is None or on_logit.ci_high is None:
        return replace(on_logit, estimate=value)
    assert on_logit.standard_error is not None
    return replace(
        on_logit,
        estimate=value,
        ci_low=float(expit(on_logit.ci_low)),
        ci_high=float(expit(on_logit.ci_high)),
        standard_error=on_logit.standard_error * value * (1 - value),
        method=f"{on_logit.method}, limits by the logit",
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


def check_level(confidence_level: float) -> None:
    """Refuse a level that is not in (0, 1).

    Raises:
        ClusterError: then.
    """
    if not 0 < confidence_level < 1:
        raise ClusterError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")


def design_matrix(covariates: pd.DataFrame | None, n_rows: int) -> tuple[Floats, tuple[str, ...]]:
    """The covariates behind a column of ones, and the names of the columns. (L, p)

    Raises:
        ClusterError: for another length, a cell that is no finite number, or a column that the
            intercept and the columns before it already give.
    """
    columns, names = [np.ones(n_rows)], ["intercept"]
    for name, values in () if covariates is None else covariates.items():
        column = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=np.float64)
        if len(column) != n_rows:
            raise ClusterError(
                f"covariates have {len(column)} rows for {n_rows} judgements; give as many."
            )
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise ClusterError(
                f"covariate {name} of judgement {bad[0] + 1} is {values.iloc[bad[0]]}; "
                "give a finite number, and code a class as columns of 0 and 1."
            )
        columns.append(column)
        names.append(str(name))
        scaled = np.column_stack(columns) / np.maximum(
            np.abs(np.array(columns)).max(axis=1), 1e-300
        )
        if np.linalg.matrix_rank(scaled) < len(columns):
            raise ClusterError(
                f"covariate {name} is constant, or a sum of those before it; leave it out."
            )
    return np.column_stack(columns), tuple(names)


def is_separated(design: Floats, n_correct: Floats, n_trials: Floats) -> bool:
    """Whether some direction of the covariates tells right from wrong without contradiction.

    A coefficient of the logistic regression is then infinite.

    Args:
        design: (L, p)
        n_correct: right answers of each row. (L,)
        n_trials: (L,)

    Source: Albert & Anderson (1984); as a linear programme, Konis (2007).
    """
    scaled = design / np.abs(design).max(axis=0)
    rows, which = np.unique(scaled, axis=0, return_inverse=True)
    share = np.bincount(which, n_correct) / np.bincount(which, n_trials)
    is_pure = (share == 0) | (share == 1)
    if not is_pure.any():
        return False
    # b with (±x)·b ≥ 0 for pure rows and = 0 for mixed ones; separated if any can be above 0.
    signed = rows[is_pure] * np.where(share[is_pure] == 1, 1, -1)[:, None]
    found = linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=rows[~is_pure] if not is_pure.all() else None,
        b_eq=np.zeros(int((~is_pure).sum())) if not is_pure.all() else None,
        bounds=(-1, 1),
    )
    return float(found.fun or 0.0) < -1e-7


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
    correct, trials = _checked_counts(n_correct, n_trials)
    check_level(confidence_level)
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
    return Estimate.not_estimable(
        method, counts.reason, confidence_level=confidence_level, estimate=counts.p
    )


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
            Estimate.not_estimable(
                f"{what}, {shape} interval",
                reason,
                confidence_level=confidence_level,
                estimate=estimate,
            )
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


def _solved_gee(
    right: Floats, codes: Integers, design: Floats, working_correlation: str
) -> tuple[Floats, float | None, str | None]:
    """Coefficients, working correlation, and the reason why there are none. (p,)"""
    nothing, sizes = np.zeros(design.shape[1]), np.bincount(codes)
    if right.min() == right.max():
        return nothing, None, f"all answers are {'right' if right[0] else 'wrong'}"
    if len(sizes) < 2:
        return nothing, None, "1 cluster says nothing about others"
    if is_separated(design, right, np.ones(len(right))):
        return nothing, None, SEPARATED
    # Without two trials in any cluster there is no correlation, and the two are the same.
    is_exchangeable = working_correlation == "exchangeable" and len(right) > len(sizes)
    structure = Exchangeable() if is_exchangeable else Independence()
    unstable = "the estimating equations have no stable solution" + (
        "; use independence" * is_exchangeable
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            fit = GEE(right, design, codes, family=Binomial(), cov_struct=structure).fit(
                maxiter=200
            )
        except (np.linalg.LinAlgError, ValueError):
            return nothing, None, unstable
    correlation = float(structure.dep_params) if is_exchangeable else None
    if not (fit.converged and np.isfinite(fit.params).all()):
        return nothing, None, unstable
    if correlation is not None and not -1 / (sizes.max() - 1) < correlation < 1:
        return (
            nothing,
            None,
            f"the working correlation of {correlation:.3f} is impossible in a cluster of "
            f"{sizes.max()} trials; use independence",
        )
    return np.asarray(fit.params, dtype=np.float64), correlation, None


def _gee_covariances(
    right: Floats, codes: Integers, design: Floats, beta: Floats, correlation: float
) -> tuple[Floats, Floats, Floats | None]:
    """Covariance of the coefficients: by the model, robust, and bias-reduced. (p, p)

    The inverse of I − H in Mancl & DeRouen's residuals is never formed. By Woodbury's identity the
    score of cluster i is only multiplied by M (M − A_i)⁻¹, with A_i its part of M. The last is None
    where one cluster alone determines a coefficient.
    """
    means = expit(design @ beta)
    spread = np.sqrt(means * (1 - means))
    weighted = design * spread[:, None]
    n_clusters = int(codes.max()) + 1

    def by_cluster(values: Floats) -> Floats:
        sums = np.zeros((n_clusters, *values.shape[1:]))
        np.add.at(sums, codes, values)
        return sums

    sizes = np.bincount(codes)
    shrink = correlation / (1 + correlation * (sizes - 1))
    total = by_cluster(weighted)
    residuals = by_cluster((right - means) / spread)
    information = by_cluster(weighted[:, :, None] * weighted[:, None, :])
    information -= shrink[:, None, None] * total[:, :, None] * total[:, None, :]
    scores = by_cluster(design * (right - means)[:, None])
    scores -= (shrink * residuals)[:, None] * total
    information, scores = information / (1 - correlation), scores / (1 - correlation)
    whole = information.sum(axis=0)
    model = np.linalg.inv(whole)
    robust = model @ (scores.T @ scores) @ model
    left = whole - information
    if np.linalg.cond(left).max() > 1e10:
        return model, robust, None
    inflated = np.linalg.solve(left, scores[:, :, None])[:, :, 0]
    return model, robust, inflated.T @ inflated


def _gee_interval(
    estimate: float,
    direction: Floats,
    covariance: Floats | None,
    *,
    method: str,
    model: Floats,
    n_clusters: int,
    n_coefficients: int,
    confidence_level: float,
) -> Estimate:
    """Wald interval for the linear combination `direction` of the coefficients."""
    df, reason, variance = n_clusters - n_coefficients, None, 0.0
    method = f"{method} standard error, t interval on clusters − coefficients df"
    if df < FEWEST_GEE_DF:
        reason = (
            f"{n_clusters} clusters are too few for {n_coefficients} "
            f"coefficient{'s' * (n_coefficients > 1)}; have at least "
            f"{FEWEST_GEE_DF + n_coefficients}, use the Rao–Scott t interval, or speak of these "
            "clusters only"
        )
    elif covariance is None:
        reason = "one cluster alone determines a coefficient"
    else:
        variance = float(direction @ covariance @ direction)
        if variance < 1e-12 * float(direction @ model @ direction):
            reason = "clusters do not differ at all, which is no sign of certainty"
    if reason is not None:
        return Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=estimate
        )
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, df)) * sqrt(variance)
    return Estimate(
        estimate=estimate,
        ci_low=estimate - half_width,
        ci_high=estimate + half_width,
        standard_error=sqrt(variance),
        df=df,
        confidence_level=confidence_level,
        method=method,
    )


def _checked_counts(n_correct: ArrayLike, n_trials: ArrayLike) -> tuple[Integers, Integers]:
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


def _checked_table(correct: ArrayLike) -> tuple[Floats, Floats]:
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


def _check_replicates(n_replicates: int, confidence_level: float) -> None:
    check_level(confidence_level)
    fewest = ceil(round(10 / (1 - confidence_level), 6))
    if n_replicates < fewest:
        raise ClusterError(
            f"{n_replicates} replicates leave fewer than 5 beyond each limit; draw at least "
            f"{fewest}, better 2000."
        )
