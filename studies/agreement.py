"""Agreement of raters who judge the same units, and of readers with themselves.

Every coefficient comes from one table, units × raters, in which cells may be missing. A unit that
only one rater has rated tells nothing about agreement; Krippendorff's alpha ignores it, while the
coefficients after Gwet's handbook (Fleiss, Conger, Gwet's AC) let it count in the prevalences of
the categories. Intervals are for other units rated by these raters. What a table cannot show (all
ratings the same, one rater, one unit) is not estimable, with the reason.

Shapes: N units, R raters, q categories, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import f as fisher_f
from scipy.stats import t as student_t

from studies.clustered import rao_scott_wilson, resampling_weights
from studies.estimate import Estimate
from studies.proportions import wilson

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

Weights = Literal[
    "identity", "linear", "quadratic", "ordinal", "radical", "ratio", "circular", "bipolar"
]
Scale = Literal["nominal", "ordinal", "interval", "ratio"]

MOST_CATEGORIES = 1000
"""More distinct ratings are measurements; `krippendorff_alpha` on the interval scale takes them."""

FEWEST_RESAMPLES = 200
_SMALL = 1e-12
_PERCENT = "intra-reader percent agreement"
_KAPPA = "intra-reader kappa"
_NO_VARIANCE = "units do not differ in agreement, so the table shows no variance"


class AgreementError(ValueError):
    """A table that is no table of ratings: which cell, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseBootstrap:
    """How to resample units: whole units, with all their ratings."""

    rng: np.random.Generator
    n_resamples: int = 2000
    strata: ArrayLike | None = None
    """Kind of each row, such as real or generated; numbers of each kind stay as designed. (N,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A chance-corrected coefficient, (observed − expected) / (1 − expected)."""

    coefficient: Estimate
    bootstrap: Estimate | None
    """The same with a bootstrap interval over units; None where none was asked for."""
    observed: float | None
    """Agreement found. For alpha: 1 − disagreement over the largest squared distance."""
    expected: float | None
    """Agreement by chance, as the coefficient defines chance; 0 for percent agreement."""
    n_units: int
    """Units with at least one rating."""
    n_pairable_units: int
    """Units with at least two; the others carry no pair."""
    n_raters: int
    n_ratings: int
    categories: tuple[Any, ...]
    null_standard_error: float | None = None
    """Standard error if only chance agreed; None where no formula applies."""
    z: float | None = None
    """Coefficient over `null_standard_error`."""
    p_value: float | None = None
    """Two-sided, of `z`."""


def agreement_weights(name: Weights, scores: ArrayLike) -> Array:
    """How far two ratings agree, from 0 to 1. (q, q)

    `linear` is Cicchetti–Allison, `quadratic` Fleiss–Cohen. `ordinal`, which counts pairs of
    categories between, takes positions; all others take the scores themselves.

    Args:
        name: which weights.
        scores: values of the categories, ascending. (q,)

    Raises:
        AgreementError: for `ratio` weights with a score of 0 or below, or an unknown name.

    Source: Gwet (2014), Handbook of Inter-Rater Reliability, ch. 3; checked against irrCAC.
    """
    x = np.asarray(scores, dtype=np.float64)
    if len(x) < 2 or name == "identity":
        return np.eye(len(x))
    apart = np.abs(x[:, None] - x)
    together, low, high = x[:, None] + x, x.min(), x.max()
    match name:
        case "linear":
            distance = apart
        case "quadratic":
            distance = apart**2
        case "radical":
            distance = np.sqrt(apart)
        case "ordinal":
            position = np.arange(len(x))
            steps = np.abs(position[:, None] - position)
            distance = steps * (steps + 1) / 2
        case "ratio":
            if low <= 0:
                raise AgreementError(
                    f"ratio weights need scores above 0, not {low:g}; use linear or quadratic."
                )
            distance = (apart / together) ** 2
        case "circular":
            distance = np.sin(np.pi * apart / (high - low + 1)) ** 2
        case "bipolar":
            room = (together - 2 * low) * (2 * high - together)
            distance = np.divide(apart**2, room, out=np.zeros_like(apart), where=apart > 0)
        case _:
            raise AgreementError(
                f"no weights are called {name!r}; give one of "
                "identity, linear, quadratic, ordinal, radical, ratio, circular, bipolar."
            )
    return np.asarray(1 - distance / distance.max(), dtype=np.float64)


def ratings_from_counts(counts: ArrayLike) -> Array:
    """Units × raters table from how often each unit fell into each category; NaN pads.

    For published tables that do not say who rated what. Columns are then no persons: good for
    Fleiss, Randolph, Krippendorff, Gwet and Brennan–Prediger, not for Cohen or Conger. Pass
    `categories=range(q)` along, so that a category that nobody used still counts.

    Args:
        counts: whole numbers. (N, q)

    Raises:
        AgreementError: if a count is negative or no whole number.
    """
    table = _whole_counts(counts)
    n_raters = int(table.sum(axis=1).max(initial=0))
    ratings = np.full((len(table), n_raters), np.nan)
    for unit, row in enumerate(table):
        found = np.repeat(np.arange(table.shape[1]), row)
        ratings[unit, : len(found)] = found
    return ratings


