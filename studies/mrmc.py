"""Many readers, many cases (MRMC): a figure of merit with an interval for other readers and cases.

In two steps. First each reader's figure in each modality, with the covariances that come of reading
the same cases (`studies.reader_figures`). Then the analysis of variance of Obuchowski and Rockette
(`studies.obuchowski_rockette`). Beside it Gallas' U-statistics, which need no complete table
(`studies.u_statistics`). Here is what these share.
"""

from collections.abc import Iterator
from math import inf, sqrt

from scipy.special import ndtr, stdtr

from studies.crossed import FEWEST_READERS
from studies.estimate import Estimate

FEWEST_CASES = 10
"""Below this, in any class that a reader read, the normal theory of the methods is strained."""
NO_VARIANCE = 1e-15


class MrmcError(ValueError):
    """Readings from which the asked analysis cannot be made, with what to do instead."""


def estimate_of(
    value: float, variance: float, df: float | None, method: str, level: float
) -> Estimate:
    """A figure with its t (or normal) interval, where its variance is more than rounding."""
    value, variance = float(value), float(variance)
    if variance <= NO_VARIANCE * max(1.0, value**2):
        return Estimate.not_estimable(
            method, "the readings show no variance, which is no sign of certainty", level, value
        )
    return Estimate.symmetric(value, sqrt(variance), df=df, confidence_level=level, method=method)


def against_zero(estimate: Estimate) -> tuple[float | None, float | None]:
    """t, or z where there are no degrees of freedom, and the two-sided p value."""
    if estimate.estimate is None or estimate.standard_error is None:
        return None, None
    t, df = estimate.estimate / estimate.standard_error, estimate.df
    return t, 2 * float(ndtr(-abs(t)) if df is None else stdtr(df, -abs(t)))


def design_effect_of(estimate: Estimate, independent_variance: float) -> float | None:
    """Variance over that of as many independent readings; None where either is none."""
    if estimate.standard_error is None or independent_variance <= NO_VARIANCE:
        return None
    return float(estimate.standard_error**2 / independent_variance)


def cautions_of_size(fewest_cases: int, n_random_readers: float = inf) -> Iterator[str]:
    """What has to be said where random readers, or the cases of a class that one read, are few."""
    if n_random_readers < FEWEST_READERS:
        yield (
            f"With {n_random_readers} readers (fewer than {FEWEST_READERS}) the spread between "
            "readers is hardly known; rely on the analysis for these readers only."
        )
    if fewest_cases < FEWEST_CASES:
        yield (
            f"A reader read only {fewest_cases} cases of a class (fewer than {FEWEST_CASES}); the "
            "interval is a rough guide."
        )
