import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from studies.allocation import allocate
from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import enrol, protocol
from webapp.errors import WebappError
from webapp.store import Answer, Store


@pytest.fixture
def readers(store, stimuli):
    return enrol(store, protocol(), stimuli)


@pytest.fixture
def reader(readers):
    return next(iter(readers))


def answer(trial, **changes):
    values = {
        "presentation_token": trial.presentation_token,
        "response": "real",
        "confidence": 3,
        "response_time_s": 0.5,
    }
    return Answer.model_validate(values | changes)


def give(store, participant, clock, **changes):
    trial = store.present_next(participant)
    clock.pass_s(2)
    return trial, store.record_response(participant, answer(trial, **changes), confidence_points=6)


def test_only_the_digest_of_a_token_is_stored(store, readers, tmp_path):
    store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("studies.sqlite3*"))
    for token in readers.values():
        assert token.encode() not in stored
    assert all(store.find_reader(token).participant_id == who for who, token in readers.items())


def test_an_unknown_token_finds_nobody(store, readers):
    assert store.find_reader("no such token") is None


def test_a_link_expires(store, readers, clock):
    token = next(iter(readers.values()))
    assert not store.find_reader(token).has_expired
    clock.pass_s(2 * 86400)
    assert store.find_reader(token).has_expired


def test_the_schedule_is_the_allocation(store, stimuli, clock):
    plan = protocol()
    readers = enrol(store, plan, stimuli)
    for number, participant in enumerate(readers, 1):
        for _ in range(plan.n_trials):
            give(store, participant, clock)
        shown = [
            row.stimulus_id
            for row in store.responses(plan.study_id)
            if row.participant_id == participant
        ]
        assert tuple(shown) == allocate(plan, read_stimuli(stimuli), number)
        assert store.present_next(participant) is None


def test_consent_is_stored_with_the_version_and_digest_of_its_words_once(store, reader, tmp_path):
    import hashlib

    plan = protocol(consent_text="Agreed?", consent_version="3b")
    store.record_consent(reader, plan)
    store.record_consent(reader, plan)
    with sqlite3.connect(tmp_path / "studies.sqlite3") as connection:
        rows = connection.execute("SELECT * FROM consent").fetchall()
    connection.close()
    digest = hashlib.sha256(b"Agreed?").hexdigest()
    assert rows == [(reader, "3b", digest, "2026-01-31T09:30:00+00:00")]


def test_an_answer_is_stored_as_it_was_given(store, reader, clock):
    trial, outcome = give(store, reader, clock, response="generated", confidence=6)
    (row,) = store.responses("tiny")
    assert outcome == "stored"
    assert (row.participant_id, row.trial_number) == (reader, trial.trial_number) == (reader, 1)
    assert (row.response, row.confidence, row.response_time_s) == ("generated", 6, 0.5)
    assert (row.responded_at - row.presented_at).total_seconds() == 2


def test_the_same_answer_twice_is_one_row_and_the_first_one_counts(store, reader, clock):
    trial, _ = give(store, reader, clock, response="real")
    changed = answer(trial, response="generated")
    assert store.record_response(reader, changed, confidence_points=6) == "already stored"
    assert [row.response for row in store.responses("tiny")] == ["real"]


def test_the_same_answer_from_many_threads_is_one_row(store, reader, clock):
    trial = store.present_next(reader)
    clock.pass_s(2)

    def submit(_):
        return store.record_response(reader, answer(trial), confidence_points=6)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(submit, range(8)))
    assert sorted(outcomes) == ["already stored"] * 7 + ["stored"]
    assert len(list(store.responses("tiny"))) == 1


def test_an_answer_from_a_second_tab_belongs_to_the_trial_it_was_shown_for(store, reader, clock):
    in_one_tab, in_another = store.present_next(reader), store.present_next(reader)
    clock.pass_s(2)
    assert in_one_tab.presentation_token != in_another.presentation_token
    assert store.record_response(reader, answer(in_another), confidence_points=6) == "stored"
    assert (
        store.record_response(reader, answer(in_one_tab), confidence_points=6) == "already stored"
    )
    assert store.progress(reader).n_answered == 1


def test_another_readers_trial_cannot_be_answered(store, readers, clock):
    mine, theirs = readers
    trial = store.present_next(theirs)
    clock.pass_s(2)
    assert store.record_response(mine, answer(trial), confidence_points=6) == "refused"
    assert store.progress(theirs).n_answered == store.progress(mine).n_answered == 0


