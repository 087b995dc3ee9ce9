"""Signal detection: how well a reader discriminates, apart from which answer the reader prefers.

The signal is a generated picture. A hit is a generated picture called generated; a false alarm is a
real picture called generated. A positive criterion is a preference for saying "real". Several
readers are a sample of readers: their mean has an interval for others, and each of them is drawn
towards the mean by as much as the counting error deserves.

R readers, N cases; answers are a readers × cases table. (R, N)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import chi2, norm
from scipy.stats import t as student_t

from studies.estimate import Estimate

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
class ReaderPopulation:
    """One quantity of R readers who are a sample of readers."""

    mean: Estimate
    """Of all such readers."""
    between_reader_sd: Estimate
    """How much readers truly differ, beyond counting error."""
    new_reader: Estimate
    """The true value of another reader: the mean, with a prediction interval."""
    readers: tuple[Estimate, ...]
    """Each reader's value, drawn towards the mean."""
    note: str | None
    """What has to be said with it, as a clause."""


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
    _refuse_level(confidence_level)
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
    _refuse_level(confidence_level)
    if n_trials < 1 or not 0 <= n_correct <= n_trials:
        raise ValueError(
            f"{n_correct} correct of {n_trials} pairs is not a proportion; "
            "count a participant who finished no pair as incomplete."
        )
    rate = (n_correct + 0.5) / (n_trials + 1)
    return _normal_estimate(
        d_prime_of_forced_choice(rate),
        sqrt(2 * _probit_variance(rate, n_trials)),
        "d′ of paired forced choice, √2 z(PC), log-linear correction",
        confidence_level,
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
        d_prime=_normal_estimate(
            found.d_prime / sqrt(2),
            error / sqrt(2),
            "d′ of paired forced choice by place, log-linear correction",
            confidence_level,
        ),
        bias=_normal_estimate(
            found.criterion,
            error / 2,
            "place bias of paired forced choice, log-linear correction",
            confidence_level,
        ),
        proportion_correct=(n_correct_first + n_correct_second) / (n_first + n_second),
        n_trials=n_first + n_second,
    )


