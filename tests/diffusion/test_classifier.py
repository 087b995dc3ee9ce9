"""The production classifier against Bayes' rule: exact denoisers in, exact posteriors out.

All of it goes the way that answers go: packed races, a trunk that classes share, the posterior.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from diffusion.classifier import paired_class_errors
from diffusion.draws import DrawPlan, fitted_density, keyed_draws
from diffusion.elimination import BlockVariancePrior, fit_block_variance_prior
from diffusion.network import Whole
from diffusion.packing import race_many
from diffusion.probability import Evidence, PosteriorCalibration
from diffusion.racing import RaceResult
from diffusion.schedule import sigmas_from_log_snr
from diffusion.weighting import binned_margins, block_log_likelihoods, elbo, robust
from tests.diffusion.gaussians import Mixtures

SMALL = DrawPlan(n_levels=4, n_blocks=3)
WIDE = {"log_snr_min": -12, "log_snr_max": 14, "n_levels": 52}
PROBLEMS = {  # mixtures, points, blocks of draws: as many as the two demands below take
    "two moons, d=2": (Mixtures.two_moons(), 16, 300),
    "three classes, d=2": (Mixtures.random(3, 2, 2, 0.9), 16, 400),
    "five classes, d=64": (Mixtures.random(5, 3, 64, 0.35), 10, 120),
    "eight classes, d=64": (Mixtures.random(8, 2, 64, 0.3), 8, 80),
}


def digests(n: int) -> list[str]:
    return [f"image-{i}" for i in range(n)]


def raced(
    split: Mixtures | Whole,
    points: torch.Tensor,
    plan: DrawPlan,
    *,
    labels: Sequence[int] | None = None,
    **options,
) -> list[RaceResult]:
    """Races of all classes over the whole plan, unless told otherwise."""
    labels = range(len(split.means)) if labels is None else labels
    defaults = {"weighting": elbo, "alpha": 0.0, "max_blocks": plan.n_blocks, "micro_batch": 4096}
    return race_many(
        split,
        points,
        digests(len(points)),
        [labels] * len(points),
        plan,
        **(defaults | options),
    )


def scores_of(results: list[RaceResult]) -> torch.Tensor:
    """Log-likelihoods up to a constant of each image. (B, K)"""
    return torch.stack([result.scores for result in results])


def errors_of(results: list[RaceResult]) -> torch.Tensor:
    """Monte-Carlo errors of the scores' distances to the winner. (B, K)"""
    return torch.stack([result.standard_errors for result in results])


def margins_of(results: list[RaceResult]) -> torch.Tensor:
    """Log-likelihood of the first class minus the second's. (B,)"""
    return scores_of(results)[:, 0] - scores_of(results)[:, 1]


@cache
def pilot(name: str, plan: DrawPlan) -> list[RaceResult]:
    """All errors of other points of the same problem, for densities and variance priors."""
    points, _ = PROBLEMS[name][0].sample(8, seed=1)
    return raced(PROBLEMS[name][0], points, plan, max_blocks=4)


def fitted_plan(name: str, **options) -> DrawPlan:
    """Levels drawn where the two best classes of the pilot's points differ."""
    even = DrawPlan(**WIDE)
    results = pilot(name, even)
    errors, log_snr = (torch.stack([getattr(r, f) for r in results]) for f in ("errors", "log_snr"))
    margins = binned_margins(errors, log_snr, even, elbo, n_bins=26)
    return DrawPlan(**(WIDE | {"density": fitted_density(margins)} | options))


def fitted_prior(name: str, plan: DrawPlan) -> BlockVariancePrior:
    results = pilot(name, plan)
    blocks = [block_log_likelihoods(r.errors, r.log_snr, plan, elbo) for r in results]
    return fit_block_variance_prior(torch.stack(blocks))


@dataclass(frozen=True)
class Outcome:
    """Exact log-likelihoods, and scores with their errors. (B, K) each"""

    exact: torch.Tensor
    scores: torch.Tensor
    standard_errors: torch.Tensor
    n_class_passes: int


