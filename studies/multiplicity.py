"""Many tests of one study, and two small tools that stand beside them.

Adjusted p values for a declared family: Holm keeps the chance of any false claim below alpha,
Benjamini–Hochberg the expected share of false ones among the claims. McNemar's test compares two
readers, or a reader and a model, on the same cases; the arcsine effect size compares proportions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import asin, sqrt

from scipy.stats import binom, chi2


class MultiplicityError(ValueError):
    """P values, counts or proportions that are none, with what to give instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Two paired sets of right and wrong answers, compared on the pairs that differ."""

    n_first_only: int
    """Pairs that only the first got right."""
    n_second_only: int
    chi_square: float | None
    """With continuity correction, 1 df; None where no pair differs."""
    p_value: float | None
    """Of `chi_square`."""
    p_exact: float
    """Two-sided exact binomial: twice the smaller tail at ½, at most 1."""
    reason: str | None = None
    """Why there is no chi-square, as a clause."""


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's adjusted p values, in the order given: claim what is at or below alpha.

    The k-th smallest of m is multiplied by m − k + 1, and none is below a smaller one's.

    Args:
        p_values: one for each test of the declared family; None for a test that could not be made.
            It stays None and still counts in m, so that a failed test does not help the others.

    Raises:
        MultiplicityError: for a p value outside [0, 1] or not a number.

    Source: Holm (1979); R's multtest, by way of statsmodels' `test_multi.py`.
    """
    order = _ordered(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[index] = largest
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Benjamini–Hochberg adjusted p values, in the order given.

    The k-th smallest of m is multiplied by m / k, and none is above a larger one's.

    Args:
        p_values: as for `holm`; None counts in m as a test that found nothing.

    Raises:
        MultiplicityError: for a p value outside [0, 1] or not a number.

    Source: Benjamini & Hochberg (1995), for independent or positively dependent tests.
    """
    order = _ordered(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    smallest = 1.0
    for rank, (p, index) in reversed(list(enumerate(order, 1))):
        smallest = min(smallest, p * (len(p_values) / rank))
        adjusted[index] = smallest
    return tuple(adjusted)


def mcnemar(n_first_only: int, n_second_only: int) -> McNemar:
    """McNemar's test of the pairs that differ: corrected chi-square, and exact.

    The corrected difference is max(|b − c| − 1, 0): a tie is no evidence, which (|b − c| − 1)²
    alone would make of it. The pairs must be independent: one reader's cases, not many readers'.

    Args:
        n_first_only: pairs that only the first got right.
        n_second_only: pairs that only the second got right.

    Raises:
        MultiplicityError: for counts that are negative or not whole.

    Source: McNemar (1947), Edwards (1948); R's `mcnemar.test` and `binom.test`.
    """
    for count in (n_first_only, n_second_only):
        if not count >= 0 or count % 1:
            raise MultiplicityError(
                f"{n_first_only} and {n_second_only} are not two counts of pairs; count the pairs "
                "that only the first, and that only the second, got right."
            )
    n_first_only, n_second_only = int(n_first_only), int(n_second_only)
    n_differ = n_first_only + n_second_only
    if n_differ == 0:
        return McNemar(
            n_first_only=n_first_only,
            n_second_only=n_second_only,
            chi_square=None,
            p_value=None,
            p_exact=1.0,
            reason="no pair differs, so the chi-square is 0 over 0",
        )
    chi_square = max(abs(n_first_only - n_second_only) - 1, 0) ** 2 / n_differ
    return McNemar(
        n_first_only=n_first_only,
        n_second_only=n_second_only,
        chi_square=chi_square,
        p_value=float(chi2.sf(chi_square, 1)),
        p_exact=min(1.0, 2 * float(binom.cdf(min(n_first_only, n_second_only), n_differ, 0.5))),
    )


def arcsine_effect_size(proportion: float, other: float) -> float:
    """Cohen's h, 2 asin √p − 2 asin √q: in [−π, π], positive where the first is larger.

    Raises:
        MultiplicityError: for a number outside [0, 1].

    Source: Cohen (1988), section 6.2; 0.5 against 0.4 is 0.2013579.
    """
    for one in (proportion, other):
        if not 0 <= one <= 1:
            raise MultiplicityError(
                f"{one} is not a proportion; give a number in [0, 1], not a percentage or a count."
            )
    return 2 * asin(sqrt(proportion)) - 2 * asin(sqrt(other))


def _ordered(p_values: Sequence[float | None]) -> list[tuple[float, int]]:
    """P values that exist, smallest first, each with its place in the family."""
    existing = []
    for index, p in enumerate(p_values):
        if p is None:
            continue
        if not 0 <= p <= 1:
            raise MultiplicityError(
                f"p value {index + 1} of {len(p_values)} is {p}; give a number in [0, 1], or None "
                "for a test that could not be made."
            )
        existing.append((float(p), index))
    return sorted(existing)