def ratings_from_contingency(table: ArrayLike) -> Array:
    """Units × 2 table from a square table of counts: first rater down, second across. (q, q)

    Raises:
        AgreementError: if the table is not square, or holds other than whole numbers from 0.
    """
    counts = _whole_counts(table)
    if counts.shape[0] != counts.shape[1]:
        raise AgreementError(
            f"a table of shape {counts.shape} is not square; list every category for both raters, "
            "with zeros where one did not use it."
        )
    first, second = np.indices(counts.shape)
    return np.stack(
        [np.repeat(part.ravel(), counts.ravel()).astype(np.float64) for part in (first, second)],
        axis=1,
    )


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
    table = _coded(ratings, categories, needs_order=_orders(weights))
    return _kappa_like(
        "percent agreement" + _weighted(weights),
        table,
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
    table = _coded(ratings, categories, needs_order=_orders(weights))
    found = _kappa_like(
        "Fleiss' kappa" + _weighted(weights),
        table,
        weights,
        _fleiss_chance,
        confidence_level,
        bootstrap,
    )
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
    table = _coded(ratings, categories, needs_order=_orders(weights))
    return _kappa_like(
        "Conger's kappa" + _weighted(weights),
        table,
        weights,
        _conger_chance,
        confidence_level,
        bootstrap,
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
    table = _coded(ratings, categories, needs_order=_orders(weights))
    name = "Gwet's AC1" if isinstance(weights, str) and weights == "identity" else "Gwet's AC2"
    return _kappa_like(
        name + _weighted(weights), table, weights, _gwet_chance, confidence_level, bootstrap
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
    table = _coded(ratings, categories, needs_order=_orders(weights))
    return _kappa_like(
        "Brennan–Prediger coefficient" + _weighted(weights),
        table,
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
    return _kappa_like(
        "Randolph's free-marginal kappa",
        _coded(ratings, categories, needs_order=False),
        "identity",
        _uniform_chance,
        confidence_level,
        bootstrap,
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
    whole = _coded(ratings, categories, needs_order=_orders(weights), keep_raters=True)
    method = "Cohen's kappa" + _weighted(weights)
    n_raters = whole.codes.shape[1]
    if n_raters > 2:
        raise AgreementError(
            f"Cohen's kappa compares 2 raters, not {n_raters}; choose two columns, or use "
            "`conger_kappa`, which is its mean-chance form for any number."
        )
    _refuse_level(confidence_level)
    both = whole.take(whole.is_complete)
    w = _weight_matrix(weights, whole)

    def nothing(reason: str, observed: float | None = None) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level=confidence_level)
        return _agreement(method, whole, none, observed=observed, bootstrap=bootstrap)

    if reason := _not_pairable(whole):
        return nothing(reason)
    joint = np.zeros((whole.q, whole.q))
    np.add.at(joint, (both.codes[:, 0], both.codes[:, 1]), 1 / both.n_units)
    down, across = joint.sum(axis=1), joint.sum(axis=0)
    observed, expected = float((w * joint).sum()), float(down @ w @ across)
    if 1 - expected < _SMALL:
        return nothing("both raters used one and the same category throughout", observed)
    k = (observed - expected) / (1 - expected)
    margins = (w @ across)[:, None] + down @ w
    inner = float((joint * (w - margins * (1 - k)) ** 2).sum())
    variance = (inner - (k - expected * (1 - k)) ** 2) / (both.n_units * (1 - expected) ** 2)
    null = float((np.outer(down, across) * (w - margins) ** 2).sum()) - expected**2
    # The difference of two squares leaves rounding of the order 1e-17 where there is no variance.
    if variance > _SMALL:
        half_width = float(ndtri(0.5 + confidence_level / 2)) * sqrt(variance)
        coefficient = Estimate(
            estimate=k,
            ci_low=k - half_width,
            ci_high=k + half_width,
            standard_error=sqrt(variance),
            confidence_level=confidence_level,
            method=f"{method}, standard error of Fleiss, Cohen & Everitt",
        )
    else:
        coefficient = Estimate.not_estimable(
            method, _NO_VARIANCE, confidence_level=confidence_level, estimate=k
        )
    found = _agreement(
        method,
        whole,
        coefficient,
        core=_core(both, w, _conger_chance),
        resampled=both,
        observed=observed,
        expected=expected,
        bootstrap=bootstrap,
    )
    return _with_null(found, null / (both.n_units * (1 - expected) ** 2))


def krippendorff_alpha(
    ratings: ArrayLike,
    *,
    scale: Scale | ArrayLike,
    categories: Sequence[Any] | None = None,
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Agreement:
    """Krippendorff's alpha, 1 − observed / expected disagreement, for any scale and missing cells.

    Disagreement is the squared distance of two ratings: 0 or 1 (nominal), ratings lying between
    the two (ordinal), their difference (interval), difference over sum (ratio). Units with fewer
    than two ratings are ignored.

    Args:
        ratings: numbers or texts; NaN, None or NA where missing. (N, R)
        scale: one of the four, or squared distances of the categories, symmetric, 0 on the
            diagonal, such as `1 - agreement_weights("linear", scores)`. (q, q)
        categories, confidence_level, bootstrap: as `percent_agreement`.

    Raises:
        AgreementError: as `percent_agreement`; for texts on an interval or ratio scale; for
            negative ratings on a ratio scale.

    Source: Krippendorff (2011), Computing Krippendorff's alpha-reliability. Standard error by
    linearisation, with t of one less than the pairable units, as Gwet's irrCAC; for the ordinal
    scale the distances' own dependence on the ratings is part of it, as nowhere in irrCAC.
    """
    name = scale if isinstance(scale, str) else "own distances"
    if name not in ("nominal", "ordinal", "interval", "ratio", "own distances"):
        raise AgreementError(
            f"no scale is called {name!r}; give nominal, ordinal, interval or ratio."
        )
    method = f"Krippendorff's alpha, {name}"
    whole = _coded(
        ratings,
        categories,
        needs_order=name == "ordinal",
        needs_numbers=name if name in ("interval", "ratio") else None,
        is_measured=name == "interval",
    )
    _refuse_level(confidence_level)
    distances = None if name in ("ordinal", "interval") else _distances(scale, whole)

    def nothing(reason: str) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level=confidence_level)
        return _agreement(method, whole, none, bootstrap=bootstrap)

    if reason := _not_pairable(whole):
        return nothing(reason)
    table = whole.take(whole.n_each >= 2)
    if distances is not None:
        parts, largest = _distance_parts(table, distances), float(distances.max())
    elif name == "interval":
        parts, largest = _interval_parts(table), float(np.ptp(table.scores)) ** 2
    else:
        parts, largest = _ordinal_parts(table), 1.0

    def core(W: Array) -> Array:
        found, chance, n_pairable, _ = parts(W)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(chance > 0, 1 - (n_pairable - 1) * found / chance, np.nan)

    once = np.ones((1, table.n_units))
    found, chance, n_pairable, slopes = parts(once)
    if not chance[0] > 0:
        return nothing("all ratings that can be paired are the same")
    if name == "ordinal":
        ranks = _midranks(table.counts.sum(axis=0))
        largest = float(np.ptp(ranks)) ** 2
    total, found_all, chance_all = float(n_pairable[0]), float(found[0]), float(chance[0])
    alpha = 1 - (total - 1) * found_all / chance_all
    # The derivative of 1 − n Σd / ΣΣδ² by the weight of each unit; it sums to 0.
    d_total, d_found, d_chance = slopes(once[0])
    ratio = total * found_all / chance_all
    linear = -(d_total * found_all + total * d_found - ratio * d_chance) / chance_all
    # Gwet's own step from there to alpha, which R's irrCAC has since dropped: the fourth digit.
    linear -= (alpha - (1 - ratio)) * (d_total / total - 1 / table.n_units)
    return _agreement(
        method,
        whole,
        _linearised(method, alpha, linear * table.n_units, confidence_level),
        core=core,
        resampled=table,
        observed=1 - found_all / total / largest,
        expected=1 - chance_all / (total * (total - 1)) / largest,
        bootstrap=bootstrap,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraclassCorrelation:
    """One form of the coefficient, and the F test that it is above 0."""

    coefficient: Estimate
    bootstrap: Estimate | None
    f_statistic: float | None
    df1: int
    df2: int
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntraclassCorrelations:
    """The six forms of Shrout & Fleiss, from the units that every rater rated."""

    icc_1_1: IntraclassCorrelation
    """Each unit has raters of its own; one rating."""
    icc_2_1: IntraclassCorrelation
    """The same raters, a sample of raters; absolute agreement of one rating."""
    icc_3_1: IntraclassCorrelation
    """These raters only; consistency of one rating, whatever each adds to all units."""
    icc_1_k: IntraclassCorrelation
    icc_2_k: IntraclassCorrelation
    icc_3_k: IntraclassCorrelation
    """Of the mean of all raters; Cronbach's alpha."""
    ms_between: float | None
    ms_within: float | None
    ms_raters: float | None
    ms_residual: float | None
    n_units: int
    """Complete units, which alone are used."""
    n_units_left_out: int
    """Units with a missing rating."""
    n_raters: int


def intraclass_correlations(
    ratings: ArrayLike, *, confidence_level: float = 0.95, bootstrap: CaseBootstrap | None = None
) -> IntraclassCorrelations:
    """Intraclass correlations of numeric ratings, with intervals from F distributions.

    They need a complete table: units with a missing rating are left out, and counted.

    Args:
        ratings: numbers; NaN, None or NA where missing. (N, R)
        confidence_level: of all intervals.
        bootstrap: how to resample complete units, if at all.

    Raises:
        AgreementError: if the table is none, or holds texts.

    Source: Shrout & Fleiss (1979); for the interval of ICC(2, ·), McGraw & Wong (1996) with the
    erratum of p. 390. Checked against psych's `ICC` and pingouin.
    """
    whole = _coded(
        ratings,
        None,
        needs_order=False,
        needs_numbers="intraclass correlation",
        is_measured=True,
        keep_raters=True,
    )
    _refuse_level(confidence_level)
    table = whole.take(whole.is_complete)
    n, k = table.codes.shape
    reason, squares = None, _MeanSquares(0.0, 0.0, 0.0, 0.0)
    if k < 2:
        reason = f"{_of(k, 'rater', 'raters')} rated, and agreement needs two"
    elif n < 2:
        reason = f"{_of(n, 'unit has', 'units have')} all ratings, and it needs two units"
    else:
        # Sums of squares would otherwise drown in the square of a large mean.
        x = table.scores[table.codes] - table.scores[table.codes].mean()
        total = float(np.square(x).sum())
        found = _mean_squares(x, np.ones((1, n)))
        # What rounding leaves of a mean square that is 0.
        squares = _MeanSquares(
            *(0.0 if part[0] < _SMALL * total else float(part[0]) for part in found)
        )
        reason = None if total > 0 else "all ratings are the same"
    draws = None
    if bootstrap and not reason:
        draws = _resampled(
            lambda W: np.stack(_forms(_mean_squares(x, W), n, k), axis=1),
            _strata_of(bootstrap, table),
            bootstrap,
            6,
            n,
        )
    forms = []
    for position, name in enumerate(("1,1", "2,1", "3,1", "1,k", "2,k", "3,k")):
        method = f"ICC({name})"
        if reason:
            one = Estimate.not_estimable(method, reason, confidence_level=confidence_level)
        else:
            one = _icc_interval(name, squares, n, k, confidence_level)
        drawn = one if bootstrap else None
        if draws is not None:
            drawn = _percentile(method, one, draws[:, position], n, confidence_level)
        df1, df2 = max(n - 1, 0), (n if name[0] == "1" else max(n - 1, 0)) * max(k - 1, 0)
        error = squares.within if name[0] == "1" else squares.residual
        ratio = squares.between / error if error > 0 and not reason else None
        forms.append(
            IntraclassCorrelation(
                coefficient=one,
                bootstrap=drawn,
                f_statistic=ratio,
                df1=df1,
                df2=df2,
                p_value=None if ratio is None else float(fisher_f.sf(ratio, df1, df2)),
            )
        )
    return IntraclassCorrelations(
        icc_1_1=forms[0],
        icc_2_1=forms[1],
        icc_3_1=forms[2],
        icc_1_k=forms[3],
        icc_2_k=forms[4],
        icc_3_k=forms[5],
        ms_between=None if reason else squares.between,
        ms_within=None if reason else squares.within,
        ms_raters=None if reason else squares.raters,
        ms_residual=None if reason else squares.residual,
        n_units=n,
        n_units_left_out=whole.n_units - n,
        n_raters=k,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderConsistency:
    """One reader against their own earlier answers."""

    reader: str
    n_cases: int
    """Cases that this reader judged at least twice."""
    n_pairs: int
    """Pairs of judgements of one case; 1 for a case that was shown twice."""
    percent: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Readers against themselves, on cases that they saw more than once."""

    percent: Estimate
    """Mean over repeated cases of the share of equal pairs."""
    percent_bootstrap: Estimate | None
    kappa: Estimate
    """Beyond the chance that each reader's own habits give."""
    kappa_bootstrap: Estimate | None
    readers: tuple[ReaderConsistency, ...]
    n_cases: int
    """Different cases that some reader judged at least twice; the clusters."""
    n_repeated: int
    """Pairs of a reader and a case with at least two judgements."""
    n_pairs: int


def intra_reader_consistency(
    readers: ArrayLike,
    cases: ArrayLike,
    answers: ArrayLike,
    *,
    categories: Sequence[Any] | None = None,
    confidence_level: float = 0.95,
    bootstrap: CaseBootstrap | None = None,
) -> Consistency:
    """How far readers repeat themselves on cases that they are shown again.

    One row for each judgement, in the order of presentation; cases judged once are ignored.
    Percent is over pairs of judgements of one case, each repeated case counting alike. Kappa
    takes first, second, … presentation as raters: Cohen's for two, Conger's for more. Over all
    readers its chance agreement is the mean of the readers' own, so that readers with different
    habits do not look consistent for that alone. Intervals over all readers are clustered by
    case, since several readers repeat the same cases; they are for other cases and these readers.

    Args:
        readers: who judged. (n,)
        cases: what was judged. (n,)
        answers: numbers or texts, none missing. (n,)
        categories: all possible answers; those that occur where None.
        confidence_level: of all intervals.
        bootstrap: how to resample cases, if at all; strata are one for each row, and belong to
            the case.

    Raises:
        AgreementError: if lengths differ, an answer is missing, or a case is in two strata.

    Source: ratio estimator with clusters, Rao & Scott (1992); kappa linearised as Gwet (2014).
    """
    _refuse_level(confidence_level)
    flat = _as_cells(answers)
    who = np.asarray(readers)
    what = np.asarray(cases)
    if flat.ndim != 1 or not who.shape == what.shape == flat.shape:
        raise AgreementError(
            f"readers of shape {who.shape}, cases {what.shape} and answers {flat.shape} do not "
            "belong together; give one of each for every judgement."
        )
    if pd.isna(flat).any():
        raise AgreementError(
            f"judgement {int(np.argmax(pd.isna(flat))) + 1} has no answer; leave out judgements "
            "that were never made."
        )
    judged = pd.DataFrame({"reader": who.astype(str), "case": what.astype(str)})
    shown = judged.groupby(["reader", "case"], sort=True)
    unit_of, turn_of = shown.ngroup().to_numpy(), shown.cumcount().to_numpy()
    if not (turn_of > 0).any():
        return _no_repeats(bootstrap, confidence_level)
    cells = np.full((unit_of.max() + 1, turn_of.max() + 1), None, dtype=object)
    cells[unit_of, turn_of] = flat
    repeated = np.bincount(unit_of) > 1
    rows = np.flatnonzero(turn_of == 0)
    rows = rows[np.argsort(unit_of[rows])][repeated]
    table = _coded(cells[repeated], categories, needs_order=False, keep_raters=True)
    case_of = np.unique(judged["case"].to_numpy()[rows], return_inverse=True)[1].astype(np.intp)
    reader_of = judged["reader"].to_numpy()[rows]
    names = sorted(set(reader_of))
    groups = [np.flatnonzero(reader_of == name) for name in names]
    parts = [table.take(reader_of == name).without_empty_columns() for name in names]
    w = np.eye(table.q)
    chances = [_conger_chance(part, w) for part in parts]
    agreement, _ = _pairwise(table, w)
    n_equal, n_pairs = _equal_pairs(table)
    expected, slope = np.empty(table.n_units), np.empty(table.n_units)
    for units, chance in zip(groups, chances, strict=True):
        found, own = chance(np.ones((1, len(units))))
        expected[units], slope[units] = found[0], own
    n_cases = int(case_of.max()) + 1
    percent = _clustered_percent(
        np.bincount(case_of, n_equal).astype(np.float64),
        np.bincount(case_of, n_pairs).astype(np.float64),
        confidence_level,
    )
    kappa = _pooled_kappa(agreement, expected, slope, case_of, confidence_level)

    def core(W: Array) -> Array:
        each = W[:, case_of]
        chance = np.zeros(len(W))
        for units, of in zip(groups, chances, strict=True):
            mass = each[:, units].sum(axis=1)
            chance += np.where(mass > 0, mass * np.nan_to_num(of(each[:, units])[0]), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            observed, chance = each @ agreement / each.sum(axis=1), chance / each.sum(axis=1)
            kappas = np.where(1 - chance > _SMALL, (observed - chance) / (1 - chance), np.nan)
            return np.stack([each @ n_equal / (each @ n_pairs), kappas], axis=1)

    drawn: tuple[Estimate | None, Estimate | None] = (None, None)
    if bootstrap and n_cases < 2:
        drawn = percent, kappa
    elif bootstrap:
        strata = _case_strata(bootstrap, judged["case"].to_numpy(), rows)
        values = _resampled(core, strata, bootstrap, 2, n_cases)
        drawn = (
            _percentile(_PERCENT, percent, values[:, 0], n_cases, confidence_level),
            _percentile(_KAPPA, kappa, values[:, 1], n_cases, confidence_level),
        )
    return Consistency(
        percent=percent,
        percent_bootstrap=drawn[0],
        kappa=kappa,
        kappa_bootstrap=drawn[1],
        readers=tuple(
            _reader_consistency(name, part, confidence_level)
            for name, part in zip(names, parts, strict=True)
        ),
        n_cases=n_cases,
        n_repeated=table.n_units,
        n_pairs=int(n_pairs.sum()),
    )


# --- one table of ratings ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Ratings as numbers of categories; −1 where missing. No empty unit."""

    codes: Codes
    """(N, R)"""
    categories: tuple[Any, ...]
    scores: Array
    """Values of numeric categories, positions of texts, ascending. (q,)"""
    rows: Codes
    """Where each unit stood in the table that was given. (N,)"""
    n_rows: int

    @property
    def q(self) -> int:
        return len(self.categories)

    @property
    def n_units(self) -> int:
        return len(self.codes)

    @property
    def n_each(self) -> Array:
        """Ratings of each unit. (N,)"""
        return np.asarray((self.codes >= 0).sum(axis=1), dtype=np.float64)

    @property
    def is_complete(self) -> NDArray[np.bool_]:
        """Units that every rater rated. (N,)"""
        return np.asarray((self.codes >= 0).all(axis=1), dtype=np.bool_)

    @property
    def n_ratings(self) -> int:
        return int((self.codes >= 0).sum())

    @property
    def n_raters(self) -> int:
        """Raters with at least one rating."""
        return int((self.codes >= 0).any(axis=0).sum())

    @property
    def counts(self) -> Array:
        """How often each unit fell into each category. (N, q)"""
        units, raters = np.nonzero(self.codes >= 0)
        cells = units * self.q + self.codes[units, raters]
        found = np.bincount(cells, minlength=self.n_units * self.q)
        return found.reshape(self.n_units, self.q).astype(np.float64)

    def take(self, chosen: NDArray[np.bool_]) -> "_Table":
        return replace(self, codes=self.codes[chosen], rows=self.rows[chosen])

    def without_empty_columns(self) -> "_Table":
        return replace(self, codes=self.codes[:, (self.codes >= 0).any(axis=0)])


def _as_cells(ratings: ArrayLike) -> NDArray[Any]:
    cells = np.asarray(ratings) if isinstance(ratings, np.ndarray | pd.DataFrame) else None
    if cells is None or cells.dtype.kind not in "biuf":
        cells = np.asarray(ratings, dtype=object)
    return cells


def _coded(
    ratings: ArrayLike,
    categories: Sequence[Any] | None,
    *,
    needs_order: bool,
    needs_numbers: str | None = None,
    is_measured: bool = False,
    keep_raters: bool = False,
) -> _Table:
    cells = _as_cells(ratings)
    if cells.ndim != 2:
        raise AgreementError(
            f"ratings of shape {cells.shape} are no table; give one row for each unit and one "
            "column for each rater, with NaN or None where a rating is missing."
        )
    present = ~np.asarray(pd.isna(cells), dtype=np.bool_)
    where = np.argwhere(present)
    values = cells[present]
    is_text = _is_text(values, where)
    if is_text and needs_numbers:
        row, column = where[0] + 1
        raise AgreementError(
            f"row {row}, column {column} holds {values[0]!r}; {needs_numbers} needs numbers, so "
            "give scores in place of texts."
        )
    if is_text and needs_order and categories is None:
        raise AgreementError(
            "the order of texts is not known; give `categories`, from lowest to highest."
        )
    flat = values.astype(str) if is_text else values.astype(np.float64)
    if not is_text:
        _refuse_infinite(flat, where)
    found, inverse = np.unique(flat, return_inverse=True)
    shown: tuple[Any, ...] = tuple(_plain(value) for value in found)
    if categories is not None:
        shown, inverse = _declared(categories, found, inverse, where, is_text)
    if len(shown) > MOST_CATEGORIES and not is_measured:
        raise AgreementError(
            f"{len(shown)} different ratings are measurements, not categories; use "
            "`krippendorff_alpha` on the interval scale or `intraclass_correlations`, or round."
        )
    if needs_numbers == "ratio" and len(found) and float(found[0]) < 0:
        row, column = where[int(np.argmin(flat))] + 1
        raise AgreementError(
            f"row {row}, column {column} holds {float(found[0]):g}; a ratio scale starts at 0, so "
            "use the interval scale."
        )
    codes = np.full(cells.shape, -1, dtype=np.intp)
    codes[present] = inverse
    rows = np.flatnonzero(present.any(axis=1))
    used = np.ones(cells.shape[1], dtype=np.bool_) if keep_raters else present.any(axis=0)
    has_text = any(isinstance(value, str) for value in shown)
    scores = np.arange(len(shown)) if has_text else np.array(shown, dtype=np.float64)
    return _Table(codes[rows][:, used], shown, scores.astype(np.float64), rows, cells.shape[0])


def _is_text(values: NDArray[Any], where: NDArray[np.intp]) -> bool:
    """Whether the ratings are texts rather than numbers; refuses a mixture."""
    if values.dtype.kind in "biuf" or not len(values):
        return False
    texts = np.array([isinstance(value, str) for value in values])
    numbers = np.array([isinstance(value, Real | np.bool_) for value in values])
    if texts.all():
        blank = np.array([not value.strip() for value in values])
        if blank.any():
            row, column = where[int(np.argmax(blank))] + 1
            raise AgreementError(
                f"row {row}, column {column} is an empty text; give None for a missing rating."
            )
        return True
    if numbers.all():
        return False
    odd = texts if texts.sum() < len(texts) / 2 else ~texts
    odd |= ~(texts | numbers)
    position = int(np.argmax(odd))
    row, column = where[position] + 1
    raise AgreementError(
        f"row {row}, column {column} holds {values[position]!r} among ratings of another kind; "
        "give all as numbers or all as texts."
    )


def _refuse_infinite(values: Array, where: NDArray[np.intp]) -> None:
    if not np.isfinite(values).all():
        row, column = where[int(np.argmax(~np.isfinite(values)))] + 1
        raise AgreementError(
            f"row {row}, column {column} is infinite; give a finite rating, or NaN for none."
        )


def _declared(
    categories: Sequence[Any],
    found: NDArray[Any],
    inverse: Codes,
    where: NDArray[np.intp],
    is_text: bool,
) -> tuple[tuple[Any, ...], Codes]:
    declared = list(categories)
    if not all(isinstance(value, str) for value in declared):
        if any(isinstance(value, str) for value in declared):
            raise AgreementError("categories mix numbers and texts; give one kind.")
        declared = sorted(_plain(value) for value in declared)
    if not declared or len(set(declared)) < len(declared):
        raise AgreementError(f"categories {declared} repeat or are none; list each once.")
    position = {value: i for i, value in enumerate(declared)}
    kept = [position.get(str(value) if is_text else _plain(value), -1) for value in found]
    lookup = np.array(kept, dtype=np.intp)
    if (lookup < 0).any():
        stray = int(np.argmax(lookup[inverse] < 0))
        row, column = where[stray] + 1
        raise AgreementError(
            f"row {row}, column {column} holds {_plain(found[inverse[stray]])!r}, which is not "
            f"among the categories {declared}; correct the rating, or declare the category."
        )
    return tuple(declared), lookup[inverse]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    number = float(value)
    return int(number) if number.is_integer() else number


def _whole_counts(counts: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not (np.isfinite(table) & (table >= 0) & (table % 1 == 0)).all():
        raise AgreementError(
            f"a table of shape {table.shape} is not one of counts; give whole numbers from 0."
        )
    return table.astype(np.int64)


def _orders(weights: Weights | ArrayLike) -> bool:
    return isinstance(weights, str) and weights not in ("identity", "nominal")


def _weighted(weights: Weights | ArrayLike) -> str:
    if not isinstance(weights, str):
        return ", own weights"
    return "" if weights == "identity" else f", {weights} weights"


def _weight_matrix(weights: Weights | ArrayLike, table: _Table) -> Array:
    if isinstance(weights, str):
        return agreement_weights(weights, table.scores)  # type: ignore[arg-type]
    matrix = np.asarray(weights, dtype=np.float64)
    if (
        matrix.shape != (table.q, table.q)
        or not np.isfinite(matrix).all()
        or not np.array_equal(matrix, matrix.T)
        or not (np.diag(matrix) == 1).all()
    ):
        raise AgreementError(
            f"weights of shape {matrix.shape} do not fit the {table.q} categories "
            f"{list(table.categories)}; give a symmetric matrix of that size with 1 on its "
            "diagonal (the mean with its transpose, if yours is not symmetric)."
        )
    return matrix


def _distances(scale: Scale | ArrayLike, table: _Table) -> Array:
    """Squared distances of categories. (q, q)"""
    if isinstance(scale, str):
        if scale == "nominal":
            return np.asarray(1 - np.eye(table.q), dtype=np.float64)
        together = table.scores[:, None] + table.scores
        apart = table.scores[:, None] - table.scores
        ratio = np.divide(apart, together, out=np.zeros_like(apart), where=together > 0)
        return np.asarray(ratio**2, dtype=np.float64)
    matrix = np.asarray(scale, dtype=np.float64)
    if (
        matrix.shape != (table.q, table.q)
        or not np.isfinite(matrix).all()
        or not np.array_equal(matrix, matrix.T)
        or np.diag(matrix).any()
        or (matrix < 0).any()
    ):
        raise AgreementError(
            f"distances of shape {matrix.shape} do not fit the {table.q} categories "
            f"{list(table.categories)}; give a symmetric matrix of that size, none negative, with "
            "0 on its diagonal."
        )
    return matrix


def _refuse_level(confidence_level: float) -> None:
    if not 0 < confidence_level < 1:
        raise AgreementError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")


# --- coefficients of the kappa kind -----------------------------------------------------------

Chance = Callable[[Array], tuple[Array, Array | None]]
"""`unit weights (B, N) -> chance agreement (B,), its derivative by unit (N,) or None for 0`.

The derivative is N times that by the weight of each unit, less the mean; asked for at B = 1.
"""


def _no_chance_of(_table: _Table, _weights: Array) -> Chance:
    return lambda W: (np.zeros(len(W)), None)


def _shares(table: _Table) -> Array:
    """Share of each category among the ratings of a unit. (N, q)"""
    return table.counts / table.n_each[:, None]


def _fleiss_chance(table: _Table, w: Array) -> Chance:
    shares = _shares(table)

    def chance(W: Array) -> tuple[Array, Array | None]:
        prevalence = W @ shares / W.sum(axis=1, keepdims=True)
        expected = ((prevalence @ w) * prevalence).sum(axis=1)
        return expected, 2 * (shares @ (w @ prevalence[0]) - expected[0])

    return chance


def _gwet_chance(table: _Table, w: Array) -> Chance:
    shares, q = _shares(table), table.q
    factor = float(w.sum()) / (q * (q - 1)) if q > 1 else np.nan

    def chance(W: Array) -> tuple[Array, Array | None]:
        prevalence = W @ shares / W.sum(axis=1, keepdims=True)
        expected = factor * (prevalence * (1 - prevalence)).sum(axis=1)
        return expected, 2 * (factor * (shares @ (1 - prevalence[0])) - expected[0])

    return chance


def _uniform_chance(table: _Table, w: Array) -> Chance:
    expected = float(w.sum()) / table.q**2 if table.q > 1 else np.nan

    def chance(W: Array) -> tuple[Array, Array | None]:
        return np.full(len(W), expected), None

    return chance


def _conger_chance(table: _Table, w: Array) -> Chance:
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


def _pairwise(table: _Table, w: Array) -> tuple[Array, Array]:
    """Agreement of each unit's pairs, 0 without a pair; and whether there is one. (N,), (N,)"""
    counts, n_each = table.counts, table.n_each
    n_pairs = n_each * (n_each - 1)
    agreeing = (counts * (counts @ w - 1)).sum(axis=1)
    return agreeing / np.maximum(n_pairs, 1), (n_each >= 2).astype(np.float64)


Core = Callable[[Array], Array]
"""`unit weights (B, N) -> coefficient (B,)`, NaN where a resample has none."""


def _core(table: _Table, w: Array, chance_of: Callable[[_Table, Array], Chance]) -> Core:
    agreement, has_pair = _pairwise(table, w)
    chance = chance_of(table, w)

    def core(W: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            observed, (expected, _) = W @ (agreement * has_pair) / (W @ has_pair), chance(W)
            found = (observed - expected) / (1 - expected)
        return np.where(1 - expected > _SMALL, found, np.nan)

    return core


def _kappa_like(
    method: str,
    table: _Table,
    weights: Weights | ArrayLike,
    chance_of: Callable[[_Table, Array], Chance],
    confidence_level: float,
    bootstrap: CaseBootstrap | None,
) -> Agreement:
    _refuse_level(confidence_level)
    w = _weight_matrix(weights, table)

    def nothing(reason: str, observed: float | None = None) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level=confidence_level)
        return _agreement(method, table, none, observed=observed, bootstrap=bootstrap)

    if reason := _not_pairable(table):
        return nothing(reason)
    agreement, has_pair = _pairwise(table, w)
    observed = float(agreement @ has_pair / has_pair.sum())
    found, slope = chance_of(table, w)(np.ones((1, table.n_units)))
    expected = float(found[0])
    if table.q < 2 and chance_of is not _no_chance_of:
        return nothing(
            f"all ratings are {table.categories[0]!r}; declare the other categories of the scale",
            observed,
        )
    if 1 - expected < _SMALL:
        return nothing("all ratings are the same, so chance alone would agree", observed)
    k = (observed - expected) / (1 - expected)
    share = table.n_units / has_pair.sum()
    linear = share * (agreement - expected) * has_pair / (1 - expected) - k
    if slope is not None:
        linear -= (1 - k) * slope / (1 - expected)
    return _agreement(
        method,
        table,
        _linearised(method, k, linear, confidence_level),
        core=_core(table, w, chance_of),
        observed=observed,
        expected=expected,
        bootstrap=bootstrap,
    )


def _linearised(method: str, estimate: float, linear: Array, confidence_level: float) -> Estimate:
    """Interval from each unit's part in the coefficient, t with one degree less than units.

    The upper limit is at most 1, as in irrCAC.
    """
    n = len(linear)
    standard_error = sqrt(float(np.square(linear).sum()) / (n * (n - 1)))
    if standard_error < _SMALL:
        return Estimate.not_estimable(
            method, _NO_VARIANCE, confidence_level=confidence_level, estimate=estimate
        )
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


def _not_pairable(table: _Table) -> str | None:
    if table.n_raters < 2:
        return f"{_of(table.n_raters, 'rater', 'raters')} rated, and agreement needs two"
    n_pairable = int((table.n_each >= 2).sum())
    if n_pairable < 2:
        return f"{_of(n_pairable, 'unit has', 'units have')} two ratings, and it needs two units"
    return None


def _of(n: int, one: str, many: str) -> str:
    return f"{n or 'no'} {one if n == 1 else many}"


def _agreement(
    method: str,
    table: _Table,
    coefficient: Estimate,
    *,
    core: Core | None = None,
    resampled: _Table | None = None,
    observed: float | None = None,
    expected: float | None = None,
    bootstrap: CaseBootstrap | None,
) -> Agreement:
    drawn = coefficient if bootstrap else None
    if bootstrap and core:
        chosen, level = resampled or table, coefficient.confidence_level
        values = _resampled(
            lambda W: core(W)[:, None], _strata_of(bootstrap, chosen), bootstrap, 1, chosen.n_units
        )
        drawn = _percentile(method, coefficient, values[:, 0], chosen.n_units, level)
    return Agreement(
        coefficient=coefficient,
        bootstrap=drawn,
        observed=observed,
        expected=expected,
        n_units=table.n_units,
        n_pairable_units=int((table.n_each >= 2).sum()),
        n_raters=table.n_raters,
        n_ratings=table.n_ratings,
        categories=table.categories,
    )


def _with_null(found: Agreement, variance: float) -> Agreement:
    """With the test of chance, from the variance that the coefficient then has."""
    k = found.coefficient.estimate
    if k is None or variance < _SMALL**2:
        return found
    z = k / sqrt(variance)
    return replace(found, null_standard_error=sqrt(variance), z=z, p_value=2 * float(ndtr(-abs(z))))


# --- Krippendorff's alpha ---------------------------------------------------------------------

_Slopes = Callable[[Array], tuple[Array, Array, Array]]
_Parts = Callable[[Array], tuple[Array, Array, Array, _Slopes]]
"""`unit weights (B, N) -> found, chance, pairable ratings, (B,) each; and slopes`.

found = Σ_u d_u with d_u the unit's squared distances over its ratings less one; chance = the sum
of squared distances over all pairs of ratings. Slopes: `weights (N,) -> derivatives (N,) each` of
pairable ratings, found and chance by the weight of each unit.
"""


def _distance_parts(table: _Table, distances: Array) -> _Parts:
    counts, n_each = table.counts, table.n_each
    within = ((counts @ distances) * counts).sum(axis=1) / (n_each - 1)

    def parts(W: Array) -> tuple[Array, Array, Array, _Slopes]:
        totals = W @ counts

        def slopes(weights: Array) -> tuple[Array, Array, Array]:
            return n_each, within, 2 * (counts @ (distances @ (weights @ counts)))

        return W @ within, ((totals @ distances) * totals).sum(axis=1), W @ n_each, slopes

    return parts


def _interval_parts(table: _Table) -> _Parts:
    present, n_each = table.codes >= 0, table.n_each
    centre = (table.scores[0] + table.scores[-1]) / 2
    x = np.where(present, table.scores[table.codes] - centre, 0.0)
    first, second = x.sum(axis=1), np.square(x).sum(axis=1)
    # About the unit's own mean, where small disagreements on large numbers survive.
    mean = first / n_each
    within = 2 * n_each * np.where(present, (x - mean[:, None]) ** 2, 0).sum(axis=1) / (n_each - 1)

    def parts(W: Array) -> tuple[Array, Array, Array, _Slopes]:
        total, sums, squares = W @ n_each, W @ first, W @ second
        chance = 2 * (total * squares - sums**2)
        chance = np.where(chance > _SMALL * total * squares, chance, 0.0)

        def slopes(weights: Array) -> tuple[Array, Array, Array]:
            total, sums, squares = weights @ n_each, weights @ first, weights @ second
            return n_each, within, 2 * (n_each * squares + total * second - 2 * sums * first)

        return W @ within, chance, total, slopes

    return parts


def _midranks(totals: Array) -> Array:
    """Ranks of categories among all ratings, from how often each occurs. (…, q) -> (…, q)

    The ordinal distance of two categories is the difference of their midranks, squared.
    """
    return np.asarray(np.cumsum(totals, axis=-1) - totals / 2, dtype=np.float64)


def _ordinal_parts(table: _Table) -> _Parts:
    counts, n_each = table.counts, table.n_each
    factor = 2 / (n_each - 1)

    def parts(W: Array) -> tuple[Array, Array, Array, _Slopes]:
        totals, total = W @ counts, W @ n_each
        ranks = _midranks(totals)
        ranks = ranks - total[:, None] / 2
        within = factor * (n_each * (ranks**2 @ counts.T) - (ranks @ counts.T) ** 2)
        squares, sums = (totals * ranks**2).sum(axis=1), (totals * ranks).sum(axis=1)
        chance = 2 * (total * squares - sums**2)
        chance = np.where(chance > _SMALL * total * squares, chance, 0.0)

        def slopes(weights: Array) -> tuple[Array, Array, Array]:
            totals, total = weights @ counts, float(weights @ n_each)
            ranks = _midranks(totals) - total / 2
            first, second = counts @ ranks, counts @ ranks**2
            within = factor * (n_each * second - first**2)
            squares, sums = float(totals @ ranks**2), float(totals @ ranks)
            direct = 2 * (n_each * squares + total * second - 2 * sums * first)
            # Each rating also moves the ranks of all categories above its own.
            by_rank_found = 2 * ((weights * factor * n_each) @ counts) * ranks
            by_rank_found -= 2 * (weights * factor * first) @ counts
            by_rank_chance = 4 * totals * (total * ranks - sums)
            moved = [
                counts @ (np.cumsum(part[::-1])[::-1] - part / 2)
                for part in (by_rank_found, by_rank_chance)
            ]
            return n_each, within + moved[0], direct + moved[1]

        return (W * within).sum(axis=1), chance, total, slopes

    return parts


# --- intraclass correlations ------------------------------------------------------------------


class _MeanSquares(NamedTuple):
    """Analysis of variance of a complete table; numbers, or arrays over resamples."""

    between: Any
    within: Any
    raters: Any
    residual: Any


def _mean_squares(x: Array, W: Array) -> _MeanSquares:
    """For unit weights that sum to N. (N, R), (B, N) -> (B,) each"""
    k, n = x.shape[1], W.sum(axis=1)
    of_units, of_raters = x.mean(axis=1), W @ x / n[:, None]
    grand = of_raters.mean(axis=1)
    between = k * np.maximum(W @ of_units**2 - n * grand**2, 0) / (n - 1)
    inside = W @ np.square(x - of_units[:, None]).sum(axis=1)
    raters = n * np.square(of_raters - grand[:, None]).sum(axis=1)
    residual = np.maximum(inside - raters, 0) / ((n - 1) * (k - 1))
    return _MeanSquares(between, inside / (n * (k - 1)), raters / (k - 1), residual)


def _forms(squares: _MeanSquares, n: int, k: int) -> tuple[Array, ...]:
    """ICC (1,1), (2,1), (3,1), (1,k), (2,k), (3,k); NaN where there is none. (B,) each"""
    msb, msw, msj, mse = (np.asarray(part, dtype=np.float64) for part in squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (
            (msb - msw) / (msb + (k - 1) * msw),
            (msb - mse) / (msb + (k - 1) * mse + k * (msj - mse) / n),
            (msb - mse) / (msb + (k - 1) * mse),
            (msb - msw) / msb,
            (msb - mse) / (msb + (msj - mse) / n),
            (msb - mse) / msb,
        )
    return tuple(np.where(np.isfinite(form), form, np.nan) for form in found)


def _icc_interval(
    name: str, squares: _MeanSquares, n: int, k: int, confidence_level: float
) -> Estimate:
    method, upper = f"ICC({name}), F distribution", 0.5 + confidence_level / 2
    names = ("1,1", "2,1", "3,1", "1,k", "2,k", "3,k")
    values = dict(zip(names, (float(form) for form in _forms(squares, n, k)), strict=True))
    value = values[name]
    if not isfinite(value):
        return Estimate.not_estimable(
            method, "units do not differ in their mean", confidence_level=confidence_level
        )
    if name[0] == "2":
        limits = _icc_2_limits(squares, values["2,1"], n, k, upper)
    else:
        limits = _icc_limits(squares, name[0], n, k, upper)
    if isinstance(limits, tuple) and name[-1] == "k":
        # Spearman–Brown, from one rating to the mean of k.
        bottoms = [1 + (k - 1) * limit for limit in limits]
        if min(bottoms) > _SMALL:
            limits = k * limits[0] / bottoms[0], k * limits[1] / bottoms[1]
        else:
            limits = "the lower limit of one rating is below −1 / (k − 1), where a mean has none"
    if isinstance(limits, str):
        return Estimate.not_estimable(
            method, limits, confidence_level=confidence_level, estimate=value
        )
    return Estimate(
        estimate=value,
        ci_low=limits[0],
        ci_high=limits[1],
        confidence_level=confidence_level,
        method=method,
    )


def _icc_limits(
    squares: _MeanSquares, case: str, n: int, k: int, upper: float
) -> tuple[float, float] | str:
    """Limits of ICC(1,1) or ICC(3,1), or why there are none."""
    error, df2 = (
        (squares.within, n * (k - 1)) if case == "1" else (squares.residual, (n - 1) * (k - 1))
    )
    if error == 0:
        return "raters do not differ on any unit, so there is no error to measure by"
    if squares.between == 0:
        return "units do not differ in their mean"
    ratio = squares.between / error
    low = ratio / float(fisher_f.ppf(upper, n - 1, df2))
    high = ratio * float(fisher_f.ppf(upper, df2, n - 1))
    return (low - 1) / (low + k - 1), (high - 1) / (high + k - 1)


def _icc_2_limits(
    squares: _MeanSquares, icc: float, n: int, k: int, upper: float
) -> tuple[float, float] | str:
    """Limits of ICC(2,1), with Satterthwaite's degrees of freedom, or why there are none."""
    msb, _, msj, mse = squares
    if mse == 0 or not isfinite(icc):
        return "there is no residual variance to measure by"
    by_raters, rest = k * icc * msj / mse, n * (1 + (k - 1) * icc) - k * icc
    bottom, error = (n - 1) * by_raters**2 + rest**2, k * msj + (k * n - k - n) * mse
    df = (n - 1) * (k - 1) * (by_raters + rest) ** 2 / bottom if bottom else 0.0
    if df < _SMALL or error <= 0:
        return "too few units for its approximate degrees of freedom"
    above, below = float(fisher_f.ppf(upper, n - 1, df)), float(fisher_f.ppf(upper, df, n - 1))
    if not (isfinite(above) and isfinite(below)):
        return "too few units for its approximate degrees of freedom"
    low = n * (msb - above * mse) / (above * error + n * msb)
    return low, n * (below * msb - mse) / (error + n * below * msb)


# --- bootstrap over units ---------------------------------------------------------------------


def _strata_of(bootstrap: CaseBootstrap, table: _Table) -> ArrayLike | None:
    if bootstrap.strata is None:
        return None
    strata = np.asarray(bootstrap.strata)
    if strata.shape != (table.n_rows,):
        raise AgreementError(
            f"strata of shape {strata.shape} do not fit {table.n_rows} rows; give one for each."
        )
    return np.asarray(strata[table.rows])


def _resampled(
    core: Callable[[Array], Array],
    strata: ArrayLike | None,
    bootstrap: CaseBootstrap,
    width: int,
    n_units: int,
) -> Array:
    """Values of `core` on resamples of units, a few resamples at a time. (B, width)"""
    if bootstrap.n_resamples < FEWEST_RESAMPLES:
        raise AgreementError(
            f"n_resamples={bootstrap.n_resamples} says nothing about tails; give 2000 or more, "
            f"and never fewer than {FEWEST_RESAMPLES}."
        )
    values, step = np.empty((bootstrap.n_resamples, width)), max(1, 2_000_000 // n_units)
    for start in range(0, bootstrap.n_resamples, step):
        size = min(step, bootstrap.n_resamples - start)
        weights = resampling_weights(n_units, size, bootstrap.rng, strata)
        values[start : start + size] = core(weights.astype(np.float64))
    return values


def _percentile(
    method: str, plain: Estimate, values: Array, n_units: int, confidence_level: float
) -> Estimate:
    """Expanded percentile interval: tails as far out as t with n − 1 degrees of freedom is wider.

    Source: Hesterberg (2015), The American Statistician 69:371–386.
    """
    if plain.estimate is None:
        return plain
    method += f", expanded percentile bootstrap of {len(values):,} resamples of units"
    usable = values[np.isfinite(values)]
    wide = float(student_t.ppf(0.5 - confidence_level / 2, n_units - 1))
    tail = float(ndtr(wide * sqrt(n_units / (n_units - 1))))
    reason = None
    if len(usable) < 0.95 * len(values):
        reason = f"{1 - len(usable) / len(values):.0%} of the resamples have no value"
    elif np.ptp(usable) < _SMALL:
        reason = "all resamples are alike, which is no sign of certainty"
    if reason:
        return Estimate.not_estimable(
            method, reason, confidence_level=confidence_level, estimate=plain.estimate
        )
    low, high = (float(limit) for limit in np.quantile(usable, [tail, 1 - tail]))
    return Estimate(
        estimate=plain.estimate,
        ci_low=low,
        ci_high=high,
        standard_error=float(usable.std(ddof=1)),
        confidence_level=confidence_level,
        method=method,
    )


# --- readers against themselves ---------------------------------------------------------------


def _no_repeats(bootstrap: CaseBootstrap | None, confidence_level: float) -> Consistency:
    percent, kappa = (
        Estimate.not_estimable(
            name, "no reader was shown a case twice", confidence_level=confidence_level
        )
        for name in (_PERCENT, _KAPPA)
    )
    return Consistency(
        percent=percent,
        percent_bootstrap=percent if bootstrap else None,
        kappa=kappa,
        kappa_bootstrap=kappa if bootstrap else None,
        readers=(),
        n_cases=0,
        n_repeated=0,
        n_pairs=0,
    )


def _case_strata(
    bootstrap: CaseBootstrap | None, cases: NDArray[Any], rows: Codes
) -> NDArray[Any] | None:
    """Stratum of each repeated case, cases as sorted. (n_cases,)"""
    if bootstrap is None or bootstrap.strata is None:
        return None
    strata = np.asarray(bootstrap.strata).astype(str)
    if strata.shape != cases.shape:
        raise AgreementError(
            f"strata of shape {strata.shape} do not fit {len(cases)} judgements; give one for each."
        )
    kinds = pd.Series(strata).groupby(cases).nunique()
    if (kinds > 1).any():
        raise AgreementError(f"case {kinds.idxmax()} is in two strata; a case has one kind.")
    return np.asarray(strata[rows[np.unique(cases[rows], return_index=True)[1]]])


def _reader_consistency(name: str, part: _Table, confidence_level: float) -> ReaderConsistency:
    n_equal, n_pairs = _equal_pairs(part)
    if (n_pairs == 1).all():
        one = wilson(int(n_equal.sum()), part.n_units, confidence_level=confidence_level)
        percent = Estimate(
            estimate=one.estimate,
            ci_low=one.ci_low,
            ci_high=one.ci_high,
            confidence_level=confidence_level,
            method=f"{_PERCENT}, Wilson interval",
        )
    else:
        percent = _clustered_percent(n_equal, n_pairs, confidence_level)
    kappa = _kappa_like(_KAPPA, part, "identity", _conger_chance, confidence_level, None)
    return ReaderConsistency(
        reader=name,
        n_cases=part.n_units,
        n_pairs=int(n_pairs.sum()),
        percent=percent,
        kappa=kappa.coefficient,
    )


def _equal_pairs(table: _Table) -> tuple[Array, Array]:
    """Equal pairs of judgements and all pairs, for each unit. (N,), (N,)"""
    counts, n_each = table.counts, table.n_each
    return (counts * (counts - 1)).sum(axis=1) / 2, n_each * (n_each - 1) / 2


def _clustered_percent(n_equal: Array, n_pairs: Array, confidence_level: float) -> Estimate:
    found = rao_scott_wilson(
        n_equal, n_pairs, with_t_quantile=True, confidence_level=confidence_level
    ).proportion
    return replace(found, method=f"{_PERCENT}, clustered by case: {found.method}")


def _pooled_kappa(
    agreement: Array, expected: Array, slope: Array, case_of: Codes, confidence_level: float
) -> Estimate:
    """Kappa with the chance of each repeated case's own reader, clustered by case. (N,) each"""
    n_units, n_cases = len(agreement), int(case_of.max()) + 1
    observed, by_chance = float(agreement.mean()), float(expected.mean())
    reason = "only one case was repeated" if n_cases < 2 else None
    if 1 - by_chance < _SMALL:
        reason = "no reader used more than one answer, so chance alone would agree"
    if reason:
        return Estimate.not_estimable(_KAPPA, reason, confidence_level=confidence_level)
    k = (observed - by_chance) / (1 - by_chance)
    each = (agreement - observed - (1 - k) * (expected - by_chance + slope)) / (1 - by_chance)
    linear = np.bincount(case_of, each, n_cases) * n_cases / n_units
    found = _linearised(_KAPPA, k, linear, confidence_level)
    return replace(found, method=f"{_KAPPA}, standard error clustered by case")
