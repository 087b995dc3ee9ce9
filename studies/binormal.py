"""The binormal ROC curve: two normal distributions, cut into ratings, by maximum likelihood.

K ratings; counts run from the surest "real" (first) to the surest "generated" (last). (K,) Fits are
made many at a time: F fits of P parameters, S distributions each.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr, ndtri

from studies.estimate import Estimate, check_level
from studies.roc import RocError, checked_counts

Array = NDArray[np.float64]

LOG_B_LIMIT = 5.0
"""How far ln(b) is followed. A likelihood still growing there has no maximum."""
FLAT = 1e-5
"""A log-likelihood gained by less than this over the limit is no maximum either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binormal:
    """A binormal ROC curve: noise is N(0, 1) and signal N(a/b, 1/b²), up to a common scale."""

    a: Estimate
    """Distance of the means in standard deviations of the signal."""
    b: Estimate
    """Standard deviation of the noise over that of the signal."""
    auc: Estimate
    thresholds: tuple[float, ...]
    """Cuts between the ratings that were used, in standard deviations of the noise."""
    log_likelihood: float | None
    n_ratings: int
    """Ratings that were used at all; a rating that nobody gave is joined to its neighbour."""
    n_noise: int
    n_signal: int

    @property
    def is_estimable(self) -> bool:
        """Whether the likelihood has a maximum."""
        return self.log_likelihood is not None


def binormal(
    noise_counts: ArrayLike,
    signal_counts: ArrayLike,
    *,
    equal_variance: bool = False,
    confidence_level: float = 0.95,
) -> Binormal:
    """Maximum-likelihood binormal ROC curve of K ratings.

    With cuts c_k in standard deviations of the noise,

        P(rating > k | noise) = Φ(−c_k)
        P(rating > k | signal) = Φ(a − b c_k)
        AUC = Φ(a / √(1 + b²))

    For a given b the log-likelihood is concave, so Newton's method finds its top there, and the
    best b is searched for along ln(b). Standard errors are from the expected information and the
    delta method; the intervals of a, b and AUC are normal for a, ln(b) and a / √(1 + b²), so that b
    stays positive and AUC within [0, 1].

    Degenerate ratings have no maximum and are not estimable: kinds that the ratings separate, fewer
    than 3 ratings in use (2 with equal variances), or points that a curve with b at 0 or infinity
    fits best.

    Args:
        noise_counts, signal_counts: from the surest "real" to the surest "generated". (K,)
        equal_variance: hold b = 1; then a is d′.

    Raises:
        RocError: if the counts are no whole numbers from 0 up, or not K of each.

    Source: Dorfman & Alf (1969); checked against printed fits of the Van Dyke readings.
    """
    of_noise, of_signal = checked_counts(noise_counts, signal_counts)
    check_level(confidence_level, RocError)
    used = of_noise + of_signal > 0
    noise, signal = of_noise[used].astype(np.float64), of_signal[used].astype(np.float64)
    reason = _no_binormal(noise, signal, equal_variance)
    if reason is None:
        model = _BinormalModel(noise, signal)
        b, is_inside = (1.0, True) if equal_variance else model.best_b()
        if not is_inside:
            reason = (
                "the ratings are degenerate: the likelihood keeps growing as the signal's spread "
                f"goes to {'infinity' if b < 1 else 'zero'}"
            )
    if reason is not None:
        return _not_estimable_binormal(noise, signal, reason, confidence_level)
    return _binormal_with_intervals(model, b, equal_variance, confidence_level)


