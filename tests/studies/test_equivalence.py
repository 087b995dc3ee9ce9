from math import inf, log, nan, sqrt

import numpy as np
import pytest
from scipy.stats import binom, norm
from scipy.stats import t as student_t

from studies.crossed import random_readers_and_cases
from studies.equivalence import (
    EquivalenceError,
    EquivalenceTest,
    Verdict,
    clustered_difference,
    clustered_tost,
    clustered_tost_power,
    exact_tost,
    exact_tost_power,
    exact_tost_powers,
    rejection_region,
    tost_power,
    verdict,
    z_tost,
)
from studies.proportions import ProportionError, chance_test, clopper_pearson

CHANCE = {"low": 0.45, "high": 0.55}
PASS_POWER = (0.9965, 0.9940, 0.9815, 0.9482, 0.8783, 0.7583, 0.5914, 0.4041, 0.2352, 0.1139)
PASS_POWER_BY_N = (0, 0, 0, 0.0889, 0.2356, 0.3517, 0.4457, 0.6154, 0.6674, 0.7708)
# CV, n, true ratio, power: 2×2 crossover, R PowerTOST's manual and comments.
POWER_TOST = [
    (0.25, 24, 0.95, 0.7391155, 5e-8),
    (0.25, 22, 0.95, 0.6953401, 5e-8),
    (0.30, 40, 0.95, 0.815845, 5e-7),
    (0.20, 20, 0.95, 0.834680, 5e-7),
    (0.20, 28, 0.92, 0.822742, 5e-7),
    (0.39, 7000, 1.24, 0.3511889, 5e-8),
    (0.385, 7000, 1.24, 0.3568784, 5e-8),
]


# One proportion, exact.


@pytest.mark.parametrize("n_correct", [5, 10])
def test_case_b2_the_limits_of_the_90_percent_interval_are_margins_with_p_of_5_percent(n_correct):
    interval = clopper_pearson(n_correct, 20, confidence_level=0.9)
    test = exact_tost(n_correct, 20, low=interval.ci_low, high=interval.ci_high)
    assert (test.p_low, test.p_high, test.p_value) == pytest.approx((0.05,) * 3, abs=1e-12)


@pytest.mark.parametrize("n_correct", range(1, 20))
def test_case_b2_the_limits_of_the_95_percent_interval_give_2_5_percent(n_correct):
    interval = clopper_pearson(n_correct, 20)
    test = exact_tost(n_correct, 20, low=interval.ci_low, high=interval.ci_high)
    assert (test.p_low, test.p_high) == pytest.approx((0.025, 0.025), abs=1e-12)


@pytest.mark.parametrize("n_trials", [1, 20, 2880])
def test_trap_j1_none_and_all_correct_have_p_values(n_trials):
    none = exact_tost(0, n_trials, **CHANCE)
    assert (none.p_low, none.p_high) == pytest.approx((1, 0.45**n_trials), rel=1e-9)
    everything = exact_tost(n_trials, n_trials, **CHANCE)
    assert (everything.p_low, everything.p_high) == pytest.approx((0.45**n_trials, 1), rel=1e-9)
    assert not none.is_equivalent
    assert not everything.is_equivalent


def test_the_small_whole_numbers_of_a_table_do_not_overflow():
    assert exact_tost(np.uint8(0), np.uint8(250), **CHANCE) == exact_tost(0, 250, **CHANCE)
    assert z_tost(np.uint8(120), np.uint8(250), **CHANCE) == z_tost(120, 250, **CHANCE)


def test_an_open_margin_from_zero_is_never_cleared_by_none_correct():
    test = exact_tost(0, 200, low=0, high=0.05)
    assert (test.p_low, test.p_high) == pytest.approx((1, 0.95**200))
    assert exact_tost(1, 400, low=0, high=0.05).is_equivalent
    assert exact_tost(399, 400, low=0.95, high=1).is_equivalent


def test_case_b5_is_different_and_equivalent_at_once():
    test = exact_tost(1507, 2880, **CHANCE)
    assert test.p_value == pytest.approx(0.002108, abs=5e-7)
    assert (test.ci_low, test.ci_high) == pytest.approx((0.50777, 0.53872), abs=5e-6)
    assert z_tost(1507, 2880, **CHANCE).p_value == pytest.approx(0.002035, abs=5e-7)
    assert verdict(test, chance_test(1507, 2880).p_value) is Verdict.BOTH


