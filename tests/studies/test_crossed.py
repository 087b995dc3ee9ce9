from itertools import product
from math import comb, inf, sqrt

import numpy as np
import pytest
from scipy.stats import norm

from studies.crossed import CrossedError, fixed_readers, random_readers_and_cases
from studies.proportions import wilson

# Van Dyke readings, 45 diseased cases, 5 readers: case C5, from the vignette of MRMCaov.
# Right answers of each reader, then the printed results.
N_CASES = 45
VAN_DYKE = {
    "modality 1": {
        "n_correct": (40, 35, 37, 42, 31),
        "mean": (0.8222222, 5e-8),
        "ms_reader": (0.009135802, 5e-10),
        "cov2": (0.001646465, 5e-10),
        "standard_error": (0.05893747, 5e-9),
        "df": (14.456811, 5e-7),
        "ci": ((0.6961876, 0.9482568), 5e-8),
    },
    "modality 2": {
        "n_correct": (44, 37, 41, 45, 40),
        "mean": (0.9200000, 5e-8),
        "ms_reader": (0.005086420, 5e-10),
        "cov2": (0.000382716, 5e-10),
        "standard_error": (0.03741657, 5e-9),
        "df": (7.575855, 5e-7),
        "ci": ((0.8328691, 1.0071309), 5e-8),
    },
}


def pairs_right_together(published):
    """How often two readers were right about the same case, summed over pairs of readers.

    The readings are not ours to ship, and need not be: for percent correct, all of case C5 follows
    from the readers' counts and this one integer. The printed Cov2 gives it away, since one more
    or less would move Cov2 by 1 / (10 · 44 · 45) = 5e-5, and Cov2 is printed to 5e-10.
    """
    shares = np.array(published["n_correct"]) / N_CASES
    expected = (shares.sum() ** 2 - (shares**2).sum()) / 2
    n_pairs = comb(len(shares), 2)
    value, rounding = published["cov2"]
    together = (value * n_pairs * (N_CASES - 1) + expected) * N_CASES
    unsure_by = rounding * n_pairs * (N_CASES - 1) * N_CASES
    assert abs(together - round(together)) <= unsure_by < 0.5
    return round(together)


def count_pairs_right_together(table):
    return sum(comb(int(n_right), 2) for n_right in table.sum(axis=0))


def a_table_like(published):
    """Any readers × cases table with the published counts and pairs; all have the same answer."""
    wanted = pairs_right_together(published)
    first, *others = published["n_correct"]
    row = np.arange(N_CASES)
    for shifts in product(range(N_CASES), repeat=len(others)):
        rows = [np.roll(row < n, shift) for n, shift in zip(others, shifts, strict=True)]
        table = np.array([row < first, *rows])
        if count_pairs_right_together(table) == wanted:
            return table
    raise AssertionError("no such table")


@pytest.mark.parametrize("modality", VAN_DYKE)
def test_case_c5_holds_to_its_printed_digits(modality):
    published = VAN_DYKE[modality]
    table = a_table_like(published)
    assert tuple(table.sum(axis=1)) == published["n_correct"]
    result = random_readers_and_cases(table)
    for name, found in (
        ("mean", result.estimate),
        ("ms_reader", result.ms_reader),
        ("cov2", result.cov2),
        ("standard_error", result.standard_error),
        ("df", result.df),
        ("ci", (result.ci_low, result.ci_high)),
    ):
        value, rounding = published[name]
        assert found == pytest.approx(value, abs=rounding, rel=0), name


def test_the_naive_variance_of_case_c5_is_short_by_a_factor_of_five():
    assert random_readers_and_cases(a_table_like(VAN_DYKE["modality 1"])).design_effect == (
        pytest.approx(5.3, abs=0.05)
    )


def test_fixed_readers_of_case_c5_are_clustered_by_case():
    # The reference divides by N where we divide by N − 1.
    clustered_by_case = 0.043647 * sqrt(N_CASES / (N_CASES - 1))
    result = fixed_readers(a_table_like(VAN_DYKE["modality 1"]))
    assert result.standard_error == pytest.approx(clustered_by_case, abs=1e-6)


def gallas_variance(table):
    """One-sample U-statistic variance of the mean, from the four moments. Gallas (2006)."""
    x = np.asarray(table, dtype=float)
    n_readers, n_cases = x.shape
    same_case = np.einsum("ri,si->rs", x, x)
    same_reader = np.einsum("ri,rj->ij", x, x)
    any_two = x.sum() ** 2
    m1 = (x**2).mean()
    m2 = (same_case.sum() - same_case.trace()) / (n_cases * n_readers * (n_readers - 1))
    m3 = (same_reader.sum() - same_reader.trace()) / (n_readers * n_cases * (n_cases - 1))
    m4 = (any_two - same_case.sum() - same_reader.sum() + (x**2).sum()) / (
        n_readers * (n_readers - 1) * n_cases * (n_cases - 1)
    )
    mean_square = (m1 + (n_readers - 1) * m2 + (n_cases - 1) * (m3 + (n_readers - 1) * m4)) / (
        n_readers * n_cases
    )
    return mean_square - m4


