import numpy as np
import pandas as pd
import pytest

from studies.krippendorff import krippendorff_alpha
from studies.weights import agreement_weights
from tests.studies.results import limits
from tests.studies.test_agreement import (
    CANONICAL,
    RAW_4_RATERS,
    RAW_5_OBSERVERS,
    RAW_BEN_GERRY,
    RAW_G1G2,
    RAW_GENDER,
    letters,
    noisy_ratings,
    value,
    without_dots,
)


@pytest.mark.parametrize(
    ("scale", "alpha"),
    [("nominal", 0.743421), ("ordinal", 0.815388), ("interval", 0.849107), ("ratio", 0.797403)],
)
def test_alpha_of_krippendorffs_matrix(scale, alpha):
    # statistics_cases.md F1; krippendorff's docstring.
    assert value(krippendorff_alpha(CANONICAL, scale=scale)) == pytest.approx(alpha, abs=5e-7)


@pytest.mark.parametrize(("scale", "alpha"), [("nominal", 0.691358), ("interval", 0.810845)])
def test_alpha_of_the_wikipedia_example(scale, alpha):
    # krippendorff's tests/test_krippendorff.py.
    coders = [
        [None] * 5 + [3, 4, 1, 2, 1, 1, 3, 3, None, 3],
        [1, None, 2, 1, 3, 3, 4, 3] + [None] * 7,
        [None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4],
    ]
    units = [list(unit) for unit in zip(*coders, strict=True)]
    assert value(krippendorff_alpha(units, scale=scale)) == pytest.approx(alpha, abs=5e-7)


def test_alpha_takes_own_distances_and_texts():
    # krippendorff's tests: absolute distance, and string labels.
    distance = np.abs(np.subtract.outer(np.arange(1, 5), np.arange(1, 5)))
    found = krippendorff_alpha([[1, 1], [2, 2], [3, 4]], scale=distance, categories=[1, 2, 3, 4])
    assert value(found) == pytest.approx(0.761905, abs=5e-7)
    labels = letters("pos neg neu .", "pos neg neu pos", "pos neg pos pos")
    found = krippendorff_alpha(without_dots(labels), scale="nominal")
    assert value(found) == pytest.approx(0.722222, abs=5e-7)


def test_ordinal_alpha_of_ordered_texts():
    names = ["very low", "low", "mid", "high", "very high"]
    texts = np.full(CANONICAL.shape, None, dtype=object)
    for level, name in enumerate(names, 1):
        texts[level == CANONICAL] = name
    found = krippendorff_alpha(texts, scale="ordinal", categories=names)
    assert value(found) == pytest.approx(0.815388, abs=5e-7)


def test_alpha_on_the_ratio_scale_takes_zeros():
    assert value(krippendorff_alpha([[0, 0], [1, 1], [2, 2]], scale="ratio")) == 1


@pytest.mark.parametrize(
    ("ratings", "weights", "estimate", "error", "low", "high"),
    [
        (RAW_4_RATERS, "identity", 0.743, 0.146, 0.419, 1),
        (RAW_4_RATERS, "linear", 0.800, 0.135, 0.499, 1),
        (RAW_4_RATERS, "ordinal", 0.834, 0.131, 0.542, 1),
        (RAW_4_RATERS, "quadratic", 0.849, 0.129, 0.561, 1),
        (RAW_4_RATERS, "ratio", 0.797, 0.140, 0.484, 1),
        (RAW_5_OBSERVERS, "identity", 0.481, 0.114, 0.237, 0.724),
        (RAW_G1G2, "identity", 0.632, 0.150, 0.306, 0.958),
        (RAW_GENDER, "identity", 0.143, 0.141, -0.158, 0.445),
        (RAW_BEN_GERRY, "identity", 0.665, 0.180, 0.264, 1),
    ],
)
def test_alpha_with_weights_matches_irrcac(ratings, weights, estimate, error, low, high):
    n_categories = len({cell for cell in ratings.ravel() if not pd.isna(cell)})
    distance = 1 - agreement_weights(weights, np.arange(1, n_categories + 1))
    found = krippendorff_alpha(ratings, scale=distance).coefficient
    shown = (found.estimate, found.standard_error, *limits(found))
    assert shown == pytest.approx((estimate, error, low, high), abs=5.001e-4)


@pytest.mark.parametrize("scale", ["nominal", "ordinal", "interval", "ratio"])
def test_alpha_agrees_with_krippendorff(scale):
    krippendorff = pytest.importorskip("krippendorff", reason="GPL; a test-only comparison")
    for seed in range(5):
        ratings = noisy_ratings(seed, missing=0.3)
        theirs = krippendorff.alpha(ratings.T, level_of_measurement=scale)
        assert value(krippendorff_alpha(ratings, scale=scale)) == pytest.approx(theirs)