@pytest.mark.parametrize(
    ("n_correct", "n_trials", "expected"),
    [
        (1507, 2880, "both"),
        (1440, 2880, "equivalent"),
        (1700, 2880, "different"),
        (144, 288, "neither"),
    ],
)
def test_the_verdict_says_which_of_two_claims_hold(n_correct, n_trials, expected):
    p_difference = chance_test(n_correct, n_trials).p_value
    assert verdict(exact_tost(n_correct, n_trials, **CHANCE), p_difference) == expected


def test_no_test_no_verdict():
    assert verdict(exact_tost(1440, 2880, **CHANCE), None) is Verdict.NOT_ESTIMABLE
    without_error = clustered_tost(0.5, 0.0, 9, **CHANCE)
    assert verdict(without_error, 0.001) == "not estimable"


def test_each_claim_has_its_own_level():
    test = exact_tost(1507, 2880, **CHANCE)
    assert verdict(test, 0.03) is Verdict.BOTH
    assert verdict(test, 0.03, alpha=0.01) is Verdict.EQUIVALENT
    strict = exact_tost(1507, 2880, **CHANCE, alpha=0.002)
    assert verdict(strict, 0.03) is Verdict.DIFFERENT


def test_the_exact_test_and_its_interval_decide_alike():
    rng = np.random.default_rng(1)
    for _ in range(300):
        n_trials = int(rng.integers(1, 400))
        n_correct = int(rng.integers(0, n_trials + 1))
        low, high = np.sort(rng.random(2))
        test = exact_tost(n_correct, n_trials, low=low, high=high, alpha=0.1)
        assert test.is_equivalent == (low < test.ci_low and test.ci_high < high)


def test_wrong_answers_are_equivalent_where_right_ones_are():
    for n_correct in range(41):
        right = exact_tost(n_correct, 40, low=0.3, high=0.6)
        wrong = exact_tost(40 - n_correct, 40, low=0.4, high=0.7)
        assert (right.p_low, right.p_high) == pytest.approx((wrong.p_high, wrong.p_low), abs=1e-12)


# Rejection region and power.


def test_case_b3_rejection_region_and_power_of_the_pass_manual():
    assert rejection_region(500, low=0.5, high=0.7) == (269, 332)
    power = [exact_tost_power(500, low=0.5, high=0.7, truth=0.6 + i / 100) for i in range(10)]
    assert power == pytest.approx(PASS_POWER, abs=5e-5)
    # "Actual alpha" of the manual.
    assert exact_tost_power(500, low=0.5, high=0.7, truth=0.5) == pytest.approx(0.0489, abs=5e-5)


def test_power_by_number_of_trials_matches_the_pass_manual():
    power = exact_tost_powers(np.arange(20, 210, 20), low=0.4, high=0.6)
    assert power == pytest.approx(PASS_POWER_BY_N, abs=5e-5)


def test_case_b4_sizes_the_real_question():
    power = exact_tost_powers([288, 1000, 1200, 2880], **CHANCE)
    assert power == pytest.approx((0, 0.863, 0.931, 0.9998), abs=5e-4)


def test_trap_j1_power_is_not_negative_where_statsmodels_says_it_is():
    proportion = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is not installed"
    )
    assert proportion.power_binom_tost(0.45, 0.55, 288) == pytest.approx(-0.047, abs=5e-4)
    assert exact_tost_power(288, **CHANCE) == 0
    assert rejection_region(288, **CHANCE) is None


def test_power_and_p_values_match_statsmodels_where_it_is_right():
    proportion = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is not installed"
    )
    for n_trials, low, high, truth in [(500, 0.5, 0.7, 0.62), (90, 0.2, 0.5, 0.3)]:
        expected = proportion.power_binom_tost(low, high, n_trials, p_alt=truth)
        found = exact_tost_power(n_trials, low=low, high=high, truth=truth)
        assert found == pytest.approx(expected, abs=1e-12)
        for n_correct in range(1, n_trials, 7):
            theirs = proportion.binom_tost(n_correct, n_trials, low, high)[1:]
            ours = exact_tost(n_correct, n_trials, low=low, high=high)
            assert (ours.p_low, ours.p_high) == pytest.approx(theirs, abs=1e-12)


