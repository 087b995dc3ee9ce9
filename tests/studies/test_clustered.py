from itertools import product
from math import isfinite, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm

from studies.bootstrap import cluster_bootstrap, two_way_bootstrap
from studies.clustered import (
    ClusterError,
    count_by_cluster,
    naive_wilson,
    rao_scott,
    rao_scott_wilson,
    two_way_sandwich,
)
from studies.gee import gee
from studies.proportions import wilson
from tests.studies.results import every_number, limits


def litters(text):
    return np.array([[int(part) for part in litter.split("/")] for litter in text.split()]).T


# Case C1: Weil's rat litters, survivors of litter size. Design effects from Rao & Scott (1992),
# Table 1, as the R package PF reproduces them (help page `rsb`).
CONTROL = litters("13/13 12/12 9/9 9/9 8/8 8/8 12/13 11/12 9/10 9/10 8/9 11/13 4/5 5/7 7/10 7/10")
TREATED = litters("12/12 11/11 10/10 9/9 10/11 9/10 9/10 8/9 8/9 4/5 7/9 4/7 5/10 3/6 3/10 0/7")
RAO_SCOTT_1992 = [
    (CONTROL, 0.898734, 0.026645, 1.232495, 128.195),
    (TREATED, 0.772414, 0.069226, 3.952861, 36.682),
]


def judgements(n_correct, n_trials):
    """Single answers and their clusters."""
    answers = [np.arange(n) < x for x, n in zip(n_correct, n_trials, strict=True)]
    return np.concatenate(answers).astype(int), np.repeat(np.arange(len(n_trials)), n_trials)


def clustered_counts(rng, n_clusters, size, p=0.6, correlation=0.2):
    """Beta-binomial counts, whose intra-cluster correlation is known."""
    n = 1 / correlation - 1
    shares = beta.rvs(p * n, (1 - p) * n, size=n_clusters, random_state=rng)
    return rng.binomial(size, shares), np.full(n_clusters, size)


@pytest.mark.parametrize(
    ("counts", "p", "standard_error", "design_effect", "effective_n"), RAO_SCOTT_1992
)
def test_case_c1_holds_to_its_printed_digits(counts, p, standard_error, design_effect, effective_n):
    result = rao_scott(*counts)
    assert result.proportion.estimate == pytest.approx(p, abs=5e-7)
    assert result.proportion.standard_error == pytest.approx(standard_error, abs=5e-7)
    assert result.design_effect == pytest.approx(design_effect, abs=5e-7)
    assert result.effective_n_trials == pytest.approx(effective_n, abs=5e-4)
    assert result.proportion.df == 15


def test_the_wilson_interval_on_the_effective_size_is_wilsons_at_that_size():
    result = rao_scott_wilson(*TREATED)
    n, z = result.effective_n_trials, norm.ppf(0.975)
    for limit in limits(result.proportion):
        distance = abs(result.proportion.estimate - limit)
        assert distance == pytest.approx(z * sqrt(limit * (1 - limit) / n), rel=1e-12)


def test_the_wilson_interval_with_a_t_quantile_is_wider():
    low, high = limits(rao_scott_wilson(*TREATED).proportion)
    t_low, t_high = limits(rao_scott_wilson(*TREATED, with_t_quantile=True).proportion)
    assert 0 < t_low < low < high < t_high < 1


# Case C5: Van Dyke, 5 readers, 45 diseased cases. The partial methods were computed for the page.
N_RIGHT, PAIRS_RIGHT_TOGETHER, N_CASES = (40, 35, 37, 42, 31), 336, 45


