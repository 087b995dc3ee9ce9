import numpy as np
import pytest
from scipy.stats import beta, binom

from studies.proportions import (
    ProportionError,
    agresti_coull,
    chance_test,
    clopper_pearson,
    fewest_rejected_above,
    jeffreys,
    most_rejected_below,
    wald,
    wilson,
    wilson_continuity_corrected,
)

# x, n, Wilson, Clopper–Pearson, Wald and Agresti–Coull unclipped, Jeffreys; none where R takes
# highest density. R binom.confint, by way of statsmodels results_proportion.py.
R_BINOM = [
    (
        (18, 20),
        (0.698966, 0.972134),
        (0.683017, 0.987651),
        (0.768522, 1.031478),
        (0.686756, 0.984344),
        (0.716147, 0.978628),
    ),
    (
        (4, 20),
        (0.080658, 0.416017),
        (0.057334, 0.436614),
        (0.024695, 0.375305),
        (0.074912, 0.421764),
        (0.071520, 0.408226),
    ),
    (
        (4, 200),
        (0.007804, 0.050287),
        (0.005476, 0.050414),
        (0.000597, 0.039403),
        (0.005992, 0.052100),
        (0.006788, 0.046847),
    ),
    (
        (190, 200),
        (0.910422, 0.972617),
        (0.909972, 0.975766),
        (0.919795, 0.980205),
        (0.909307, 0.973732),
        None,
    ),
    (
        (1, 30),
        (0.005909, 0.166704),
        (0.000844, 0.172169),
        (-0.030901, 0.097567),
        (-0.008305, 0.180918),
        None,
    ),
    (
        (29, 30),
        (0.833296, 0.994091),
        (0.827831, 0.999156),
        (0.902433, 1.030901),
        (0.819082, 1.008305),
        None,
    ),
]
# x, n, Wilson, Clopper–Pearson, Wald (clipped), Wilson with correction, Jeffreys.
NEWCOMBE_1998_TABLE_I = [
    (
        (81, 263),
        (0.2553, 0.3662),
        (0.2527, 0.3676),
        (0.2522, 0.3638),
        (0.2535, 0.3682),
        (0.2545, 0.3656),
    ),
    (
        (15, 148),
        (0.0624, 0.1605),
        (0.0578, 0.1617),
        (0.0527, 0.1500),
        (0.0598, 0.1644),
        (0.0604, 0.1576),
    ),
    (
        (0, 20),
        (0.0, 0.1611),
        (0.0, 0.1684),
        (0.0, 0.0),
        (0.0, 0.2005),
        (0.0, 0.1166),
    ),
    (
        (1, 29),
        (0.0061, 0.1718),
        (0.0009, 0.1776),
        (0.0, 0.1009),
        (0.0018, 0.1963),
        (0.0037, 0.1501),
    ),
]
ALL = [wilson, wilson_continuity_corrected, clopper_pearson, jeffreys, agresti_coull, wald]
STRICT = [wilson, wilson_continuity_corrected, clopper_pearson, jeffreys]
"""Methods whose formula itself stays inside [0, 1]."""


def limits(proportion):
    return proportion.ci_low, proportion.ci_high


@pytest.mark.parametrize(("counts", "score", "exact", "textbook", "adjusted", "bayes"), R_BINOM)
def test_case_a1_intervals_match_r(counts, score, exact, textbook, adjusted, bayes):
    assert limits(wilson(*counts)) == pytest.approx(score, abs=5e-7)
    assert limits(clopper_pearson(*counts)) == pytest.approx(exact, abs=5e-7)
    assert limits(wald(*counts, clip=False)) == pytest.approx(textbook, abs=5e-7)
    assert limits(agresti_coull(*counts, clip=False)) == pytest.approx(adjusted, abs=5e-7)
    if bayes is not None:
        assert limits(jeffreys(*counts)) == pytest.approx(bayes, abs=5e-7)


@pytest.mark.parametrize(
    ("method", "high"),
    [
        (wilson, 0.113513),
        (clopper_pearson, 0.115703),
        (agresti_coull, 0.134712),
        (wald, 0.0),
        (jeffreys, 0.079678),
    ],
)
def test_case_a1_none_of_thirty_and_its_mirror(method, high):
    assert limits(method(0, 30)) == pytest.approx((0, high), abs=5e-7)
    assert limits(method(30, 30)) == pytest.approx((1 - high, 1), abs=5e-7)


