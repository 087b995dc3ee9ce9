"""Gallas' one-shot analysis of readers and cases by U-statistics, which needs no complete table.

T modalities, R readers, N cases (N₁ positive, N₀ negative). Tables are (T, R, N), or (R, N) for one
modality; NaN marks a case that the reader did not read. What is missing must be missing for reasons
that have nothing to do with the answer (by design or by accident, not because the case was hard).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.estimate import Estimate, check_level
from studies.mrmc import (
    MrmcError,
    against_zero,
    cautions_of_size,
    design_effect_of,
    estimate_of,
)
from studies.reader_figures import (
    checked_answers,
    checked_ratings,
    n_read_by_each,
    products_of_distinct_pairs,
    reader_placements,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class UStatistic:
    """A mean over all readings, or the difference of two, by U-statistics."""

    modalities: tuple[int, ...]
    """One, or the two of a difference, from 0."""
    estimate: Estimate
    unbiased_variance: float
    """Gallas' estimate as published. It can be negative, and is not used where readings are
    missing: see `u_statistics_percent_correct`."""
    statistic: float | None
    p_value: float | None
    """Of no difference, two-sided; None for one modality."""
    design_effect: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UStatistics:
    """Gallas' one-shot analysis for random readers and random cases."""

    method: str
    n_readers: int
    n_readings: tuple[int, ...]
    """Readings of each modality (pairs of a positive and a negative reading for the AUC)."""
    means: tuple[UStatistic, ...]
    differences: tuple[UStatistic, ...]
    cautions: tuple[str, ...]


def u_statistics_percent_correct(
    correct: ArrayLike, *, confidence_level: float = 0.95
) -> UStatistics:
    """Percent correct over all readings, for other readers and other cases, any design.

    The estimate is the share of right answers among all readings, so readers count by how much they
    read. Its variance is its square less an estimate of the squared expectation, from pairs of
    readings that share neither reader nor case. For complete tables this is the variance of
    Obuchowski & Rockette with unbiased covariances, exactly.

    Where readings are missing, that variance is unbiased but depends on the level of the answers:
    with loads between 20 and 100 cases it was negative in a quarter of simulated studies. So the
    pairs are taken of answers less their mean, which for complete tables changes nothing. As in
    Obuchowski & Rockette, the variance is not allowed below the readers' mean square over R.

    Degrees of freedom: Satterthwaite's, from the mean squares of readers and of cases, and not
    fewer than the smallest of theirs.

    Args:
        correct: whether each reader was right about each case; NaN where not read. (T, R, N)

    Raises:
        MrmcError: for values other than 0 and 1, or fewer than 2 readers or cases in a modality.

    Source: Gallas (2006); any design: Gallas & Brown (2008); degrees of freedom: Obuchowski, Gallas
    & Hillis (2012), Gaylor & Hopper (1969).
    """
    table = checked_answers(correct, refuse_sparse=False)
    read, right = (~np.isnan(table)).astype(np.float64), np.nan_to_num(table)

    def over_distinct(one: Array, other: Array) -> Array:
        """Σ over two readings that share neither reader nor case. (T, T)"""
        pairs = np.multiply.outer(one.sum(axis=(1, 2)), other.sum(axis=(1, 2)))
        for shared in (1, 2):  # those of one case go, and those of one reader,
            pairs -= one.sum(axis=shared) @ other.sum(axis=shared).T
        return np.asarray(pairs + np.einsum("trn,urn->tu", one, other))  # and both went twice

    n_right, n_read = right.sum(axis=(1, 2)), read.sum(axis=(1, 2))
    return _u_statistics(
        "percent correct",
        means=n_right / n_read,
        products=over_distinct(right, right),
        half_products=over_distinct(right, read),
        counts=over_distinct(read, read),
        factors=[
            _Factor.of(right.sum(axis=2), read.sum(axis=2), "readers"),
            _Factor.of(right.sum(axis=1), read.sum(axis=1), "cases"),
        ],
        independent_variance=n_right * (n_read - n_right) / n_read**3,
        fewest_cases=int(n_read_by_each(table)[n_read_by_each(table) > 0].min()),
        confidence_level=confidence_level,
    )


