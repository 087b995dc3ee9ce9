"""The truth comes from detection theory: Macmillan & Creelman (2005), chapters 1, 7 and 9."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from studies.stimuli import Stimulus
from webapp.observers import Observer

N = 20_000
CLASSES = ("basophil", "eosinophil", "lymphocyte", "monocyte")
RESPONSES = {
    "authenticity": ("real", "generated"),
    "pair": ("left", "right"),
    "classification": CLASSES,
    "quality": ("1", "2", "3", "4", "5"),
}


def picture(is_synthetic, class_name="monocyte"):
    return Stimulus(
        stimulus_id="ab" * 8,
        file="ab" * 8 + ".png",
        class_name=class_name,
        is_synthetic=is_synthetic,
        source_digest="0" * 64,
    )


REAL, GENERATED = picture(False), picture(True)


def answers(observer, design, *stimuli, n=N, **options):
    rng = np.random.default_rng(0)
    points = 0 if design == "quality" else 6
    return [
        observer.judge(design, stimuli, RESPONSES[design], points, rng, **options) for _ in range(n)
    ]


def share(found, response):
    return np.mean([said == response for said, _ in found])


def sure(**changes):
    return Observer(**{"lapse_rate": 0.0} | changes)


@pytest.mark.parametrize(
    ("d_prime", "criterion"), [(0.0, 0.0), (1.0, 0.0), (1.5, 0.4), (1.0, -0.7)]
)
def test_the_observer_has_the_sensitivity_and_criterion_it_was_given(d_prime, criterion):
    z, observer = NormalDist().inv_cdf, sure(d_prime=d_prime, criterion=criterion)
    hit, false_alarm = (
        share(answers(observer, "authenticity", shown), "generated") for shown in (GENERATED, REAL)
    )
    # Four standard errors of a z-transformed rate of 20,000 trials.
    assert z(hit) - z(false_alarm) == pytest.approx(d_prime, abs=0.06)
    assert -(z(hit) + z(false_alarm)) / 2 == pytest.approx(criterion, abs=0.04)


@pytest.mark.parametrize("criterion", [0.0, 1.5])
def test_of_a_pair_the_real_one_is_found_as_theory_says_whatever_the_criterion(criterion):
    observer = sure(d_prime=1.0, criterion=criterion)
    expected = norm.cdf(1 / np.sqrt(2))
    assert share(answers(observer, "pair", REAL, GENERATED), "left") == pytest.approx(
        expected, abs=0.013
    )
    assert share(answers(observer, "pair", GENERATED, REAL), "right") == pytest.approx(
        expected, abs=0.013
    )


def test_of_four_classes_the_right_one_is_named_as_theory_says():
    expected, _ = quad(lambda x: norm.pdf(x - 1.5) * norm.cdf(x) ** 3, -8, 10)
    found = answers(sure(class_d_prime=1.5), "classification", picture(True, "eosinophil"))
    assert share(found, "eosinophil") == pytest.approx(expected, abs=0.014)


def test_real_pictures_are_rated_better_by_the_sensitivity():
    real, generated = (
        [int(said) for said, _ in answers(sure(d_prime=1.0), "quality", shown)]
        for shown in (REAL, GENERATED)
    )
    # The edges 0.2 … 0.8 of a standard normal, seen from half the sensitivity away.
    cuts = norm.ppf([0.2, 0.4, 0.6, 0.8])
    assert np.mean(real) == pytest.approx(1 + norm.sf(cuts - 0.5).sum(), abs=0.04)
    assert np.mean(generated) == pytest.approx(1 + norm.sf(cuts + 0.5).sum(), abs=0.04)


@pytest.mark.parametrize("design", RESPONSES)
def test_who_always_lapses_takes_any_answer_however_sensitive(design):
    stimuli = (REAL, GENERATED) if design == "pair" else (REAL,)
    observer = Observer(d_prime=5, class_d_prime=5, lapse_rate=1)
    found = answers(observer, design, *stimuli, n=6000)
    for response in RESPONSES[design]:
        assert share(found, response) == pytest.approx(1 / len(RESPONSES[design]), abs=0.026)


def test_an_attention_check_is_missed_by_lapses_alone():
    blind = Observer(d_prime=0, criterion=2, lapse_rate=0.1)
    found = answers(blind, "authenticity", GENERATED, is_obvious=True)
    assert share(found, "real") == pytest.approx(0.05, abs=0.01)


def test_confidence_uses_the_whole_scale_and_goes_with_being_right():
    for design, right, shown in (
        ("authenticity", "generated", (GENERATED,)),
        ("pair", "left", (REAL, GENERATED)),
        ("classification", "monocyte", (GENERATED,)),
    ):
        found = answers(sure(class_d_prime=1.0), design, *shown)
        rates = [np.mean([a == right for a, sure in found if sure == c]) for c in range(1, 7)]
        assert rates == sorted(rates), design


def test_without_sensitivity_each_confidence_is_equally_frequent():
    found = [sure for _, sure in answers(sure(d_prime=0), "authenticity", REAL)]
    assert np.bincount(found, minlength=7)[1:] / N == pytest.approx(np.full(6, 1 / 6), abs=0.011)


def test_confidence_noise_takes_the_meaning_from_confidence_and_leaves_the_answers():
    clear = sure(d_prime=1.5)
    noisy = replace(clear, confidence_noise=50.0)
    given, blurred = (answers(o, "authenticity", GENERATED) for o in (clear, noisy))
    assert [said for said, _ in given] == [said for said, _ in blurred]
    right = np.array([said == "generated" for said, _ in given])
    assert np.corrcoef(right, [sure for _, sure in given])[0, 1] > 0.2
    assert abs(np.corrcoef(right, [sure for _, sure in blurred])[0, 1]) < 0.03


def test_a_rating_has_no_confidence():
    assert {sure for _, sure in answers(Observer(), "quality", REAL, n=200)} == {None}


def test_so_many_leave_as_was_said_and_anywhere():
    rng = np.random.default_rng(0)
    after = np.array([Observer(dropout=0.3).leaves_after(40, rng) for _ in range(N)])
    left = after[after < 40]
    assert len(left) / N == pytest.approx(0.3, abs=0.013)
    assert left.min() == 0
    assert left.mean() == pytest.approx(19.5, abs=0.6)
    assert sure().leaves_after(40, rng) == 40