@cache
def outcome(name: str, way: str) -> Outcome:
    problem, n_points, n_blocks = PROBLEMS[name]
    points, _ = problem.sample(n_points)
    plan = fitted_plan(name) if way == "race over a fitted density" else DrawPlan(**WIDE)
    # So cautious that no class leaves before its standard error is well known.
    options = {} if way == "whole plan" else {"alpha": 1e-6, "n_opt": 40}
    results = raced(problem, points, plan, max_blocks=n_blocks, **options)
    return Outcome(
        problem.log_densities(points),
        scores_of(results),
        errors_of(results),
        sum(result.n_class_passes for result in results),
    )


ways = pytest.mark.parametrize("way", ["whole plan", "race", "race over a fitted density"])
problems = pytest.mark.parametrize("name", PROBLEMS)


@ways
@problems
def test_elbo_scores_are_the_log_likelihood_ratios_of_bayes(name, way):
    found = outcome(name, way)
    best = found.scores.argmax(dim=1, keepdim=True)
    estimated_ratio = found.scores - found.scores.gather(1, best)
    exact_ratio = found.exact - found.exact.gather(1, best)
    excess = (estimated_ratio - exact_ratio).abs() - (4 * found.standard_errors + 0.05)
    assert excess.max() <= 0


@ways
@problems
@pytest.mark.parametrize("has_prior", [False, True])
def test_the_posterior_is_within_a_hundredth_of_bayes(name, way, has_prior):
    found = outcome(name, way)
    n_classes = found.exact.shape[1]
    log_prior = torch.arange(1.0, n_classes + 1).log() if has_prior else torch.zeros(n_classes)
    bayes = (found.exact + log_prior).softmax(dim=1)
    as_they_are = PosteriorCalibration(
        row="generative", generative_scale=1.0, class_bias=(0.0,) * n_classes, n_cells=1
    )
    evidence = Evidence(scores=found.scores.numpy(), standard_errors=found.standard_errors.numpy())
    log_p = as_they_are.log_probabilities(evidence, log_prior=log_prior.numpy())
    estimated = torch.from_numpy(log_p).exp()
    # A race stops as soon as a class is beaten: its score is known to its standard error only.
    known = 0.0 if way == "whole plan" else 4 * (bayes * found.standard_errors).sum(dim=1)
    assert ((estimated - bayes).abs().amax(dim=1) - known).max() <= 0.01


@ways
@problems
def test_verdicts_agree_with_bayes_wherever_the_margin_is_clear(name, way):
    found = outcome(name, way)
    two_best = found.scores.topk(2, dim=1)
    of_second = found.standard_errors.gather(1, two_best.indices[:, 1:])[:, 0]
    is_clear = two_best.values[:, 0] - two_best.values[:, 1] > 3 * of_second
    assert is_clear.sum() >= len(found.exact) / 2
    assert torch.equal(two_best.indices[is_clear, 0], found.exact.argmax(dim=1)[is_clear])


@problems
def test_a_race_costs_a_fraction_of_the_whole_plan(name):
    whole, race = (outcome(name, way).n_class_passes for way in ("whole plan", "race"))
    assert race < whole / 2


@problems
def test_short_races_name_the_class_that_bayes_names(name):
    # As a service would run: 200 points, at most 8 blocks of 4 levels.
    problem = PROBLEMS[name][0]
    points, _ = problem.sample(200, seed=2)
    plan = fitted_plan(name, n_levels=4)
    prior = fitted_prior(name, plan)
    results = raced(problem, points, plan, alpha=0.01, max_blocks=8, prior=prior)
    exact = problem.log_densities(points)
    verdicts = torch.tensor([result.winner for result in results])
    two_best = exact.topk(2, dim=1)
    second = two_best.indices[:, 1:]
    standard_errors = torch.stack([r.standard_errors for r in results]).amax(dim=1)
    is_clear = two_best.values[:, 0] - two_best.values[:, 1] > 3 * standard_errors
    assert is_clear.sum() >= 20
    assert second.shape == (200, 1)
    assert (verdicts == two_best.indices[:, 0])[is_clear].double().mean() >= 0.995
    # The best class in expectation leaves in at most alpha of the races: over 200, at most 7 (p =
    # 0.002 for an alpha of 0.01).
    was_lost = [exact[i].argmax().item() not in r.undecided for i, r in enumerate(results)]
    assert sum(was_lost) <= 7


