"""Intraclass correlations: how much of the variance of numeric ratings is that of the units.

Shapes: N units, R raters (k in the formulas), B resamples.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as fisher_f

from studies.agreement import number_of
from studies.estimate import Estimate, check_level
from studies.ratings import (
    SMALL,
    AgreementError,
    CaseBootstrap,
    coded,
    percentile_interval,
    resampled_values,
    strata_of,
)

Array = NDArray[np.float64]


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
    whole = coded(
        ratings,
        None,
        needs_order=False,
        needs_numbers="intraclass correlation",
        is_measured=True,
        keep_raters=True,
    )
    check_level(confidence_level, AgreementError)
    table = whole.take(whole.is_complete)
    n, k = table.codes.shape
    reason, squares = None, _MeanSquares(0.0, 0.0, 0.0, 0.0)
    if k < 2:
        reason = f"{number_of(k, 'rater', 'raters')} rated, and agreement needs two"
    elif n < 2:
        reason = f"{number_of(n, 'unit has', 'units have')} all ratings, and it needs two units"
    else:
        # Sums of squares would otherwise drown in the square of a large mean.
        x = table.scores[table.codes] - table.scores[table.codes].mean()
        total = float(np.square(x).sum())
        found = _mean_squares(x, np.ones((1, n)))
        # What rounding leaves of a mean square that is 0.
        squares = _MeanSquares(
            *(0.0 if part[0] < SMALL * total else float(part[0]) for part in found)
        )
        reason = None if total > 0 else "all ratings are the same"
    draws = None
    if bootstrap and not reason:
        draws = resampled_values(
            lambda W: np.stack(_forms(_mean_squares(x, W), n, k), axis=1),
            strata_of(bootstrap, table),
            bootstrap,
            6,
            n,
        )
    forms = []
    for position, name in enumerate(("1,1", "2,1", "3,1", "1,k", "2,k", "3,k")):
        method = f"ICC({name})"
        if reason:
            one = Estimate.not_estimable(method, reason, confidence_level)
        else:
            one = _icc_interval(name, squares, n, k, confidence_level)
        drawn = one if bootstrap else None
        if draws is not None:
            drawn = percentile_interval(method, one, draws[:, position], n, confidence_level)
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
        return Estimate.not_estimable(method, "units do not differ in their mean", confidence_level)
    if name[0] == "2":
        limits = _icc_2_limits(squares, values["2,1"], n, k, upper)
    else:
        limits = _icc_limits(squares, name[0], n, k, upper)
    if isinstance(limits, tuple) and name[-1] == "k":
        # Spearman–Brown, from one rating to the mean of k.
        bottoms = [1 + (k - 1) * limit for limit in limits]
        if min(bottoms) > SMALL:
            limits = k * limits[0] / bottoms[0], k * limits[1] / bottoms[1]
        else:
            limits = "the lower limit of one rating is below −1 / (k − 1), where a mean has none"
    if isinstance(limits, str):
        return Estimate.not_estimable(method, limits, confidence_level, value)
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
    if df < SMALL or error <= 0:
        return "too few units for its approximate degrees of freedom"
    above, below = float(fisher_f.ppf(upper, n - 1, df)), float(fisher_f.ppf(upper, df, n - 1))
    if not (isfinite(above) and isfinite(below)):
        return "too few units for its approximate degrees of freedom"
    low = n * (msb - above * mse) / (above * error + n * msb)
    return low, n * (below * msb - mse) / (error + n * below * msb)
