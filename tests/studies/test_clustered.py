import time
from dataclasses import astuple, is_dataclass
from itertools import product
from math import isfinite, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import beta, norm

from studies.clustered import (
    ClusterError,
    cluster_bootstrap,
    count_by_cluster,
    gee,
    naive_wilson,
    rao_scott,
    rao_scott_wilson,
    resampling_weights,
    two_way_bootstrap,
    two_way_sandwich,
)
from studies.proportions import wilson


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


def limits(estimate):
    return estimate.ci_low, estimate.ci_high


def every_number(value):
    if is_dataclass(value):
        value = astuple(value)
    if isinstance(value, tuple):
        for part in value:
            yield from every_number(part)
    elif isinstance(value, int | float):
        yield value


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


# Case C2: statsmodels 0.15.0 on the treated litters; no outside truth.
TREATED_GEE = [
    ("independence", 1.22199, 0.38129, 0.40685, None),
    ("exchangeable", 1.10585, 0.37511, 0.39991, 0.32668),
]


@pytest.mark.parametrize(("working", "b", "robust", "reduced", "correlation"), TREATED_GEE)
def test_case_c2_is_reproduced(working, b, robust, reduced, correlation):
    fit = gee(*judgements(*TREATED), working_correlation=working)
    (intercept,) = fit.coefficients
    assert intercept.robust.estimate == pytest.approx(b, abs=5e-6)
    assert intercept.robust.standard_error == pytest.approx(robust, abs=5e-6)
    assert intercept.bias_reduced.standard_error == pytest.approx(reduced, abs=5e-6)
    assert fit.working_correlation == (correlation and pytest.approx(correlation, abs=5e-6))
    assert fit.accuracy_robust.estimate == pytest.approx(expit(b), abs=5e-6)


def test_independence_keeps_the_raw_proportion_and_exchangeable_does_not():
    answers = judgements(*TREATED)
    independent, exchangeable = (
        gee(*answers, working_correlation=kind) for kind in ("independence", "exchangeable")
    )
    assert independent.accuracy_robust.estimate == pytest.approx(112 / 145, abs=1e-9)
    assert exchangeable.accuracy_robust.estimate == pytest.approx(0.75136, abs=5e-6)
    assert independent.coefficients[0].model_standard_error == pytest.approx(0.19807, abs=5e-6)


# Case C3: R's `gee`, from statsmodels' test_gee.py::test_logistic.
R_GEE = {
    "independence": (
        (0.0167272965, 1.1303865443, -1.8689634508, 1.0939760833),
        (0.1272917203, 0.1667258081, 0.1924300613, 0.1731410688),
    ),
    "exchangeable": (
        (0.0178982284, 1.1311879819, -1.8613351842, 1.0894425623),
        (0.1270450317, 0.1654706782, 0.1920527500, 0.1731747794),
    ),
}


@pytest.fixture(scope="module")
def gee_logistic():
    """Cluster, outcome and three covariates, where statsmodels ships its tests' data."""
    statsmodels = pytest.importorskip("statsmodels", reason="the data are statsmodels' own")
    folder = Path(statsmodels.__file__).parent / "genmod" / "tests" / "results"
    path = folder / "gee_logistic_1.csv"
    if not path.exists():
        pytest.skip("this statsmodels was installed without the data of its tests")
    return pd.read_csv(path, header=None, names=["cluster", "outcome", "x1", "x2", "x3"])


@pytest.mark.parametrize("working", R_GEE)
def test_case_c3_agrees_with_r(gee_logistic, working):
    fit = gee(
        gee_logistic["outcome"],
        gee_logistic["cluster"],
        covariates=gee_logistic[["x1", "x2", "x3"]],
        working_correlation=working,
    )
    found = [c.robust.estimate for c in fit.coefficients]
    errors = [c.robust.standard_error for c in fit.coefficients]
    # The source compares to 6 decimals; R stops its iterations there.
    assert found == pytest.approx(R_GEE[working][0], abs=1.5e-6)
    assert errors == pytest.approx(R_GEE[working][1], abs=1.5e-6)


@pytest.mark.parametrize("working", R_GEE)
def test_standard_errors_agree_with_statsmodels(gee_logistic, working):
    genmod = "statsmodels.genmod"
    model = pytest.importorskip(f"{genmod}.generalized_estimating_equations", reason="the other")
    structures = pytest.importorskip(f"{genmod}.cov_struct", reason="the other")
    families = pytest.importorskip(f"{genmod}.families", reason="the other")
    covariates = gee_logistic[["x1", "x2", "x3"]]
    other = model.GEE(
        gee_logistic["outcome"],
        covariates.assign(intercept=1)[["intercept", "x1", "x2", "x3"]],
        groups=gee_logistic["cluster"],
        family=families.Binomial(),
        cov_struct=getattr(structures, working.capitalize())(),
    ).fit(cov_type="bias_reduced")
    fit = gee(
        gee_logistic["outcome"],
        gee_logistic["cluster"],
        covariates=covariates,
        working_correlation=working,
    )
    for kind, errors in (
        ("bias_reduced", other.standard_errors("bias_reduced")),
        ("robust", other.standard_errors("robust")),
    ):
        found = [getattr(c, kind).standard_error for c in fit.coefficients]
        assert found == pytest.approx(np.asarray(errors), rel=1e-6)
    found = [c.model_standard_error for c in fit.coefficients]
    assert found == pytest.approx(np.asarray(other.standard_errors("naive")), rel=1e-6)