def test_the_region_is_where_the_test_rejects_and_power_is_its_probability():
    rng = np.random.default_rng(2)
    for _ in range(40):
        n_trials, alpha = int(rng.integers(1, 120)), float(rng.uniform(0.01, 0.3))
        low, high = np.sort(rng.random(2))
        truth = float(rng.random())
        margin = {"low": float(low), "high": float(high), "alpha": alpha}
        counts = [x for x in range(n_trials + 1) if exact_tost(x, n_trials, **margin).is_equivalent]
        region = rejection_region(n_trials, **margin)
        assert region == ((counts[0], counts[-1]) if counts else None)
        power = exact_tost_power(n_trials, **margin, truth=truth)
        assert power == pytest.approx(binom.pmf(counts, n_trials, truth).sum(), abs=1e-12)


def test_the_exact_test_holds_its_level_at_both_ends_of_the_margin():
    for n_trials in (50, 288, 1000, 2881):
        for truth in (0.45, 0.55, 0.4, 0.6):
            assert exact_tost_power(n_trials, **CHANCE, truth=truth) <= 0.05


@pytest.mark.parametrize("truth", [0, 1])
def test_power_is_defined_for_readers_who_are_never_or_always_right(truth):
    assert exact_tost_power(500, **CHANCE, truth=truth) == 0
    assert exact_tost_power(500, low=0.5, high=1, truth=1) == 0
    assert exact_tost_power(500, low=0.0, high=0.5, truth=0) == 0


# One proportion, normal.


def test_case_b1_z_tost_matches_sas():
    test = z_tost(228, 762, low=0.18, high=0.38)
    assert test.statistic_low == pytest.approx(7.1865, abs=5e-5)
    assert test.statistic_high == pytest.approx(-4.8701, abs=5e-5)
    assert (test.ci_low, test.ci_high) == pytest.approx((0.2719, 0.3265), abs=5e-5)
    assert test.p_value == pytest.approx(5.577e-07, abs=5e-11)
    assert test.p_low < 0.0001


@pytest.mark.parametrize("variance", ["sample", "limits", "null"])
def test_z_tost_matches_statsmodels_for_each_variance(variance):
    proportion = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is not installed"
    )
    for n_correct, n_trials, low, high in [(228, 762, 0.18, 0.38), (1507, 2880, 0.45, 0.55)]:
        _, lower, upper = proportion.proportions_ztost(n_correct, n_trials, low, high, variance)
        ours = z_tost(n_correct, n_trials, low=low, high=high, variance=variance)
        assert (ours.statistic_low, ours.statistic_high) == pytest.approx((lower[0], upper[0]))
        assert (ours.p_low, ours.p_high) == pytest.approx((lower[1], upper[1]), rel=1e-9)


@pytest.mark.parametrize("n_correct", [0, 30])
def test_z_tost_of_equal_answers_is_not_estimable_and_says_what_is(n_correct):
    test = z_tost(n_correct, 30, **CHANCE)
    assert test.p_value is test.is_equivalent is test.ci_low is None
    assert test.reason.endswith("so the sample has no variance; use the exact test")
    for variance in ("limits", "null"):
        assert z_tost(n_correct, 30, **CHANCE, variance=variance).is_equivalent is False
    edge = z_tost(n_correct, 30, low=0, high=0.55, variance="limits")
    assert edge.reason == "a limit at 0 or 1 has no variance; use the exact test"


# Clustered.


def test_clustered_tost_is_two_t_tests_and_their_interval():
    test = clustered_tost(0.523, 0.015, 9, **CHANCE)
    assert test.statistic_low == pytest.approx(0.073 / 0.015)
    assert test.p_low == pytest.approx(student_t.sf(0.073 / 0.015, 9))
    assert test.p_high == pytest.approx(student_t.cdf(-0.027 / 0.015, 9))
    half_width = student_t.ppf(0.95, 9) * 0.015
    assert (test.ci_low, test.ci_high) == pytest.approx((0.523 - half_width, 0.523 + half_width))
    assert test.confidence_level == pytest.approx(0.9)


def test_clustered_tost_and_its_interval_decide_alike():
    rng = np.random.default_rng(3)
    for _ in range(200):
        low, high = np.sort(rng.normal(size=2))
        df = [None, inf, 1.0, 4.3, 60.0][rng.integers(5)]
        test = clustered_tost(
            float(rng.normal()), float(rng.uniform(0.01, 0.5)), df, low=low, high=high
        )
        assert test.is_equivalent == (low < test.ci_low and test.ci_high < high)


@pytest.mark.parametrize("df", [None, inf])
def test_without_degrees_of_freedom_the_clustered_test_is_normal(df):
    test = clustered_tost(0.51, 0.02, df, **CHANCE)
    assert test.p_low == pytest.approx(norm.sf(3))
    assert test.df is None
    assert clustered_difference(0.51, 0.02, df, null=0.5) == pytest.approx(2 * norm.sf(0.5))


