"""ROC analysis of confidence ratings: how well a reader ranks generated above real pictures.

The signal is a generated picture, noise is a real one. Answer and confidence together are one
ordinal scale, from the surest "real" to the surest "generated". The empirical area needs nothing
but that order; the binormal curve supposes two normal distributions and cuts between the ratings.

N pictures, M readers or models, K ratings. Counts run from the surest "real" (first) to the surest
"generated" (last). (K,)
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_ndtr, logit, ndtr, ndtri
from scipy.stats import t as student_t

from studies.estimate import Estimate

Array = NDArray[np.float64]

LOG_B_LIMIT = 5.0
"""How far ln(b) is followed. A likelihood still growing there has no maximum."""
FLAT = 1e-5
"""A log-likelihood gained by less than this over the limit is no maximum either."""
TOO_FEW = "the variance needs at least 2 real and 2 generated pictures"


class RocError(ValueError):
    """Ratings or counts that are no rating experiment, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roc:
    """The empirical ROC curve, from (0, 0) to (1, 1)."""

    thresholds: tuple[float, ...]
    """Calling "generated" from this score upwards gives the point; the strictest comes first."""
    false_alarm_rates: tuple[float, ...]
    hit_rates: tuple[float, ...]
    """One point more than thresholds: the first is (0, 0), where nothing is called generated."""
    n_noise: int
    n_signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AucDifference:
    """First area minus second, and the test of whether they are equal."""

    difference: Estimate
    statistic: float | None
    df: float | None
    """Degrees of freedom; None where the statistic is compared with the normal distribution."""
    p_value: float | None
    """Two-sided."""


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


def ordinal_ratings(
    called_signal: ArrayLike, confidence: ArrayLike, n_confidence_levels: int
) -> NDArray[np.int64]:
    """Answer and confidence as one scale: 1 is the surest "real", 2K the surest "generated". (N,)

    Args:
        called_signal: whether the picture was called generated. (N,)
        confidence: 1 (guessed) to K (sure). (N,)
        n_confidence_levels: K of the scale that was shown, not of the answers that were given.

    Raises:
        RocError: if an answer is not yes or no, or a confidence is off the scale.
    """
    called, sure = np.asarray(called_signal), np.asarray(confidence, dtype=np.float64)
    if called.shape != sure.shape or called.ndim != 1:
        raise RocError(
            f"answers of shape {called.shape} and confidences of shape {sure.shape} do not belong "
            "together; give one of each for every picture."
        )
    _refuse_what_is_not_yes_or_no(called, "answer")
    off = ~((sure >= 1) & (sure <= n_confidence_levels) & (sure == np.floor(sure)))
    if off.any():
        row = int(off.argmax())
        raise RocError(
            f"confidence {sure[row]:g} in row {row + 1} is off the scale; write a whole number "
            f"from 1 to {n_confidence_levels}."
        )
    sure_int = sure.astype(np.int64)
    return np.where(
        called.astype(bool), n_confidence_levels + sure_int, n_confidence_levels + 1 - sure_int
    )


