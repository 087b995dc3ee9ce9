"""What is shown when: tokens, pictures, exposure, practice, undo; on both kinds of database."""

from itertools import pairwise

import pytest
from sqlalchemy import text

from studies.allocation import Pools, schedule
from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import (
    ALL_DESIGNS,
    CLASSES,
    answer_to,
    begin,
    open_study,
    protocol,
    take,
)
from webapp.blinding import BlindedTrial
from webapp.flow import Page, page_of
from webapp.store import ReaderStore


@pytest.fixture
def start(store, registry, stimuli):
    """Opens a study with changes to the tiny protocol; its first reader, who has agreed."""

    def begun(**changes):
        return begin(store, open_study(registry, protocol(**changes), stimuli)[0])

    return begun


@pytest.fixture
def all_designs(store, registry, stimuli_48, practice_stimuli, attention_stimuli):
    pools = {"practice": practice_stimuli, "attention": attention_stimuli}
    return begin(store, open_study(registry, protocol(**ALL_DESIGNS), stimuli_48, **pools)[0])


def images(store, reader, trial):
    return [store.image(reader, *place(url)) for url in trial.image_urls]


def place(url):
    token, *side = url.removeprefix("/image/").split("/")
    return token, side[0] if side else None


def test_what_is_presented_is_blinded(store, start):
    assert type(store.present(start())) is BlindedTrial


def test_the_schedule_is_the_allocation_whole_from_the_beginning(
    store, registry, database, stimuli, clock
):
    plan = protocol()
    pools = Pools(main=read_stimuli(stimuli))
    for number, invitation in enumerate(open_study(registry, plan, stimuli), 1):
        reader = begin(store, invitation)
        query = text("SELECT stimulus_id FROM trial WHERE participant_id = :who ORDER BY position")
        with database.read() as connection:
            stored = connection.execute(query, {"who": reader}).scalars().all()
        planned = schedule(plan, pools, number, 0)
        assert stored == [trial.stimulus_ids[0] for trial in planned]
        assert [trial.trial_number for trial, _ in take(store, reader, clock)] == list(range(1, 13))
        assert store.present(reader) is None
        assert store.progress(reader).next_block is None


def test_every_design_is_answered_in_its_own_words(store, all_designs, clock):
    taken = take(store, all_designs, clock)
    assert {recorded.outcome for _, recorded in taken} == {"stored"}
    assert [trial.design for trial, _ in taken if not trial.is_practice] == [
        *["authenticity"] * 11,
        *["pair"] * 4,
        *["classification"] * 4,
        *["quality"] * 4,
        *["authenticity"] * 8,
    ]
    numbered = [trial.trial_number for trial, _ in taken if not trial.is_practice]
    assert numbered == list(range(1, 32))
    assert {trial.n_trials for trial, _ in taken if not trial.is_practice} == {31}


WRONG = {
    "authenticity": [{"response": "left"}, {"response": "3"}, {"confidence": None}],
    "pair": [{"response": "real"}, {"confidence": None}],
    "classification": [{"response": "real"}, {"response": "blast"}, {"confidence": None}],
    "quality": [{"response": "0"}, {"response": "6"}, {"response": "03"}, {"confidence": 3}],
}


def test_no_design_takes_the_words_of_another(store, all_designs, clock):
    tried = set()
    while (trial := store.present(all_designs)) is not None:
        clock.pass_s(2)
        if trial.design not in tried and not trial.is_practice:
            tried.add(trial.design)
            for changes in WRONG[trial.design]:
                wrong = answer_to(trial, **changes)
                assert store.record_response(all_designs, wrong).outcome == "refused", changes
        assert store.record_response(all_designs, answer_to(trial)).outcome == "stored"
    assert tried == set(WRONG)


def test_the_classes_are_those_of_the_stimuli_in_order(store, start):
    start()
    assert store.classes("tiny") == CLASSES


def test_a_picture_is_given_to_its_reader_only_and_only_until_it_is_judged(
    store, registry, stimuli, clock
):
    mine, theirs = (begin(store, one) for one in open_study(registry, protocol(), stimuli))
    trial = store.present(mine)
    assert store.image(mine, trial.presentation_token, None).startswith(b"\x89PNG")
    assert store.image(theirs, trial.presentation_token, None) is None
    assert store.image(mine, "no such token", None) is None
    clock.pass_s(2)
    store.record_response(mine, answer_to(trial))
    assert store.image(mine, trial.presentation_token, None) is None