@pytest.mark.parametrize(
    ("counts", "score", "exact", "textbook", "corrected", "bayes"), NEWCOMBE_1998_TABLE_I
)
def test_case_a2_intervals_match_newcombes_table(counts, score, exact, textbook, corrected, bayes):
    assert limits(wilson(*counts)) == pytest.approx(score, abs=5e-5)
    assert limits(clopper_pearson(*counts)) == pytest.approx(exact, abs=5e-5)
    assert limits(wald(*counts)) == pytest.approx(textbook, abs=5e-5)
    assert limits(wilson_continuity_corrected(*counts)) == pytest.approx(corrected, abs=5e-5)
    assert limits(jeffreys(*counts)) == pytest.approx(bayes, abs=5e-5)


def test_wilson_matches_statsmodels_to_fifteen_digits():
    expected = (0.348499283643951, 0.651500716356049)
    assert limits(wilson(19, 38)) == pytest.approx(expected, abs=1e-15)


def test_wilson_of_a_published_reader_study_is_reproduced():
    # Park et al. (2021), 1781 of 3000.
    assert limits(wilson(1781, 3000)) == pytest.approx((0.5760, 0.6111), abs=5e-5)


def test_the_interval_of_the_target_paper_is_that_of_independent_judgements():
    # CytoDiffusion: 0.523, 0.505–0.542; case A5 with its assumed 2 880 judgements.
    low, high = limits(wilson(1506, 2880))
    assert (low, high) == pytest.approx((0.505, 0.5415), abs=6e-4)


def test_jeffreys_has_equal_tails_and_ends_at_the_edges():
    low, high = limits(jeffreys(1, 30))
    posterior = beta(1.5, 29.5)
    assert posterior.cdf(low) == pytest.approx(0.025)
    assert posterior.sf(high) == pytest.approx(0.025)
    # The edge rule moves one limit only: the other keeps its tail of 2.5 %.
    assert limits(jeffreys(0, 30))[0] == 0
    assert beta(0.5, 30.5).sf(limits(jeffreys(0, 30))[1]) == pytest.approx(0.025)


def test_clipping_is_only_a_display_of_the_same_formula():
    assert limits(agresti_coull(0, 30, clip=False))[0] < 0
    assert limits(agresti_coull(0, 30))[0] == 0
    assert agresti_coull(4, 20) == agresti_coull(4, 20, clip=False)
    assert limits(wald(1, 30))[0] == 0
    assert limits(wald(29, 30))[1] == 1


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    ("n_correct", "n_trials"),
    [(38, 38), (0, 77), (77, 77), (0, 1), (1, 1), (1, 10**9), (10**9, 10**9)],
)
def test_intervals_stay_inside_zero_and_one(method, n_correct, n_trials):
    low, high = limits(method(n_correct, n_trials))
    assert 0 <= low <= n_correct / n_trials <= high <= 1


@pytest.mark.parametrize("method", STRICT)
@pytest.mark.parametrize("n_trials", [1, 2, 10, 77, 1000])
def test_only_none_and_all_correct_reach_the_edges(method, n_trials):
    assert limits(method(0, n_trials))[0] == 0
    assert limits(method(n_trials, n_trials))[1] == 1
    for n_correct in range(1, n_trials):
        low, high = limits(method(n_correct, n_trials))
        assert 0 < low < high < 1


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("confidence_level", [0.5, 0.9, 0.95, 0.999])
def test_the_interval_of_the_wrong_answers_mirrors_that_of_the_right_ones(method, confidence_level):
    for n_trials in (1, 7, 40):
        for n_correct in range(n_trials + 1):
            low, high = limits(method(n_correct, n_trials, confidence_level=confidence_level))
            mirrored = method(n_trials - n_correct, n_trials, confidence_level=confidence_level)
            assert limits(mirrored) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("method", [agresti_coull, wald])
def test_unclipped_limits_mirror_too(method):
    for n_correct in range(31):
        low, high = limits(method(n_correct, 30, clip=False))
        mirrored = limits(method(30 - n_correct, 30, clip=False))
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("method", ALL)
def test_more_certainty_needs_a_wider_interval(method):
    rng = np.random.default_rng(1)
    for _ in range(50):
        n_trials = int(rng.integers(2, 200))
        n_correct = int(rng.integers(1, n_trials))
        narrow, wide = (method(n_correct, n_trials, confidence_level=one) for one in (0.8, 0.99))
        assert wide.ci_low <= narrow.ci_low
        assert narrow.ci_high <= wide.ci_high


