import itertools

import numpy as np
import pytest

from training.sample_quality import kernel_distance


def test_one_distribution_has_distance_zero_within_its_error():
    rng = np.random.default_rng(0)
    drawn, real = rng.normal(size=(2, 1000, 16))
    result = kernel_distance(drawn, real, rng=rng)
    assert abs(result.estimate) < 4 * result.standard_error
    assert result.n == 1000


def test_another_mean_is_seen():
    rng = np.random.default_rng(0)
    drawn, real = rng.normal(size=(2, 1000, 16))
    result = kernel_distance(drawn + 0.3, real, rng=rng)
    assert result.estimate > 10 * result.standard_error


def test_one_block_is_the_published_formula_written_out():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 5, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = list(itertools.permutations(range(5), 2))
    expected = (
        sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs) / 20
        - 2 * sum(kernel(a, b) for a in x for b in y) / 25
    )
    found = kernel_distance(x, y, n_blocks=1, rng=rng)
    assert found.estimate == pytest.approx(expected, rel=1e-12)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="give more images or ask for fewer blocks"):
        kernel_distance(np.zeros((9, 2)), np.zeros((50, 2)), rng=np.random.default_rng(0))
