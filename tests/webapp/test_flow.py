import pytest

from webapp.flow import Page, Progress, milestone_of_break, page_of

ALL_MILESTONES = ("background", "calibration", "instructions", "block-1")


def progress(*milestones, **changes):
    values = {
        "is_open": True,
        "has_consented": True,
        "asks_background": True,
        "asks_calibration": True,
        "milestones": frozenset(milestones),
        "n_trials": 60,
        "n_answered": 0,
        "next_block": 1,
        "has_introduction": True,
        "break_every": None,
    }
    return Progress(**values | changes)


def at(*milestones, **changes):
    return page_of(progress(*milestones, **changes))


@pytest.mark.parametrize("milestones", [(), ALL_MILESTONES])
def test_nothing_is_shown_before_consent_whatever_else_is_stored(milestones):
    assert at(*milestones, has_consented=False) is Page.CONSENT


def test_the_pages_before_the_trials_come_one_by_one():
    pages = [at(*ALL_MILESTONES[:passed]) for passed in range(5)]
    assert pages == [
        Page.BACKGROUND,
        Page.CALIBRATION,
        Page.INSTRUCTIONS,
        Page.BLOCK,
        Page.TRIAL,
    ]


def test_a_study_that_asks_nothing_goes_from_consent_to_the_instructions():
    assert at(asks_background=False, asks_calibration=False) is Page.INSTRUCTIONS


def test_a_block_without_words_of_its_own_is_not_announced():
    assert at(*ALL_MILESTONES[:3], has_introduction=False) is Page.TRIAL
    assert at(*ALL_MILESTONES, next_block=2) is Page.BLOCK


@pytest.mark.parametrize(
    ("n_answered", "page"),
    [(0, Page.TRIAL), (19, Page.TRIAL), (20, Page.BREAK), (21, Page.TRIAL), (40, Page.BREAK)],
)
def test_a_break_is_offered_after_so_many_answers(n_answered, page):
    assert at(*ALL_MILESTONES, n_answered=n_answered, break_every=20) is page


def test_a_break_is_offered_once():
    passed = (*ALL_MILESTONES, "break-20")
    assert at(*passed, n_answered=20, break_every=20) is Page.TRIAL
    assert milestone_of_break(progress(n_answered=40, break_every=20)) == "break-40"


def test_after_the_last_answer_the_study_is_finished_also_when_it_is_closed():
    assert at(*ALL_MILESTONES, n_answered=60, next_block=None, break_every=20) is Page.FINISH
    assert at(*ALL_MILESTONES, next_block=None, is_open=False) is Page.FINISH


@pytest.mark.parametrize("has_consented", [False, True])
def test_a_closed_study_takes_nobody_further(has_consented):
    assert at(*ALL_MILESTONES, is_open=False, has_consented=has_consented) is Page.CLOSED
