"""Many readers, many cases (MRMC): a figure of merit with an interval for other readers and cases.

In two steps. First each reader's figure in each modality, with the covariances that come of reading
the same cases (`ReaderFigures`): percent correct, empirical AUC, or any other by the jackknife.
Then the analysis of variance of Obuchowski and Rockette, for random readers and cases, for these
readers only, for these cases only, or for readers in groups that read different cases. Beside it
Gallas' U-statistics, which need no complete table.

T modalities, R readers, N cases (N₁ positive, N₀ negative). Tables are (T, R, N), or (R, N) for one
modality; NaN marks a case that the reader did not read. What is missing must be missing for reasons
that have nothing to do with the answer (by design or by accident, not because the case was hard).

Sources: Obuchowski & Rockette (1995); Hillis (2007, 2014); DeLong et al. (1988); Gallas (2006);
Gallas & Brown (2008); Obuchowski, Gallas & Hillis (2012). Checked against OR-DBM MRMC 2.51 and
MRMCaov on the Van Dyke readings.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, fdtrc, ndtr, ndtri, stdtr, stdtrit

from studies.crossed import FEWEST_READERS
from studies.estimate import Estimate

Array = NDArray[np.float64]

FEWEST_CASES = 10
"""Below this, in any class that a reader read, the normal theory of the methods is strained."""

_NO_VARIANCE = 1e-15
_BLOCK = 1 << 22
"""Numbers held at once where all pairs of cases are compared; also keeps float32 sums exact."""


class MrmcError(ValueError):
    """Readings from which the asked analysis cannot be made, with what to do instead."""


# ------------------------------------------------------------------------------ figures of merit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReaderFigures:
    """Figures of merit of all readers, and how they vary together over samples of cases."""

    name: str
    """Such as "AUC"."""
    covariance_method: str
    """Such as "jackknife"."""
    values: Array
    """(T, R)"""
    covariance: Array
    """Error covariance: over samples of cases, for fixed readers. (T, R, T, R)"""
    independent_variance: Array
    """Variance of each modality's mean if no two readings had a reader or a case in common: the
    denominator of the design effect. (T,)"""
    n_shared_cases: NDArray[np.int64]
    """How many cases two readers have both read. (T, R, T, R)"""
    fewest_cases: int
    """Cases in the smallest class that any reader read."""


def percent_correct_jackknife(correct: ArrayLike) -> ReaderFigures:
    """Percent correct with jackknife covariances: all cases of the study left out one by one.

    For complete tables this is the unbiased covariance too. With cases that some did not read it is
    larger by (1 − 1/N) / (1 − 1/N_r), N_r the cases of one reader and N all of them.

    Args:
        correct: whether each reader was right about each case; NaN where not read. (T, R, N)

    Raises:
        MrmcError: for values other than 0 and 1, or a reader with fewer than 2 cases.
    """
    table = _answers(correct)
    values, residuals, n_read = _centred(table)
    deviations = residuals / (n_read - 1)[..., None]
    n_cases = _n_read_by_anyone(table)
    covariance = _products(deviations) * (n_cases - 1) / n_cases
    return _percent_correct(table, values, covariance, "jackknife")


def percent_correct_unbiased(correct: ArrayLike) -> ReaderFigures:
    """Percent correct with unbiased covariances, whatever cases the readers have in common.

    For complete tables they are Gallas' (2006). Where readings are missing they are of residuals,
    not of raw moments, which would depend on the level of the answers.

    Args and raises: as `percent_correct_jackknife`.
    """
    table = _answers(correct)
    values, _, _ = _centred(table)
    return _percent_correct(table, values, _unbiased_covariance_of_means(table), "unbiased")


def percent_correct_stratified(correct: ArrayLike, strata: ArrayLike) -> ReaderFigures:
    """Percent correct when the number of cases of each kind was fixed by design.

    The share of a kind is then known and adds no variance, so the interval is narrower than that of
    a single sample where readers do better on one kind. Each kind counts by its share of cases.

    Args:
        correct: as in `percent_correct_jackknife`. (T, R, N)
        strata: the kind of each case, such as whether it is generated. (N,)

    Raises:
        MrmcError: also for a kind of which a reader read fewer than 2 cases.
    """
    table, kinds = _answers(correct), np.asarray(strata)
    if kinds.shape != table.shape[-1:]:
        raise MrmcError(
            f"strata have shape {kinds.shape} for {table.shape[-1]} cases; name one kind for each."
        )
    values: Array = np.zeros(table.shape[:2])
    covariance: Array = np.zeros(table.shape[:2] * 2)
    for kind in np.unique(kinds):
        share = float((kinds == kind).mean())
        part = table[..., kinds == kind]
        _refuse_sparse_cells(part, f" of kind {kind}")
        values += share * _centred(part)[0]
        covariance += share**2 * _unbiased_covariance_of_means(part)
    return _percent_correct(table, values, covariance, "unbiased, stratified")


def auc_jackknife(positive: ArrayLike, negative: ArrayLike) -> ReaderFigures:
    """Empirical AUC with jackknife covariances: all cases left out one by one, in closed form.

    Args:
        positive: ratings of the positive cases, higher for surer; NaN where not read. (T, R, N₁)
        negative: ratings of the negative cases. (T, R, N₀)

    Raises:
        MrmcError: for tables that do not fit together, ratings that are not finite, or a reader
            with fewer than 2 cases of a class.
    """
    positive, negative = _ratings(positive, negative)
    aucs, of_positive, of_negative = _placements(positive, negative)
    n_cases = _n_read_by_anyone(positive) + _n_read_by_anyone(negative)
    # Without case i the AUC is (n AUC − placement) / (n − 1), n the cases of its class.
    left_out = [
        (placements - aucs[..., None]) / (_n_read(ratings) - 1)[..., None]
        for ratings, placements in ((positive, of_positive), (negative, of_negative))
    ]
    covariance = _products(np.nan_to_num(np.concatenate(left_out, axis=-1)))
    covariance *= (n_cases - 1) / n_cases
    return _auc(positive, negative, aucs, covariance, "jackknife")


def auc_delong(positive: ArrayLike, negative: ArrayLike) -> ReaderFigures:
    """Empirical AUC with the covariances of DeLong, DeLong & Clarke-Pearson (1988), by ranks.

    Args and raises: as `auc_jackknife`; also refuses tables that are not complete.
    """
    positive, negative = _ratings(positive, negative)
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise MrmcError(
            "DeLong covariances need every reader to have read every case; use the jackknife or "
            "the unbiased covariances."
        )
    aucs, of_positive, of_negative = _placements(positive, negative)
    covariance: Array = np.zeros(aucs.shape * 2)
    for placements in (of_positive, of_negative):
        n = placements.shape[-1]
        covariance += _products(placements - aucs[..., None]) / (n * (n - 1))
    return _auc(positive, negative, aucs, covariance, "DeLong")


def auc_unbiased(positive: ArrayLike, negative: ArrayLike) -> ReaderFigures:
    """Empirical AUC with unbiased covariances, whatever cases the readers have in common.

    Costs L²R²(N₁ + N₀) for L different ratings or R²N₁N₀, whichever is less: seconds for 100
    readers, 10,000 cases and 5 ratings, minutes for 100 ratings. The jackknife takes a second.

    Args and raises: as `auc_jackknife`. Source: Gallas (2006), Gallas et al. (2009).
    """
    positive, negative = _ratings(positive, negative)
    aucs, _, _ = _placements(positive, negative)
    products, counts = _products_of_distinct_pairs(positive, negative)
    covariance = np.multiply.outer(aucs, aucs) - products / counts
    # Exactly 0, not to rounding, for readers who have read no case in common.
    covariance[_n_shared(np.concatenate([positive, negative], axis=-1)) == 0] = 0
    return _auc(positive, negative, aucs, covariance, "unbiased")


def jackknife(
    figure_of_merit: Callable[..., Array], *tables: ArrayLike, name: str
) -> ReaderFigures:
    """Any figure of merit, with jackknife covariances.

    Args:
        figure_of_merit: from tables like those given to the readers' figures. (T, R, N)... → (T, R)
        tables: one for each class of cases. (T, R, N)
        name: of the figure, for the report.

    Raises:
        MrmcError: for tables that do not fit together, or a figure that is not finite, also with
            one case left out.

    Source: Obuchowski & Rockette (1995); Efron & Stein (1981).
    """
    classes = _fitting(*tables)
    values = np.asarray(figure_of_merit(*classes), dtype=np.float64)
    if values.shape != classes[0].shape[:2] or not np.isfinite(values).all():
        raise MrmcError(
            f"{name} has shape {values.shape} or is not finite; a figure of merit gives one number "
            f"for each of {classes[0].shape[0]} modalities and {classes[0].shape[1]} readers."
        )
    left_out = []
    for which, table in enumerate(classes):
        for case in np.flatnonzero(_is_read_by_anyone(table)):
            rest = [*classes[:which], np.delete(table, case, axis=-1), *classes[which + 1 :]]
            left_out.append(figure_of_merit(*rest))
            if not np.isfinite(left_out[-1]).all():
                raise MrmcError(
                    f"{name} is not finite without case {case + 1} of table {which + 1}; its "
                    "jackknife needs a figure that one case cannot break, or more cases."
                )
    n_cases = len(left_out)
    deviations = np.moveaxis(np.array(left_out) - np.mean(left_out, axis=0), 0, -1)
    covariance = _products(deviations) * (n_cases - 1) / n_cases
    return ReaderFigures(
        name=name,
        covariance_method="jackknife",
        values=values,
        covariance=covariance,
        independent_variance=_error_variances(covariance).mean(axis=1) / values.shape[1],
        n_shared_cases=_n_shared(np.concatenate(classes, axis=-1)),
        fewest_cases=min(int(_n_read(table).min()) for table in classes),
    )


def _percent_correct(table: Array, values: Array, covariance: Array, method: str) -> ReaderFigures:
    means = np.nanmean(table, axis=(1, 2))
    return ReaderFigures(
        name="percent correct",
        covariance_method=method,
        values=values,
        covariance=covariance,
        independent_variance=means * (1 - means) / _n_read(table).sum(axis=1),
        n_shared_cases=_n_shared(table),
        fewest_cases=int(_n_read(table).min()),
    )


def _auc(
    positive: Array, negative: Array, aucs: Array, covariance: Array, method: str
) -> ReaderFigures:
    return ReaderFigures(
        name="AUC",
        covariance_method=method,
        values=aucs,
        covariance=covariance,
        independent_variance=_error_variances(covariance).mean(axis=1) / aucs.shape[1],
        n_shared_cases=_n_shared(positive) + _n_shared(negative),
        fewest_cases=int(min(_n_read(positive).min(), _n_read(negative).min())),
    )


# ---------------------------------------------------------------------------- analysis of variance


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityMean:
    """The readers' mean figure in one modality, from the readings of that modality alone."""

    modality: int
    """From 0."""
    estimate: Estimate
    ms_reader: float | None
    """MS(R) of this modality, MS[R(G)] where readers are in groups; None for one reader."""
    var_error: float
    cov2: float | None
    """Not truncated at 0; None for one reader."""
    design_effect: float | None
    """Variance over that of as many independent readings; None where there is no variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityDifference:
    """The mean figure of one modality less that of another."""

    first: int
    second: int
    estimate: Estimate
    statistic: float | None
    """t, or z where the estimate has no degrees of freedom."""
    p_value: float | None
    """Two-sided."""
    design_effect: float | None
    """As if neither readers nor cases were shared: pairing may bring it below 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneReader:
    """One reader's figures and differences of modalities, for other cases."""

    figures: tuple[Estimate, ...]
    """One for each modality."""
    differences: tuple[ModalityDifference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObuchowskiRockette:
    """An Obuchowski–Rockette analysis; None for what the design or the number of readers lacks."""

    method: str
    n_readers: int
    ms_modality: float | None
    """MS(T)."""
    ms_reader: float | None
    """MS(R); MS[R(G)] where readers are in groups."""
    ms_modality_reader: float | None
    """MS(TR); MS[TR(G)] where readers are in groups."""
    var_error: float
    cov1: float | None
    """One reader, two modalities."""
    cov2: float | None
    """Two readers, one modality; of one group where readers are in groups."""
    cov3: float | None
    """Two readers, two modalities."""
    var_reader: float | None
    var_modality_reader: float | None
    """Variance components of the ANOVA; they can be negative."""
    error_term: float | None
    """Denominator of F or of the chi-square."""
    statistic: float | None
    """F for equal modalities; chi-square on `df1` where readers are fixed."""
    df1: int | None
    df2: float | None
    """None for chi-square, or where readers do not differ and F is chi-square over `df1`."""
    p_value: float | None
    means: tuple[ModalityMean, ...]
    differences: tuple[ModalityDifference, ...]
    readers: tuple[OneReader, ...]
    """Only where readers are fixed: each from the readings of that reader alone."""
    cautions: tuple[str, ...]


def obuchowski_rockette(
    figures: ReaderFigures, *, confidence_level: float = 0.95
) -> ObuchowskiRockette:
    """Analysis for other readers and other cases.

        one modality:    var = (MS(R) + R max(Cov2, 0)) / R
        F = MS(T) / error,  error = MS(TR) + R max(Cov2 − Cov3, 0)
        difference:      var = 2 error / R
        df2 = error² / (MS(TR)² / ((T − 1)(R − 1))), and alike for one modality

    Cov2 and Cov3 are means over all pairs of readers, also those who read no case in common. So the
    variance before truncation is unbiased whatever the design, as long as the cases of each reader
    are a sample of the same population.

    Raises:
        MrmcError: for a single reader.

    Source: Obuchowski & Rockette (1995), degrees of freedom of Hillis (2007).
    """
    groups = np.zeros(figures.values.shape[1], dtype=np.int64)
    return _random_readers_and_cases(figures, groups, "", confidence_level)


def obuchowski_rockette_split_plot(
    figures: ReaderFigures, groups: ArrayLike, *, confidence_level: float = 0.95
) -> ObuchowskiRockette:
    """Analysis for other readers and cases, where each group of readers has cases of its own.

    Groups are blocks with fixed effects: MS(R) and MS(TR) become MS[R(G)] and MS[TR(G)], within
    groups, with R − G and (T − 1)(R − G) degrees of freedom, and R Cov2 becomes Σ n_g² Cov2_g / R,
    n_g the readers of group g: (R / G) Cov2 for equal groups. Exact for equal groups, approximate
    for others. Blocks may differ (easier cases, another clinic), which costs G − 1 degrees of
    freedom; if readers and cases were dealt to blocks at random, `obuchowski_rockette` is valid for
    the same figures and has more power.

    Args:
        groups: the group of each reader. (R,)

    Raises:
        MrmcError: for a group of one reader, or groups that share cases.

    Source: the algorithm of Hillis (2014), carried out here for readers and cases nested in groups;
    the design of Obuchowski, Gallas & Hillis (2012).
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    n_readers = figures.values.shape[1]
    if group_of.shape != (n_readers,):
        raise MrmcError(f"{n_readers} readers have {group_of.size} groups; name one for each.")
    sizes = np.bincount(group_of)
    if sizes.min() < 2:
        raise MrmcError(
            f"group {names[sizes.argmin()]} has one reader, whose skill cannot be told from the "
            "group's cases; analyse all readers as one group with `obuchowski_rockette`."
        )
    shared = figures.n_shared_cases.sum(axis=(0, 2)) * (group_of[:, None] != group_of)
    if shared.any():
        one, other = np.argwhere(shared)[0] + 1
        raise MrmcError(
            f"readers {one} and {other} are in different groups and read the same cases; use "
            "`obuchowski_rockette`, which needs no groups."
        )
    return _random_readers_and_cases(
        figures, group_of, ", groups of readers with their own cases", confidence_level
    )


def obuchowski_rockette_fixed_readers(
    figures: ReaderFigures, *, confidence_level: float = 0.95
) -> ObuchowskiRockette:
    """Analysis for other cases, but for these readers only, of whom there may be one.

        one modality:  var = (Var(err) + (R − 1) max(Cov2, 0)) / R
        chi-square = (T − 1) MS(T) / error, error = Var(err) − Cov1 + (R − 1) max(Cov2 − Cov3, 0)
        difference:    var = 2 error / R

    All with the normal quantile, which wants more than a few cases.

    Source: Obuchowski & Rockette (1995), as in OR-DBM MRMC 2.51, analysis 2.
    """
    n_modalities, n_readers = figures.values.shape
    parts = _components(figures, np.zeros(n_readers, dtype=np.int64))
    cov2s = [max(cov2 or 0.0, 0.0) for cov2 in parts.cov2s]
    error = None
    if parts.cov1 is not None:
        shared = max((parts.cov2 or 0.0) - (parts.cov3 or 0.0), 0.0)
        error = parts.var_error - parts.cov1 + (n_readers - 1) * shared
    method = f"{_method(figures)}, fixed readers and random cases"
    found = _analysis(
        figures,
        parts,
        mean_errors=[v + (n_readers - 1) * c for v, c in zip(parts.var_errors, cov2s, strict=True)],
        mean_dfs=[None] * n_modalities,
        error=error,
        df2=None,
        method=method,
        level=_checked_level(confidence_level),
        cautions=_cautions(figures, are_readers_random=False),
    )
    if n_readers > 1:
        readers = (_reader_alone(figures, reader) for reader in range(n_readers))
        alone = [
            obuchowski_rockette_fixed_readers(one, confidence_level=confidence_level)
            for one in readers
        ]
    else:
        alone = [found]
    return replace(
        found,
        statistic=None if found.statistic is None else found.statistic * (n_modalities - 1),
        readers=tuple(
            OneReader(
                figures=tuple(mean.estimate for mean in one.means), differences=one.differences
            )
            for one in alone
        ),
    )


def obuchowski_rockette_fixed_cases(
    figures: ReaderFigures, *, confidence_level: float = 0.95
) -> ObuchowskiRockette:
    """Analysis for other readers, but for these cases only: an ANOVA of the readers' figures.

    Raises:
        MrmcError: for a single reader.

    Source: OR-DBM MRMC 2.51, analysis 3.
    """
    _refuse_single_reader(figures)
    n_modalities, n_readers = figures.values.shape
    parts = _components(figures, np.zeros(n_readers, dtype=np.int64))
    return _analysis(
        figures,
        parts,
        mean_errors=parts.ms_readers,
        mean_dfs=[n_readers - 1.0] * n_modalities,
        error=parts.ms_modality_reader,
        df2=float((n_modalities - 1) * (n_readers - 1)),
        method=f"analysis of variance of {figures.name}, random readers and fixed cases",
        level=_checked_level(confidence_level),
        cautions=_cautions(figures, are_readers_random=True),
    )


def _random_readers_and_cases(
    figures: ReaderFigures, groups: NDArray[np.int64], design: str, confidence_level: float
) -> ObuchowskiRockette:
    _refuse_single_reader(figures)
    n_modalities, n_readers = figures.values.shape
    parts = _components(figures, groups)
    df_reader = n_readers - int(groups.max()) - 1
    shared = np.diag(parts.shared)
    errors = [ms + max(float(more), 0.0) for ms, more in zip(parts.ms_readers, shared, strict=True)]
    error = df2 = None
    if parts.ms_modality_reader is not None:
        more = float(shared.mean()) - _off_diagonal_mean(parts.shared)
        error = parts.ms_modality_reader + max(more, 0.0)
        df2 = _hillis(error, parts.ms_modality_reader, (n_modalities - 1) * df_reader)
    return _analysis(
        figures,
        parts,
        mean_errors=errors,
        mean_dfs=[
            _hillis(e, ms, df_reader) for e, ms in zip(errors, parts.ms_readers, strict=True)
        ],
        error=error,
        df2=df2,
        method=f"{_method(figures)}, random readers and cases{design}, Hillis degrees of freedom",
        level=_checked_level(confidence_level),
        cautions=_cautions(figures, are_readers_random=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Components:
    ms_modality: float | None
    ms_reader: float | None
    ms_modality_reader: float | None
    ms_readers: list[float]
    """Of each modality; empty for one reader."""
    var_errors: list[float]
    cov2s: list[float | None]
    cov1: float | None
    cov2: float | None
    cov3: float | None
    shared: Array
    """What reading the same cases adds to R times the variance of a mean. (T, T)"""

    @property
    def var_error(self) -> float:
        return float(np.mean(self.var_errors))


def _components(figures: ReaderFigures, groups: NDArray[np.int64]) -> _Components:
    values, covariance = figures.values, figures.covariance
    n_modalities, n_readers = values.shape
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    df_reader, df_modality = n_readers - len(members), n_modalities - 1
    of_groups = np.stack([values[:, who].mean(axis=1) for who in members], axis=1)
    within = values - of_groups[:, groups]
    noise = 1e-28 * float(np.abs(values).max()) ** 2

    def mean_square(deviations: Array, df: int, n_alike: int = 1) -> float:
        found = float((deviations**2).sum()) * n_alike / df
        return found if found > noise else 0.0  # readers who do not differ leave rounding errors

    same_reader = np.einsum("trur->tu", covariance)
    of_pairs, shared = np.zeros((2, n_modalities, n_modalities))
    for who in members:
        if (n := len(who)) > 1:
            part = covariance[:, who][:, :, :, who]
            pairs = part.sum(axis=(1, 3)) - np.einsum("trur->tu", part)
            of_pairs, shared = of_pairs + pairs, shared + pairs * n / (n - 1) / n_readers
    n_pairs = sum(len(who) * (len(who) - 1) for who in members)
    between = of_pairs / n_pairs if n_pairs else None
    return _Components(
        ms_modality=mean_square(values.mean(axis=1) - values.mean(), df_modality, n_readers)
        if df_modality
        else None,
        ms_reader=mean_square(within.mean(axis=0), df_reader, n_modalities) if df_reader else None,
        ms_modality_reader=mean_square(within - within.mean(axis=0), df_modality * df_reader)
        if df_modality and df_reader
        else None,
        ms_readers=[mean_square(row, df_reader) for row in within] if df_reader else [],
        var_errors=[float(one) / n_readers for one in np.diag(same_reader)],
        cov2s=[None] * n_modalities if between is None else [float(c) for c in np.diag(between)],
        cov1=_off_diagonal_mean(same_reader) / n_readers if df_modality else None,
        cov2=None if between is None else float(np.diag(between).mean()),
        cov3=_off_diagonal_mean(between) if df_modality and between is not None else None,
        shared=shared,
    )


def _analysis(
    figures: ReaderFigures,
    parts: _Components,
    *,
    mean_errors: list[float],
    mean_dfs: Sequence[float | None],
    error: float | None,
    df2: float | None,
    method: str,
    level: float,
    cautions: Iterable[str],
) -> ObuchowskiRockette:
    """What all analyses have in common; an error is R times the variance of a modality's mean."""
    values, independent = figures.values.mean(axis=1), figures.independent_variance
    n_modalities, n_readers = figures.values.shape
    means = []
    for modality, (mean_error, df) in enumerate(zip(mean_errors, mean_dfs, strict=True)):
        estimate = _estimate(values[modality], mean_error / n_readers, df, method, level)
        means.append(
            ModalityMean(
                modality=modality,
                estimate=estimate,
                ms_reader=parts.ms_readers[modality] if parts.ms_readers else None,
                var_error=parts.var_errors[modality],
                cov2=parts.cov2s[modality],
                design_effect=_design_effect(estimate, independent[modality]),
            )
        )
    differences: list[ModalityDifference] = []
    statistic = p_value = None
    if error is not None and parts.ms_modality is not None:
        for first, second in combinations(range(n_modalities), 2):
            change = values[first] - values[second]
            estimate = _estimate(change, 2 * error / n_readers, df2, method, level)
            t, p = _test_of_zero(estimate)
            differences.append(
                ModalityDifference(
                    first=first,
                    second=second,
                    estimate=estimate,
                    statistic=t,
                    p_value=p,
                    design_effect=_design_effect(
                        estimate, independent[first] + independent[second]
                    ),
                )
            )
        if error > _NO_VARIANCE:
            statistic, df1 = parts.ms_modality / error, n_modalities - 1
            p_value = float(
                chdtrc(df1, statistic * df1) if df2 is None else fdtrc(df1, df2, statistic)
            )
    return ObuchowskiRockette(
        method=method,
        n_readers=n_readers,
        ms_modality=parts.ms_modality,
        ms_reader=parts.ms_reader,
        ms_modality_reader=parts.ms_modality_reader,
        var_error=parts.var_error,
        cov1=parts.cov1,
        cov2=parts.cov2,
        cov3=parts.cov3,
        **_variance_components(parts, n_modalities),
        error_term=error,
        statistic=statistic,
        df1=n_modalities - 1 or None,
        df2=df2 if n_modalities > 1 else None,
        p_value=p_value,
        means=tuple(means),
        differences=tuple(differences),
        readers=(),
        cautions=tuple(cautions),
    )


def _variance_components(parts: _Components, n_modalities: int) -> dict[str, float | None]:
    ms_tr, cov1, cov2, cov3 = parts.ms_modality_reader, parts.cov1, parts.cov2, parts.cov3
    var_reader = var_modality_reader = None
    if parts.ms_reader is not None and cov2 is not None:
        if ms_tr is None or cov1 is None or cov3 is None:
            var_reader = parts.ms_reader - parts.var_error + cov2
        else:
            var_reader = (parts.ms_reader - ms_tr) / n_modalities - cov1 + cov3
            var_modality_reader = ms_tr - parts.var_error + cov1 + cov2 - cov3
    return {"var_reader": var_reader, "var_modality_reader": var_modality_reader}


def _reader_alone(figures: ReaderFigures, reader: int) -> ReaderFigures:
    covariance = figures.covariance[:, [reader]][:, :, :, [reader]]
    return replace(
        figures,
        values=figures.values[:, [reader]],
        covariance=covariance,
        independent_variance=_error_variances(covariance)[:, 0],
        n_shared_cases=figures.n_shared_cases[:, [reader]][:, :, :, [reader]],
    )


def _cautions(figures: ReaderFigures, *, are_readers_random: bool) -> Iterable[str]:
    if are_readers_random:
        yield from _caution_about_readers(figures.values.shape[1])
    yield from _caution_about_cases(figures.fewest_cases)
    if (_error_variances(figures.covariance) <= _NO_VARIANCE).any():
        yield (
            "At least one reader's figure shows no variance over cases, such as that of a reader "
            "who is never wrong; the covariances are then too small."
        )


def _caution_about_readers(n_readers: int) -> Iterable[str]:
    if n_readers < FEWEST_READERS:
        yield (
            f"With {n_readers} readers (fewer than {FEWEST_READERS}) the spread between readers is "
            "hardly known; rely on the analysis for these readers only."
        )


def _caution_about_cases(fewest: int) -> Iterable[str]:
    if fewest < FEWEST_CASES:
        yield (
            f"A reader read only {fewest} cases of a class (fewer than {FEWEST_CASES}); the "
            "interval is a rough guide."
        )


def _method(figures: ReaderFigures) -> str:
    return f"Obuchowski–Rockette for {figures.name}, {figures.covariance_method} covariances"


def _refuse_single_reader(figures: ReaderFigures) -> None:
    if figures.values.shape[1] < 2:
        raise MrmcError(
            "1 reader says nothing about other readers; use `obuchowski_rockette_fixed_readers` "
            "for this reader only, or let another reader finish."
        )


# --------------------------------------------------------------------------- Gallas' U-statistics


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
    table = _answers(correct, refuse_sparse=False)
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
        fewest_cases=int(_n_read(table)[_n_read(table) > 0].min()),
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
    positive, negative = _ratings(positive, negative, refuse_sparse=False)
    aucs, of_positive, of_negative = _placements(positive, negative)
    n_positive, n_negative = _n_read(positive), _n_read(negative)
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
        products, counts = _products_of_distinct_pairs(positive, negative)
        half_products = means[:, None, None, None] * counts
    else:
        # Beside each reader one who read the same and is always right: products with him are sums.
        ideal = [
            np.concatenate([table, np.where(np.isnan(table), np.nan, rating)], axis=1)
            for table, rating in ((positive, 1.0), (negative, 0.0))
        ]
        both, all_counts = _products_of_distinct_pairs(*ideal)
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
    level = _checked_level(confidence_level)
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
        estimate = _estimate(float(weights @ means), variance, df, method, level)
        t, p_value = _test_of_zero(estimate) if len(modalities) > 1 else (None, None)
        return UStatistic(
            modalities=modalities,
            estimate=estimate,
            unbiased_variance=float(weights @ unbiased @ weights),
            statistic=t,
            p_value=p_value,
            design_effect=_design_effect(estimate, float(np.abs(weights) @ independent_variance)),
        )

    n_readers = int((factors[0].counts > 0).any(axis=0).sum())
    return UStatistics(
        method=method,
        n_readers=n_readers,
        n_readings=tuple(int(n) for n in factors[0].counts.sum(axis=1)),
        means=tuple(statistic(modality) for modality in range(len(means))),
        differences=tuple(statistic(*pair) for pair in combinations(range(len(means)), 2)),
        cautions=(*_caution_about_readers(n_readers), *_caution_about_cases(fewest_cases)),
    )


# ------------------------------------------------------------------------------------- intervals


def _estimate(
    value: float, variance: float, df: float | None, method: str, level: float
) -> Estimate:
    value, variance = float(value), float(variance)
    if variance <= _NO_VARIANCE * max(1.0, value**2):
        return Estimate.not_estimable(
            method,
            "the readings show no variance, which is no sign of certainty",
            confidence_level=level,
            estimate=value,
        )
    standard_error = sqrt(variance)
    quantile = ndtri(0.5 + level / 2) if df is None else stdtrit(df, 0.5 + level / 2)
    return Estimate(
        estimate=value,
        ci_low=value - float(quantile) * standard_error,
        ci_high=value + float(quantile) * standard_error,
        standard_error=standard_error,
        df=df,
        confidence_level=level,
        method=method,
    )


def _test_of_zero(estimate: Estimate) -> tuple[float | None, float | None]:
    if estimate.estimate is None or estimate.standard_error is None:
        return None, None
    t, df = estimate.estimate / estimate.standard_error, estimate.df
    return t, 2 * float(ndtr(-abs(t)) if df is None else stdtr(df, -abs(t)))


def _hillis(total: float, mean_square: float, df: int) -> float | None:
    """None where readers do not differ, or all but do not, and the t quantile is normal."""
    found = total**2 / mean_square**2 * df if mean_square else np.inf
    return found if isfinite(found) else None


def _design_effect(estimate: Estimate, independent_variance: float) -> float | None:
    if estimate.standard_error is None or independent_variance <= _NO_VARIANCE:
        return None
    return float(estimate.standard_error**2 / independent_variance)


def _off_diagonal_mean(matrix: Array) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))


