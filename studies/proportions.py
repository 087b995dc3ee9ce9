"""One proportion from independent trials: its intervals, and its test against a fixed chance.

x correct of n trials, p = x / n, z the normal quantile of the level. Every interval of x mirrors
that of n − x. Readers who judge the same cases are not independent trials: for them these intervals
are the labelled comparison, never the headline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainccinv, betaincinv, ndtri
from scipy.stats import binom, binomtest

Alternative = Literal["two-sided", "greater", "less"]

INDEPENDENCE_CAUTION = (
    "treats the trials as independent and ignores that readers share cases and cases share readers"
)
"""What every test of this module leaves out, as a clause."""


class ProportionError(ValueError):
    """Counts, a level or a chance that are none, with what to give instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A proportion and its confidence interval, all in [0, 1] unless limits were left unclipped."""

    estimate: float
    ci_low: float
    ci_high: float
    n_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceTest:
    """The exact test of one proportion against a fixed chance level."""

    estimate: float
    chance: float
    n_correct: int
    n_trials: int
    alternative: Alternative
    p_value: float
    method: str
    caution: str = INDEPENDENCE_CAUTION


def wilson(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Proportion:
    """Wilson score interval, without continuity correction.

    Chosen because readers near 0 or 100 % correct are common here, and there the
    textbook normal interval shrinks to a point.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Wilson (1927); checked against Newcombe (1998), Table I.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    p, z = n_correct / n_trials, _z(confidence_level)
    shrink = 1 / (1 + z**2 / n_trials)
    centre = shrink * (p + z**2 / (2 * n_trials))
    half_width = shrink * z * sqrt(p * (1 - p) / n_trials + (z / (2 * n_trials)) ** 2)
    # At 0 and at n one limit is exactly 0 or 1, which floating point misses by an ulp.
    return Proportion(
        estimate=p,
        ci_low=max(0.0, centre - half_width) if n_correct else 0.0,
        ci_high=min(1.0, centre + half_width) if n_correct < n_trials else 1.0,
        n_trials=n_trials,
    )


def wilson_continuity_corrected(
    n_correct: int, n_trials: int, *, confidence_level: float = 0.95
) -> Proportion:
    """Wilson score interval with continuity correction: close to Clopper–Pearson, and as wide.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Newcombe (1998), method 4, and his Table I; lower limit 0 at x = 0, upper 1 at x = n.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    z = _z(confidence_level)

    def lower_limit(x: int) -> float:
        if x == 0:
            return 0.0
        p, q = x / n_trials, (n_trials - x) / n_trials
        root = sqrt(z**2 - 2 - 1 / n_trials + 4 * p * (n_trials * q + 1))
        return max(0.0, (2 * x + z**2 - 1 - z * root) / (2 * (n_trials + z**2)))

    return _mirrored(lower_limit, n_correct, n_trials)


def clopper_pearson(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Proportion:
    """Clopper–Pearson interval: covers at least the nominal level, whatever the truth.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Clopper & Pearson (1934), as beta quantiles; checked against R's `binom.confint`.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    tail, n_wrong = (1 - confidence_level) / 2, n_trials - n_correct
    return Proportion(
        estimate=n_correct / n_trials,
        ci_low=float(betaincinv(n_correct, n_wrong + 1, tail)) if n_correct else 0.0,
        ci_high=float(betainccinv(n_correct + 1, n_wrong, tail)) if n_wrong else 1.0,
        n_trials=n_trials,
    )