def fit_ordinal_probit(
    offset: Array, design: Array, counts: Array, start: Array
) -> tuple[Array, Array, Array]:
    """Maximum likelihood of ratings cut from normal distributions, many fits at a time.

    Fit f has S distributions (kinds of picture), cut into K ratings at the boundaries

        x = offset + design · parameters        (F, S, K + 1)

    in standard deviations from their means. The lowest and the highest boundary may be ∓inf. What
    is below the lowest was not rated: the likelihood is conditional on being above it,

        Σ counts_k ln[(Φ(x_{k+1}) − Φ(x_k)) / Φ(−x_0)]

    A rating with boundaries at inf on both sides, and no count, does not exist in that fit.

    Args:
        offset: (F, S, K + 1)
        design: (F, S, K + 1, P)
        counts: need not be whole. (F, S, K)
        start: parameters whose boundaries are in order. (F, P)

    Returns:
        Parameters (F, P), log-likelihoods (F,) and Hessians (F, P, P). A parameter that no
        boundary depends on keeps its start.
    """
    parameters = start.copy()
    value, gradient, hessian = _ordinal_probit(offset, design, counts, parameters)
    damping = np.zeros(len(start))
    active = np.ones(len(start), dtype=bool)
    identity = np.eye(start.shape[1])
    for _ in range(200):
        curvature = -hessian[active]
        size = np.trace(curvature, axis1=1, axis2=2) / start.shape[1]
        # Parameters that nothing depends on have a row of zeros; a tiny ridge leaves them alone.
        ridge = (damping[active] + 1e-12) * np.maximum(size, 1e-12)
        step = np.linalg.solve(
            curvature + ridge[:, None, None] * identity, gradient[active][:, :, None]
        )[:, :, 0]
        proposed = parameters[active] + step
        tried = _ordinal_probit(offset[active], design[active], counts[active], proposed)
        is_usable = np.isfinite(tried[2]).all(axis=(1, 2)) & np.isfinite(tried[1]).all(axis=1)
        is_up = (tried[0] >= value[active]) & is_usable
        rows = np.flatnonzero(active)
        up, down = rows[is_up], rows[~is_up]
        gain = np.abs(np.einsum("fp,fp->f", gradient[active], step))
        parameters[up] = proposed[is_up]
        value[up], gradient[up], hessian[up] = (part[is_up] for part in tried)
        damping[up] = np.where(damping[up] > 1e-6, damping[up] / 10, 0.0)
        damping[down] = np.maximum(10 * damping[down], 1e-3)
        active[rows[gain < 1e-13 * (1 + np.abs(value[rows]))]] = False
        active[damping > 1e12] = False
        if not active.any():
            break
    return parameters, value, hessian


def _ordinal_probit(
    offset: Array, design: Array, counts: Array, parameters: Array
) -> tuple[Array, Array, Array]:
    """Log-likelihood, gradient and Hessian. (F,), (F, P), (F, P, P)"""
    x = offset + np.einsum("fskp,fp->fsk", design, parameters)
    log_p = log_normal_probability(x[..., :-1], x[..., 1:])
    log_kept = log_ndtr(-x[..., 0])
    rated = counts.sum(axis=-1)
    given = counts > 0
    value = np.where(given, counts * np.where(given, log_p, 0.0), 0.0).sum(axis=(1, 2))
    value = value - (rated * log_kept).sum(axis=1)

    # φ(x) over the probability of the rating below, and of the one above, each boundary.
    log_density = log_normal_density(x)
    safe = np.where(given, log_p, 0.0)
    with np.errstate(over="ignore"):
        upper = np.where(given, np.exp(log_density[..., 1:] - safe), 0.0)
        lower = np.where(given, np.exp(log_density[..., :-1] - safe), 0.0)
        hazard = np.exp(log_density[..., 0] - log_kept)
    finite = np.where(np.isfinite(x), x, 0.0)
    by_x, diagonal = np.zeros_like(x), np.zeros_like(x)
    # A step too far overflows here; the caller sees that it is not finite and takes a smaller one.
    with np.errstate(over="ignore", invalid="ignore"):
        by_x[..., 1:] += counts * upper
        by_x[..., :-1] -= counts * lower
        by_x[..., 0] += rated * hazard
        diagonal[..., 1:] -= counts * upper * (finite[..., 1:] + upper)
        diagonal[..., :-1] += counts * lower * (finite[..., :-1] - lower)
        diagonal[..., 0] += rated * hazard * (hazard - finite[..., 0])
        beside = counts * upper * lower
        gradient = np.einsum("fsk,fskp->fp", by_x, design)
        hessian = _weighted_product(diagonal, design, design)
        cross = _weighted_product(beside, design[:, :, :-1], design[:, :, 1:])
        return value, gradient, hessian + cross + cross.transpose(0, 2, 1)


