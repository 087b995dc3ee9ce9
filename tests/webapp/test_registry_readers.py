"""Readers and their answers, as researchers see them; on both kinds of database."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import text

from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import (
    ALL_DESIGNS,
    answer_to,
    begin,
    open_study,
    pictures,
    protocol,
    take,
)
from webapp.errors import WebappError
from webapp.registry import ReaderStatus

DAY_S = 86400


@pytest.fixture
def invitations(registry, stimuli):
    return open_study(registry, protocol(), stimuli, n_readers=4)


@pytest.fixture
def all_designs(registry, stimuli_48, practice_stimuli, attention_stimuli):
    pools = {"practice": practice_stimuli, "attention": attention_stimuli}
    return open_study(registry, protocol(**ALL_DESIGNS), stimuli_48, **pools)


def count(database, table):
    with database.read() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def last_event(registry):
    newest = registry.events("tiny")[-1]
    return newest.kind, json.loads(newest.detail_json)


def unblind(registry):
    registry.close("tiny")
    registry.unblind("tiny", "all have answered")


def test_readers_are_numbered_on_and_each_has_a_token_of_their_own(registry, invitations):
    more = registry.invite("tiny", ["Dr. Extra"], valid_days=7, language="en")
    everybody = [*invitations, *more]
    assert [one.participant_id for one in everybody] == [f"tiny-P0{n}" for n in range(1, 6)]
    assert more[0].label == "Dr. Extra"
    assert len({one.token for one in everybody}) == 5
    kind, detail = last_event(registry)
    assert kind == "invited"
    assert detail == {"participants": ["tiny-P05"], "valid_days": 7, "is_bot": False}


def test_neither_label_nor_token_is_in_the_log(registry, invitations):
    told = "".join(one.detail_json for one in registry.events("tiny"))
    assert not any(one.label in told or one.token in told for one in invitations)


def test_the_same_label_is_not_invited_twice_and_then_nobody_is(registry, invitations):
    with pytest.raises(WebappError, match=r"'reader 2' is invited already; .* reissue"):
        registry.invite("tiny", ["new", "reader 2"], valid_days=1)
    assert len(registry.monitor("tiny")) == 4


def test_a_language_that_the_study_does_not_have_is_refused(registry, invitations):
    with pytest.raises(WebappError, match=r"'de' is not one of the study's \(en\); invite in one"):
        registry.invite("tiny", ["new"], valid_days=1, language="de")


def test_a_new_link_leads_to_the_same_trial_and_the_old_one_nowhere(
    registry, store, invitations, clock
):
    first = invitations[0]
    take(store, begin(store, first), clock, n=3)
    clock.pass_s(2 * DAY_S)
    token = registry.reissue(first.participant_id, valid_days=1)
    assert last_event(registry) == (
        "reissued",
        {"participant_id": "tiny-P01", "valid_days": 1},
    )
    assert store.find_reader(first.token).link == "revoked"
    found = store.find_reader(token)
    assert (found.participant_id, found.link) == (first.participant_id, "valid")
    assert store.progress(found.participant_id).n_answered == 3
    assert registry.monitor("tiny")[0].link == "valid"


def test_a_revoked_link_opens_nothing_and_nothing_is_lost(registry, store, invitations, clock):
    reader = begin(store, invitations[0])
    take(store, reader, clock, n=3)
    registry.revoke(reader)
    assert store.find_reader(invitations[0].token).link == "revoked"
    assert registry.monitor("tiny")[0].link == "revoked"
    assert store.progress(reader).n_answered == 3
    assert last_event(registry) == ("revoked", {"participant_id": reader})


@pytest.mark.parametrize("policy", ["keep", "erase"])
def test_what_a_reader_who_withdraws_gave_is_kept_or_erased_as_the_protocol_says(
    registry, store, database, stimuli, clock, policy
):
    plan = protocol(conduct={"withdrawal": policy, "undo": True})
    leaver, other = (begin(store, one) for one in open_study(registry, plan, stimuli))
    store.pass_milestone(leaver, "background", {"role": "haematologist"})
    take(store, leaver, clock, n=3)
    store.undo(leaver)
    take(store, other, clock, n=2)
    trial = store.present(leaver)
    registry.withdraw(leaver, "no time")
    kind, detail = last_event(registry)
    assert kind == "withdrawn"
    assert detail["policy"] == policy
    assert detail["n_answers"] == 3
    assert detail["reason"] == "no time"
    found = registry.monitor("tiny")[0]
    assert (found.state, found.n_answered) == ("withdrawn", 2 if policy == "keep" else 0)
    assert found.label == ("reader 1" if policy == "keep" else "")
    assert count(database, "response") == (5 if policy == "keep" else 2)
    assert count(database, "milestone") == (1 if policy == "keep" else 0)
    assert store.present(leaver) is None
    assert store.image(leaver, trial.presentation_token, None) is None
    assert store.record_response(leaver, answer_to(trial)).outcome == "refused"
    assert store.present(other) is not None
    assert registry.verify("tiny") == []


def test_who_withdrew_is_told_so_and_gets_no_new_link(registry, store, invitations):
    registry.withdraw("tiny-P01", "no time")
    assert store.find_reader(invitations[0].token).is_withdrawn
    with pytest.raises(WebappError, match="has withdrawn and gets no new link; invite another"):
        registry.reissue("tiny-P01", valid_days=1)
    with pytest.raises(WebappError, match="has withdrawn already"):
        registry.withdraw("tiny-P01", "again")


def test_a_participant_who_is_not_there_is_said_so(registry, invitations):
    with pytest.raises(WebappError, match="no participant 'tiny-P09'; `python -m webapp status`"):
        registry.revoke("tiny-P09")


def test_the_monitor_tells_progress_times_and_dropouts(registry, store, stimuli, clock):
    them = open_study(registry, protocol(), stimuli, n_readers=6)
    stale = begin(store, them[4])
    take(store, stale, clock, n=2)
    clock.pass_s(15 * DAY_S)
    begin(store, them[1])
    reading = begin(store, them[2])
    for seconds in (1.0, 2.0, 9.0):
        take(store, reading, clock, n=1, client={"hidden_s": 0.0})
        trial = store.present(reading)
        clock.pass_s(10)
        hidden = {"hidden_s": 4.0 if seconds == 9 else 0.0}
        store.record_response(reading, answer_to(trial, response_time_s=seconds, client=hidden))
    take(store, begin(store, them[3]), clock)
    registry.withdraw(them[5].participant_id, "no time")
    found = registry.monitor("tiny")
    states = "invited consented reading finished stale withdrawn"
    assert " ".join(one.state for one in found) == states
    assert [one.n_answered for one in found] == [0, 0, 6, 12, 2, 0]
    assert {one.n_trials for one in found} == {12}
    assert [one.median_response_time_s for one in found] == [None, None, 0.75, 0.5, 0.5, None]
    assert found[2].hidden_share == pytest.approx(1 / 6)
    assert found[0].hidden_share is None
    assert [one.label for one in found] == [one.label for one in them]
    assert found[0].last_seen_at == ""
    assert found[1].last_seen_at == "2026-02-15T09:30:04+00:00"
    assert found[2].last_seen_at > found[1].last_seen_at
    assert found[0].link == "expired"


def test_a_summary_counts_readers_and_answers(registry, store, invitations, clock):
    take(store, begin(store, invitations[0]), clock)
    take(store, begin(store, invitations[1]), clock, n=5)
    (found,) = registry.studies()
    assert (found.n_invited, found.n_finished, found.n_answers) == (4, 1, 17)
    assert found.audit_passed is False


def test_attention_is_counted_of_controls_and_nothing_tells_accuracy(
    registry, store, all_designs, clock, stimuli_48, practice_stimuli, attention_stimuli
):
    truths = {
        png: one.is_synthetic
        for folder in (stimuli_48, practice_stimuli, attention_stimuli)
        for one, png in pictures(folder)
    }
    right, wrong = (begin(store, one) for one in all_designs)
    take(store, right, clock, n=3)
    assert registry.monitor("tiny")[0].attention == (0, 0)
    for reader, is_right in ((right, True), (wrong, False)):
        while (trial := store.present(reader)) is not None:
            clock.pass_s(2)
            changes = {}
            if trial.design == "authenticity":
                truth = truths[store.image(reader, trial.presentation_token, None)]
                changes = {"response": "generated" if truth is is_right else "real"}
            store.record_response(reader, answer_to(trial, **changes))
    assert [one.attention for one in registry.monitor("tiny")] == [(1, 1), (0, 1)]
    names = set(ReaderStatus.__dataclass_fields__)
    assert not any("right" in one or "correct" in one or "accuracy" in one for one in names)


def test_the_truth_is_for_nobody_before_the_study_is_unblinded(registry, store, invitations, clock):
    take(store, begin(store, invitations[0]), clock)
    for state in ("open", "closed"):
        with pytest.raises(WebappError, match=f"is {state}, and nobody sees the truth before it"):
            registry.responses("tiny", design="authenticity")
        if state == "open":
            registry.close("tiny")
    registry.unblind("tiny", "all have answered")
    assert len(list(registry.responses("tiny", design="authenticity"))) == 12


def test_answers_come_with_their_truth_by_reader_and_position(
    registry, store, invitations, stimuli, clock
):
    for one in invitations[:2]:
        take(store, begin(store, one), clock, response="generated")
    unblind(registry)
    rows = list(registry.responses("tiny", design="authenticity"))
    assert [(row.participant_id, row.position) for row in rows] == [
        (f"tiny-P0{number}", position) for number in (1, 2) for position in range(1, 13)
    ]
    truths = {one.stimulus_id: one for one in read_stimuli(stimuli)}
    for row in rows:
        one = truths[row.stimulus_id]
        assert (row.class_name, row.is_synthetic) == (one.class_name, one.is_synthetic)
        assert row.truth == ("generated" if one.is_synthetic else "real")
        assert row.generator_digest == one.generator_digest
        assert (row.response, row.confidence, row.response_time_s) == ("generated", 3, 0.5)
        assert row.protocol_hash == protocol().protocol_hash


def test_each_design_has_its_own_truth_and_practice_is_in_none(registry, store, all_designs, clock):
    take(store, begin(store, all_designs[0]), clock)
    unblind(registry)
    rows = {
        design: list(registry.responses("tiny", design=design))
        for design in ("authenticity", "pair", "classification", "quality")
    }
    assert {design: len(found) for design, found in rows.items()} == {
        "authenticity": 19,
        "pair": 4,
        "classification": 4,
        "quality": 4,
    }
    truth = rows["authenticity"]
    assert [row.kind for row in truth].count("repeat") == 2
    assert [row.kind for row in truth].count("attention") == 1
    assert sum(row.is_primed for row in truth) == 8
    assert {row.repeat_number for row in truth if row.kind == "repeat"} == {2}
    assert {row.repeat_number for row in truth if row.kind != "repeat"} == {1}
    for row in rows["pair"]:
        assert row.truth == ("right" if row.is_synthetic else "left")
        assert row.second_stimulus_id not in (None, row.stimulus_id)
        assert row.generator_digest == "ab" * 32
    assert all(row.truth == row.class_name for row in rows["classification"])
    assert {(row.truth, row.confidence) for row in rows["quality"]} == {("", None)}


def test_of_an_answer_that_was_taken_back_the_later_one_is_read(registry, store, stimuli, clock):
    reader = begin(store, open_study(registry, protocol(conduct={"undo": True}), stimuli)[0])
    take(store, reader, clock, n=2, response="real")
    store.undo(reader)
    take(store, reader, clock, n=1, response="generated")
    unblind(registry)
    rows = list(registry.responses("tiny", design="authenticity"))
    assert [(row.response, row.revision) for row in rows] == [("real", 1), ("generated", 2)]


def test_scripted_readers_are_left_out_unless_there_are_no_others(
    registry, store, invitations, stimuli, clock
):
    (bot,) = registry.invite("tiny", [""], valid_days=1, is_bot=True)
    for one in (invitations[0], bot):
        take(store, begin(store, one), clock)
    unblind(registry)
    rows = list(registry.responses("tiny", design="authenticity"))
    assert {row.participant_id for row in rows} == {"tiny-P01"}
    open_study(registry, protocol("dry"), stimuli, n_readers=0)
    (alone,) = registry.invite("dry", [""], valid_days=1, is_bot=True)
    take(store, begin(store, alone), clock)
    registry.close("dry")
    registry.unblind("dry", "a dry run")
    assert len(list(registry.responses("dry", design="authenticity"))) == 12


def test_coded_arms_hide_truth_and_stimulus_but_keep_them_apart(
    registry, store, invitations, stimuli, clock
):
    for one in invitations[:2]:
        take(store, begin(store, one), clock)
    coded = list(registry.coded_responses("tiny", design="authenticity"))
    unblind(registry)
    truth = list(registry.responses("tiny", design="authenticity"))
    assert len(coded) == len(truth) == 24
    assert {row.arm_code for row in coded} == {"A", "B"}
    pairs = {(row.arm_code, known.is_synthetic) for row, known in zip(coded, truth, strict=True)}
    assert len(pairs) == 2, "one letter is one truth"
    cases = {(row.case_code, known.stimulus_id) for row, known in zip(coded, truth, strict=True)}
    assert len(cases) == 12, "one code is one stimulus, for all readers"
    told = str(coded)
    assert not any(one.stimulus_id in told for one in read_stimuli(stimuli))
    assert "is_synthetic" not in told


def test_which_letter_is_which_differs_between_studies(registry, store, stimuli, clock):
    letters = set()
    for number in range(8):
        plan = protocol(f"study-{number}")
        take(store, begin(store, open_study(registry, plan, stimuli)[0]), clock, n=1)
        (row,) = registry.coded_responses(plan.study_id, design="authenticity")
        registry.close(plan.study_id)
        registry.unblind(plan.study_id, "done")
        (known,) = registry.responses(plan.study_id, design="authenticity")
        letters.add((row.arm_code, known.truth))
    assert letters == {("A", "real"), ("B", "real")}, "the first trial is a real one"


def test_readers_are_described_by_code_without_their_label(registry, store, invitations, clock):
    reader = begin(store, invitations[0])
    store.pass_milestone(reader, "background", {"role": "haematologist", "years": 12})
    clock.pass_s(5)
    store.pass_milestone(reader, "instructions")
    found = registry.readers("tiny")
    assert [one.participant_id for one in found] == [one.participant_id for one in invitations]
    first = found[0]
    assert (first.arm, first.language, first.is_bot, first.consent_version) == (0, "en", False, "1")
    when, background = first.milestones["background"]
    assert background == {"role": "haematologist", "years": 12}
    assert when == first.consented_at == "2026-01-31T09:30:00+00:00"
    assert list(first.milestones) == ["background", "instructions"]
    assert found[1].consented_at is None
    assert "reader 1" not in str(found)


def test_the_log_has_no_gap_when_many_researchers_act_at_once(registry, invitations):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: registry.invite("tiny", [f"new {n}"], valid_days=1), range(12)))
    log = registry.events("tiny")
    assert all(later.number == earlier.number + 1 for earlier, later in pairwise(log))
    assert len(registry.monitor("tiny")) == 16
    assert registry.verify("tiny") == []