@pytest.mark.parametrize("method", [*STRICT, agresti_coull])
def test_the_interval_of_a_perfect_reader_is_not_a_point(method):
    assert method(40, 40).ci_low < 1


def test_the_textbook_interval_of_a_perfect_reader_is_a_point():
    assert limits(wald(40, 40)) == (1, 1)


def coverage(method, n_trials, truths):
    covered = np.zeros(len(truths))
    for n_correct in range(n_trials + 1):
        low, high = limits(method(n_correct, n_trials))
        inside = (low <= truths) & (truths <= high)
        covered += inside * binom.pmf(n_correct, n_trials, truths)
    return covered


def test_clopper_pearson_never_covers_less_than_it_says():
    assert coverage(clopper_pearson, 20, np.linspace(0.01, 0.99, 99)).min() >= 0.95


@pytest.mark.parametrize("method", [wilson, jeffreys, agresti_coull])
def test_approximate_intervals_cover_their_level_on_average(method):
    # Brown, Cai & DasGupta (2001): means near the level, where Wald's is far below.
    truths = np.linspace(0.02, 0.98, 193)
    assert 0.94 <= coverage(method, 40, truths).mean() <= 0.97
    assert coverage(wald, 40, truths).mean() < 0.92


def test_intervals_match_statsmodels_side_by_side():
    proportion = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is not installed"
    )
    theirs = {
        wilson: "wilson",
        clopper_pearson: "beta",
        jeffreys: "jeffreys",
        agresti_coull: "agresti_coull",
        wald: "normal",
    }
    for n_correct, n_trials in [(1, 3), (7, 12), (50, 60), (300, 1000), (2879, 2880)]:
        for method, name in theirs.items():
            expected = proportion.proportion_confint(n_correct, n_trials, method=name)
            assert limits(method(n_correct, n_trials)) == pytest.approx(expected, abs=1e-12), name


def test_the_jeffreys_edge_rule_is_ours_and_not_that_of_statsmodels():
    # Trap J4.
    proportion = pytest.importorskip(
        "statsmodels.stats.proportion", reason="statsmodels is not installed"
    )
    theirs = proportion.proportion_confint(0, 30, method="jeffreys")
    assert theirs[0] == pytest.approx(1.6e-5, abs=5e-7)
    assert jeffreys(0, 30).ci_low == 0
    assert jeffreys(0, 30).ci_high == pytest.approx(theirs[1], abs=1e-12)


def test_wilson_with_correction_matches_scipy():
    from scipy.stats import binomtest

    for n_correct, n_trials in [(0, 5), (1, 5), (5, 5), (81, 263), (1781, 3000)]:
        theirs = binomtest(n_correct, n_trials).proportion_ci(method="wilsoncc")
        ours = wilson_continuity_corrected(n_correct, n_trials)
        assert limits(ours) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("method", ALL)
def test_the_small_whole_numbers_of_a_table_do_not_overflow(method):
    small = method(np.uint8(200), np.uint8(255))
    assert small == method(200, 255)


# The exact test against a fixed chance.


def test_case_a4_the_published_accuracy_is_tested_against_a_fixed_chance():
    assert chance_test(1781, 3000).p_value == pytest.approx(9.4e-25, rel=0.005)


def test_trap_j2_chance_is_no_second_sample():
    # 779 of 1500: the paper's 0.29 compares with 750 of 1500 as if guessing had been sampled.
    test = chance_test(779, 1500)
    assert test.p_value == pytest.approx(0.141, abs=5e-4)
    assert "as independent" in test.caution
    with pytest.raises(ProportionError, match=r"chance=750 is not a probability; .* second sample"):
        chance_test(779, 1500, chance=750)


@pytest.mark.parametrize(
    ("alternative", "p_value"),
    [
        ("less", 0.982022657605858),
        ("greater", 0.02654424571169085),
        ("two-sided", 0.0437479701823997),
    ],
)
def test_the_exact_test_matches_rs_binom_test(alternative, p_value):
    # R, binom.test(51, 235, 1/6), by way of statsmodels test_proportion.py.
    found = chance_test(51, 235, chance=1 / 6, alternative=alternative)
    assert found.p_value == pytest.approx(p_value, abs=1e-13)


