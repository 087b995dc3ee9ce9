"""Anomaly makers: what they change and what they leave."""

import numpy as np
import pytest

from training.corruptions import (
    blends,
    blurred,
    chimeras,
    drawn_pair,
    partners,
    stain_shifted,
)
from training.drawing import cell_mask, draw_cell

CELLS = np.stack(
    [draw_cell(name, seed) for seed in range(2) for name in ("eosinophil", "lymphocyte")]
)
LABELS = np.array([0, 1, 0, 1])
OTHERS = CELLS[[1, 0, 3, 2]]


def rng(seed=0):
    return np.random.default_rng(seed)


MAKERS = {
    "blur": lambda images: blurred(images, 1.5),
    "stain": stain_shifted,
    "chimera": lambda images: chimeras(images, OTHERS, rng()),
    "blend": lambda images: blends(images, OTHERS),
}


@pytest.mark.parametrize("name", MAKERS)
def test_anomalies_are_images_of_the_same_shape_made_alike_each_time(name):
    before = CELLS.copy()
    made = MAKERS[name](CELLS)
    assert made.dtype == np.uint8
    assert made.shape == CELLS.shape
    assert np.array_equal(made, MAKERS[name](CELLS))
    assert np.array_equal(CELLS, before)
    changed = np.abs(made.astype(int) - CELLS).max(axis=(1, 2, 3))
    assert (changed > 20).all()


def test_blur_keeps_the_mean_and_takes_away_detail():
    made = blurred(CELLS, 2.0).astype(float)
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), CELLS.mean(axis=(1, 2, 3)), atol=2)
    detail = np.abs(np.diff(CELLS.astype(float), axis=2)).mean()
    assert np.abs(np.diff(made, axis=2)).mean() < 0.5 * detail


def test_blur_does_not_mix_images_or_colours():
    one = np.zeros((2, 9, 9, 3), np.uint8)
    one[0, 4, 4, 1] = 255
    made = blurred(one, 1.0)
    assert made[1].max() == made[:, :, :, [0, 2]].max() == 0
    assert 0 < made[0, 4, 4, 1] < 255


def test_a_stain_shift_of_nothing_is_nothing():
    assert np.array_equal(stain_shifted(CELLS, degrees=0, gain=1), CELLS)


def test_a_stain_shift_leaves_empty_ground_and_the_hue_of_grey():
    white = np.full((1, 2, 2, 3), 255, np.uint8)
    assert (stain_shifted(white, degrees=40, gain=1.5) == 255).all()
    grey = np.full((1, 2, 2, 3), 100, np.uint8)
    assert (stain_shifted(grey, degrees=40, gain=1) == 100).all()


def test_gain_multiplies_the_optical_density():
    images = np.full((1, 1, 1, 3), 127, np.uint8)
    assert stain_shifted(images, degrees=0, gain=2).tolist() == [[[[63, 63, 63]]]]


def test_a_third_of_a_full_turn_exchanges_the_colours():
    images = np.array([[[[200, 120, 60]]]], dtype=np.uint8)
    turned = stain_shifted(images, degrees=120, gain=1)[0, 0, 0]
    assert sorted(turned.tolist()) == [60, 120, 200]
    assert turned.tolist() != [200, 120, 60]


def test_partners_are_always_of_another_class_and_drawn_evenly():
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    drawn = np.stack([partners(labels, rng(seed)) for seed in range(200)])
    assert (labels[drawn] != labels).all()
    # For class 0: 20 of class 1, 10 of class 2.
    assert (labels[drawn[:, :30]] == 1).mean() == pytest.approx(2 / 3, abs=0.02)


def test_partners_of_a_single_class_are_refused():
    with pytest.raises(ValueError, match="a mixture needs images of two"):
        partners(np.zeros(5, dtype=np.int64), rng())


def test_a_chimera_is_half_of_each():
    black, white = np.zeros((400, 33, 33, 3), np.uint8), np.full((400, 33, 33, 3), 255, np.uint8)
    made = chimeras(black, white, rng(), seam=1.0) / 255
    np.testing.assert_allclose(made.mean(axis=(1, 2, 3)), 0.5, atol=0.01)
    # The seam runs through the middle at any angle, and far from it one cell rules.
    np.testing.assert_allclose(made[:, 16, 16], 0.5, atol=0.01)
    assert ((made < 0.02) | (made > 0.98)).mean() > 0.8
    assert made[:, 16, 32, 0].mean() == pytest.approx(0.5, abs=0.1)


def test_a_wider_seam_is_softer():
    black, white = np.zeros((1, 33, 33, 3), np.uint8), np.full((1, 33, 33, 3), 255, np.uint8)
    steepest = [
        int(np.abs(np.diff(chimeras(black, white, rng(), seam=s).astype(int), axis=1)).max())
        for s in (1.0, 4.0)
    ]
    assert steepest[0] > 2 * steepest[1]


def test_a_blend_is_the_mean_of_both():
    made = blends(CELLS, OTHERS).astype(float)
    np.testing.assert_allclose(made, (CELLS.astype(float) + OTHERS) / 2, atol=0.5)
    mostly_first = blends(CELLS, OTHERS, share=0.9).astype(float)
    assert np.abs(mostly_first - CELLS).mean() < np.abs(made - CELLS).mean()


def test_a_drawn_pair_differs_in_the_cells_alone():
    pair = drawn_pair("eosinophil", "lymphocyte", 7)
    assert np.array_equal(pair.image, draw_cell("eosinophil", 7))
    assert np.array_equal(pair.counterfactual, draw_cell("lymphocyte", 7))
    cells = cell_mask("eosinophil", 7) | cell_mask("lymphocyte", 7)
    assert not (pair.mask & ~cells).any()
    assert 0.05 < pair.mask.mean() < 0.6
    outside = np.abs(pair.image.astype(int) - pair.counterfactual)[~cells]
    assert outside.max() == 0


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: blurred(CELLS, 0), "give a blur above 0 pixels"),
        (lambda: blurred(CELLS / 255, 1), "give uint8 RGB images"),
        (lambda: stain_shifted(CELLS, gain=0), "give a factor above 0"),
        (lambda: chimeras(CELLS, OTHERS, rng(), seam=0), "give a border softer than 0"),
        (lambda: blends(CELLS, OTHERS[:2]), "one partner of the same size for each image"),
        (lambda: blends(CELLS, OTHERS, share=1), "a share of the first image between 0 and 1"),
        (lambda: drawn_pair("ig", "ig", 0), "a pair needs two"),
    ],
)
def test_what_cannot_be_made_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words):
        attempt()
