"""Equivalence: two one-sided tests (TOST) that a quantity lies inside a margin.

A margin is an open interval (low, high) of the quantity itself, such as 0.45 to 0.55 correct. It is
frozen before the data. The lower test rejects "not above low", the upper one "not below high", each
at level alpha; both must reject. That is the same as a confidence interval of level 1 − 2 alpha
inside the margin. A result that is not different from chance is never evidence of equivalence, and
one that is different may still be equivalent.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom, chi2, norm
from scipy.stats import t as student_t

from studies.proportions import clopper_pearson, fewest_rejected_above, most_rejected_below

N_PANELS = 16
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(16)


class EquivalenceError(ValueError):
    """A margin, level, count or error that is none, with what to give instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivalenceTest:
    """Two one-sided tests of one quantity against its margin."""

    estimate: float | None
    low: float
    high: float
    """The margin, in units of the estimate."""
    alpha: float
    """Level of each one-sided test, and of both together."""
    statistic_low: float | None = None
    statistic_high: float | None = None
    """z or t of the lower and upper test; None where the test is exact or not estimable."""
    p_low: float | None = None
    """Of the test against "not above low"."""
    p_high: float | None = None
    """Of the test against "not below high"."""
    ci_low: float | None = None
    ci_high: float | None = None
    """Interval of level 1 − 2 alpha."""
    standard_error: float | None = None
    df: float | None = None
    method: str
    reason: str | None = None
    """Why there is no test, as a clause; None where there is one."""

    @property
    def p_value(self) -> float | None:
        """The larger of the two; None where there is no test."""
        return None if self.p_low is None or self.p_high is None else max(self.p_low, self.p_high)

    @property
    def is_equivalent(self) -> bool | None:
        """Whether both tests reject; None where there is no test."""
        return None if self.p_value is None else self.p_value <= self.alpha

    @property
    def confidence_level(self) -> float:
        """Level of the interval that decides as the tests do."""
        return 1 - 2 * self.alpha


class Verdict(StrEnum):
    """What two questions about one quantity have answered together."""

    DIFFERENT = "different"
    EQUIVALENT = "equivalent"
    BOTH = "both"
    """Different from the null value, by less than the margin."""
    NEITHER = "neither"
    """Too few data for either claim."""
    NOT_ESTIMABLE = "not estimable"


def verdict(
    equivalence: EquivalenceTest, p_difference: float | None, *, alpha: float = 0.05
) -> Verdict:
    """The one word for a test of difference and a test of equivalence.

    Args:
        p_difference: two-sided p value against the null value; None where there is none.
        alpha: level of the test of difference; that of equivalence is its own.
    """
    _refuse_alpha(alpha, below=1.0)
    if p_difference is None or equivalence.is_equivalent is None:
        return Verdict.NOT_ESTIMABLE
    is_different = p_difference <= alpha
    if equivalence.is_equivalent:
        return Verdict.BOTH if is_different else Verdict.EQUIVALENT
    return Verdict.DIFFERENT if is_different else Verdict.NEITHER


def exact_tost(
    n_correct: int, n_trials: int, *, low: float, high: float, alpha: float = 0.05
) -> EquivalenceTest:
    """Exact binomial TOST of one proportion, for independent trials.

    p_low is P(X ≥ x) at low, p_high is P(X ≤ x) at high; both are defined at 0 and at n. The
    interval is Clopper–Pearson's of level 1 − 2 alpha. The margin is open: with low = 0, a count of
    0 is never inside it, and for "at most high" a one-sided test is the right one.

    Raises:
        EquivalenceError: if the margin is not inside [0, 1], or the level not in (0, ½).
        ProportionError: if the counts are not a proportion.

    Source: statsmodels' `binom_tost`; rejection counts and power of the PASS manual, chapter 110.
    """
    _refuse_margin_of_proportion(low, high)
    _refuse_alpha(alpha)
    interval = clopper_pearson(n_correct, n_trials, confidence_level=1 - 2 * alpha)
    return EquivalenceTest(
        estimate=interval.estimate,
        low=low,
        high=high,
        alpha=alpha,
        p_low=min(1.0, float(binom.sf(int(n_correct) - 1, n_trials, low))),
        p_high=min(1.0, float(binom.cdf(n_correct, n_trials, high))),
        ci_low=interval.ci_low,
        ci_high=interval.ci_high,
        method="exact binomial TOST",
    )


