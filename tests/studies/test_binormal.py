"""Checked against pROC, MRMCaov and printed binormal fits; D1 to D8 and J7 are in
`reference/statistics_cases.md`."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import norm

from studies.binormal import binormal
from studies.roc import (
    auc_from_counts,
)
from tests.studies.results import every_number
from tests.studies.test_roc import VAN_DYKE, scored

READER_4_MODALITY_2 = ([44, 21, 4, 0, 0], [0, 0, 1, 6, 38])


@pytest.mark.parametrize(("noise", "signal", "a", "b", "area", "empirical"), VAN_DYKE)
def test_binormal_fits_match_the_printed_ones(noise, signal, a, b, area, empirical):
    found = binormal(noise, signal)
    assert found.a.estimate == pytest.approx(a, abs=5.01e-3)
    assert found.b.estimate == pytest.approx(b, abs=5.01e-4)
    assert found.auc.estimate == pytest.approx(area, abs=5.01e-4)


def log_likelihood(parameters, noise, signal):
    a, b, *cuts = parameters
    if b <= 0 or np.any(np.diff(cuts) <= 0):
        return -np.inf
    cuts = np.r_[-np.inf, cuts, np.inf]
    p, q = np.diff(ndtr(cuts)), np.diff(ndtr(b * cuts - a))
    return float(np.sum(noise * np.log(p)) + np.sum(signal * np.log(q)))


def random_ratings(rng, n_ratings=5, n=60):
    a, b = rng.uniform(0, 2), rng.uniform(0.5, 1.5)
    cuts = np.sort(rng.uniform(-1, 2, n_ratings - 1))
    noise = np.bincount(np.digitize(rng.standard_normal(n), cuts), minlength=n_ratings)
    signal = rng.normal(a / b, 1 / b, n)
    return noise, np.bincount(np.digitize(signal, cuts), minlength=n_ratings)


def test_no_other_curve_is_more_likely():
    rng = np.random.default_rng(9)
    n_compared = 0
    for _ in range(12):
        noise, signal = random_ratings(rng)
        found = binormal(noise, signal)
        if not found.is_estimable or found.n_ratings < 5:
            continue
        best = [found.a.estimate, found.b.estimate, *found.thresholds]
        assert log_likelihood(best, noise, signal) == pytest.approx(found.log_likelihood)
        other = minimize(
            lambda x, n=noise, s=signal: -log_likelihood(x, n, s),
            np.array(best) * 1.05,
            method="Nelder-Mead",
            options={"maxiter": 1500},
        )
        assert -other.fun <= found.log_likelihood + 1e-7
        n_compared += 1
    assert n_compared >= 6


def test_standard_errors_are_those_of_the_curvature():
    noise, signal, *_ = VAN_DYKE[0]
    found = binormal(noise, signal)
    best = np.array([found.a.estimate, found.b.estimate, *found.thresholds])
    step, size = 1e-4, len(best)
    hessian = np.empty((size, size))
    units = step * np.eye(size)
    for i in range(size):
        for j in range(size):
            hessian[i, j] = sum(
                s * t * log_likelihood(best + s * units[i] + t * units[j], noise, signal)
                for s in (1, -1)
                for t in (1, -1)
            ) / (4 * step**2)
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    # Observed against expected information: alike, not equal.
    assert found.a.standard_error == pytest.approx(errors[0], rel=0.1)
    assert found.b.standard_error == pytest.approx(errors[1], rel=0.1)


def test_equal_variances_are_the_ordered_probit_of_statsmodels():
    module = pytest.importorskip(
        "statsmodels.miscmodels.ordinal_model", reason="compares with statsmodels"
    )
    noise, signal, *_ = VAN_DYKE[0]
    scores, truth = scored(noise, signal)
    model = module.OrderedModel(scores, truth[:, None].astype(float), distr="probit")
    theirs = model.fit(method="bfgs", disp=False, gtol=1e-9)
    ours = binormal(noise, signal, equal_variance=True)
    assert ours.a.estimate == pytest.approx(theirs.params[0], abs=1e-5)
    assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-8)
    assert ours.thresholds == pytest.approx(
        model.transform_threshold_params(theirs.params)[1:-1], abs=1e-5
    )
    assert ours.a.standard_error == pytest.approx(theirs.bse[0], rel=0.05)
    assert (ours.b.estimate, ours.b.reason) == (1, "b was held at 1")
    assert ours.log_likelihood < binormal(noise, signal).log_likelihood


def test_parameters_of_simulated_readers_are_recovered():
    rng = np.random.default_rng(5)
    cuts, n = np.array([-0.5, 0.2, 0.8, 1.5, 2.2]), 200_000
    noise = np.bincount(np.digitize(rng.standard_normal(n), cuts), minlength=6)
    signal = np.bincount(np.digitize(rng.normal(1.5 / 0.7, 1 / 0.7, n), cuts), minlength=6)
    found = binormal(noise, signal)
    assert (found.a.estimate, found.b.estimate) == pytest.approx((1.5, 0.7), abs=0.02)
    assert found.auc.estimate == pytest.approx(float(ndtr(1.5 / math.hypot(1, 0.7))), abs=0.003)
    assert found.thresholds == pytest.approx(cuts, abs=0.02)


def test_intervals_of_the_binormal_area_cover_the_truth():
    rng = np.random.default_rng(12)
    a, b, cuts = 1.2, 0.8, np.array([-0.3, 0.3, 0.9, 1.5])
    truth = float(ndtr(a / math.hypot(1, b)))
    p, q = np.diff(np.r_[0, ndtr(cuts), 1]), np.diff(np.r_[0, ndtr(b * cuts - a), 1])
    found = [binormal(rng.multinomial(80, p), rng.multinomial(80, q)).auc for _ in range(80)]
    estimable = [one for one in found if one.is_estimable]
    assert len(estimable) >= 79
    covered = np.mean([one.ci_low <= truth <= one.ci_high for one in estimable])
    assert covered >= 0.89


def test_the_interval_of_the_area_stays_inside_zero_and_one():
    for noise, signal, *_ in VAN_DYKE:
        found = binormal(noise, signal)
        assert 0 < found.auc.ci_low < found.auc.estimate < found.auc.ci_high < 1
        assert found.b.ci_low > 0


def test_turning_the_scale_and_exchanging_the_kinds_gives_the_same_area():
    noise, signal, *_ = VAN_DYKE[0]
    one, other = binormal(noise, signal), binormal(signal[::-1], noise[::-1])
    assert other.auc.estimate == pytest.approx(one.auc.estimate, abs=1e-6)
    assert other.b.estimate == pytest.approx(1 / one.b.estimate, rel=1e-5)


def test_a_rating_that_nobody_gave_changes_nothing():
    noise, signal, *_ = VAN_DYKE[0]
    one = binormal(noise, signal)
    other = binormal([0, *noise[:2], 0, *noise[2:], 0], [0, *signal[:2], 0, *signal[2:], 0])
    assert other == one
    assert other.n_ratings == 5


@pytest.mark.parametrize(
    ("noise", "signal", "words"),
    [
        (*READER_4_MODALITY_2, "degenerate: no real picture was rated above a generated one"),
        ([0, 0, 9], [9, 0, 0], "degenerate: no generated picture was rated above a real one"),
        ([9, 3, 0], [2, 11, 0], "2 ratings were used, and a curve with unequal variances needs 3"),
        ([0, 9, 0], [0, 9, 0], "one rating was given to every picture"),
        ([0, 0, 0], [1, 2, 3], "no real picture was rated"),
        ([0, 10, 0], [6, 0, 9], "as the signal's spread goes to infinity"),
        ([6, 0, 9], [0, 10, 0], "as the signal's spread goes to zero"),
    ],
)
def test_degenerate_ratings_are_not_estimable_and_say_why(noise, signal, words):
    found = binormal(noise, signal)
    assert not found.is_estimable
    for estimate in (found.a, found.b, found.auc):
        assert (estimate.estimate, estimate.ci_low) == (None, None)
        assert words in estimate.reason


def test_two_ratings_are_enough_for_equal_variances():
    found = binormal([9, 3], [4, 12], equal_variance=True)
    assert found.a.estimate == pytest.approx(float(norm.ppf(12 / 16) - norm.ppf(3 / 12)))


def test_no_table_however_thin_gives_a_number_that_is_none():
    rng = np.random.default_rng(10)
    for _ in range(60):
        n_ratings, concentration = int(rng.integers(2, 7)), rng.choice([0.2, 1, 3])
        noise, signal = (
            rng.multinomial(rng.choice([1, 4, 15, 300]), rng.dirichlet([concentration] * n_ratings))
            for _ in range(2)
        )
        for found in (
            binormal(noise, signal),
            binormal(noise, signal, equal_variance=True),
            auc_from_counts(noise, signal, logit_interval=True),
        ):
            assert np.isfinite(list(every_number(found))).all()
