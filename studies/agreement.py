"""Agreement of raters who judge the same units, beyond chance.

Every coefficient comes from one table, units × raters, in which cells may be missing. A unit that
only one rater has rated tells nothing about agreement; Krippendorff's alpha ignores it, while the
coefficients after Gwet's handbook (Fleiss, Conger, Gwet's AC) let it count in the prevalences of
the categories. Intervals are for other units rated by these raters. What a table cannot show (all
ratings the same, one rater, one unit) is not estimable, with the reason.

Shapes: N units, R raters, q categories, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import t as student_t

from studies.estimate import Estimate, check_level
from studies.ratings import (
    SMALL,
    Agreement,
    AgreementError,
    CaseBootstrap,
    Core,
    RatingTable,
    agreement_of,
    coded,
)
from studies.weights import Weights, are_ordered, weight_matrix, weights_in_words

Array = NDArray[np.float64]

_NO_VARIANCE = "units do not differ in agreement, so the table shows no variance"


def percent_agreement(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """How often two raters of a unit agree: mean over units of the share of agreeing pairs.

    Args:
        ratings: numbers or texts; NaN, None or NA where missing. (N, R)
        categories: all that the scale offers, in order; those that occur where None.
        weights: partial credit, by name or as a symmetric matrix with 1 on the diagonal. (q, q)
        confidence_level: of both intervals.
        bootstrap: how to resample units, if at all.

    Raises:
        AgreementError: if the table, the categories or the weights are none.

    Where many units have a single rating, the standard error, which is irrCAC's here and in the
    coefficients below, is too large; the bootstrap's is not.

    Source: Gwet (2014), ch. 2; standard error as irrCAC, t with N − 1 degrees of freedom.
    """
    return _coefficient(
        "percent agreement",
        ratings,
        categories,
        weights,
        _no_chance_of,
        confidence_level,
        bootstrap,
    )


def fleiss_kappa(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Fleiss' kappa: chance is that two ratings drawn from all ratings agree.

    Raters need not be the same persons from unit to unit. Where all units have as many ratings
    and weights are `identity`, `z` tests chance (Fleiss, Nee & Landis 1979).

    Args, raises: as `percent_agreement`.

    Source: Fleiss (1971); missing ratings and standard error: Gwet (2014), as irrCAC.
    """
    table = coded(ratings, categories, needs_order=are_ordered(weights))
    found = kappa_like("Fleiss' kappa", table, weights, _fleiss_chance, confidence_level, bootstrap)
    is_plain = isinstance(weights, str) and weights == "identity"
    if found.coefficient.estimate is None or not is_plain or np.ptp(table.n_each) > 0:
        return found
    n_raters, p = float(table.n_each[0]), table.counts.mean(axis=0) / table.n_each[0]
    spread = float(p @ (1 - p))
    excess = spread**2 - float((p * (1 - p)) @ (1 - 2 * p))
    return _with_null(found, 2 * excess / (spread**2 * table.n_ratings * (n_raters - 1)))