def reader_population(
    estimates: ArrayLike,
    errors: ArrayLike,
    *,
    what: str = "d′",
    confidence_level: float = 0.95,
) -> ReaderPopulation:
    """The mean of a quantity over readers, how much they differ, and each drawn to the mean.

    Estimates are normal around true values, which are normal around the mean: y ~ N(μ, S + τ² I).
    τ² is by REML. The mean is weighted by V⁻¹, V = S + τ² I, and its interval is Hartung and
    Knapp's, where the scale factor is not allowed below 1 (Röver et al.); the part of the variance
    that comes from cases that all readers share is not scaled, and the degrees of freedom are then
    Satterthwaite's, which for equally precise readers are Hillis'. τ has a Q-profile interval.

    Readers' values are empirical-Bayes estimates. Their intervals hold the error of the mean and,
    to first order, of τ². With τ² = 0 every reader gets the mean, and the note says so.

    Args:
        estimates: one for each reader. (R,)
        errors: their standard errors, if each judged other cases (R,); or the covariance of the
            errors, if they judged the same (R, R).

    Raises:
        ValueError: if a number is missing, or the errors are no standard errors or no covariance.

    Source: REML, Q-profile: Viechtbauer (2005, 2007); Hartung & Knapp (2001); Röver, Knapp & Friede
    (2015); Hillis (2007); shrinkage: Morris (1983), Kass & Steffey (1989). Checked against
    metafor on the BCG trials.
    """
    y, s = _checked_errors(estimates, errors)
    _refuse_level(confidence_level)
    n_readers = len(y)
    mean_method = f"mean {what} of readers, REML, Hartung–Knapp interval"
    sd_method = f"between-reader standard deviation of {what}, REML, Q-profile interval"
    if n_readers < 2:
        reason = "1 reader says nothing about other readers"
        mean, spread, new_reader = (
            Estimate.not_estimable(
                method, reason, confidence_level=confidence_level, estimate=estimate
            )
            for method, estimate in (
                (mean_method, float(y[0])),
                (sd_method, None),
                (f"{what} of another reader", None),
            )
        )
        alone = _normal_estimate(
            float(y[0]), sqrt(s[0, 0]), f"{what} of the reader alone", confidence_level
        )
        return ReaderPopulation(
            mean=mean,
            between_reader_sd=spread,
            new_reader=new_reader,
            readers=(alone,),
            note=reason,
        )
    residuals = _Residuals.of(y, s)
    tau2 = residuals.reml()
    precision = np.asarray(np.linalg.inv(s + tau2 * np.eye(n_readers)), dtype=np.float64)
    mean = _mean_of_readers(y, s, precision, residuals.q(tau2), mean_method, confidence_level)
    note = (
        f"no variance of {what} between readers was found beyond the counting error, so that every "
        "reader is drawn to the mean altogether; this does not show that readers are alike"
    )
    return ReaderPopulation(
        mean=mean,
        between_reader_sd=residuals.standard_deviation(tau2, sd_method, confidence_level),
        new_reader=_new_reader(mean, tau2, n_readers, what, confidence_level),
        readers=_drawn_to_the_mean(
            y, s, tau2, precision, residuals.variance_of_tau2(tau2), what, confidence_level
        ),
        note=None if tau2 else note,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Residuals:
    """What is left when the mean is taken out, as R − 1 independent normal values.

    Value i has variance λ_i + τ². REML, Q and the information on τ² are sums over them.
    """

    values: Array
    error_variances: Array

    @staticmethod
    def of(y: Array, s: Array) -> "_Residuals":
        n = len(y)
        # Orthonormal contrasts: the columns of the QR of (1, e_1, …) but for the first.
        basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))[0][:, 1:]
        error_variances, directions = np.linalg.eigh(basis.T @ s @ basis)
        return _Residuals(
            values=directions.T @ basis.T @ y,
            error_variances=np.maximum(error_variances, 1e-12 * float(np.diag(s).max())),
        )

    def q(self, tau2: float) -> float:
        return float((self.values**2 / (self.error_variances + tau2)).sum())

    def score(self, tau2: float) -> float:
        total = self.error_variances + tau2
        return float((self.values**2 / total**2 - 1 / total).sum()) / 2

    def log_likelihood(self, tau2: float) -> float:
        total = self.error_variances + tau2
        return -float((np.log(total) + self.values**2 / total).sum()) / 2

    def variance_of_tau2(self, tau2: float) -> float:
        return 2 / float((1 / (self.error_variances + tau2) ** 2).sum())

    def reml(self) -> float:
        """τ² of the highest restricted likelihood, which may have more than one peak."""
        # Beyond the largest squared value the score is negative.
        highest = float((self.values**2).max())
        if highest == 0:
            return 0.0
        grid = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 200) * highest])
        total = self.error_variances[:, None] + grid
        scores = (self.values[:, None] ** 2 / total**2 - 1 / total).sum(axis=0)
        peaks = [0.0] + [
            float(brentq(self.score, grid[i], grid[i + 1], xtol=1e-15 * highest, rtol=1e-13))
            for i in np.flatnonzero((scores[:-1] > 0) & (scores[1:] <= 0))
        ]
        return max(peaks, key=self.log_likelihood)

    def standard_deviation(self, tau2: float, method: str, confidence_level: float) -> Estimate:
        n_free, tail = len(self.values), (1 - confidence_level) / 2
        if self.q(0.0) <= float(chi2.ppf(tail, n_free)):
            return Estimate.not_estimable(
                method,
                "readers differ even less than counting error alone would make them",
                confidence_level=confidence_level,
                estimate=sqrt(tau2),
            )
        limits = []
        for quantile in (chi2.ppf(1 - tail, n_free), chi2.ppf(tail, n_free)):
            if self.q(0.0) <= quantile:
                limits.append(0.0)
                continue
            # At this τ² every term, and so their sum, is small enough.
            enough = float((self.values**2).sum()) / float(quantile)
            limits.append(float(brentq(lambda t, q=quantile: self.q(t) - q, 0.0, enough)))
        return Estimate(
            estimate=sqrt(tau2),
            # Where REML and Q disagree about 0, the interval still holds the estimate.
            ci_low=min(sqrt(limits[0]), sqrt(tau2)),
            ci_high=max(sqrt(limits[1]), sqrt(tau2)),
            df=float(n_free),
            confidence_level=confidence_level,
            method=method,
        )


