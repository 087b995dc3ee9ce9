"""Links, consent and answers; on both kinds of database."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.webapp.studies_at_hand import answer_to, begin, open_study, protocol, take
from webapp.blinding import BlindedTrial


@pytest.fixture
def invitations(registry, stimuli):
    return open_study(registry, protocol(conduct={"undo": True}), stimuli)


@pytest.fixture
def reader(store, invitations):
    return begin(store, invitations[0])


@pytest.fixture(scope="session")
def blinded_trial():
    return BlindedTrial(
        design="authenticity",
        presentation_token="token",
        next_presentation_token=None,
        trial_number=1,
        n_trials=2,
        is_practice=False,
        block_number=1,
        exposure_s=None,
        can_undo=False,
    )


def stored(database, table="response"):
    with database.read() as connection:
        return connection.execute(text(f"SELECT * FROM {table}")).all()


def give(store, participant_id, clock, **changes):
    ((trial, recorded),) = take(store, participant_id, clock, n=1, **changes)
    return trial, recorded.outcome


def test_a_token_finds_its_reader_and_no_other_finds_anybody(store, invitations):
    for one in invitations:
        found = store.find_reader(one.token)
        assert (found.participant_id, found.study_id) == (one.participant_id, "tiny")
        assert (found.language, found.link, found.is_withdrawn) == ("en", "valid", False)
    assert store.find_reader("no such token") is None


def test_only_the_digest_of_a_token_is_stored(database, invitations):
    for table in ("link", "participant", "event"):
        assert not any(one.token in str(stored(database, table)) for one in invitations)


def test_a_link_expires(store, invitations, clock):
    clock.pass_s(2 * 86400)
    assert store.find_reader(invitations[0].token).link == "expired"


def test_consent_is_stored_once_with_the_version_and_digest_of_the_words_that_were_read(
    store, registry, database, stimuli, clock
):
    german = {"de": {"consent_text": "Einverstanden?"}}
    plan = protocol(consent_version="3b", languages=["en", "de"], texts=german)
    (invitation, _) = open_study(registry, plan, stimuli)
    store.record_consent(invitation.participant_id, "de")
    clock.pass_s(60)
    store.record_consent(invitation.participant_id, "en")
    digest = hashlib.sha256(b"Einverstanden?").hexdigest()
    who = invitation.participant_id
    assert stored(database, "consent") == [(who, "3b", digest, "2026-01-31T09:30:00+00:00", "de")]
    assert store.find_reader(invitation.token).language == "de"


def test_a_reader_changes_the_language(store, invitations, reader):
    store.set_language(reader, "de")
    assert store.find_reader(invitations[0].token).language == "de"


def test_nobody_enters_a_study_that_is_not_open(store, registry, invitations):
    registry.close("tiny")
    store.record_consent(invitations[0].participant_id, "en")
    progress = store.progress(invitations[0].participant_id)
    assert not progress.is_open
    assert not progress.has_consented
    assert store.present(invitations[0].participant_id) is None


def test_a_milestone_is_kept_as_it_was_first_given(store, reader, database):
    store.pass_milestone(reader, "background", {"role": "haematologist"})
    store.pass_milestone(reader, "background", {"role": "student"})
    store.pass_milestone(reader, "instructions")
    assert store.progress(reader).milestones == {"background", "instructions"}
    rows = {row.name: json.loads(row.detail_json) for row in stored(database, "milestone")}
    assert rows == {"background": {"role": "haematologist"}, "instructions": {}}


def test_an_answer_is_stored_as_it_was_given(store, reader, clock, database):
    client = {"hidden_s": 1.5, "zoom": 2, "screen": "1280x900"}
    trial, outcome = give(store, reader, clock, response="generated", confidence=6, client=client)
    (row,) = stored(database)
    assert outcome == "stored"
    assert (row.trial_id, row.revision) == (f"{reader}-T001", 1)
    assert row.presentation_token == trial.presentation_token
    assert (row.response, row.confidence, row.response_time_s) == ("generated", 6, 0.5)
    assert row.responded_at == "2026-01-31T09:30:02+00:00"
    assert json.loads(row.client_json) == client


def test_the_same_answer_twice_is_one_row_and_the_first_one_counts(store, reader, clock, database):
    trial, _ = give(store, reader, clock, response="real")
    changed = answer_to(trial, response="generated")
    assert store.record_response(reader, changed).outcome == "already stored"
    assert [row.response for row in stored(database)] == ["real"]


def test_the_same_answer_from_many_threads_is_one_row(store, reader, clock, database):
    trial = store.present(reader)
    clock.pass_s(2)

    def submit(_):
        return store.record_response(reader, answer_to(trial)).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(submit, range(8)))
    assert sorted(outcomes) == ["already stored"] * 7 + ["stored"]
    assert len(stored(database)) == 1


def test_an_answer_from_a_second_tab_belongs_to_the_trial_it_was_shown_for(store, reader, clock):
    in_one_tab, in_another = store.present(reader), store.present(reader)
    clock.pass_s(2)
    assert in_one_tab.presentation_token != in_another.presentation_token
    assert store.record_response(reader, answer_to(in_another)).outcome == "stored"
    assert store.record_response(reader, answer_to(in_one_tab)).outcome == "already stored"
    assert store.progress(reader).n_answered == 1


def test_another_readers_trial_cannot_be_answered(store, invitations, reader, clock):
    other = begin(store, invitations[1])
    trial = store.present(other)
    clock.pass_s(2)
    assert store.record_response(reader, answer_to(trial)).outcome == "refused"
    assert store.progress(other).n_answered == store.progress(reader).n_answered == 0


def test_a_trial_that_was_never_shown_cannot_be_answered(store, reader):
    trial = store.present(reader)
    invented = answer_to(trial, presentation_token="invented")
    assert store.record_response(reader, invented).outcome == "refused"


def test_a_trial_that_is_only_being_fetched_ahead_cannot_be_answered(store, reader, clock):
    trial = store.present(reader)
    clock.pass_s(2)
    ahead = answer_to(trial, presentation_token=trial.next_presentation_token)
    assert store.record_response(reader, ahead).outcome == "refused"
    assert store.record_response(reader, answer_to(trial)).outcome == "stored"


@pytest.mark.parametrize(
    ("response_time_s", "outcome"), [(0.0, "stored"), (2.9, "stored"), (60.0, "refused")]
)
def test_nobody_takes_longer_than_the_time_that_passed(
    store, reader, clock, response_time_s, outcome
):
    assert give(store, reader, clock, response_time_s=response_time_s)[1] == outcome


def test_a_confidence_beyond_the_protocols_scale_is_refused(store, reader, clock):
    assert give(store, reader, clock, confidence=6)[1] == "stored"
    assert (
        store.record_response(
            reader, answer_to(store.present(reader), confidence=7, response_time_s=0.0)
        ).outcome
        == "refused"
    )


def test_a_closed_study_takes_no_answer_but_acknowledges_what_it_has(
    store, registry, reader, clock
):
    first, _ = give(store, reader, clock)
    trial = store.present(reader)
    clock.pass_s(2)
    registry.close("tiny")
    assert store.record_response(reader, answer_to(first)).outcome == "already stored"
    assert store.record_response(reader, answer_to(trial)).outcome == "refused"
    assert store.image(reader, trial.presentation_token, None) is None
    assert store.present(reader) is None
    registry.open("tiny")
    assert store.record_response(reader, answer_to(trial)).outcome == "stored"


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "x" * 65},
        {"confidence": 0},
        {"confidence": 11},
        {"confidence": "6"},
        {"response_time_s": -0.1},
        {"response_time_s": float("nan")},
        {"trial_number": 3},
        {"client": {"a": float("inf")}},
        {"client": {"a": 10**400}},
        {"client": {"a": "x" * 201}},
        {"client": {"x" * 41: 1}},
        {"client": {"a": [1]}},
        {"client": {str(number): number for number in range(25)}},
    ],
)
def test_what_is_not_an_answer_is_not_taken_for_one(blinded_trial, changes):
    with pytest.raises(ValidationError):
        answer_to(blinded_trial, **changes)


@pytest.mark.parametrize(
    "values",
    [
        {"confidence": 0},
        {"confidence": 11},
        {"response_time_s": -1},
        {"revision": 0},
        {"trial_id": "none"},
        {"presentation_token": "none"},
    ],
)
def test_the_database_itself_refuses_impossible_answers(store, reader, database, values):
    row = {
        "trial_id": f"{reader}-T001",
        "revision": 1,
        "presentation_token": store.present(reader).presentation_token,
        "response": "real",
        "confidence": 1,
        "response_time_s": 1,
        "responded_at": "now",
        "client_json": "{}",
    }
    names = ", ".join(row)
    statement = f"INSERT INTO response ({names}) VALUES (:{names.replace(', ', ', :')})"

    def insert(values):
        with database.write() as connection:
            connection.execute(text(statement), values)

    with pytest.raises(IntegrityError):
        insert(row | values)
    insert(row)
