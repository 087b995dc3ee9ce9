"""Calibration errors and coverage, on probabilities whose calibration is known."""

import json
import sys

import numpy as np
import pytest
from scipy.special import log_softmax

from diffusion.probability import Evidence
from studies.proportions import wilson
from training.reliability import (
    calibrated_on,
    calibration_of,
    equal_mass_bins,
    expected_calibration_error,
    reliability_figure,
    reliability_table,
    repeated_halves,
)

BY_HAND = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
LABELS_BY_HAND = np.array([0, 1, 1, 1])


def drawn(n, seed, *, sharpness=1.0, n_classes=8, strength=8.0):
    """Probabilities and the classes drawn from them before they were sharpened."""
    rng = np.random.default_rng(seed)
    logits = strength * rng.normal(size=(n, n_classes))
    truth = np.exp(log_softmax(logits, axis=1))
    labels = (truth.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return np.exp(log_softmax(sharpness * logits, axis=1)), labels


def calibration(probabilities, labels, **options):
    return calibration_of(probabilities, labels, rng=np.random.default_rng(0), **options)


# By hand.


def test_brier_score_and_log_loss_are_those_by_hand():
    found = calibration(BY_HAND, LABELS_BY_HAND)
    assert found.brier.estimate == pytest.approx((0.02 + 1.28 + 0.18 + 0.32) / 4)
    assert found.nll.estimate == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.6]).mean())
    assert found.brier.n == 4


def test_calibration_errors_are_those_by_hand():
    # Two bins by confidence: 0.6, 0.7 (both right) and 0.8, 0.9 (one right).
    assert expected_calibration_error(BY_HAND, LABELS_BY_HAND, n_bins=2) == pytest.approx(
        0.5 * abs(1 - 0.65) + 0.5 * abs(0.5 - 0.85)
    )
    found = calibration(BY_HAND, LABELS_BY_HAND, n_bins=2)
    assert found.ece.estimate == pytest.approx(0.35)
    # Class 0: bins {0.3, 0.4} none true, {0.8, 0.9} one true; class 1 mirrors it.
    assert found.classwise_ece.estimate == pytest.approx(0.5 * 0.35 + 0.5 * 0.35)


def test_the_table_holds_wilsons_intervals():
    first, second = reliability_table(BY_HAND, LABELS_BY_HAND, n_bins=2)
    assert (first.confidence, second.confidence) == pytest.approx((0.65, 0.85))
    assert first.accuracy == wilson(2, 2)
    assert second.accuracy == wilson(1, 2)


def test_bins_hold_equally_many_cells():
    bins = equal_mass_bins(np.random.default_rng(0).random(1500), 15)
    assert np.bincount(bins).tolist() == [100] * 15


def test_cells_of_equal_confidence_share_a_bin():
    bins = equal_mass_bins(np.array([1.0, 0.2, 1.0, 1.0, 1.0, 0.4]), 3)
    assert len(set(bins[[0, 2, 3, 4]])) == 1
    assert bins[1] < bins[0]


# Simulated.


def test_calibrated_probabilities_have_a_small_error_and_an_interval_down_to_nothing():
    covered = []
    for seed in range(20):
        found = calibration(*drawn(1700, seed), n_resamples=200)
        covered.append(found.ece.ci_low <= 1e-3 <= found.ece.ci_high)
        assert found.ece_debiased < found.ece.estimate < 0.035
    assert np.mean(covered) >= 0.9


def test_sharpened_probabilities_are_found_out_and_their_true_error_covered():
    truth = expected_calibration_error(*drawn(200_000, 100, sharpness=2.0))
    covered = []
    for seed in range(20):
        found = calibration(*drawn(1700, seed, sharpness=2.0), n_resamples=200)
        assert found.ece.ci_low > 0.01
        assert found.classwise_ece.ci_low > 0
        covered.append(found.ece.ci_low <= truth <= found.ece.ci_high)
    assert np.mean(covered) >= 0.9


def test_the_debiased_error_is_nearer_to_a_small_true_one():
    truth = expected_calibration_error(*drawn(200_000, 101, sharpness=1.2))
    found = [calibration(*drawn(1700, seed, sharpness=1.2), n_resamples=1) for seed in range(30)]
    plain = np.mean([one.ece.estimate for one in found]) - truth
    debiased = np.mean([one.ece_debiased for one in found]) - truth
    assert plain > 0
    assert abs(debiased) < plain


def test_intervals_of_the_log_loss_cover_the_truth():
    truth = calibration(*drawn(200_000, 102), n_resamples=1).nll.estimate
    found = [calibration(*drawn(400, seed), n_resamples=100).nll for seed in range(80)]
    assert np.mean([one.ci_low <= truth <= one.ci_high for one in found]) >= 0.87


def test_the_same_generator_gives_the_same_intervals():
    assert calibration(*drawn(200, 0)) == calibration(*drawn(200, 0))
    json.dumps(calibration(*drawn(200, 0)).as_json(), allow_nan=False)


