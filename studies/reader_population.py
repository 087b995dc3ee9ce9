"""Readers as a sample of readers: their mean, how much they differ, and each drawn to the mean.

The mean has an interval for others, and each reader is drawn towards it by as much as the counting
error deserves. For any quantity with a standard error.

R readers.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import chi2

from studies.estimate import Estimate, check_level

Array = NDArray[np.float64]


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
    check_level(confidence_level)
    n_readers = len(y)
    mean_method = f"mean {what} of readers, REML, Hartung–Knapp interval"
    sd_method = f"between-reader standard deviation of {what}, REML, Q-profile interval"
    if n_readers < 2:
        reason = "1 reader says nothing about other readers"
        mean, spread, new_reader = (
            Estimate.not_estimable(method, reason, confidence_level, estimate)
            for method, estimate in (
                (mean_method, float(y[0])),
                (sd_method, None),
                (f"{what} of another reader", None),
            )
        )
        alone = Estimate.symmetric(
            float(y[0]),
            sqrt(s[0, 0]),
            confidence_level=confidence_level,
            method=f"{what} of the reader alone",
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
                confidence_level,
                sqrt(tau2),
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
    return Estimate.symmetric(mean, error, df=df, confidence_level=confidence_level, method=method)


def _new_reader(
    mean: Estimate, tau2: float, n_readers: int, what: str, confidence_level: float
) -> Estimate:
    assert mean.estimate is not None
    assert mean.standard_error is not None
    return Estimate.symmetric(
        mean.estimate,
        sqrt(tau2 + mean.standard_error**2),
        df=n_readers - 1,
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
        Estimate.symmetric(
            float(value),
            float(error),
            confidence_level=confidence_level,
            method=f"{what} of the reader, empirical Bayes",
        )
        for value, error in zip(drawn, errors, strict=True)
    )


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
