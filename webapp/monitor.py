"""How readers are getting on: progress, times, dropouts, attention; never accuracy."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from sqlalchemy import Connection, func, select

from studies.protocol import Protocol
from webapp import log
from webapp.queries import (
    LIVE,
    OF_FIRST,
    Facts,
    consent,
    link,
    participant,
    presentation,
    response,
    stimulus,
    trial,
)
from webapp.store import truth_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStatus:
    """One reader, without practice and without a hint of how well they judge."""

    participant_id: str
    label: str
    is_bot: bool
    state: Literal["invited", "consented", "reading", "finished", "withdrawn", "stale"]
    """Stale: begun, not finished, and silent for longer than the protocol's `live_days`."""
    link: Literal["valid", "expired", "revoked"]
    n_answered: int
    n_trials: int
    median_response_time_s: float | None
    last_seen_at: str
    """Last consent, showing or answer; empty if never."""
    hidden_share: float | None
    """Of the answers: how many were given to a tab that was hidden at some time."""
    attention: tuple[int, int]
    """Obvious controls that the reader got right, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One line of a list of studies."""

    study_id: str
    protocol: Protocol
    state: str
    created_at: str
    frozen_hash: str
    audit_json: str
    """The blinding audit's report; empty until audited."""
    audit_passed: bool | None
    n_invited: int
    n_finished: int
    n_answers: int
    """Without practice, without what was taken back; scripted readers are in all three."""


def summary(connection: Connection, found: Facts) -> StudySummary:
    """A study's row of `study`, and how far its readers are."""
    answers = (
        select(trial.c.participant_id, func.count().label("n"))
        .select_from(trial)
        .join(response, LIVE)
        .where(trial.c.study_id == found.study_id, trial.c.kind != "practice")
        .group_by(trial.c.participant_id)
    )
    counts = [row.n for row in connection.execute(answers)]
    invited = select(func.count()).where(participant.c.study_id == found.study_id)
    protocol = Protocol.model_validate_json(found.protocol_json)
    return StudySummary(
        study_id=found.study_id,
        protocol=protocol,
        state=found.state,
        created_at=found.created_at,
        frozen_hash=found.frozen_hash,
        audit_json=found.audit_json,
        audit_passed=log.said(log.events(connection, found.study_id)).get("passed"),
        n_invited=connection.execute(invited).scalar_one(),
        n_finished=sum(n == protocol.n_shown for n in counts),
        n_answers=sum(counts),
    )


def statuses(connection: Connection, protocol: Protocol, now: datetime) -> list[ReaderStatus]:
    """All readers of a study by number."""
    answers: defaultdict[str, list[Facts]] = defaultdict(list)
    for answer in connection.execute(
        select(
            *(trial.c.participant_id, trial.c.kind, response.c.response_time_s),
            *(response.c.client_json, response.c.responded_at),
        )
        .select_from(trial)
        .join(response, LIVE)
        .where(trial.c.study_id == protocol.study_id, trial.c.kind != "practice")
    ):
        answers[answer.participant_id].append(answer)
    controls: defaultdict[str, list[bool]] = defaultdict(list)
    for who, design, given, is_synthetic in connection.execute(
        select(
            *(trial.c.participant_id, trial.c.design, response.c.response),
            stimulus.c.is_synthetic,
        )
        .select_from(trial)
        .join(response, LIVE)
        .join(stimulus, OF_FIRST)
        .where(trial.c.study_id == protocol.study_id, trial.c.kind == "attention")
    ):
        controls[who].append(given == truth_of(design, is_synthetic, ""))
    newest = connection.execute(
        select(trial.c.participant_id, func.max(presentation.c.presented_at).label("at"))
        .join_from(trial, presentation)
        .where(trial.c.study_id == protocol.study_id)
        .group_by(trial.c.participant_id)
    )
    shown_at: dict[str, str] = {row.participant_id: row.at for row in newest}
    links: dict[str, Literal["valid", "expired", "revoked"]] = {}
    for one in connection.execute(
        select(link)
        .join(participant, participant.c.participant_id == link.c.participant_id)
        .where(participant.c.study_id == protocol.study_id)
        .order_by(link.c.issued_at)
    ):
        expired: Literal["valid", "expired"] = (
            "expired" if datetime.fromisoformat(one.expires_at) <= now else "valid"
        )
        links[one.participant_id] = "revoked" if one.revoked_at else expired
    readers = connection.execute(
        select(participant, consent.c.consented_at)
        .outerjoin(consent, consent.c.participant_id == participant.c.participant_id)
        .where(participant.c.study_id == protocol.study_id)
        .order_by(participant.c.participant_number)
    )
    live_since = (now - timedelta(days=protocol.conduct.live_days)).isoformat()
    found: list[ReaderStatus] = []
    for reader in readers:
        given = answers[reader.participant_id]
        consented_at = reader.consented_at or ""
        answered_at = max((one.responded_at for one in given), default=consented_at)
        found.append(
            ReaderStatus(
                participant_id=reader.participant_id,
                label=reader.label,
                is_bot=reader.is_bot,
                state=_state(reader, len(given), protocol.n_shown, answered_at >= live_since),
                link=links[reader.participant_id],
                n_answered=len(given),
                n_trials=protocol.n_shown,
                median_response_time_s=median(one.response_time_s for one in given)
                if given
                else None,
                last_seen_at=max(
                    consented_at, answered_at, shown_at.get(reader.participant_id, "")
                ),
                hidden_share=sum(map(_was_hidden, given)) / len(given) if given else None,
                attention=(
                    sum(controls[reader.participant_id]),
                    len(controls[reader.participant_id]),
                ),
            )
        )
    return found


def _state(
    reader: Facts, n_answered: int, n_trials: int, is_live: bool
) -> Literal["invited", "consented", "reading", "finished", "withdrawn", "stale"]:
    if reader.withdrawn_at:
        return "withdrawn"
    if not reader.consented_at:
        return "invited"
    if n_answered == n_trials:
        return "finished"
    if not is_live:
        return "stale"
    return "reading" if n_answered else "consented"


def _was_hidden(answer: Facts) -> bool:
    return bool(json.loads(answer.client_json).get("hidden_s", 0))