def u_statistics_auc(
    positive: ArrayLike, negative: ArrayLike, *, confidence_level: float = 0.95
) -> UStatistics:
    """Empirical AUC over all pairs of a reader's readings, for other readers and cases, any design.

    As `u_statistics_percent_correct`; a reader counts by the number of pairs read. For complete
    tables it is Obuchowski & Rockette with unbiased covariances, exactly.

    Args:
        positive: ratings of the positive cases, higher for surer; NaN where not read. (T, R, N₁)
        negative: ratings of the negative cases. (T, R, N₀)

    Raises:
        MrmcError: as there, and for tables that do not fit together.
    """
    positive, negative = checked_ratings(positive, negative, refuse_sparse=False)
    aucs, of_positive, of_negative = reader_placements(positive, negative)
    n_positive, n_negative = n_read_by_each(positive), n_read_by_each(negative)
    n_pairs = (n_positive * n_negative).astype(np.float64)
    factors = [_Factor.of(aucs * n_pairs, n_pairs, "readers")]
    for ratings, placements, n_opposite, what in (
        (positive, of_positive, n_negative, "positive cases"),
        (negative, of_negative, n_positive, "negative cases"),
    ):
        weights = np.where(np.isnan(ratings), 0.0, n_opposite[..., None])
        sums = (np.nan_to_num(placements) * weights).sum(axis=1)
        factors.append(_Factor.of(sums, weights.sum(axis=1), what))
    means = (aucs * n_pairs).sum(axis=1) / n_pairs.sum(axis=1)

    is_complete = not (np.isnan(positive).any() or np.isnan(negative).any())
    if is_complete:
        products, counts = products_of_distinct_pairs(positive, negative)
        half_products = means[:, None, None, None] * counts
    else:
        # Beside each reader one who read the same and is always right: products with him are sums.
        ideal = [
            np.concatenate([table, np.where(np.isnan(table), np.nan, rating)], axis=1)
            for table, rating in ((positive, 1.0), (negative, 0.0))
        ]
        both, all_counts = products_of_distinct_pairs(*ideal)
        n = aucs.shape[1]
        products, half_products = both[:, :n, :, :n], both[:, :n, :, n:]
        counts = all_counts[:, :n, :, :n]

    own = [np.einsum("trtr->tr", one) for one in (products, counts)]
    variances = aucs**2 - own[0] / np.maximum(own[1], 1)
    shares = n_pairs / n_pairs.sum(axis=1, keepdims=True)
    return _u_statistics(
        "AUC",
        means=means,
        products=_over_other_readers(products),
        half_products=_over_other_readers(half_products),
        counts=_over_other_readers(counts),
        factors=factors,
        independent_variance=(shares**2 * variances).sum(axis=1),
        fewest_cases=int(np.minimum(n_positive, n_negative)[n_pairs > 0].min()),
        confidence_level=confidence_level,
    )


def _over_other_readers(pairs: Array) -> Array:
    """Σ over two different readers. (T, R, T, R) → (T, T)"""
    return np.asarray(pairs.sum(axis=(1, 3)) - np.einsum("trur->tu", pairs))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Factor:
    """Readers, or cases of a class: sums and numbers of the readings of each. (T, levels)"""

    sums: Array
    counts: Array

    @staticmethod
    def of(sums: Array, counts: Array, name: str) -> "_Factor":
        n_levels = (counts > 0).sum(axis=1)
        if (fewest := int(n_levels.min())) < 2:
            raise MrmcError(
                f"modality {int(n_levels.argmin()) + 1} has readings of {fewest} {name}; of other "
                f"{name} something can be said from 2, so add some, or keep to fixed readers."
            )
        return _Factor(sums=sums, counts=counts)

    def mean_square(self, weights: Array, means: Array) -> tuple[float, float]:
        """What its mean square adds to the variance of Σ weights · means, and its df.

        For readers with equal loads: MS(R) / R and R − 1.
        """
        shares = self.counts / self.counts.sum(axis=1, keepdims=True)
        totals = self.counts.sum(axis=1, keepdims=True)
        influence = weights @ (self.sums / totals - means[:, None] * shares)
        concentration = float((shares**2).sum(axis=1) @ np.abs(weights) / np.abs(weights).sum())
        return float((influence**2).sum()) / (1 - concentration), 1 / concentration - 1


def _u_statistics(
    name: str,
    *,
    means: Array,
    products: Array,
    half_products: Array,
    counts: Array,
    factors: list[_Factor],
    independent_variance: Array,
    fewest_cases: int,
    confidence_level: float,
) -> UStatistics:
    """From sums over two readings that share nothing: of products, of the first alone, of 1."""
    check_level(confidence_level, MrmcError)
    method = f"U-statistics for {name}, random readers and cases"
    # Two readers and two cases of each class leave some pairs of readings that share nothing; two
    # modalities may leave none, and a single reading each, of which no covariance can be known.
    squares, some = np.multiply.outer(means, means), np.maximum(counts, 1)
    unbiased = np.where(counts > 0, squares - products / some, 0.0)
    centred = products - half_products * means - (half_products * means).T + squares * counts
    covariance = -centred / some

    def statistic(*modalities: int) -> UStatistic:
        weights = np.zeros(len(means))
        weights[list(modalities)] = [1.0, -1.0][: len(modalities)]
        shares = [factor.mean_square(weights, means) for factor in factors]
        variance = max(float(weights @ covariance @ weights), shares[0][0])
        taken = sum(share**2 / df for share, df in shares)
        df = max(variance**2 / taken, min(df for _, df in shares)) if taken else None
        estimate = estimate_of(float(weights @ means), variance, df, method, confidence_level)
        t, p_value = against_zero(estimate) if len(modalities) > 1 else (None, None)
        return UStatistic(
            modalities=modalities,
            estimate=estimate,
            unbiased_variance=float(weights @ unbiased @ weights),
            statistic=t,
            p_value=p_value,
            design_effect=design_effect_of(estimate, float(np.abs(weights) @ independent_variance)),
        )

    n_readers = int((factors[0].counts > 0).any(axis=0).sum())
    return UStatistics(
        method=method,
        n_readers=n_readers,
        n_readings=tuple(int(n) for n in factors[0].counts.sum(axis=1)),
        means=tuple(statistic(modality) for modality in range(len(means))),
        differences=tuple(statistic(*pair) for pair in combinations(range(len(means)), 2)),
        cautions=tuple(cautions_of_size(fewest_cases, n_readers)),
    )
