from itertools import product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from studies.mrmc import MrmcError
from studies.reader_figures import (
    auc_delong,
    auc_jackknife,
    auc_unbiased,
    jackknife,
    percent_correct_jackknife,
    percent_correct_stratified,
    percent_correct_unbiased,
)
from tests.studies.test_crossed import VAN_DYKE, a_table_like


def ratings(rng, n_readers, n_positive, n_negative, *, n_modalities=1, separation=1.2, step=0.0):
    """Roe–Metz-like: readers, cases and their interaction are normal; five rating levels."""
    shape = (n_modalities, n_readers)
    skill = rng.normal(0, 0.25, (1, n_readers, 1)) + rng.normal(0, 0.1, (*shape, 1))
    shift = separation + step * np.arange(n_modalities)[:, None, None]

    def read(n_cases, mean):
        cases = rng.normal(0, 0.6, n_cases) + rng.normal(0, 0.3, (n_modalities, 1, n_cases))
        return mean + cases + rng.normal(0, 0.75, (*shape, n_cases))

    latent = read(n_positive, shift + skill), read(n_negative, 0.0)
    return tuple(np.digitize(one, [-0.5, 0.2, 0.8, 1.6]).astype(float) for one in latent)


def answers(rng, n_readers, n_cases, *, n_modalities=1):
    cases = rng.normal(0, 0.6, n_cases)
    ease = 0.6 + rng.normal(0, 0.3, (n_modalities, n_readers, 1)) + cases
    return (rng.random((n_modalities, n_readers, n_cases)) < norm.cdf(ease)).astype(float)


def with_gaps(rng, table, share):
    return np.where(rng.random(table.shape) < share, np.nan, table)


def empirical_auc(positive, negative):
    """By comparing all pairs. (T, R)"""
    wins = positive[..., :, None] > negative[..., None, :]
    ties = positive[..., :, None] == negative[..., None, :]
    is_read = ~np.isnan(positive[..., :, None] + negative[..., None, :])
    return (wins + 0.5 * ties).sum(axis=(-1, -2)) / is_read.sum(axis=(-1, -2))


# pROC, aSAH data, WFNS grade: how often grades 1 to 5 were given.
GOOD_OUTCOME = np.repeat(np.arange(1.0, 6), (37, 20, 3, 8, 4))
POOR_OUTCOME = np.repeat(np.arange(1.0, 6), (2, 12, 1, 8, 18))


def test_the_auc_is_the_mann_whitney_statistic():
    wins = mannwhitneyu(POOR_OUTCOME, GOOD_OUTCOME).statistic
    found = auc_jackknife(POOR_OUTCOME[None], GOOD_OUTCOME[None]).values
    assert found[0, 0] == pytest.approx(wins / (72 * 41), rel=1e-14)


def tables_of_both_modalities():
    """Two tables with the published counts, and answers in common that the covariances give away.

    For percent correct, Cov1 and Cov3 are whole numbers of common right answers in disguise: of one
    reader in both modalities, and of two readers. Swapping cases of one modality finds them.
    """
    one, other = (a_table_like(VAN_DYKE[name]).astype(int) for name in VAN_DYKE)
    n_readers, n_cases = one.shape
    p, q = one.mean(axis=1), other.mean(axis=1)
    scale = n_readers * (n_cases - 1) * n_cases
    same = round(0.0009943883 * scale + n_cases * (p @ q))
    different = round(
        0.0006604938 * scale * (n_readers - 1) + n_cases * (p.sum() * q.sum() - p @ q)
    )

    def distance(table):
        together = (one * table).sum()
        return abs(together - same) + abs(
            one.sum(axis=0) @ table.sum(axis=0) - together - different
        )

    rng = np.random.default_rng(0)
    while distance(other):
        i, j = rng.integers(n_cases, size=2)
        swapped = other.copy()
        swapped[:, [i, j]] = other[:, [j, i]]
        if distance(swapped) <= distance(other) or rng.random() < 0.02:
            other = swapped
    return np.array([one, other])


@pytest.mark.parametrize("seed", range(6))
def test_the_closed_jackknife_of_the_auc_is_that_of_leaving_cases_out(seed):
    rng = np.random.default_rng(seed)
    positive, negative = ratings(rng, 3, 9, 7, n_modalities=2)
    if seed > 2:
        positive, negative = with_gaps(rng, positive, 0.2), with_gaps(rng, negative, 0.2)
    slow = jackknife(empirical_auc, positive, negative, name="AUC")
    fast = auc_jackknife(positive, negative)
    assert fast.values == pytest.approx(slow.values, abs=1e-14)
    assert fast.covariance == pytest.approx(slow.covariance, abs=1e-15)
    assert (fast.n_shared_cases == slow.n_shared_cases).all()
    assert fast.fewest_cases == slow.fewest_cases
    assert fast.independent_variance == pytest.approx(slow.independent_variance, abs=1e-15)