def test_independent_trials_give_the_clustered_test_the_normal_one():
    standard_error = sqrt(1507 / 2880 * 1373 / 2880 / 2880)
    clustered = clustered_tost(1507 / 2880, standard_error, None, **CHANCE)
    assert clustered.p_value == pytest.approx(z_tost(1507, 2880, **CHANCE).p_value, rel=1e-12)


def test_the_headline_is_no_longer_equivalent_once_its_clusters_are_known():
    # Case B5 with a design effect of 4 and ten readers: neither claim survives.
    naive = sqrt(0.523 * 0.477 / 2880)
    crossed = 2 * naive
    test = clustered_tost(0.523, crossed, 9, **CHANCE)
    assert verdict(test, clustered_difference(0.523, crossed, 9, null=0.5)) is Verdict.NEITHER
    test = clustered_tost(0.523, naive, None, **CHANCE)
    assert verdict(test, clustered_difference(0.523, naive, None, null=0.5)) is Verdict.BOTH


@pytest.mark.parametrize(
    ("estimate", "standard_error", "reason"),
    [
        (None, None, "there is no estimate"),
        (0.5, None, "the data show no variance to judge it by"),
        (1.0, 0.0, "the data show no variance to judge it by"),
    ],
)
def test_an_estimate_without_error_is_not_estimable_rather_than_certain(
    estimate, standard_error, reason
):
    test = clustered_tost(estimate, standard_error, 9, **CHANCE)
    assert isinstance(test, EquivalenceTest)
    assert test.p_value is test.is_equivalent is test.ci_low is None
    assert reason in test.reason
    assert clustered_difference(estimate, standard_error, 9, null=0.5) is None


def crossed_table(rng, n_readers, n_cases, mean, *, reader_sd=0.25, case_sd=0.25):
    ease = mean + rng.normal(0, reader_sd, (n_readers, 1)) + rng.normal(0, case_sd, (1, n_cases))
    return rng.random((n_readers, n_cases)) < norm.cdf(ease)


def test_at_the_end_of_the_margin_the_clustered_test_holds_its_level_and_the_naive_one_does_not():
    # Probit-normal readers and cases; the margin ends where the truth is.
    rng = np.random.default_rng(2026)
    mean = 0.126
    truth = float(norm.cdf(mean / sqrt(1 + 2 * 0.25**2)))
    clustered = naive = 0
    for _ in range(1000):
        table = crossed_table(rng, 10, 150, mean)
        result = random_readers_and_cases(table)
        margin = {"low": truth - 0.2, "high": truth}
        clustered += clustered_tost(
            result.estimate, result.standard_error, result.df, **margin
        ).is_equivalent
        naive += exact_tost(result.n_correct, result.n_trials, **margin).is_equivalent
    # Two Monte-Carlo errors of 0.0069.
    assert clustered / 1000 <= 0.05 + 0.0138
    assert naive / 1000 > 0.12


# Power of the clustered test.


@pytest.mark.parametrize(("cv", "n", "ratio", "power", "rounding"), POWER_TOST)
def test_power_with_degrees_of_freedom_matches_rs_power_tost(cv, n, ratio, power, rounding):
    standard_error = sqrt(log(1 + cv**2)) * sqrt(2 / n)
    found = tost_power(standard_error, df=n - 2, low=log(0.8), high=log(1.25), truth=log(ratio))
    assert found == pytest.approx(power, abs=rounding)


def test_power_with_many_degrees_of_freedom_is_the_normal_one():
    for standard_error in (0.005, 0.02, 0.03):
        known = tost_power(standard_error, **CHANCE, truth=0.51)
        assert tost_power(standard_error, df=inf, **CHANCE, truth=0.51) == known
        assert tost_power(standard_error, df=1e7, **CHANCE, truth=0.51) == pytest.approx(
            known, abs=1e-5
        )


@pytest.mark.parametrize("df", [None, 0.8, 1, 2, 9, 300])
def test_power_is_a_probability_and_falls_with_the_standard_error(df):
    errors = np.geomspace(1e-4, 1, 30)
    power = [tost_power(one, df=df, **CHANCE, truth=0.5) for one in errors]
    assert all(0 <= one <= 1 for one in power)
    assert (np.diff(power) <= 1e-9).all()
    assert power[-1] < 1e-3


def test_power_at_the_end_of_a_wide_margin_is_the_level():
    for df in (None, 3, 30):
        power = tost_power(0.001, df=df, low=-1, high=0.55, truth=0.55)
        assert power == pytest.approx(0.05, abs=1e-9)