def test_the_bias_reduced_error_of_a_mean_is_that_of_the_closed_form():
    # Intercept only, independence: each residual sum grows by n / (n − n_i).
    x, n_i = TREATED
    n, p = n_i.sum(), x.sum() / n_i.sum()
    inflated = (x - n_i * p) * n / (n - n_i)
    (intercept,) = gee(*judgements(*TREATED)).coefficients
    assert intercept.bias_reduced.standard_error == pytest.approx(
        sqrt((inflated**2).sum()) / (n * p * (1 - p)), rel=1e-9
    )


def test_accuracy_by_gee_is_averaged_over_the_covariates():
    rng = np.random.default_rng(3)
    kind, readers = np.tile([0, 0, 1], 200), np.repeat(np.arange(30), 20)
    right = rng.random(600) < np.where(kind, 0.8, 0.5)
    fit = gee(right, readers, covariates=pd.DataFrame({"is_synthetic": kind}))
    # Logistic regression with an intercept reproduces the overall share.
    assert fit.accuracy_robust.estimate == pytest.approx(right.mean(), abs=1e-8)
    assert fit.coefficients[1].name == "is_synthetic"
    assert fit.accuracy_robust.standard_error < fit.accuracy_bias_reduced.standard_error


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


def test_a_bootstrap_of_clusters_of_one_trial_is_binomial():
    rng = np.random.default_rng(1)
    result = cluster_bootstrap(np.arange(60) < 40, np.ones(60), rng=rng, n_replicates=20_000)
    expected = sqrt(40 / 60 * 20 / 60 / 60)
    assert result.standard.standard_error == pytest.approx(expected, rel=0.02)


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


def test_the_cluster_bootstrap_has_the_variance_of_the_ratio_estimator():
    result = cluster_bootstrap(*TREATED, rng=np.random.default_rng(0), n_replicates=20_000)
    expected = rao_scott(*TREATED).proportion.standard_error * sqrt(15 / 16)
    assert result.standard.standard_error == pytest.approx(expected, rel=0.03)
    assert result.percentile.estimate == result.basic.estimate == 112 / 145
    low, high = limits(result.percentile)
    assert limits(result.basic) == pytest.approx((2 * 112 / 145 - high, 2 * 112 / 145 - low))


def crossed_table(rng, n_readers, n_cases, reader_sd=0.3, case_sd=0.5):
    ease = 0.4 + rng.normal(0, reader_sd, (n_readers, 1)) + rng.normal(0, case_sd, (1, n_cases))
    return (rng.random((n_readers, n_cases)) < norm.cdf(ease)).astype(float)


def test_the_two_way_bootstrap_has_its_exact_variance():
    # The statistic is linear in products of two independent multinomials, so its variance follows
    # from the table alone.
    table = crossed_table(np.random.default_rng(9), 12, 50)
    R, N = table.shape
    mean_square = (
        (1 - 1 / R) * (1 - 1 / N) * table.sum() ** 2
        + (1 - 1 / R) * (table.sum(axis=0) ** 2).sum()
        + (1 - 1 / N) * (table.sum(axis=1) ** 2).sum()
        + (table**2).sum()
    ) / (R * N) ** 2
    result = two_way_bootstrap(table, rng=np.random.default_rng(1), n_replicates=20_000)
    expected = sqrt(mean_square - table.mean() ** 2)
    assert result.standard.standard_error == pytest.approx(expected, rel=0.03)
    assert result.n_empty == 0


def test_the_two_way_bootstrap_is_wider_than_either_one_way():
    table = crossed_table(np.random.default_rng(10), 12, 80)
    rng = np.random.default_rng(2)
    both = two_way_bootstrap(table, rng=rng).standard.standard_error
    by_reader = cluster_bootstrap(table.sum(axis=1), np.full(12, 80), rng=rng)
    by_case = cluster_bootstrap(table.sum(axis=0), np.full(80, 12), rng=rng)
    assert both > 1.05 * by_reader.standard.standard_error
    assert both > 1.05 * by_case.standard.standard_error


def test_cases_are_drawn_within_their_kinds():
    kinds = np.array(["real"] * 30 + ["generated"] * 10)
    weights = resampling_weights(40, 300, np.random.default_rng(0), kinds)
    assert (weights[:, :30].sum(axis=1) == 30).all()
    assert (weights[:, 30:].sum(axis=1) == 10).all()
    # Where kinds differ and little else does, that is most of the variance.
    table = np.tile(np.where(kinds == "real", 1.0, 0.0), (8, 1))
    table[np.arange(8), np.arange(8)] = 0
    loose, strict = (
        two_way_bootstrap(table, rng=np.random.default_rng(1), case_strata=strata)
        for strata in (None, kinds)
    )
    assert strict.standard.standard_error < 0.5 * loose.standard.standard_error


