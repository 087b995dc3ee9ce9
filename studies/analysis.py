"""The numbers of the report: protocol + responses → one frozen value, in full precision.

The plan was declared in the protocol, before the data: what the primary outcome is, what counts as
equivalent, who is left out, when one may look. Everything else is reported beside it as what it is.
"""

import dataclasses
import json
import math
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from studies.crossed import FEWEST_READERS
from studies.detection import Detection, detection
from studies.equivalence import (
    EquivalenceTest,
    Verdict,
    clustered_difference,
    clustered_tost,
    verdict,
)
from studies.estimate import Estimate
from studies.exclusions import Excluded, excluded
from studies.outcomes import (
    Outcome,
    Part,
    Tested,
    independent,
    is_rated,
    outcome,
    parts,
    secondary_tests,
)
from studies.protocol import Protocol
from studies.responses import check_protocol, n_planned, without_attention
from studies.section_agreement import AgreementResults, analyse_agreement
from studies.section_confidence import ConfidenceResults, analyse_confidence
from studies.section_psychometric import PsychometricResults, analyse_psychometric
from studies.sequential import Look, repeated_interval, sequential_plan

PACKAGES = ("cytoverity", "numpy", "scipy", "pandas", "statsmodels", "matplotlib", "jinja2")
N_BLOCKS = 4
CHANCE = 0.5
FEWEST_AT_A_LOOK = 8
"""Simulated in docs/statistics.md: with 4 readers a look errs twice as often as it is allowed."""


