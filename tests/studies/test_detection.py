from statistics import NormalDist

import numpy as np
import pytest

from studies.detection import (
    criterion,
    crossed_detection,
    d_prime,
    d_prime_of_forced_choice,
    detection,
    forced_choice_by_place,
    log_beta,
    paired_forced_choice,
)
from studies.reader_population import reader_population

Z = NormalDist().inv_cdf


def test_d_prime_and_criterion_match_metadpy():
    # 20 hits, 5 misses, 10 false alarms, 15 correct rejections: metadpy's test_sdt.py.
    assert d_prime(20 / 25, 10 / 25) == pytest.approx(1.094968, abs=5e-7)
    assert criterion(20 / 25, 10 / 25) == pytest.approx(-0.294137, abs=5e-7)


def test_the_log_linear_correction_adds_half_to_each_count():
    found = detection(20, 5, 10, 15)
    assert found.d_prime == pytest.approx(Z(20.5 / 26) - Z(10.5 / 26))
    assert found.criterion == pytest.approx(-(Z(20.5 / 26) + Z(10.5 / 26)) / 2)


def test_a_perfect_reader_has_a_finite_d_prime_and_no_preference():
    found = detection(20, 0, 0, 20)
    assert found.d_prime == pytest.approx(2 * Z(20.5 / 21))
    assert found.criterion == pytest.approx(0, abs=1e-12)


def test_a_reader_who_calls_everything_real_has_no_d_prime_and_a_positive_criterion():
    found = detection(0, 20, 0, 20)
    assert found.d_prime == pytest.approx(0)
    assert found.criterion > 1


def test_swapping_the_two_answers_flips_both_signs():
    one, other = detection(14, 6, 8, 12), detection(6, 14, 12, 8)
    assert (other.d_prime, other.criterion) == pytest.approx((-one.d_prime, -one.criterion))


def test_intervals_cover_the_truth_of_simulated_readers():
    rng = np.random.default_rng(11)
    truth, bias, n_each, n_readers = 1.0, 0.3, 100, 2000
    n_hits = rng.binomial(n_each, 1 - NormalDist(truth / 2).cdf(bias), n_readers)
    n_false = rng.binomial(n_each, 1 - NormalDist(-truth / 2).cdf(bias), n_readers)
    found = [
        detection(int(h), int(n_each - h), int(f), int(n_each - f))
        for h, f in zip(n_hits, n_false, strict=True)
    ]
    covers_d = np.mean([one.d_prime_ci_low <= truth <= one.d_prime_ci_high for one in found])
    covers_c = np.mean([one.criterion_ci_low <= bias <= one.criterion_ci_high for one in found])
    assert 0.93 <= covers_d <= 0.97
    assert 0.93 <= covers_c <= 0.97


def test_a_reader_who_saw_one_kind_only_is_refused_with_advice():
    with pytest.raises(ValueError, match="10 generated and 0 real judgements give no d′; it needs"):
        detection(8, 2, 0, 0)


def test_a_level_in_percent_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"give a fraction such as 0\.95"):
        detection(8, 2, 3, 7, confidence_level=95)


def test_log_beta_is_d_prime_times_criterion():
    assert log_beta(0.8, 0.4) == pytest.approx(1.094968 * -0.294137, abs=5e-7)
    found = detection(20, 5, 10, 15)
    assert found.log_beta == pytest.approx(found.d_prime * found.criterion)


@pytest.mark.parametrize("counts", [(20, 20, 20, 20), (20, 0, 0, 20), (0, 20, 0, 20)])
def test_the_interval_of_log_beta_is_never_a_point(counts):
    found = detection(*counts)
    assert found.log_beta_ci_high - found.log_beta_ci_low > 0.1


def test_the_interval_of_log_beta_covers_simulated_readers():
    rng = np.random.default_rng(3)
    truth, bias, n_each = 1.0, 0.4, 150
    n_hits = rng.binomial(n_each, 1 - NormalDist(truth / 2).cdf(bias), 1000)
    n_false = rng.binomial(n_each, 1 - NormalDist(-truth / 2).cdf(bias), 1000)
    covered = 0
    for h, f in zip(n_hits.tolist(), n_false.tolist(), strict=True):
        found = detection(h, n_each - h, f, n_each - f)
        covered += found.log_beta_ci_low <= truth * bias <= found.log_beta_ci_high
    assert 930 <= covered <= 975


@pytest.mark.parametrize(("proportion", "expected"), [(0.5, 0.0), (0.75, 0.9539), (0.9214, 2.0)])
def test_forced_choice_is_root_two_times_z(proportion, expected):
    # Macmillan & Creelman (2005), chapter 7: PC = Φ(d′ / √2).
    assert d_prime_of_forced_choice(proportion) == pytest.approx(expected, abs=5e-4)


def test_counted_pairs_have_the_log_linear_correction_and_a_finite_interval():
    found = paired_forced_choice(40, 40)
    assert found.estimate == pytest.approx(np.sqrt(2) * Z(40.5 / 41))
    assert found.ci_low < found.estimate < found.ci_high < 10


