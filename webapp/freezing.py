"""One hash over all that is promised before the first reader, and what may be amended later."""

import hashlib
import json
from collections.abc import Iterator

from sqlalchemy import Connection, select

from studies.allocation import PlannedTrial, n_arms, schedule
from studies.protocol import Protocol
from webapp import chain, log
from webapp.enrolment import pools
from webapp.queries import Facts, participant, stimulus, trial

AMENDABLE = {
    *("title", "consent_text", "consent_version", "instructions", "languages", "texts"),
    *("n_participants", "analysis.looks"),
}
"""What may change once readers have begun: it leaves the answers given so far valid."""


def frozen_hash(connection: Connection, protocol: Protocol) -> str:
    """SHA-256 of protocol, stimuli, allocation and analysis plan together.

    The allocation is that of the first `n_participants` in every arm.
    """
    shown = pools(connection, protocol.study_id)
    promised = {
        "protocol": protocol.protocol_hash,
        "analysis": protocol.analysis.model_dump(mode="json"),
        "stimuli": list(_stimuli(connection, protocol.study_id)),
        "allocation": [
            [_row(planned) for planned in schedule(protocol, shown, number, arm)]
            for number in range(1, protocol.n_participants + 1)
            for arm in range(n_arms(protocol))
        ],
    }
    canonical = json.dumps(promised, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def problems(connection: Connection, found: Facts) -> list[str]:
    """What of a study's row, log, stimuli and schedules does not fit together, in words."""
    events = log.events(connection, found.study_id)
    protocol = Protocol.model_validate_json(found.protocol_json)
    wrong = chain.verify(events)
    if protocol.protocol_hash != found.protocol_hash:
        wrong.append("the stored protocol is not the one of its hash")
    stored = {
        "state": found.state,
        "protocol_hash": found.protocol_hash,
        "frozen_hash": found.frozen_hash,
        "report_digest": digest(found.audit_json) if found.audit_json else "",
    }
    said = log.said(events)
    wrong += [
        f"the log ends with {name} {said.get(name, '')!r}, the study has {value!r}"
        for name, value in stored.items()
        if said.get(name, "") != value
    ]
    if found.frozen_hash:
        if frozen_hash(connection, protocol) != found.frozen_hash:
            wrong.append("protocol, stimuli or allocation are not those that were frozen")
        wrong += [
            f"the schedule of {participant_id} is not the one that was frozen"
            for participant_id in _changed_schedules(connection, protocol)
        ]
    return wrong


def changes(before: Protocol, after: Protocol) -> set[str]:
    """Names of the fields that differ; of the analysis plan, its own."""
    changed = {
        name for name in Protocol.model_fields if getattr(before, name) != getattr(after, name)
    }
    if "analysis" in changed:
        changed.remove("analysis")
        changed |= {
            f"analysis.{name}"
            for name in type(before.analysis).model_fields
            if getattr(before.analysis, name) != getattr(after.analysis, name)
        }
    return changed


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _changed_schedules(connection: Connection, protocol: Protocol) -> Iterator[str]:
    shown = pools(connection, protocol.study_id)
    readers = connection.execute(
        select(participant.c.participant_id, participant.c.participant_number, participant.c.arm)
        .where(participant.c.study_id == protocol.study_id, participant.c.arm.is_not(None))
        .order_by(participant.c.participant_number)
    ).all()
    for participant_id, number, arm in readers:
        stored = connection.execute(
            select(
                *(trial.c.position, trial.c.trial_number, trial.c.block_number, trial.c.design),
                *(trial.c.kind, trial.c.stimulus_id, trial.c.second_stimulus_id),
            )
            .where(trial.c.participant_id == participant_id)
            .order_by(trial.c.position)
        ).all()
        planned = [_row(one) for one in schedule(protocol, shown, number, arm)]
        if [list(row) for row in stored] != planned:
            yield participant_id


def _row(planned: PlannedTrial) -> list[str | int | None]:
    return [
        *(planned.position, planned.trial_number, planned.block_number, planned.design),
        *(planned.kind, planned.stimulus_ids[0], (*planned.stimulus_ids, None)[1]),
    ]


def _stimuli(connection: Connection, study_id: str) -> Iterator[list[str | bool]]:
    columns = (stimulus.c.stimulus_id, stimulus.c.pool, stimulus.c.class_name)
    rows = connection.execute(
        select(*columns, stimulus.c.is_synthetic)
        .where(stimulus.c.study_id == study_id)
        .order_by(stimulus.c.stimulus_id)
    ).all()
    for row in rows:  # one at a time: all pictures together would fill the memory
        png = connection.execute(
            select(stimulus.c.png).where(
                stimulus.c.study_id == study_id, stimulus.c.stimulus_id == row.stimulus_id
            )
        ).scalar_one()
        yield [*row, hashlib.sha256(png).hexdigest()]
