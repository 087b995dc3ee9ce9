import dataclasses
import hashlib

import pytest

from webapp.chain import Event, event_hash, verify


def log(*kinds):
    events, previous = [], ""
    for number, kind in enumerate(kinds, 1):
        content = (number, "2026-01-31T09:30:00+00:00", "eva", kind)
        new = event_hash(previous, *content, "{}")
        events.append(
            Event(
                **dict(zip(("number", "at", "actor", "kind"), content, strict=True)),
                detail_json="{}",
                previous_hash=previous,
                event_hash=new,
            )
        )
        previous = new
    return events


def test_the_hash_is_sha256_of_a_json_list():
    stored = '["", 1, "2026-01-31T09:30:00+00:00", "Eva Müller", "created", "{}"]'
    digest = hashlib.sha256(stored.encode()).hexdigest()
    assert event_hash("", 1, "2026-01-31T09:30:00+00:00", "Eva Müller", "created", "{}") == digest


@pytest.mark.parametrize("n_events", [0, 1, 3])
def test_a_whole_log_has_no_problem(n_events):
    assert verify(log(*("created", "audited", "frozen")[:n_events])) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("at", "2025-01-01"), ("actor", "adam"), ("kind", "opened"), ("detail_json", '{"a": 1}')],
)
def test_whatever_is_edited_is_named(field, value):
    events = log("created", "audited", "frozen")
    events[1] = dataclasses.replace(events[1], **{field: value})
    (problem,) = verify(events)
    assert "event 2" in problem
    assert "was changed after it was written" in problem


def test_an_event_edited_with_its_hash_breaks_the_next_one():
    events = log("created", "audited", "frozen")
    content = (events[1].previous_hash, 2, events[1].at, "adam", "audited", "{}")
    events[1] = dataclasses.replace(events[1], actor="adam", event_hash=event_hash(*content))
    assert verify(events) == ["event 3 (frozen) does not continue event 2"]


def test_a_missing_event_is_missed():
    events = log("created", "audited", "frozen")
    assert verify([events[0], events[2]]) == ["event 2 is missing; event 3 follows instead"]
    assert verify(events[1:]) == ["event 1 is missing; event 2 follows instead"]


def test_two_events_that_change_places_are_missed():
    events = log("created", "audited", "frozen")
    assert verify([events[0], events[2], events[1]])