def test_the_picture_is_the_one_of_the_schedule(store, registry, stimuli, clock):
    plan = protocol()
    reader = begin(store, open_study(registry, plan, stimuli)[0])
    for planned in schedule(plan, Pools(main=read_stimuli(stimuli)), 1, 0):
        trial = store.present(reader)
        (stimulus_id,) = planned.stimulus_ids
        expected = (stimuli / f"{stimulus_id}.png").read_bytes()
        assert store.image(reader, trial.presentation_token, None) == expected
        clock.pass_s(2)
        store.record_response(reader, answer_to(trial))


def test_a_pair_has_a_left_and_a_right_picture_and_nothing_else_has(store, start, stimuli):
    reader = start(blocks=[{"design": "pair", "n_trials": 4}])
    trial = store.present(reader)
    left, right = images(store, reader, trial)
    files = {(stimuli / one.file).read_bytes(): one for one in read_stimuli(stimuli)}
    assert files[left].is_synthetic != files[right].is_synthetic
    assert files[left].class_name == files[right].class_name
    assert store.image(reader, trial.presentation_token, None) is None


def test_a_single_picture_has_no_side(store, start):
    reader = start()
    trial = store.present(reader)
    assert store.image(reader, trial.presentation_token, "left") is None
    assert store.image(reader, trial.presentation_token, "right") is None


def test_the_next_picture_is_fetched_ahead_under_the_token_that_then_shows_it(store, start, clock):
    reader = start()
    first = store.present(reader)
    ahead = store.image(reader, first.next_presentation_token, None)
    assert ahead.startswith(b"\x89PNG")
    assert ahead != store.image(reader, first.presentation_token, None)
    clock.pass_s(2)
    store.record_response(reader, answer_to(first))
    second = store.present(reader)
    assert second.presentation_token == first.next_presentation_token
    assert store.image(reader, second.presentation_token, None) == ahead
    again = store.present(reader)
    assert again.presentation_token != second.presentation_token, "given out ahead once"


def test_the_last_trial_has_none_after_it(store, start, clock):
    reader = start()
    assert take(store, reader, clock)[-1][0].next_presentation_token is None


def test_nothing_is_fetched_ahead_across_a_page_that_comes_between(store, all_designs, clock):
    taken = [trial for trial, _ in take(store, all_designs, clock)]
    pairs = list(pairwise(taken))
    for trial, following in pairs:
        is_break = not trial.is_practice and trial.trial_number % 10 == 0
        if is_break or trial.block_number != following.block_number:
            assert trial.next_presentation_token is None
        else:
            assert trial.next_presentation_token == following.presentation_token
    assert sum(trial.next_presentation_token is None for trial, _ in pairs) == 4 + 3


def test_practice_is_counted_by_itself_and_told_the_truth(store, all_designs, clock):
    taken = take(store, all_designs, clock)
    practice = [(trial, recorded) for trial, recorded in taken if trial.is_practice]
    assert [(one.block_number, one.trial_number, one.n_trials) for one, _ in practice] == [
        (1, 1, 2),
        (1, 2, 2),
        (3, 1, 1),
    ]
    for trial, recorded in practice:
        given = answer_to(trial).response
        assert recorded.feedback.was_right is (recorded.feedback.truth == given)
    assert practice[2][1].feedback.truth in CLASSES
    assert all(recorded.feedback is None for trial, recorded in taken if not trial.is_practice)


def test_feedback_is_given_again_when_the_reply_was_lost(store, all_designs, clock):
    ((trial, recorded),) = take(store, all_designs, clock, n=1)
    again = store.record_response(all_designs, answer_to(trial, response="generated"))
    assert again.outcome == "already stored"
    assert again.feedback == recorded.feedback, "of what is stored, not of what is sent again"


def test_exposure_goes_on_while_the_page_is_reloaded(store, start, clock):
    reader = start(blocks=[{"n_trials": 4, "exposure_s": 10.0}])
    trial = store.present(reader)
    assert trial.exposure_s == 10
    clock.pass_s(4)
    assert store.present(reader).exposure_s == 6
    clock.pass_s(7)
    over = store.present(reader)
    assert over.exposure_s == 0
    assert images(store, reader, over)[0] is not None, "it may still be on its way"
    clock.pass_s(5)
    assert images(store, reader, over) == [None]
    assert images(store, reader, trial) == [None]
    assert store.record_response(reader, answer_to(over)).outcome == "stored"
    assert store.present(reader).exposure_s == 10


