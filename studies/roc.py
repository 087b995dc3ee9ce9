"""ROC analysis of confidence ratings: how well a reader ranks generated above real pictures.

The signal is a generated picture, noise is a real one. Answer and confidence together are one
ordinal scale, from the surest "real" to the surest "generated". The empirical area needs nothing
but that order; `studies.binormal` supposes normal distributions.

N pictures, M readers or models, K ratings. Counts run from the surest "real" (first) to the surest
"generated" (last). (K,)
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import t as student_t

from studies.estimate import Estimate, check_level

Array = NDArray[np.float64]

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
    noise, signal = checked_counts(noise_counts, signal_counts)
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
        np.array(of_readers)
        for of_readers in zip(*(placements_of(*kind) for kind in kinds), strict=True)
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


def _auc(noise: Array, signal: Array, confidence_level: float, logit_interval: bool) -> Estimate:
    check_level(confidence_level, RocError)
    scale = "logit" if logit_interval else "normal"
    method = f"empirical AUC, DeLong's variance, {scale} interval"
    if not len(noise) or not len(signal):
        missing = "real" if not len(noise) else "generated"
        return Estimate.not_estimable(method, f"no {missing} picture was rated", confidence_level)
    of_signal, of_noise = placements_of(noise, signal)
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
        return Estimate.not_estimable(method, reason, confidence_level, area)
    variance = of_signal.var(ddof=1) / len(signal) + of_noise.var(ddof=1) / len(noise)
    error = sqrt(float(variance))
    plain = Estimate.symmetric(area, error, confidence_level=confidence_level, method=method)
    if not logit_interval:
        return plain
    half_width = float(ndtri(0.5 + confidence_level / 2)) * error / (area * (1 - area))
    low, high = (float(expit(logit(area) + sign * half_width)) for sign in (-1, 1))
    return replace(plain, ci_low=low, ci_high=high)


def placements_of(noise: Array, signal: Array) -> tuple[Array, Array]:
    """Share of noise below each signal, and of signal above each noise; ties count half."""
    noise_sorted, signal_sorted = np.sort(noise), np.sort(signal)

    def share_below(values: Array, of: Array) -> Array:
        twice = np.searchsorted(of, values, side="left") + np.searchsorted(of, values, side="right")
        return np.asarray(twice / (2 * len(of)), dtype=np.float64)

    return share_below(signal, noise_sorted), 1 - share_below(noise, signal_sorted)


def _difference(
    difference: float, variance: float, df: float | None, method: str, confidence_level: float
) -> AucDifference:
    check_level(confidence_level, RocError)
    # Rounding leaves a variance of 1e-19 where two rows hold the same scores.
    if variance <= 1e-15:
        reason = (
            "the difference has no variance: the two rank every picture alike, or separate real "
            "from generated completely"
        )
        return _no_difference(method, reason, confidence_level, difference)
    error = sqrt(variance)
    statistic = difference / error
    tail = ndtr(-abs(statistic)) if df is None else student_t.sf(abs(statistic), df)
    return AucDifference(
        difference=Estimate.symmetric(
            difference, error, df=df, confidence_level=confidence_level, method=method
        ),
        statistic=statistic,
        df=df,
        p_value=2 * float(tail),
    )


def _no_difference(
    method: str, reason: str, confidence_level: float, difference: float | None = None
) -> AucDifference:
    none = Estimate.not_estimable(method, reason, confidence_level, difference)
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


def checked_counts(
    noise_counts: ArrayLike, signal_counts: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of noise and of signal as whole numbers. (K,), (K,)"""
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