def z_tost(
    n_correct: int,
    n_trials: int,
    *,
    low: float,
    high: float,
    alpha: float = 0.05,
    variance: Literal["sample", "limits", "null"] = "sample",
) -> EquivalenceTest:
    """Normal TOST of one proportion, for independent trials.

    Args:
        variance: at which proportion the binomial variance is taken: the one found ("sample", SAS'
            default), each limit of the margin in its own test ("limits", SAS' VAR=NULL), or the
            middle of the margin ("null", as statsmodels calls it). The interval has the variance of
            the sample, or of the middle for "null"; with "limits" there is none that decides alike.

    Returns:
        Not estimable where that variance is 0: with "sample" when all trials went the same way.

    Raises:
        EquivalenceError: if the margin is not inside [0, 1], the level not in (0, ½), or the
            variance unknown.
        ProportionError: if the counts are not a proportion.

    Source: SAS PROC FREQ, 228 of 762 with margins 0.18 and 0.38.
    """
    _refuse_margin_of_proportion(low, high)
    _refuse_alpha(alpha)
    estimate = clopper_pearson(n_correct, n_trials).estimate
    method = f"normal TOST of a proportion, {variance} variance"
    if variance == "sample":
        at_low = at_high = at_interval = estimate
    elif variance == "null":
        at_low = at_high = at_interval = (low + high) / 2
    elif variance == "limits":
        at_low, at_high, at_interval = low, high, estimate
    else:
        raise EquivalenceError(f"variance={variance!r}; use 'sample', 'limits' or 'null'.")
    error_low, error_high, error = (
        sqrt(p * (1 - p) / n_trials) for p in (at_low, at_high, at_interval)
    )
    if not error_low or not error_high:
        return EquivalenceTest(
            estimate=estimate,
            low=low,
            high=high,
            alpha=alpha,
            method=method,
            reason="all trials went the same way, so the sample has no variance; use the exact test"
            if variance == "sample"
            else "a limit at 0 or 1 has no variance; use the exact test",
        )
    z_low, z_high = (estimate - low) / error_low, (estimate - high) / error_high
    half_width = -float(ndtri(alpha)) * error
    has_interval = variance != "limits"
    return EquivalenceTest(
        estimate=estimate,
        low=low,
        high=high,
        alpha=alpha,
        statistic_low=z_low,
        statistic_high=z_high,
        p_low=float(ndtr(-z_low)),
        p_high=float(ndtr(z_high)),
        ci_low=estimate - half_width if has_interval else None,
        ci_high=estimate + half_width if has_interval else None,
        standard_error=error if has_interval else None,
        method=method,
    )


def clustered_tost(
    estimate: float | None,
    standard_error: float | None,
    df: float | None,
    *,
    low: float,
    high: float,
    alpha: float = 0.05,
) -> EquivalenceTest:
    """TOST of any estimate that has a standard error: what a study with readers and cases reports.

    Args:
        estimate: accuracy, area, d′ or any other quantity; None where there is none.
        standard_error: from a method that knows the clusters; None or 0 where there is none.
        df: degrees of freedom of the t quantile; None or infinite for the normal one.
        low: lower end of the margin, in units of the estimate.
        high: its upper end.

    Returns:
        Not estimable without an estimate or a standard error above 0.

    Raises:
        EquivalenceError: if the margin is none, or a number is negative or not one.

    Source: Schuirmann (1987), with the standard error and df of the crossed analysis.
    """
    _refuse_margin(low, high)
    _refuse_alpha(alpha)
    df = _checked_df(df)
    method = "TOST, normal" if df is None else f"TOST, t with {df:.4g} df"
    reason = _why_no_test(estimate, standard_error)
    if reason is not None or estimate is None or standard_error is None:
        return EquivalenceTest(
            estimate=estimate, low=low, high=high, alpha=alpha, method=method, reason=reason
        )
    t_low, t_high = (estimate - low) / standard_error, (estimate - high) / standard_error
    half_width = _quantile(1 - alpha, df) * standard_error
    return EquivalenceTest(
        estimate=estimate,
        low=low,
        high=high,
        alpha=alpha,
        statistic_low=t_low,
        statistic_high=t_high,
        p_low=_probability_below(-t_low, df),
        p_high=_probability_below(t_high, df),
        ci_low=estimate - half_width,
        ci_high=estimate + half_width,
        standard_error=standard_error,
        df=df,
        method=method,
    )