def van_dyke_like():
    """A table with the counts of modality 1, and so with its variances; see test_crossed.py."""
    row = np.arange(N_CASES)
    for shifts in product(range(N_CASES), repeat=4):
        rows = [np.roll(row < n, s) for n, s in zip(N_RIGHT, (0, *shifts), strict=True)]
        of_cases = np.sum(rows, axis=0)
        if (of_cases * (of_cases - 1) // 2).sum() == PAIRS_RIGHT_TOGETHER:
            return np.array(rows, dtype=float)
    raise AssertionError("no such table")


def test_the_partial_methods_of_case_c5_are_reproduced_and_all_too_small():
    result = two_way_sandwich(van_dyke_like())
    random_readers_and_cases = 0.05893747
    for found, expected in (
        (result.standard_error_independent, 0.025488),
        (result.standard_error_cases, 0.043647),
        (result.standard_error_readers, 0.038233),
        (result.proportion.standard_error, 0.052126),
    ):
        assert found == pytest.approx(expected, abs=5e-7)
        assert found < random_readers_and_cases


def test_one_way_rao_scott_is_the_sandwich_with_its_small_sample_factor():
    table = van_dyke_like()
    sandwich = two_way_sandwich(table)
    by_reader = rao_scott(table.sum(axis=1), np.full(5, 45)).proportion.standard_error
    by_case = rao_scott(table.sum(axis=0), np.full(45, 5)).proportion.standard_error
    assert by_reader == pytest.approx(sandwich.standard_error_readers * sqrt(5 / 4), rel=1e-12)
    assert by_case == pytest.approx(sandwich.standard_error_cases * sqrt(45 / 44), rel=1e-12)


@pytest.mark.parametrize(("n_correct", "n_trials"), [(13, 20), (1, 30), (190, 200)])
def test_clusters_of_one_trial_are_binomial(n_correct, n_trials):
    right, ones = np.arange(n_trials) < n_correct, np.ones(n_trials)
    p = n_correct / n_trials
    result = rao_scott(right, ones)
    unbiased = p * (1 - p) / (n_trials - 1)
    assert result.proportion.standard_error == pytest.approx(sqrt(unbiased), rel=1e-12)
    assert result.design_effect == pytest.approx(n_trials / (n_trials - 1), rel=1e-12)
    assert result.intra_cluster_correlation is None
    naive, binomial = naive_wilson(n_correct, n_trials), wilson(n_correct, n_trials)
    assert limits(naive) == pytest.approx(limits(binomial), abs=1e-14)
    for working in ("independence", "exchangeable"):
        (intercept,) = gee(right, np.arange(n_trials), working_correlation=working).coefficients
        on_logit = 1 / sqrt(n_trials * p * (1 - p))
        assert intercept.robust.standard_error == pytest.approx(on_logit, rel=1e-6)
        assert intercept.model_standard_error == pytest.approx(on_logit, rel=1e-6)


@pytest.mark.parametrize(("size", "correlation"), [(5, 0.1), (10, 0.3), (30, 0.05)])
def test_the_design_effect_of_equal_clusters_is_one_plus_size_less_one_times_correlation(
    size, correlation
):
    rng = np.random.default_rng(size)
    result = rao_scott(*clustered_counts(rng, 6000, size, correlation=correlation))
    expected = 1 + (size - 1) * correlation
    assert result.design_effect == pytest.approx(expected, rel=0.05)
    assert result.intra_cluster_correlation == pytest.approx(correlation, rel=0.1)


def test_the_design_effect_of_equal_clusters_is_that_identity_for_every_table():
    rng = np.random.default_rng(8)
    for _ in range(20):
        size = int(rng.integers(2, 20))
        n_correct, n_trials = clustered_counts(rng, int(rng.integers(3, 40)), size)
        result = rao_scott(n_correct, n_trials)
        if result.design_effect is None:
            continue
        shares, p, m = n_correct / size, n_correct.sum() / n_trials.sum(), len(n_trials)
        between = size * ((shares - p) ** 2).sum() / (m - 1)
        within = (n_correct * (1 - shares)).sum() / (m * (size - 1))
        variance = (between + (size - 1) * within) / size
        assert result.design_effect == pytest.approx(
            (1 + (size - 1) * result.intra_cluster_correlation) * variance / (p * (1 - p)),
            rel=1e-10,
        )


def test_repeating_every_trial_inside_its_cluster_narrows_only_the_naive_interval():
    x, n = TREATED
    once, twice = rao_scott(x, n), rao_scott(2 * x, 2 * n)
    assert limits(twice.proportion) == pytest.approx(limits(once.proportion), rel=1e-12)
    assert twice.design_effect == pytest.approx(2 * once.design_effect)
    assert twice.effective_n_trials == pytest.approx(once.effective_n_trials)
    right, clusters = judgements(x, n)
    for kind in ("robust", "bias_reduced"):
        one, two = (
            getattr(gee(np.tile(right, k), np.tile(clusters, k)).coefficients[0], kind)
            for k in (1, 2)
        )
        assert limits(two) == pytest.approx(limits(one), rel=1e-6)
    first, second = (
        cluster_bootstrap(k * x, k * n, rng=np.random.default_rng(4), n_replicates=400)
        for k in (1, 2)
    )
    assert limits(second.percentile) == pytest.approx(limits(first.percentile), rel=1e-12)
    naive, naive_twice = naive_wilson(112, 145), naive_wilson(224, 290)
    assert naive_twice.ci_high - naive_twice.ci_low < naive.ci_high - naive.ci_low


def test_shuffling_rows_and_relabelling_clusters_changes_nothing():
    right, clusters = judgements(*TREATED)
    rng = np.random.default_rng(6)
    order, names = rng.permutation(len(right)), rng.permutation([f"reader {i}" for i in range(16)])
    shuffled = right[order], names[clusters][order]
    one, other = count_by_cluster(right, clusters), count_by_cluster(*shuffled)
    assert limits(rao_scott(*one).proportion) == limits(rao_scott(*other).proportion)
    seeded = [
        cluster_bootstrap(*counts, rng=np.random.default_rng(2), n_replicates=500)
        for counts in (one, other)
    ]
    assert seeded[0] == seeded[1]
    for working in ("independence", "exchangeable"):
        fits = [gee(*rows, working_correlation=working) for rows in ((right, clusters), shuffled)]
        assert limits(fits[1].accuracy_bias_reduced) == pytest.approx(
            limits(fits[0].accuracy_bias_reduced), rel=1e-7
        )
    table = van_dyke_like()
    mixed = rng.permutation(rng.permutation(table, axis=0), axis=1)
    assert two_way_sandwich(mixed) == two_way_sandwich(table)


def test_wrong_answers_have_the_mirrored_interval():
    x, n = TREATED
    for method in (rao_scott, rao_scott_wilson):
        low, high = limits(method(x, n).proportion)
        assert limits(method(n - x, n).proportion) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_clustered_intervals_cover_and_the_naive_one_does_not():
    rng, n_studies = np.random.default_rng(2026), 1000
    covered = dict.fromkeys(("t", "wilson", "naive"), 0)
    for _ in range(n_studies):
        counts = clustered_counts(rng, 20, 25, p=0.6, correlation=0.1)
        for name, interval in (
            ("t", rao_scott(*counts).proportion),
            ("wilson", rao_scott_wilson(*counts, with_t_quantile=True).proportion),
            ("naive", naive_wilson(int(counts[0].sum()), 500)),
        ):
            covered[name] += interval.ci_low <= 0.6 <= interval.ci_high
    assert 0.93 <= covered["t"] / n_studies <= 0.97
    assert 0.93 <= covered["wilson"] / n_studies <= 0.97
    assert covered["naive"] / n_studies < 0.80


def test_the_naive_interval_is_called_naive():
    assert naive_wilson(52, 100).method.startswith("naive: ")


def test_an_interval_narrower_than_the_naive_one_comes_with_a_caution():
    result = rao_scott([5, 5, 5, 6], [10] * 4)
    assert result.design_effect < 1
    assert any("do not take it for precision" in caution for caution in result.cautions)


def test_few_clusters_and_a_dominant_one_come_with_cautions():
    few, dominant = rao_scott([3, 5, 900_000], [10, 10, 1_000_000]).cautions[:2]
    assert "With 3 clusters (fewer than 10)" in few
    assert "holds 100% of all trials" in dominant


NO_INTERVAL = [
    ([5, 5, 5], [5, 5, 5], "all answers are right, so the design effect is unknown"),
    ([0, 0], [3, 4], "all answers are wrong"),
    ([1], [1], "1 cluster says nothing about others"),
    ([600_000], [1_000_000], "1 cluster says nothing about others"),
    ([3, 6, 9], [4, 8, 12], "clusters do not differ at all"),
]


@pytest.mark.parametrize("method", [rao_scott, rao_scott_wilson])
@pytest.mark.parametrize(("n_correct", "n_trials", "reason"), NO_INTERVAL)
def test_degenerate_counts_are_not_estimable_and_say_why(method, n_correct, n_trials, reason):
    result = method(n_correct, n_trials)
    assert not result.proportion.is_estimable
    assert reason in result.proportion.reason
    assert result.proportion.estimate == sum(n_correct) / sum(n_trials)
    assert (result.design_effect, result.effective_n_trials) == (None, None)
    assert all(isfinite(number) for number in every_number(result))


@pytest.mark.parametrize("table", [np.ones((5, 40)), np.zeros((5, 40)), np.ones((1, 1))])
def test_a_sandwich_without_variance_is_not_estimable(table):
    result = two_way_sandwich(table)
    assert not result.proportion.is_estimable
    assert all(isfinite(number) for number in every_number(result))


RNG = np.random.default_rng(0)
REFUSALS = [
    (lambda: rao_scott([1, 2], [3]), "one count of each for each cluster"),
    (lambda: rao_scott([1, 4], [3, 3]), "cluster 2: 4 correct of 3 trials is not a proportion"),
    (lambda: rao_scott([1, 0], [3, 0]), "leave out clusters without a trial"),
    (lambda: rao_scott([0.5], [1]), r"cluster 1: 0\.5 correct of 1 trials"),
    (lambda: rao_scott([np.nan, 1], [2, 2]), "cluster 1: nan correct"),
    (lambda: rao_scott([1, 1], [2, 2], confidence_level=95), r"give a fraction such as 0\.95"),
    (lambda: naive_wilson(0, 0), "leave out clusters without a trial"),
    (lambda: count_by_cluster([1, 0, 3], [1, 1, 1]), "judgement 3 is 3; an answer is right"),
    (lambda: count_by_cluster([1, np.nan], [1, 1]), "a missing one is left out"),
    (lambda: count_by_cluster([], []), "give one entry, 0 or 1, for each judgement"),
    (lambda: count_by_cluster([1, 0], ["a"]), "clusters has 1 entries for 2 judgements"),
    (lambda: count_by_cluster([1, 0], ["a", None]), "clusters of judgement 2 is missing"),
    (lambda: gee([1, 0], [1, 2], working_correlation="ar1"), "choose independence or exchangeable"),
    (
        lambda: gee([1, 0], [1, 2], covariates=pd.DataFrame({"age": [40]})),
        "covariates have 1 rows for 2 judgements",
    ),
    (
        lambda: gee([1, 0], [1, 2], covariates=pd.DataFrame({"age": [40, None]})),
        "covariate age of judgement 2 is nan; give a finite number",
    ),
    (
        lambda: gee(
            [1, 0], [1, 2], covariates=pd.DataFrame({"class": ["a", "b"]}, dtype="category")
        ),
        "covariate class of judgement 1 is a; .* code a class as columns of 0 and 1",
    ),
    (
        lambda: gee([1, 0, 1], [1, 2, 3], covariates=pd.DataFrame({"a": [1, 2, 3], "b": [2] * 3})),
        "covariate b is constant, or a sum of those before it",
    ),
    (lambda: two_way_bootstrap([1, 0], rng=RNG), "one row for each reader and one column for"),
    (lambda: two_way_bootstrap([[1, 3]], rng=RNG), r"right \(1\) or wrong \(0\), or missing"),
    (
        lambda: two_way_bootstrap([[1, 0], [np.nan, np.nan]], rng=RNG),
        "reader 2 has no judgement; leave the reader out",
    ),
    (lambda: two_way_sandwich([[1, np.nan], [0, np.nan]]), "case 2 has no judgement"),
    (
        lambda: two_way_bootstrap(np.eye(6), rng=RNG, case_strata=["real"]),
        "case_strata has 1 entries for 6 cases",
    ),
    (
        lambda: cluster_bootstrap([1, 2], [3, 3], rng=RNG, n_replicates=150),
        "150 replicates leave fewer than 5 beyond each limit; draw at least 200",
    ),
]


@pytest.mark.parametrize(("call", "words"), REFUSALS)
def test_bad_input_is_refused_with_advice(call, words):
    with pytest.raises(ClusterError, match=words):
        call()