def _error_variances(covariance: Array) -> Array:
    return np.asarray(np.einsum("trtr->tr", covariance))


# ------------------------------------------------------------------------- readings and placements


def _answers(correct: ArrayLike, *, refuse_sparse: bool = True) -> Array:
    (table,) = _fitting(correct)
    if not np.isin(table[~np.isnan(table)], (0, 1)).all():
        raise MrmcError("an answer is right (1) or wrong (0), NaN where not read; give no others.")
    if refuse_sparse:
        _refuse_sparse_cells(table, "")
    return table


def _ratings(
    positive: ArrayLike, negative: ArrayLike, *, refuse_sparse: bool = True
) -> tuple[Array, Array]:
    one, other = _fitting(positive, negative)
    if refuse_sparse:
        _refuse_sparse_cells(one, " that are positive")
        _refuse_sparse_cells(other, " that are negative")
    return one, other


def _fitting(*tables: ArrayLike) -> list[Array]:
    found = [np.asarray(table, dtype=np.float64) for table in tables]
    found = [table[None] if table.ndim == 2 else table for table in found]
    for table in found:
        if table.ndim != 3 or 0 in table.shape:
            raise MrmcError(
                f"a table of shape {table.shape} is not (modalities ×) readers × cases; give one "
                "row for each reader and one column for each case."
            )
        if np.isinf(table).any():
            raise MrmcError("a reading is infinite; give finite numbers, and NaN where not read.")
    for one, other in pairwise(found):
        if one.shape[:2] != other.shape[:2]:
            raise MrmcError(
                f"tables of {one.shape[:2]} and {other.shape[:2]} modalities × readers do not fit "
                "together; give the same modalities and readers in both."
            )
    return found


