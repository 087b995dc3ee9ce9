"""Evidence maps: exact where the truth is known, complete everywhere."""

import numpy as np
import pytest
import torch

from diffusion.classifier import paired_class_errors
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.evidence import (
    AGAINST,
    FOR,
    evidence_maps,
    evidence_picture,
    inverse_turn,
    kept_by_cap,
    picture_scale,
)
from diffusion.latents import dihedral
from diffusion.network import CellDenoiser, Whole
from diffusion.schedule import sigmas_from_log_snr
from diffusion.weighting import LearnedWeighting, block_log_likelihoods, elbo, robust
from tests.diffusion.pixel_gaussians import PATCH, PixelGaussians

PROBLEM = PixelGaussians.with_patch()
IMAGES = PROBLEM.sample([0, 1, 0])
DIGESTS = ["a", "b", "c"]
PLAN = DrawPlan(log_snr_min=-3, log_snr_max=7, n_levels=5, n_blocks=4)


def maps_of(problem=PROBLEM, images=IMAGES, plan=PLAN, digests=DIGESTS, **options):
    classes, rivals = options.pop("classes", [0, 1, 1]), options.pop("rivals", [1, 0, 0])
    options = {"weighting": elbo} | options
    return evidence_maps(Whole(problem.denoise), images, digests, classes, rivals, plan, **options)


def errors_of(split, images, plan, digests, n_classes):
    """Errors of all classes on the classifier's own draws, and their levels."""
    shape = tuple(images.shape[1:])
    draws = [keyed_draws(plan, shape, seed=0, image_digest=digest) for digest in digests]
    log_snr = torch.stack([d.log_snr for d in draws])
    errors = paired_class_errors(
        split,
        images,
        sigmas_from_log_snr(log_snr).to(images),
        torch.stack([d.noise for d in draws]).to(images),
        torch.arange(n_classes),
        turns=torch.stack([d.turns for d in draws]),
    )
    return errors, log_snr


def test_the_map_is_the_log_likelihood_ratio_of_each_pixel():
    # The pairs cancel all noise of a linear denoiser; the ends of the range are what is left.
    plan = DrawPlan(log_snr_min=-12, log_snr_max=14, n_levels=52, n_blocks=4)
    exact = PROBLEM.log_odds_map(IMAGES, 0, 1) * torch.tensor([1, -1, -1]).view(-1, 1, 1)
    assert exact[:, PATCH].abs().mean() > 1
    found = maps_of(plan=plan)
    torch.testing.assert_close(found.total, exact, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.log_odds, exact.sum(dim=(1, 2)), rtol=2e-4, atol=2e-3)


def test_nothing_is_said_where_the_classes_do_not_differ():
    found = maps_of()
    assert found.total[:, ~PATCH].abs().max() < 1e-12
    assert (found.total[:, PATCH] != 0).all()


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("density", [None, (0.1, 0.6, 0.3)])
@pytest.mark.parametrize("weighting", [elbo, robust])
def test_the_map_sums_to_the_classifiers_log_odds(is_turned, density, weighting):
    plan = PLAN.model_copy(update={"turned": is_turned, "density": density})
    found = maps_of(plan=plan, weighting=weighting)
    errors, log_snr = errors_of(Whole(PROBLEM.denoise), IMAGES, plan, DIGESTS, 2)
    scores = block_log_likelihoods(errors, log_snr, plan, weighting).mean(dim=1)
    reported = (scores[:, 0] - scores[:, 1]) * torch.tensor([1, -1, -1])
    torch.testing.assert_close(found.log_odds, reported, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.total.sum(dim=(1, 2)), reported, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.bands.sum(dim=1), found.total)


def test_the_map_of_a_network_in_float32_sums_to_its_log_odds():
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=32, n_classes=3, widths=(16, 32), n_blocks=(1, 1), n_decoder_blocks=(1, 1)
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    images = torch.rand((2, 3, 32, 32)) * 2 - 1
    split = network.split(appearance="clean")
    found = evidence_maps(split, images, ["a", "b"], [0, 2], [1, 0], PLAN, weighting=elbo)
    with torch.no_grad():
        errors, log_snr = errors_of(split, images, PLAN, ["a", "b"], 3)
    scores = block_log_likelihoods(errors, log_snr, PLAN, elbo).mean(dim=1)
    reported = torch.stack([scores[0, 0] - scores[0, 1], scores[1, 2] - scores[1, 0]])
    assert reported.abs().min() > 0.1
    torch.testing.assert_close(found.log_odds, reported, rtol=1e-4, atol=1e-4)


def test_with_a_cap_the_map_still_sums_to_the_log_odds():
    problem = PixelGaussians.with_patch(n_classes=3)
    images = problem.sample([0, 1, 2])
    capped = LearnedWeighting(log_snr_min=-3, log_snr_max=7, weights=(3.0, 1.0, 0.5), cap=2.0)
    split = Whole(problem.denoise)
    errors, log_snr = errors_of(split, images, PLAN, DIGESTS, 3)
    scores = block_log_likelihoods(errors, log_snr, PLAN, capped).mean(dim=1)
    uncapped = capped.model_copy(update={"cap": None})
    classes, rivals = [0, 1, 2], [1, 2, 0]
    kept = kept_by_cap(errors, log_snr, PLAN, capped, classes, rivals)
    found = maps_of(problem, images, weighting=capped, kept=kept, classes=classes, rivals=rivals)
    each = torch.arange(3)
    torch.testing.assert_close(found.log_odds, scores[each, classes] - scores[each, rivals])
    free = block_log_likelihoods(errors, log_snr, PLAN, uncapped).mean(dim=1)
    assert not torch.allclose(free[each, classes] - free[each, rivals], found.log_odds)
    assert kept.min() < 1


