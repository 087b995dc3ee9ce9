"""What readers answered, for analysts: with the truth once a study is unblinded, else in code."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, exists, select

from studies.protocol import Design, Protocol
from webapp.queries import (
    LIVE,
    OF_FIRST,
    Facts,
    consent,
    milestone,
    participant,
    presentation,
    response,
    stimulus,
    trial,
)
from webapp.store import truth_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An answer that counts, with its truth. Practice is none."""

    study_id: str
    protocol_hash: str
    participant_id: str
    arm: int
    trial_id: str
    position: int
    trial_number: int
    block_number: int
    design: Design
    kind: Literal["main", "repeat", "attention"]
    is_primed: bool
    repeat_number: int
    """2 for a repeat within its block, else 1."""
    stimulus_id: str
    """Of a pair: the left one."""
    second_stimulus_id: str | None
    class_name: str
    is_synthetic: bool
    """Of a pair: whether the left one is."""
    generator_digest: str
    """Of the generated picture, also of a pair; empty for a real one."""
    truth: str
    """The right answer, in the words of `response`; empty for a rating."""
    response: str
    confidence: int | None
    response_time_s: float
    presented_at: str
    responded_at: str
    revision: int
    """2 if an earlier answer was taken back."""
    client: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedJudgement:
    """An answer whose truth is a letter, and whose stimulus is a code that no manifest knows.

    Hidden from the eye, not from somebody who sets out to compute it: for that the export of a
    study that is still blinded would have to leave out what the analysis needs.
    """

    study_id: str
    participant_id: str
    position: int
    trial_number: int
    block_number: int
    design: Design
    kind: Literal["main", "repeat", "attention"]
    is_primed: bool
    repeat_number: int
    case_code: str
    class_name: str
    arm_code: Literal["A", "B"]
    """Real or generated; of a pair, the real one left or right. Which is which, no one says."""
    response: str
    confidence: int | None
    response_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRecord:
    """What is known about a reader beside the answers; never the label."""

    participant_id: str
    arm: int | None
    language: str
    is_bot: bool
    consent_version: str | None
    consented_at: str | None
    withdrawn_at: str
    milestones: dict[str, tuple[str, dict[str, Any]]]
    """When each page was left behind, and what was given there: background, calibration …"""


def judgements(connection: Connection, protocol: Protocol, design: Design) -> Iterator[Judgement]:
    """All answers of one design that count, by participant and position."""
    for row in connection.execute(_answers(connection, protocol.study_id, design)):
        yield Judgement(
            study_id=protocol.study_id,
            protocol_hash=protocol.protocol_hash,
            participant_id=row.participant_id,
            arm=row.arm,
            trial_id=row.trial_id,
            position=row.position,
            trial_number=row.trial_number,
            block_number=row.block_number,
            design=row.design,
            kind=row.kind,
            is_primed=protocol.rounds[row.block_number - 1].primed,
            repeat_number=1 + (row.kind == "repeat"),
            stimulus_id=row.stimulus_id,
            second_stimulus_id=row.second_stimulus_id,
            class_name=row.class_name,
            is_synthetic=row.is_synthetic,
            generator_digest=row.generator_digest or row.second_generator_digest or "",
            truth=truth_of(row.design, row.is_synthetic, row.class_name),
            response=row.response,
            confidence=row.confidence,
            response_time_s=row.response_time_s,
            presented_at=row.presented_at,
            responded_at=row.responded_at,
            revision=row.revision,
            client=json.loads(row.client_json),
        )


def coded_judgements(
    connection: Connection, protocol: Protocol, design: Design, frozen_hash: str
) -> Iterator[CodedJudgement]:
    """The same with letters for the truth."""
    swaps = int(_code(frozen_hash, "arms"), 16) % 2 == 1
    for row in connection.execute(_answers(connection, protocol.study_id, design)):
        yield CodedJudgement(
            study_id=protocol.study_id,
            participant_id=row.participant_id,
            position=row.position,
            trial_number=row.trial_number,
            block_number=row.block_number,
            design=row.design,
            kind=row.kind,
            is_primed=protocol.rounds[row.block_number - 1].primed,
            repeat_number=1 + (row.kind == "repeat"),
            case_code=_code(frozen_hash, *sorted(filter(None, _shown(row)))),
            # Of a classification it is the answer.
            class_name="" if row.design == "classification" else row.class_name,
            arm_code="A" if row.is_synthetic == swaps else "B",
            response=row.response,
            confidence=row.confidence,
            response_time_s=row.response_time_s,
        )


def readers(connection: Connection, study_id: str) -> list[ReaderRecord]:
    """All readers of a study, scripted ones too, by number."""
    passed: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    for one in connection.execute(
        select(milestone)
        .join(participant, participant.c.participant_id == milestone.c.participant_id)
        .where(participant.c.study_id == study_id)
        .order_by(milestone.c.at)
    ):
        passed.setdefault(one.participant_id, {})[one.name] = (one.at, json.loads(one.detail_json))
    found = connection.execute(
        select(participant, consent.c.consent_version, consent.c.consented_at)
        .outerjoin(consent, consent.c.participant_id == participant.c.participant_id)
        .where(participant.c.study_id == study_id)
        .order_by(participant.c.participant_number)
    )
    return [
        ReaderRecord(
            participant_id=one.participant_id,
            arm=one.arm,
            language=one.language,
            is_bot=one.is_bot,
            consent_version=one.consent_version,
            consented_at=one.consented_at,
            withdrawn_at=one.withdrawn_at,
            milestones=passed.get(one.participant_id, {}),
        )
        for one in found
    ]


def _answers(connection: Connection, study_id: str, design: Design) -> Select[Any]:
    """Without practice, and without scripted readers unless there are no others."""
    second = stimulus.alias("second")
    has_people = connection.execute(
        select(exists().where(participant.c.study_id == study_id, ~participant.c.is_bot))
    ).scalar_one()
    return (
        select(
            *(trial, participant.c.arm, stimulus.c.class_name, stimulus.c.is_synthetic),
            *(
                stimulus.c.generator_digest,
                second.c.generator_digest.label("second_generator_digest"),
            ),
            *(response.c.revision, response.c.response, response.c.confidence),
            *(response.c.response_time_s, response.c.responded_at, response.c.client_json),
            presentation.c.presented_at,
        )
        .select_from(trial)
        .join(participant, participant.c.participant_id == trial.c.participant_id)
        .join(response, LIVE)
        .join(presentation, presentation.c.token == response.c.presentation_token)
        .join(stimulus, OF_FIRST)
        .outerjoin(
            second,
            (second.c.study_id == trial.c.study_id)
            & (second.c.stimulus_id == trial.c.second_stimulus_id),
        )
        .where(
            trial.c.study_id == study_id,
            trial.c.design == design,
            trial.c.kind != "practice",
            participant.c.is_bot != has_people,
        )
        .order_by(participant.c.participant_number, trial.c.position)
    )


def _shown(row: Facts) -> tuple[str, str | None]:
    return row.stimulus_id, row.second_stimulus_id


def _code(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