def test_a_trial_that_was_never_shown_cannot_be_answered(store, reader):
    invented = Answer(
        presentation_token="invented", response="real", confidence=1, response_time_s=0
    )
    assert store.record_response(reader, invented, confidence_points=6) == "refused"


@pytest.mark.parametrize(
    ("response_time_s", "outcome"), [(0, "stored"), (2.9, "stored"), (60, "refused")]
)
def test_nobody_takes_longer_than_the_time_that_passed(
    store, reader, clock, response_time_s, outcome
):
    _, found = give(store, reader, clock, response_time_s=float(response_time_s))
    assert found == outcome


def test_a_confidence_beyond_the_protocols_scale_is_refused(store, reader, clock):
    _, outcome = give(store, reader, clock, confidence=7)
    assert outcome == "refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "fake"},
        {"confidence": 0},
        {"confidence": "6"},
        {"response_time_s": -0.1},
        {"response_time_s": float("nan")},
        {"trial_number": 3},
    ],
)
def test_what_is_not_an_answer_is_not_taken_for_one(store, reader, changes):
    with pytest.raises(ValidationError):
        answer(store.present_next(reader), **changes)


@pytest.mark.parametrize(
    "values",
    ["'x', 'fake', 1, 1", "'x', 'real', 0, 1", "'x', 'real', 11, 1", "'x', 'real', 1, -1"],
)
def test_the_database_itself_refuses_impossible_answers(store, reader, values):
    token = store.present_next(reader).presentation_token
    with (
        pytest.raises(IntegrityError, match="CHECK"),
        store._engine.begin() as connection,
    ):
        connection.execute(
            text(
                "INSERT INTO response (responded_at, trial_id, presentation_token, response, "
                f"confidence, response_time_s) VALUES ('now', '{reader}-T001', "
                + values.replace("'x'", f"'{token}'")
                + ")"
            )
        )


def test_a_picture_is_given_to_its_reader_only_and_only_until_it_is_judged(store, readers, clock):
    mine, theirs = readers
    trial = store.present_next(mine)
    assert store.image(mine, trial.presentation_token).startswith(b"\x89PNG")
    assert store.image(theirs, trial.presentation_token) is None
    clock.pass_s(2)
    store.record_response(mine, answer(trial), confidence_points=6)
    assert store.image(mine, trial.presentation_token) is None


def test_answers_are_on_disk_before_they_are_acknowledged(store):
    with store._engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_study_is_not_created_twice(store, readers, stimuli):
    with pytest.raises(WebappError, match="created already; its links were written then"):
        enrol(store, protocol(), stimuli)


def test_a_running_study_does_not_change_its_protocol(store, readers, stimuli):
    with pytest.raises(WebappError, match="give the changed one another study_id"):
        enrol(store, protocol(seed=2), stimuli)


def test_a_study_that_cannot_be_added_whole_is_not_added_at_all(store, stimuli):
    plan, chosen = protocol(), read_stimuli(stimuli)
    with pytest.raises(IntegrityError):
        store.add_study(
            plan,
            [(stimulus, b"") for stimulus in chosen],
            [["a stimulus that is not in the set"]],
            valid_days=1,
        )
    assert store.study_ids() == []


def test_a_database_that_is_not_there_is_not_made_by_opening_it(tmp_path):
    with pytest.raises(WebappError, match="holds no study yet; make one with `python -m webapp"):
        Store.open(f"sqlite:///{tmp_path / 'none.sqlite3'}")
    assert not (tmp_path / "none.sqlite3").exists()


def test_an_empty_database_is_not_a_study(tmp_path):
    (tmp_path / "empty.sqlite3").touch()
    with pytest.raises(WebappError, match="holds no study yet"):
        Store.open(f"sqlite:///{tmp_path / 'empty.sqlite3'}")


@pytest.mark.parametrize("url", ["studies.sqlite3", "nosuch://x", ""])
def test_a_database_address_that_is_none_is_answered_with_two_examples(url):
    with pytest.raises(WebappError, match=r"sqlite:///studies.sqlite3, or like postgresql"):
        Store.create(url)


def test_a_database_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(WebappError, match=r"cannot be opened .* check the folder"):
        Store.create(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}")
