"""Marginal logistic regression of clustered judgements, by generalised estimating equations.

L judgements in m clusters, p coefficients.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from statsmodels.genmod.cov_struct import Exchangeable, Independence
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_estimating_equations import GEE

from studies.clustered import ClusterError, checked_answers, label_codes
from studies.estimate import Estimate, check_level
from studies.logistic import SEPARATED, design_matrix, is_separated, on_probability_scale

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_GEE_DF = 9
"""Clusters less coefficients, below which not even the bias-reduced interval holds its level."""
MANY_CLUSTERS = 40
"""From here the robust and the bias-reduced standard error are close."""


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
    check_level(confidence_level, ClusterError)
    if working_correlation not in ("independence", "exchangeable"):
        raise ClusterError(
            f"working_correlation={working_correlation!r}; choose independence or exchangeable."
        )
    n_clusters, p = int(codes.max()) + 1, len(names)
    method = f"logistic GEE, {working_correlation} working correlation"
    beta, correlation, reason = _solved_gee(right, codes, design, working_correlation)
    if reason is not None:
        nothing = Estimate.not_estimable(method, reason, confidence_level, float(right.mean()))
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
        return Estimate.not_estimable(method, reason, confidence_level, estimate)
    return Estimate.symmetric(
        estimate, sqrt(variance), df=df, confidence_level=confidence_level, method=method
    )