# Random halves.

COUNTS = [60, 150, 80, 140, 56, 74, 166, 120]


def cells(seed, strength=5.0):
    """Scores in a unit of their own and a head, of classes in unequal numbers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(8), COUNTS)
    views = []
    for _ in range(2):
        logits = strength * (rng.normal(size=(len(labels), 8)) / 2.8 + np.eye(8)[labels])
        views.append(logits)
    return Evidence(scores=40 * views[0], head=log_softmax(0.6 * views[1], axis=1)), labels


@pytest.fixture(scope="module")
def halves():
    evidence, labels = cells(0)
    calibrate = calibrated_on(evidence, labels, "fused")
    return repeated_halves(calibrate, labels, rng=np.random.default_rng(1), n_halves=60)


def test_sets_of_a_strong_classifier_hold_the_true_class_at_their_level(halves):
    assert 0.885 <= halves.coverage.mean <= 0.915
    assert 0.885 <= halves.classwise_coverage.mean <= 0.915


def test_classwise_sets_do_in_every_class(halves):
    coverage = [one.mean for one in halves.classwise_coverage_by_class]
    assert len(coverage) == 8
    assert all(0.885 <= c <= 0.915 for c in coverage)


def test_its_sets_are_empty_now_and_then_and_those_shown_cover_more(halves):
    assert halves.set_size.mean < 1
    assert halves.empty.mean > 0.05
    assert halves.shown_coverage.mean > 0.95
    assert halves.shown_set_size.mean >= 1


def test_its_probabilities_are_calibrated(halves):
    assert halves.ece.mean <= 0.015
    assert halves.ece.low < halves.ece.mean < halves.ece.high


def test_the_table_names_every_class(halves):
    names = tuple("abcdefgh")
    table = halves.as_table(names)
    assert [str(cell).strip() for cell in table.columns[0].cells][1:9] == list(names)
    json.dumps(halves.as_json(), allow_nan=False)


def test_uncalibrated_probabilities_show_in_the_error_but_not_in_the_coverage():
    evidence, labels = cells(2)
    sharp = log_softmax(evidence.scores, axis=1)
    found = repeated_halves(lambda _: sharp, labels, rng=np.random.default_rng(3), n_halves=40)
    fitted = repeated_halves(
        calibrated_on(evidence, labels, "generative"),
        labels,
        rng=np.random.default_rng(3),
        n_halves=40,
    )
    assert 0.885 <= found.coverage.mean <= 0.915
    assert found.ece.mean > 2 * fitted.ece.mean


def test_halves_hold_half_of_each_class_and_each_half_is_tested_once():
    labels = np.repeat(np.arange(3), [10, 7, 2])
    seen = []

    def calibrate(chosen):
        seen.append(chosen)
        return np.log(np.full((19, 3), 1 / 3))

    repeated_halves(calibrate, labels, rng=np.random.default_rng(0), n_halves=8)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert sorted([*first, *second]) == list(range(19))
        assert np.bincount(labels[first])[[0, 2]].tolist() == [5, 1]
        assert np.bincount(labels[first])[1] in (3, 4)
    assert len({tuple(chosen) for chosen in seen}) > 2


def test_aps_sets_hold_the_true_class_at_their_level():
    evidence, labels = cells(4, strength=3.0)
    found = repeated_halves(
        calibrated_on(evidence, labels, "head"),
        labels,
        rng=np.random.default_rng(5),
        n_halves=30,
        method="aps",
        level=0.8,
    )
    assert found.coverage.mean == pytest.approx(0.8, abs=0.015)


# The figure.


def test_the_figure_has_a_panel_for_each_table(tmp_path):
    tables = {
        "head": reliability_table(*drawn(1700, 0)),
        "fused": reliability_table(*drawn(1700, 1, sharpness=2.0)),
    }
    figure = reliability_figure(tables)
    figure.savefig(tmp_path / "reliability.png")
    assert [axes.get_title() for axes in figure.axes] == ["head", "fused"]
    (_, points) = figure.axes[0].get_lines()
    assert len(points.get_xdata()) == len(tables["head"])


def test_without_matplotlib_the_figure_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[studies\]'"):
        reliability_figure({"head": reliability_table(BY_HAND, LABELS_BY_HAND)})


# Refusals.


def test_a_class_with_a_single_cell_is_refused():
    with pytest.raises(ValueError, match="Class 1 has 1 cells; halving takes two of each"):
        repeated_halves(lambda _: BY_HAND[:3], np.array([0, 0, 1]), rng=np.random.default_rng(0))


def test_an_odd_number_of_halves_is_refused():
    with pytest.raises(ValueError, match="n_halves=7; give an even number"):
        repeated_halves(lambda _: BY_HAND, LABELS_BY_HAND, rng=np.random.default_rng(0), n_halves=7)


def test_logarithms_in_place_of_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"give np\.exp of log-probabilities"):
        calibration(np.log(BY_HAND), LABELS_BY_HAND)
