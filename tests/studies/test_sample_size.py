from math import inf, sqrt

import numpy as np
import pytest
from scipy.stats import binom

from studies.auc_sample_size import (
    auc_power,
    auc_sample_size,
    detectable_auc,
    hanley_mcneil_standard_error,
    paired_auc_power,
    paired_auc_sample_size,
)
from studies.equivalence import EquivalenceError, clustered_tost_power, exact_tost_power
from studies.proportions import ProportionError, chance_test
from studies.sample_size import (
    SampleSizeError,
    clustered_equivalence_sample_size,
    equivalence_sample_size,
    exact_power,
    exact_sample_size,
    normal_power,
    normal_sample_size,
)

# East 6.5, one-sided, as gsDesign's tests hold it: chance, truth, alpha, n, power.
EAST = [
    (0.05, 0.20, 0.025, 25, 0.57932569),
    (0.05, 0.20, 0.025, 28, 0.68511260),
    (0.05, 0.20, 0.025, 30, 0.74476675),
    (0.05, 0.20, 0.025, 33, 0.81787426),
    (0.05, 0.20, 0.025, 35, 0.72790831),
    (0.05, 0.20, 0.010, 33, 0.67097039),
    (0.05, 0.20, 0.050, 33, 0.81787426),
    (0.05, 0.25, 0.025, 33, 0.94139159),
    (0.15, 0.35, 0.025, 33, 0.77005342),
]
NDKA_AND_WFNS = {
    "variance": 0.0031908105493913,
    "other_variance": 0.00146991470882363,
    "covariance": -0.000532967856762438,
    "n_pilot_cases": 41,
}
ALTERNATIVES = ["two-sided", "greater", "less"]


@pytest.mark.parametrize(("chance", "truth", "alpha", "n_trials", "power"), EAST)
def test_exact_power_matches_east(chance, truth, alpha, n_trials, power):
    found = exact_power(n_trials, truth=truth, chance=chance, alpha=alpha, alternative="greater")
    assert found == pytest.approx(power, abs=5e-9)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("chance", [0.05, 0.3, 0.5, 0.62, 0.9])
def test_exact_power_is_the_probability_that_the_exact_test_rejects(chance, alternative):
    for n_trials in (1, 2, 5, 40, 73):
        p_values = np.array(
            [
                chance_test(x, n_trials, chance=chance, alternative=alternative).p_value
                for x in range(n_trials + 1)
            ]
        )
        for truth in (0, 0.1, chance, 0.8, 1):
            rejected = binom.pmf(np.arange(n_trials + 1), n_trials, truth)[p_values <= 0.05].sum()
            found = exact_power(n_trials, truth=truth, chance=chance, alternative=alternative)
            assert found == pytest.approx(rejected, abs=1e-12)


def test_at_chance_the_exact_power_is_the_actual_level_and_never_more():
    for n_trials in (10, 288, 5000):
        for chance in (0.25, 0.5):
            assert 0 <= exact_power(n_trials, truth=chance, chance=chance) <= 0.05


def test_the_normal_power_is_near_the_exact_one_for_many_trials():
    for truth in (0.5, 0.51, 0.52, 0.53):
        for alternative in ALTERNATIVES:
            exact = exact_power(5000, truth=truth, alternative=alternative)
            normal = normal_power(5000, truth=truth, alternative=alternative)
            assert normal == pytest.approx(exact, abs=0.02)


def test_the_normal_size_is_the_published_formula():
    # Two-sided 5 %, power 0.8: ((1.96 · 0.5 + 0.8416 · √0.24) / 0.1)² = 193.9.
    size = normal_sample_size(truth=0.6, power=0.8)
    assert size.n_trials == size.n_trials_first == 194
    assert normal_power(194, truth=0.6) >= 0.8
    assert normal_power(193, truth=0.6) < 0.8