@pytest.mark.parametrize("density", [None, (0.25, 0.4, 0.35)])
def test_a_finite_range_is_exact_once_its_two_end_terms_are_added(density):
    problem = Mixtures.two_moons()
    points, _ = problem.sample(8)
    plan = DrawPlan(log_snr_min=-2, log_snr_max=4, n_levels=24, n_blocks=200, density=density)
    estimated = margins_of(raced(problem, points, plan))
    ends = []
    for log_snr in (plan.log_snr_min, plan.log_snr_max):
        sigma = float(np.exp(-log_snr / 2))
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn((20_000, 2), generator=generator, dtype=torch.float64)
        smoothed = torch.stack(
            [
                problem.log_densities(point + sigma * torch.cat([noise, -noise]), sigma).mean(dim=0)
                for point in points
            ]
        )
        ends.append(smoothed[:, 0] - smoothed[:, 1])
    assert (estimated - (ends[1] - ends[0])).abs().max() < 0.05


def test_a_fitted_density_estimates_the_same_ratios_with_a_smaller_error():
    # Evidence on a small part of a wide range; both plans spend four pairs a block.
    name = "five classes, d=64"
    problem = PROBLEMS[name][0]
    points, _ = problem.sample(30, seed=3)
    plans = [DrawPlan(**(WIDE | {"n_levels": 4})), fitted_plan(name, n_levels=4)]
    two_best = problem.log_densities(points).topk(2, dim=1)
    exact = two_best.values[:, 0] - two_best.values[:, 1]
    rms = []
    for plan in plans:
        results = raced(problem, points, plan, max_blocks=60)
        errors, log_snr = (
            torch.stack([getattr(r, field) for r in results]) for field in ("errors", "log_snr")
        )
        blocks = block_log_likelihoods(errors, log_snr, plan, elbo)
        both = blocks.gather(2, two_best.indices[:, None].expand(-1, 60, 2))
        ratios = both[..., 0] - both[..., 1]
        rms.append(float((ratios - exact[:, None]).square().mean().sqrt()))
        standard_errors = ratios.std(dim=1) / 60**0.5
        assert ((ratios.mean(dim=1) - exact).abs() <= 4 * standard_errors + 0.05).all()
    assert rms[1] < 0.5 * rms[0]


# Negative controls: what should fail, fails.


def uniform_timestep_weights(log_snr: torch.Tensor) -> torch.Tensor:
    """|dt / d log-SNR| of the linear DDPM schedule: the weight of "uniform t, noise loss"."""
    betas = np.linspace(1e-4, 0.02, 1000)
    signal = np.cumprod(1 - betas)
    levels = np.log(signal / (1 - signal))
    density = np.abs(1 / np.gradient(levels))
    at = np.interp(log_snr.numpy(), levels[::-1], density[::-1], left=0.0, right=0.0)
    return torch.from_numpy(at)


def test_uniform_timestep_weights_miss_bayes_even_at_their_best_temperature():
    problem = Mixtures.two_moons()
    points, _ = problem.sample(80, seed=1)
    plan = DrawPlan(log_snr_min=-10, log_snr_max=9.2, n_levels=40, n_blocks=12)
    exact = problem.log_densities(points).softmax(dim=1)
    worst = []
    for weighting in (elbo, uniform_timestep_weights):
        scores = scores_of(raced(problem, points, plan, weighting=weighting))
        errors = [
            float(((scores / t).softmax(dim=1) - exact).abs().max())
            for t in np.geomspace(1e-3, 1e3, 400)
        ]
        worst.append(min(errors))
    assert worst[1] > 0.02
    assert worst[1] > 3 * worst[0]


def test_swapped_labels_flip_the_sign():
    problem = Mixtures.two_moons()
    points, _ = problem.sample(10)
    margins = margins_of(raced(problem, points, SMALL))
    swapped = Whole(lambda noised, sigmas, labels: problem.denoise(noised, sigmas, 1 - labels))
    torch.testing.assert_close(margins_of(raced(swapped, points, SMALL, labels=[0, 1])), -margins)
    assert margins.abs().min() > 0