class AnalysisError(ValueError):
    """Responses from which the planned analysis cannot be made, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What one participant did."""

    participant_id: str
    excluded: str | None
    """Why, as a clause; None for a reader who counts."""
    n_trials: int
    n_correct: int
    accuracy: Estimate
    """Wilson."""
    detection: Detection | None
    """None for a reader who has not judged both kinds."""
    median_response_time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """The primary outcome, and what it shows at the level that was declared."""

    outcome: Outcome
    interval: Estimate
    """Of the outcome; with declared looks the repeated interval of this look."""
    alpha: float
    """Level of the test of difference from 0.5: the look's, where looks were declared."""
    p_difference: float | None
    equivalence: EquivalenceTest | None
    """None where the protocol declares no margin."""
    verdict: Verdict | None
    """None likewise."""
    look: Look | None
    n_looks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that the report shows."""

    study_id: str
    title: str
    protocol_hash: str
    data_digest: str
    """SHA-256 of the response file."""
    confidence_level: float
    first_response_at: str | None
    last_response_at: str | None

    n_planned_readers: int
    n_planned_trials: int
    n_readers: int
    n_counted_readers: int
    n_cases: int
    n_responses: int
    """All judgements, also those of excluded readers and of repeats."""
    n_repeats: int
    n_attention: int
    """Answers to attention checks, which are in no result."""

    primary: Primary
    without_exclusions: Outcome | None
    """The primary outcome over all readers; None where nobody was left out."""
    outcomes: tuple[Outcome, ...]
    """Accuracy, sensitivity, specificity, and the area under the ROC curve."""
    secondary: tuple[Tested, ...]
    excluded: tuple[Excluded, ...]
    cautions: tuple[str, ...]

    readers: tuple[Reader, ...]
    by_class_real: tuple[Part, ...]
    by_class_generated: tuple[Part, ...]
    by_generator: tuple[Part, ...]
    by_experience: tuple[Part, ...]
    by_confidence: tuple[Part, ...]
    by_block: tuple[Part, ...]

    confidence: ConfidenceResults
    psychometric: PsychometricResults
    agreement: AgreementResults
    software: dict[str, str]

    def to_json(self) -> str:
        """All results in full precision; what is not estimable or infinite is null."""
        return json.dumps(plain(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def analyse(
    protocol: Protocol, responses: pd.DataFrame, *, data_digest: str, is_closed: bool = False
) -> Results:
    """The planned analysis of one study.

    Args:
        responses: as `studies.responses.read_responses` gives them.
        data_digest: SHA-256 of the file they came from, in hex.
        is_closed: the study is over, though fewer readers came than the last declared look.

    Raises:
        ResponseError: if the responses were given under another protocol.
        AnalysisError: if nobody counts, readers judged different stimuli, or only one kind.
        UndeclaredLookError: if looks were declared, but none at this number of readers.
    """
    plan, level = protocol.analysis, protocol.analysis.confidence_level
    cautions = check_protocol(responses, protocol)
    everything = responses.assign(
        is_correct=(responses["response"] == "generated") == responses["is_synthetic"]
    ).sort_values(["participant_id", "stimulus_id"], kind="stable")
    is_repeat = everything.get("repeat_number", pd.Series(1, index=everything.index)) > 1
    left_out = excluded(everything[~is_repeat], protocol)
    everything = without_attention(everything)
    is_repeat = is_repeat[everything.index]
    first = everything[~is_repeat]
    judged = first[~first["participant_id"].isin({one.participant_id for one in left_out})]
    _refuse_what_cannot_be_analysed(protocol, first, judged, left_out)
    repeats = everything[is_repeat & everything["participant_id"].isin(judged["participant_id"])]
    # A confidence that is missing in some rows is not analysed; the cautions say so.
    shown = judged if is_rated(judged) else judged.drop(columns="confidence", errors="ignore")

    outcomes = tuple(
        outcome(name, judged, protocol)
        for name in ("accuracy", "sensitivity", "specificity", "auc")
    )
    primary = _primary(
        next(one for one in outcomes if one.name == plan.primary), protocol, is_closed
    )
    is_generated, n_counted = judged["is_synthetic"], int(judged["participant_id"].nunique())
    has_moments = "responded_at" in responses
    return Results(
        study_id=protocol.study_id,
        title=protocol.title,
        protocol_hash=protocol.protocol_hash,
        data_digest=data_digest,
        confidence_level=level,
        first_response_at=_moment(responses["responded_at"].min()) if has_moments else None,
        last_response_at=_moment(responses["responded_at"].max()) if has_moments else None,
        n_planned_readers=protocol.n_participants,
        n_planned_trials=n_planned(protocol),
        n_readers=int(first["participant_id"].nunique()),
        n_counted_readers=n_counted,
        n_cases=int(judged["stimulus_id"].nunique()),
        n_responses=len(everything),
        n_repeats=int(is_repeat.sum()),
        n_attention=len(responses) - len(everything),
        primary=primary,
        without_exclusions=outcome(plan.primary, first, protocol) if left_out else None,
        outcomes=outcomes,
        secondary=secondary_tests(judged, protocol),
        excluded=left_out,
        cautions=(*cautions, *_cautions(protocol, judged, left_out, primary)),
        readers=_readers(first, left_out, level),
        by_class_real=_parts(judged[~is_generated], "class_name", level),
        by_class_generated=_parts(judged[is_generated], "class_name", level),
        by_generator=_parts(judged[is_generated], "generator", level),
        by_experience=_parts(judged, "experience", level),
        by_confidence=_parts(judged, "confidence", level),
        by_block=_blocks(judged, protocol.n_shown, level),
        confidence=analyse_confidence(shown, repeats, protocol),
        psychometric=analyse_psychometric(shown, repeats, protocol),
        agreement=analyse_agreement(shown, repeats, protocol),
        software=_software(),
    )


def _refuse_what_cannot_be_analysed(
    protocol: Protocol, first: pd.DataFrame, judged: pd.DataFrame, left_out: tuple[Excluded, ...]
) -> None:
    if judged.empty:
        most = int(first.groupby("participant_id").size().max())
        one = left_out[0]
        raise AnalysisError(
            f"none of the {len(left_out)} readers counts (the furthest has judged {most} of "
            f"{n_planned(protocol)} stimuli; {one.participant_id} {one.reason}); wait until at "
            "least one is through, better all."
        )
    n_cases = int(judged["stimulus_id"].nunique())
    if n_cases > n_planned(protocol):
        raise AnalysisError(
            f"the {judged['participant_id'].nunique()} readers who count judged {n_cases} "
            f"different stimuli, not the same {n_planned(protocol)}; a crossed study shows every "
            "reader the same ones, so do not mix responses of different stimulus sets."
        )
    kinds = judged["is_synthetic"].unique()
    if len(kinds) == 1:
        raise AnalysisError(
            f"all stimuli are {'generated' if kinds[0] else 'real'}; accuracy of a study of "
            "authenticity needs both kinds, so check the column `is_synthetic`."
        )


def _primary(found: Outcome, protocol: Protocol, is_closed: bool) -> Primary:
    plan, headline = protocol.analysis, found.headline
    alpha = one_sided = plan.alpha
    look, interval = None, headline
    if plan.looks and plan.spending is not None:
        both, each = (
            sequential_plan(plan.looks, alpha=plan.alpha, spending=plan.spending, sides=sides)
            for sides in (2, 1)
        )
        n = found.n_readers
        is_last = is_closed or n >= plan.looks[-1]
        look, look_one_sided = (
            one.closing_look(n) if is_last else one.look_at(n) for one in (both, each)
        )
        alpha, one_sided = look.nominal_alpha, look_one_sided.nominal_alpha
        if headline.estimate is not None and headline.standard_error:
            interval = repeated_interval(
                both, look, headline.estimate, headline.standard_error, df=headline.df
            )
    error = headline.standard_error if headline.is_estimable else None
    p_difference = clustered_difference(headline.estimate, error, headline.df, null=CHANCE)
    equivalence = None
    if plan.equivalence_margin is not None:
        equivalence = clustered_tost(
            headline.estimate,
            error,
            headline.df,
            low=CHANCE - plan.equivalence_margin,
            high=CHANCE + plan.equivalence_margin,
            alpha=one_sided,
        )
    return Primary(
        outcome=found,
        interval=interval,
        alpha=alpha,
        p_difference=p_difference,
        equivalence=equivalence,
        verdict=None if equivalence is None else verdict(equivalence, p_difference, alpha=alpha),
        look=look,
        n_looks=len(plan.looks),
    )


def _readers(
    first: pd.DataFrame, left_out: tuple[Excluded, ...], level: float
) -> tuple[Reader, ...]:
    reasons = {one.participant_id: one.reason for one in left_out}
    named = sorted(first.groupby("participant_id"), key=_as_counted)
    return tuple(_reader(str(name), rows, reasons.get(str(name)), level) for name, rows in named)


def _as_counted(named: tuple[Any, pd.DataFrame]) -> list[tuple[int, str]]:
    # reader-2 before reader-10
    return [(int(part or -1), text) for text, part in re.findall(r"(\D*)(\d*)", str(named[0]))]


def _reader(name: str, rows: pd.DataFrame, reason: str | None, level: float) -> Reader:
    is_signal, is_correct = rows["is_synthetic"], rows["is_correct"]
    counts = [
        int((kind & right).sum())
        for kind, right in (
            (is_signal, is_correct),
            (is_signal, ~is_correct),
            (~is_signal, ~is_correct),
            (~is_signal, is_correct),
        )
    ]
    has_both = 0 < int(is_signal.sum()) < len(rows)
    has_times = "response_time_s" in rows and bool(rows["response_time_s"].notna().any())
    return Reader(
        participant_id=name,
        excluded=reason,
        n_trials=len(rows),
        n_correct=int(is_correct.sum()),
        accuracy=independent(int(is_correct.sum()), len(rows), level),
        detection=detection(*counts, confidence_level=level) if has_both else None,
        median_response_time_s=float(rows["response_time_s"].median()) if has_times else None,
    )


def _parts(rows: pd.DataFrame, column: str, level: float) -> tuple[Part, ...]:
    if column not in rows:
        return ()
    by = rows[column].where(rows[column].astype(str) != "")
    if pd.api.types.is_float_dtype(by):
        by = by.astype("Int64")  # whole confidence points, some missing
    return parts(rows, by, level)


def _blocks(judged: pd.DataFrame, n_shown: int, level: float) -> tuple[Part, ...]:
    if "trial_number" not in judged:
        return ()
    # Repeats that no protocol plans may take places too, so that a first showing comes later.
    n_last = max(n_shown, int(judged["trial_number"].max()))
    blocks = np.array_split(np.arange(1, n_last + 1), min(N_BLOCKS, n_last))
    return tuple(
        part
        for block in blocks
        if len(rows := judged[judged["trial_number"].between(block[0], block[-1])])
        for part in parts(rows, pd.Series(f"{block[0]}–{block[-1]}", index=rows.index), level)
    )


def _cautions(
    protocol: Protocol, judged: pd.DataFrame, left_out: tuple[Excluded, ...], primary: Primary
) -> Iterable[str]:
    n_counted = int(judged["participant_id"].nunique())
    if left_out:
        yield (
            f"{len(left_out)} of {n_counted + len(left_out)} readers are left out by the rules "
            "that hold for this study. They are shown below, and so is the primary outcome with "
            "them."
        )
    if n_counted < protocol.n_participants and not protocol.analysis.looks:
        yield (
            f"The protocol planned {protocol.n_participants} readers; {n_counted} count. "
            "Results seen before the planned number is reached must not decide when to stop."
        )
    if "confidence" in judged and not is_rated(judged):
        yield (
            f"{int(judged['confidence'].isna().sum())} of {len(judged)} judgements have no "
            "confidence. What needs the confidence of every judgement is not analysed."
        )
    found = primary.outcome
    if primary.look is not None and n_counted < FEWEST_AT_A_LOOK:
        yield (
            f"This look has {n_counted} readers. With fewer than {FEWEST_AT_A_LOOK} the test errs "
            "more often than its small level says: do not stop for a result that is barely enough."
        )
    if n_counted == 1:
        yield ("One reader says nothing about other readers: the result is for this reader only.")
    elif n_counted < FEWEST_READERS:
        yield (
            f"With {n_counted} readers (fewer than {FEWEST_READERS}) the interval for other "
            "readers is fragile; rely on the line “these readers only” and do not generalise."
        )
    if found.design_effect is not None and found.design_effect < 1:
        yield (
            "The estimated variance is smaller than that of independent judgements. Readers and "
            "pictures seldom do that, small samples of them often: do not take it for precision."
        )
    if not found.headline.is_estimable:
        yield (
            f"No interval can be given for the primary outcome: {found.headline.reason}. That is "
            "no sign of certainty."
        )


def _moment(moment: pd.Timestamp) -> str | None:
    return None if pd.isna(moment) else moment.isoformat(timespec="seconds")


def _software() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def plain(value: Any) -> Any:
    """A result as JSON takes it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
