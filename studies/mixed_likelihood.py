"""The likelihood of logistic regression with random intercepts, and where it is highest.

One random intercept is integrated out by adaptive Gauss–Hermite quadrature, two crossed ones by
Laplace's approximation.

L judgements, p coefficients, m levels of a random intercept; R readers and N cases where crossed.
Judgements that share reader, case and covariates are kept as one row with counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, pi, sqrt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit

from studies.clustered import checked_answers, label_codes
from studies.logistic import design_matrix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LARGEST_SD = 12.0
"""A reader 2 standard deviations out then errs once in e²⁴ answers: the data give no maximum."""
MOST_CELLS = 50_000_000
MOST_NODES = 100
LogLikelihood = Callable[[Floats, Floats], float]
"""`(coefficients, standard deviations) -> log-likelihood`."""


class MixedModelError(ValueError):
    """A model that cannot be set up as asked: what is wrong, and what to do."""


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
    data = Judgements.of(correct, {"cluster": clusters}, covariates)
    return quadrature_likelihood(data, n_nodes)(data.whitened(coefficients), np.array([sd]))


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
    data = Judgements.of(correct, {"reader": readers, "case": cases}, covariates)
    return crossed_likelihood(data)(data.whitened(coefficients), np.array([sd_readers, sd_cases]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
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
    ) -> "Judgements":
        """From single judgements, with the labels of each random intercept by its name. (L,)"""
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
        return Judgements(
            n_correct=np.bincount(which, right).astype(np.float64),
            n_trials=n_trials,
            levels=tuple(keys[:, i].astype(np.int64) for i in range(len(codes))),
            level_names=tuple(labels),
            n_levels=tuple(int(code.max()) + 1 for code in codes),
            design=(raw - means) @ unwhiten,
            unwhiten=centre @ unwhiten,
            names=names,
        )

    def by(self, factor: int) -> "Judgements":
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
        """Coefficients of the covariates as given, as those of `design`. (p,)"""
        if len(coefficients) != len(self.names):
            raise MixedModelError(
                f"{len(coefficients)} coefficients for {', '.join(self.names)}; give one for each."
            )
        found = np.linalg.solve(self.unwhiten, np.array(coefficients, dtype=np.float64))
        return np.asarray(found, dtype=np.float64)


def quadrature_likelihood(data: Judgements, n_nodes: int) -> LogLikelihood:
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


def crossed_likelihood(data: Judgements) -> LogLikelihood:
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
    alone = [quadrature_likelihood(data.by(factor), 1) for factor in range(2)]
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
class Maximum:
    """Where the likelihood is highest, over coefficients and the deviations that are not 0."""

    beta: Floats
    sds: Floats
    value: float
    covariance: Floats | None
    """Of the coefficients and the deviations above 0, in that order; None if it is no peak."""


def maximise(function: Callable[[Floats], float], start: Floats) -> tuple[Floats, float, Floats]:
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
) -> Maximum:
    """The maximum with the deviations in `free` above 0 and the others at 0."""
    p = len(beta)

    def of(point: Floats) -> float:
        sds = np.zeros(n_components)
        # The likelihood is even in a deviation, so it need not be held above 0.
        sds[list(free)] = np.abs(point[p:])
        return likelihood(point[:p], sds)

    point, value, curvature = maximise(of, np.append(beta, np.full(len(free), sd)))
    sds = np.zeros(n_components)
    sds[list(free)] = np.abs(point[p:])
    is_peak = bool(np.isfinite(curvature).all() and np.linalg.eigvalsh(curvature).min() > 0)
    covariance = np.asarray(np.linalg.inv(curvature), dtype=np.float64) if is_peak else None
    return Maximum(beta=point[:p], sds=sds, value=value, covariance=covariance)


def best_fit(
    data: Judgements, likelihood: LogLikelihood, beta: Floats
) -> tuple[Maximum, tuple[float, ...]]:
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


def smallest_over_sd(loss: Callable[[float], float], start: float) -> float:
    """Smallest value of `loss` over sd ≥ 0, searched about `start` first."""
    high = max(2 * start, 1.0)
    while True:
        found = minimize_scalar(loss, bounds=(0, high), method="bounded", options={"xatol": 1e-6})
        if found.x < 0.95 * high or high > LARGEST_SD:
            return min(float(found.fun), loss(0.0))
        high *= 2


def crossing(
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
