import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from webapp.telling import area, checked, cross_validated_scores, limits, strata_of

KINDS = np.tile([False, True], 30)


def one_class(n_each: int):
    return strata_of([False, True] * n_each, ["cell"] * 2 * n_each)


def test_the_area_of_one_class_is_mann_whitneys():
    scores = np.random.default_rng(0).integers(9, size=60).astype(float)
    statistic = mannwhitneyu(scores[KINDS], scores[~KINDS]).statistic
    assert area(scores, one_class(30)) == pytest.approx(statistic / 900)


def test_what_only_tells_the_class_tells_nothing():
    classes = ["small"] * 40 + ["large"] * 40
    kinds = np.array(([False] * 30 + [True] * 10) + ([False] * 10 + [True] * 30))
    size = np.where(np.array(classes) == "large", 2.0, 1.0)
    assert mannwhitneyu(size[kinds], size[~kinds]).statistic / 1600 == 0.75
    assert area(size, strata_of(kinds, classes)) == 0.5


def test_95_percent_intervals_hold_95_percent_of_the_time():
    rng, strata, truth = np.random.default_rng(1), one_class(25), 0.85
    shift = norm.ppf(truth) * np.sqrt(2)
    n_held = 0
    for _ in range(1000):
        scores = rng.normal(size=50) + shift * np.tile([0, 1], 25)
        low, high = limits(area(scores, strata), strata, 0.95)
        n_held += low <= truth <= high
    assert 0.925 <= n_held / 1000 <= 0.975


def test_complete_separation_has_the_chance_that_the_limit_says():
    low, high = limits(1.0, one_class(4), 0.9)
    assert high == 1
    rng, power = np.random.default_rng(2), low / (1 - low)
    real, drawn = rng.uniform(size=(2, 40_000, 4))
    # One distribution function is a power of the other, and the area is `low`.
    drawn **= 1 / power
    assert (real.max(axis=1) < drawn.min(axis=1)).mean() == pytest.approx(0.05, abs=0.005)


def test_a_pair_of_numbers_tells_where_neither_does_alone():
    rng = np.random.default_rng(3)
    common = rng.normal(size=200)
    strata = one_class(100)
    pair = np.column_stack([common, common + np.tile([0.0, 0.3], 100) + rng.normal(0, 0.1, 200)])
    assert max(area(column, strata) for column in pair.T) < 0.65
    assert area(cross_validated_scores(pair, strata, rng), strata) > 0.9


def test_noise_is_told_apart_by_nothing_even_when_the_margin_is_none():
    strata = one_class(40)
    n_told = 0
    for seed in range(60):
        numbers = np.random.default_rng(seed).normal(size=(10, 80))
        groups = {"a": dict(enumerate(numbers[:5])), "b": dict(enumerate(numbers[5:]))}
        groups = {code: {str(k): v for k, v in found.items()} for code, found in groups.items()}
        checks, _ = checked(groups, strata, margin=0.0, seed=seed)
        n_told += any(check.finding == "tells" for check in checks)
    assert n_told <= 6  # of 60, where 3 are expected at most; 7 or more have a chance of 3 %


def test_the_level_is_bonferronis_for_features_and_groups_that_vary():
    numbers = np.random.default_rng(0).normal(size=(2, 20))
    groups = {"a": {"x": numbers[0], "same": np.ones(20)}, "b": {"y": numbers[1]}}
    checks, level = checked(groups, one_class(10), margin=0.1, seed=0)
    assert [check.code for check in checks] == ["a", "b", "together"]
    assert level == pytest.approx(1 - 0.05 / 5)
    assert {check.finding for check in checks} == {"inconclusive"}
