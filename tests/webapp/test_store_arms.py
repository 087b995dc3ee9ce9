"""Which order of the blocks a reader gets: the least filled, whoever comes at the same time."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from tests.webapp.studies_at_hand import begin, open_study, protocol, take

BALANCED = {
    "blocks": [{"n_trials": 4}, {"design": "quality", "n_trials": 2}],
    "conduct": {"block_order": "balanced", "live_days": 14},
}
DAY_S = 86400


@pytest.fixture
def invitations(registry, stimuli):
    return open_study(registry, protocol(**BALANCED), stimuli, n_readers=8)


@pytest.fixture
def arm_of(database):
    def arm(participant_id):
        query = text("SELECT arm FROM participant WHERE participant_id = :who")
        with database.read() as connection:
            return connection.execute(query, {"who": participant_id}).scalar_one()

    return arm


def test_readers_are_spread_over_the_orders_as_they_come(store, invitations, arm_of):
    assert arm_of(invitations[0].participant_id) is None, "an invitation alone takes no place"
    arms = [arm_of(begin(store, one)) for one in invitations]
    assert arms == [0, 1, 0, 1, 0, 1, 0, 1]


def test_an_arm_is_an_order_of_the_blocks(store, invitations):
    first, second = (begin(store, one) for one in invitations[:2])
    assert store.present(first).design == "authenticity"
    assert store.present(second).design == "quality"


def test_a_reader_who_withdrew_leaves_the_place(store, registry, invitations, arm_of):
    first = begin(store, invitations[0])
    begin(store, invitations[1])
    registry.withdraw(first, "no time")
    assert [arm_of(begin(store, one)) for one in invitations[2:5]] == [0, 0, 1]


def test_a_reader_who_went_silent_does_not_count_and_one_who_finished_does(
    store, invitations, arm_of, clock
):
    silent, finished = (begin(store, one) for one in invitations[:2])
    take(store, finished, clock)
    clock.pass_s(15 * DAY_S)
    assert arm_of(silent) == 0
    assert arm_of(finished) == 1
    renewed = [arm_of(begin(store, one)) for one in invitations[2:5]]
    assert renewed == [0, 0, 1], "arm 1 is held by the one who finished"


def test_an_answer_keeps_a_reader_alive(store, invitations, arm_of, clock):
    slow = begin(store, invitations[0])
    clock.pass_s(10 * DAY_S)
    take(store, slow, clock, n=1)
    clock.pass_s(10 * DAY_S)
    assert arm_of(begin(store, invitations[1])) == 1


def test_scripted_readers_take_no_place_from_people_and_are_spread_themselves(
    store, registry, invitations, arm_of
):
    bots = registry.invite("tiny", ["", "", ""], valid_days=1, is_bot=True)
    assert [arm_of(begin(store, one)) for one in bots] == [0, 1, 0]
    assert [arm_of(begin(store, one)) for one in invitations[:3]] == [0, 1, 0]


def test_two_at_once_never_get_the_same_last_place(store, invitations, arm_of):
    with ThreadPoolExecutor(8) as pool:
        readers = list(pool.map(lambda one: begin(store, one), invitations))
    assert Counter(map(arm_of, readers)) == {0: 4, 1: 4}


def test_one_reader_who_agrees_in_many_tabs_is_enrolled_once(store, invitations, database):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: begin(store, invitations[0]), range(6)))
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM consent")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM trial")).scalar() == 6
