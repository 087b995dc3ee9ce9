"""Checked against pROC, MRMCaov and printed binormal fits; D1 to D8 and J7 are in
`reference/statistics_cases.md`."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from studies.binormal import binormal
from studies.roc import (
    RocError,
    auc,
    auc_covariance,
    auc_from_counts,
    delong_paired,
    delong_unpaired,
    empirical_roc,
    ordinal_ratings,
    rating_counts,
)
from tests.studies.results import limits

# D1, pROC's tests/testthat/test-var.R: WFNS grades 1 to 5 of patients with good and poor outcome.
WFNS_GOOD, WFNS_POOR = [37, 20, 3, 8, 4], [2, 12, 1, 8, 18]
# Van Dyke et al. (1993), ratings 1 to 5 without and with disease (RJafroc, inst/MRMCRuns/VD).
# Modality 1: counts, then a, b and AUC of the binormal fit (D8) and the empirical AUC (D5).
VAN_DYKE = [
    ([47, 9, 10, 2, 1], [4, 1, 2, 10, 28], 1.70, 0.537, 0.933, 0.91964573),
    ([0, 60, 6, 2, 1], [0, 10, 4, 6, 25], 1.40, 0.561, 0.890, 0.85877617),
    ([21, 35, 5, 6, 2], [0, 8, 1, 2, 34], 1.74, 0.635, 0.929, 0.90386473),
    ([62, 3, 4, 0, 0], [2, 1, 1, 3, 38], 1.93, 0.202, 0.970, 0.97310789),
    ([39, 19, 9, 1, 1], [7, 7, 3, 5, 23], 1.06, 0.464, 0.833, 0.82979066),
]


def scored(noise_counts, signal_counts):
    """Scores and truths that have these counts."""
    ratings = np.arange(1, len(noise_counts) + 1)
    scores = np.concatenate([np.repeat(ratings, noise_counts), np.repeat(ratings, signal_counts)])
    return scores, np.arange(len(scores)) >= sum(noise_counts)


def test_answer_and_confidence_become_one_scale_from_surest_real_to_surest_generated():
    called = [False, False, False, True, True, True]
    assert ordinal_ratings(called, [3, 2, 1, 1, 2, 3], 3).tolist() == [1, 2, 3, 4, 5, 6]


def test_ratings_are_counted_by_truth():
    noise, signal = rating_counts([1, 1, 4, 2, 4], [0, 0, 0, 1, 1], 4)
    assert (noise.tolist(), signal.tolist()) == ([2, 0, 0, 1], [0, 1, 0, 1])


def test_auc_and_delong_interval_match_proc_to_all_digits():
    found = auc_from_counts(WFNS_GOOD, WFNS_POOR)
    assert found.estimate == pytest.approx(0.823678861788618, abs=1e-15)
    assert found.standard_error**2 == pytest.approx(0.00146991470882363, abs=1e-17)
    assert limits(found) == pytest.approx((0.748534887819453, 0.898822835757783), abs=1e-14)


@pytest.mark.parametrize(("noise", "signal", "a", "b", "area", "empirical"), VAN_DYKE)
def test_auc_of_the_van_dyke_readers_matches_mrmcaov(noise, signal, a, b, area, empirical):
    assert auc_from_counts(noise, signal).estimate == pytest.approx(empirical, abs=5e-9)


def test_listed_scores_and_counted_ratings_give_the_same():
    assert auc(*scored(WFNS_GOOD, WFNS_POOR)) == auc_from_counts(WFNS_GOOD, WFNS_POOR)


def test_delong_is_the_variance_of_the_placements_taken_pair_by_pair():
    rng = np.random.default_rng(2)
    for _ in range(20):
        noise, signal = rng.integers(0, 6, 17), rng.integers(1, 8, 12)
        wins = (signal[:, None] > noise) + 0.5 * (signal[:, None] == noise)
        variance = wins.mean(1).var(ddof=1) / 12 + wins.mean(0).var(ddof=1) / 17
        found = auc(np.r_[noise, signal], np.arange(29) >= 17)
        assert found.estimate == pytest.approx(wins.mean())
        assert found.standard_error == pytest.approx(math.sqrt(variance))


def test_auc_is_the_area_under_the_empirical_curve():
    curve = empirical_roc(*scored(WFNS_GOOD, WFNS_POOR))
    area = np.trapezoid(curve.hit_rates, curve.false_alarm_rates)
    assert area == pytest.approx(auc_from_counts(WFNS_GOOD, WFNS_POOR).estimate)
    assert (curve.false_alarm_rates[0], curve.hit_rates[0]) == (0, 0)
    assert (curve.false_alarm_rates[-1], curve.hit_rates[-1]) == (1, 1)
    assert curve.thresholds == (5, 4, 3, 2, 1)
    assert curve.hit_rates[1] == 18 / 41
    assert all(low <= high for low, high in pairwise(curve.hit_rates))


def test_the_scale_of_the_scores_does_not_matter_and_turning_it_mirrors_the_area():
    scores, truth = scored(WFNS_GOOD, WFNS_POOR)
    one = auc(scores, truth)
    assert auc(np.exp(scores), truth) == one
    turned = auc(-scores, truth)
    assert turned.estimate == pytest.approx(1 - one.estimate)
    assert turned.standard_error == pytest.approx(one.standard_error)


def test_the_logit_interval_stays_inside_zero_and_one():
    noise, signal = [30, 9, 1], [0, 2, 18]
    assert auc_from_counts(noise, signal).ci_high > 1
    found = auc_from_counts(noise, signal, logit_interval=True)
    assert 0 < found.ci_low < found.estimate < found.ci_high < 1
    half = math.log(found.estimate / (1 - found.estimate)) - math.log(
        found.ci_low / (1 - found.ci_low)
    )
    error = found.standard_error / (found.estimate * (1 - found.estimate))
    assert half == pytest.approx(1.959964 * error, rel=1e-6)


@pytest.mark.parametrize("logit_interval", [False, True])
def test_intervals_of_auc_cover_simulated_readers(logit_interval):
    rng = np.random.default_rng(4)
    truth = float(ndtr(1.2 / math.sqrt(2)))
    covered = 0
    for _ in range(600):
        scores = np.round(2 * np.r_[rng.standard_normal(60), rng.normal(1.2, 1, 60)], 0)
        # Rounding to ties loses a little area; take the truth for cuts at half units.
        found = auc(scores, np.arange(120) >= 60, logit_interval=logit_interval)
        covered += found.ci_low <= truth - 0.002 <= found.ci_high
    assert 0.92 <= covered / 600 <= 0.98


@pytest.mark.parametrize(
    ("noise", "signal", "estimate", "words"),
    [
        ([5, 0], [0, 5], 1.0, "separate real from generated completely, so that the variance is 0"),
        ([0, 5], [5, 0], 0.0, "separate real from generated completely"),
        ([0, 5, 0], [0, 7, 0], 0.5, "ratings do not differ between pictures"),
        ([1, 0], [2, 5], 0.8571, "at least 2 real and 2 generated pictures"),
        ([0, 0], [2, 5], None, "no real picture was rated"),
        ([3, 1], [0, 0], None, "no generated picture was rated"),
    ],
)
def test_degenerate_ratings_have_no_interval_and_say_why(noise, signal, estimate, words):
    found = auc_from_counts(noise, signal)
    assert not found.is_estimable
    assert words in found.reason
    assert found.estimate == (None if estimate is None else pytest.approx(estimate, abs=1e-4))


def test_a_curve_needs_both_kinds():
    assert empirical_roc([1, 2, 3], [1, 1, 1]) is None


def two_readers(rng, n_each=40):
    case = rng.standard_normal(2 * n_each)
    truth = np.arange(2 * n_each) >= n_each
    first = np.round(truth * 1.5 + case + rng.standard_normal(2 * n_each))
    return first, np.round(truth * 0.8 + case + rng.standard_normal(2 * n_each)), truth


def test_the_paired_test_is_that_of_the_case_by_case_differences():
    first, second, truth = two_readers(np.random.default_rng(0))
    differences = [
        ((s[truth][:, None] > s[~truth]) + 0.5 * (s[truth][:, None] == s[~truth]))
        for s in (first, second)
    ]
    by_pair = differences[0] - differences[1]
    variance = by_pair.mean(1).var(ddof=1) / 40 + by_pair.mean(0).var(ddof=1) / 40
    found = delong_paired(first, second, truth)
    assert found.difference.estimate == pytest.approx(by_pair.mean())
    assert found.difference.standard_error == pytest.approx(math.sqrt(variance))
    assert found.statistic == pytest.approx(by_pair.mean() / math.sqrt(variance))
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.statistic)))
    assert found.df is None


def test_the_paired_test_gains_from_the_pairing_and_swapping_turns_the_sign():
    first, second, truth = two_readers(np.random.default_rng(1))
    paired, turned = delong_paired(first, second, truth), delong_paired(second, first, truth)
    unpaired = delong_unpaired(first, truth, second, truth)
    assert paired.difference.standard_error < unpaired.difference.standard_error
    assert turned.statistic == pytest.approx(-paired.statistic)
    assert turned.p_value == pytest.approx(paired.p_value)


def test_the_unpaired_test_has_the_degrees_of_freedom_of_proc():
    # As D = 1.434906, p = 0.152825 of pROC's test-roc.test.R follow from the variances and n = 113.
    scores, truth = scored(WFNS_GOOD, WFNS_POOR)
    other, other_truth = scored([30, 10, 10], [5, 10, 25])
    found = delong_unpaired(scores, truth, other, other_truth)
    one, two = (auc(s, t).standard_error ** 2 for s, t in ((scores, truth), (other, other_truth)))
    assert found.df == pytest.approx((one + two) ** 2 / (one**2 / 112 + two**2 / 89))
    assert found.difference.standard_error == pytest.approx(math.sqrt(one + two))


def test_the_covariance_of_many_readers_holds_that_of_each_pair():
    first, second, truth = two_readers(np.random.default_rng(3))
    areas, covariance = auc_covariance(np.stack([first, second, first - second]), truth)
    assert areas[1] == pytest.approx(auc(second, truth).estimate)
    assert np.sqrt(covariance[2, 2]) == pytest.approx(auc(first - second, truth).standard_error)
    pair = delong_paired(first, second, truth).difference.standard_error ** 2
    assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] == pytest.approx(pair)


def test_the_paired_test_keeps_its_level_when_readers_are_equal():
    rng = np.random.default_rng(6)
    rejected = 0
    for _ in range(600):
        truth = np.arange(80) >= 40
        case = truth + rng.standard_normal(80)
        scores = case + rng.standard_normal((2, 80))
        rejected += delong_paired(*scores, truth).p_value < 0.05
    assert 0.03 <= rejected / 600 <= 0.075


def test_identical_and_perfect_readers_have_no_test():
    scores, truth = scored(WFNS_GOOD, WFNS_POOR)
    found = delong_paired(scores, scores, truth)
    assert (found.difference.estimate, found.p_value) == (0, None)
    assert "the two rank every picture alike" in found.difference.reason
    perfect = delong_unpaired([1, 1, 2, 2], [0, 0, 1, 1], [1, 1, 2, 2], [0, 0, 1, 1])
    assert (perfect.difference.is_estimable, perfect.df) == (False, None)
    few = delong_paired([1, 2, 3], [3, 2, 1], [0, 0, 1])
    assert "at least 2 real and 2 generated" in few.difference.reason


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: ordinal_ratings([1, 0], [1, 7], 6),
            "confidence 7 in row 2 is off the scale; write",
        ),
        (
            lambda: ordinal_ratings([1, 2], [1, 1], 6),
            "the answer in row 2 is .*2.*; write true for",
        ),
        (lambda: ordinal_ratings([1], [1, 1], 6), "give one of each for every picture"),
        (
            lambda: rating_counts([1, 9], [0, 1], 5),
            "rating 9 is off the scale; write a whole number",
        ),
        (
            lambda: auc([1, 2, np.nan], [0, 1, 1]),
            "the score in row 3 is missing; leave that picture",
        ),
        (lambda: auc([1, 2], [0, 5]), "the truth in row 2 is .*5.*; write true for generated"),
        (lambda: auc([1, 2], [0, 1], confidence_level=95), r"give a fraction such as 0\.95"),
        (lambda: auc_from_counts([1, -2], [0, 1]), "-2 real pictures with rating 2 is no count"),
        (lambda: auc_from_counts([1, 2], [0.5, 1]), "0.5 generated pictures with rating 1 is no"),
        (lambda: binormal([1, 2], [0, 1, 3]), "write 0 for a rating that was not given"),
        (lambda: auc_covariance([1, 2], [0, 1]), "give one row for each reader"),
        (lambda: auc_covariance([[1, 2]], [0, 1]), "needs at least 2 real and 2 generated"),
        (
            lambda: delong_paired([1, 2], [1], [0, 1]),
            "use `delong_unpaired` for different pictures",
        ),
    ],
)
def test_bad_input_is_refused_with_advice(call, words):
    with pytest.raises(RocError, match=words):
        call()
