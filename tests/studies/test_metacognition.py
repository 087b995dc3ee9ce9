"""Checked against metadpy, HMeta-d and the definitions; E and J are in
`reference/statistics_cases.md`."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr

from studies.detection import detection
from studies.metacognition import (
    MetacognitionError,
    meta_d_prime,
    type_2_auc,
    type_2_auc_padded,
    type_2_roc,
)
from studies.roc import auc_from_counts, ordinal_ratings, rating_counts
from tests.studies.results import every_number

# The counts of metadpy's tests and of its comparison with HMeta-d, 4 confidence levels.
NOISE, SIGNAL = [52, 32, 35, 37, 26, 12, 4, 2], [2, 5, 15, 22, 33, 38, 40, 45]
# The counts of metadpy's documentation.
NOISE_2, SIGNAL_2 = [36, 24, 17, 20, 10, 12, 9, 2], [1, 4, 10, 11, 19, 18, 28, 39]


def simulated(rng, *, d, c=0.2, n_each=20_000, of_confidence=0.0, cuts=(0.4, 0.9, 1.4)):
    """Counts of an observer whose confidence is the distance of noisy evidence from c.

    `of_confidence` is the standard deviation of noise that only confidence suffers from.
    """
    truth = np.arange(2 * n_each) >= n_each
    evidence = np.where(truth, d, -d) / 2 + rng.standard_normal(2 * n_each)
    called = evidence > c
    felt = evidence + of_confidence * rng.standard_normal(2 * n_each)
    # Evidence that has come to speak against the answer gives the lowest confidence.
    distance = np.where(called, felt - c, c - felt)
    confidence = 1 + np.digitize(distance, cuts)
    ratings = ordinal_ratings(called, confidence, len(cuts) + 1)
    return rating_counts(ratings, truth, 2 * (len(cuts) + 1))


# --- type 2 AUC -----------------------------------------------------------------------------------


def test_type_1_auc_of_the_reference_counts_identifies_them():
    # E3 prints 0.8613875 without its counts.
    assert auc_from_counts(NOISE, SIGNAL).estimate == pytest.approx(0.8613875, abs=1e-12)


def test_the_plain_type_2_auc_is_that_of_pairs():
    assert type_2_auc(NOISE, SIGNAL).estimate == pytest.approx(0.7370, abs=5e-5)
    right = np.repeat([1, 2, 3, 4], np.array(NOISE[3::-1]) + SIGNAL[4:])
    wrong = np.repeat([1, 2, 3, 4], np.array(NOISE[4:]) + SIGNAL[3::-1])
    pairs = (right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2
    assert type_2_auc(NOISE, SIGNAL).estimate == pytest.approx(pairs)


@pytest.mark.parametrize(
    ("noise", "signal", "published"),
    [(NOISE, SIGNAL, 0.7278), (NOISE_2, SIGNAL_2, 0.6998064266356949)],
)
def test_the_padded_type_2_auc_is_that_of_metadpy_and_hmeta_d(noise, signal, published):
    digits = len(str(published)) - 2
    found = type_2_auc_padded(noise, signal)
    assert found.estimate == pytest.approx(published, abs=0.6 * 10**-digits)
    assert "0.5 added to each count" in found.method
    assert found.reason == "padded rates have no standard interval; `type_2_auc` has one"


def test_without_padding_the_two_definitions_are_one():
    plain = type_2_auc(NOISE, SIGNAL).estimate
    assert type_2_auc_padded(NOISE, SIGNAL, padding=0).estimate == pytest.approx(plain)
    curve = type_2_roc(NOISE, SIGNAL)
    assert np.trapezoid(curve.hit_rates, curve.false_alarm_rates) == pytest.approx(plain)
    assert (curve.n_signal, curve.n_noise) == (312, 88)


def test_type_2_auc_grows_with_d_prime_and_the_m_ratio_does_not():
    rng = np.random.default_rng(0)
    easy, hard = simulated(rng, d=2.0), simulated(rng, d=1.0)
    assert type_2_auc(*easy).estimate > type_2_auc(*hard).estimate + 0.05
    assert meta_d_prime(*easy).m_ratio.estimate == pytest.approx(1, abs=0.06)
    assert meta_d_prime(*hard).m_ratio.estimate == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("noise", "signal", "words"),
    [
        ([3, 4, 0, 0], [0, 0, 2, 5], "every answer was right"),
        ([0, 0, 4, 3], [2, 5, 0, 0], "every answer was wrong"),
        ([0, 4, 2, 0], [0, 3, 5, 0], "one confidence level was used"),
        ([4, 0, 2, 0], [0, 3, 0, 5], "confidence separates right from wrong completely"),
        ([4, 1, 0, 0], [0, 1, 3, 5], "at least 2 right and 2 wrong answers"),
        ([0, 0, 0, 0], [0, 0, 0, 0], "no picture was judged"),
    ],
)
def test_degenerate_confidence_has_no_type_2_interval_and_says_why(noise, signal, words):
    found = type_2_auc(noise, signal)
    assert not found.is_estimable
    assert words in found.reason


def test_a_type_2_curve_needs_right_and_wrong_answers():
    assert type_2_roc([3, 4, 0, 0], [0, 0, 2, 5]) is None
    assert type_2_auc_padded([3, 4, 0, 0], [0, 0, 2, 5], padding=0).estimate is None


# --- meta-d′ --------------------------------------------------------------------------------------


def test_meta_d_prime_matches_metadpy():
    found = meta_d_prime(NOISE, SIGNAL)
    # metadpy's test_sdt.py: meta_da 1.634; test_extractParameters: d1 1.535. Both are padded.
    assert found.meta_d_prime.estimate == pytest.approx(1.634, abs=5e-4)
    assert found.d_prime == pytest.approx(1.535, abs=5e-4)
    assert found.criterion == pytest.approx(0, abs=1e-12)
    assert found.m_ratio.estimate == found.meta_d_prime.estimate / found.d_prime
    assert found.padding == 1 / 8
    assert "0.125 added to each count" in found.meta_d_prime.method
    assert "relative criterion held" in found.m_ratio.method


def test_padding_changes_the_second_decimal_and_is_recorded():
    found = [meta_d_prime(NOISE, SIGNAL, padding=padding) for padding in (0, 0.125, 0.5)]
    values = [one.meta_d_prime.estimate for one in found]
    assert values == pytest.approx([1.6538, 1.6338, 1.5767], abs=5e-5)
    assert [one.padding for one in found] == [0, 0.125, 0.5]


def test_the_default_padding_is_the_log_linear_correction_of_d_prime():
    found = meta_d_prime(NOISE_2, SIGNAL_2)
    hits, misses = sum(SIGNAL_2[4:]), sum(SIGNAL_2[:4])
    false_alarms, correct_rejections = sum(NOISE_2[4:]), sum(NOISE_2[:4])
    plain = detection(hits, misses, false_alarms, correct_rejections)
    assert (found.d_prime, found.criterion) == pytest.approx((plain.d_prime, plain.criterion))


def log_likelihood(meta, real, generated, centre, noise, signal):
    """Of confidence given picture and answer, written out; cuts in meta-d′ space."""
    total, k = 0.0, len(noise) // 2
    for counts, mean in ((noise, -meta / 2), (signal, meta / 2)):
        above = np.r_[centre, generated, np.inf] - mean
        below = np.r_[-np.inf, real[::-1], centre] - mean
        if np.any(np.diff(above) <= 0) or np.any(np.diff(below) <= 0):
            return -np.inf
        total += counts[k:] @ np.log(np.diff(ndtr(above)) / ndtr(-above[0]))
        total += counts[:k] @ np.log(np.diff(ndtr(below)) / ndtr(below[-1]))
    return total


@pytest.mark.parametrize("fixed_criterion", ["relative", "absolute"])
@pytest.mark.parametrize(("noise", "signal"), [(NOISE, SIGNAL), (NOISE_2, SIGNAL_2)])
def test_no_other_meta_d_prime_is_more_likely(noise, signal, fixed_criterion):
    found = meta_d_prime(noise, signal, fixed_criterion=fixed_criterion)
    padded = np.array(noise) + found.padding, np.array(signal) + found.padding
    scale = found.criterion / found.d_prime

    def minus(x):
        centre = scale * x[0] if fixed_criterion == "relative" else found.criterion
        return -log_likelihood(x[0], x[1:4], x[4:], centre, *padded)

    best = np.r_[found.meta_d_prime.estimate, found.criteria_real, found.criteria_generated]
    assert -minus(best) == pytest.approx(found.log_likelihood)
    start = best + 0.2 * np.array([1, -1, -1, -1, 1, 1, 1])
    other = minimize(minus, start, method="Nelder-Mead", options={"maxiter": 3000})
    assert -other.fun <= found.log_likelihood + 1e-6
    assert other.x[0] == pytest.approx(best[0], abs=0.02)


@pytest.mark.parametrize("d", [0.8, 1.5, 2.5])
def test_an_ideal_observer_has_a_meta_d_prime_of_d_prime(d):
    found = meta_d_prime(*simulated(np.random.default_rng(1), d=d))
    assert found.d_prime == pytest.approx(d, abs=0.04)
    assert found.meta_d_prime.estimate == pytest.approx(d, abs=0.08)
    assert found.m_ratio.ci_low < 1 < found.m_ratio.ci_high


def test_the_cuts_of_an_ideal_observer_are_recovered():
    found = meta_d_prime(*simulated(np.random.default_rng(2), d=1.5, n_each=100_000))
    assert found.criteria_generated == pytest.approx([0.6, 1.1, 1.6], abs=0.04)
    assert found.criteria_real == pytest.approx([-0.2, -0.7, -1.2], abs=0.04)


def test_noise_in_confidence_lowers_meta_d_prime_and_not_d_prime():
    rng = np.random.default_rng(3)
    found = [meta_d_prime(*simulated(rng, d=1.5, of_confidence=sd)) for sd in (0, 0.5, 1, 4)]
    ratios = [one.m_ratio.estimate for one in found]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[1] < 0.9
    assert 0 < ratios[3] < 0.4
    assert [one.d_prime for one in found] == pytest.approx([1.5] * 4, abs=0.05)


def test_confidence_that_knows_nothing_has_a_meta_d_prime_of_zero():
    rng = np.random.default_rng(4)
    noise, signal = (
        np.concatenate([rng.multinomial(n, [0.25] * 4) for n in split])
        for split in ((1400, 600), (500, 1500))
    )
    found = meta_d_prime(noise, signal)
    assert found.meta_d_prime.ci_low < 0 < found.meta_d_prime.ci_high
    assert type_2_auc(noise, signal).ci_low < 0.5 < type_2_auc(noise, signal).ci_high


def test_confidence_that_is_the_wrong_way_round_has_a_negative_meta_d_prime():
    noise, signal = simulated(np.random.default_rng(5), d=1.2, n_each=2000)
    turned = (np.r_[side[3::-1], side[:3:-1]] for side in (noise, signal))
    assert meta_d_prime(*turned).meta_d_prime.ci_high < 0


def test_exchanging_the_two_kinds_changes_nothing():
    one, other = meta_d_prime(NOISE_2, SIGNAL_2), meta_d_prime(SIGNAL_2[::-1], NOISE_2[::-1])
    assert other.meta_d_prime.estimate == pytest.approx(one.meta_d_prime.estimate, abs=1e-6)
    assert other.m_ratio.ci_high == pytest.approx(one.m_ratio.ci_high, abs=1e-5)
    assert other.criteria_real == pytest.approx([-x for x in one.criteria_generated], abs=1e-5)


def test_without_padding_a_level_that_was_not_used_changes_nothing():
    one = meta_d_prime(NOISE_2, SIGNAL_2, padding=0)
    noise, signal = ([0, *side[:4], *side[4:], 0] for side in (NOISE_2, SIGNAL_2))
    other = meta_d_prime(noise, signal, padding=0)
    assert other.meta_d_prime.estimate == pytest.approx(one.meta_d_prime.estimate, abs=1e-7)
    assert other.log_likelihood == pytest.approx(one.log_likelihood)


def drawn_from_the_model(rng, *, d, c, ratio, n_each, cuts=(0.4, 0.9, 1.4)):
    meta, counts = ratio * d, []
    centre, steps = c / d * meta, np.array(cuts)
    for mean, of_meta in ((-d / 2, -meta / 2), (d / 2, meta / 2)):
        said = ndtr(mean - c)
        up = -np.diff(ndtr(of_meta - np.r_[centre, centre + steps, np.inf]))
        down = -np.diff(ndtr(np.r_[centre, centre - steps, -np.inf] - of_meta))
        p = np.r_[(1 - said) * (down / down.sum())[::-1], said * up / up.sum()]
        counts.append(rng.multinomial(n_each, p))
    return counts


def test_intervals_cover_simulated_readers():
    rng = np.random.default_rng(6)
    d, ratio, n_readers = 1.2, 0.8, 60
    meta, of_ratio = [], []
    for _ in range(n_readers):
        found = meta_d_prime(*drawn_from_the_model(rng, d=d, c=0.3, ratio=ratio, n_each=80))
        meta.append(found.meta_d_prime.ci_low <= d * ratio <= found.meta_d_prime.ci_high)
        of_ratio.append(found.m_ratio.ci_low <= ratio <= found.m_ratio.ci_high)
    # At 95 %, fewer than 53 of 60 happens once in 100 times.
    assert np.mean(meta) >= 53 / 60
    assert np.mean(of_ratio) >= 53 / 60


def test_a_reader_at_chance_has_no_m_ratio_and_no_relative_criterion():
    noise, signal = [10, 12, 14, 12, 11, 8], [9, 11, 12, 13, 12, 10]
    found = meta_d_prime(noise, signal)
    assert "d′ is not told from 0" in found.meta_d_prime.reason
    assert 'fixed_criterion="absolute"' in found.meta_d_prime.reason
    assert found.m_ratio.reason == "d′ is not told from 0, and a ratio to it has no bounds"
    # The advice helps.
    absolute = meta_d_prime(noise, signal, fixed_criterion="absolute")
    assert absolute.meta_d_prime.is_estimable
    assert not absolute.m_ratio.is_estimable


def test_a_d_prime_of_exactly_zero_is_no_division_by_zero():
    found = meta_d_prime([5, 6, 7, 8], [5, 6, 7, 8])
    assert "d′ is 0" in found.meta_d_prime.reason


@pytest.mark.parametrize(
    ("noise", "signal", "words"),
    [
        ([9, 9, 0, 0], [0, 0, 9, 9], "every answer was right"),
        ([0, 0, 9, 9], [9, 9, 0, 0], "every answer was wrong"),
        ([0, 9, 4, 0], [0, 3, 9, 0], "one confidence level was used with each answer"),
        ([9, 0, 4, 0], [3, 0, 9, 0], "one confidence level was used with each answer"),
        ([9, 4, 0, 0], [3, 9, 0, 0], "every picture was called real"),
        ([0, 0, 4, 4], [0, 0, 9, 2], "every picture was called generated"),
        ([9, 3, 2, 0], [0, 4, 3, 9], "no wrong answer was surer than a right one"),
        ([0, 9, 0, 2], [4, 0, 9, 0], "no right answer was surer than a wrong one"),
        ([0, 0, 0, 0], [2, 2, 1, 1], "no real picture was judged"),
    ],
)
@pytest.mark.parametrize("padding", [None, 0])
def test_degenerate_readers_are_not_estimable_and_say_why(noise, signal, words, padding):
    found = meta_d_prime(noise, signal, padding=padding)
    for estimate in (found.meta_d_prime, found.m_ratio):
        assert (estimate.estimate, estimate.ci_low) == (None, None)
        assert words in estimate.reason


def test_no_table_however_thin_gives_a_number_that_is_none():
    rng = np.random.default_rng(11)
    for _ in range(40):
        k, concentration = int(rng.integers(1, 4)), rng.choice([0.2, 1, 3])
        noise, signal = (
            rng.multinomial(rng.choice([1, 6, 30]), rng.dirichlet([concentration] * 2 * k))
            for _ in range(2)
        )
        found = [
            type_2_auc(noise, signal),
            type_2_auc_padded(noise, signal),
            meta_d_prime(noise, signal),
            meta_d_prime(noise, signal, padding=0, fixed_criterion="absolute"),
        ]
        for one in found:
            assert np.isfinite(list(every_number(one))).all()
            assert not any(isinstance(x, float) and math.isnan(x) for x in every_number(one))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: meta_d_prime([1, 2, 3], [1, 2, 3]), "not the same even number; give K of"),
        (lambda: meta_d_prime([1, 2], [1, 2, 3, 4]), "not the same even number"),
        (lambda: type_2_auc([1, -1], [1, 2]), "-1 real pictures with rating 2 is no count"),
        (lambda: meta_d_prime([1.125, 2], [1, 2]), "and give `padding` apart"),
        (lambda: meta_d_prime(NOISE, SIGNAL, padding=-1), "padding=-1; give 0, or a small number"),
        (lambda: meta_d_prime(NOISE, SIGNAL, confidence_level=95), r"a fraction such as 0\.95"),
    ],
)
def test_bad_counts_are_refused_with_advice(call, words):
    with pytest.raises(MetacognitionError, match=words):
        call()
