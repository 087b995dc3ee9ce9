"""The texture's p-value: its formula, its rate of false alarms, and how little it owes to luck."""

from functools import cache

import numpy as np
import pytest

from diffusion.mahalanobis import fit_class_gaussians
from diffusion.texture import (
    N_FOLDS,
    TextureReference,
    fit_texture_reference,
    folds_of_each_class,
)

N_STATISTICS, N_CLASSES = 12, 4
MEANS = 2 * np.random.default_rng(0).normal(size=(N_CLASSES, N_STATISTICS))
RARE = (0.6, 0.25, 0.1, 0.05)
SHIFT = np.linspace(-3, 3, N_STATISTICS)


def cells(n, seed, shift=0.0, shares=None):
    """Heavy-tailed statistics around the means of classes, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(N_CLASSES, size=n, p=shares)
    return MEANS[labels] + rng.standard_t(5, size=(n, N_STATISTICS)) + shift, labels


@cache
def reference():
    return fit_texture_reference(*cells(200, 1))


# The formula.


def test_the_p_value_counts_each_reference_cell_under_the_fit_of_the_other_folds():
    """Vovk (2015), cell by cell."""
    texture, labels = cells(60, 1)
    new, _ = cells(20, 2, shift=0.1 * SHIFT)
    n_seen, fold = np.zeros(N_CLASSES, dtype=int), np.zeros(60, dtype=int)
    for i, k in enumerate(labels):
        fold[i] = n_seen[k] % 5
        n_seen[k] += 1
    n_as_far = np.zeros(20)
    for i in range(60):
        others = fold != fold[i]
        gaussians = fit_class_gaussians(texture[others], labels[others])
        far = gaussians.squared_distances(np.vstack([texture[[i]], new])).min(axis=1)
        n_as_far += far[0] >= far[1:]
    expected = (1 + n_as_far) / 61
    assert len(set(expected)) > 10
    np.testing.assert_allclose(
        fit_texture_reference(texture, labels).p_values(new), expected, rtol=1e-12
    )


def test_every_cell_is_ranked_once_and_every_fold_has_its_share_of_each_class():
    labels = np.random.default_rng(0).choice(3, size=101, p=[0.7, 0.2, 0.1])
    folds = folds_of_each_class(labels)
    assert sorted(np.concatenate(folds)) == list(range(101))
    counts = np.array([np.bincount(labels[fold], minlength=3) for fold in folds])
    assert np.ptp(counts, axis=0).max() == 1
    assert sum(len(fold.distances) for fold in reference().folds) == 200


def test_a_texture_like_none_of_the_reference_gets_the_smallest_p_value_there_is():
    odd, _ = cells(30, 3, shift=8 * SHIFT)
    assert set(reference().p_values(odd)) == {1 / 201}


def test_a_cell_is_judged_alike_alone_and_among_others():
    new, _ = cells(40, 4)
    together = reference().p_values(new)
    assert [reference().p_values(one[None])[0] for one in new] == together.tolist()


def test_what_is_written_judges_as_what_was_fitted():
    written = reference().model_dump_json()
    new, _ = cells(40, 5)
    read = TextureReference.model_validate_json(written)
    assert read.p_values(new).tolist() == reference().p_values(new).tolist()


def test_a_reference_of_the_usual_size_takes_less_than_800_kilobytes():
    rng = np.random.default_rng(0)
    of = fit_texture_reference(rng.normal(size=(972, 160)), np.arange(972) % 8)
    assert len(of.model_dump_json()) < 800_000


# The rate of false alarms.


def bound(rate, n):
    """Of Barber et al. (2021), Theorem 4, for ranks instead of intervals."""
    return 2 * (rate * (n + 1) + N_FOLDS - 1) / (n + N_FOLDS)


SIZES = {"plenty": (300, None), "hardly enough to fit": (60, None), "rare classes": (200, RARE)}


@pytest.fixture(scope="module", params=list(SIZES))
def alarms(request):
    """Shares of new cells with p-values up to some rates, by reference. (150, 3)"""
    n, shares = SIZES[request.param]
    found = []
    for seed in range(150):
        of = fit_texture_reference(*cells(n, [seed, 0], shares=shares))
        p_values = of.p_values(cells(300, [seed, 1], shares=shares)[0])
        found.append([(p_values <= rate).mean() for rate in RATES])
    return n, np.array(found)


RATES = (0.05, 0.1, 0.3)


@pytest.mark.parametrize("i", range(len(RATES)))
def test_false_alarms_stay_within_the_bound_and_close_to_the_rate(alarms, i):
    n, shares = alarms
    found = shares[:, i].mean()
    error = shares[:, i].std() / len(shares) ** 0.5
    assert found + 4 * error < bound(RATES[i], n)
    assert abs(found - RATES[i]) < 0.2 * RATES[i] + 4 * error


def test_a_hundredth_is_kept_by_as_many_cells_as_a_checkpoint_ranks():
    assert bound(0.01, 972) == pytest.approx(0.028, abs=5e-4)
    shares = []
    for seed in range(40):
        of = fit_texture_reference(*cells(972, [seed, 0]))
        shares.append((of.p_values(cells(2000, [seed, 1])[0]) <= 0.01).mean())
    assert np.mean(shares) == pytest.approx(0.01, abs=4 * np.std(shares) / 40**0.5)


# Luck.


def test_how_the_cells_are_divided_matters_less_than_half_as_much_as_with_halves():
    texture, labels = cells(200, 6)
    foreign, _ = cells(400, 7, shift=SHIFT)
    folds, halves = [], []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(200)
        of = fit_texture_reference(texture[order], labels[order])
        folds.append((of.p_values(foreign) <= 0.02).mean())
        fits, ranked = order[:100], order[100:]
        gaussians = fit_class_gaussians(texture[fits], labels[fits])
        far = [gaussians.squared_distances(x).min(axis=1) for x in (texture[ranked], foreign)]
        p_values = (1 + (far[0] >= far[1][:, None]).sum(axis=1)) / 101
        halves.append((p_values <= 0.02).mean())
    assert 0.2 < np.mean(folds) < 0.9
    assert np.std(folds) < np.std(halves) / 2
