import time
from math import isfinite, sqrt

import numpy as np
import pytest
from scipy.stats import norm

from studies.bootstrap import cluster_bootstrap, resampling_weights, two_way_bootstrap
from studies.clustered import (
    rao_scott,
)
from tests.studies.results import every_number, limits
from tests.studies.test_clustered import TREATED


def test_a_bootstrap_of_clusters_of_one_trial_is_binomial():
    rng = np.random.default_rng(1)
    result = cluster_bootstrap(np.arange(60) < 40, np.ones(60), rng=rng, n_replicates=20_000)
    expected = sqrt(40 / 60 * 20 / 60 / 60)
    assert result.standard.standard_error == pytest.approx(expected, rel=0.02)


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