def test_without_bias_both_ways_to_count_pairs_agree():
    found = forced_choice_by_place(300, 400, 300, 400)
    assert found.bias.estimate == pytest.approx(0)
    assert found.d_prime.estimate == pytest.approx(
        paired_forced_choice(600, 800).estimate, abs=2e-3
    )
    assert found.d_prime.standard_error == pytest.approx(
        paired_forced_choice(600, 800).standard_error, rel=0.01
    )


def test_a_place_bias_lowers_d_prime_of_proportion_correct_but_not_that_by_place():
    rng = np.random.default_rng(5)
    truth, bias, n_each = 1.2, 0.5, 20_000
    # The difference, first minus second picture, has mean ±d′ and standard deviation √2.
    first = rng.normal(truth, np.sqrt(2), n_each) > bias * np.sqrt(2)
    second = rng.normal(-truth, np.sqrt(2), n_each) <= bias * np.sqrt(2)
    found = forced_choice_by_place(int(first.sum()), n_each, int(second.sum()), n_each)
    assert found.d_prime.estimate == pytest.approx(truth, abs=0.04)
    assert found.bias.estimate == pytest.approx(bias, abs=0.03)
    assert paired_forced_choice(int(first.sum() + second.sum()), 2 * n_each).ci_high < truth


def simulated_study(rng, n_readers, n_cases, *, mean, spread, of_cases):
    """Answers of readers with random d′ to cases with random difficulty. (R, N), (N,)"""
    truth = np.arange(n_cases) % 2 == 0
    d = mean + spread * rng.standard_normal((n_readers, 1))
    criteria = 0.1 + 0.2 * rng.standard_normal((n_readers, 1))
    noise = np.sqrt(1 - of_cases**2) * rng.standard_normal((n_readers, n_cases))
    seen = np.where(truth, d, -d) / 2 + of_cases * rng.standard_normal(n_cases) + noise
    return seen > criteria, truth


def test_the_interval_of_the_mean_covers_readers_and_cases_and_the_independent_one_fails():
    rng = np.random.default_rng(8)
    n_studies, covered, naively = 120, 0, 0
    for _ in range(n_studies):
        called, truth = simulated_study(rng, 8, 60, mean=0.6, spread=0.15, of_cases=0.7)
        found = crossed_detection(called, truth)
        covered += found.d_prime.mean.ci_low <= 0.6 <= found.d_prime.mean.ci_high
        independent = reader_population(
            [reader.d_prime for reader in found.readers],
            [reader.d_prime_standard_error for reader in found.readers],
        ).mean
        naively += independent.ci_low <= 0.6 <= independent.ci_high
    assert 0.92 <= covered / n_studies <= 0.985
    assert naively / n_studies < 0.87


def test_the_readers_of_a_study_are_those_of_their_counts_and_may_miss_cases():
    called, truth = simulated_study(
        np.random.default_rng(0), 3, 40, mean=1, spread=0.2, of_cases=0.3
    )
    table = called.astype(float)
    table[1, :10] = np.nan
    found = crossed_detection(table, truth)
    kept = table[1, 10:] == 1
    assert found.readers[1] == detection(
        int((kept & truth[10:]).sum()),
        int((~kept & truth[10:]).sum()),
        int((kept & ~truth[10:]).sum()),
        int((~kept & ~truth[10:]).sum()),
    )
    assert found.d_prime.mean.is_estimable


def test_readers_who_answer_all_alike_are_finite():
    called = np.tile([1, 1, 0, 1, 0, 0, 1, 0], (4, 1))
    found = crossed_detection(called, np.array([1, 0, 1, 1, 0, 0, 1, 0]))
    # Four copies of a reader tell of the cases no more than one does.
    one = found.readers[0].d_prime_standard_error
    assert found.d_prime.mean.standard_error == pytest.approx(one, rel=1e-3)
    all_real = crossed_detection(np.zeros((3, 8)), np.arange(8) % 2)
    assert all_real.d_prime.mean.estimate == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: paired_forced_choice(0, 0), "finished no pair as incomplete"),
        (
            lambda: forced_choice_by_place(3, 5, 0, 0),
            "in the second place is not a proportion; show",
        ),
        (lambda: reader_population([1.0, 2.0], [0.1]), "do not belong together; give one standard"),
        (lambda: reader_population([1.0, np.nan], [0.1, 0.1]), "missing; leave that reader out"),
        (
            lambda: reader_population([1, 2], [0.1, 0]),
            "standard error of reader 2 is 0; it must be",
        ),
        (lambda: reader_population([1, 2], [[1, 2], [2, 1]]), "are no covariance: it is symmetric"),
        (lambda: crossed_detection([0, 1], [0, 1]), "give one row for each reader"),
        (lambda: crossed_detection([[0, 2]], [0, 1]), "reader 1 to case 2 is 2; write 1 for"),
        (
            lambda: crossed_detection([[0, 1], [np.nan, 1]], [0, 1]),
            "reader 2: 1 generated and 0 real judgements give no d′",
        ),
    ],
)
def test_bad_input_is_refused_with_advice(call, words):
    with pytest.raises(ValueError, match=words):
        call()
