"""The audit log's chain: each event's hash covers the one before, so that no past can be edited."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was done to a study, by whom."""

    number: int
    at: str
    actor: str
    kind: str
    detail_json: str
    previous_hash: str
    event_hash: str


def event_hash(previous: str, number: int, at: str, actor: str, kind: str, detail: str) -> str:
    """SHA-256, in hex, of an event and of all before it.

    Args:
        previous: hash of the event before; empty for the first.
        detail: JSON as it is stored.
    """
    # As JSON, so that no two lists of texts look alike.
    values = json.dumps([previous, number, at, actor, kind, detail], ensure_ascii=False)
    return hashlib.sha256(values.encode()).hexdigest()


def verify(events: Sequence[Event]) -> list[str]:
    """What is wrong with a log, in words; empty if it is whole.

    The end of a log cannot be missed here: keep the newest hash elsewhere, in a report.
    """
    problems: list[str] = []
    previous = ""
    for number, event in enumerate(events, 1):
        if event.number != number:
            problems.append(f"event {number} is missing; event {event.number} follows instead")
            break
        if event.previous_hash != previous:
            problems.append(f"event {number} ({event.kind}) does not continue event {number - 1}")
        content = (event.previous_hash, number, event.at, event.actor, event.kind)
        if event_hash(*content, event.detail_json) != event.event_hash:
            problems.append(f"event {number} ({event.kind}) was changed after it was written")
        previous = event.event_hash
    return problems