def conger_kappa(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Conger's kappa: Cohen's for any number of raters, each with their own habits.

    Chance is the mean over pairs of raters of Cohen's chance agreement. For two raters and no
    missing cell it is Cohen's kappa.

    Args, raises: as `percent_agreement`.

    Source: Conger (1980); missing ratings and standard error: Gwet (2014), as irrCAC.
    """
    return _coefficient(
        "Conger's kappa", ratings, categories, weights, conger_chance, confidence_level, bootstrap
    )


def gwet_ac(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Gwet's AC1, or AC2 where weights give partial credit; stable where one category dominates.

    It depends on the number of categories: declare those of the scale that nobody used.

    Args, raises: as `percent_agreement`.

    Source: Gwet (2008; 2014, ch. 5); standard error and interval as irrCAC.
    """
    name = "Gwet's AC1" if isinstance(weights, str) and weights == "identity" else "Gwet's AC2"
    return _coefficient(
        name, ratings, categories, weights, _gwet_chance, confidence_level, bootstrap
    )


def brennan_prediger(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Brennan–Prediger coefficient: by chance, every category is as likely as any other.

    It depends on the number of categories: declare those of the scale that nobody used.

    Args, raises: as `percent_agreement`.

    Source: Brennan & Prediger (1981); Gwet (2014), standard error and interval as irrCAC.
    """
    return _coefficient(
        "Brennan–Prediger coefficient",
        ratings,
        categories,
        weights,
        _uniform_chance,
        confidence_level,
        bootstrap,
    )


def randolph_kappa(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Randolph's free-marginal kappa: chance is 1 / q. Brennan–Prediger's, without weights.

    Args, raises: as `percent_agreement`.

    Source: Randolph (2005).
    """
    name = "Randolph's free-marginal kappa"
    return _coefficient(
        name, ratings, categories, "identity", _uniform_chance, confidence_level, bootstrap
    )


def cohen_kappa(
    ratings: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    weights: Weights | ArrayLike = "identity",
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Cohen's kappa of two raters, with the test of chance, as SAS PROC FREQ has it.

    Units that one of the two did not rate are left out. Weights go by the values of numeric
    ratings, as SAS's table scores do, and by position for texts. The interval is normal and may
    leave [−1, 1].

    Args:
        ratings: numbers or texts; NaN, None or NA where missing. (N, 2)
        categories, weights, confidence_level, bootstrap: as `percent_agreement`.

    Raises:
        AgreementError: as `percent_agreement`, and if there are more than two raters.

    Source: Cohen (1960, 1968); Fleiss, Cohen & Everitt (1969) for both standard errors.
    """
    whole = coded(ratings, categories, needs_order=are_ordered(weights), keep_raters=True)
    method = "Cohen's kappa" + weights_in_words(weights)
    n_raters = whole.codes.shape[1]
    if n_raters > 2:
        raise AgreementError(
            f"Cohen's kappa compares 2 raters, not {n_raters}; choose two columns, or use "
            "`conger_kappa`, which is its mean-chance form for any number."
        )
    check_level(confidence_level, AgreementError)
    both = whole.take(whole.is_complete)
    w = weight_matrix(weights, whole)

    def nothing(reason: str, observed: float | None = None) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level)
        return agreement_of(method, whole, none, observed=observed, bootstrap=bootstrap)

    if reason := why_not_pairable(whole):
        return nothing(reason)
    joint = np.zeros((whole.q, whole.q))
    np.add.at(joint, (both.codes[:, 0], both.codes[:, 1]), 1 / both.n_units)
    down, across = joint.sum(axis=1), joint.sum(axis=0)
    observed, expected = float((w * joint).sum()), float(down @ w @ across)
    if 1 - expected < SMALL:
        return nothing("both raters used one and the same category throughout", observed)
    k = (observed - expected) / (1 - expected)
    margins = (w @ across)[:, None] + down @ w
    inner = float((joint * (w - margins * (1 - k)) ** 2).sum())
    variance = (inner - (k - expected * (1 - k)) ** 2) / (both.n_units * (1 - expected) ** 2)
    null = float((np.outer(down, across) * (w - margins) ** 2).sum()) - expected**2
    # The difference of two squares leaves rounding of the order 1e-17 where there is no variance.
    if variance > SMALL:
        coefficient = Estimate.symmetric(
            k,
            sqrt(variance),
            confidence_level=confidence_level,
            method=f"{method}, standard error of Fleiss, Cohen & Everitt",
        )
    else:
        coefficient = Estimate.not_estimable(method, _NO_VARIANCE, confidence_level, k)
    found = agreement_of(
        method,
        whole,
        coefficient,
        core=_core(both, w, conger_chance),
        resampled=both,
        observed=observed,
        expected=expected,
        bootstrap=bootstrap,
    )
    return _with_null(found, null / (both.n_units * (1 - expected) ** 2))


Chance = Callable[[Array], tuple[Array, Array | None]]
"""`unit weights (B, N) -> chance agreement (B,), its derivative by unit (N,) or None for 0`.

The derivative is N times that by the weight of each unit, less the mean; asked for at B = 1.
"""


def _no_chance_of(_table: RatingTable, _weights: Array) -> Chance:
    return lambda W: (np.zeros(len(W)), None)


def _shares(table: RatingTable) -> Array:
    """Share of each category among the ratings of a unit. (N, q)"""
    return table.counts / table.n_each[:, None]


def _fleiss_chance(table: RatingTable, w: Array) -> Chance:
    shares = _shares(table)

    def chance(W: Array) -> tuple[Array, Array | None]:
        prevalence = W @ shares / W.sum(axis=1, keepdims=True)
        expected = ((prevalence @ w) * prevalence).sum(axis=1)
        return expected, 2 * (shares @ (w @ prevalence[0]) - expected[0])

    return chance


def _gwet_chance(table: RatingTable, w: Array) -> Chance:
    shares, q = _shares(table), table.q
    factor = float(w.sum()) / (q * (q - 1)) if q > 1 else np.nan

    def chance(W: Array) -> tuple[Array, Array | None]:
        prevalence = W @ shares / W.sum(axis=1, keepdims=True)
        expected = factor * (prevalence * (1 - prevalence)).sum(axis=1)
        return expected, 2 * (factor * (shares @ (1 - prevalence[0])) - expected[0])

    return chance


def _uniform_chance(table: RatingTable, w: Array) -> Chance:
    expected = float(w.sum()) / table.q**2 if table.q > 1 else np.nan

    def chance(W: Array) -> tuple[Array, Array | None]:
        return np.full(len(W), expected), None

    return chance


def conger_chance(table: RatingTable, w: Array) -> Chance:
    """Mean over pairs of raters of the agreement that their own habits would give."""
    present = (table.codes >= 0).astype(np.float64)
    n_raters, q = table.codes.shape[1], table.q
    is_in = np.zeros((table.n_units, n_raters, q))
    units, raters = np.nonzero(table.codes >= 0)
    is_in[units, raters, table.codes[units, raters]] = 1
    flat = is_in.reshape(table.n_units, -1)
    n_pairs = n_raters * (n_raters - 1)

    def chance(W: Array) -> tuple[Array, Array | None]:
        n_rated = W @ present
        with np.errstate(invalid="ignore"):
            habits = (W @ flat).reshape(len(W), n_raters, q) / n_rated[:, :, None]
        summed = habits.sum(axis=1)
        own = ((habits @ w) * habits).sum(axis=(1, 2))
        expected = (((summed @ w) * summed).sum(axis=1) - own) / n_pairs
        if len(W) > 1:
            return expected, None
        others = (summed[0] - habits[0]) @ w
        met = (is_in * others).sum(axis=2)
        usual = (habits[0] * others).sum(axis=1)
        rate = n_rated[0] / W.sum()
        each = ((met - (present - rate) * usual) / rate).sum(axis=1) / n_pairs
        return expected, 2 * (each - expected[0])

    return chance


def pairwise_agreement(table: RatingTable, w: Array) -> tuple[Array, Array]:
    """Agreement of each unit's pairs, 0 without a pair; and whether there is one. (N,), (N,)"""
    counts, n_each = table.counts, table.n_each
    n_pairs = n_each * (n_each - 1)
    agreeing = (counts * (counts @ w - 1)).sum(axis=1)
    return agreeing / np.maximum(n_pairs, 1), (n_each >= 2).astype(np.float64)


def _core(table: RatingTable, w: Array, chance_of: Callable[[RatingTable, Array], Chance]) -> Core:
    agreement, has_pair = pairwise_agreement(table, w)
    chance = chance_of(table, w)

    def core(W: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            observed, (expected, _) = W @ (agreement * has_pair) / (W @ has_pair), chance(W)
            found = (observed - expected) / (1 - expected)
        return np.where(1 - expected > SMALL, found, np.nan)

    return core


def _coefficient(
    name: str,
    ratings: ArrayLike,
    categories: Sequence[Any] | None,
    weights: Weights | ArrayLike,
    chance_of: Callable[[RatingTable, Array], Chance],
    confidence_level: float,
    bootstrap: CaseBootstrap | None,
) -> Agreement:
    table = coded(ratings, categories, needs_order=are_ordered(weights))
    return kappa_like(name, table, weights, chance_of, confidence_level, bootstrap)


def kappa_like(
    name: str,
    table: RatingTable,
    weights: Weights | ArrayLike,
    chance_of: Callable[[RatingTable, Array], Chance],
    confidence_level: float,
    bootstrap: CaseBootstrap | None,
) -> Agreement:
    """(observed − expected) / (1 − expected), for chance as `chance_of` has it."""
    check_level(confidence_level, AgreementError)
    method, w = name + weights_in_words(weights), weight_matrix(weights, table)

    def nothing(reason: str, observed: float | None = None) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level)
        return agreement_of(method, table, none, observed=observed, bootstrap=bootstrap)

    if reason := why_not_pairable(table):
        return nothing(reason)
    agreement, has_pair = pairwise_agreement(table, w)
    observed = float(agreement @ has_pair / has_pair.sum())
    found, slope = chance_of(table, w)(np.ones((1, table.n_units)))
    expected = float(found[0])
    if table.q < 2 and chance_of is not _no_chance_of:
        return nothing(
            f"all ratings are {table.categories[0]!r}; declare the other categories of the scale",
            observed,
        )
    if 1 - expected < SMALL:
        return nothing("all ratings are the same, so chance alone would agree", observed)
    k = (observed - expected) / (1 - expected)
    share = table.n_units / has_pair.sum()
    linear = share * (agreement - expected) * has_pair / (1 - expected) - k
    if slope is not None:
        linear -= (1 - k) * slope / (1 - expected)
    return agreement_of(
        method,
        table,
        linearised(method, k, linear, confidence_level),
        core=_core(table, w, chance_of),
        observed=observed,
        expected=expected,
        bootstrap=bootstrap,
    )


def linearised(method: str, estimate: float, linear: Array, confidence_level: float) -> Estimate:
    """Interval from each unit's part in the coefficient, t with one degree less than units.

    The upper limit is at most 1, as in irrCAC.
    """
    n = len(linear)
    standard_error = sqrt(float(np.square(linear).sum()) / (n * (n - 1)))
    if standard_error < SMALL:
        return Estimate.not_estimable(method, _NO_VARIANCE, confidence_level, estimate)
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, n - 1)) * standard_error
    return Estimate(
        estimate=estimate,
        ci_low=estimate - half_width,
        ci_high=min(1.0, estimate + half_width),
        standard_error=standard_error,
        df=n - 1,
        confidence_level=confidence_level,
        method=f"{method}, linearised standard error over units",
    )


def why_not_pairable(table: RatingTable) -> str | None:
    """Why no agreement can be told, as a clause."""
    if table.n_raters < 2:
        return f"{number_of(table.n_raters, 'rater', 'raters')} rated, and agreement needs two"
    n_pairable = int((table.n_each >= 2).sum())
    if n_pairable < 2:
        return (
            f"{number_of(n_pairable, 'unit has', 'units have')} two ratings, and it needs two units"
        )
    return None


def number_of(n: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{n or 'no'} {one if n == 1 else many}"


def _with_null(found: Agreement, variance: float) -> Agreement:
    """With the test of chance, from the variance that the coefficient then has."""
    k = found.coefficient.estimate
    if k is None or variance < SMALL**2:
        return found
    z = k / sqrt(variance)
    return replace(found, null_standard_error=sqrt(variance), z=z, p_value=2 * float(ndtr(-abs(z))))
