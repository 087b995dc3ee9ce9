"""Readers' rows and links, inside a transaction of the registry."""

import csv
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from webapp.errors import WebappError
from webapp.queries import (
    link,
    milestone,
    participant,
    presentation,
    response,
    retraction,
    trial,
)
from webapp.store import token_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A reader's personal link. The token is shown now and never again."""

    participant_id: str
    label: str
    token: str


def labels_in(table: Path) -> list[str]:
    """The column `label` of a CSV file."""
    try:
        rows = list(csv.DictReader(StringIO(table.read_text("utf-8-sig"), newline="")))
        labels = [row["label"].strip() for row in rows]
    except (UnicodeDecodeError, csv.Error, KeyError, AttributeError):
        raise WebappError(
            f"{table.name} is not a table with a column `label`; save it as CSV (UTF-8), its first "
            "line being the names of the columns, then one line for each reader."
        ) from None
    if not labels:
        raise WebappError(f"{table.name} names no reader; add a line for each.")
    return labels


def add(
    connection: Connection,
    study_id: str,
    labels: Sequence[str],
    *,
    language: str,
    is_bot: bool,
    now: datetime,
    valid_days: int,
) -> list[Invitation]:
    """A participant with a link for each label; numbers go on where they stopped."""
    known: set[str] = set()
    n_before = 0
    there = select(participant.c.participant_number, participant.c.label)
    for number, label in connection.execute(there.where(participant.c.study_id == study_id)):
        n_before = max(n_before, number)
        known.add(label)
    invitations: list[Invitation] = []
    for number, label in enumerate(labels, n_before + 1):
        if label and label in known:
            raise WebappError(
                f"{label!r} is invited already; `python -m webapp reissue` makes a new link for "
                "the same reader, and another reader needs another label."
            )
        known.add(label)
        participant_id = f"{study_id}-P{number:02d}"
        connection.execute(
            insert(participant),
            {
                "participant_id": participant_id,
                "study_id": study_id,
                "participant_number": number,
                "label": label,
                "language": language,
                "is_bot": is_bot,
                "withdrawn_at": "",
            },
        )
        token = new_link(connection, participant_id, now=now, valid_days=valid_days)
        invitations.append(Invitation(participant_id=participant_id, label=label, token=token))
    return invitations


def new_link(connection: Connection, participant_id: str, *, now: datetime, valid_days: int) -> str:
    """The token of a link; the database keeps its digest only."""
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(link),
        {
            "token_digest": token_digest(token),
            "participant_id": participant_id,
            "issued_at": now.isoformat(),
            "expires_at": (now + timedelta(days=valid_days)).isoformat(),
            "revoked_at": "",
        },
    )
    return token


def revoke_links(connection: Connection, participant_id: str, now: datetime) -> None:
    """Shut every link that is not shut yet."""
    connection.execute(
        update(link)
        .where(link.c.participant_id == participant_id, link.c.revoked_at == "")
        .values(revoked_at=now.isoformat())
    )


def withdraw(connection: Connection, participant_id: str, *, erases: bool, now: datetime) -> int:
    """Mark a reader as withdrawn; how many answers there were."""
    theirs = select(trial.c.trial_id).where(trial.c.participant_id == participant_id)
    n_answers = connection.execute(
        select(func.count()).where(response.c.trial_id.in_(theirs))
    ).scalar_one()
    values = {"withdrawn_at": now.isoformat()}
    if erases:
        values["label"] = ""
        for table in (retraction, response, presentation):
            connection.execute(delete(table).where(table.c.trial_id.in_(theirs)))
        connection.execute(delete(milestone).where(milestone.c.participant_id == participant_id))
    connection.execute(
        update(participant).where(participant.c.participant_id == participant_id).values(values)
    )
    return n_answers