def clustered_difference(
    estimate: float | None, standard_error: float | None, df: float | None, *, null: float
) -> float | None:
    """Two-sided p value of the same estimate against a fixed null value; None where it has none.

    Raises:
        EquivalenceError: if a number is negative or not one.
    """
    df = _checked_df(df)
    if _why_no_test(estimate, standard_error) is not None:
        return None
    if estimate is None or standard_error is None:
        return None
    return min(1.0, 2 * _probability_below(-abs(estimate - null) / standard_error, df))


def rejection_region(
    n_trials: int, *, low: float, high: float, alpha: float = 0.05
) -> tuple[int, int] | None:
    """First and last count that the exact TOST calls equivalent; None where there is no such count.

    Raises:
        EquivalenceError: if the margin is not inside [0, 1], or there is no trial.
    """
    _refuse_margin_of_proportion(low, high)
    _refuse_alpha(alpha)
    _refuse_trials(n_trials)
    first = int(fewest_rejected_above(n_trials, low, alpha))
    last = int(most_rejected_below(n_trials, high, alpha))
    return (first, last) if first <= last else None


def exact_tost_power(
    n_trials: int, *, low: float, high: float, truth: float | None = None, alpha: float = 0.05
) -> float:
    """Probability that the exact TOST shows equivalence: 0 where its rejection region is empty.

    Args:
        n_trials: independent trials; for clustered ones divide by the design effect first.
        truth: the true proportion; the middle of the margin without it. At an end of the margin the
            power is the actual level of the test.

    Raises:
        EquivalenceError: if the margin or the truth is not inside [0, 1], or there is no trial.

    Source: the PASS manual, margins 0.5 to 0.7 with 500 trials.
    """
    _refuse_trials(n_trials)
    powers = exact_tost_powers([n_trials], low=low, high=high, truth=truth, alpha=alpha)
    return float(powers[0])


def exact_tost_powers(
    n_trials: ArrayLike, *, low: float, high: float, truth: float | None = None, alpha: float = 0.05
) -> NDArray[np.float64]:
    """`exact_tost_power` at many numbers of trials, as a power curve needs it. (N,) → (N,)

    Raises:
        EquivalenceError: if the margin or the truth is not inside [0, 1].
    """
    _refuse_margin_of_proportion(low, high)
    _refuse_alpha(alpha)
    truth = _checked_truth(truth, low, high)
    n = np.asarray(n_trials, dtype=np.int64)
    first, last = fewest_rejected_above(n, low, alpha), most_rejected_below(n, high, alpha)
    power = binom.cdf(last, n, truth) - binom.cdf(first - 1, n, truth)
    return np.where(first <= last, np.clip(power, 0.0, 1.0), 0.0)


def tost_power(
    standard_error: float,
    *,
    df: float | None = None,
    low: float,
    high: float,
    truth: float,
    alpha: float = 0.05,
) -> float:
    """Probability that the TOST of a normal estimate shows equivalence, in [0, 1].

    With degrees of freedom the standard error is estimated too, independently of the estimate and
    as the root of a chi-square over its df; the power is then exact for that model (Owen's Q).

    Args:
        standard_error: the true one.
        df: None or infinite when the standard error is as good as known.

    Raises:
        EquivalenceError: if the margin is none, or a number is negative or not one.

    Source: Schuirmann (1987), Phillips (1990); checked against R's PowerTOST.
    """
    _refuse_margin(low, high)
    _refuse_alpha(alpha)
    df = _checked_df(df)
    if not standard_error > 0 or not isfinite(standard_error):
        raise EquivalenceError(
            f"standard_error={standard_error}; power needs the true standard error, above 0."
        )
    quantile = _quantile(1 - alpha, df)
    to_low, to_high = (low - truth) / standard_error, (high - truth) / standard_error
    if df is None:
        return max(0.0, float(ndtr(to_high - quantile) - ndtr(to_low + quantile)))
    # An estimated error beyond `widest` times the true one leaves no room between the two tests.
    widest = (to_high - to_low) / (2 * quantile)
    tails = np.sqrt(np.array([chi2.ppf(1e-15, df), chi2.isf(1e-15, df)]) / df)
    start, end = float(tails[0]), min(float(tails[1]), widest)
    if end <= start:
        return 0.0
    # ∫ room dF by parts, F the distribution of the error's ratio: no density to diverge at 0.
    edges = np.linspace(start, end, N_PANELS + 1)
    half = (end - start) / (2 * N_PANELS)
    ratios = edges[:-1, None] + half * (PANEL_NODES + 1)
    lost = quantile * (norm.pdf(to_high - quantile * ratios) + norm.pdf(to_low + quantile * ratios))
    closed = float((lost * chi2.cdf(df * ratios**2, df) * PANEL_WEIGHTS).sum() * half)
    room = float(ndtr(to_high - quantile * end) - ndtr(to_low + quantile * end))
    return min(1.0, max(0.0, closed + room * float(chi2.cdf(df * end**2, df))))


