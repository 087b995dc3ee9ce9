"""Readers against themselves, on cases that they were shown more than once.

Shapes: n judgements, N repeated units (a reader and a case), B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from studies.agreement import conger_chance, kappa_like, linearised, pairwise_agreement
from studies.clustered import rao_scott_wilson
from studies.estimate import Estimate, check_level
from studies.proportions import wilson
from studies.ratings import (
    SMALL,
    AgreementError,
    CaseBootstrap,
    RatingTable,
    as_cells,
    coded,
    percentile_interval,
    resampled_values,
)

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

_PERCENT = "intra-reader percent agreement"
_KAPPA = "intra-reader kappa"


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
    check_level(confidence_level, AgreementError)
    flat = as_cells(answers)
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
    table = coded(cells[repeated], categories, needs_order=False, keep_raters=True)
    case_of = np.unique(judged["case"].to_numpy()[rows], return_inverse=True)[1].astype(np.intp)
    reader_of = judged["reader"].to_numpy()[rows]
    names = sorted(set(reader_of))
    groups = [np.flatnonzero(reader_of == name) for name in names]
    parts = [table.take(reader_of == name).without_empty_columns() for name in names]
    w = np.eye(table.q)
    chances = [conger_chance(part, w) for part in parts]
    agreement, _ = pairwise_agreement(table, w)
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
            kappas = np.where(1 - chance > SMALL, (observed - chance) / (1 - chance), np.nan)
            return np.stack([each @ n_equal / (each @ n_pairs), kappas], axis=1)

    drawn: tuple[Estimate | None, Estimate | None] = (None, None)
    if bootstrap and n_cases < 2:
        drawn = percent, kappa
    elif bootstrap:
        strata = _case_strata(bootstrap, judged["case"].to_numpy(), rows)
        values = resampled_values(core, strata, bootstrap, 2, n_cases)
        drawn = (
            percentile_interval(_PERCENT, percent, values[:, 0], n_cases, confidence_level),
            percentile_interval(_KAPPA, kappa, values[:, 1], n_cases, confidence_level),
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


def _no_repeats(bootstrap: CaseBootstrap | None, confidence_level: float) -> Consistency:
    percent, kappa = (
        Estimate.not_estimable(name, "no reader was shown a case twice", confidence_level)
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


def _reader_consistency(name: str, part: RatingTable, confidence_level: float) -> ReaderConsistency:
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
    kappa = kappa_like(_KAPPA, part, "identity", conger_chance, confidence_level, None)
    return ReaderConsistency(
        reader=name,
        n_cases=part.n_units,
        n_pairs=int(n_pairs.sum()),
        percent=percent,
        kappa=kappa.coefficient,
    )


def _equal_pairs(table: RatingTable) -> tuple[Array, Array]:
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
    if 1 - by_chance < SMALL:
        reason = "no reader used more than one answer, so chance alone would agree"
    if reason:
        return Estimate.not_estimable(_KAPPA, reason, confidence_level)
    k = (observed - by_chance) / (1 - by_chance)
    each = (agreement - observed - (1 - k) * (expected - by_chance + slope)) / (1 - by_chance)
    linear = np.bincount(case_of, each, n_cases) * n_cases / n_units
    found = linearised(_KAPPA, k, linear, confidence_level)
    return replace(found, method=f"{_KAPPA}, standard error clustered by case")
