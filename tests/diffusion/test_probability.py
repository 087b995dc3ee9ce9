"""Calibrated posteriors against Bayes' rule on simulated scores."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import expit, log_softmax
from scipy.stats import norm

from diffusion.probability import (
    Evidence,
    PosteriorCalibration,
    damped,
    difference_of_scores,
    fit_posterior,
    log_odds,
)


class GaussianClasses:
    """K Gaussian classes whose log-likelihoods are known."""

    def __init__(self, n_classes=4, d=6, spread=0.7, seed=0):
        self.means = spread * np.random.default_rng(seed).normal(size=(n_classes, d))

    def sample(self, labels, seed):
        noise = np.random.default_rng(seed).normal(size=(len(labels), self.means.shape[1]))
        points = self.means[labels] + noise
        return -0.5 * np.square(points[:, None] - self.means).sum(axis=2)


CLASSES = GaussianClasses()


def balanced(n, n_classes=4):
    return np.arange(n) % n_classes


def log_loss(log_p, labels):
    return -log_p[np.arange(len(labels)), labels]


def plain(n_classes=3, **scales):
    row = "fused" if len(scales) == 2 else "head" if "head_scale" in scales else "generative"
    return PosteriorCalibration(row=row, class_bias=(0.0,) * n_classes, n_cells=1, **scales)


# Recovery.


def test_likelihoods_that_are_right_already_get_scale_one_and_no_bias():
    labels = balanced(8000)
    fitted = fit_posterior(Evidence(scores=CLASSES.sample(labels, 1)), labels, "generative")
    assert fitted.generative_scale == pytest.approx(1, abs=0.06)
    assert np.abs(fitted.class_bias).max() < 0.12
    assert fitted.head_scale is None


@pytest.mark.parametrize("unit", [0.02, 1.0, 250.0])
def test_scale_and_biases_of_distorted_scores_are_recovered_in_any_unit(unit):
    labels = balanced(8000)
    bias = np.array([0.8, -0.3, 0.1, -0.6])
    scores = unit * (CLASSES.sample(labels, 2) - bias)
    fitted = fit_posterior(Evidence(scores=scores), labels, "generative")
    assert fitted.generative_scale * unit == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(fitted.class_bias, bias, atol=0.12)


def test_two_independent_views_of_a_cell_are_added():
    labels = balanced(8000)
    scores, head = CLASSES.sample(labels, 3), CLASSES.sample(labels, 4)
    evidence = Evidence(scores=50 * scores, head=log_softmax(2 * head, axis=1))
    fitted = fit_posterior(evidence, labels, "fused")
    assert fitted.generative_scale * 50 == pytest.approx(1, abs=0.07)
    assert fitted.head_scale * 2 == pytest.approx(1, abs=0.07)
    losses = {
        row: log_loss(fit_posterior(evidence, labels, row).log_probabilities(evidence), labels)
        for row in ("head", "generative", "fused")
    }
    assert losses["fused"].mean() < 0.8 * min(losses["head"].mean(), losses["generative"].mean())


def test_a_view_that_knows_nothing_gets_no_weight():
    labels = balanced(8000)
    noise = np.random.default_rng(5).normal(size=(8000, 4))
    evidence = Evidence(scores=CLASSES.sample(labels, 5), head=log_softmax(noise, axis=1))
    fitted = fit_posterior(evidence, labels, "fused")
    assert fitted.head_scale < 0.06
    assert fitted.generative_scale == pytest.approx(1, abs=0.06)


def test_showing_one_class_five_times_as_often_leaves_the_fit_where_it_was():
    labels = balanced(2000)
    scores = CLASSES.sample(labels, 6)
    often = np.concatenate([np.arange(2000), *[np.flatnonzero(labels == 2)] * 4])
    once = fit_posterior(Evidence(scores=scores), labels, "generative")
    five = fit_posterior(Evidence(scores=scores[often]), labels[often], "generative")
    assert five.generative_scale == pytest.approx(once.generative_scale, rel=0.01)
    np.testing.assert_allclose(five.class_bias, once.class_bias, atol=0.01)


def test_the_bias_of_few_cells_is_pulled_to_zero():
    labels = balanced(40_000)
    scores = CLASSES.sample(labels, 7) + np.array([3.0, 0, 0, 0])
    sizes = [
        abs(fit_posterior(Evidence(scores=scores[:n]), labels[:n], "generative").class_bias[0])
        for n in (12, 40_000)
    ]
    assert sizes[1] == pytest.approx(3 * 3 / 4, abs=0.1)
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_classes_that_never_overlap_get_a_finite_scale(unit):
    labels = balanced(400)
    scores = unit * (np.eye(4)[labels] + 0.1 * np.random.default_rng(8).random((400, 4)))
    fitted = fit_posterior(Evidence(scores=scores), labels, "generative")
    wrong = -np.expm1(-log_loss(fitted.log_probabilities(Evidence(scores=scores)), labels))
    # 400 cells without an error: between a hundredth and ten times one error in 400.
    assert 0.01 / 400 < wrong.mean() < 10 / 400


def test_scores_that_are_all_alike_leave_equal_probabilities():
    evidence = Evidence(scores=np.zeros((40, 4)))
    fitted = fit_posterior(evidence, balanced(40), "generative")
    np.testing.assert_allclose(np.exp(fitted.log_probabilities(evidence)), 0.25, atol=1e-6)


# The Monte-Carlo error.


@pytest.mark.parametrize("error", [0.3, 1.0, 3.0])
def test_damping_is_the_mean_of_the_logistic_function_under_the_normal(error):
    for difference in (-6.0, -2.0, -0.5):
        mean, _ = quad(lambda z, d=difference: norm.pdf(z) * expit(d + error * z), -12, 12)
        value = damped(1.0, np.array([[difference]]), np.array([[error]])).value
        assert expit(value[0, 0]) == pytest.approx(mean, abs=0.02)


def test_no_scale_makes_a_difference_count_more_than_its_standard_errors_bear():
    value = damped(1e9, np.array([[-2.0]]), np.array([[1.0]])).value[0, 0]
    assert value == pytest.approx(-2 * np.sqrt(8 / np.pi))


def test_the_slope_in_the_scale_is_the_derivative():
    differences, errors = np.array([[-3.0, -0.7]]), np.array([[2.0, 0.1]])
    error = check_grad(
        lambda b: damped(float(b[0]), differences, errors).value.sum(),
        lambda b: damped(float(b[0]), differences, errors).slope.sum(keepdims=True)[0],
        np.array([0.8]),
    )
    assert error < 1e-6


def noisy_scores(n, seed):
    """Exact log-likelihoods with a Monte-Carlo error of their own for each image; one of them."""
    labels, rng = balanced(n), np.random.default_rng(seed)
    exact = CLASSES.sample(labels, seed)
    size = rng.choice([0.1, 6.0], size=(n, 1))
    noisy = exact + size * rng.normal(size=exact.shape)
    errors = np.repeat(np.sqrt(2) * size, 4, axis=1)
    errors[np.arange(n), noisy.argmax(axis=1)] = 0
    return noisy, errors, labels


def test_probabilities_that_know_the_error_of_their_scores_are_better_by_far():
    losses = {}
    for knows in (True, False):
        scores, errors, labels = noisy_scores(4000, 10)
        known = Evidence(scores=scores, standard_errors=errors if knows else None)
        fitted = fit_posterior(known, labels, "generative")
        scores, errors, labels = noisy_scores(8000, 11)
        new = Evidence(scores=scores, standard_errors=errors if knows else None)
        losses[knows] = log_loss(fitted.log_probabilities(new), labels)
    gain = losses[False] - losses[True]
    assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))
    assert gain.mean() > 0.05


# Prior and candidates.


def test_another_prior_put_in_gives_the_posterior_of_bayes():
    labels = balanced(8000)
    fitted = fit_posterior(Evidence(scores=CLASSES.sample(labels, 12)), labels, "generative")
    prior = np.array([0.7, 0.2, 0.05, 0.05])
    scores = CLASSES.sample(np.zeros(500, dtype=int), 13)
    log_p = fitted.log_probabilities(Evidence(scores=scores), log_prior=np.log(prior))
    bayes = np.exp(log_softmax(scores + np.log(prior), axis=1))
    assert np.abs(np.exp(log_p) - bayes).max() < 0.04


def test_posterior_odds_are_evidence_times_prior_odds_also_with_monte_carlo_error():
    evidence = Evidence(
        scores=np.array([[3.0, 1.0, 0.0]]), standard_errors=np.array([[0.0, 2.0, 2.0]])
    )
    log_prior = np.array([0.0, 2.0, -1.0])
    calibration = plain(generative_scale=1.3)
    alone = calibration.log_probabilities(evidence)[0]
    both = calibration.log_probabilities(evidence, log_prior=log_prior)[0]
    assert (both - alone)[0] - (both - alone)[1] == pytest.approx(log_prior[0] - log_prior[1])


def test_declared_candidates_share_all_the_probability_in_the_same_proportions():
    evidence = Evidence(scores=CLASSES.sample(balanced(5), 14))
    calibration = plain(4, generative_scale=1.0)
    everyone = np.exp(calibration.log_probabilities(evidence))
    declared = np.exp(calibration.log_probabilities(evidence, candidates=[3, 1]))
    assert (declared[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(declared.sum(axis=1), 1)
    np.testing.assert_allclose(declared[:, 3] / declared[:, 1], everyone[:, 3] / everyone[:, 1])


def test_errors_against_a_class_that_is_no_candidate_add_up():
    evidence = Evidence(
        scores=np.array([[5.0, 2.0, 1.0]]), standard_errors=np.array([[0.0, 0.3, 0.4]])
    )
    log_p = plain(generative_scale=1.0).log_probabilities(evidence, candidates=[1, 2])[0]
    expected = damped(1.0, np.array([[-1.0]]), np.array([[0.7]])).value[0, 0]
    assert log_p[2] - log_p[1] == pytest.approx(expected)
    difference, error = difference_of_scores(evidence, 1, 2)
    assert (difference[0], error[0]) == pytest.approx((1.0, 0.7))


def test_the_order_of_the_classes_only_reorders_the_answer():
    scores, errors, labels = noisy_scores(600, 15)
    turn = np.array([2, 0, 3, 1])  # new column j is old column turn[j]
    head = log_softmax(CLASSES.sample(labels, 16), axis=1)
    straight = Evidence(scores=scores, standard_errors=errors, head=head)
    turned = Evidence(scores=scores[:, turn], standard_errors=errors[:, turn], head=head[:, turn])
    one = fit_posterior(straight, labels, "fused").log_probabilities(straight)
    other = fit_posterior(turned, np.argsort(turn)[labels], "fused").log_probabilities(turned)
    np.testing.assert_allclose(other, one[:, turn], atol=1e-3)


# Classes without a score.


def test_nothing_but_the_head_speaks_against_a_class_that_was_pruned():
    evidence = Evidence(
        scores=np.array([[4.0, 1.0, np.nan]]),
        standard_errors=np.array([[0.0, 2.0, np.nan]]),
        head=np.log([[0.7, 0.25, 0.05]]),
    )
    log_p = plain(generative_scale=1.0, head_scale=0.5).log_probabilities(evidence)[0]
    assert log_p[2] - log_p[0] == pytest.approx(0.5 * np.log(0.05 / 0.7))


def test_a_pruned_class_never_overtakes_those_that_were_looked_at():
    rng = np.random.default_rng(9)
    head = log_softmax(3 * rng.normal(size=(500, 5)), axis=1)
    is_kept = head >= np.sort(head, axis=1)[:, [-2]]
    evidence = Evidence(scores=np.where(is_kept, 9 * rng.normal(size=(500, 5)), np.nan), head=head)
    best = plain(5, generative_scale=2.0, head_scale=0.1).log_probabilities(evidence).argmax(axis=1)
    assert is_kept[np.arange(500), best].all()


def test_an_eliminated_class_keeps_what_it_was_eliminated_with():
    evidence = Evidence(scores=np.array([[0.0, -1.0, -30.0]]))
    log_p = plain(generative_scale=0.5).log_probabilities(evidence)[0]
    assert log_p[2] - log_p[0] == pytest.approx(-15)


def pruned(n, seed, below=0.02):
    """Evidence without the scores of classes that the head gives less, and the true classes."""
    labels = balanced(n)
    head = log_softmax(CLASSES.sample(labels, seed), axis=1)
    scores = CLASSES.sample(labels, seed + 1)
    return Evidence(scores=np.where(head > np.log(below), scores, np.nan), head=head), labels


def test_a_fit_on_pruned_images_is_calibrated_for_pruned_images():
    evidence, labels = pruned(6000, 20)
    fitted = fit_posterior(evidence, labels, "fused")
    new, truth = pruned(6000, 30)
    log_p = fitted.log_probabilities(new)
    confidence, is_right = np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == truth
    assert confidence.mean() == pytest.approx(is_right.mean(), abs=0.015)


def test_counting_nothing_against_a_pruned_class_beats_the_lowest_score():
    def with_lowest(evidence):
        lowest = np.nanmin(evidence.scores, axis=1, keepdims=True)
        filled = np.where(np.isnan(evidence.scores), lowest, evidence.scores)
        return Evidence(scores=filled, head=evidence.head)

    evidence, labels = pruned(20_000, 20, below=0.1)
    new, truth = pruned(20_000, 30, below=0.1)
    nothing = fit_posterior(evidence, labels, "fused").log_probabilities(new)
    fitted = fit_posterior(with_lowest(evidence), labels, "fused")
    gain = log_loss(fitted.log_probabilities(with_lowest(new)), truth) - log_loss(nothing, truth)
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


# Log-odds.


def test_log_odds_are_those_of_the_probabilities():
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=20)
    np.testing.assert_allclose(log_odds(np.log(p)), np.log(p / (1 - p)))


def test_log_odds_tell_apart_probabilities_that_are_one_in_floating_point():
    log_p = log_softmax(np.array([[0.0, -50, -60], [0.0, -70, -80]]), axis=1)
    assert (np.exp(log_p)[:, 0] == 1).all()
    np.testing.assert_allclose(log_odds(log_p)[:, 0], [50, 70], atol=1e-3)


def test_log_odds_are_finite_also_without_a_rival():
    odds = log_odds(np.array([[0.0, -np.inf, -np.inf]]))
    np.testing.assert_array_equal(odds, [[1e6, -1e6, -1e6]])


# What is stored, and refusals.


def test_a_calibration_survives_json():
    labels = balanced(80)
    fitted = fit_posterior(Evidence(scores=CLASSES.sample(labels, 1)), labels, "generative")
    assert PosteriorCalibration.model_validate_json(fitted.model_dump_json()) == fitted


@pytest.mark.parametrize(
    "fields",
    [
        {"row": "fused", "generative_scale": 1.0},
        {"row": "head", "generative_scale": 1.0, "head_scale": 1.0},
        {"row": "generative", "head_scale": 1.0},
    ],
)
def test_scales_of_other_evidence_than_the_rows_are_refused(fields):
    with pytest.raises(ValidationError, match="scales of its own evidence and no other"):
        PosteriorCalibration(class_bias=(0.0, 0.0), n_cells=1, **fields)


GIVEN = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "There is no evidence"),
        ({"scores": GIVEN, "head": GIVEN[:, :2]}, r"shapes \(2, 3\), \(2, 2\)"),
        ({"scores": GIVEN[0]}, r"give \(images, classes\)"),
        ({"scores": GIVEN, "standard_errors": GIVEN - 1}, "finite and not negative"),
        ({"scores": GIVEN, "standard_errors": GIVEN * np.nan}, "standard_errors=None for all"),
        ({"head": GIVEN, "standard_errors": GIVEN}, "standard_errors=None for all"),
        ({"scores": GIVEN - np.inf}, "mark a class without a score with NaN"),
        ({"head": GIVEN - np.inf}, "give its log-softmax"),
    ],
)
def test_evidence_that_does_not_hold_together_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Evidence(**fields)


@pytest.mark.parametrize(
    ("calibration", "evidence", "options", "words"),
    [
        (plain(head_scale=1.0), Evidence(scores=GIVEN), {}, "needs the head's log-prob"),
        (plain(generative_scale=1.0), Evidence(head=GIVEN), {}, "needs generative scores"),
        (plain(4, head_scale=1.0), Evidence(head=GIVEN), {}, "3 classes for a calibration of 4"),
        (
            plain(generative_scale=1.0),
            Evidence(scores=np.array([[0.0, 1.0, np.nan]])),
            {},
            "let no head prune them",
        ),
        (
            plain(generative_scale=1.0, head_scale=1.0),
            Evidence(scores=np.array([[0.0, np.nan, np.nan]]), head=GIVEN[:1]),
            {"candidates": [1, 2]},
            "no scored candidate",
        ),
        (plain(head_scale=1.0), Evidence(head=GIVEN), {"candidates": [1]}, "at least two differ"),
        (plain(head_scale=1.0), Evidence(head=GIVEN), {"candidates": [1, 1]}, "two different"),
        (plain(head_scale=1.0), Evidence(head=GIVEN), {"candidates": [1, 3]}, "classes of 0 to 2"),
    ],
)
def test_evidence_that_does_not_fit_the_row_is_refused(calibration, evidence, options, words):
    with pytest.raises(ValueError, match=words):
        calibration.log_probabilities(evidence, **options)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 1], "No calibration cell of class 2"),
        ([0, 1], "2 labels for 3 cells"),
        ([0, 1, 3], "from 0 to 3 for 3 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        fit_posterior(Evidence(scores=np.zeros((3, 3))), np.array(labels), "generative")


def test_the_difference_of_scores_needs_scores():
    with pytest.raises(ValueError, match="no generative scores"):
        difference_of_scores(Evidence(head=GIVEN), 0, 1)
