"""Krippendorff's alpha: one minus the disagreement found over that expected by chance.

Shapes: N units, R raters, q categories, B resamples.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.agreement import linearised, why_not_pairable
from studies.estimate import Estimate, check_level
from studies.ratings import (
    SMALL,
    Agreement,
    AgreementError,
    CaseBootstrap,
    RatingTable,
    agreement_of,
    coded,
)

Array = NDArray[np.float64]

Scale = Literal["nominal", "ordinal", "interval", "ratio"]


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
    whole = coded(
        ratings,
        categories,
        needs_order=name == "ordinal",
        needs_numbers=name if name in ("interval", "ratio") else None,
        is_measured=name == "interval",
    )
    check_level(confidence_level, AgreementError)
    distances = None if name in ("ordinal", "interval") else _distances(scale, whole)

    def nothing(reason: str) -> Agreement:
        none = Estimate.not_estimable(method, reason, confidence_level)
        return agreement_of(method, whole, none, bootstrap=bootstrap)

    if reason := why_not_pairable(whole):
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
    return agreement_of(
        method,
        whole,
        linearised(method, alpha, linear * table.n_units, confidence_level),
        core=core,
        resampled=table,
        observed=1 - found_all / total / largest,
        expected=1 - chance_all / (total * (total - 1)) / largest,
        bootstrap=bootstrap,
    )


def _distances(scale: Scale | ArrayLike, table: RatingTable) -> Array:
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


_Slopes = Callable[[Array], tuple[Array, Array, Array]]
_Parts = Callable[[Array], tuple[Array, Array, Array, _Slopes]]
"""`unit weights (B, N) -> found, chance, pairable ratings, (B,) each; and slopes`.

found = Σ_u d_u with d_u the unit's squared distances over its ratings less one; chance = the sum
of squared distances over all pairs of ratings. Slopes: `weights (N,) -> derivatives (N,) each` of
pairable ratings, found and chance by the weight of each unit.
"""


def _distance_parts(table: RatingTable, distances: Array) -> _Parts:
    counts, n_each = table.counts, table.n_each
    within = ((counts @ distances) * counts).sum(axis=1) / (n_each - 1)

    def parts(W: Array) -> tuple[Array, Array, Array, _Slopes]:
        totals = W @ counts

        def slopes(weights: Array) -> tuple[Array, Array, Array]:
            return n_each, within, 2 * (counts @ (distances @ (weights @ counts)))

        return W @ within, ((totals @ distances) * totals).sum(axis=1), W @ n_each, slopes

    return parts


def _interval_parts(table: RatingTable) -> _Parts:
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
        chance = np.where(chance > SMALL * total * squares, chance, 0.0)

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


def _ordinal_parts(table: RatingTable) -> _Parts:
    counts, n_each = table.counts, table.n_each
    factor = 2 / (n_each - 1)

    def parts(W: Array) -> tuple[Array, Array, Array, _Slopes]:
        totals, total = W @ counts, W @ n_each
        ranks = _midranks(totals)
        ranks = ranks - total[:, None] / 2
        within = factor * (n_each * (ranks**2 @ counts.T) - (ranks @ counts.T) ** 2)
        squares, sums = (totals * ranks**2).sum(axis=1), (totals * ranks).sum(axis=1)
        chance = 2 * (total * squares - sums**2)
        chance = np.where(chance > SMALL * total * squares, chance, 0.0)

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
