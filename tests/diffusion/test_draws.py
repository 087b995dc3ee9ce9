"""Levels and noise: keyed, stratified, antithetic, and drawn where the classes differ."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffusion.draws import DrawPlan, fitted_density, keyed_block, keyed_draws, log_density

SHAPE = (3, 8, 8)
UNEVEN = (0.1, 0.2, 0.6, 0.1)
PLANS = {
    "uniform": DrawPlan(n_levels=4, n_blocks=3, turned=True),
    "density": DrawPlan(n_levels=4, n_blocks=3, turned=True, density=UNEVEN),
    "one level": DrawPlan(n_levels=1, n_blocks=5, density=UNEVEN),
}


def drawn(plan, digest="cell", seed=0):
    return keyed_draws(plan, SHAPE, seed=seed, image_digest=digest)


def many_levels(plan, n=4000):
    blocks = [keyed_block(plan, (1,), seed=0, image_digest="cell", block=b) for b in range(n)]
    return torch.stack([block.log_snr[::2] for block in blocks])


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_block_asked_for_alone_is_the_one_drawn_with_all_others(plan):
    together = drawn(plan)
    n = plan.n_draws_in_block
    for block in reversed(range(plan.n_blocks)):
        alone = keyed_block(plan, SHAPE, seed=0, image_digest="cell", block=block)
        mine = slice(block * n, (block + 1) * n)
        assert torch.equal(alone.log_snr, together.log_snr[mine])
        assert torch.equal(alone.noise, together.noise[mine])
        assert torch.equal(alone.turns, together.turns[mine])


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_more_blocks_only_add_draws(plan):
    longer = drawn(plan.model_copy(update={"n_blocks": 7}))
    assert torch.equal(longer.noise[: plan.n_draws], drawn(plan).noise)
    assert torch.equal(longer.log_snr[: plan.n_draws], drawn(plan).log_snr)


def test_draws_belong_to_the_image_and_the_seed():
    plan = PLANS["uniform"]
    assert torch.equal(drawn(plan).noise, drawn(plan).noise)
    assert not torch.equal(drawn(plan).noise, drawn(plan, digest="other").noise)
    assert not torch.equal(drawn(plan).noise, drawn(plan, seed=1).noise)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_noises_come_in_pairs_of_both_signs_at_one_level(plan):
    draws = drawn(plan)
    assert torch.equal(draws.noise[::2], -draws.noise[1::2])
    assert torch.equal(draws.log_snr[::2], draws.log_snr[1::2])
    assert torch.equal(draws.turns[::2], draws.turns[1::2])


def test_a_single_level_meets_all_eight_symmetries_in_eight_blocks():
    turns = drawn(DrawPlan(n_levels=1, n_blocks=8, turned=True)).turns
    assert sorted(turns[::2].tolist()) == list(range(8))


def test_noise_is_standard_normal():
    noise = drawn(DrawPlan(n_levels=30, n_blocks=2)).noise[::2].flatten().numpy()
    assert stats.kstest(noise, "norm").pvalue > 1e-3


def test_an_even_plan_puts_one_level_in_each_stratum_of_equal_width():
    levels = many_levels(DrawPlan(log_snr_min=-2, log_snr_max=6, n_levels=4), n=200)
    assert torch.equal(((levels + 2) / 2).long(), torch.arange(4).expand(200, 4))


def test_a_density_puts_one_level_in_each_stratum_of_equal_probability():
    plan = DrawPlan(log_snr_min=0, log_snr_max=4, n_levels=5, density=UNEVEN)
    # Probability below a level: 0.1 at 1, 0.3 at 2, 0.9 at 3, 1 at 4.
    below = np.interp(many_levels(plan, n=200), [0, 1, 2, 3, 4], [0, 0.1, 0.3, 0.9, 1.0])
    assert (np.floor(below * 5) == np.arange(5)).all()


@pytest.mark.parametrize("n_levels", [1, 3])
def test_levels_follow_the_density(n_levels):
    plan = DrawPlan(log_snr_min=0, log_snr_max=4, n_levels=n_levels, density=UNEVEN)
    counts = np.bincount(many_levels(plan).flatten().long(), minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), UNEVEN, atol=0.02)


def test_levels_are_uniform_within_a_bin_of_the_density():
    plan = DrawPlan(log_snr_min=0, log_snr_max=4, n_levels=1, density=UNEVEN)
    levels = many_levels(plan).flatten()
    in_third = levels[(levels > 2) & (levels < 3)] - 2
    assert stats.kstest(in_third.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_density_integrates_to_one_and_its_inverse_weights_are_unbiased(plan):
    grid = torch.linspace(plan.log_snr_min, plan.log_snr_max, 40_001, dtype=torch.float64)
    density = log_density(plan, grid).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-3)
    levels = many_levels(plan)
    weighted = (levels.cos() / log_density(plan, levels).exp()).mean(dim=1)
    exact = np.sin(plan.log_snr_max) - np.sin(plan.log_snr_min)
    assert float(weighted.mean()) == pytest.approx(exact, abs=4 * float(weighted.std()) / 4000**0.5)


def test_an_even_density_draws_the_levels_of_the_uniform_plan():
    even = drawn(DrawPlan(n_levels=4, n_blocks=3, density=(0.25,) * 4))
    uniform = drawn(DrawPlan(n_levels=4, n_blocks=3))
    torch.testing.assert_close(even.log_snr, uniform.log_snr, rtol=0, atol=1e-12)
    assert torch.equal(even.noise, uniform.noise)


def test_a_fitted_density_is_highest_where_the_best_two_classes_differ():
    margins = np.random.default_rng(0).normal(scale=[1.0, 4.0, 0.0], size=(4000, 3))
    density = fitted_density(margins, floor=0.02)
    np.testing.assert_allclose(
        np.divide(density, density[1]), [1.08 / 4.08, 1, 0.08 / 4.08], rtol=0.05
    )
    assert DrawPlan(density=density).density == density


def test_a_plan_with_a_density_survives_json_unchanged():
    plan = DrawPlan(density=fitted_density([[3.0, 1.0, 0.7, 2.1]]))
    assert DrawPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_density_that_does_not_sum_to_one_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"sum to 1.5, not 1; divide them by their sum"):
        DrawPlan(density=(0.5, 1.0))


def test_a_bin_that_is_never_drawn_is_refused():
    with pytest.raises(ValueError, match="would never be drawn"):
        DrawPlan(density=(0.0, 1.0))


def test_margins_without_a_difference_are_refused():
    with pytest.raises(ValueError, match="somewhere different from zero"):
        fitted_density([[0.0, 0.0]])
