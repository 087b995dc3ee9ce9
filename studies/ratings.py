"""One table of ratings, units × raters: its categories, its weights, and resamples of its units.

Cells may be missing: NaN, None or NA. Categories are those that occur, or those declared.

Shapes: N units, R raters, q categories, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from studies.bootstrap import check_resamples, expanded_percentiles, resampling_weights
from studies.estimate import Estimate

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

MOST_CATEGORIES = 1000
"""More distinct ratings are measurements; `krippendorff_alpha` on the interval scale takes them."""
SMALL = 1e-12


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


@dataclass(frozen=True, slots=True, eq=False)
class RatingTable:
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
        """How many categories there are."""
        return len(self.categories)

    @property
    def n_units(self) -> int:
        """Units with at least one rating."""
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
        """Cells that are not missing."""
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

    def take(self, chosen: NDArray[np.bool_]) -> "RatingTable":
        """The chosen units. (N,)"""
        return replace(self, codes=self.codes[chosen], rows=self.rows[chosen])

    def without_empty_columns(self) -> "RatingTable":
        """The raters who rated some unit."""
        return replace(self, codes=self.codes[:, (self.codes >= 0).any(axis=0)])


def as_cells(ratings: ArrayLike) -> NDArray[Any]:
    """Ratings as an array of numbers, or of objects."""
    cells = np.asarray(ratings) if isinstance(ratings, np.ndarray | pd.DataFrame) else None
    if cells is None or cells.dtype.kind not in "biuf":
        cells = np.asarray(ratings, dtype=object)
    return cells


def coded(
    ratings: ArrayLike,
    categories: Sequence[Any] | None,
    *,
    needs_order: bool,
    needs_numbers: str | None = None,
    is_measured: bool = False,
    keep_raters: bool = False,
) -> RatingTable:
    """The table as numbers of categories.

    Args:
        ratings: numbers or texts. (N, R)
        categories: all that the scale offers, in order; those that occur where None.
        needs_order: texts then need `categories`, which alone tell their order.
        needs_numbers: what refuses texts, for the message; "ratio" refuses negative numbers too.
        is_measured: more than `MOST_CATEGORIES` different ratings are then no mistake.
        keep_raters: keep the columns of raters without a rating.
    """
    cells = as_cells(ratings)
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
    return RatingTable(codes[rows][:, used], shown, scores.astype(np.float64), rows, cells.shape[0])


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


def strata_of(bootstrap: CaseBootstrap, table: RatingTable) -> ArrayLike | None:
    """Stratum of each unit of the table. (N,)"""
    if bootstrap.strata is None:
        return None
    strata = np.asarray(bootstrap.strata)
    if strata.shape != (table.n_rows,):
        raise AgreementError(
            f"strata of shape {strata.shape} do not fit {table.n_rows} rows; give one for each."
        )
    return np.asarray(strata[table.rows])


def resampled_values(
    core: Callable[[Array], Array],
    strata: ArrayLike | None,
    bootstrap: CaseBootstrap,
    width: int,
    n_units: int,
) -> Array:
    """Values of `core` on resamples of units, a few resamples at a time. (B, width)"""
    check_resamples(bootstrap.n_resamples, AgreementError)
    values, step = np.empty((bootstrap.n_resamples, width)), max(1, 2_000_000 // n_units)
    for start in range(0, bootstrap.n_resamples, step):
        size = min(step, bootstrap.n_resamples - start)
        weights = resampling_weights(n_units, size, bootstrap.rng, strata)
        values[start : start + size] = core(weights.astype(np.float64))
    return values


def percentile_interval(
    method: str, plain: Estimate, values: Array, n_units: int, confidence_level: float
) -> Estimate:
    """The estimate with an expanded percentile interval, from `values` of it on resamples. (B,)"""
    if plain.estimate is None:
        return plain
    method += f", expanded percentile bootstrap of {len(values):,} resamples of units"
    usable = values[np.isfinite(values)]
    reason = None
    if len(usable) < 0.95 * len(values):
        reason = f"{1 - len(usable) / len(values):.0%} of the resamples have no value"
    elif np.ptp(usable) < SMALL:
        reason = "all resamples are alike, which is no sign of certainty"
    if reason:
        return Estimate.not_estimable(method, reason, confidence_level, plain.estimate)
    low, high = expanded_percentiles(usable, n_units, confidence_level)
    return Estimate(
        estimate=plain.estimate,
        ci_low=low,
        ci_high=high,
        standard_error=float(usable.std(ddof=1)),
        confidence_level=confidence_level,
        method=method,
    )


Core = Callable[[Array], Array]
"""`unit weights (B, N) -> coefficient (B,)`, NaN where a resample has none."""


def agreement_of(
    method: str,
    table: RatingTable,
    coefficient: Estimate,
    *,
    core: Core | None = None,
    resampled: RatingTable | None = None,
    observed: float | None = None,
    expected: float | None = None,
    bootstrap: CaseBootstrap | None,
) -> Agreement:
    """A coefficient with its bootstrap interval, over the units of `resampled` if that is given."""
    drawn = coefficient if bootstrap else None
    if bootstrap and core:
        chosen, level = resampled or table, coefficient.confidence_level
        values = resampled_values(
            lambda W: core(W)[:, None], strata_of(bootstrap, chosen), bootstrap, 1, chosen.n_units
        )
        drawn = percentile_interval(method, coefficient, values[:, 0], chosen.n_units, level)
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
