"""The analysis of variance of Obuchowski and Rockette, from readers' figures of merit.

For random readers and cases, for these readers only, for these cases only, or for readers in groups
that read different cases.

T modalities, R readers. Sources: Obuchowski & Rockette (1995); Hillis (2007, 2014). Checked against
OR-DBM MRMC 2.51 and MRMCaov on the Van Dyke readings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, fdtrc

from studies.estimate import Estimate, check_level
from studies.mrmc import (
    NO_VARIANCE,
    MrmcError,
    against_zero,
    cautions_of_size,
    design_effect_of,
    estimate_of,
)
from studies.reader_figures import ReaderFigures, error_variances

Array = NDArray[np.float64]


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
        confidence_level=confidence_level,
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
        confidence_level=confidence_level,
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
        confidence_level=confidence_level,
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
    confidence_level: float,
    cautions: Iterable[str],
) -> ObuchowskiRockette:
    """What all analyses have in common; an error is R times the variance of a modality's mean."""
    check_level(confidence_level, MrmcError)
    values, independent = figures.values.mean(axis=1), figures.independent_variance
    n_modalities, n_readers = figures.values.shape
    means = []
    for modality, (mean_error, df) in enumerate(zip(mean_errors, mean_dfs, strict=True)):
        estimate = estimate_of(
            values[modality], mean_error / n_readers, df, method, confidence_level
        )
        means.append(
            ModalityMean(
                modality=modality,
                estimate=estimate,
                ms_reader=parts.ms_readers[modality] if parts.ms_readers else None,
                var_error=parts.var_errors[modality],
                cov2=parts.cov2s[modality],
                design_effect=design_effect_of(estimate, independent[modality]),
            )
        )
    differences: list[ModalityDifference] = []
    statistic = p_value = None
    if error is not None and parts.ms_modality is not None:
        for first, second in combinations(range(n_modalities), 2):
            change = values[first] - values[second]
            estimate = estimate_of(change, 2 * error / n_readers, df2, method, confidence_level)
            t, p = against_zero(estimate)
            differences.append(
                ModalityDifference(
                    first=first,
                    second=second,
                    estimate=estimate,
                    statistic=t,
                    p_value=p,
                    design_effect=design_effect_of(
                        estimate, independent[first] + independent[second]
                    ),
                )
            )
        if error > NO_VARIANCE:
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
        independent_variance=error_variances(covariance)[:, 0],
        n_shared_cases=figures.n_shared_cases[:, [reader]][:, :, :, [reader]],
    )


def _cautions(figures: ReaderFigures, *, are_readers_random: bool) -> Iterable[str]:
    n_readers = figures.values.shape[1]
    yield from cautions_of_size(figures.fewest_cases, n_readers if are_readers_random else inf)
    if (error_variances(figures.covariance) <= NO_VARIANCE).any():
        yield (
            "At least one reader's figure shows no variance over cases, such as that of a reader "
            "who is never wrong; the covariances are then too small."
        )


def _method(figures: ReaderFigures) -> str:
    return f"Obuchowski–Rockette for {figures.name}, {figures.covariance_method} covariances"


def _refuse_single_reader(figures: ReaderFigures) -> None:
    if figures.values.shape[1] < 2:
        raise MrmcError(
            "1 reader says nothing about other readers; use `obuchowski_rockette_fixed_readers` "
            "for this reader only, or let another reader finish."
        )


def _hillis(total: float, mean_square: float, df: int) -> float | None:
    """None where readers do not differ, or all but do not, and the t quantile is normal."""
    found = total**2 / mean_square**2 * df if mean_square else np.inf
    return found if isfinite(found) else None


def _off_diagonal_mean(matrix: Array) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (n * (n - 1)))