def test_the_normal_size_matches_statsmodels():
    power = pytest.importorskip("statsmodels.stats.power", reason="statsmodels is not installed")
    for truth, chance in [(0.6, 0.5), (0.33, 0.25), (0.02, 0.1)]:
        expected = power.normal_sample_size_one_tail(
            truth - chance,
            0.9,
            0.05,
            std_null=sqrt(chance * (1 - chance)),
            std_alternative=sqrt(truth * (1 - truth)),
        )
        alternative = "greater" if truth > chance else "less"
        found = normal_sample_size(truth=truth, chance=chance, power=0.9, alternative=alternative)
        assert found.n_trials == int(np.ceil(expected))


@pytest.mark.parametrize(
    ("truth", "chance", "alternative", "power"),
    [
        (0.6, 0.5, "two-sided", 0.8),
        (0.55, 0.5, "greater", 0.9),
        (0.5, 0.3, "greater", 0.8),
        (0.1, 0.3, "less", 0.8),
        (0.35, 0.2, "two-sided", 0.8),
        (0.99, 0.5, "two-sided", 0.5),
    ],
)
def test_the_exact_size_is_first_and_last_of_the_saws_teeth(truth, chance, alternative, power):
    design = {"truth": truth, "chance": chance, "alternative": alternative}
    size = exact_sample_size(power=power, **design)
    powers = [exact_power(n, **design) for n in range(1, size.n_trials + 300)]
    reaching = [one >= power for one in powers]
    assert size.n_trials_first == reaching.index(True) + 1
    assert size.n_trials_first <= size.n_trials
    assert size.n_trials == 1 or not reaching[size.n_trials - 2]
    assert all(reaching[size.n_trials - 1 :])
    assert size.power == pytest.approx(powers[size.n_trials - 1])


def test_wrong_answers_need_as_many_trials_as_right_ones():
    right = exact_sample_size(truth=0.8, chance=0.6, power=0.8, alternative="greater")
    wrong = exact_sample_size(truth=0.2, chance=0.4, power=0.8, alternative="less")
    assert (right.n_trials, right.n_trials_first) == (wrong.n_trials, wrong.n_trials_first)


def test_the_design_effect_multiplies_the_trials():
    plain = exact_sample_size(truth=0.6, power=0.8)
    clustered = exact_sample_size(truth=0.6, power=0.8, design_effect=2.5)
    assert clustered.n_trials == int(np.ceil(2.5 * plain.n_trials))
    assert clustered.power == plain.power
    normal = normal_sample_size(truth=0.6, power=0.8, design_effect=1.0)
    assert normal.n_trials == 194


def test_case_b4_read_the_other_way():
    size = equivalence_sample_size(low=0.45, high=0.55, power=0.9)
    assert 1000 < size.n_trials < 1200
    assert exact_tost_power(size.n_trials, low=0.45, high=0.55) >= 0.9
    assert exact_tost_power(size.n_trials - 1, low=0.45, high=0.55) < 0.9
    assert exact_tost_power(size.n_trials_first, low=0.45, high=0.55) >= 0.9
    for n_trials in range(size.n_trials, size.n_trials + 500):
        assert exact_tost_power(n_trials, low=0.45, high=0.55) >= 0.9


def test_a_truth_off_the_middle_needs_more_trials():
    middle = equivalence_sample_size(low=0.45, high=0.55, power=0.8)
    aside = equivalence_sample_size(low=0.45, high=0.55, power=0.8, truth=0.53)
    assert aside.n_trials > 3 * middle.n_trials


def test_the_clustered_size_is_the_smallest_that_reaches_the_power():
    for df in (None, 9):
        design = {"low": 0.45, "high": 0.55, "design_effect": 3, "df": df}
        size = clustered_equivalence_sample_size(power=0.9, **design)
        assert clustered_tost_power(size.n_trials, **design) >= 0.9
        assert clustered_tost_power(size.n_trials - 1, **design) < 0.9
        assert size.power == clustered_tost_power(size.n_trials, **design)


