"""AUROC and FPR at a TPR, with intervals that hold."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from training.detection import auroc, fpr_at_tpr


def samples(distance, n, m, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(distance, 1, size=m)


def test_the_area_is_the_mann_whitney_statistic_ties_included():
    rng = np.random.default_rng(0)
    normal, anomalous = rng.integers(0, 6, 40), rng.integers(2, 8, 25)
    exact = mannwhitneyu(anomalous, normal).statistic / (40 * 25)
    assert auroc(normal, anomalous).estimate == pytest.approx(exact)


def test_the_standard_error_is_delongs_pair_by_pair():
    normal, anomalous = samples(1.0, 30, 20)
    wins = (anomalous[:, None] > normal).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / 20 + wins.mean(axis=0).var(ddof=1) / 30
    found = auroc(normal, anomalous, confidence_level=0.6827)
    area = found.estimate
    half = (np.log(found.ci_high / (1 - found.ci_high)) - np.log(area / (1 - area))) * area
    assert half * (1 - area) == pytest.approx(np.sqrt(variance), rel=1e-3)


def test_the_interval_agrees_with_a_stratified_bootstrap():
    normal, anomalous = samples(1.5, 150, 90, seed=4)
    rng = np.random.default_rng(1)
    areas = [
        auroc(rng.choice(normal, 150), rng.choice(anomalous, 90)).estimate for _ in range(2000)
    ]
    found = auroc(normal, anomalous)
    low, high = np.quantile(areas, [0.025, 0.975])
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=0.012)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(distance):
    truth = norm.cdf(distance / np.sqrt(2))
    found = [auroc(*samples(distance, 50, 40, seed)) for seed in range(600)]
    covered = np.mean([one.ci_low <= truth <= one.ci_high for one in found])
    # Two sided, three standard deviations of 600 tries.
    assert covered == pytest.approx(0.95, abs=0.027)


def test_perfect_separation_is_not_a_point():
    found = auroc(np.arange(30), np.arange(40, 60))
    assert found.estimate == found.ci_high == 1
    assert 0.8 < found.ci_low < 1
    more = auroc(np.arange(300), np.arange(400, 600))
    assert found.ci_low < more.ci_low < 1
    reverse = auroc(np.arange(40, 60), np.arange(30))
    assert reverse.estimate == reverse.ci_low == 0
    assert reverse.ci_high == pytest.approx(1 - found.ci_low)


def test_scores_that_say_nothing_have_an_area_of_a_half():
    found = auroc(np.ones(20), np.ones(30))
    assert found.estimate == 0.5
    assert found.ci_low < 0.4 < 0.6 < found.ci_high


def test_exchanging_the_kinds_mirrors_the_interval():
    normal, anomalous = samples(0.8, 40, 30)
    there, back = auroc(normal, anomalous), auroc(anomalous, normal)
    assert back.estimate == pytest.approx(1 - there.estimate)
    assert (back.ci_low, back.ci_high) == pytest.approx((1 - there.ci_high, 1 - there.ci_low))


def rng():
    return np.random.default_rng(0)


def test_the_rate_is_counted_at_the_threshold_that_finds_enough():
    normal = np.arange(100.0)
    anomalous = np.arange(81.0, 101.0)  # 81 .. 100; 19 of 20 reach 82
    found = fpr_at_tpr(normal, anomalous, 0.95, rng=rng())
    assert found.estimate == pytest.approx(np.mean(normal >= 82))
    assert (found.n_normal, found.n_anomalous) == (100, 20)
    assert fpr_at_tpr(normal, anomalous, 1.0, rng=rng()).estimate == pytest.approx(0.19)


def test_its_interval_covers_the_truth():
    truth = norm.sf(norm.ppf(0.05, loc=2.0))
    covered = []
    for seed in range(200):
        found = fpr_at_tpr(
            *samples(2.0, 200, 200, seed), rng=np.random.default_rng(seed), n_resamples=300
        )
        covered.append(found.ci_low <= truth <= found.ci_high)
    assert np.mean(covered) > 0.92


def test_no_false_alarm_among_few_cells_is_no_certainty():
    found = fpr_at_tpr(np.arange(20.0), np.arange(30.0, 60.0), rng=rng())
    assert found.estimate == 0
    assert found.ci_high > 0.1


def test_the_interval_is_wider_than_one_that_takes_the_threshold_as_known():
    few, many = (fpr_at_tpr(*samples(2.0, 2000, m), rng=rng(), n_resamples=500) for m in (20, 2000))
    assert few.ci_high - few.ci_low > 2 * (many.ci_high - many.ci_low)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: auroc([1.0], [1.0, 2.0]), "at least two normal and two anomalous"),
        (lambda: auroc([1.0, np.nan], [1.0, 2.0]), "1 of them not a number"),
        (lambda: auroc([1, 2], [2, 3], confidence_level=95), "give a fraction such as"),
        (lambda: fpr_at_tpr([1, 2], [2, 3], 95, rng=rng()), "a share of the anomalous cells"),
    ],
)
def test_what_cannot_be_counted_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()
