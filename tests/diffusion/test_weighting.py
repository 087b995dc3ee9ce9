"""Weights over log-SNR: what they start from, what a fit makes of them, what a cap does."""

import numpy as np
import pytest
import torch

from diffusion.draws import DrawPlan, fitted_density
from diffusion.weighting import (
    LearnedWeighting,
    binned_margins,
    block_log_likelihoods,
    elbo,
    fit_learned_weights,
    pair_scores,
    robust,
)

PLAN = DrawPlan(log_snr_min=0, log_snr_max=4, n_levels=4, n_blocks=2)
N_CLASSES = 3


def levels_of(n_images, plan=PLAN):
    step = (plan.log_snr_max - plan.log_snr_min) / plan.n_levels
    once = plan.log_snr_min + step * (torch.arange(plan.n_levels) + 0.5)
    return once.repeat_interleave(2).repeat(plan.n_blocks).double().expand(n_images, -1)


def simulated(signal, noise, n_images=600, seed=0):
    """Errors whose contributions to the x-weighted score have the given signal at each level."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(n_images) % N_CLASSES
    is_true = torch.nn.functional.one_hot(labels, N_CLASSES).double()
    n_sweeps = 2 * PLAN.n_blocks
    shape = (n_images, PLAN.n_blocks, PLAN.n_levels, 2, N_CLASSES)
    of_level = torch.tensor(signal).view(1, 1, -1, 1, 1) * is_true.view(n_images, 1, 1, 1, -1)
    spread = torch.tensor(noise).view(1, 1, -1, 1, 1) * n_sweeps**0.5
    scores = (of_level + spread * torch.from_numpy(rng.normal(size=shape))).flatten(1, 3)
    log_snr = levels_of(n_images)
    return -scores * log_snr.exp()[..., None], log_snr, labels


def test_ones_are_the_start_e_to_the_minus_log_snr():
    start = LearnedWeighting(log_snr_min=0, log_snr_max=4, weights=(1,) * 5)
    log_snr = torch.linspace(0, 4, 50, dtype=torch.float64)
    torch.testing.assert_close(start(log_snr), (-log_snr).exp())


def test_a_weight_holds_in_the_middle_of_its_bin_and_fades_towards_its_neighbours():
    weighting = LearnedWeighting(log_snr_min=0, log_snr_max=4, weights=(1, 0, 3, 2))
    at = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.25, 4.0])
    factors = torch.tensor([1.0, 1, 0.5, 0, 1.5, 3, 2.25, 2])
    torch.testing.assert_close(weighting(at), factors * (-at).exp())


def test_levels_of_noise_alone_lose_their_weight():
    errors, log_snr, labels = simulated([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 8.0, 0.8])
    weighting, _ = fit_learned_weights(errors, log_snr, labels, PLAN, n_bins=4, penalty=1e-4)
    assert max(weighting.weights[2:]) < 0.05 * min(weighting.weights[:2])


def test_weights_tend_to_signal_over_variance():
    # Independent normal evidence: the best linear rule weighs by signal / variance.
    errors, log_snr, labels = simulated([1.0, 1.0, 1.0, 0.5], [1.0, 2.0, 4.0, 1.0], n_images=6000)
    weighting, temperature = fit_learned_weights(
        errors, log_snr, labels, PLAN, n_bins=4, penalty=1e-6
    )
    relative = np.divide(weighting.weights, weighting.weights[0])
    np.testing.assert_allclose(relative, [1, 1 / 4, 1 / 16, 1 / 2], atol=0.06)
    # Of 16 draws each adds weight / 2 / density / 16 = weight / 8 times its evidence, whose
    # log-likelihood ratio has the slope signal / variance = 1 / 4 in the first bin.
    assert weighting.weights[0] / 8 / temperature == pytest.approx(1 / 4, rel=0.1)


def test_a_strong_penalty_keeps_the_start():
    errors, log_snr, labels = simulated([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 8.0, 0.8])
    weighting, _ = fit_learned_weights(errors, log_snr, labels, PLAN, n_bins=4, penalty=1e4)
    np.testing.assert_allclose(weighting.weights, 1, atol=1e-3)


def test_learned_weights_and_temperature_predict_better_than_the_start():
    def log_loss(weighting, temperature):
        errors, log_snr, labels = simulated([1.0, 0.5, 0, 0], [0.7, 1, 3, 3], seed=1)
        scores = block_log_likelihoods(errors, log_snr, PLAN, weighting).mean(dim=1)
        return float(torch.nn.functional.cross_entropy(scores / temperature, labels))

    errors, log_snr, labels = simulated([1.0, 0.5, 0, 0], [0.7, 1, 3, 3], seed=0)
    learned = fit_learned_weights(errors, log_snr, labels, PLAN, n_bins=4)
    kept = fit_learned_weights(errors, log_snr, labels, PLAN, n_bins=4, penalty=1e4)
    assert log_loss(*learned) < log_loss(*kept) < np.log(N_CLASSES)


def test_rare_classes_count_as_much_as_common_ones():
    errors, log_snr, labels = simulated([0.5] * 4, [1.0] * 4)
    kept = (labels > 0) | (
        torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < 0.2
    )
    once = errors[kept], log_snr[kept], labels[kept]
    rare = torch.where(once[2] == 0)[0]
    more = torch.cat([torch.arange(len(once[2])), rare, rare])
    fits = [
        fit_learned_weights(*data, PLAN, n_bins=4)
        for data in (once, tuple(tensor[more] for tensor in once))
    ]
    np.testing.assert_allclose(fits[0][0].weights, fits[1][0].weights, rtol=1e-2)
    assert fits[0][1] == pytest.approx(fits[1][1], rel=1e-2)


def test_a_cap_bounds_what_one_pair_can_say():
    errors, log_snr, _ = simulated([1.0] * 4, [1.0] * 4, n_images=4)
    capped = LearnedWeighting(log_snr_min=0, log_snr_max=4, weights=(1,), cap=20)
    free = capped.model_copy(update={"cap": None})
    before = block_log_likelihoods(errors, log_snr, PLAN, capped)
    errors[:, 0] = torch.tensor([0.0, 1e9, 0.0])  # one pair of the first block goes wild
    after = block_log_likelihoods(errors, log_snr, PLAN, capped)
    assert (after - before)[:, 0].abs().max() <= 2 * 20 / PLAN.n_levels * (1 + 1 / N_CLASSES)
    assert torch.equal(after[:, 1], before[:, 1])
    assert block_log_likelihoods(errors, log_snr, PLAN, free).abs().max() > 1e6


def wild(seed):
    """Evidence at every level, and now and then an error that is far off."""
    errors, log_snr, labels = simulated([1.0] * 4, [1.0, 1, 2, 2], seed=seed)
    is_wild = torch.rand(errors.shape, generator=torch.Generator().manual_seed(seed)) < 0.02
    return errors + 3000 * is_wild, log_snr, labels


def test_a_fit_with_a_cap_withstands_wild_pairs():
    def accuracy(weighting):
        errors, log_snr, labels = wild(seed=1)
        scores = block_log_likelihoods(errors, log_snr, PLAN, weighting).mean(dim=1)
        return float((scores.argmax(dim=1) == labels).double().mean())

    capped, _ = fit_learned_weights(*wild(seed=0), PLAN, n_bins=4, cap=10)
    free, _ = fit_learned_weights(*wild(seed=0), PLAN, n_bins=4)
    assert capped.cap == 10
    assert accuracy(capped) > accuracy(free) + 0.05


@pytest.mark.parametrize("cap", [None, 4.0])
def test_no_other_weights_or_temperature_fit_the_images_better(cap):
    errors, log_snr, labels = wild(seed=0)
    fitted, temperature = fit_learned_weights(
        errors, log_snr, labels, PLAN, n_bins=4, penalty=1e-9, cap=cap
    )

    def log_loss(weights, divisor):
        weighting = fitted.model_copy(update={"weights": tuple(weights)})
        scores = pair_scores(errors, log_snr, PLAN, weighting).mean(dim=1)
        return float(torch.nn.functional.cross_entropy(scores / divisor, labels))

    least = log_loss(fitted.weights, temperature)
    assert least < np.log(N_CLASSES)
    for factor in (0.8, 1.25):
        assert log_loss(fitted.weights, temperature * factor) > least
        for changed in range(4):
            weights = np.array(fitted.weights)
            weights[changed] = weights[changed] * factor + 1e-3
            assert log_loss(weights, temperature) > least - 1e-6


def test_pairs_average_to_the_blocks_and_blocks_to_the_score():
    errors, log_snr, _ = simulated([1.0] * 4, [1.0] * 4, n_images=5)
    pairs = pair_scores(errors, log_snr, PLAN, robust)
    assert pairs.shape == (5, 8, N_CLASSES)
    blocks = block_log_likelihoods(errors, log_snr, PLAN, robust)
    torch.testing.assert_close(pairs.mean(dim=1), blocks.mean(dim=1))
    # The integral by hand: 1/2 of weight times error, times the width of a level's stratum.
    by_hand = -0.5 * (robust(log_snr)[..., None] * errors)[:, :8].sum(dim=1) * 1.0 / 2
    torch.testing.assert_close(blocks[:, 0], by_hand - by_hand.mean(dim=-1, keepdim=True))


def test_margins_by_bin_find_the_levels_that_tell_classes_apart():
    errors, log_snr, _ = simulated([0.0, 3.0, 0.0, 0.0], [1e-6] * 4, n_images=60)
    margins = binned_margins(errors * (-log_snr).exp()[..., None], log_snr, PLAN, elbo, n_bins=4)
    # Loss per unit of log-SNR is half of the error: 3 / 2 in the second bin.
    np.testing.assert_allclose(margins, np.tile([0, 1.5, 0, 0], (60, 1)), atol=1e-4)
    assert np.argmax(fitted_density(margins)) == 1


def test_levels_outside_the_learned_range_are_refused():
    weighting = LearnedWeighting(log_snr_min=0, log_snr_max=4, weights=(1,))
    with pytest.raises(ValueError, match=r"learned on 0 to 4; draw levels within that range"):
        weighting(torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize("weights", [(1.0, -0.1), (0.0, 0.0)])
def test_weights_that_cannot_weigh_are_refused(weights):
    with pytest.raises(ValueError, match="not negative and not all zero"):
        LearnedWeighting(log_snr_min=0, log_snr_max=4, weights=weights)


def test_an_empty_range_of_weights_is_refused():
    with pytest.raises(ValueError, match=r"log_snr_min=4.0 is not below log_snr_max=1.0"):
        LearnedWeighting(log_snr_min=4, log_snr_max=1, weights=(1,))


def test_errors_with_eliminated_classes_are_refused_for_learning():
    errors, log_snr, labels = simulated([1.0] * 4, [1.0] * 4)
    errors[0, 3, 1] = torch.nan
    with pytest.raises(ValueError, match="evaluate all classes on the images"):
        fit_learned_weights(errors, log_snr, labels, PLAN, n_bins=4)


def test_labels_that_are_no_index_are_refused():
    errors, log_snr, labels = simulated([1.0] * 4, [1.0] * 4)
    with pytest.raises(ValueError, match="labels run from 1 to 3 but the errors are of 3 classes"):
        fit_learned_weights(errors, log_snr, labels + 1, PLAN, n_bins=4)


def test_more_bins_than_levels_are_refused():
    errors, log_snr, _ = simulated([1.0] * 4, [1.0] * 4)
    with pytest.raises(ValueError, match="use fewer bins, or more levels"):
        binned_margins(errors, log_snr, PLAN, elbo, n_bins=40)