def test_what_is_fetched_ahead_has_not_begun_its_exposure(store, start, clock):
    reader = start(blocks=[{"n_trials": 4, "exposure_s": 0.5}])
    trial = store.present(reader)
    clock.pass_s(60)
    assert store.image(reader, trial.next_presentation_token, None) is not None
    store.record_response(reader, answer_to(trial))
    assert store.present(reader).exposure_s == 0.5


def test_an_answer_that_is_taken_back_stays_and_the_later_one_counts(store, start, database, clock):
    reader = start(conduct={"undo": True})
    (first, _), (second, _) = take(store, reader, clock, n=2, response="real")
    assert not first.can_undo
    assert second.can_undo
    shown = store.present(reader)
    assert store.undo(reader)
    back = store.present(reader)
    assert back.trial_number == 2
    assert not back.can_undo, "one answer back, not two"
    late = answer_to(shown, response_time_s=0.0)
    assert store.record_response(reader, late).outcome == "refused", "or trial 2 would be skipped"
    resent = answer_to(second, response="real")
    assert store.record_response(reader, resent).outcome == "already stored"
    clock.pass_s(2)
    assert store.record_response(reader, answer_to(back, response="generated")).outcome == "stored"
    with database.read() as connection:
        rows = connection.execute(
            text("SELECT trial_id, revision, response FROM response ORDER BY 1, 2")
        ).all()
    ids = [f"{reader}-T00{number}" for number in (1, 2)]
    assert rows == [(ids[0], 1, "real"), (ids[1], 1, "real"), (ids[1], 2, "generated")]
    assert store.progress(reader).n_answered == 2


def test_an_answer_is_taken_back_once(store, start, clock):
    reader = start(conduct={"undo": True})
    take(store, reader, clock, n=2)
    assert store.undo(reader)
    take(store, reader, clock, n=1)
    assert not store.present(reader).can_undo
    assert not store.undo(reader)
    assert store.progress(reader).n_answered == 2


def test_nothing_is_taken_back_where_the_protocol_does_not_allow_it(store, start, clock):
    reader = start()
    take(store, reader, clock, n=2)
    assert not store.present(reader).can_undo
    assert not store.undo(reader)


def test_neither_practice_nor_an_earlier_block_nor_the_end_is_taken_back(store, all_designs, clock):
    allowed = []
    while (trial := store.present(all_designs)) is not None:
        allowed.append((trial.is_practice, trial.block_number, trial.can_undo))
        clock.pass_s(2)
        store.record_response(all_designs, answer_to(trial))
    assert not store.undo(all_designs), "all is answered"
    for before, here in pairwise(allowed):
        assert here[2] is (not before[0] and before[1] == here[1])


def test_a_reader_goes_on_at_the_exact_trial_in_another_process(store, start, database, clock):
    reader = start(conduct={"undo": True})
    take(store, reader, clock, n=3)
    elsewhere = ReaderStore(database, clock)
    assert elsewhere.present(reader).trial_number == 4
    take(elsewhere, reader, clock, n=2)
    assert store.present(reader).trial_number == 6
    assert elsewhere.undo(reader)
    assert store.progress(reader).n_answered == 4
    assert store.present(reader).trial_number == 5


def test_progress_leads_through_the_pages(store, all_designs, clock):
    seen = []
    while (page := page_of(progress := store.progress(all_designs))) is not Page.FINISH:
        seen.append(page)
        if page is Page.TRIAL:
            take(store, all_designs, clock, n=1)
        else:
            name = {
                Page.BLOCK: f"block-{progress.next_block}",
                Page.BREAK: f"break-{progress.n_answered}",
            }.get(page, str(page))
            store.pass_milestone(all_designs, name)
    others = [page for page in seen if page is not Page.TRIAL]
    assert others[:3] == [Page.BACKGROUND, Page.CALIBRATION, Page.INSTRUCTIONS]
    assert sorted(others[3:]) == sorted([*[Page.BLOCK] * 5, *[Page.BREAK] * 3])
    assert seen.count(Page.TRIAL) == 34


def test_one_block_without_words_of_its_own_has_no_introduction(store, start):
    assert not store.progress(start()).has_introduction


def test_the_score_is_told_at_the_end_and_only_if_the_protocol_discloses_it(
    store, registry, stimuli, clock
):
    plan = protocol("open", conduct={"disclosure": "score"})
    reader = begin(store, open_study(registry, plan, stimuli)[0])
    take(store, reader, clock, n=11, response="real")
    assert store.score(reader) == (0, 0)
    take(store, reader, clock, response="real")
    assert store.score(reader) == (6, 12)
    secret = begin(store, open_study(registry, protocol("secret"), stimuli)[0])
    take(store, secret, clock)
    assert store.score(secret) == (0, 0)