def test_noise_that_differs_between_classes_needs_more_than_ten_times_the_draws():
    problem = Mixtures.random(2, 2, 64, 0.25)
    points, _ = problem.sample(12)
    plan = DrawPlan(log_snr_min=-6, log_snr_max=6, n_levels=6, n_blocks=40)

    def blocks_of(seed: int) -> torch.Tensor:
        draws = [keyed_draws(plan, (64,), seed=seed, image_digest=d) for d in digests(12)]
        log_snr = torch.stack([d.log_snr for d in draws]).double()
        noise = torch.stack([d.noise for d in draws]).double()
        errors = paired_class_errors(
            problem, points, sigmas_from_log_snr(log_snr), noise, torch.arange(2)
        )
        weights = 6 * torch.ones_like(errors)
        return (weights * errors).view(12, plan.n_blocks, -1, 2).mean(dim=2)

    first, second = blocks_of(1), blocks_of(2)
    shared = (first[..., 0] - first[..., 1]).var(dim=1).mean()
    independent = (first[..., 0] - second[..., 1]).var(dim=1).mean()
    assert independent > 10 * shared


# What the answer may and may not depend on.


def test_the_order_of_the_classes_only_reorders_the_answer():
    problem = Mixtures.random(3, 2, 16, 0.5)
    points, _ = problem.sample(4)
    straight = scores_of(raced(problem, points, SMALL))
    turned = scores_of(raced(problem, points, SMALL, labels=[2, 0, 1]))
    torch.testing.assert_close(turned, straight[:, [2, 0, 1]])


def test_another_seed_gives_other_draws_and_the_same_seed_the_same():
    problem = Mixtures.random(3, 2, 16, 0.5)
    points, _ = problem.sample(4)
    scores = [scores_of(raced(problem, points, SMALL, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_the_standard_error_halves_with_four_times_the_draws():
    problem = Mixtures.random(2, 2, 16, 0.5)
    points, _ = problem.sample(20)
    plan = DrawPlan(n_levels=3)
    errors = [errors_of(raced(problem, points, plan, max_blocks=n)).mean() for n in (64, 256)]
    assert float(errors[1] / errors[0]) == pytest.approx(0.5, abs=0.1)


def test_a_perfect_denoiser_leaves_no_error_and_a_lazy_one_all_of_the_noise():
    latents = torch.randn(1, 4, 8, 8)
    noise = torch.randn(1, 6, 4, 8, 8)
    sigmas = torch.linspace(0.1, 10, 6)[None]
    exact, lazy = (
        paired_class_errors(Whole(denoise), latents, sigmas, noise, torch.arange(2))
        for denoise in (lambda z, s, c: latents.expand_as(z), lambda z, s, c: z)
    )
    assert exact.max() == 0
    energy = noise.square().flatten(2).sum(dim=2)[..., None].expand(-1, -1, 2)
    torch.testing.assert_close(lazy.float(), energy, rtol=1e-4, atol=1e-3)


def test_turned_views_leave_a_symmetric_model_unmoved():
    latents = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    blind = torch.tensor([0.2, 0.8], dtype=torch.float64)

    def denoise(noised, sigmas, labels):
        return noised * blind[labels].view(-1, 1, 1, 1)

    straight, turned = (
        raced(
            Whole(denoise),
            latents,
            DrawPlan(n_levels=4, n_blocks=400, turned=is_turned),
            labels=[0, 1],
            weighting=robust,
        )
        for is_turned in (False, True)
    )
    difference = (margins_of(straight) - margins_of(turned)).abs()
    assert (difference <= 6 * errors_of(straight).amax(dim=1)).all()


def test_robust_weights_turn_the_score_towards_high_noise():
    plan = DrawPlan(log_snr_min=0, log_snr_max=4, n_levels=2, n_blocks=1)
    errors = torch.zeros(1, 4, 2)
    errors[0, :2, 0] = errors[0, 2:, 1] = 1.0
    log_snr = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    equal = block_log_likelihoods(errors, log_snr, plan, elbo)
    damped = block_log_likelihoods(errors, log_snr, plan, robust)
    assert equal[0, 0, 0] == pytest.approx(0)
    assert damped[0, 0, 0] - damped[0, 0, 1] == pytest.approx(-np.exp(-0.5) * 2 / 2 + np.exp(-1.5))
