"""Logistic regression in which readers, or readers and cases, are random draws.

The logit of a right answer is x·β + σ u, with a standard normal u for each reader: a random
intercept of standard deviation σ. The likelihood integrates u out, by adaptive Gauss–Hermite
quadrature; with one node that is Laplace's approximation. Crossed readers and cases add a second
intercept, τ v for each case, and have Laplace only.

Two accuracies come from one fit, and they differ: the population-averaged one is the mean over
readers (and cases), the conditional one is that of the median reader on the median case.

L judgements, p coefficients, m levels of a random intercept; R readers and N cases where crossed.
Judgements that share reader, case and covariates are kept as one row with counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, pi, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import t as student_t

from studies.clustered import (
    SEPARATED,
    check_level,
    checked_answers,
    design_matrix,
    is_separated,
    label_codes,
    on_probability_scale,
)
from studies.estimate import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_LEVELS = 5
"""Below this the spread between readers is hardly known, and neither is an interval for others."""
FEW_LEVELS = 10
LARGEST_SD = 12.0
"""A reader 2 standard deviations out then errs once in e²⁴ answers: the data give no maximum."""
FURTHEST_LOGIT = 30.0
"""Beyond it a probability is 0 or 1 in floating point."""
MOST_CELLS = 50_000_000
MOST_NODES = 100

_GRID = np.linspace(-8, 8, 161)
_GRID_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
"""Normal expectation by the trapezoidal rule, which for the logistic is exact to 1e-8."""

LogLikelihood = Callable[[Floats, Floats], float]
"""`(coefficients, standard deviations) -> log-likelihood`."""


class MixedModelError(ValueError):
    """A model that cannot be set up as asked: what is wrong, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponent:
    """How much the levels of one random intercept differ."""

    name: str
    n_levels: int
    sd: Estimate
    """Standard deviation of the intercept, on the logit scale."""
    is_zero: bool
    """The likelihood is highest at zero variance, the edge of what is possible."""
    share: float
    """Of the latent variance, with π²/3 for the single judgement."""
    p_value: float
    """Likelihood-ratio test of zero variance, half a chi-square on 1 df (Self & Liang 1987)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFit:
    """A fitted random-intercept model; where there is none, both accuracies say why."""

    population_averaged: Estimate
    """Probability of a right answer, over readers (and cases) and the judgements' covariates."""
    conditional: Estimate
    """The same with every random intercept at 0, its median."""
    coefficients: tuple[tuple[str, Estimate], ...]
    """Names and logits given the random intercepts, the intercept first; empty without a fit."""
    components: tuple[VarianceComponent, ...]
    log_likelihood: float | None
    """Of the single judgements: without binomial coefficients."""
    n_trials: int
    cautions: tuple[str, ...]


def random_intercept_logistic(
    correct: ArrayLike,
    clusters: ArrayLike,
    *,
    covariates: pd.DataFrame | None = None,
    n_nodes: int = 25,
    confidence_level: float = 0.95,
) -> MixedFit:
    """Logistic regression with one random intercept, by maximum likelihood.

    Without covariates the intervals of both accuracies and of the standard deviation are by profile
    likelihood, so that they count how little is known of the spread; with covariates they are by
    Wald, on the logit and on the logarithm (of a deviation with a standard error below half of it,
    by profile otherwise). Accuracies and coefficients use the t quantile on
    clusters − 1 df in place of the normal one.

    Args:
        correct: whether each judgement was right, as 0 and 1. (L,)
        clusters: the reader (or the case) of each judgement, any label. (L,)
        covariates: one numeric column for each, without an intercept. (L, p − 1)
        n_nodes: quadrature nodes; 1 is Laplace's approximation.

    Raises:
        ClusterError: for judgements, labels, covariates or a level that cannot be used.
        MixedModelError: for no node, or more than `MOST_NODES`.

    Source: Pinheiro & Bates (1995), J. Comput. Graph. Stat. 4:12–35. Checked against lme4, glmmML,
    MixedModels.jl and data cloning on published data.
    """
    data = _Judgements.of(correct, {"cluster": clusters}, covariates)
    check_level(confidence_level)
    likelihood = _quadrature_likelihood(data, n_nodes)
    how = f"{n_nodes} nodes" if n_nodes > 1 else "1 node (Laplace)"
    return _fitted(
        data,
        likelihood,
        method=f"random-intercept logistic regression, adaptive Gauss–Hermite, {how}",
        with_profile=data.design.shape[1] == 1,
        confidence_level=confidence_level,
    )


