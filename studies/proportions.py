"""Confidence intervals for one proportion, from independent trials."""

from dataclasses import dataclass
from math import sqrt

from scipy.special import betaincinv, ndtri


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A proportion and its confidence interval, all in [0, 1]."""

    estimate: float
    ci_low: float
    ci_high: float
    n_trials: int


def wilson(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Proportion:
    """Wilson score interval, without continuity correction.

    Chosen because readers near 0 or 100 % correct are common here, and there the
    textbook normal interval shrinks to a point.

    Raises:
        ValueError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Wilson (1927); checked against Newcombe (1998), Table I.
    """
    _refuse_what_is_no_proportion(n_correct, n_trials, confidence_level)
    p, z = n_correct / n_trials, float(ndtri(0.5 + confidence_level / 2))
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


def clopper_pearson(n_correct: int, n_trials: int, *, confidence_level: float = 0.95) -> Proportion:
    """Clopper–Pearson interval: covers at least the nominal level, whatever the truth.

    Raises:
        ValueError: if the counts are not a proportion, or the level is not in (0, 1).

    Source: Clopper & Pearson (1934), as beta quantiles; checked against R's `binom.confint`.
    """
    _refuse_what_is_no_proportion(n_correct, n_trials, confidence_level)
    tail, n_wrong = (1 - confidence_level) / 2, n_trials - n_correct
    return Proportion(
        estimate=n_correct / n_trials,
        ci_low=float(betaincinv(n_correct, n_wrong + 1, tail)) if n_correct else 0.0,
        ci_high=float(betaincinv(n_correct + 1, n_wrong, 1 - tail)) if n_wrong else 1.0,
        n_trials=n_trials,
    )


def _refuse_what_is_no_proportion(n_correct: int, n_trials: int, confidence_level: float) -> None:
    if n_trials == 0 or not 0 <= n_correct <= n_trials:
        raise ValueError(
            f"{n_correct} correct of {n_trials} trials is not a proportion; "
            "count a participant who finished no trial as incomplete."
        )
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
