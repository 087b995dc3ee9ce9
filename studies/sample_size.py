"""Power and sample size of one proportion by formula: against chance, and for equivalence.

For independent trials. A study of readers and cases multiplies the number of trials by a design
effect, which must come from a pilot of the same shape; where readers and cases are both to be
generalised to, simulate instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from studies.equivalence import clustered_tost_power, exact_tost_powers
from studies.proportions import (
    Alternative,
    fewest_rejected_above,
    most_rejected_below,
    refuse_alternative,
    refuse_chance,
)

MOST_TRIALS = 1_000_000
"""Where the search for a number of trials gives up."""
PMF_TOLERANCE = 1e-7
"""R's relative tolerance of "no more probable than"."""


class SampleSizeError(ValueError):
    """A design that no number of trials can give, or a number that is none, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSize:
    """How many trials reach a power."""

    n_trials: int
    """From here on the power is reached at every larger number too. For a discrete test power is a
    saw: some smaller numbers reach it, and the next ones do not."""
    n_trials_first: int
    """The smallest number that reaches it, which other software often gives."""
    power: float
    """At `n_trials`."""
    design_effect: float
    """By which both numbers were multiplied, and rounded up."""
    method: str


def exact_power(
    n_trials: int,
    *,
    truth: float,
    chance: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> float:
    """Power of `proportions.chance_test`: the probability of p ≤ alpha when `truth` is true.

    Two-sided, both tails of the rejection region count.

    Raises:
        SampleSizeError: if the trials, the truth or the level are none.
        ProportionError: if the chance or the alternative is none.

    Source: the binomial distribution; one-sided values of East 6.5, as gsDesign's tests hold them.
    """
    _refuse_trials(n_trials)
    _refuse_truth(truth)
    refuse_level(alpha, "alpha")
    refuse_chance(chance)
    refuse_alternative(alternative)
    return float(_exact_powers(np.array([n_trials]), truth, chance, alpha, alternative)[0])


def normal_power(
    n_trials: float,
    *,
    truth: float,
    chance: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
) -> float:
    """Power of the z test with the variance of the null, when `truth` is true.

    Φ((|p₁ − p₀| √n − z √(p₀ q₀)) / √(p₁ q₁)), and the far tail when two-sided; no continuity
    correction.

    Raises:
        SampleSizeError: if the trials, the truth or the level are none, or a proportion is 0 or 1.
        ProportionError: if the alternative is none.
    """
    refuse_level(alpha, "alpha")
    refuse_alternative(alternative)
    null_sd, true_sd = _standard_deviations(truth, chance)
    if not n_trials > 0:
        raise SampleSizeError(f"n_trials={n_trials}; give a number of trials above 0.")
    shift = (truth - chance) * sqrt(n_trials) / true_sd
    reach = upper_quantile(alpha / 2 if alternative == "two-sided" else alpha) * null_sd / true_sd
    above, below = float(ndtr(shift - reach)), float(ndtr(-shift - reach))
    return {"two-sided": above + below, "greater": above, "less": below}[alternative]


def exact_sample_size(
    *,
    truth: float,
    power: float,
    chance: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    design_effect: float = 1.0,
) -> SampleSize:
    """How many trials the exact binomial test needs.

    Raises:
        SampleSizeError: if the truth is chance itself or on the wrong side of it, or a number is
            none.
        ProportionError: if the chance or the alternative is none.
    """
    normal = normal_sample_size(
        truth=truth, power=power, chance=chance, alpha=alpha, alternative=alternative
    ).n_trials_first

    def powers(n: NDArray[np.int64]) -> NDArray[np.float64]:
        return _exact_powers(n, truth, chance, alpha, alternative)

    return _searched(
        powers,
        power,
        guess=normal,
        design_effect=design_effect,
        method=f"exact binomial test against {chance:g}, {alternative}, level {alpha:g}",
    )


def normal_sample_size(
    *,
    truth: float,
    power: float,
    chance: float = 0.5,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    design_effect: float = 1.0,
) -> SampleSize:
    """How many trials the z test needs: ((z_α √(p₀ q₀) + z_β √(p₁ q₁)) / (p₁ − p₀))², rounded up.

    Raises:
        SampleSizeError: if the truth is chance itself or on the wrong side of it, or a number is
            none.
        ProportionError: if the alternative is none.

    Source: Fleiss, Levin & Paik (2003), section 2.5, without continuity correction.
    """
    refuse_level(alpha, "alpha")
    refuse_level(power, "power")
    refuse_alternative(alternative)
    null_sd, true_sd = _standard_deviations(truth, chance)
    side = {"two-sided": truth != chance, "greater": truth > chance, "less": truth < chance}
    if not side[alternative]:
        raise SampleSizeError(
            f"truth={truth} against a chance of {chance} is nothing that a {alternative} test "
            "could find with more trials; assume another truth or turn the test round."
        )
    level = alpha / 2 if alternative == "two-sided" else alpha
    if power <= level:
        raise SampleSizeError(
            f"power={power} is no more than the level of the test; ask for more, such as 0.8."
        )
    root = (upper_quantile(level) * null_sd + upper_quantile(1 - power) * true_sd) / (
        truth - chance
    )
    n_trials = max(1, rounded_up(root**2))
    return _multiplied(
        first=n_trials,
        stable=n_trials,
        power=normal_power(
            n_trials, truth=truth, chance=chance, alpha=alpha, alternative=alternative
        ),
        design_effect=design_effect,
        method=f"z test against {chance:g}, {alternative}, level {alpha:g}",
    )


def equivalence_sample_size(
    *,
    low: float,
    high: float,
    power: float,
    truth: float | None = None,
    alpha: float = 0.05,
    design_effect: float = 1.0,
) -> SampleSize:
    """How many trials the exact binomial TOST needs.

    Args:
        truth: the true proportion; the middle of the margin without it.

    Raises:
        SampleSizeError: if the truth is not inside the margin, or a number is none.
        EquivalenceError: if the margin is none.
    """
    middle = _checked_equivalence(low, high, truth, power)

    def powers(n: NDArray[np.int64]) -> NDArray[np.float64]:
        return exact_tost_powers(n, low=low, high=high, truth=middle, alpha=alpha)

    return _searched(
        powers,
        power,
        guess=_normal_tost_trials(low, high, middle, power, alpha, None, 1.0),
        design_effect=design_effect,
        method=f"exact binomial TOST, margin {low:g} to {high:g}, level {alpha:g}",
    )


def clustered_equivalence_sample_size(
    *,
    low: float,
    high: float,
    power: float,
    design_effect: float,
    df: float | None = None,
    truth: float | None = None,
    alpha: float = 0.05,
) -> SampleSize:
    """How many judgements the clustered TOST needs at a given design effect.

    It holds while the design effect stays what it was: adding cases per reader raises it, adding
    readers of as many cases does not.

    Args:
        df: degrees of freedom that the standard error will have; about readers − 1 where readers
            differ most.
        truth: the true proportion; the middle of the margin without it.

    Raises:
        SampleSizeError: if the truth is not inside the margin, or a number is none.
        EquivalenceError: if the margin is none.
    """
    middle = _checked_equivalence(low, high, truth, power)
    n_trials = _normal_tost_trials(low, high, middle, power, alpha, df, design_effect)
    return SampleSize(
        n_trials=n_trials,
        n_trials_first=n_trials,
        power=clustered_tost_power(
            n_trials,
            design_effect=design_effect,
            df=df,
            low=low,
            high=high,
            truth=middle,
            alpha=alpha,
        ),
        design_effect=design_effect,
        method=f"clustered TOST, margin {low:g} to {high:g}, level {alpha:g}",
    )


def _exact_powers(
    n_trials: NDArray[np.int64],
    truth: float,
    chance: float,
    alpha: float,
    alternative: Alternative,
) -> NDArray[np.float64]:
    """Power at each number of trials. (N,) → (N,)"""
    if alternative == "greater":
        return _above(fewest_rejected_above(n_trials, chance, alpha), n_trials, truth)
    if alternative == "less":
        return _below(most_rejected_below(n_trials, chance, alpha), n_trials, truth)
    if chance == 0.5:
        # By symmetry the two-sided p value is twice the smaller tail.
        highest = most_rejected_below(n_trials, 0.5, alpha / 2)
        lowest = n_trials - highest
    else:
        regions = [_two_sided_region(int(n), chance, alpha) for n in n_trials]
        highest, lowest = np.array(regions, dtype=np.int64).T
    return np.minimum(1.0, _below(highest, n_trials, truth) + _above(lowest, n_trials, truth))


def _two_sided_region(n_trials: int, chance: float, alpha: float) -> tuple[int, int]:
    """Largest count rejected below and smallest rejected above, of the exact two-sided test."""
    middle, spread = n_trials * chance, sqrt(n_trials * chance * (1 - chance))
    # Counts beyond are rejected at any level that a float holds against their probability.
    start = max(0, int(middle - 9 * spread - 20))
    counts = np.arange(start, min(n_trials, ceil(middle + 9 * spread + 20)) + 1)
    pmf = binom.pmf(counts, n_trials, chance)
    in_order = np.sort(pmf)
    n_no_more_probable = np.searchsorted(in_order, pmf * (1 + PMF_TOLERANCE), side="right")
    is_kept = np.cumsum(in_order)[n_no_more_probable - 1] > alpha
    kept = counts[is_kept]
    return int(kept[0]) - 1, int(kept[-1]) + 1


def _above(
    first: NDArray[np.int64], n_trials: NDArray[np.int64], truth: float
) -> NDArray[np.float64]:
    return np.asarray(binom.sf(first - 1, n_trials, truth), dtype=np.float64)


def _below(
    last: NDArray[np.int64], n_trials: NDArray[np.int64], truth: float
) -> NDArray[np.float64]:
    return np.where(last >= 0, binom.cdf(last, n_trials, truth), 0.0)


def _searched(
    powers: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    power: float,
    *,
    guess: int,
    design_effect: float,
    method: str,
) -> SampleSize:
    """The first number of trials with this power, and the first after which none falls short.

    Scans from half the normal approximation to twice it and 100 more: the teeth of the saw are of
    the order of one count, so all of it lies there.
    """
    start = 1 if guess < 1000 else guess // 2
    n_trials = np.arange(start, 2 * guess + 101)
    found = powers(n_trials)
    reaching = found >= power
    if not reaching[-1]:
        raise SampleSizeError(
            f"no number of trials up to {n_trials[-1]} reaches power {power}; assume a truth "
            "further from what the test is against."
        )
    first = int(reaching.argmax())
    falling_short = np.flatnonzero(~reaching)
    stable = int(falling_short[-1]) + 1 if len(falling_short) else 0
    return _multiplied(
        first=int(n_trials[first]),
        stable=int(n_trials[stable]),
        power=float(found[stable]),
        design_effect=design_effect,
        method=method,
    )


def _multiplied(
    *, first: int, stable: int, power: float, design_effect: float, method: str
) -> SampleSize:
    if not design_effect > 0 or not isfinite(design_effect):
        raise SampleSizeError(
            f"design_effect={design_effect}; give a number above 0, and 1 for independent trials."
        )
    return SampleSize(
        n_trials=rounded_up(stable * design_effect),
        n_trials_first=rounded_up(first * design_effect),
        power=power,
        design_effect=design_effect,
        method=method,
    )


def _normal_tost_trials(
    low: float,
    high: float,
    truth: float,
    power: float,
    alpha: float,
    df: float | None,
    design_effect: float,
) -> int:
    """Smallest number with this power of the clustered TOST, whose power grows with every trial."""

    def is_enough(n_trials: int) -> bool:
        found = clustered_tost_power(
            n_trials,
            design_effect=design_effect,
            df=df,
            low=low,
            high=high,
            truth=truth,
            alpha=alpha,
        )
        return found >= power

    too_few, enough = 0, 1
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
        if enough > MOST_TRIALS:
            raise SampleSizeError(
                f"not even {MOST_TRIALS} trials reach power {power}; widen the margin, or assume a "
                "truth nearer its middle."
            )
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough


def _checked_equivalence(low: float, high: float, truth: float | None, power: float) -> float:
    refuse_level(power, "power")
    middle = (low + high) / 2 if truth is None else truth
    if not low < middle < high:
        raise SampleSizeError(
            f"truth={middle} does not lie inside the margin from {low} to {high}, so no number of "
            "trials shows equivalence; widen the margin before the data, or assume another truth."
        )
    return middle


def _standard_deviations(truth: float, chance: float) -> tuple[float, float]:
    for name, one in (("chance", chance), ("truth", truth)):
        if not 0 < one < 1:
            raise SampleSizeError(
                f"{name}={one}; the normal approximation needs a proportion between 0 and 1."
            )
    return sqrt(chance * (1 - chance)), sqrt(truth * (1 - truth))


def upper_quantile(tail: float) -> float:
    """The normal quantile with `tail` above it."""
    return -float(ndtri(tail))


def rounded_up(amount: float) -> int:
    """The next whole number, and not one more for a rounding error."""
    return ceil(amount * (1 - 1e-12))


def _refuse_trials(n_trials: Any) -> None:
    if not n_trials >= 1 or n_trials % 1:
        raise SampleSizeError(f"n_trials={n_trials}; give a whole number of trials, at least 1.")


def _refuse_truth(truth: float) -> None:
    if not 0 <= truth <= 1:
        raise SampleSizeError(f"truth={truth} is not a proportion; give a number in [0, 1].")


def refuse_level(level: float, name: str) -> None:
    """Refuse an alpha or a power that is not in (0, 1)."""
    if not 0 < level < 1:
        raise SampleSizeError(f"{name}={level}; give a number between 0 and 1.")
