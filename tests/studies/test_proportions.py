import numpy as np
import pytest
from scipy.stats import binom

from studies.proportions import clopper_pearson, wilson

# x, n, Wilson, Clopper–Pearson. R binom.confint, by way of statsmodels results_proportion.py.
R_BINOM = [
    (18, 20, (0.698966, 0.972134), (0.683017, 0.987651)),
    (4, 20, (0.080658, 0.416017), (0.057334, 0.436614)),
    (4, 200, (0.007804, 0.050287), (0.005476, 0.050414)),
    (190, 200, (0.910422, 0.972617), (0.909972, 0.975766)),
    (1, 30, (0.005909, 0.166704), (0.000844, 0.172169)),
    (0, 30, (0.0, 0.113513), (0.0, 0.115703)),
]
NEWCOMBE_1998_TABLE_I = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]
BOTH = [wilson, clopper_pearson]


def limits(proportion):
    return proportion.ci_low, proportion.ci_high


@pytest.mark.parametrize(("n_correct", "n_trials", "score", "exact"), R_BINOM)
def test_intervals_match_r(n_correct, n_trials, score, exact):
    assert limits(wilson(n_correct, n_trials)) == pytest.approx(score, abs=5e-7)
    assert limits(clopper_pearson(n_correct, n_trials)) == pytest.approx(exact, abs=5e-7)


@pytest.mark.parametrize(("n_correct", "n_trials", "score", "exact"), NEWCOMBE_1998_TABLE_I)
def test_intervals_match_newcombes_table(n_correct, n_trials, score, exact):
    assert limits(wilson(n_correct, n_trials)) == pytest.approx(score, abs=5e-5)
    assert limits(clopper_pearson(n_correct, n_trials)) == pytest.approx(exact, abs=5e-5)


def test_wilson_matches_statsmodels_to_fifteen_digits():
    expected = (0.348499283643951, 0.651500716356049)
    assert limits(wilson(19, 38)) == pytest.approx(expected, abs=1e-15)


def test_wilson_of_a_published_reader_study_is_reproduced():
    # Park et al. (2021), 1781 of 3000.
    assert limits(wilson(1781, 3000)) == pytest.approx((0.5760, 0.6111), abs=5e-5)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(("n_correct", "n_trials"), [(38, 38), (0, 77), (77, 77), (0, 1), (1, 1)])
def test_intervals_stay_inside_zero_and_one(method, n_correct, n_trials):
    low, high = limits(method(n_correct, n_trials))
    assert 0 <= low <= n_correct / n_trials <= high <= 1


@pytest.mark.parametrize("method", BOTH)
def test_the_interval_of_the_wrong_answers_mirrors_that_of_the_right_ones(method):
    for n_trials in (1, 7, 40):
        for n_correct in range(n_trials + 1):
            low, high = limits(method(n_correct, n_trials))
            mirrored = limits(method(n_trials - n_correct, n_trials))
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("method", BOTH)
def test_the_interval_of_a_perfect_reader_is_not_a_point(method):
    assert method(40, 40).ci_low < 1


def test_clopper_pearson_never_covers_less_than_it_says():
    n_trials, truths = 20, np.linspace(0.01, 0.99, 99)
    covered = np.zeros(len(truths))
    for n_correct in range(n_trials + 1):
        low, high = limits(clopper_pearson(n_correct, n_trials))
        inside = (low <= truths) & (truths <= high)
        covered += inside * binom.pmf(n_correct, n_trials, truths)
    assert covered.min() >= 0.95


@pytest.mark.parametrize("method", BOTH)
def test_a_participant_without_trials_is_refused_with_advice(method):
    with pytest.raises(ValueError, match="finished no trial as incomplete"):
        method(0, 0)


@pytest.mark.parametrize("method", BOTH)
def test_a_level_in_percent_is_refused_with_advice(method):
    with pytest.raises(ValueError, match=r"confidence_level=95; give a fraction such as 0\.95"):
        method(1, 2, confidence_level=95)
