"""The opponents do what their authors wrote, and the comparison with them can be trusted."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from benchmarks.classifier import difference_of, ratio_of, resamples
from benchmarks.rules import (
    MAX_DRAWS,
    SpreadPolynomial,
    errors_at,
    fit_spread,
    is_beaten,
    paired_t_test,
    published_rule,
    shuffled_timesteps,
    stable_diffusion_sigmas,
    staged_rule,
    staged_timesteps,
    uniform_grid,
)
from diffusion.network import Flops, Whole
from tests.diffusion.gaussians import Mixtures

EASY = Mixtures.random(n_classes=8, n_components=2, d=48, spread=1.5)
FLAT = SpreadPolynomial(coefficients=(1.0, 0.0, 0.0, 0.0, 0.0), floor=1.0)
ALL = range(8)


class Counting(Whole):
    """A denoiser that counts what it is asked."""

    def __init__(self, denoise):
        super().__init__(denoise)
        self.shared, self.finished, self.calls = 0, 0, []

    def share(self, noised, sigmas):
        self.shared += len(noised)
        return super().share(noised, sigmas)

    def finish(self, shared, rows, class_labels):
        self.finished += len(rows)
        self.calls.append(class_labels.tolist())
        return super().finish(shared, rows, class_labels)


def published(split, point, digest="a", labels=ALL, spread=FLAT, **options):
    return published_rule(split, point, digest, labels, spread, turned=False, **options)


def alike(*classes):
    """Classes in 16 dimensions at the given places along every axis."""
    places = torch.tensor(classes, dtype=torch.float64)
    return Mixtures(places[:, None, None].expand(-1, 1, 16).contiguous(), 0.5)


# --- noise levels


def test_the_noise_levels_are_those_of_stable_diffusion():
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
    )
    kept = schedule.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(stable_diffusion_sigmas(), np.sqrt((1 - kept) / kept), rtol=1e-4)
    np.testing.assert_allclose(stable_diffusion_sigmas(0.5), stable_diffusion_sigmas() / 2)


def test_two_thousand_draws_use_each_timestep_about_twice_in_an_order_of_the_seed():
    timesteps = shuffled_timesteps(MAX_DRAWS, seed=0)
    values, counts = np.unique(timesteps, return_counts=True)
    assert values.tolist() == list(range(1, 1000))
    assert set(counts[:-1].tolist()) <= {2, 3}
    assert np.array_equal(timesteps, shuffled_timesteps(MAX_DRAWS, seed=0))
    other = shuffled_timesteps(MAX_DRAWS, seed=1)
    assert not np.array_equal(timesteps, other)
    assert np.array_equal(np.sort(timesteps), np.sort(other))
    # Shuffled: the first look already sees noise levels of all kinds.
    assert timesteps[:21].min() < 200 < 800 < timesteps[:21].max()


# --- the published rule


def test_an_easy_image_costs_the_floor_of_21_draws_of_every_class():
    points, labels = EASY.sample(8)
    split = Counting(EASY.denoise)
    outcome = published(split, points[3])
    assert (outcome.n_draws, outcome.n_class_passes) == (21, 21 * 8)
    assert (outcome.winner, outcome.survivors) == (int(labels[3]), (int(labels[3]),))
    # A whole pass for each class and draw, in batches of the surviving classes.
    assert split.shared == split.finished == 21 * 8
    assert split.calls == [list(ALL)] * 21


def test_it_agrees_with_bayes_on_easy_points():
    points, labels = EASY.sample(64)
    bayes = EASY.log_densities(points).argmax(dim=1)
    assert torch.equal(bayes, labels)
    winners = [
        published(Whole(EASY.denoise), point, digest=str(i), max_draws=200).winner
        for i, point in enumerate(points)
    ]
    assert np.mean(np.array(winners) == bayes.numpy()) >= 0.98


def test_classes_that_tie_are_all_kept_to_the_cap():
    twins = alike(1.0, 1.0)
    outcome = published(Whole(twins.denoise), twins.sample(1)[0][0], labels=range(2), max_draws=60)
    assert outcome.survivors == (0, 1)
    assert (outcome.n_draws, outcome.n_class_passes) == (60, 120)


def test_a_class_that_left_is_not_paid_for_and_keeps_its_mean():
    family = alike(0.0, 0.0, 4.0)
    split = Counting(family.denoise)
    outcome = published(split, family.sample(1)[0][0], labels=range(3), max_draws=50)
    assert outcome.survivors == (0, 1)
    assert outcome.n_class_passes == split.finished == 21 * 3 + 29 * 2
    gone = outcome.rows[:, 2]
    np.testing.assert_allclose(gone[21:], gone[:21].mean())
    # Every row counts from the best of the classes that were in it.
    np.testing.assert_array_equal(outcome.rows[:, :2].min(axis=1), 0)
    assert outcome.scores.argmin() == 2
    assert outcome.scores.mean() == pytest.approx(-1)


def test_the_first_test_is_after_21_draws_and_then_every_fifth():
    # Classes so close that some stay for long: they leave at 21, 26, 31, ... draws only.
    points, _ = Mixtures.random(8, 2, 48, spread=0.25).sample(12)
    near = Mixtures.random(8, 2, 48, spread=0.25)
    spent = [
        published(Whole(near.denoise), p, digest=str(i), max_draws=400).n_draws
        for i, p in enumerate(points)
    ]
    assert len(set(spent)) > 2
    assert all((n - 21) % 5 == 0 or n == 400 for n in spent)


def test_a_class_leaves_only_if_it_is_worse_beyond_p_0_002():
    rng = np.random.default_rng(0)
    rows = rng.gamma(2.0, size=(40, 6)) + np.array([0.0, 0.3, 0.6, 0.9, 1.5, 3.0])
    is_in = np.array([True, True, True, True, True, False])
    best = rows[:, is_in].mean(axis=0).argmin()
    beaten = is_beaten(rows, is_in)
    for k in range(5):
        p_value = ttest_rel(rows[:, k], rows[:, best]).pvalue if k != best else 1.0
        assert beaten[k] == (p_value < 0.002), k
    assert beaten.any()
    assert not beaten.all()
    assert not beaten[5]  # it left before


def test_the_paired_t_test_is_that_of_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 26, 5)) + np.linspace(0, 2, 5)[None, None]
    first[:, 4] = second[:, 4] + 1e-3 * rng.normal(size=26)
    expected = [ttest_rel(first[:, k], second[:, k]).pvalue for k in range(5)]
    np.testing.assert_allclose(paired_t_test(first, second), expected, rtol=1e-10)
    against_one = [ttest_rel(first[:, k], second[:, 0]).pvalue for k in range(5)]
    np.testing.assert_allclose(paired_t_test(first, second[:, [0]]), against_one, rtol=1e-10)
    assert np.isnan(paired_t_test(first, first)).all()


def test_the_answer_belongs_to_the_image_and_the_seed():
    points, _ = EASY.sample(2)
    split = Whole(EASY.denoise)
    once, again = (published(split, points[0], digest="x") for _ in range(2))
    np.testing.assert_array_equal(once.rows, again.rows)
    for other in (published(split, points[0], digest="y"), published(split, points[0], seed=1)):
        assert not np.array_equal(once.rows, other.rows)


def test_a_constant_factor_of_the_weights_changes_nothing():
    points, _ = EASY.sample(1)
    doubled = SpreadPolynomial(coefficients=(2.0, 0.0, 0.0, 0.0, 0.0), floor=1.0)
    one, two = (published(Whole(EASY.denoise), points[0], spread=s) for s in (FLAT, doubled))
    np.testing.assert_allclose(one.scores, two.scores)
    assert one.n_draws == two.n_draws


def test_images_are_turned_in_all_eight_ways():
    image = 1000 * torch.arange(1.0, 5.0).view(1, 2, 2)  # no symmetry of its own
    seen = Counter()

    def denoise(noised, sigmas, class_labels):
        seen.update(tuple(x.flatten().div(1000).round().tolist()) for x in noised)
        return noised

    published_rule(Whole(denoise), image, "a", range(2), FLAT, max_draws=400)
    assert len(seen) == 8
    assert min(seen.values()) > 2 * 400 / 8 / 2


# --- its weights


def test_the_fit_recovers_a_known_polynomial():
    coefficients = np.array([0.927, 9.837, -4.684, 6.019, -9.340])  # near the published one
    timesteps = np.linspace(1, 999, 40).astype(np.int64)
    u = (1000 - timesteps) / 1000
    spread = np.polynomial.polynomial.polyval(u, coefficients)
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(25, 1, 8))
    classes = (classes - classes.mean(axis=2, keepdims=True)) / classes.std(
        axis=2, ddof=1, keepdims=True
    )
    level = rng.normal(size=(25, 40, 1)) * 100  # what all classes share is no spread
    fitted = fit_spread(level + spread[:, None] * classes, timesteps)
    np.testing.assert_allclose(fitted.coefficients, coefficients, rtol=1e-6)
    np.testing.assert_allclose(fitted.weights(timesteps), 1 / spread, rtol=1e-6)
    assert fitted.floor == pytest.approx(spread.min())


def test_a_polynomial_below_the_smallest_spread_gives_no_huge_weight():
    dipping = SpreadPolynomial(coefficients=(-1.0, 2.0, 0.0, 0.0, 0.0), floor=0.25)
    weights = dipping.weights(np.arange(1, 1000))
    assert weights.min() > 0
    assert weights.max() == 4


def test_the_median_withstands_a_strange_image():
    timesteps = np.linspace(1, 999, 12).astype(np.int64)
    errors = np.random.default_rng(0).normal(size=(31, 12, 8))
    strange = errors.copy()
    strange[0] *= 1e6
    ordinary, disturbed = fit_spread(errors, timesteps), fit_spread(strange, timesteps)
    np.testing.assert_allclose(disturbed.weights(timesteps), ordinary.weights(timesteps), rtol=0.2)


def test_errors_for_the_fit_are_those_of_the_denoiser():
    points, _ = EASY.sample(3)
    timesteps = np.array([50, 500, 950])
    # A denoiser that leaves its input as it is errs by the whole noise, whatever the class.
    untouched = errors_at(
        Whole(lambda noised, sigmas, labels: noised), points, "abc", timesteps, ALL, turned=False
    )
    assert untouched.shape == (3, 3, 8)
    assert untouched.mean() == pytest.approx(48, rel=0.2)
    np.testing.assert_allclose(untouched[..., 0], untouched[..., 7])


@pytest.mark.parametrize(
    ("shape", "n_timesteps", "words"),
    [((3, 4, 8), 4, "needs five different"), ((3, 5, 8), 6, "needs five different")],
)
def test_too_few_timesteps_are_refused(shape, n_timesteps, words):
    with pytest.raises(ValueError, match=words):
        fit_spread(np.ones(shape), np.arange(1, n_timesteps + 1))


def test_a_network_that_ignores_the_class_is_refused():
    with pytest.raises(ValueError, match="knows its classes apart"):
        fit_spread(np.ones((3, 6, 8)), np.arange(1, 7))


# --- Li et al. and the uniform grid


def test_the_cifar_recipe_of_li_et_al_takes_its_2750_passes():
    ten = Mixtures.random(n_classes=10, n_components=1, d=4, spread=1.0)
    split = Counting(ten.denoise)
    outcome = staged_rule(split, ten.sample(1)[0][0], "a", range(10), stages=((50, 5), (500, 1)))
    assert outcome.n_class_passes == split.finished == split.shared == 2750
    assert outcome.n_draws == 500
    assert max(len(call) for call in split.calls) == 32


def test_stages_use_up_an_even_grid():
    stages = staged_timesteps([8, 25, 100])
    assert [len(stage) for stage in stages] == [8, 17, 75]
    assert sorted(t for stage in stages for t in stage) == list(range(5, 1000, 10))
    assert set(np.diff(stages[0]).tolist()) == {120}


def test_staged_and_uniform_agree_with_bayes_on_easy_points():
    points, labels = EASY.sample(16)
    split = Whole(EASY.denoise)
    for i, (point, label) in enumerate(zip(points, labels, strict=True)):
        staged = staged_rule(split, point, str(i), ALL)
        assert staged.winner == label
        assert staged.n_class_passes == 8 * 8 + 17 * 4 + 75 * 2
        assert uniform_grid(split, point, str(i), ALL, n_draws=21).winner == label


def test_a_uniform_grid_takes_every_class_at_every_draw():
    points, _ = EASY.sample(1)
    outcome = uniform_grid(Whole(EASY.denoise), points[0], "a", ALL, n_draws=50)
    assert (outcome.n_draws, outcome.n_class_passes) == (50, 400)
    # Its scores are minus the mean error for a pixel, as the authors' program has them.
    np.testing.assert_allclose(outcome.scores, -outcome.rows.mean(axis=0) / 48)


def test_other_labels_than_0_to_k_are_answered_by_their_own_number():
    points, labels = EASY.sample(8)
    candidates = [6, 2, 5]
    for rule in (published, staged_rule_of_three):
        outcome = rule(Whole(EASY.denoise), points[5], "a", candidates)
        assert outcome.winner == labels[5] == 5
        assert outcome.class_labels == (6, 2, 5)


def staged_rule_of_three(split, point, digest, labels):
    return staged_rule(split, point, digest, labels, stages=((10, 2), (20, 1)))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (((8, 4), (25, 2)), "last stage must keep one"),
        (((8, 9), (25, 1)), "last stage must keep one"),
        (((8, 4), (8, 1)), "let them grow"),
        (((8, 4), (2000, 1)), "let them grow"),
    ],
)
def test_stages_that_lead_nowhere_are_refused(stages, words):
    with pytest.raises(ValueError, match=words):
        staged_rule(Whole(EASY.denoise), EASY.sample(1)[0][0], "a", ALL, stages=stages)


# --- cost


def test_cost_is_counted_with_whole_passes_and_with_a_shared_trunk():
    outcome = published(Whole(EASY.denoise), EASY.sample(1)[0][0])
    flops = Flops(trunk=100, decoder=10, head=1)
    assert outcome.flops_as_published(flops) == 21 * 8 * 110
    assert outcome.flops_shared(flops) == 21 * 100 + 21 * 8 * 10


# --- the comparison


def test_resamples_keep_every_class_at_its_size():
    labels = np.array([0] * 5 + [1] * 20 + [3] * 2)
    samples = resamples(labels, seed=0)
    assert samples.shape[1] == 27
    for sample in samples[:50]:
        assert np.bincount(labels[sample]).tolist() == [5, 20, 0, 2]
    assert len(np.unique(samples, axis=0)) > 3000


def test_a_difference_of_balanced_accuracies_counts_classes_alike():
    labels = np.array([0] * 10 + [1] * 40)
    ours, theirs = np.ones(50, dtype=bool), np.ones(50, dtype=bool)
    ours[0], theirs[10:18] = False, False  # recalls 0.9 and 1 against 1 and 0.8
    found = difference_of(ours, theirs, labels, resamples(labels, seed=0))
    assert found["estimate"] == pytest.approx((0.9 - 1.0 + 1.0 - 0.8) / 2)
    assert found["ci_low"] < found["estimate"] < found["ci_high"]
    assert (found["n"], found["n_only_ours_right"], found["n_only_published_right"]) == (50, 8, 1)
    same = difference_of(ours, ours, labels, resamples(labels, seed=0))
    assert same["estimate"] == same["ci_low"] == same["ci_high"] == 0


def test_a_constant_ratio_has_no_spread_and_a_varying_one_covers_the_truth():
    labels = np.arange(200) % 8
    samples = resamples(labels, seed=0)
    rng = np.random.default_rng(0)
    ours = rng.uniform(1, 2, size=200)
    exact = ratio_of(60 * ours, ours, samples)
    assert exact["ci_low"] == pytest.approx(60)
    assert exact["ci_high"] == pytest.approx(60)
    covered = []
    for _ in range(60):
        theirs, ours = rng.gamma(2.0, 30.0, size=200), rng.uniform(0.5, 1.5, size=200)
        found = ratio_of(theirs, ours, samples)
        covered.append(found["ci_low"] <= 60 <= found["ci_high"])
    assert 0.8 < np.mean(covered) <= 1
