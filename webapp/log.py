"""The audit log of a study in the database: it only grows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, insert, select

from webapp.chain import Event, event_hash
from webapp.queries import event


def append(
    connection: Connection, study_id: str, kind: str, detail: dict[str, Any], *, actor: str, at: str
) -> None:
    """Add an event; the caller has locked the study, so that the number is free."""
    last = connection.execute(
        select(event.c.number, event.c.event_hash)
        .where(event.c.study_id == study_id)
        .order_by(event.c.number.desc())
        .limit(1)
    ).first()
    number, previous = (last.number + 1, last.event_hash) if last else (1, "")
    detail_json = json.dumps(detail, sort_keys=True, ensure_ascii=False)
    new = Event(
        number=number,
        at=at,
        actor=actor,
        kind=kind,
        detail_json=detail_json,
        previous_hash=previous,
        event_hash=event_hash(previous, number, at, actor, kind, detail_json),
    )
    connection.execute(insert(event), {"study_id": study_id} | asdict(new))


def events(connection: Connection, study_id: str) -> list[Event]:
    """The log of a study, the oldest first."""
    columns = [event.c[field.name] for field in fields(Event)]
    rows = connection.execute(
        select(*columns).where(event.c.study_id == study_id).order_by(event.c.number)
    )
    return [Event(**row._mapping) for row in rows]


def said(log: Sequence[Event]) -> dict[str, Any]:
    """State, hashes and whether the audit passed, as a log leaves them."""
    states = {"created": "draft", "migrated": "open", "opened": "open"}
    states |= {state: state for state in ("audited", "frozen", "closed", "unblinded", "reported")}
    facts: dict[str, Any] = {}
    for one in log:
        if one.kind in states:
            facts |= json.loads(one.detail_json) | {"state": states[one.kind]}
        elif one.kind == "amended":
            facts |= json.loads(one.detail_json)
    return facts
