import numpy as np
import pytest

from studies.agreement import (
    cohen_kappa,
)
from studies.consistency import intra_reader_consistency
from studies.proportions import wilson
from studies.ratings import (
    AgreementError,
)
from tests.studies.results import limits
from tests.studies.test_agreement import resampler, value


def repeated(n_readers=6, n_cases=60, seed=0, flip=0.1, n_shown=2):
    """Readers who answer 1 or 0, each by case, and flip an answer now and then."""
    rng = np.random.default_rng(seed)
    own = rng.random((n_readers, n_cases)) < rng.uniform(0.3, 0.7, n_cases)
    readers, cases, answers = [], [], []
    for _ in range(n_shown):
        shown = own ^ (rng.random(own.shape) < flip)
        for reader in range(n_readers):
            for case in rng.permutation(n_cases):
                readers.append(f"r{reader}")
                cases.append(f"c{case}")
                answers.append(int(shown[reader, case]))
    return readers, cases, answers


def test_a_readers_consistency_is_cohens_kappa_of_the_two_presentations():
    readers, cases, answers = repeated(n_readers=1)
    found = intra_reader_consistency(readers, cases, answers).readers[0]
    first = dict(zip(cases[:60], answers[:60], strict=True))
    second = dict(zip(cases[60:], answers[60:], strict=True))
    pairs = [[first[case], second[case]] for case in first]
    n_equal = sum(one == other for one, other in pairs)
    assert found.kappa.estimate == pytest.approx(value(cohen_kappa(pairs)))
    assert found.percent.estimate == pytest.approx(n_equal / 60)
    assert limits(found.percent) == pytest.approx(limits(wilson(n_equal, 60)))
    assert (found.n_cases, found.n_pairs) == (60, 60)


def test_consistency_recovers_how_often_answers_flip():
    found = intra_reader_consistency(*repeated(n_cases=2000, n_readers=3))
    assert found.percent.estimate == pytest.approx(0.9**2 + 0.1**2, abs=0.015)
    assert (found.n_cases, found.n_repeated, found.n_pairs) == (2000, 6000, 6000)


def test_pairs_of_three_presentations_all_count():
    found = intra_reader_consistency(*repeated(n_shown=3, n_cases=300))
    assert found.n_pairs == 3 * 300 * 6
    assert found.percent.estimate == pytest.approx(0.82, abs=0.02)
    assert found.percent.is_estimable
    assert found.kappa.is_estimable


def test_cases_shown_once_are_ignored():
    readers, cases, answers = repeated()
    once = intra_reader_consistency(readers, cases, answers)
    more = intra_reader_consistency([*readers, "r0", "r9"], [*cases, "new", "c3"], [*answers, 1, 0])
    assert more == once


def test_readers_with_different_habits_are_not_consistent_for_that_alone():
    # Each guesses at random, one mostly "generated" and one mostly "real": pooled answers
    # would show a kappa of 0.6.
    rng = np.random.default_rng(5)
    readers, cases = np.repeat(["a", "b"], 2000), np.tile(np.repeat(np.arange(1000), 2), 2)
    answers = rng.random(4000) < np.repeat([0.9, 0.1], 2000)
    found = intra_reader_consistency(readers, cases, answers)
    assert found.kappa.estimate == pytest.approx(0, abs=0.05)
    assert found.percent.estimate == pytest.approx(0.82, abs=0.03)
    pooled = np.stack([answers[::2], answers[1::2]], axis=1)
    assert value(cohen_kappa(pooled)) > 0.5


def test_readers_who_flip_on_the_same_cases_widen_the_interval():
    # All readers stand or fall together: 6 readers say no more than 1.
    rng = np.random.default_rng(3)
    first = rng.random(80) < 0.5
    second = first ^ (rng.random(80) < 0.2)
    one = [np.repeat("r0", 160), np.tile(np.arange(80), 2), np.concatenate([first, second])]
    six = [
        np.repeat([f"r{i}" for i in range(6)], 160),
        np.tile(one[1], 6),
        np.tile(one[2], 6),
    ]
    alone, together = (intra_reader_consistency(*rows) for rows in (one, six))
    assert limits(together.percent) == pytest.approx(limits(alone.percent))
    assert limits(together.kappa) == pytest.approx(limits(alone.kappa))
    naive = wilson(round(6 * 80 * together.percent.estimate), 480)
    width = together.percent.ci_high - together.percent.ci_low
    assert width > 2 * (naive.ci_high - naive.ci_low)


def test_the_bootstrap_of_cases_agrees_with_the_clustered_interval():
    found = intra_reader_consistency(*repeated(n_cases=150), bootstrap=resampler())
    assert found.percent_bootstrap.standard_error == pytest.approx(
        found.percent.standard_error, rel=0.08
    )
    assert found.kappa_bootstrap.standard_error == pytest.approx(
        found.kappa.standard_error, rel=0.08
    )
    assert limits(found.kappa_bootstrap) == pytest.approx(limits(found.kappa), abs=0.02)


def test_strata_of_repeated_cases_belong_to_the_case():
    readers, cases, answers = repeated()
    kinds = ["real" if int(case[1:]) % 2 else "generated" for case in cases]
    found = intra_reader_consistency(
        readers, cases, answers, bootstrap=resampler(strata=kinds, n_resamples=500)
    )
    assert found.percent_bootstrap.is_estimable
    kinds[0] = "real" if kinds[0] == "generated" else "generated"
    with pytest.raises(AgreementError, match=f"case {cases[0]} is in two strata"):
        intra_reader_consistency(readers, cases, answers, bootstrap=resampler(strata=kinds))


def test_no_repeats_and_one_repeat_are_not_estimable():
    none = intra_reader_consistency(["a", "b"], [1, 1], [0, 1], bootstrap=resampler())
    assert none.percent.reason == "no reader was shown a case twice"
    assert none.kappa_bootstrap.reason == "no reader was shown a case twice"
    assert none.readers == ()
    one = intra_reader_consistency(["a", "a"], [1, 1], [0, 1], bootstrap=resampler())
    assert one.kappa.reason == "only one case was repeated"
    assert not one.percent.is_estimable
    assert one.readers[0].percent.is_estimable
    assert not one.readers[0].kappa.is_estimable
    assert intra_reader_consistency([], [], []).n_cases == 0


def test_a_reader_with_one_answer_has_no_kappa_and_full_agreement_no_clustered_interval():
    same = intra_reader_consistency(["a"] * 8, [1, 2, 3, 4] * 2, ["real"] * 8)
    assert same.readers[0].kappa.estimate is None
    assert same.readers[0].percent.ci_low < 1
    assert same.kappa.reason == "no reader used more than one answer, so chance alone would agree"
    assert same.percent.estimate == 1
    assert not same.percent.is_estimable


def test_rows_that_do_not_belong_together_are_refused_with_advice():
    with pytest.raises(AgreementError, match="give one of each for every judgement"):
        intra_reader_consistency(["a", "a"], [1, 1, 2], [0, 1, 1])
    with pytest.raises(AgreementError, match="judgement 2 has no answer; leave out judgements"):
        intra_reader_consistency(["a", "a"], [1, 1], ["real", None])