def _weighted_product(weights: Array, left: Array, right: Array) -> Array:
    """Σ weights × left × right over distributions and boundaries. (F, P, P)"""
    n_fits, n_parameters = len(weights), left.shape[-1]
    weighted = (weights[..., None] * left).reshape(n_fits, -1, n_parameters)
    return np.asarray(weighted.transpose(0, 2, 1) @ right.reshape(n_fits, -1, n_parameters))


def log_normal_probability(lower: Array, upper: Array) -> Array:
    """ln(Φ(upper) − Φ(lower)), exact in both tails; −inf where `upper` is not above `lower`."""
    # In the upper tail both are close to 1; the mirror image is close to 0 instead.
    mirrored = lower > 0
    low = np.where(mirrored, -upper, lower)
    high = np.where(mirrored, -lower, upper)
    is_open = high > low
    log_high = log_ndtr(np.where(is_open, high, 0.0))
    below = np.where(is_open, log_ndtr(low) - log_high, -1.0)
    return np.where(is_open, log_high + np.log1p(-np.exp(np.minimum(below, -1e-300))), -np.inf)


def log_normal_density(x: Array) -> Array:
    """ln φ(x); −inf at ±inf."""
    return -0.5 * (x**2 + log(2 * np.pi))


class _BinormalModel:
    """Likelihood of a and the cuts at a given b, for ratings that were all used."""

    def __init__(self, noise: Array, signal: Array) -> None:
        self.counts = np.stack([noise, signal])
        self.pooled = ndtri(np.cumsum(noise + signal)[:-1] / (noise.sum() + signal.sum()))

    def climb(self, b: Array, start: Array | None = None) -> tuple[Array, Array]:
        """The best (a, cuts) at each b, and its log-likelihood. (F,) -> (F, K), (F,)"""
        n_fits, n_cuts = len(b), len(self.pooled)
        offset = np.zeros((n_fits, 2, n_cuts + 2))
        offset[:, :, 0], offset[:, :, -1] = -np.inf, np.inf
        design = np.zeros((n_fits, 2, n_cuts + 2, n_cuts + 1))
        rows = np.arange(1, n_cuts + 1)
        design[:, 0, rows, rows] = 1
        design[:, 1, rows, rows] = b[:, None]
        design[:, 1, rows, 0] = -1
        if start is None:
            cuts = self.pooled / np.maximum(b, 1)[:, None]
            start = np.concatenate([np.zeros((n_fits, 1)), cuts], axis=1)
        counts = np.broadcast_to(self.counts, (n_fits, *self.counts.shape))
        parameters, values, _ = fit_ordinal_probit(offset, design, counts, start)
        return parameters, values

    def best_b(self) -> tuple[float, bool]:
        """b of the highest likelihood, and whether that is a maximum and not a limit."""
        grid = np.linspace(-LOG_B_LIMIT, LOG_B_LIMIT, 41)
        fits, values = self.climb(np.exp(grid))
        top = int(values.argmax())
        if max(values[0], values[-1]) > values[top] - FLAT:
            return (exp(grid[0]) if values[0] >= values[-1] else exp(grid[-1])), False
        start = fits[top : top + 1]
        found = minimize_scalar(
            lambda log_b: -float(self.climb(np.exp([log_b]), start)[1][0]),
            bounds=(grid[top - 1], grid[top + 1]),
            method="bounded",
            options={"xatol": 1e-7},
        )
        return exp(float(found.x)), True

    def information(self, a: float, b: float, cuts: Array) -> Array:
        """Expected information of (a, ln b, cuts). (K + 1, K + 1)"""
        k = len(cuts)
        # How the probability below each cut depends on the parameters, noise and signal.
        below = np.zeros((2, k + 2, k + 2))
        rows = np.arange(1, k + 1)
        below[0, rows, rows + 1] = np.exp(log_normal_density(cuts))
        density = np.exp(log_normal_density(b * cuts - a))
        below[1, rows, 0] = -density
        below[1, rows, 1] = density * b * cuts
        below[1, rows, rows + 1] = density * b
        x = np.stack([cuts, b * cuts - a])
        ends = np.full((2, 1), np.inf)
        x = np.concatenate([-ends, x, ends], axis=1)
        p = np.exp(log_normal_probability(x[:, :-1], x[:, 1:]))
        slopes = np.diff(below, axis=1)
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("sk,skp,skq->pq", totals / p, slopes, slopes))