@pytest.mark.parametrize("chance", [0.1, 0.25, 0.5, 0.8])
def test_two_sided_counts_what_is_no_more_probable(chance):
    n_trials = 23
    pmf = binom.pmf(np.arange(n_trials + 1), n_trials, chance)
    for n_correct in range(n_trials + 1):
        expected = pmf[pmf <= pmf[n_correct] * (1 + 1e-7)].sum()
        found = chance_test(n_correct, n_trials, chance=chance).p_value
        assert found == pytest.approx(min(1, expected), abs=1e-12)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_the_wrong_answers_are_tested_against_the_other_chance(alternative):
    turned = {"two-sided": "two-sided", "greater": "less", "less": "greater"}[alternative]
    for n_correct in range(14):
        right = chance_test(n_correct, 13, chance=0.3, alternative=alternative).p_value
        wrong = chance_test(13 - n_correct, 13, chance=0.7, alternative=turned).p_value
        assert right == pytest.approx(wrong, abs=1e-12)
        assert 0 <= right <= 1


@pytest.mark.parametrize(("n_correct", "p_value"), [(0, 2**-9), (10, 2**-9), (5, 1.0)])
def test_the_extremes_of_the_exact_test_are_defined(n_correct, p_value):
    assert chance_test(n_correct, 10).p_value == pytest.approx(p_value)


def test_the_exact_test_holds_its_level_for_every_chance():
    for chance in np.linspace(0.05, 0.95, 19):
        pmf = binom.pmf(np.arange(31), 30, chance)
        p_values = np.array([chance_test(x, 30, chance=chance).p_value for x in range(31)])
        for alpha in (0.01, 0.05, 0.2):
            assert pmf[p_values <= alpha].sum() <= alpha + 1e-12


@pytest.mark.parametrize("null", [0, 0.01, 0.3, 0.5, 0.55, 0.99, 1])
@pytest.mark.parametrize("alpha", [0.001, 0.025, 0.05, 0.5])
def test_critical_counts_are_the_last_that_are_rare_enough(null, alpha):
    n_trials = np.arange(1, 60)
    above = fewest_rejected_above(n_trials, null, alpha)
    below = most_rejected_below(n_trials, null, alpha)
    for n, first, last in zip(n_trials, above, below, strict=True):
        counts = np.arange(n + 2)
        assert first == counts[binom.sf(counts - 1, n, null) <= alpha][0]
        counts = np.arange(-1, n + 1)
        assert last == counts[binom.cdf(counts, n, null) <= alpha][-1]


def test_a_count_whose_probability_is_the_level_itself_is_rejected():
    assert fewest_rejected_above(5, 0.5, 1 / 32) == 5
    assert most_rejected_below(5, 0.5, 1 / 32) == 0


# Refusals.


@pytest.mark.parametrize("method", [*ALL, chance_test])
def test_a_participant_without_trials_is_refused_with_advice(method):
    with pytest.raises(ValueError, match="finished no trial as incomplete"):
        method(0, 0)


@pytest.mark.parametrize("method", [*ALL, chance_test])
@pytest.mark.parametrize("counts", [(5, 4), (-1, 4), (1, -4), (float("nan"), 4)])
def test_counts_that_are_no_proportion_are_refused(method, counts):
    with pytest.raises(ProportionError, match="is not a proportion"):
        method(*counts)


@pytest.mark.parametrize("method", [*ALL, chance_test])
def test_an_effective_number_of_trials_is_refused_with_advice(method):
    with pytest.raises(ProportionError, match=r"not whole numbers; .* clustered data"):
        method(3, 12.5)


@pytest.mark.parametrize("method", ALL)
def test_a_level_in_percent_is_refused_with_advice(method):
    with pytest.raises(ValueError, match=r"confidence_level=95; give a fraction such as 0\.95"):
        method(1, 2, confidence_level=95)


def test_an_unknown_alternative_is_refused_with_advice():
    with pytest.raises(ProportionError, match="alternative='larger'; use 'two-sided'"):
        chance_test(1, 2, alternative="larger")
