from math import inf, nan, sqrt

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from studies.sequential import (
    SequentialError,
    UndeclaredLookError,
    critical_values,
    obrien_fleming_spending,
    pocock_spending,
    repeated_interval,
    sequential_plan,
    stopping_probabilities,
)

# Information fractions, alpha, sides, spending function, critical values, rounding.
PUBLISHED = [
    # Reboussin et al. (2000) and R's ldbounds, on a coarser grid than ours.
    (
        (0.2, 0.4, 0.6, 0.8, 1),
        0.05,
        2,
        "obrien-fleming",
        (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
        2e-4,
    ),
    ((0.5, 1), 0.05, 2, "obrien-fleming", (2.9626, 1.9686), 5e-5),
    # rpact and gsDesign agree.
    ((1 / 3, 2 / 3, 1), 0.025, 1, "obrien-fleming", (3.7103, 2.5114, 1.9930), 5e-5),
    # SeqBounds.jl, compared with ldbounds.
    (
        (0.25, 0.5, 0.75, 1),
        0.05,
        1,
        "obrien-fleming",
        (3.74955, 2.53993, 2.01604, 1.72014),
        5e-5,
    ),
    # rpact, test-f_design_group_sequential.R, x6a.
    ((0.35, 0.7, 1), 0.13, 1, "pocock", (1.5446617, 1.4828682, 1.4620058), 1e-7),
]
# The same file of rpact: information, cumulative alpha, critical values; all one-sided.
DECLARED_ALPHA = [
    ((0.2, 0.4, 1), (0.006, 0.012, 0.03), (2.5121443, 2.4228747, 2.0280392)),
    (
        (0.3, 0.7, 1),
        (0.03 * 0.3**2.2, 0.03 * 0.7**2.2, 0.03),
        (2.8594012, 2.2435708, 1.9735737),
    ),
    ((1, 2, 3), (0.00025917372, 0.0071600594, 0.02499999), (3.4710914, 2.4544323, 2.0040356)),
]
# Jennison & Turnbull (2000), tables 2.1 and 2.3: two-sided 5 %, constants by number of looks.
POCOCK_CONSTANTS = [(2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)]
OBRIEN_FLEMING_CONSTANTS = [(2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040), (10, 2.087)]
SPENDINGS = ["obrien-fleming", "pocock"]


def values_of(plan):
    return [look.critical_value for look in plan.looks]


@pytest.mark.parametrize(
    ("information", "alpha", "sides", "spending", "expected", "rounding"), PUBLISHED
)
def test_boundaries_match_published_ones(information, alpha, sides, spending, expected, rounding):
    plan = sequential_plan(information, alpha=alpha, sides=sides, spending=spending)
    assert values_of(plan) == pytest.approx(expected, abs=rounding)


@pytest.mark.parametrize(("information", "cumulative_alpha", "expected"), DECLARED_ALPHA)
def test_boundaries_of_a_declared_alpha_match_rpact(information, cumulative_alpha, expected):
    found = critical_values(information, cumulative_alpha, sides=1)
    assert found == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(("n_looks", "constant"), POCOCK_CONSTANTS)
def test_pococks_own_constants_spend_five_percent(n_looks, constant):
    looks = range(1, n_looks + 1)
    error = stopping_probabilities(looks, [constant] * n_looks).sum()
    assert error == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(("n_looks", "constant"), OBRIEN_FLEMING_CONSTANTS)
def test_obrien_and_flemings_own_constants_spend_five_percent(n_looks, constant):
    looks = np.arange(1, n_looks + 1)
    error = stopping_probabilities(looks, constant * np.sqrt(n_looks / looks)).sum()
    assert error == pytest.approx(0.05, abs=1e-4)


def test_peeking_without_a_boundary_has_the_known_error():
    # Armitage, McPherson & Rowe (1969): 0.083, 0.107, 0.126, 0.142 and 0.193 for 2 to 5 and 10.
    for n_looks, error in [(1, 0.05), (2, 0.083), (3, 0.107), (4, 0.126), (5, 0.142), (10, 0.193)]:
        looks = range(1, n_looks + 1)
        found = stopping_probabilities(looks, [1.959964] * n_looks).sum()
        assert found == pytest.approx(error, abs=5e-4)


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("sides", [1, 2])
def test_each_look_spends_what_the_function_says(spending, sides):
    function = {"obrien-fleming": obrien_fleming_spending, "pocock": pocock_spending}[spending]
    rng = np.random.default_rng(1)
    for _ in range(5):
        information = np.cumsum(rng.uniform(0.2, 1, rng.integers(1, 7)))
        plan = sequential_plan(information, alpha=0.05, sides=sides, spending=spending)
        fractions = information / information[-1]
        planned = [sides * function(t, alpha=0.05 / sides) for t in fractions]
        spent = stopping_probabilities(information, values_of(plan), sides=sides).cumsum()
        assert spent == pytest.approx(planned, rel=1e-7, abs=1e-12)
        assert [look.cumulative_alpha for look in plan.looks] == pytest.approx(planned)
        assert spent[-1] == pytest.approx(0.05, abs=1e-8)


@pytest.mark.parametrize("spending", SPENDINGS)
def test_spending_starts_at_nothing_and_ends_at_alpha(spending):
    function = {"obrien-fleming": obrien_fleming_spending, "pocock": pocock_spending}[spending]
    spent = [function(t, alpha=0.025) for t in np.linspace(1e-4, 1, 200)]
    assert spent[0] < 1e-5
    assert (np.diff(spent) >= 0).all()
    assert spent[-1] == pytest.approx(0.025)


def paths(rng, information, n_paths, drift=0.0):
    """Z at each look of simulated studies: a mean of independent judgements."""
    steps = np.diff(information, prepend=0) / information[-1]
    increments = rng.normal(size=(n_paths, len(steps))) * np.sqrt(steps) + drift * steps
    return increments.cumsum(axis=1) / np.sqrt(steps.cumsum())


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("sides", [1, 2])
def test_simulated_studies_without_effect_stop_as_often_as_alpha_allows(spending, sides):
    information = np.array([40, 100, 110, 200])
    plan = sequential_plan(information, sides=sides, spending=spending)
    z = paths(np.random.default_rng(2), information, 200_000)
    reaching = (np.abs(z) if sides == 2 else z) >= values_of(plan)
    assert reaching.any(axis=1).mean() == pytest.approx(0.05, abs=0.0015)
    # The negative control: the same looks at the usual 5 %.
    naive = (np.abs(z) if sides == 2 else z) >= norm.isf(0.05 / sides)
    assert naive.any(axis=1).mean() > 0.10


def test_simulated_studies_with_an_effect_stop_when_they_should():
    information = np.array([1, 2, 3, 4])
    plan = sequential_plan(information)
    z = np.abs(paths(np.random.default_rng(3), information, 200_000, drift=3.0))
    reaching = z >= values_of(plan)
    first = np.where(reaching.any(axis=1), reaching.argmax(axis=1), -1)
    found = [(first == look).mean() for look in range(4)]
    expected = stopping_probabilities(information, values_of(plan), drift=3.0)
    assert found == pytest.approx(expected, abs=0.004)


def test_readers_who_share_their_cases_do_not_raise_the_error():
    # Variance a + b / readers: information grows more slowly than readers do.
    readers = np.array([5, 10, 20])
    for spending in SPENDINGS:
        for sides in (1, 2):
            plan = sequential_plan(readers, spending=spending, sides=sides)
            for shared in (0.0, 0.05, 0.5, 5.0):
                information = 1 / (shared + 1 / readers)
                error = stopping_probabilities(information, values_of(plan), sides=sides).sum()
                assert error <= 0.05 + 1e-8


def test_more_looks_and_later_looks_ask_for_more():
    fewer = values_of(sequential_plan([0.5, 1]))
    more = values_of(sequential_plan([0.25, 0.5, 0.75, 1]))
    assert fewer[-1] < more[-1]
    assert (np.diff(more) < 0).all()


def test_one_look_is_the_fixed_design():
    (only,) = sequential_plan([288]).looks
    assert only.critical_value == pytest.approx(1.959964, abs=5e-7)
    assert only.nominal_alpha == pytest.approx(0.05)


def test_nominal_levels_are_the_boundaries_as_p_values():
    for sides in (1, 2):
        for look in sequential_plan([0.3, 0.6, 1], sides=sides).looks:
            p_value = sides * norm.sf(look.critical_value)
            assert look.nominal_alpha == pytest.approx(p_value)
            assert look.may_stop(p_value * 0.999)
            assert not look.may_stop(p_value * 1.001)


def test_information_has_no_unit():
    assert values_of(sequential_plan([20, 40, 60])) == pytest.approx(
        values_of(sequential_plan([1 / 3, 2 / 3, 1])), abs=1e-9
    )


def test_very_early_and_very_close_looks_stay_finite():
    early = values_of(sequential_plan([0.01, 0.0111, 1]))
    assert early == pytest.approx((22.3831, 21.2419, 1.9600), abs=1e-4)
    close = sequential_plan([0.998, 0.999, 1])
    error = stopping_probabilities([0.998, 0.999, 1], values_of(close)).sum()
    assert error == pytest.approx(0.05, abs=1e-7)
    many = sequential_plan(range(1, 21))
    assert np.isfinite(values_of(many)).all()
    assert stopping_probabilities(range(1, 21), values_of(many)).sum() == pytest.approx(
        0.05, abs=1e-7
    )


# Only the declared looks.


def test_a_declared_look_is_found():
    plan = sequential_plan([20, 40, 60])
    assert plan.look_at(40) == plan.looks[1]
    assert plan.look_at(60.0).cumulative_alpha == pytest.approx(0.05)


def test_an_undeclared_look_is_refused_and_sent_to_the_next_declared_one():
    plan = sequential_plan([20, 40, 60])
    with pytest.raises(
        UndeclaredLookError,
        match=r"a look at 35 was not declared, .* 20, 40, 60; wait for 40 and test nothing before",
    ):
        plan.look_at(35)
    with pytest.raises(UndeclaredLookError, match="the final analysis is past; close the study"):
        plan.look_at(70)


def test_a_study_that_ended_early_spends_what_is_left_at_its_close():
    plan = sequential_plan([20, 40, 60])
    closing = plan.closing_look(52)
    boundary = [*values_of(plan)[:2], closing.critical_value]
    assert stopping_probabilities([20, 40, 52], boundary).sum() == pytest.approx(0.05, abs=1e-8)
    assert closing.critical_value < plan.looks[-1].critical_value
    assert (closing.number, closing.information_fraction) == (3, 1)


def test_a_study_that_ran_over_or_never_reached_a_look_keeps_its_alpha():
    plan = sequential_plan([20, 40, 60])
    over = plan.closing_look(70)
    boundary = [*values_of(plan)[:2], over.critical_value]
    assert stopping_probabilities([20, 40, 70], boundary).sum() == pytest.approx(0.05, abs=1e-8)
    assert plan.closing_look(60) == plan.looks[-1]
    assert plan.closing_look(40.01).number == 2
    assert plan.closing_look(12).critical_value == pytest.approx(1.959964, abs=5e-7)


# Intervals.


def test_the_repeated_interval_of_the_last_look_is_a_little_wider_than_the_usual_one():
    plan = sequential_plan([0.5, 1])
    interval = repeated_interval(plan, plan.looks[-1], 0.52, 0.01)
    assert interval.ci_high - 0.52 == pytest.approx(1.9686 * 0.01, abs=5e-7)
    assert interval.confidence_level == pytest.approx(0.95)
    with_df = repeated_interval(plan, plan.looks[-1], 0.52, 0.01, df=9)
    tail = plan.looks[-1].nominal_alpha / 2
    assert with_df.ci_high - 0.52 == pytest.approx(student_t.isf(tail, 9) * 0.01)
    assert with_df.ci_high > interval.ci_high


def test_repeated_intervals_cover_at_all_looks_together_and_usual_ones_do_not():
    information = np.array([1.0, 2.0, 3.0])
    plan = sequential_plan(information, spending="pocock")
    errors = 1 / np.sqrt(information)
    estimates = paths(np.random.default_rng(4), information, 20_000) * errors
    widths = np.array(
        [
            repeated_interval(plan, look, 0.0, error).ci_high
            for look, error in zip(plan.looks, errors, strict=True)
        ]
    )
    assert (np.abs(estimates) <= widths).all(axis=1).mean() == pytest.approx(0.95, abs=0.005)
    assert (np.abs(estimates) <= 1.96 * errors).all(axis=1).mean() < 0.91


def test_equivalence_at_declared_looks_holds_its_level():
    # One-sided at 5 % for each test: a 90 % repeated interval inside the margin, at any look.
    information = np.array([500.0, 1000.0, 1500.0])
    plan = sequential_plan(information, sides=1, spending="pocock")
    errors = np.sqrt(0.25 / information)
    rng = np.random.default_rng(5)
    estimates = 0.55 + paths(rng, information, 40_000) * errors
    claimed = np.zeros(40_000, dtype=bool)
    for look, error, found in zip(plan.looks, errors, estimates.T, strict=True):
        interval = repeated_interval(plan, look, 0.0, error)
        assert interval.confidence_level == pytest.approx(0.9)
        claimed |= (found + interval.ci_low > 0.45) & (found + interval.ci_high < 0.55)
    assert claimed.mean() <= 0.05 + 0.0022


# Refusals.


@pytest.mark.parametrize(
    ("information", "advice"),
    [
        ([], "no look is declared; give at least the final analysis"),
        ([20, 10], "look 2 at 10 does not follow 20; give the information of each look in incr"),
        ([0, 10], "look 1 at 0 does not follow 0"),
        ([10, 10], "look 2 at 10 does not follow 10"),
        ([10, nan], "look 2 at nan does not follow 10"),
        ([10, inf], "look 2 at inf does not follow 10"),
        ([0.5, 0.5001, 1], "looks 1 and 2 .* lie closer than a thousandth of the information"),
        ([0.001, 1], r"look 1 at 0\.001 of 1 would spend no alpha; leave it out, or plan it later"),
    ],
)
def test_looks_that_are_none_are_refused(information, advice):
    with pytest.raises(SequentialError, match=advice):
        sequential_plan(information)


def test_levels_sides_and_functions_that_are_none_are_refused():
    with pytest.raises(SequentialError, match="alpha=5; give the level of the whole study"):
        sequential_plan([1, 2], alpha=5)
    with pytest.raises(SequentialError, match="sides=3; a boundary has 1 side or 2"):
        sequential_plan([1, 2], sides=3)
    with pytest.raises(SequentialError, match="spending='peto'; use 'obrien-fleming' or 'pocock'"):
        sequential_plan([1, 2], spending="peto")
    with pytest.raises(SequentialError, match="2 looks with 1 levels; give one for each"):
        critical_values([1, 2], [0.05])
    with pytest.raises(SequentialError, match="look 2 at 2 of 2 would spend no alpha"):
        critical_values([1, 2], [0.05, 0.05])


def test_boundaries_and_estimates_that_are_none_are_refused():
    with pytest.raises(SequentialError, match="2 looks need as many finite boundaries"):
        stopping_probabilities([1, 2], [2.0])
    with pytest.raises(SequentialError, match="2 looks need as many finite boundaries"):
        stopping_probabilities([1, 2], [inf, 2.0])
    with pytest.raises(SequentialError, match=r"one of \|Z\|; give numbers of at least 0"):
        stopping_probabilities([1, 2], [-1.0, 2.0])
    plan = sequential_plan([1, 2])
    with pytest.raises(SequentialError, match="an interval needs both, and an error above 0"):
        repeated_interval(plan, plan.looks[0], 0.5, 0.0)
    with pytest.raises(SequentialError, match="an interval needs both"):
        repeated_interval(plan, plan.looks[0], nan, sqrt(2))
