"""Signal detection: how well a reader discriminates, apart from which answer the reader prefers.

The signal is a generated picture. A hit is a generated picture called generated; a false alarm is a
real picture called generated. A positive criterion is a preference for saying "real".

R readers, N cases; answers are a readers × cases table. (R, N)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import norm

from studies.estimate import Estimate, check_level
from studies.reader_population import ReaderPopulation, reader_population

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """d′ and criterion of one reader, with intervals, and the four counts behind them."""

    d_prime: float
    d_prime_ci_low: float
    d_prime_ci_high: float
    criterion: float
    criterion_ci_low: float
    criterion_ci_high: float
    log_beta: float
    """ln of the likelihood ratio at the criterion, d′ × c; positive leans towards "real"."""
    log_beta_ci_low: float
    log_beta_ci_high: float
    d_prime_standard_error: float
    """That of the criterion is half of it."""
    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedChoice:
    """d′ and bias of one reader who picks the generated one of two pictures."""

    d_prime: Estimate
    """Free of the bias."""
    bias: Estimate
    """Preference for the second place: 0 is none, in standard deviations of the difference."""
    proportion_correct: float
    n_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedDetection:
    """d′ and criterion of readers who judged the same cases."""

    readers: tuple[Detection, ...]
    d_prime: ReaderPopulation
    criterion: ReaderPopulation


def d_prime(hit_rate: float, false_alarm_rate: float) -> float:
    """Distance of the two kinds in the reader's eye, in standard deviations: z(H) − z(F).

    0 is chance. Both rates strictly between 0 and 1.
    """
    return float(ndtri(hit_rate) - ndtri(false_alarm_rate))


def criterion(hit_rate: float, false_alarm_rate: float) -> float:
    """Preference for one answer: −(z(H) + z(F)) / 2.

    0 is none, positive leans towards "real", negative towards "generated".
    """
    return float(-(ndtri(hit_rate) + ndtri(false_alarm_rate)) / 2)


def log_beta(hit_rate: float, false_alarm_rate: float) -> float:
    """ln of the likelihood ratio at the criterion: (z(F)² − z(H)²) / 2, which is d′ × c.

    0 is none, and so it is for every reader without d′; then only the criterion tells of a bias.
    """
    return float((ndtri(false_alarm_rate) ** 2 - ndtri(hit_rate) ** 2) / 2)


def detection(
    hits: int,
    misses: int,
    false_alarms: int,
    correct_rejections: int,
    *,
    confidence_level: float = 0.95,
) -> Detection:
    """d′, criterion and ln β of one reader, finite even for a perfect one.

    The log-linear correction adds ½ to each count, always and not only at 0 or 100 %, so that
    readers stay comparable; it draws d′ slightly towards 0. Intervals are normal, from

        var(z_H) = H(1 − H) / (n_signal φ(z_H)²), and the same of F
        var(d′) = var(z_H) + var(z_F)
        var(c) = var(d′) / 4
        var(ln β) = z_H² var(z_H) + var(z_H)² / 2 + z_F² var(z_F) + var(z_F)² / 2

    the last exact for normal z, so that it is not 0 at z = 0.

    Raises:
        ValueError: if a count is negative, there is no picture of one of the kinds, or the level
            is not in (0, 1).

    Source: Hautus (1995); Gourevitch & Galanter (1967).
    """
    n_signal, n_noise = hits + misses, false_alarms + correct_rejections
    if min(hits, misses, false_alarms, correct_rejections) < 0 or not n_signal or not n_noise:
        raise ValueError(
            f"{n_signal} generated and {n_noise} real judgements give no d′; "
            "it needs at least one of each, and no negative count."
        )
    check_level(confidence_level)
    hit_rate = (hits + 0.5) / (n_signal + 1)
    false_alarm_rate = (false_alarms + 0.5) / (n_noise + 1)
    discriminates, prefers, ratio = (
        d_prime(hit_rate, false_alarm_rate),
        criterion(hit_rate, false_alarm_rate),
        log_beta(hit_rate, false_alarm_rate),
    )
    variances = _probit_variance(hit_rate, n_signal), _probit_variance(false_alarm_rate, n_noise)
    of_ratio = sum(
        float(ndtri(rate)) ** 2 * variance + variance**2 / 2
        for rate, variance in zip((hit_rate, false_alarm_rate), variances, strict=True)
    )
    z, error = float(ndtri(0.5 + confidence_level / 2)), sqrt(sum(variances))
    half_width = z * error
    return Detection(
        d_prime=discriminates,
        d_prime_ci_low=discriminates - half_width,
        d_prime_ci_high=discriminates + half_width,
        criterion=prefers,
        criterion_ci_low=prefers - half_width / 2,
        criterion_ci_high=prefers + half_width / 2,
        log_beta=ratio,
        log_beta_ci_low=ratio - z * sqrt(of_ratio),
        log_beta_ci_high=ratio + z * sqrt(of_ratio),
        d_prime_standard_error=error,
        hits=hits,
        misses=misses,
        false_alarms=false_alarms,
        correct_rejections=correct_rejections,
    )


def d_prime_of_forced_choice(proportion_correct: float) -> float:
    """d′ of an unbiased reader who picks one of two pictures: √2 z(PC). PC strictly inside (0, 1).

    √2, because two pictures tell more than one: at the same d′ a pair is easier to judge.
    """
    return sqrt(2) * float(ndtri(proportion_correct))


def paired_forced_choice(
    n_correct: int, n_trials: int, *, confidence_level: float = 0.95
) -> Estimate:
    """d′ of a reader who picks the generated one of two pictures, where places were not recorded.

    A preference for one place lowers it: `forced_choice_by_place` is free of that. Log-linear
    correction, PC = (n_correct + ½) / (n_trials + 1); normal interval from the delta method.

    Raises:
        ValueError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Macmillan & Creelman (2005), chapter 7.
    """
    check_level(confidence_level)
    if n_trials < 1 or not 0 <= n_correct <= n_trials:
        raise ValueError(
            f"{n_correct} correct of {n_trials} pairs is not a proportion; "
            "count a participant who finished no pair as incomplete."
        )
    rate = (n_correct + 0.5) / (n_trials + 1)
    return Estimate.symmetric(
        d_prime_of_forced_choice(rate),
        sqrt(2 * _probit_variance(rate, n_trials)),
        confidence_level=confidence_level,
        method="d′ of paired forced choice, √2 z(PC), log-linear correction",
    )


def forced_choice_by_place(
    n_correct_first: int,
    n_first: int,
    n_correct_second: int,
    n_second: int,
    *,
    confidence_level: float = 0.95,
) -> ForcedChoice:
    """d′ and place bias of a reader who picks the generated one of two pictures.

    With H how often the generated picture was picked when it was in the first place, and F how
    often the first was picked when the generated picture was in the second,

        d′ = (z(H) − z(F)) / √2,  bias = −(z(H) + z(F)) / 2

    with the log-linear correction and normal intervals.

    Args:
        n_correct_first, n_first: of the pairs with the generated picture in the first place (left).
        n_correct_second, n_second: of those with it in the second (right).

    Raises:
        ValueError: if the counts are no proportions, a place is empty, or the level is not in
            (0, 1).

    Source: Macmillan & Creelman (2005), chapter 7.
    """
    for correct, total, place in (
        (n_correct_first, n_first, "first"),
        (n_correct_second, n_second, "second"),
    ):
        if total < 1 or not 0 <= correct <= total:
            raise ValueError(
                f"{correct} correct of {total} pairs with the generated picture in the {place} "
                "place is not a proportion; show it in both places."
            )
    found = detection(
        n_correct_first,
        n_first - n_correct_first,
        n_second - n_correct_second,
        n_correct_second,
        confidence_level=confidence_level,
    )
    error = found.d_prime_standard_error
    return ForcedChoice(
        d_prime=Estimate.symmetric(
            found.d_prime / sqrt(2),
            error / sqrt(2),
            confidence_level=confidence_level,
            method="d′ of paired forced choice by place, log-linear correction",
        ),
        bias=Estimate.symmetric(
            found.criterion,
            error / 2,
            confidence_level=confidence_level,
            method="place bias of paired forced choice, log-linear correction",
        ),
        proportion_correct=(n_correct_first + n_correct_second) / (n_first + n_second),
        n_trials=n_first + n_second,
    )


def crossed_detection(
    called_signal: ArrayLike, is_signal: ArrayLike, *, confidence_level: float = 0.95
) -> CrossedDetection:
    """d′ and criterion of readers who judged the same cases, as individuals and as a sample.

    The errors of two readers go together where they err on the same cases: their covariance is from
    the correlation of answers over cases, one for each kind, the same for all pairs of readers.

    Args:
        called_signal: whether the reader called the case generated; NaN marks a missing answer.
            (R, N)
        is_signal: whether the case was generated. (N,)

    Raises:
        ValueError: if the table is not readers × cases, a value is not 0 or 1, or a reader judged
            none of one kind.
    """
    table, truth = np.asarray(called_signal, dtype=np.float64), np.asarray(is_signal)
    if table.ndim != 2 or truth.shape != table.shape[1:] or not len(table):
        raise ValueError(
            f"answers of shape {table.shape} and truths of shape {truth.shape} are not readers × "
            "cases and cases; give one row for each reader and one column for each case."
        )
    wrong = ~(np.isin(table, (0, 1)) | np.isnan(table))
    if wrong.any():
        reader, case = np.argwhere(wrong)[0] + 1
        raise ValueError(
            f"the answer of reader {reader} to case {case} is {table[wrong][0]:g}; write 1 for "
            "generated, 0 for real, NaN for a missing answer."
        )
    kinds = [table[:, truth.astype(bool)], table[:, ~truth.astype(bool)]]
    readers = []
    for number, (of_signal, of_noise) in enumerate(zip(*kinds, strict=True), start=1):
        counts = [int((row == answer).sum()) for row in (of_signal, of_noise) for answer in (1, 0)]
        try:
            readers.append(detection(*counts, confidence_level=confidence_level))
        except ValueError as error:
            raise ValueError(f"reader {number}: {error}") from None
    covariance = _covariance_over_cases(kinds)
    d, c = (
        reader_population(values, errors, what=what, confidence_level=confidence_level)
        for values, errors, what in (
            ([reader.d_prime for reader in readers], covariance, "d′"),
            ([reader.criterion for reader in readers], covariance / 4, "criterion"),
        )
    )
    return CrossedDetection(readers=tuple(readers), d_prime=d, criterion=c)


def _covariance_over_cases(kinds: Sequence[Array]) -> Array:
    """Covariance of the readers' d′: over cases of each kind, on the probit scale. (R, R)

    Pairs of readers share the mean correlation of their answers, not below 0. One for each pair
    would be as many numbers as R readers and N cases can hardly tell, and the mean of readers would
    be weighted by their noise.
    """
    covariance = np.zeros((len(kinds[0]), len(kinds[0])))
    for table in kinds:
        judged = ~np.isnan(table)
        n_judged, n_called = judged.sum(axis=1), np.nansum(table, axis=1)
        centred = np.where(judged, table - (n_called / n_judged)[:, None], 0.0)
        size = np.sqrt((centred**2).sum(axis=1))
        # A reader who gave one answer only goes together with nobody.
        direction = centred / np.where(size > 0, size, 1.0)[:, None]
        pairwise = (direction @ direction.T)[~np.eye(len(table), dtype=bool)]
        correlation = max(float(pairwise.mean()), 0.0) if pairwise.size else 0.0
        errors = np.sqrt(
            [
                _probit_variance((called + 0.5) / (n + 1), n)
                for called, n in zip(n_called.tolist(), n_judged.tolist(), strict=True)
            ]
        )
        covariance += correlation * np.outer(errors, errors)
        covariance += (1 - correlation) * np.diag(errors**2)
    return covariance


def _probit_variance(rate: float, n_trials: int) -> float:
    return rate * (1 - rate) / (n_trials * float(norm.pdf(ndtri(rate))) ** 2)
