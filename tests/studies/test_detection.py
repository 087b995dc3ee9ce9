from statistics import NormalDist

import numpy as np
import pytest

from studies.detection import criterion, d_prime, detection

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