def random_table(rng, n_readers, n_cases, *, mean=0.4, reader_sd=0.4, case_sd=0.7):
    ease = mean + rng.normal(0, reader_sd, (n_readers, 1)) + rng.normal(0, case_sd, (1, n_cases))
    return rng.random((n_readers, n_cases)) < norm.cdf(ease)


@pytest.mark.parametrize("seed", range(20))
def test_the_variance_is_that_of_gallas_u_statistics(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng, rng.integers(2, 9), rng.integers(2, 60))
    result = random_readers_and_cases(table)
    assert result.ms_reader / len(table) + result.cov2 == pytest.approx(
        gallas_variance(table), abs=1e-15
    )
    if result.cov2 >= 0:
        assert result.standard_error == pytest.approx(sqrt(gallas_variance(table)), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_cov2_is_the_mean_covariance_over_cases_left_out_one_by_one(seed):
    table = random_table(np.random.default_rng(seed), 5, 30)
    left_out = np.array([np.delete(table, i, axis=1).mean(axis=1) for i in range(30)])
    covariances = np.cov(left_out.T, ddof=0) * 29
    mean_of_pairs = covariances[~np.eye(5, dtype=bool)].mean()
    assert random_readers_and_cases(table).cov2 == pytest.approx(mean_of_pairs, rel=1e-9)


def test_readers_who_err_on_different_cases_are_not_estimable_rather_than_certain():
    # Equally good, and never wrong together: both variances are 0 or less.
    result = random_readers_and_cases(np.arange(12) // 2 != np.arange(6)[:, None])
    assert result.cov2 < 0
    assert not result.is_estimable


def test_gallas_standard_errors_of_case_c5_are_reproduced():
    for modality, published in (("modality 1", 0.0589374681), ("modality 2", 0.0374165739)):
        variance = gallas_variance(a_table_like(VAN_DYKE[modality]))
        assert sqrt(variance) == pytest.approx(published, abs=5e-11)


@pytest.mark.parametrize("method", [random_readers_and_cases, fixed_readers])
def test_relabelling_readers_or_cases_changes_nothing(method):
    rng = np.random.default_rng(5)
    table = random_table(rng, 6, 40)
    one, other = method(table), method(rng.permutation(rng.permutation(table, axis=0), axis=1))
    for name in ("estimate", "standard_error", "df", "ci_low", "ci_high", "cov2", "n_correct"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-12), name


def test_intervals_cover_the_truth_for_other_readers_and_cases_and_the_naive_one_does_not():
    rng = np.random.default_rng(2026)
    mean, reader_sd, case_sd, n_studies = 0.4, 0.3, 0.5, 2000
    truth = norm.cdf(mean / sqrt(1 + reader_sd**2 + case_sd**2))
    covered = naively_covered = 0
    for _ in range(n_studies):
        table = random_table(rng, 10, 200, mean=mean, reader_sd=reader_sd, case_sd=case_sd)
        result = random_readers_and_cases(table)
        naive = wilson(result.n_correct, result.n_trials)
        covered += result.ci_low <= truth <= result.ci_high
        naively_covered += naive.ci_low <= truth <= naive.ci_high
    assert 0.93 <= covered / n_studies <= 0.97
    assert naively_covered / n_studies < 0.70


def test_one_fixed_reader_is_a_binomial_sample_of_cases():
    reader = np.arange(40) < 25
    result = fixed_readers(reader[None])
    assert result.standard_error == pytest.approx(sqrt(25 / 40 * 15 / 40 / 39))
    assert result.df == 39


def test_readers_who_are_equally_good_leave_infinite_degrees_of_freedom():
    table = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], dtype=bool)
    result = random_readers_and_cases(table)
    assert result.df == inf
    assert result.ci_high - result.estimate == pytest.approx(1.959964 * result.standard_error)


@pytest.mark.parametrize("method", [random_readers_and_cases, fixed_readers])
@pytest.mark.parametrize("answer", [True, False])
def test_readers_who_are_all_right_or_all_wrong_are_not_estimable_rather_than_certain(
    method, answer
):
    result = method(np.full((5, 40), answer))
    assert result.estimate == answer
    assert not result.is_estimable
    assert (result.ci_low, result.ci_high, result.design_effect) == (None, None, None)


def test_a_single_reader_is_refused_with_advice():
    with pytest.raises(CrossedError, match=r"these readers only \(fixed readers\)"):
        random_readers_and_cases(np.ones((1, 40)))


def test_a_missing_answer_is_refused_with_advice():
    table = np.ones((3, 40))
    table[1, :4] = np.nan
    with pytest.raises(CrossedError, match="reader 2 lacks 4 of 40 cases; leave out readers who"):
        random_readers_and_cases(table)


def test_a_single_case_is_refused_with_advice():
    with pytest.raises(CrossedError, match="one row for each reader and one column for each case"):
        random_readers_and_cases(np.ones((5, 1)))


def test_confidences_in_place_of_answers_are_refused():
    with pytest.raises(CrossedError, match=r"right \(1\) or wrong \(0\)"):
        random_readers_and_cases(np.full((5, 40), 3))


def test_a_level_in_percent_is_refused_with_advice():
    with pytest.raises(CrossedError, match=r"give a fraction such as 0\.95"):
        random_readers_and_cases(np.eye(5), confidence_level=95)