def _no_binormal(noise: Array, signal: Array, equal_variance: bool) -> str | None:
    """Why these counts, all ratings used, determine no curve; None if they may."""
    if not noise.sum() or not signal.sum():
        missing = "real" if not noise.sum() else "generated"
        return f"no {missing} picture was rated"
    if len(noise) < 2:
        return "one rating was given to every picture"
    if not _is_ever_above(noise, signal):
        return "the ratings are degenerate: no real picture was rated above a generated one"
    if not _is_ever_above(signal, noise):
        return "the ratings are degenerate: no generated picture was rated above a real one"
    if len(noise) < 3 and not equal_variance:
        return "2 ratings were used, and a curve with unequal variances needs 3"
    return None


def _is_ever_above(one: Array, other: Array) -> bool:
    """Whether some picture of `one` was rated strictly above some picture of `other`."""
    return bool(np.flatnonzero(one)[-1] > np.flatnonzero(other)[0])


def _binormal_with_intervals(
    model: _BinormalModel, b: float, equal_variance: bool, confidence_level: float
) -> Binormal:
    fits, values = model.climb(np.array([b]))
    parameters, value = fits[0], float(values[0])
    information = model.information(float(parameters[0]), b, parameters[1:])
    if equal_variance:
        keep = np.delete(np.arange(len(information)), 1)
        information = information[np.ix_(keep, keep)]
    try:
        covariance = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        covariance = np.full_like(information, np.nan)
    if not (np.isfinite(covariance).all() and (np.diag(covariance) > 0).all()):
        return _not_estimable_binormal(
            model.counts[0],
            model.counts[1],
            "the ratings are degenerate: the likelihood is flat at its maximum",
            confidence_level,
        )
    a, scale = float(parameters[0]), sqrt(1 + b**2)
    z = float(ndtri(0.5 + confidence_level / 2))
    kind = "equal variances" if equal_variance else "unequal variances"
    source = f"binormal ROC curve by maximum likelihood, {kind}"

    # d(a / √(1 + b²)) by a and by ln(b).
    slopes = np.array([1 / scale, -a * b**2 / scale**3])[: 1 if equal_variance else 2]
    block = covariance[: len(slopes), : len(slopes)]
    deviate, deviate_error = a / scale, sqrt(float(slopes @ block @ slopes))
    log_b_error = 0.0 if equal_variance else sqrt(covariance[1, 1])
    return Binormal(
        a=Estimate.symmetric(
            a, sqrt(covariance[0, 0]), confidence_level=confidence_level, method=source
        ),
        b=Estimate.not_estimable(source, "b was held at 1", confidence_level, 1.0)
        if equal_variance
        else Estimate(
            estimate=b,
            ci_low=b * exp(-z * log_b_error),
            ci_high=b * exp(z * log_b_error),
            standard_error=b * log_b_error,
            confidence_level=confidence_level,
            method=f"{source}, interval on the log scale",
        ),
        auc=Estimate(
            estimate=float(ndtr(deviate)),
            ci_low=float(ndtr(deviate - z * deviate_error)),
            ci_high=float(ndtr(deviate + z * deviate_error)),
            standard_error=float(np.exp(log_normal_density(np.array(deviate)))) * deviate_error,
            confidence_level=confidence_level,
            method=f"area under the {source}, delta-method interval on the probit scale",
        ),
        thresholds=tuple(parameters[1:].tolist()),
        log_likelihood=value,
        n_ratings=model.counts.shape[1],
        n_noise=int(model.counts[0].sum()),
        n_signal=int(model.counts[1].sum()),
    )


def _not_estimable_binormal(
    noise: Array, signal: Array, reason: str, confidence_level: float
) -> Binormal:
    none = Estimate.not_estimable(
        "binormal ROC curve by maximum likelihood", reason, confidence_level
    )
    return Binormal(
        a=none,
        b=none,
        auc=none,
        thresholds=(),
        log_likelihood=None,
        n_ratings=len(noise),
        n_noise=int(noise.sum()),
        n_signal=int(signal.sum()),
    )