def test_power_with_degrees_of_freedom_is_what_a_simulation_finds():
    rng = np.random.default_rng(4)
    n, df = 200_000, 5
    estimates = 0.51 + 0.018 * rng.normal(size=n)
    errors = 0.018 * np.sqrt(rng.chisquare(df, n) / df)
    half_widths = student_t.ppf(0.95, df) * errors
    inside = (estimates - half_widths > 0.45) & (estimates + half_widths < 0.55)
    expected = tost_power(0.018, df=df, **CHANCE, truth=0.51)
    assert inside.mean() == pytest.approx(expected, abs=0.0045)


def test_clustered_power_is_that_of_fewer_independent_trials():
    power = clustered_tost_power(3000, design_effect=3, **CHANCE)
    assert power == clustered_tost_power(1000, design_effect=1, **CHANCE)
    assert power == pytest.approx(exact_tost_power(1000, **CHANCE), abs=0.01)
    assert clustered_tost_power(288, design_effect=1, **CHANCE) < 0.06
    assert clustered_tost_power(100, design_effect=1, **CHANCE) == 0


def test_a_truth_outside_the_margin_has_hardly_any_power():
    assert clustered_tost_power(10_000, design_effect=1, **CHANCE, truth=0.58) < 1e-8


# Refusals.


@pytest.mark.parametrize("function", [exact_tost, z_tost])
def test_a_margin_of_differences_is_refused_with_advice(function):
    with pytest.raises(EquivalenceError, match=r"leaves \[0, 1\]; give proportions, such as low="):
        function(10, 20, low=-0.05, high=0.05)


@pytest.mark.parametrize(("low", "high"), [(0.55, 0.45), (0.5, 0.5), (nan, 0.5), (0.4, inf)])
def test_an_empty_margin_is_refused_with_advice(low, high):
    for call in (
        lambda: exact_tost(10, 20, low=low, high=high),
        lambda: clustered_tost(0.5, 0.1, 9, low=low, high=high),
        lambda: rejection_region(20, low=low, high=high),
        lambda: tost_power(0.1, low=low, high=high, truth=0.5),
    ):
        with pytest.raises(EquivalenceError, match="is empty; give its lower end first"):
            call()


@pytest.mark.parametrize("alpha", [0, 0.5, 5, nan])
def test_a_level_that_is_none_is_refused(alpha):
    with pytest.raises(EquivalenceError, match=r"give a level such as 0\.05"):
        exact_tost(10, 20, **CHANCE, alpha=alpha)


def test_counts_that_are_no_proportion_are_refused():
    with pytest.raises(ProportionError, match="21 correct of 20 trials is not a proportion"):
        exact_tost(21, 20, **CHANCE)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((nan, 0.1, 9), "estimate=nan is not a number; give None where there is no estimate"),
        ((0.5, nan, 9), "standard_error=nan; give a number above 0, or None"),
        ((0.5, -0.1, 9), r"standard_error=-0\.1; give a number above 0"),
        ((0.5, inf, 9), "standard_error=inf; give a number above 0"),
        ((0.5, 0.1, 0), "df=0; give degrees of freedom above 0, or None for the normal"),
        ((0.5, 0.1, nan), "df=nan; give degrees of freedom"),
    ],
)
def test_estimates_that_are_none_are_refused(arguments, advice):
    with pytest.raises(EquivalenceError, match=advice):
        clustered_tost(*arguments, **CHANCE)


def test_designs_that_are_none_are_refused():
    with pytest.raises(EquivalenceError, match="n_trials=0; give a whole number of trials"):
        exact_tost_power(0, **CHANCE)
    with pytest.raises(EquivalenceError, match=r"truth=52 is not a proportion; give a number in"):
        exact_tost_power(100, **CHANCE, truth=52)
    with pytest.raises(EquivalenceError, match="design_effect=0; give a number above 0, and 1 for"):
        clustered_tost_power(100, design_effect=0, **CHANCE)
    with pytest.raises(EquivalenceError, match="truth=1 leaves no variance"):
        clustered_tost_power(100, design_effect=1, low=0.5, high=1, truth=1)
    with pytest.raises(EquivalenceError, match="power needs the true standard error, above 0"):
        tost_power(0, **CHANCE, truth=0.5)
    with pytest.raises(EquivalenceError, match="variance='pooled'; use 'sample', 'limits' or"):
        z_tost(10, 20, **CHANCE, variance="pooled")
