import numpy as np
import pytest

from studies.forecasts import (
    CalibrationError,
    confidence_points,
    distinct_bins,
    equal_mass_bins,
    equal_width_bins,
    forecasts_of_chosen,
    forecasts_of_generated,
)
from tests.studies.test_calibration import calibrated


def test_bins_of_equal_width_are_closed_on_the_right():
    p = [0, 0.1, 0.1000001, 0.2, 0.95, 1]
    assert equal_width_bins(p, 10).index.tolist() == [0, 0, 1, 1, 9, 9]


@pytest.mark.parametrize("n_bins", [2, 3, 7, 10, 15, 20, 100])
def test_every_edge_belongs_to_the_bin_below_it(n_bins):
    edges = np.arange(1, n_bins + 1) / n_bins
    for forecasts in (edges, 1 - (1 - edges), edges + 1e-12, edges - 1e-12):
        index = equal_width_bins(np.clip(forecasts, 0, 1), n_bins).index
        assert index.tolist() == list(range(n_bins))


def test_a_mirrored_forecast_with_a_rounding_error_stays_in_its_bin():
    # 1 − 0.7 = 0.30000000000000004 in floating point.
    index = equal_width_bins([0.3, 1 - 0.7], 10).index
    assert index[0] == index[1] == 2
    assert distinct_bins([0.3, 1 - 0.7]).n_bins == 1


def test_bins_may_span_the_range_of_the_chosen_answer_only():
    bins = equal_width_bins([0.5, 0.6, 0.75, 1], 4, lowest=0.5)
    assert bins.index.tolist() == [0, 0, 1, 3]
    assert bins.edges == pytest.approx((0.5, 0.625, 0.75, 0.875, 1))
    with pytest.raises(CalibrationError, match=r"forecast 2 is 0\.4, outside the bins from 0\.5"):
        equal_width_bins([0.5, 0.4], 4, lowest=0.5)


def test_bins_of_equal_mass_hold_as_many_each_and_keep_ties_together():
    p, _ = calibrated(1000)
    assert np.bincount(equal_mass_bins(p, 10).index).tolist() == [100] * 10
    tied = equal_mass_bins([0.5] * 90 + [0.9] * 10, 10)
    assert tied.n_bins == 2
    assert np.bincount(tied.index).tolist() == [90, 10]
    assert tied.edges == (0.5, 0.5, 0.9)


def test_the_edges_of_any_bins_hold_their_forecasts():
    p = np.round(calibrated(300)[0], 2)
    for bins in (equal_width_bins(p, 7), equal_mass_bins(p, 7), distinct_bins(p)):
        edges = np.array(bins.edges)
        low, high = edges[bins.index], edges[bins.index + 1]
        assert ((p <= high + 1e-9) & ((p > low - 1e-9) | (bins.index == 0))).all()
        assert len(np.unique(bins.index)) <= bins.n_bins


def test_points_lie_equally_spaced_from_a_guess_to_certainty():
    assert confidence_points(6).tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert confidence_points(3, lowest=0.55, highest=0.95).tolist() == pytest.approx(
        [0.55, 0.75, 0.95]
    )


def test_an_answer_real_is_one_minus_its_confidence():
    found = forecasts_of_generated(
        [1, 0, 1, 0], [1, 1, 4, 4], [1, 1, 0, 0], points=[0.5, 0.6, 0.8, 1]
    )
    assert found.probabilities.tolist() == [0.5, 0.5, 1, 0]
    assert found.outcomes.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("confidence", "points", "words"),
    [
        ([1, 5], [0.5, 0.75, 1], "confidence 2 is 5, off the scale from 1 to 3"),
        ([1, 0], [0.5, 0.75, 1], "confidence 2 is 0, off the scale"),
        ([1, 1.5], [0.5, 0.75, 1], r"confidence 2 is 1\.5, off the scale"),
        ([1, np.nan], [0.5, 0.75, 1], "confidence 2 is nan, off the scale"),
        ([1, 1], [0.5, 0.4], "give an ascending probability for each answer"),
        ([1, 1], [0.5, 1.1], "are no confidence scale"),
        ([1, 1], [0.5], "are no confidence scale"),
    ],
)
def test_confidence_off_the_scale_is_refused_with_advice(confidence, points, words):
    with pytest.raises(CalibrationError, match=words):
        forecasts_of_chosen(confidence, [0, 1], points=points)
    with pytest.raises(CalibrationError, match=words):
        forecasts_of_generated([0, 1], confidence, [0, 1], points=points)


def test_a_scale_of_one_point_is_refused():
    with pytest.raises(CalibrationError, match=r"1 points from 0\.5 to 1 are no confidence scale"):
        confidence_points(1)
