from math import log

import numpy as np
import pytest

from studies.forecasts import (
    confidence_points,
    distinct_bins,
    equal_mass_bins,
    equal_width_bins,
    forecasts_of_chosen,
    forecasts_of_generated,
)
from studies.proper_scores import brier_score, log_score
from tests.studies.results import limits
from tests.studies.test_calibration import calibrated, rng


def test_brier_score_of_scikit_learns_example():
    # statistics_cases.md H1.
    found = brier_score([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0])
    assert found.score.estimate == pytest.approx(0.0375, abs=1e-15)
    assert found.skill == pytest.approx(1 - 0.0375 / 0.25)


def test_murphys_decomposition_by_hand():
    # Two forecasts: 0.25 comes true once in four, 0.75 twice in four.
    found = brier_score([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 0, 0])
    assert found.reliability == pytest.approx(0.5 * 0.25**2)
    assert found.resolution == pytest.approx(0.125**2)
    assert found.uncertainty == pytest.approx(3 / 8 * 5 / 8)
    assert (found.within_variance, found.within_covariance) == (0, 0)
    assert found.score.estimate == pytest.approx((9 + 3 + 2 + 18) / 16 / 8)


@pytest.mark.parametrize("bins_of", [equal_width_bins, equal_mass_bins, distinct_bins])
@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_the_five_terms_add_up_to_the_score(bins_of, n_bins):
    for seed in range(10):
        random = rng(seed)
        p = np.round(random.beta(0.5, 0.5, 57), random.integers(1, 5))
        y = (random.random(57) < p**2).astype(int)
        bins = distinct_bins(p) if bins_of is distinct_bins else bins_of(p, n_bins)
        found = brier_score(p, y, bins=bins)
        parts = found.reliability - found.resolution + found.uncertainty
        parts += found.within_variance - found.within_covariance
        assert parts == pytest.approx(np.square(p - y).mean(), abs=1e-15)
        assert found.score.estimate == pytest.approx(parts, abs=1e-15)


def test_distinct_bins_leave_nothing_within():
    p, y = calibrated(200)
    found = brier_score(np.round(p, 1), y)
    assert found.within_variance == pytest.approx(0, abs=1e-30)
    assert found.within_covariance == pytest.approx(0, abs=1e-17)


def test_the_brier_score_of_readers_has_a_clustered_interval():
    # Readers who know and readers who guess.
    readers = np.repeat(np.arange(10), 30)
    p = np.where(readers < 5, 0.9, 0.5)
    y = (rng(2).random(300) < p).astype(int)
    naive = brier_score(p, y).score
    clustered = brier_score(p, y, clusters=readers).score
    assert clustered.df == 9
    assert clustered.standard_error > 1.5 * naive.standard_error
    # Every forecast its own cluster: the same interval.
    alone = brier_score(p, y, clusters=np.arange(300)).score
    assert limits(alone) == pytest.approx(limits(naive))
    # Doubling each reader's rows brings no new reader.
    doubled = brier_score(np.tile(p, 2), np.tile(y, 2), clusters=np.tile(readers, 2)).score
    assert limits(doubled) == pytest.approx(limits(clustered))


def test_perfect_forecasts_have_a_score_of_0_and_no_interval():
    found = brier_score([0, 1, 1], [0, 1, 1])
    assert found.score.estimate == 0
    assert found.score.reason == "there is no variance, which is no sign of certainty"
    one = brier_score([0.3], [1])
    assert one.score.reason == "1 forecast says nothing about others"
    assert one.skill is None


def test_log_score_of_a_coin_is_ln_2():
    assert log_score([0.5] * 4, [0, 1, 1, 0]).estimate == pytest.approx(log(2))


def test_log_score_is_the_mean_of_the_logs():
    found = log_score([0.1, 0.9, 0.8], [0, 1, 0])
    assert found.estimate == pytest.approx(-(log(0.9) + log(0.9) + log(0.2)) / 3)
    assert found.is_estimable


def test_certain_and_wrong_is_not_estimable_unless_a_clip_is_declared():
    found = log_score([1.0, 0.0, 0.5], [0, 0, 1])
    assert found.estimate is None
    assert found.reason.startswith("1 forecasts were certain and wrong")
    clipped = log_score([1.0, 0.0, 0.5], [0, 0, 1], clip=0.01)
    assert clipped.estimate == pytest.approx(-(log(0.01) + log(0.99) + log(0.5)) / 3)
    assert "clipped to [0.01, 0.99]" in clipped.method
    # Certain and right costs nothing.
    assert log_score([1.0, 0.0, 0.5], [1, 0, 1]).estimate == pytest.approx(log(2) / 3)


def test_the_brier_score_is_the_same_under_both_conventions():
    # (p − y)² does not care which of two answers it is of.
    random = rng(4)
    says, truth = random.integers(0, 2, (2, 200))
    confidence, points = random.integers(1, 6, 200), confidence_points(5)
    one = forecasts_of_generated(says, confidence, truth, points=points)
    other = forecasts_of_chosen(confidence, says == truth, points=points)
    first = brier_score(one.probabilities, one.outcomes).score.estimate
    assert first == pytest.approx(brier_score(other.probabilities, other.outcomes).score.estimate)