@pytest.mark.parametrize("gaps", [0, 0.3])
def test_the_closed_jackknife_of_percent_correct_is_that_of_leaving_cases_out(gaps):
    rng = np.random.default_rng(1)
    table = with_gaps(rng, answers(rng, 4, 20, n_modalities=2), gaps)
    slow = jackknife(lambda one: np.nanmean(one, axis=-1), table, name="percent correct")
    fast = percent_correct_jackknife(table)
    assert fast.values == pytest.approx(slow.values, abs=1e-14)
    assert fast.covariance == pytest.approx(slow.covariance, abs=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_delong_covariances_are_those_of_placements_found_by_comparing_all_pairs(seed):
    positive, negative = ratings(np.random.default_rng(seed), 3, 12, 9, n_modalities=2)
    x, y = positive.reshape(6, -1), negative.reshape(6, -1)
    wins = (x[:, :, None] > y[:, None]) + 0.5 * (x[:, :, None] == y[:, None])
    covariance = np.cov(wins.mean(axis=2)) / 12 + np.cov(wins.mean(axis=1)) / 9
    found = auc_delong(positive, negative)
    assert found.covariance.reshape(6, 6) == pytest.approx(covariance, abs=1e-16)


def unbiased_covariances_by_definition(positive, negative):
    """A A' less the mean product of wins in pairs that share no case, over all of them."""
    x, y = positive.reshape(-1, positive.shape[-1]), negative.reshape(-1, negative.shape[-1])
    found = np.empty((len(x), len(x)))
    for k, m in np.ndindex(found.shape):
        wins = [
            {
                (i, j): (x[c, i] > y[c, j]) + 0.5 * (x[c, i] == y[c, j])
                for i in range(x.shape[1])
                for j in range(y.shape[1])
                if not np.isnan(x[c, i] + y[c, j])
            }
            for c in (k, m)
        ]
        free = [
            one * other
            for (i, j), one in wins[0].items()
            for (p, q), other in wins[1].items()
            if i != p and j != q
        ]
        found[k, m] = np.prod([np.mean(list(one.values())) for one in wins]) - np.mean(free)
    return found


@pytest.mark.parametrize("gaps", [0, 0.25])
def test_unbiased_covariances_of_the_auc_are_those_of_their_definition(gaps):
    rng = np.random.default_rng(3)
    positive, negative = (
        with_gaps(rng, one, gaps) for one in ratings(rng, 2, 7, 6, n_modalities=2)
    )
    expected = unbiased_covariances_by_definition(positive, negative)
    found = auc_unbiased(positive, negative).covariance.reshape(4, 4)
    assert found == pytest.approx(expected, abs=1e-14)


def test_few_and_many_different_ratings_take_different_ways_to_the_same_covariances():
    rng = np.random.default_rng(4)
    positive, negative = ratings(rng, 4, 60, 50)  # few: counts of ratings
    jitter = 1e-6 * np.arange(110) * (rng.random((1, 4, 1)) + 1)
    # Ratings in a different spacing are the same ratings; a sliver of noise breaks some ties.
    few = auc_unbiased(positive, negative)
    slow = unbiased_covariances_of_complete_tables(positive, negative)
    assert few.covariance[0, :, 0] == pytest.approx(slow, abs=1e-14)
    assert auc_unbiased(np.exp(positive), np.exp(negative)).covariance == pytest.approx(
        few.covariance, abs=1e-15
    )
    broken = auc_unbiased(positive + jitter[..., :60], negative + jitter[..., 60:])
    slow = unbiased_covariances_of_complete_tables(
        positive + jitter[..., :60], negative + jitter[..., 60:]
    )
    assert broken.covariance[0, :, 0] == pytest.approx(slow, abs=1e-14)


def unbiased_covariances_of_complete_tables(positive, negative):
    x, y = positive[0], negative[0]
    wins = (x[:, :, None] > y[:, None]) + 0.5 * (x[:, :, None] == y[:, None])
    n, m = wins.shape[1:]
    everything, rows, columns = wins.sum(axis=(1, 2)), wins.sum(axis=2), wins.sum(axis=1)
    free = np.outer(everything, everything) - rows @ rows.T - columns @ columns.T
    free = free + np.einsum("rij,sij->rs", wins, wins)
    means = wins.mean(axis=(1, 2))
    return np.outer(means, means) - free / (n * (n - 1) * m * (m - 1))


def test_jackknife_delong_and_unbiased_covariances_agree_on_many_cases():
    positive, negative = ratings(np.random.default_rng(5), 4, 400, 400, n_modalities=2)
    one, two, three = (f(positive, negative) for f in (auc_jackknife, auc_delong, auc_unbiased))
    assert two.covariance == pytest.approx(one.covariance, rel=0.01, abs=2e-6)
    assert three.covariance == pytest.approx(one.covariance, rel=0.01, abs=2e-6)


def test_a_figure_of_merit_that_one_case_can_break_is_refused():
    with pytest.raises(
        MrmcError, match="d′ is not finite without case 1 of table 1; its jackknife"
    ):
        jackknife(
            lambda one: norm.ppf(one.mean(axis=-1)), np.tile([1.0, 0.0, 0.0], (2, 1)), name="d′"
        )


def test_ratings_turned_round_turn_the_auc_round_and_leave_its_covariances():
    positive, negative = ratings(np.random.default_rng(10), 4, 20, 15)
    for figures_of in (auc_jackknife, auc_delong, auc_unbiased):
        one, other = figures_of(positive, negative), figures_of(-positive, -negative)
        swapped = figures_of(negative, positive)
        assert other.values == pytest.approx(1 - one.values, abs=1e-14)
        assert other.covariance == pytest.approx(one.covariance, abs=1e-15)
        assert swapped.covariance == pytest.approx(one.covariance, abs=1e-15)


def test_two_ratings_make_the_auc_half_of_sensitivity_plus_specificity():
    rng = np.random.default_rng(11)
    yes = rng.random((3, 30)) < 0.7
    no = rng.random((3, 25)) < 0.4
    found = auc_delong(yes, no)
    sensitivity, specificity = percent_correct_jackknife(yes), percent_correct_jackknife(~no)
    assert found.values == pytest.approx((sensitivity.values + specificity.values) / 2, abs=1e-14)
    assert found.covariance == pytest.approx(
        (sensitivity.covariance + specificity.covariance) / 4, abs=1e-15
    )


def nested_in_readers(table):
    """The same readings, told to be of other cases for each reader."""
    n_modalities, n_readers, n_cases = table.shape
    found = np.full((n_modalities, n_readers, n_readers * n_cases), np.nan)
    for reader in range(n_readers):
        found[:, reader, reader * n_cases : (reader + 1) * n_cases] = table[:, reader]
    return found


def test_unbiased_covariances_of_percent_correct_are_unbiased_where_readings_are_missing():
    # Reader 1 read cases 1 to 3, reader 2 cases 2 to 4; all that can happen, by its probability.
    both_right, one_right, other_right = 0.5, 0.2, 0.1
    together = {(1, 1): both_right, (1, 0): one_right, (0, 1): other_right, (0, 0): 0.2}
    expected = np.zeros((2, 2))
    for first, second, third, fourth in product((0, 1), together, together, (0, 1)):
        chance = together[second] * together[third]
        chance *= 0.7 if first else 0.3
        chance *= 0.6 if fourth else 0.4
        table = [[first, second[0], third[0], np.nan], [np.nan, second[1], third[1], fourth]]
        expected += chance * percent_correct_unbiased(table).covariance[0, :, 0]
    covariance = 2 * (both_right - 0.7 * 0.6) / 9
    assert expected == pytest.approx(
        np.array([[0.7 * 0.3 / 3, covariance], [covariance, 0.6 * 0.4 / 3]]), abs=1e-15
    )


def test_readers_who_share_no_case_have_no_covariance_of_percent_correct():
    table = nested_in_readers(answers(np.random.default_rng(25), 3, 20))
    covariance = percent_correct_unbiased(table).covariance[0, :, 0]
    assert (covariance[~np.eye(3, dtype=bool)] == 0).all()


def test_stratified_covariances_are_those_of_the_kinds_weighted_by_their_shares():
    table = answers(np.random.default_rng(26), 4, 50)
    kinds = np.arange(50) < 20
    found = percent_correct_stratified(table, kinds)
    parts = [percent_correct_jackknife(table[..., kinds == kind]) for kind in (True, False)]
    assert found.values == pytest.approx(table.mean(axis=-1), abs=1e-14)
    assert found.covariance == pytest.approx(
        0.4**2 * parts[0].covariance + 0.6**2 * parts[1].covariance, abs=1e-16
    )


def test_kinds_must_be_named_for_each_case_and_seen_twice_by_each_reader():
    table = answers(np.random.default_rng(28), 3, 20)
    with pytest.raises(MrmcError, match="name one kind for each"):
        percent_correct_stratified(table, np.arange(19))
    with pytest.raises(MrmcError, match=r"reader 1 read 1 cases of kind 7 in modality 1"):
        percent_correct_stratified(table, np.where(np.arange(20) == 3, 7, 1))
