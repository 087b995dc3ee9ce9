"""Do readers agree with one another, and with themselves when a picture comes again?"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.agreement import fleiss_kappa, gwet_ac, percent_agreement
from studies.consistency import Consistency, intra_reader_consistency
from studies.krippendorff import krippendorff_alpha
from studies.plotting import as_counted, reasons
from studies.protocol import Protocol
from studies.ratings import Agreement, CaseBootstrap
from studies.roc import ordinal_ratings

SEED = 1
"""Of the bootstrap of pictures."""
N_RESAMPLES = 2000
ANSWERS = ("real", "generated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One coefficient of agreement between readers."""

    name: str
    ratings: str
    """What was compared: "answers" or "answers with confidence"."""
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementResults:
    """The section."""

    confidence_level: float
    readers: tuple[str, ...]
    n_pictures: int
    coefficients: tuple[Coefficient, ...]
    pairs: tuple[tuple[float | None, ...], ...]
    """Share of pictures on which two readers gave the same answer; None where they have none in
    common, and for a reader with themselves. (R, R)"""
    consistency: Consistency
    absent: str | None
    """Why answers with confidence were not compared, as a sentence; None where they were."""


def analyse_agreement(
    judged: pd.DataFrame, repeats: pd.DataFrame, protocol: Protocol
) -> AgreementResults:
    """Agreement between readers, and of readers with themselves in `repeats`."""
    level, n_points = protocol.analysis.confidence_level, protocol.confidence_points
    rows = judged.assign(participant_id=judged["participant_id"].astype(str))
    readers = sorted(rows["participant_id"].unique(), key=as_counted)
    truth = rows.groupby("stimulus_id")["is_synthetic"].first()
    bootstrap = CaseBootstrap(
        rng=np.random.default_rng(SEED), n_resamples=N_RESAMPLES, strata=truth.to_numpy()
    )
    answers = _table(rows, "response", readers)
    shared = {"confidence_level": level, "bootstrap": bootstrap}
    of_answers: list[tuple[str, Callable[..., Agreement]]] = [
        ("Percent agreement", percent_agreement),
        ("Fleiss’ κ", fleiss_kappa),
        ("Krippendorff’s α, nominal", partial(krippendorff_alpha, scale="nominal")),
        ("Gwet’s AC1", gwet_ac),
    ]
    coefficients = [
        Coefficient(
            name=name, ratings="answers", agreement=method(answers, categories=ANSWERS, **shared)
        )
        for name, method in of_answers
    ]
    has_confidence = "confidence" in rows
    if has_confidence:
        called = (rows["response"] == "generated").to_numpy()
        combined = ordinal_ratings(called, rows["confidence"].to_numpy(), n_points)
        ratings = _table(rows.assign(rating=combined.astype(float)), "rating", readers)
        of_ratings: list[tuple[str, Callable[..., Agreement]]] = [
            ("Krippendorff’s α, ordinal", partial(krippendorff_alpha, scale="ordinal")),
            ("Krippendorff’s α, interval", partial(krippendorff_alpha, scale="interval")),
            ("Gwet’s AC2, ordinal weights", partial(gwet_ac, weights="ordinal")),
        ]
        coefficients += [
            Coefficient(
                name=name,
                ratings="answers with confidence",
                agreement=method(ratings, categories=range(1, 2 * n_points + 1), **shared),
            )
            for name, method in of_ratings
        ]
    return AgreementResults(
        confidence_level=level,
        readers=tuple(readers),
        n_pictures=len(truth),
        coefficients=tuple(coefficients),
        pairs=_pairs(answers),
        consistency=_consistency(rows, repeats, level),
        absent=None
        if has_confidence
        else "The response table has no column `confidence`: only the answers were compared.",
    )


def _table(rows: pd.DataFrame, column: str, readers: list[str]) -> NDArray[Any]:
    """Pictures × readers; empty where not judged. (N, R)"""
    table = rows.pivot(index="stimulus_id", columns="participant_id", values=column)[readers]
    return table.to_numpy(dtype=object)


def _pairs(answers: NDArray[Any]) -> tuple[tuple[float | None, ...], ...]:
    n_readers = answers.shape[1]
    judged = ~pd.isna(answers)
    found: list[list[float | None]] = [[None] * n_readers for _ in range(n_readers)]
    for i in range(n_readers):
        for j in range(n_readers):
            both = judged[:, i] & judged[:, j]
            if i != j and both.any():
                found[i][j] = float((answers[both, i] == answers[both, j]).mean())
    return tuple(map(tuple, found))


def _consistency(rows: pd.DataFrame, repeats: pd.DataFrame, level: float) -> Consistency:
    later = repeats.assign(participant_id=repeats["participant_id"].astype(str))
    first = rows.assign(repeat_number=1)
    both = pd.concat([first, later]) if len(later) else first
    shown = both.sort_values(["participant_id", "stimulus_id", "repeat_number"])
    found = intra_reader_consistency(
        shown["participant_id"],
        shown["stimulus_id"],
        shown["response"],
        categories=ANSWERS,
        confidence_level=level,
        bootstrap=CaseBootstrap(
            rng=np.random.default_rng(SEED),
            n_resamples=N_RESAMPLES,
            strata=shown["is_synthetic"].to_numpy(),
        ),
    )
    readers = sorted(found.readers, key=lambda one: as_counted(one.reader))
    return replace(found, readers=tuple(readers))


def agreement_reasons(results: AgreementResults) -> tuple[str, ...]:
    """Why what is not estimable is not."""
    named = [
        (one.name, one.ratings, one.agreement.bootstrap)
        for one in results.coefficients
        if one.agreement.bootstrap
    ]
    found = results.consistency
    if found.readers:
        named += [
            (what, who, one)
            for who, percent, kappa in (
                ("all readers", found.percent_bootstrap, found.kappa_bootstrap),
                *((one.reader, one.percent, one.kappa) for one in found.readers),
            )
            for what, one in (("Agreement with oneself", percent), ("κ with oneself", kappa))
            if one
        ]
    return reasons(named)


def agreement_methods(results: AgreementResults) -> tuple[str, ...]:
    """What was done, in sentences."""
    said = (
        "Agreement between readers on the answers is Fleiss’ κ [Fleiss 1971], Krippendorff’s α "
        "[Krippendorff 2011] and Gwet’s AC1 [Gwet 2008]"
        + ("" if results.absent else ", and on answers with confidence α and AC2")
        + f". Intervals are expanded percentiles [Hesterberg 2015] of {N_RESAMPLES:,} bootstrap "
        "samples of pictures, real and generated ones apart; they are for these readers.",
    )
    if not results.consistency.readers:
        return said
    return (
        *said,
        "Agreement of readers with themselves is over all pairs of judgements of one picture by "
        "one reader; κ takes chance from each reader’s own habits. Intervals over readers resample "
        "pictures; those of single readers are Wilson’s [Wilson 1927] and, for κ, Gwet’s.",
    )