def test_the_two_way_bootstrap_takes_missing_cells():
    rng = np.random.default_rng(12)
    table = crossed_table(rng, 15, 60)
    table[rng.random(table.shape) < 0.3] = np.nan
    result = two_way_bootstrap(table, rng=rng)
    assert result.percentile.estimate == np.nanmean(table)
    assert result.percentile.ci_low < np.nanmean(table) < result.percentile.ci_high


def test_replicates_without_a_judgement_are_counted_and_left_out():
    # Each reader judged one case of his own.
    table = np.full((6, 6), np.nan)
    table[np.arange(6), np.arange(6)] = [0, 1, 0, 1, 1, 1]
    result = two_way_bootstrap(table, rng=np.random.default_rng(0))
    assert 0 < result.n_empty < 200
    assert all(isfinite(number) for number in every_number(result))


def test_a_bootstrap_is_reproducible_from_its_seed():
    table = crossed_table(np.random.default_rng(3), 10, 40)
    one, other = (two_way_bootstrap(table, rng=np.random.default_rng(5)) for _ in range(2))
    assert one == other


def test_the_two_way_bootstrap_of_twenty_readers_and_three_hundred_cases_is_fast():
    table = crossed_table(np.random.default_rng(4), 20, 300)
    start = time.process_time()
    two_way_bootstrap(table, rng=np.random.default_rng(0), n_replicates=2000)
    assert time.process_time() - start < 2


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


ALL_RIGHT = np.ones(40), np.repeat(np.arange(8), 5)
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


DEGENERATE_GEE = [
    (*ALL_RIGHT, None, "all answers are right"),
    ([1, 0, 1], ["a", "a", "a"], None, "1 cluster says nothing about others"),
    (np.tile([1, 0], 8), np.repeat(np.arange(4), 4), None, "4 clusters are too few"),
    (np.tile([1, 1, 0], 20), np.repeat(np.arange(20), 3), None, "clusters do not differ at all"),
    (
        np.tile([1, 1, 0], 20),
        np.repeat(np.arange(20), 3),
        {"x": np.tile([3.0, 4.0, 1.0], 20)},
        "without contradiction, so a coefficient is infinite",
    ),
    (
        np.r_[np.tile([1, 1, 0, 0, 1], 24)],
        np.repeat(np.arange(24), 5),
        {"x": np.r_[np.ones(5), np.zeros(115)]},
        "one cluster alone determines a coefficient",
    ),
]


@pytest.mark.parametrize(("right", "clusters", "covariates", "reason"), DEGENERATE_GEE)
def test_gee_that_cannot_be_fitted_or_trusted_says_why(right, clusters, covariates, reason):
    frame = None if covariates is None else pd.DataFrame(covariates)
    fit = gee(right, clusters, covariates=frame)
    assert not fit.accuracy_bias_reduced.is_estimable
    assert reason in fit.accuracy_bias_reduced.reason
    assert all(isfinite(number) for number in every_number(fit))


def test_gee_with_few_clusters_advises_what_to_do_instead():
    fit = gee(*judgements(TREATED[0][:8], TREATED[1][:8]))
    reason = fit.coefficients[0].bias_reduced.reason
    assert "have at least 10, use the Rao–Scott t interval" in reason


def test_gee_under_forty_clusters_points_to_the_bias_reduced_error():
    (caution,) = gee(*judgements(*TREATED)).cautions
    assert "With 16 clusters (fewer than 40) the robust standard error is too small" in caution


def test_an_impossible_working_correlation_is_not_estimable():
    # Four answers can avoid each other so much, six cannot.
    right, clusters = np.tile([1, 0], 43), np.repeat(np.arange(21), [4] * 20 + [6])
    fit = gee(right, clusters, working_correlation="exchangeable")
    assert not fit.accuracy_robust.is_estimable
    assert "use independence" in fit.accuracy_robust.reason


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.eye(4), "4 readers and 4 cases are too few to resample"),
        (np.ones((10, 20)), "all replicates are alike"),
    ],
)
def test_a_bootstrap_without_a_spread_to_learn_from_says_why(table, reason):
    result = two_way_bootstrap(table, rng=np.random.default_rng(0))
    for interval in (result.percentile, result.basic, result.standard):
        assert reason in interval.reason
        assert interval.estimate == table.mean()


def test_a_cluster_bootstrap_of_four_clusters_is_refused_with_advice():
    result = cluster_bootstrap([1, 2, 3, 4], [5] * 4, rng=np.random.default_rng(0))
    assert "have at least 5 of each, or speak of these only" in result.percentile.reason


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