def _refuse_sparse_cells(table: Array, which: str) -> None:
    n_read = _n_read(table)
    if n_read.min() < 2:
        modality, reader = np.unravel_index(int(n_read.argmin()), n_read.shape)
        raise MrmcError(
            f"reader {reader + 1} read {n_read.min()} cases{which} in modality {modality + 1}; a "
            "figure with a variance needs 2, so leave the reader out or use the U-statistics."
        )


def _n_read(table: Array) -> NDArray[np.int64]:
    return np.asarray(np.count_nonzero(~np.isnan(table), axis=-1), dtype=np.int64)


def _is_read_by_anyone(table: Array) -> NDArray[np.bool_]:
    return np.asarray(~np.isnan(table).all(axis=(0, 1)))


def _n_read_by_anyone(table: Array) -> int:
    return int(_is_read_by_anyone(table).sum())


def _n_shared(table: Array) -> NDArray[np.int64]:
    return np.rint(_products((~np.isnan(table)).astype(np.float64))).astype(np.int64)


def _products(numbers: Array) -> Array:
    """Σ over cases of the products of any two rows. (T, R, N) → (T, R, T, R)"""
    rows = numbers.reshape(-1, numbers.shape[-1])
    return (rows @ rows.T).reshape(numbers.shape[:2] * 2)


