import pytest

from webapp.flow import Page, Progress, page_of


def at(*, has_consented=True, has_begun=True, n_answered=0, n_trials=3):
    return page_of(
        Progress(
            has_consented=has_consented,
            has_begun=has_begun,
            n_trials=n_trials,
            n_answered=n_answered,
        )
    )


def test_a_new_reader_is_asked_for_consent_first():
    assert at(has_consented=False, has_begun=False) is Page.CONSENT


@pytest.mark.parametrize("n_answered", [0, 1, 3])
def test_nothing_is_shown_before_consent_whatever_else_is_stored(n_answered):
    assert at(has_consented=False, n_answered=n_answered) is Page.CONSENT


def test_who_agreed_reads_the_instructions():
    assert at(has_begun=False) is Page.INSTRUCTIONS


@pytest.mark.parametrize("n_answered", [0, 1, 2])
def test_who_began_goes_on_with_trials_until_all_are_answered(n_answered):
    assert at(n_answered=n_answered) is Page.TRIAL


def test_after_the_last_answer_the_study_is_finished():
    assert at(n_answered=3) is Page.FINISH