def crossed_logistic(
    correct: ArrayLike,
    readers: ArrayLike,
    cases: ArrayLike,
    *,
    covariates: pd.DataFrame | None = None,
    confidence_level: float = 0.95,
) -> MixedFit:
    """Logistic regression with random intercepts for readers and for cases, by Laplace.

    Intervals are by Wald, on the logit and on the logarithm (of a deviation with a standard error
    below half of it, by profile otherwise), the former with the t quantile on the smaller of
    readers − 1 and cases − 1 df. Laplace's approximation makes the standard deviations somewhat too
    small where a reader or a case has few judgements (as cases have with few readers).

    Args:
        correct: whether each judgement was right, as 0 and 1; missing ones are left out. (L,)
        readers: the reader of each judgement, any label. (L,)
        cases: the case of each judgement, any label. (L,)
        covariates: one numeric column for each, without an intercept. (L, p − 1)

    Raises:
        ClusterError: for judgements, labels, covariates or a level that cannot be used.
        MixedModelError: if readers × cases is more than the memory for it.

    Source: Breslow & Clayton (1993), JASA 88:9–25, section 2; Bates et al. (2015), the R package
    lme4.
    """
    data = _Judgements.of(correct, {"reader": readers, "case": cases}, covariates)
    check_level(confidence_level)
    return _fitted(
        data,
        _crossed_likelihood(data),
        method="logistic regression with crossed random intercepts, Laplace",
        with_profile=False,
        confidence_level=confidence_level,
    )


def random_intercept_log_likelihood(
    correct: ArrayLike,
    clusters: ArrayLike,
    *,
    coefficients: Sequence[float],
    sd: float,
    covariates: pd.DataFrame | None = None,
    n_nodes: int = 25,
) -> float:
    """Log-likelihood of single judgements at given coefficients (p,) and standard deviation.

    Raises:
        ClusterError, MixedModelError: as `random_intercept_logistic`.
    """
    data = _Judgements.of(correct, {"cluster": clusters}, covariates)
    return _quadrature_likelihood(data, n_nodes)(data.whitened(coefficients), np.array([sd]))