def clustered_tost_power(
    n_trials: int,
    *,
    design_effect: float,
    df: float | None = None,
    low: float,
    high: float,
    truth: float | None = None,
    alpha: float = 0.05,
) -> float:
    """Probability that the clustered TOST of a proportion shows equivalence, in [0, 1].

    The standard error is √(design_effect · truth (1 − truth) / n_trials).

    Args:
        n_trials: all judgements.
        design_effect: variance over that of as many independent trials, above 0; it grows with the
            number of cases per reader, so take it from a pilot of the same shape or simulate.
        df: degrees of freedom expected; about readers − 1 where readers differ most.
        truth: the true proportion; the middle of the margin without it.

    Raises:
        EquivalenceError: if the margin or the truth is not inside [0, 1], or a number not above 0.
    """
    _refuse_margin_of_proportion(low, high)
    _refuse_trials(n_trials)
    truth = _checked_truth(truth, low, high)
    if not design_effect > 0 or not isfinite(design_effect):
        raise EquivalenceError(
            f"design_effect={design_effect}; give a number above 0, and 1 for independent trials."
        )
    if truth in (0, 1):
        raise EquivalenceError(
            f"truth={truth} leaves no variance; give a proportion between 0 and 1, or use the "
            "exact power."
        )
    return tost_power(
        sqrt(design_effect * truth * (1 - truth) / n_trials),
        df=df,
        low=low,
        high=high,
        truth=truth,
        alpha=alpha,
    )


def _quantile(probability: float, df: float | None) -> float:
    return float(ndtri(probability) if df is None else student_t.ppf(probability, df))


def _probability_below(statistic: float, df: float | None) -> float:
    return float(ndtr(statistic) if df is None else student_t.cdf(statistic, df))


def _why_no_test(estimate: float | None, standard_error: float | None) -> str | None:
    if estimate is None:
        return "there is no estimate"
    if not isfinite(estimate):
        raise EquivalenceError(
            f"estimate={estimate} is not a number; give None where there is no estimate."
        )
    if standard_error is None or standard_error == 0:
        return "the estimate has no standard error: the data show no variance to judge it by"
    if not standard_error > 0 or not isfinite(standard_error):
        raise EquivalenceError(
            f"standard_error={standard_error}; give a number above 0, or None where there is none."
        )
    return None


def _checked_df(df: float | None) -> float | None:
    if df is None or df == float("inf"):
        return None
    if not df > 0:
        raise EquivalenceError(f"df={df}; give degrees of freedom above 0, or None for the normal.")
    return df


def _checked_truth(truth: float | None, low: float, high: float) -> float:
    if truth is None:
        return (low + high) / 2
    if not 0 <= truth <= 1:
        raise EquivalenceError(f"truth={truth} is not a proportion; give a number in [0, 1].")
    return truth


def _refuse_margin(low: float, high: float) -> None:
    if not low < high or not isfinite(low) or not isfinite(high):
        raise EquivalenceError(
            f"the margin from {low} to {high} is empty; give its lower end first, as values of the "
            "quantity itself, such as low=0.45, high=0.55."
        )


def _refuse_margin_of_proportion(low: float, high: float) -> None:
    _refuse_margin(low, high)
    if low < 0 or high > 1:
        raise EquivalenceError(
            f"the margin from {low} to {high} leaves [0, 1]; give proportions, such as low=0.45, "
            "high=0.55, and not differences from chance."
        )


def _refuse_alpha(alpha: float, *, below: float = 0.5) -> None:
    if not 0 < alpha < below:
        raise EquivalenceError(f"alpha={alpha}; give a level such as 0.05.")


def _refuse_trials(n_trials: Any) -> None:
    if not n_trials >= 1 or n_trials % 1:
        raise EquivalenceError(f"n_trials={n_trials}; give a whole number of trials, at least 1.")