def _mean_of_readers(
    y: Array, s: Array, precision: Array, q: float, method: str, confidence_level: float
) -> Estimate:
    weights, variance = precision.sum(axis=1) / precision.sum(), 1 / float(precision.sum())
    n_free = len(y) - 1
    # What cases add to the mean through all readers alike: the weighted mean covariance.
    pairs = 1 - float(weights @ weights)
    shared = float(weights @ (s - np.diag(np.diag(s))) @ weights) / pairs if pairs > 0 else 0.0
    shared = min(max(shared, 0.0), 0.999 * variance)
    of_readers = max(1.0, q / n_free) * (variance - shared)
    total = of_readers + shared
    mean, error, df = float(weights @ y), sqrt(total), n_free * (total / of_readers) ** 2
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, df)) * error
    return Estimate(
        estimate=mean,
        ci_low=mean - half_width,
        ci_high=mean + half_width,
        standard_error=error,
        df=df,
        confidence_level=confidence_level,
        method=method,
    )


def _new_reader(
    mean: Estimate, tau2: float, n_readers: int, what: str, confidence_level: float
) -> Estimate:
    assert mean.estimate is not None
    assert mean.standard_error is not None
    error, df = sqrt(tau2 + mean.standard_error**2), n_readers - 1
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, df)) * error
    return Estimate(
        estimate=mean.estimate,
        ci_low=mean.estimate - half_width,
        ci_high=mean.estimate + half_width,
        standard_error=error,
        df=df,
        confidence_level=confidence_level,
        method=f"{what} of another reader, prediction interval",
    )


def _drawn_to_the_mean(
    y: Array,
    s: Array,
    tau2: float,
    precision: Array,
    of_tau2: float,
    what: str,
    confidence_level: float,
) -> tuple[Estimate, ...]:
    of_mean = 1 / float(precision.sum())
    mean = of_mean * float(precision.sum(axis=0) @ y)
    residual = precision @ (y - mean)
    drawn = mean + tau2 * residual
    # Given τ²: the spread around the mean that the data leave, and the error of the mean.
    left = tau2 - tau2**2 * np.diag(precision)
    from_mean = (1 - tau2 * precision.sum(axis=0)) ** 2 * of_mean
    from_tau2 = (precision @ s @ residual) ** 2 * of_tau2
    errors = np.sqrt(np.maximum(left + from_mean + from_tau2, 0.0))
    return tuple(
        _normal_estimate(
            float(value), float(error), f"{what} of the reader, empirical Bayes", confidence_level
        )
        for value, error in zip(drawn, errors, strict=True)
    )


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


def _checked_errors(estimates: ArrayLike, errors: ArrayLike) -> tuple[Array, Array]:
    y, s = np.asarray(estimates, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    n = y.size
    if y.ndim != 1 or not n or s.shape not in ((n,), (n, n)):
        raise ValueError(
            f"{n} estimates and errors of shape {s.shape} do not belong together; give one "
            "standard error for each reader, or the covariance of all."
        )
    if not (np.isfinite(y).all() and np.isfinite(s).all()):
        raise ValueError("an estimate or an error is missing; leave that reader out.")
    if s.ndim == 1:
        if (s <= 0).any():
            reader = int((s <= 0).argmax())
            raise ValueError(
                f"the standard error of reader {reader + 1} is {s[reader]:g}; it must be positive."
            )
        return y, np.diag(s**2)
    eigenvalues = np.linalg.eigvalsh(s)
    has_variances = (np.diag(s) > 0).all() and eigenvalues[0] >= -1e-9 * eigenvalues[-1]
    if not np.allclose(s, s.T) or not has_variances:
        raise ValueError(
            "the errors are no covariance: it is symmetric, with positive variances and no "
            "negative eigenvalue."
        )
    # Readers who always err together make it singular.
    return y, s + 1e-10 * float(np.diag(s).mean()) * np.eye(n)


def _normal_estimate(value: float, error: float, method: str, confidence_level: float) -> Estimate:
    half_width = float(ndtri(0.5 + confidence_level / 2)) * error
    return Estimate(
        estimate=value,
        ci_low=value - half_width,
        ci_high=value + half_width,
        standard_error=error,
        confidence_level=confidence_level,
        method=method,
    )


def _refuse_level(confidence_level: float) -> None:
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")


def _probit_variance(rate: float, n_trials: int) -> float:
    return rate * (1 - rate) / (n_trials * float(norm.pdf(ndtri(rate))) ** 2)