def jeffreys(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Proportion:
    """Jeffreys interval: equal tails of Beta(x + ½, n − x + ½).

    Edge rule: the lower limit is 0 at x = 0, the upper limit 1 at x = n; the other limit stays that
    of equal tails. R's `binom.bayes` takes highest density there, and statsmodels has no edge rule:
    both give other numbers.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Brown, Cai & DasGupta (2001), section 3.1.2.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    tail, n_wrong = (1 - confidence_level) / 2, n_trials - n_correct
    return Proportion(
        estimate=n_correct / n_trials,
        ci_low=float(betaincinv(n_correct + 0.5, n_wrong + 0.5, tail)) if n_correct else 0.0,
        ci_high=float(betainccinv(n_correct + 0.5, n_wrong + 0.5, tail)) if n_wrong else 1.0,
        n_trials=n_trials,
    )


def agresti_coull(
    n_correct: int, n_trials: int, *, confidence_level: float = 0.95, clip: bool = True
) -> Proportion:
    """Agresti–Coull interval: the Wald formula after adding z²/2 right and z²/2 wrong answers.

    Args:
        clip: whether limits beyond [0, 1] are cut off; the formula alone leaves it near both edges.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Agresti & Coull (1998); checked against R's `binom.confint`. The estimate stays x / n.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    z = _z(confidence_level)
    n_adjusted = n_trials + z**2

    def lower_limit(x: int) -> float:
        centre = (x + z**2 / 2) / n_adjusted
        return centre - z * sqrt(centre * (1 - centre) / n_adjusted)

    return _mirrored(lower_limit, n_correct, n_trials, clip=clip)


def wald(
    n_correct: int, n_trials: int, *, confidence_level: float = 0.95, clip: bool = True
) -> Proportion:
    """Wald interval, p ± z √(p (1 − p) / n): for comparison only, it is a point at 0 and at n.

    Args:
        clip: whether limits beyond [0, 1] are cut off.

    Raises:
        ProportionError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: the textbook formula; checked against R's `binom.confint` and Newcombe (1998), Table I.
    """
    n_correct, n_trials = _counts(n_correct, n_trials, confidence_level)
    z = _z(confidence_level)

    def lower_limit(x: int) -> float:
        p = x / n_trials
        return p - z * sqrt(p * (1 - p) / n_trials)

    return _mirrored(lower_limit, n_correct, n_trials, clip=clip)


def chance_test(
    n_correct: int,
    n_trials: int,
    *,
    chance: float = 0.5,
    alternative: Alternative = "two-sided",
) -> ChanceTest:
    """Exact binomial test of x of n against a fixed chance level.

    Two-sided: the probability, under chance, of all counts that are no more probable than the one
    found (with R's relative tolerance of 1e-7). At a chance of ½ that is twice the smaller tail;
    SAS takes twice the smaller tail at any chance.

    Chance is a number, never a second sample: 750 of 1500 drawn by nobody has no sampling error.

    Args:
        chance: proportion correct of a reader who guesses, in [0, 1].

    Raises:
        ProportionError: if the counts are not a proportion, chance is none, or the alternative is
            unknown.

    Source: R's `binom.test`; Park et al. (2021), 779 of 1500, where p is 0.141 and not 0.29.
    """
    n_correct, n_trials = _counts(n_correct, n_trials)
    refuse_chance(chance)
    refuse_alternative(alternative)
    p_value = binomtest(n_correct, n_trials, float(chance), alternative).pvalue
    return ChanceTest(
        estimate=n_correct / n_trials,
        chance=chance,
        n_correct=n_correct,
        n_trials=n_trials,
        alternative=alternative,
        p_value=min(1.0, float(p_value)),
        method=f"exact binomial test against a chance of {chance:g}, {alternative}",
    )


def fewest_rejected_above(n_trials: ArrayLike, null: float, alpha: float) -> NDArray[np.int64]:
    """Smallest count x with P(X ≥ x) ≤ alpha under the null; n + 1 where no count is that rare.

    Args:
        n_trials: any shape, kept in the result.
        null: probability correct under the null hypothesis, in [0, 1].
        alpha: one-sided level.
    """
    n = np.asarray(n_trials, dtype=np.int64)
    if null == 0:
        return np.ones_like(n)
    if null == 1:
        return n + 1
    # A quantile may be off by one where the probability meets alpha exactly, or nearly.
    guess = np.clip(binom.isf(alpha, n, null), -1, n).astype(np.int64) + 1
    guess -= (guess > 0) & (binom.sf(guess - 2, n, null) <= alpha)
    guess += binom.sf(guess - 1, n, null) > alpha
    return guess


def most_rejected_below(n_trials: ArrayLike, null: float, alpha: float) -> NDArray[np.int64]:
    """Largest count x with P(X ≤ x) ≤ alpha under the null; −1 where no count is that rare.

    Args:
        n_trials: any shape, kept in the result.
        null: probability correct under the null hypothesis, in [0, 1].
        alpha: one-sided level.
    """
    n = np.asarray(n_trials, dtype=np.int64)
    if null == 0:
        return np.full_like(n, -1)
    if null == 1:
        return n - 1
    guess = np.clip(binom.ppf(alpha, n, null), 0, n).astype(np.int64)
    guess -= binom.cdf(guess, n, null) > alpha
    guess -= (guess >= 0) & (binom.cdf(guess, n, null) > alpha)
    return guess


def refuse_alternative(alternative: str) -> None:
    """Refuse an alternative that is none of the three.

    Raises:
        ProportionError: always in that case.
    """
    if alternative not in ("two-sided", "greater", "less"):
        raise ProportionError(
            f"alternative={alternative!r}; use 'two-sided', 'greater' (better than chance) or "
            "'less' (worse)."
        )


def refuse_chance(chance: float) -> None:
    """Refuse a chance level that is a count or anything else than a probability.

    Raises:
        ProportionError: always in that case.
    """
    if not 0 <= chance <= 1:
        raise ProportionError(
            f"chance={chance} is not a probability; chance is a fixed number such as 0.5, not a "
            "count and not a second sample."
        )


def _z(confidence_level: float) -> float:
    return -float(ndtri((1 - confidence_level) / 2))


def _mirrored(
    lower_limit: Callable[[int], float], n_correct: int, n_trials: int, *, clip: bool = True
) -> Proportion:
    """The interval whose upper limit is 1 − the lower limit of the wrong answers."""
    low, high = lower_limit(n_correct), 1 - lower_limit(n_trials - n_correct)
    return Proportion(
        estimate=n_correct / n_trials,
        ci_low=max(0.0, low) if clip else low,
        ci_high=min(1.0, high) if clip else high,
        n_trials=n_trials,
    )


def _counts(n_correct: Any, n_trials: Any, confidence_level: float = 0.95) -> tuple[int, int]:
    """The counts as Python's whole numbers, which do not overflow as a table's small ones do."""
    if n_trials == 0 or not 0 <= n_correct <= n_trials:
        raise ProportionError(
            f"{n_correct} correct of {n_trials} trials is not a proportion; "
            "count a participant who finished no trial as incomplete."
        )
    if n_correct % 1 or n_trials % 1:
        raise ProportionError(
            f"{n_correct} correct of {n_trials} trials are not whole numbers; give counts, and for "
            "an effective number of trials use a method for clustered data."
        )
    if not 0 < confidence_level < 1:
        raise ProportionError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
    return int(n_correct), int(n_trials)