def rating_counts(
    ratings: ArrayLike, is_signal: ArrayLike, n_ratings: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each rating was given to noise and to signal. (K,), (K,)

    Args:
        ratings: 1 to K. (N,)
        is_signal: whether the picture was generated. (N,)

    Raises:
        RocError: if a rating is off the scale.
    """
    noise, signal = _by_kind(ratings, is_signal)
    together = np.concatenate([noise, signal])
    off = ~((together >= 1) & (together <= n_ratings) & (together == np.floor(together)))
    if off.any():
        raise RocError(
            f"rating {together[off][0]:g} is off the scale; write a whole number from 1 to "
            f"{n_ratings}."
        )
    bins = n_ratings + 1
    return (
        np.bincount(noise.astype(np.int64), minlength=bins)[1:],
        np.bincount(signal.astype(np.int64), minlength=bins)[1:],
    )


def empirical_roc(scores: ArrayLike, is_signal: ArrayLike) -> Roc | None:
    """The empirical ROC curve, where ties give a slanted piece; None without both kinds.

    Raises:
        RocError: if a score is missing.
    """
    noise, signal = _by_kind(scores, is_signal)
    if not len(noise) or not len(signal):
        return None
    thresholds = np.unique(np.concatenate([noise, signal]))[::-1]
    above = [
        (len(kind) - np.searchsorted(np.sort(kind), thresholds, side="left")) / len(kind)
        for kind in (noise, signal)
    ]
    return Roc(
        thresholds=tuple(thresholds.tolist()),
        false_alarm_rates=(0.0, *above[0].tolist()),
        hit_rates=(0.0, *above[1].tolist()),
        n_noise=len(noise),
        n_signal=len(signal),
    )


def auc(
    scores: ArrayLike,
    is_signal: ArrayLike,
    *,
    confidence_level: float = 0.95,
    logit_interval: bool = False,
) -> Estimate:
    """Area under the empirical ROC curve: P(generated above real) + ½ P(tied).

    The interval is normal with DeLong's variance, and may leave [0, 1]; on the logit scale it
    cannot. It is for other pictures judged by this reader. Not estimable where the variance is 0:
    when the ratings separate the kinds completely, or do not differ at all.

    Args:
        scores: ratings, confidences or any score that grows towards "generated". (N,)
        is_signal: whether the picture was generated. (N,)

    Raises:
        RocError: if a score is missing, or the level is not in (0, 1).

    Source: DeLong, DeLong & Clarke-Pearson (1988); checked against pROC on the aSAH grades. Logit:
    Pepe (2003).
    """
    return _auc(*_by_kind(scores, is_signal), confidence_level, logit_interval)


def auc_from_counts(
    noise_counts: ArrayLike,
    signal_counts: ArrayLike,
    *,
    confidence_level: float = 0.95,
    logit_interval: bool = False,
) -> Estimate:
    """`auc` of K ratings that were counted instead of listed.

    Raises:
        RocError: if the counts are no whole numbers from 0 up, or not K of each.
    """
    noise, signal = _counts(noise_counts, signal_counts)
    ratings = np.arange(len(noise), dtype=np.float64)
    return _auc(
        np.repeat(ratings, noise), np.repeat(ratings, signal), confidence_level, logit_interval
    )


def auc_covariance(scores: ArrayLike, is_signal: ArrayLike) -> tuple[Array, Array]:
    """Areas of several readers on the same pictures, and DeLong's covariance of them.

    Args:
        scores: one row for each reader or model. (M, N)
        is_signal: whether the picture was generated. (N,)

    Returns:
        Areas (M,) and their covariance (M, M).

    Raises:
        RocError: if a score is missing, or there are fewer than 2 pictures of one kind.

    Source: DeLong, DeLong & Clarke-Pearson (1988), equations 2 to 5.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise RocError(
            f"scores of shape {table.shape} are not readers × pictures; give one row for each "
            "reader and one column for each picture."
        )
    kinds = [_by_kind(row, is_signal) for row in table]
    if not kinds or min(len(kinds[0][0]), len(kinds[0][1])) < 2:
        raise RocError("DeLong's covariance needs at least 2 real and 2 generated pictures.")
    of_signal, of_noise = (
        np.array(placements)
        for placements in zip(*(_placements(noise, signal) for noise, signal in kinds), strict=True)
    )
    covariance = np.cov(of_signal) / of_signal.shape[1] + np.cov(of_noise) / of_noise.shape[1]
    return of_signal.mean(axis=1), np.atleast_2d(covariance)


def delong_paired(
    first_scores: ArrayLike,
    second_scores: ArrayLike,
    is_signal: ArrayLike,
    *,
    confidence_level: float = 0.95,
) -> AucDifference:
    """Whether two readers, or a reader and a model, rank the same pictures equally well.

    Args:
        first_scores, second_scores: of the same pictures in the same order. (N,)
        is_signal: whether the picture was generated. (N,)

    Not estimable with fewer than 2 pictures of one kind, or where the difference has no variance.

    Raises:
        RocError: if a score is missing, or the two are not of the same pictures.

    Source: DeLong, DeLong & Clarke-Pearson (1988).
    """
    first, second = np.asarray(first_scores), np.asarray(second_scores)
    if first.shape != second.shape:
        raise RocError(
            f"{first.size} first and {second.size} second scores are not of the same pictures; use "
            "`delong_unpaired` for different pictures."
        )
    method = "difference of two areas on the same pictures, DeLong's test"
    if min(len(kind) for kind in _by_kind(first, is_signal)) < 2:
        return _no_difference(method, TOO_FEW, confidence_level)
    areas, covariance = auc_covariance(np.stack([first, second]), is_signal)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return _difference(float(areas[0] - areas[1]), variance, None, method, confidence_level)


def delong_unpaired(
    first_scores: ArrayLike,
    first_is_signal: ArrayLike,
    second_scores: ArrayLike,
    second_is_signal: ArrayLike,
    *,
    confidence_level: float = 0.95,
) -> AucDifference:
    """Whether areas on two separate sets of pictures are equal.

    Compared with the t distribution, with Welch's degrees of freedom for the two numbers of
    pictures, as pROC does. Not estimable with fewer than 2 pictures of one kind in a set.

    Raises:
        RocError: if a score is missing.

    Source: DeLong, DeLong & Clarke-Pearson (1988); pROC, `roc.test(paired = FALSE)`.
    """
    method = "difference of two areas on separate pictures, DeLong's test with Welch's df"
    areas, variances, spread = [], [], 0.0
    for scores, is_signal in (
        (first_scores, first_is_signal),
        (second_scores, second_is_signal),
    ):
        sizes = [len(kind) for kind in _by_kind(scores, is_signal)]
        if min(sizes) < 2:
            return _no_difference(method, TOO_FEW, confidence_level)
        area, covariance = auc_covariance(np.asarray(scores)[None, :], is_signal)
        areas.append(float(area[0]))
        variances.append(float(covariance[0, 0]))
        spread += variances[-1] ** 2 / (sum(sizes) - 1)
    df = sum(variances) ** 2 / spread if spread else None
    return _difference(areas[0] - areas[1], sum(variances), df, method, confidence_level)


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
    of_noise, of_signal = _counts(noise_counts, signal_counts)
    _refuse_level(confidence_level)
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
    a_error = sqrt(covariance[0, 0])
    log_b_error = 0.0 if equal_variance else sqrt(covariance[1, 1])
    return Binormal(
        a=Estimate(
            estimate=a,
            ci_low=a - z * a_error,
            ci_high=a + z * a_error,
            standard_error=a_error,
            confidence_level=confidence_level,
            method=source,
        ),
        b=Estimate.not_estimable(
            source, "b was held at 1", confidence_level=confidence_level, estimate=1.0
        )
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
        "binormal ROC curve by maximum likelihood", reason, confidence_level=confidence_level
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


def _auc(noise: Array, signal: Array, confidence_level: float, logit_interval: bool) -> Estimate:
    _refuse_level(confidence_level)
    scale = "logit" if logit_interval else "normal"
    method = f"empirical AUC, DeLong's variance, {scale} interval"
    if not len(noise) or not len(signal):
        missing = "real" if not len(noise) else "generated"
        return Estimate.not_estimable(
            method, f"no {missing} picture was rated", confidence_level=confidence_level
        )
    of_signal, of_noise = _placements(noise, signal)
    area = float(of_signal.mean())
    reason = None
    if min(len(noise), len(signal)) < 2:
        reason = TOO_FEW
    elif of_signal.var() == 0 and of_noise.var() == 0:
        reason = (
            "the ratings separate real from generated completely"
            if area in (0.0, 1.0)
            else "the ratings do not differ between pictures"
        ) + ", so that the variance is 0"
    if reason is not None:
        return Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=area
        )
    variance = of_signal.var(ddof=1) / len(signal) + of_noise.var(ddof=1) / len(noise)
    error, z = sqrt(float(variance)), float(ndtri(0.5 + confidence_level / 2))
    low, high = area - z * error, area + z * error
    if logit_interval:
        half_width = z * error / (area * (1 - area))
        low, high = (float(expit(logit(area) + sign * half_width)) for sign in (-1, 1))
    return Estimate(
        estimate=area,
        ci_low=low,
        ci_high=high,
        standard_error=error,
        confidence_level=confidence_level,
        method=method,
    )


def _placements(noise: Array, signal: Array) -> tuple[Array, Array]:
    """Share of noise below each signal, and of signal above each noise; ties count half."""
    noise_sorted, signal_sorted = np.sort(noise), np.sort(signal)

    def share_below(values: Array, of: Array) -> Array:
        twice = np.searchsorted(of, values, side="left") + np.searchsorted(of, values, side="right")
        return np.asarray(twice / (2 * len(of)), dtype=np.float64)

    return share_below(signal, noise_sorted), 1 - share_below(noise, signal_sorted)


def _difference(
    difference: float, variance: float, df: float | None, method: str, confidence_level: float
) -> AucDifference:
    _refuse_level(confidence_level)
    # Rounding leaves a variance of 1e-19 where two rows hold the same scores.
    if variance <= 1e-15:
        reason = (
            "the difference has no variance: the two rank every picture alike, or separate real "
            "from generated completely"
        )
        return _no_difference(method, reason, confidence_level, difference)
    error = sqrt(variance)
    statistic, upper = difference / error, 0.5 + confidence_level / 2
    quantile = float(ndtri(upper)) if df is None else float(student_t.ppf(upper, df))
    tail = ndtr(-abs(statistic)) if df is None else student_t.sf(abs(statistic), df)
    return AucDifference(
        difference=Estimate(
            estimate=difference,
            ci_low=difference - quantile * error,
            ci_high=difference + quantile * error,
            standard_error=error,
            df=df,
            confidence_level=confidence_level,
            method=method,
        ),
        statistic=statistic,
        df=df,
        p_value=2 * float(tail),
    )


def _no_difference(
    method: str, reason: str, confidence_level: float, difference: float | None = None
) -> AucDifference:
    none = Estimate.not_estimable(
        method, reason, confidence_level=confidence_level, estimate=difference
    )
    return AucDifference(difference=none, statistic=None, df=None, p_value=None)


def _by_kind(scores: ArrayLike, is_signal: ArrayLike) -> tuple[Array, Array]:
    values, kinds = np.asarray(scores, dtype=np.float64), np.asarray(is_signal)
    if values.shape != kinds.shape or values.ndim != 1:
        raise RocError(
            f"scores of shape {values.shape} and truths of shape {kinds.shape} do not belong "
            "together; give one of each for every picture."
        )
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise RocError(f"the score in row {row + 1} is missing; leave that picture out.")
    _refuse_what_is_not_yes_or_no(kinds, "truth")
    chosen = kinds.astype(bool)
    return values[~chosen], values[chosen]


def _refuse_what_is_not_yes_or_no(values: NDArray[np.generic], what: str) -> None:
    if values.dtype != np.bool_ and not np.isin(values, (0, 1)).all():
        row = int((~np.isin(values, (0, 1))).argmax())
        raise RocError(
            f"the {what} in row {row + 1} is {values[row]!r}; write true for generated and false "
            "for real."
        )


def _counts(
    noise_counts: ArrayLike, signal_counts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    noise = np.asarray(noise_counts, dtype=np.float64)
    signal = np.asarray(signal_counts, dtype=np.float64)
    if noise.shape != signal.shape or noise.ndim != 1 or not len(noise):
        raise RocError(
            f"{noise.size} counts of real and {signal.size} of generated pictures are not one of "
            "each for every rating; write 0 for a rating that was not given."
        )
    for name, counts in (("real", noise), ("generated", signal)):
        wrong = ~((counts >= 0) & (counts == np.floor(counts)) & np.isfinite(counts))
        if wrong.any():
            rating = int(wrong.argmax())
            raise RocError(
                f"{counts[rating]:g} {name} pictures with rating {rating + 1} is no count; write a "
                "whole number from 0 up."
            )
    return noise.astype(np.int64), signal.astype(np.int64)


def _refuse_level(confidence_level: float) -> None:
    if not 0 < confidence_level < 1:
        raise RocError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