def crossed_log_likelihood(
    correct: ArrayLike,
    readers: ArrayLike,
    cases: ArrayLike,
    *,
    coefficients: Sequence[float],
    sd_readers: float,
    sd_cases: float,
    covariates: pd.DataFrame | None = None,
) -> float:
    """Laplace log-likelihood of single judgements at given coefficients (p,) and deviations.

    Raises:
        ClusterError, MixedModelError: as `crossed_logistic`.
    """
    data = _Judgements.of(correct, {"reader": readers, "case": cases}, covariates)
    return _crossed_likelihood(data)(data.whitened(coefficients), np.array([sd_readers, sd_cases]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgements:
    """Rows with counts, and a well-conditioned design."""

    n_correct: Floats
    n_trials: Floats
    levels: tuple[Integers, ...]
    """Of each random intercept, the level of each row; rows are sorted by the first."""
    level_names: tuple[str, ...]
    n_levels: tuple[int, ...]
    design: Floats
    """Intercept, then centred orthogonal columns of unit variance. (rows, p)"""
    unwhiten: Floats
    """From coefficients of `design` to those of the covariates as given. (p, p)"""
    names: tuple[str, ...]

    @staticmethod
    def of(
        correct: ArrayLike, labels: dict[str, ArrayLike], covariates: pd.DataFrame | None
    ) -> "_Judgements":
        right = checked_answers(correct)
        codes = [label_codes(label, len(right), f"{name}s") for name, label in labels.items()]
        design, names = design_matrix(covariates, len(right))
        keys, which = np.unique(np.column_stack([*codes, design]), axis=0, return_inverse=True)
        n_trials = np.bincount(which).astype(np.float64)
        raw = keys[:, len(codes) :]
        n, p = n_trials.sum(), raw.shape[1]
        means = n_trials @ raw / n
        means[0] = 0
        weighted = (raw - means) * np.sqrt(n_trials)[:, None]
        gram = np.asarray(weighted.T @ weighted / n, dtype=np.float64)
        root = np.linalg.cholesky(gram).T
        unwhiten = np.asarray(np.linalg.inv(root), dtype=np.float64)
        centre = np.eye(p)
        centre[0, 1:] -= means[1:]
        return _Judgements(
            n_correct=np.bincount(which, right).astype(np.float64),
            n_trials=n_trials,
            levels=tuple(keys[:, i].astype(np.int64) for i in range(len(codes))),
            level_names=tuple(labels),
            n_levels=tuple(int(code.max()) + 1 for code in codes),
            design=(raw - means) @ unwhiten,
            unwhiten=centre @ unwhiten,
            names=names,
        )

    def by(self, factor: int) -> "_Judgements":
        """The same judgements with one random intercept; rows that it does not part are added."""
        keys, which = np.unique(
            np.column_stack([self.levels[factor], self.design]), axis=0, return_inverse=True
        )
        return replace(
            self,
            n_correct=np.bincount(which, self.n_correct).astype(np.float64),
            n_trials=np.bincount(which, self.n_trials).astype(np.float64),
            levels=(keys[:, 0].astype(np.int64),),
            level_names=(self.level_names[factor],),
            n_levels=(self.n_levels[factor],),
            design=keys[:, 1:],
        )

    def whitened(self, coefficients: Sequence[float]) -> Floats:
        if len(coefficients) != len(self.names):
            raise MixedModelError(
                f"{len(coefficients)} coefficients for {', '.join(self.names)}; give one for each."
            )
        found = np.linalg.solve(self.unwhiten, np.array(coefficients, dtype=np.float64))
        return np.asarray(found, dtype=np.float64)


def _quadrature_likelihood(data: _Judgements, n_nodes: int) -> LogLikelihood:
    """One random intercept; each cluster has its nodes about its own mode."""
    if not 1 <= n_nodes <= MOST_NODES:
        raise MixedModelError(f"n_nodes={n_nodes}; give 1 to {MOST_NODES}, such as 25.")
    (cluster,) = data.levels
    starts = np.flatnonzero(np.diff(cluster, prepend=-1))
    k, n = data.n_correct, data.n_trials
    nodes, weights = np.polynomial.hermite.hermgauss(n_nodes)
    log_weights = np.log(weights) + nodes**2

    def joint(eta: Floats, sd: float, u: Floats) -> Floats:
        """Log of likelihood times normal density, less the density at 0. (m, ...) like `u`"""
        shifted = (eta + (sd * u[cluster]).T).T
        rows = (k * shifted.T - n * np.logaddexp(0, shifted).T).T
        return np.asarray(np.add.reduceat(rows, starts, axis=0) - u**2 / 2)

    def log_likelihood(beta: Floats, sds: Floats) -> float:
        eta, sd = data.design @ beta, float(sds[0])
        u = np.zeros(len(starts))
        height = joint(eta, sd, u)
        for _ in range(200):
            means = expit(eta + sd * u[cluster])
            slope = sd * np.add.reduceat(k - n * means, starts) - u
            curvature = 1 + sd**2 * np.add.reduceat(n * means * (1 - means), starts)
            step = slope / curvature
            if np.abs(step).max() < 1e-11:
                break
            # Far out the logistic is flat and Newton's step overshoots: halve until it climbs.
            new_height = joint(eta, sd, u + step)
            while (falls := new_height < height - 1e-9).any():
                step[falls] /= 2
                new_height = joint(eta, sd, u + step)
            u, height = u + step, new_height
        scale = sqrt(2) / np.sqrt(curvature)
        at_nodes = joint(eta, sd, u[:, None] + scale[:, None] * nodes)
        integrals = np.logaddexp.reduce(at_nodes + log_weights, axis=1) + np.log(scale)
        return float(integrals.sum()) - len(starts) * log(2 * pi) / 2

    return log_likelihood


def _crossed_likelihood(data: _Judgements) -> LogLikelihood:
    """Two crossed intercepts, by Laplace at the joint mode.

    The Hessian has a diagonal block for each factor. Eliminating the larger one leaves a matrix of
    the size of the smaller, so R readers and N ≥ R cases cost R² N.
    """
    (one, other), (n_one, n_other) = data.levels, data.n_levels
    is_swapped = n_one > n_other
    if is_swapped:
        one, other, n_one, n_other = other, one, n_other, n_one
    if n_one * n_other > MOST_CELLS:
        raise MixedModelError(
            f"{n_one} × {n_other} readers and cases are more than {MOST_CELLS:,} cells; draw a "
            "sample of the cases."
        )
    alone = [_quadrature_likelihood(data.by(factor), 1) for factor in range(2)]
    k, n, cell = data.n_correct, data.n_trials, one * n_other + other
    mode = np.zeros(n_one), np.zeros(n_other)

    def joint(eta: Floats, u: Floats, v: Floats) -> float:
        return float(k @ eta - n @ np.logaddexp(0, eta) - (u @ u + v @ v) / 2)

    def log_likelihood(beta: Floats, sds: Floats) -> float:
        nonlocal mode
        if not sds.all():
            # One factor only, or none: the clusters are independent, which is much faster.
            factor = int(sds[0] == 0)
            return alone[factor](beta, sds[[factor]])
        fixed = data.design @ beta
        s, t = (sds[1], sds[0]) if is_swapped else (sds[0], sds[1])
        u, v = mode  # from the last call: a start, not a result
        eta = fixed + s * u[one] + t * v[other]
        height = joint(eta, u, v)
        for _ in range(200):
            means = expit(eta)
            weights, residuals = n * means * (1 - means), k - n * means
            d_one = 1 + s**2 * np.bincount(one, weights, n_one)
            d_other = 1 + t**2 * np.bincount(other, weights, n_other)
            block = s * t * np.bincount(cell, weights, n_one * n_other).reshape(n_one, n_other)
            scaled = block / d_other
            schur = np.diag(d_one) - scaled @ block.T
            slope_one = s * np.bincount(one, residuals, n_one) - u
            slope_other = t * np.bincount(other, residuals, n_other) - v
            step_u = np.linalg.solve(schur, slope_one - scaled @ slope_other)
            step_v = (slope_other - block.T @ step_u) / d_other
            if max(np.abs(step_u).max(), np.abs(step_v).max()) < 1e-10:
                break
            for halvings in range(60):
                new_u, new_v = u + step_u / 2**halvings, v + step_v / 2**halvings
                eta = fixed + s * new_u[one] + t * new_v[other]
                new_height = joint(eta, new_u, new_v)
                if new_height >= height - 1e-9:
                    break
            u, v, height = new_u, new_v, new_height
        mode = u, v
        return height - float(np.linalg.slogdet(schur)[1] + np.log(d_other).sum()) / 2

    return log_likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maximum:
    """Where the likelihood is highest, over coefficients and the deviations that are not 0."""

    beta: Floats
    sds: Floats
    value: float
    covariance: Floats | None
    """Of the coefficients and the deviations above 0, in that order; None if it is no peak."""


def _maximise(function: Callable[[Floats], float], start: Floats) -> tuple[Floats, float, Floats]:
    """Where a smooth function is highest, its value there, and minus its Hessian."""

    def gradient(point: Floats, step: float = 1e-4) -> Floats:
        moves = step * np.eye(len(point))
        return np.array([(function(point + e) - function(point - e)) / (2 * step) for e in moves])

    def loss(point: Any) -> float:
        return -function(point)

    def slope(point: Any) -> Any:
        return -gradient(point)

    with np.errstate(all="ignore"):
        found = minimize(loss, start.copy(), jac=slope, method="BFGS", options={"gtol": 1e-4})
    point = np.asarray(found.x, dtype=np.float64)
    curvature = -_hessian(function, point)
    # Two Newton steps, as BFGS leaves the last digits.
    for _ in range(2):
        try:
            step = np.linalg.solve(curvature, gradient(point))
        except np.linalg.LinAlgError:
            break
        if np.abs(step).max() < 1e-2 and function(point + step) >= function(point) - 1e-9:
            point = point + step
    return point, function(point), curvature


def _hessian(function: Callable[[Floats], float], point: Floats, step: float = 2e-3) -> Floats:
    n, moves, centre = len(point), step * np.eye(len(point)), function(point)
    hessian = np.empty((n, n))
    for i in range(n):
        # Fourth order on the diagonal, where the standard errors come from.
        near = function(point + moves[i]) + function(point - moves[i])
        far = function(point + 2 * moves[i]) + function(point - 2 * moves[i])
        hessian[i, i] = (16 * near - far - 30 * centre) / (12 * step**2)
        for j in range(i):
            corners = [
                a * b * function(point + a * moves[i] + b * moves[j])
                for a in (1, -1)
                for b in (1, -1)
            ]
            hessian[i, j] = hessian[j, i] = sum(corners) / (4 * step**2)
    return hessian


def _maximum(
    likelihood: LogLikelihood, beta: Floats, n_components: int, free: Sequence[int], sd: float
) -> _Maximum:
    """The maximum with the deviations in `free` above 0 and the others at 0."""
    p = len(beta)

    def of(point: Floats) -> float:
        sds = np.zeros(n_components)
        # The likelihood is even in a deviation, so it need not be held above 0.
        sds[list(free)] = np.abs(point[p:])
        return likelihood(point[:p], sds)

    point, value, curvature = _maximise(of, np.append(beta, np.full(len(free), sd)))
    sds = np.zeros(n_components)
    sds[list(free)] = np.abs(point[p:])
    is_peak = bool(np.isfinite(curvature).all() and np.linalg.eigvalsh(curvature).min() > 0)
    covariance = np.asarray(np.linalg.inv(curvature), dtype=np.float64) if is_peak else None
    return _Maximum(beta=point[:p], sds=sds, value=value, covariance=covariance)


def _best(
    data: _Judgements, likelihood: LogLikelihood, beta: Floats
) -> tuple[_Maximum, tuple[float, ...]]:
    """The maximum, with deviations set to 0 that do not raise it, and what each raises it by."""
    n_components = len(data.levels)
    free = list(range(n_components))
    best = _maximum(likelihood, beta, n_components, free, 0.5)
    if best.sds.min() < 0.05:
        # At zero the likelihood is flat in a deviation: look once from the other side.
        other = _maximum(likelihood, beta, n_components, free, 2.0)
        best = max(best, other, key=lambda maximum: maximum.value)
    gains = [0.0] * n_components
    for component in range(n_components):
        others = [i for i in free if i != component]
        without = _maximum(likelihood, beta, n_components, others, 0.5)
        if best.value - without.value < 1e-6:
            free, best = others, without
        else:
            gains[component] = best.value - without.value
    return best, tuple(gains)


def _why_not(data: _Judgements) -> str | None:
    """Why the likelihood has no maximum, or none that means anything."""
    k, n = data.n_correct, data.n_trials
    if k.sum() in (0, n.sum()):
        return f"all answers are {'right' if k.any() else 'wrong'}"
    for name, levels, n_levels in zip(data.level_names, data.levels, data.n_levels, strict=True):
        if n_levels < 2:
            return f"1 {name} says nothing about others"
        sizes = np.bincount(levels, n)
        n_repeated = int((sizes > 1).sum())
        if n_repeated < 2:
            return (
                f"{n_repeated} of {n_levels} {name}s has more than one trial, so spread between "
                f"{name}s cannot be told from chance; leave the random intercept out"
            )
        right = np.bincount(levels, k)
        if ((right == 0) | (right == sizes)).all():
            return (
                f"every {name} is all right or all wrong, so the spread between them has no bound"
            )
    if is_separated(data.design, k, n):
        return SEPARATED
    return None


def _fitted(
    data: _Judgements,
    likelihood: LogLikelihood,
    *,
    method: str,
    with_profile: bool,
    confidence_level: float,
) -> MixedFit:
    raw, reason = float(data.n_correct.sum() / data.n_trials.sum()), _why_not(data)
    if reason is None:
        start = np.zeros(data.design.shape[1])
        start[0] = logit(raw)
        best, gains = _best(data, likelihood, start)
        if best.sds.max() > LARGEST_SD:
            widest = data.level_names[int(best.sds.argmax())]
            reason = (
                f"{widest}s are so nearly all right or all wrong that their spread has no bound"
            )
        elif best.covariance is None:
            reason = "the likelihood is flat where it should be highest"
    if reason is not None:
        nothing = Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=raw
        )
        return MixedFit(
            population_averaged=nothing,
            conditional=replace(nothing, estimate=None),
            coefficients=(),
            components=(),
            log_likelihood=None,
            n_trials=int(data.n_trials.sum()),
            cautions=(),
        )
    fit = _Fit(
        data=data,
        likelihood=likelihood,
        best=best,
        method=method,
        with_profile=with_profile,
        confidence_level=confidence_level,
    )
    return MixedFit(
        population_averaged=fit.accuracy(is_averaged=True),
        conditional=fit.accuracy(is_averaged=False),
        coefficients=tuple(fit.coefficient(i) for i in range(len(data.names))),
        components=tuple(fit.component(i, gain) for i, gain in enumerate(gains)),
        log_likelihood=best.value,
        n_trials=int(data.n_trials.sum()),
        cautions=tuple(fit.cautions()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A maximum, and the intervals that follow from it."""

    data: _Judgements
    likelihood: LogLikelihood
    best: _Maximum
    method: str
    with_profile: bool
    confidence_level: float

    @property
    def covariance(self) -> Floats:
        assert self.best.covariance is not None
        return self.best.covariance

    @property
    def fewest(self) -> int:
        return min(self.data.n_levels)

    @property
    def t_quantile(self) -> float:
        return float(student_t.ppf(0.5 + self.confidence_level / 2, self.fewest - 1))

    @property
    def z_quantile(self) -> float:
        return float(ndtri(0.5 + self.confidence_level / 2))

    def too_few(self) -> str | None:
        for name, n_levels in zip(self.data.level_names, self.data.n_levels, strict=True):
            if n_levels < FEWEST_LEVELS:
                return (
                    f"{n_levels} {name}s are too few to tell how much others differ; have at least "
                    f"{FEWEST_LEVELS}, or treat them as fixed and speak of these only"
                )
        return None

    def cautions(self) -> list[str]:
        found = []
        data = self.data
        for name, levels, n_levels, sd in zip(
            data.level_names, data.levels, data.n_levels, self.best.sds, strict=True
        ):
            largest = float(np.bincount(levels, data.n_trials).max() / data.n_trials.sum())
            if largest > 0.5:
                found.append(
                    f"One {name} holds {largest:.0%} of all trials: the result is mostly its own."
                )
            if FEWEST_LEVELS <= n_levels < FEW_LEVELS:
                found.append(
                    f"With {n_levels} {name}s (fewer than {FEW_LEVELS}) their spread is hardly "
                    "known, and the interval is fragile."
                )
            if sd == 0:
                found.append(
                    f"The variance between {name}s is estimated at zero, the edge of what is "
                    f"possible. That does not show that {name}s are alike"
                    + (
                        "."
                        if self.with_profile
                        else ", and the interval takes it as known: it is too narrow."
                    )
                )
        return found

    def accuracy(self, *, is_averaged: bool) -> Estimate:
        """Population-averaged or conditional accuracy."""
        p, best = len(self.data.names), self.best
        free = np.flatnonzero(best.sds)

        def at(point: Floats) -> float:
            sds = np.zeros(len(best.sds))
            sds[free] = point[p:]
            spread = float(np.sqrt(sds @ sds)) if is_averaged else 0.0
            return float(logit(_mean_accuracy(self.data, point[:p], spread)))

        point = np.append(best.beta, best.sds[free])
        slope = np.array(
            [(at(point + e) - at(point - e)) / 2e-5 for e in 1e-5 * np.eye(len(point))]
        )
        error = sqrt(float(slope @ self.covariance @ slope))
        centre = at(point)
        reason, half_width = self.too_few(), self.t_quantile * error
        limits: tuple[float, float] | None = centre - half_width, centre + half_width
        if reason is None and self.with_profile:
            limits = self.profiled_accuracy(centre, half_width, is_averaged=is_averaged)
        if reason is not None or limits is None:
            return Estimate.not_estimable(
                self.method,
                reason or "the likelihood does not fall far enough on one side",
                confidence_level=self.confidence_level,
                estimate=float(expit(centre)),
            )
        kind = "profile likelihood" if self.with_profile else "Wald"
        return on_probability_scale(
            Estimate(
                estimate=centre,
                ci_low=limits[0],
                ci_high=limits[1],
                standard_error=error,
                df=self.fewest - 1,
                confidence_level=self.confidence_level,
                method=f"{self.method}, {kind} interval with a t quantile",
            )
        )

    def profiled_accuracy(
        self, centre: float, half_width: float, *, is_averaged: bool
    ) -> tuple[float, float] | None:
        """Limits on the logit scale for the model of an intercept and one deviation."""

        def intercept(target: float, sd: float) -> float:
            if not is_averaged:
                return target
            reach = abs(target) * sqrt(1 + sd**2) + 1

            def excess(b: float) -> float:
                return float(_GRID_WEIGHTS @ expit(b + sd * _GRID)) - float(expit(target))

            while excess(-reach) > 0 or excess(reach) < 0:
                reach *= 2
            return float(brentq(excess, -reach, reach, xtol=1e-12))

        def profile(target: float) -> float:
            def loss(sd: float) -> float:
                beta = np.array([intercept(target, sd)])
                return -self.likelihood(beta, np.array([sd]))

            return -_smallest(loss, float(self.best.sds[0]))

        def fallen(target: float) -> float:
            return profile(target) - self.best.value + self.t_quantile**2 / 2

        low, high = (
            _crossing(fallen, centre, step, furthest=FURTHEST_LOGIT)
            for step in (-half_width, half_width)
        )
        return None if low is None or high is None else (low, high)

    def coefficient(self, index: int) -> tuple[str, Estimate]:
        p = len(self.data.names)
        row = self.data.unwhiten[index]
        value = float(row @ self.best.beta)
        reason = self.too_few()
        if reason is not None:
            return self.data.names[index], Estimate.not_estimable(
                self.method, reason, confidence_level=self.confidence_level, estimate=value
            )
        error = sqrt(float(row @ self.covariance[:p, :p] @ row))
        return self.data.names[index], Estimate(
            estimate=value,
            ci_low=value - self.t_quantile * error,
            ci_high=value + self.t_quantile * error,
            standard_error=error,
            df=self.fewest - 1,
            confidence_level=self.confidence_level,
            method=f"{self.method}, Wald interval with a t quantile",
        )

    def component(self, index: int, gain: float) -> VarianceComponent:
        sds = self.best.sds
        total = float(sds @ sds) + pi**2 / 3
        return VarianceComponent(
            name=self.data.level_names[index],
            n_levels=self.data.n_levels[index],
            sd=self.deviation(index),
            is_zero=bool(sds[index] == 0),
            share=float(sds[index]) ** 2 / total,
            p_value=float(ndtr(-sqrt(2 * gain))) if gain > 0 else 1.0,
        )

    def deviation(self, index: int) -> Estimate:
        """Interval of one standard deviation; from 0 up where the estimate is 0."""
        sd, z = float(self.best.sds[index]), self.z_quantile
        error = None
        if sd > 0:
            position = len(self.data.names) + int((self.best.sds[:index] > 0).sum())
            error = sqrt(float(self.covariance[position, position]))
        limits: tuple[float, float] | None
        # Wald on the logarithm of what may be next to nothing has no use.
        if error is not None and error < sd / 2 and not self.with_profile:
            limits = sd * exp(-z * error / sd), sd * exp(z * error / sd)
            how = "Wald interval on the logarithm"
        else:
            limits, how = self.profiled_deviation(index), "profile likelihood interval"
        if limits is None:
            return Estimate.not_estimable(
                self.method,
                "the spread has no upper bound",
                confidence_level=self.confidence_level,
                estimate=sd,
            )
        return Estimate(
            estimate=sd,
            ci_low=limits[0],
            ci_high=limits[1],
            standard_error=error,
            confidence_level=self.confidence_level,
            method=f"{self.method}, {how}" + ", variance at zero" * (sd == 0),
        )

    def profiled_deviation(self, index: int) -> tuple[float, float] | None:
        """Where the likelihood, maximised over all else, has fallen; None without an upper end."""
        best, p, sd = self.best, len(self.data.names), float(self.best.sds[index])
        others = [i for i in np.flatnonzero(best.sds) if i != index]
        start = np.append(best.beta, best.sds[others])

        def fallen(value: float) -> float:
            def of(point: Floats) -> float:
                sds = np.zeros(len(best.sds))
                sds[index], sds[others] = value, np.abs(point[p:])
                return self.likelihood(point[:p], sds)

            return _maximise(of, start)[1] - best.value + self.z_quantile**2 / 2

        high = _crossing(fallen, sd, max(sd, 0.3), furthest=2 * LARGEST_SD)
        if high is None:
            return None
        has_low = sd > 0 and fallen(0.0) < 0
        return (float(brentq(fallen, 0.0, sd, xtol=1e-7)) if has_low else 0.0), high


def _mean_accuracy(data: _Judgements, beta: Floats, spread: float) -> float:
    """Accuracy over judgements, and over intercepts of standard deviation `spread`."""
    eta, which = np.unique(data.design @ beta, return_inverse=True)
    n_trials = np.bincount(which, data.n_trials)
    means = expit(eta) if spread == 0 else expit(eta[:, None] + spread * _GRID) @ _GRID_WEIGHTS
    return float(n_trials @ means / n_trials.sum())


def _smallest(loss: Callable[[float], float], start: float) -> float:
    """Smallest value of `loss` over sd ≥ 0, searched about `start` first."""
    high = max(2 * start, 1.0)
    while True:
        found = minimize_scalar(loss, bounds=(0, high), method="bounded", options={"xatol": 1e-6})
        if found.x < 0.95 * high or high > LARGEST_SD:
            return min(float(found.fun), loss(0.0))
        high *= 2


def _crossing(
    function: Callable[[float], float], start: float, step: float, *, furthest: float
) -> float | None:
    """Where `function`, above 0 at `start`, reaches 0 in the direction of `step`."""
    inner = start
    for _ in range(12):
        outer = inner + step
        if abs(outer) > furthest:
            return None
        if function(outer) <= 0:
            low, high = sorted((inner, outer))
            return float(brentq(function, low, high, xtol=1e-7))
        inner, step = outer, 1.5 * step
    return None