def _centred(table: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Means (T, R), residuals with 0 where not read (T, R, N), numbers of cases (T, R)."""
    n_read = _n_read(table)
    means = np.nansum(table, axis=-1) / n_read
    return means, np.nan_to_num(table - means[..., None]), n_read


def _unbiased_covariance_of_means(table: Array) -> Array:
    """Of two means over n and m cases, c in common: Σ products of residuals / (nm − n − m + c).

    The expectation of a product of residuals of one case is the covariance of its answers times
    1 − 1/n − 1/m + c/nm, and the covariance of the means is c/nm of it. Unlike the difference of
    raw moments it does not depend on the level of the means. (T, R, N) → (T, R, T, R)
    """
    _, residuals, n_read = _centred(table)
    shared = _n_shared(table)
    freedom = np.multiply.outer(n_read, n_read) - np.add.outer(n_read, n_read) + shared
    return _products(residuals) / np.maximum(freedom, 1)


def _placements(positive: Array, negative: Array) -> tuple[Array, Array, Array]:
    """AUC (T, R), and the placements of positive (T, R, N₁) and negative cases (T, R, N₀).

    A placement is the share of the other class that the case beats, ties counting half. By ranks,
    in O(N log N). NaN where not read.
    """
    of_positive, of_negative = np.full_like(positive, np.nan), np.full_like(negative, np.nan)
    for cell in np.ndindex(positive.shape[:2]):
        up, down = ~np.isnan(positive[cell]), ~np.isnan(negative[cell])
        if up.any() and down.any():
            x, y = positive[cell][up], negative[cell][down]
            of_positive[cell][up] = _share_below(x, np.sort(y))
            of_negative[cell][down] = 1 - _share_below(y, np.sort(x))
    n_read = np.maximum((~np.isnan(of_positive)).sum(axis=-1), 1)
    aucs = np.nansum(of_positive, axis=-1) / n_read
    return aucs, of_positive, of_negative


def _share_below(ratings: Array, others: Array) -> Array:
    below = np.searchsorted(others, ratings, side="left")
    return (below + np.searchsorted(others, ratings, side="right")) / (2.0 * len(others))


def _products_of_distinct_pairs(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Sums and numbers of products of two readers' wins, over pairs without a case in common.

    A win is 1 where the positive case is rated higher than the negative one, ½ where alike.
    Σ over i ≠ i', j ≠ j' is Σ over all, less i = i', less j = j', plus both. (T, R, T, R) each.
    """
    n_positive, n_negative = _n_read(positive), _n_read(negative)
    _, of_positive, of_negative = _placements(positive, negative)
    over_positive = np.nan_to_num(of_positive) * n_negative[..., None]
    over_negative = np.nan_to_num(of_negative) * n_positive[..., None]
    wins = over_positive.sum(axis=-1)
    products = (
        np.multiply.outer(wins, wins)
        - _products(over_positive)
        - _products(over_negative)
        + _products_of_wins(positive, negative)
    )
    free_positive = np.multiply.outer(n_positive, n_positive) - _n_shared(positive)
    free_negative = np.multiply.outer(n_negative, n_negative) - _n_shared(negative)
    return products, np.asarray(free_positive * free_negative, dtype=np.float64)


def _products_of_wins(positive: Array, negative: Array) -> Array:
    """Σ over pairs of cases of the products of two readers' wins. (T, R, T, R)"""
    x, y = (table.reshape(-1, table.shape[-1]) for table in (positive, negative))
    levels = np.unique(x[~np.isnan(x)])
    by_levels = len(levels) ** 2 * (x.shape[1] + y.shape[1])
    found = _by_levels(x, y, levels) if by_levels < x.shape[1] * y.shape[1] else _by_pairs(x, y)
    return found.reshape(positive.shape[:2] * 2)


def _by_levels(x: Array, y: Array, levels: Array) -> Array:
    """For few different ratings: what matters is how often two readers gave which two of them."""
    n_cells, n_levels = len(x), len(levels)
    # (cells, levels, cases); float32 holds these counts and half counts exactly.
    half = np.float32(0.5)
    has = (x[:, None] == levels[:, None]).astype(np.float32)
    beats = (y[:, None] < levels[:, None]) * half + (y[:, None] <= levels[:, None]) * half
    has_flat, beats_flat = (one.reshape(n_cells * n_levels, -1) for one in (has, beats))
    found = np.empty((n_cells, n_cells))
    at_once = max(1, _BLOCK // (n_levels * n_cells * n_levels))
    for start in range(0, n_cells, at_once):
        rows = slice(start * n_levels, (start + at_once) * n_levels)
        together = (has_flat[rows] @ has_flat.T).astype(np.float64)
        together *= beats_flat[rows] @ beats_flat.T
        found[start : start + at_once] = together.reshape(-1, n_levels, n_cells, n_levels).sum(
            axis=(1, 3)
        )
    return found


def _by_pairs(x: Array, y: Array) -> Array:
    """For many different ratings: all pairs of cases, a few positive cases at a time."""
    n_cells, n_negative = y.shape
    found, half = np.zeros((n_cells, n_cells)), np.float32(0.5)
    at_once = max(1, _BLOCK // (n_cells * n_negative))
    for start in range(0, x.shape[1], at_once):
        some = x[:, start : start + at_once, None]
        wins = (some > y[:, None]) * half + (some >= y[:, None]) * half
        flat = wins.reshape(n_cells, -1)
        found += flat @ flat.T
    return found


def _checked_level(confidence_level: float) -> float:
    if not 0 < confidence_level < 1:
        raise MrmcError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
    return confidence_level