def test_few_readers_need_more_judgements():
    design = {"low": 0.45, "high": 0.55, "power": 0.9, "design_effect": 3}
    sizes = [
        clustered_equivalence_sample_size(df=df, **design).n_trials for df in (2, 4, 9, 19, None)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1.5 * sizes[-1]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"truth": 0.5, "power": 0.8}, "nothing that a two-sided test could find"),
        ({"truth": 0.4, "power": 0.8, "alternative": "greater"}, "assume another truth or turn"),
        ({"truth": 0.6, "power": 80}, "power=80; give a number between 0 and 1"),
        ({"truth": 0.6, "power": 0.01}, r"power=0\.01 is no more than the level of the test"),
        ({"truth": 1, "power": 0.8}, "truth=1; the normal approximation needs a proportion"),
        ({"truth": 0.6, "power": 0.8, "alpha": 5}, "alpha=5; give a number between 0 and 1"),
        ({"truth": 0.6, "power": 0.8, "design_effect": 0}, "design_effect=0; give a number above"),
    ],
)
def test_designs_that_no_size_can_give_are_refused(arguments, advice):
    for function in (exact_sample_size, normal_sample_size):
        with pytest.raises(SampleSizeError, match=advice):
            function(**arguments)


def test_an_unknown_alternative_is_refused():
    with pytest.raises(ProportionError, match="alternative='larger'; use 'two-sided'"):
        normal_sample_size(truth=0.6, power=0.8, alternative="larger")


@pytest.mark.parametrize("truth", [0.45, 0.55, 0.6])
def test_no_number_of_trials_shows_equivalence_outside_the_margin(truth):
    with pytest.raises(SampleSizeError, match="so no number of trials shows equivalence; widen"):
        equivalence_sample_size(low=0.45, high=0.55, power=0.8, truth=truth)
    with pytest.raises(SampleSizeError, match="so no number of trials shows equivalence; widen"):
        clustered_equivalence_sample_size(
            low=0.45, high=0.55, power=0.8, truth=truth, design_effect=2
        )


def test_a_margin_that_would_need_millions_is_refused():
    with pytest.raises(SampleSizeError, match="not even 1000000 trials reach power"):
        equivalence_sample_size(low=0.4999, high=0.5001, power=0.8)


def test_an_empty_margin_is_refused():
    with pytest.raises(EquivalenceError, match=r"leaves \[0, 1\]"):
        equivalence_sample_size(low=-0.1, high=0.1, power=0.8, truth=0.05)


def test_other_numbers_that_are_none_are_refused():
    with pytest.raises(SampleSizeError, match=r"auc=0\.5 is what the test is against"):
        auc_sample_size(0.5, power=0.8)
    with pytest.raises(SampleSizeError, match="0 cases and 72 controls; give at least 1 of each"):
        auc_power(0.7, 0, 72)
    with pytest.raises(SampleSizeError, match="inf cases and 72 controls"):
        auc_power(0.7, inf, 72)
    with pytest.raises(SampleSizeError, match="controls_per_case=0; give a ratio above 0"):
        auc_sample_size(0.7, power=0.8, controls_per_case=0)
    with pytest.raises(SampleSizeError, match="auc=2 is not an area; give a number in"):
        hanley_mcneil_standard_error(2, 41, 72)
    with pytest.raises(SampleSizeError, match="2 cases and 2 controls find no area with power"):
        detectable_auc(2, 2, power=0.9)
    with pytest.raises(SampleSizeError, match="is no more than the level of the test"):
        detectable_auc(41, 72, power=0.02)
    with pytest.raises(SampleSizeError, match="leave no variance of the difference; give var"):
        paired_auc_power(
            0.7, 0.8, variance=0.001, other_variance=0.001, covariance=0.001, n_pilot_cases=41
        )
    with pytest.raises(SampleSizeError, match=r"both areas are 0\.7; assume a difference that"):
        paired_auc_sample_size(0.7, 0.7, power=0.8, n_pilot_controls=72, **NDKA_AND_WFNS)
    with pytest.raises(SampleSizeError, match=r"n_trials=2\.5; give a whole number of trials"):
        exact_power(2.5, truth=0.6)
    with pytest.raises(SampleSizeError, match="truth=52 is not a proportion"):
        exact_power(25, truth=52)
    with pytest.raises(SampleSizeError, match="n_trials=0; give a number of trials above 0"):
        normal_power(0, truth=0.6)
    with pytest.raises(ProportionError, match="chance=1500 is not a probability"):
        exact_power(25, truth=0.6, chance=1500)