def test_a_cap_that_is_not_accounted_for_is_refused():
    capped = LearnedWeighting(log_snr_min=-3, log_snr_max=7, weights=(1.0,), cap=2.0)
    with pytest.raises(ValueError, match="give `kept` from `kept_by_cap`"):
        maps_of(weighting=capped)


def test_a_class_that_left_the_race_has_no_log_odds_to_explain():
    capped = LearnedWeighting(log_snr_min=-3, log_snr_max=7, weights=(1.0,), cap=2.0)
    errors = torch.ones(1, PLAN.n_draws, 2)
    errors[0, -2:, 1] = torch.nan
    with pytest.raises(ValueError, match="left the race before its end"):
        kept_by_cap(errors, torch.zeros(1, PLAN.n_draws), PLAN, capped, [0], [1])


def test_exchanging_the_classes_changes_the_sign_only():
    there, back = maps_of(), maps_of(classes=[1, 0, 0], rivals=[0, 1, 1])
    torch.testing.assert_close(there.total, -back.total)


def test_bands_hold_the_draws_between_their_edges():
    low_noise_only = maps_of(band_edges=(-3.5,)).bands
    assert low_noise_only[:, 0].abs().max() == 0
    split_at_2 = maps_of(band_edges=(2.0,)).bands
    by_three = maps_of().bands
    torch.testing.assert_close(split_at_2[:, 0], by_three[:, 0])
    torch.testing.assert_close(split_at_2[:, 1], by_three[:, 1:].sum(dim=1))


def test_standard_errors_tell_how_far_maps_of_other_noise_lie_apart():
    plan = PLAN.model_copy(update={"n_blocks": 30})
    repeats = torch.stack([maps_of(plan=plan, seed=seed).total for seed in range(30)])
    stated = maps_of(plan=plan).standard_errors[:, PATCH].square().mean().sqrt()
    found = repeats.std(dim=0)[:, PATCH].square().mean().sqrt()
    assert float(stated / found) == pytest.approx(1, abs=0.15)


def test_one_block_has_no_standard_error():
    found = maps_of(plan=PLAN.model_copy(update={"n_blocks": 1}))
    assert found.standard_errors is None
    assert found.band_standard_errors is None
    assert found.log_odds_standard_errors is None


def test_a_map_does_not_depend_on_neighbours_or_chunks():
    together = maps_of()
    alone = maps_of(images=IMAGES[1:2], digests=["b"], classes=[1], rivals=[0], micro_batch=7)
    torch.testing.assert_close(alone.total[0], together.total[1])


def test_turned_draws_point_at_the_same_place_as_straight_ones():
    images = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    images[0, 0, 1:3, 4:6] = 2.0
    strengths = torch.tensor([0.2, 0.9], dtype=torch.float64)

    def denoise(noised, sigmas, labels):
        return noised * strengths[labels].view(-1, 1, 1, 1)

    # Turns 0 and 1, one in each half of the range.
    plan = DrawPlan(log_snr_min=6, log_snr_max=10, n_levels=2, n_blocks=1, turned=True)
    found = evidence_maps(
        Whole(denoise), images, ["a"], [1], [0], plan, weighting=robust, band_edges=[8.0]
    )
    for band in found.bands[0]:
        assert set(band.flatten().topk(4).indices.tolist()) == {12, 13, 20, 21}


@pytest.mark.parametrize("turn", range(8))
def test_each_symmetry_of_the_square_is_undone(turn):
    image = torch.arange(9.0).view(3, 3)
    assert torch.equal(dihedral(dihedral(image, turn), inverse_turn(turn)), image)


def test_a_missing_rival_is_refused():
    with pytest.raises(ValueError, match="one of each for every image"):
        maps_of(rivals=[1, 0])


# The picture.


def test_clear_evidence_is_coloured_and_the_rest_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    evidence = torch.zeros(4, 4)
    evidence[0, 0], evidence[1, 1], evidence[2, 2] = 5.0, -5.0, 5.0
    errors = torch.ones(4, 4)
    errors[2, 2] = 3.0
    picture = evidence_picture(image, evidence, errors).astype(int)
    grey = picture.max(axis=-1) == picture.min(axis=-1)
    assert not grey[0, 0]
    assert not grey[1, 1]
    assert grey.sum() == 14
    # Blue for, vermilion against.
    assert np.argmax(picture[0, 0]) == np.argmax(FOR)
    assert np.argmax(picture[1, 1]) == np.argmax(AGAINST)


def test_colour_deepens_up_to_the_scale():
    image = np.full((1, 3, 3), 200, dtype=np.uint8)
    picture = evidence_picture(image, torch.tensor([[1.0, 4.0, 8.0]]), scale=4.0).astype(int)
    colourfulness = np.ptp(picture[0], axis=-1)
    assert 0 < colourfulness[0] < colourfulness[1] == colourfulness[2]


def test_a_picture_without_clear_evidence_is_grey():
    image = np.full((2, 2, 3), 90, dtype=np.uint8)
    picture = evidence_picture(image, torch.ones(2, 2), torch.ones(2, 2))
    assert (np.ptp(picture, axis=-1) == 0).all()
    assert picture_scale(torch.ones(2, 2), torch.ones(2, 2)) == 1.0


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="give an RGB image of the map's height and width"):
        evidence_picture(np.zeros((3, 3, 3), np.uint8), torch.zeros(4, 4))
