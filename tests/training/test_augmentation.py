"""Looks of other slides: each is drawn alone, measured on test pictures, and compared with what
the decoder is told of it."""

import math
from dataclasses import fields, replace

import pytest
import torch

from diffusion.network import N_APPEARANCE
from diffusion.white_balance import background
from training.augmentation import Augmentation, augmented

REFERENCE = torch.tensor([0.85, 0.8, 0.88])
WHOLE_FRAME = {"strong_fraction": 1.0, "told_fraction": 1.0, "balanced_fraction": 0.0}
# Names of the numbers behind the 1 that says that the look is known.
STRONG, TURNED, LOG_AREA = 1, 2, 3
STAIN, GROUND, GAMMA, BLUR, NOISE = slice(4, 7), slice(7, 10), 10, 11, 12


def only(**changes) -> Augmentation:
    """Strong alteration of every image, told, by nothing but what is named."""
    nothing = {
        field.name: (0.0, 0.0) if field.name == "log_scale" else 0.0
        for field in fields(Augmentation)
    }
    return Augmentation(**(nothing | WHOLE_FRAME | changes))


def altered(latents, look, seed=0):
    return augmented(latents, torch.Generator().manual_seed(seed), look, REFERENCE)[:2]


def flat(n, side=32, transmission=(0.5, 0.5, 0.5)):
    return (2 * torch.tensor(transmission) - 1).view(1, 3, 1, 1).repeat(n, 1, side, side)


def cells(n, side=32, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.9


def transmission(latents):
    return (latents + 1) / 2


# What is told.


def test_a_look_is_described_by_as_many_numbers_as_the_network_takes():
    _, told = altered(cells(4), Augmentation())
    assert told.shape == (4, 1 + N_APPEARANCE)
    assert NOISE == N_APPEARANCE


def test_one_seed_is_one_look_and_another_seed_another():
    first, told = altered(cells(16), Augmentation())
    again, told_again = altered(cells(16), Augmentation())
    assert torch.equal(first, again)
    assert torch.equal(told, told_again)
    assert not torch.equal(first, altered(cells(16), Augmentation(), seed=1)[0])


def test_the_images_given_are_left_as_they_were():
    given = cells(16)
    kept = given.clone()
    altered(given, Augmentation())
    assert torch.equal(given, kept)


def test_without_strong_alteration_images_are_told_as_clean_or_not_at_all():
    _, told = altered(cells(200), replace(Augmentation(), strong_fraction=0.0))
    assert told[:, 1:].abs().max() == 0
    assert set(told[:, 0].tolist()) == {0.0, 1.0}


def test_the_stated_share_is_altered_strongly_and_the_rest_is_told_as_clean():
    look = replace(Augmentation(), told_fraction=1.0, balanced_fraction=0.0, strong_fraction=0.25)
    _, told = altered(cells(64), look)
    assert (told[:, 0] == 1).all()
    assert int(told[:, STRONG].sum()) == 16
    assert told[told[:, STRONG] == 0, 1:].abs().max() == 0


@pytest.mark.parametrize("told_fraction", [0.0, 0.3, 1.0])
def test_the_stated_share_is_told(told_fraction):
    look = replace(Augmentation(), told_fraction=told_fraction, balanced_fraction=0.0)
    _, told = altered(cells(4000, side=4), look)
    is_told = told[:, 0] == 1
    assert float(is_told.float().mean()) == pytest.approx(told_fraction, abs=0.03)
    assert not told[~is_told].any()
    # Strong and mild ones alike.
    n_strong = int(told[:, STRONG].sum())
    assert n_strong / 1600 == pytest.approx(told_fraction, abs=0.04)


def test_of_a_balanced_image_nothing_is_told():
    look = replace(Augmentation(), told_fraction=1.0, balanced_fraction=1.0)
    _, told = altered(cells(64), look)
    assert (told[:, 0] == 0).sum() == round(0.4 * 64)
    assert not told[:, 1:].any()  # those that are told are the mild ones


def test_balancing_brings_the_ground_back_to_the_training_sets():
    look = only(background=0.1, balanced_fraction=1.0)
    given = flat(64, transmission=REFERENCE.tolist())
    images, _ = altered(given, look)
    torch.testing.assert_close(background(images), REFERENCE.expand(64, -1), atol=0.01, rtol=0)
    lit, _ = altered(given, replace(look, balanced_fraction=0.0))
    assert (background(lit) - REFERENCE).abs().max() > 0.1


def test_every_pixel_stays_within_the_colour_range():
    extreme = replace(Augmentation(), strong_fraction=0.8, background=0.5, noise=0.5)
    given = torch.cat([cells(32), torch.ones(8, 3, 32, 32), -torch.ones(8, 3, 32, 32)])
    for seed in range(5):
        images, _ = altered(given, extreme, seed)
        assert torch.isfinite(images).all()
        assert images.min() >= -1
        assert images.max() <= 1


def test_altering_nothing_alters_nothing():
    # But for the square's symmetries: a strong one of no strength gives all pixels back. What is
    # darker than 1/512 is as dark as that.
    given = cells(16)
    images, told = altered(given, only())
    alone, _ = altered(given, replace(only(), strong_fraction=0.0))
    assert (told[:, STRONG] == 1).all()
    not_turned = told[:, TURNED] == 0
    assert not_turned.any()
    torch.testing.assert_close(images[not_turned], alone[not_turned], atol=1e-4, rtol=0)
    assert told[:, LOG_AREA:].abs().max() == 0


# The mild part.


def test_stain_jitter_scales_optical_density_and_keeps_white_white():
    look = replace(only(stain_jitter=0.1), strong_fraction=0.0)
    jittered, _ = altered(flat(2000, side=4), look)
    log_gains = transmission(jittered).log().div(math.log(0.5)).log()
    assert float(log_gains.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(log_gains.std()) == pytest.approx(0.1, abs=0.01)
    # Half of the variance is one stain's, half each colour's own.
    of_images = log_gains.mean(dim=(2, 3))
    assert float(of_images.T.corrcoef()[0, 1]) == pytest.approx(0.5, abs=0.05)
    white, _ = altered(torch.ones(8, 3, 4, 4), look)
    torch.testing.assert_close(white, torch.ones(8, 3, 4, 4))


def test_a_mild_look_is_one_of_the_squares_symmetries():
    given = cells(64, side=4)
    turned, _ = altered(given, replace(only(), strong_fraction=0.0))
    sorted_pixels = [images.flatten(2).sort(dim=2).values for images in (turned, given)]
    torch.testing.assert_close(*sorted_pixels, atol=1e-6, rtol=0)
    left_alone = (turned - given).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 1 <= int(left_alone.sum()) <= 20  # one in eight


# What is told is what was done.


def test_the_told_size_is_the_area_of_a_disc():
    side, radius = 64, 12.0
    at = torch.arange(side) - (side - 1) / 2
    distance = (at[:, None].square() + at.square()).sqrt()
    is_disc = distance < radius
    disc = torch.where(is_disc, -0.4, 0.6).expand(64, 3, side, side)
    images, told = altered(disc, only(log_scale=(-0.6, 0.5)))
    # Edges are interpolated: count how far each pixel is on the way from ground to disc. The
    # largest disc has a radius of 20, and mirrored ones come no nearer than 28.
    areas = ((0.6 - images[:, 0]) * (distance < 24)).sum(dim=(1, 2)) / (0.6 + 0.4)
    found = (areas / int(is_disc.sum())).log()
    assert float(told[:, LOG_AREA].min()) < -1
    assert float(told[:, LOG_AREA].max()) > 0.8
    torch.testing.assert_close(found, told[:, LOG_AREA], atol=0.03, rtol=0)


def test_told_turns_are_turns():
    # A bar turned by anything but quarters no longer fills whole rows or columns.
    bar = torch.full((64, 3, 32, 32), 0.6)
    bar[:, :, 12:20] = -0.4
    images, told = altered(bar, only())
    kept = (images[:, 0] - images[:, 0, :, :1]).abs().amax(dim=(1, 2))
    kept = torch.minimum(kept, (images[:, 0] - images[:, 0, :1]).abs().amax(dim=(1, 2)))
    is_turned = told[:, TURNED] == 1
    assert (kept[~is_turned] < 1e-4).all()
    assert (kept[is_turned] > 0.1).float().mean() > 0.9
    assert 0.5 < float(is_turned.float().mean()) < 0.9


def test_a_cell_is_shifted_by_no_more_than_the_stated_pixels():
    side = 64
    at = torch.arange(side) - (side - 1) / 2
    disc = torch.where((at[:, None].square() + at.square()).sqrt() < 12, -0.4, 0.6)
    images, _ = altered(disc.expand(200, 3, side, side), only(shift_px=5.0))
    mass = 0.6 - images[:, 0]
    total = mass.sum(dim=(1, 2))
    centres = torch.stack(
        [(mass.sum(dim=2) * at).sum(dim=1) / total, (mass.sum(dim=1) * at).sum(dim=1) / total]
    )
    # Turned ones shift along the turned axes: the distance is what stays, at most 5 along each.
    assert float(centres.norm(dim=0).max()) < 5 * 2**0.5 + 0.1
    assert float(centres.norm(dim=0).max()) > 5


def test_the_told_stain_is_each_colours_gain_of_density():
    images, told = altered(flat(64), only(stain_gain=0.2))
    density = -transmission(images).log().mean(dim=(2, 3))
    gains = density / -math.log(0.5)
    is_kept = transmission(images).amin(dim=(1, 2, 3)) > 0.02
    torch.testing.assert_close(gains[is_kept], 1 + told[is_kept, STAIN] / 4, atol=1e-3, rtol=0)
    assert (told[:, STAIN] != 0).any(dim=1).float().mean() > 0.6
    assert (told[:, STAIN] == 0).all(dim=1).any()  # some slides are stained as ours


def test_mixed_stains_colour_by_each_others_density():
    # Only red is absorbed; with mixing the other colours take some of its density.
    images, _ = altered(flat(64, transmission=(0.3, 1.0, 1.0)), only(stain_mixing=0.1))
    assert float((1 - transmission(images)[:, 1:]).amax()) > 0.05


def test_the_told_ground_is_the_light_lost_in_each_colour():
    images, told = altered(flat(64), only(background=0.1))
    density = -transmission(images).log().mean(dim=(2, 3))
    found = density + math.log(0.5)
    torch.testing.assert_close(found, told[:, GROUND] / 4, atol=1e-3, rtol=0)
    assert told[:, GROUND].abs().max() > 0.5


def test_the_told_gamma_is_the_exponent_of_the_cameras_curve():
    images, told = altered(flat(64), only(gamma=0.2))
    exponents = transmission(images).log().mean(dim=(1, 2, 3)) / math.log(0.5)
    torch.testing.assert_close(exponents.log(), told[:, GAMMA] / 4, atol=1e-3, rtol=0)
    assert told[:, GAMMA].abs().max() > 0.4


def test_the_told_blur_takes_fine_detail_away():
    # Of waves with a period of p pixels a Gaussian of s pixels leaves exp(-2 (pi s / p)^2).
    waves = 0.5 * (2 * math.pi / 8 * torch.arange(32)).cos().expand(256, 3, 32, 32)
    images, told = altered(waves, only(blur_px=3.0))  # 1.5 at 32 px
    straight = told[:, TURNED] == 0  # interpolation between turned pixels blurs too
    blur = told[straight, BLUR]
    contrast = images[straight, :, 8:-8, 8:-8].std(dim=(1, 2, 3)) / waves[0].std()
    torch.testing.assert_close(
        contrast, (-2 * (math.pi * blur / 8).square()).exp(), atol=0.03, rtol=0
    )
    assert 0.2 < float((blur > 0).float().mean()) < 0.6
    assert contrast.min() < 0.6


def test_the_told_noise_is_the_standard_deviation_of_a_flat_image():
    images, told = altered(flat(64, side=64), only(noise=0.06))
    found = images.std(dim=(1, 2, 3))
    torch.testing.assert_close(found, told[:, NOISE] / 20, atol=1e-3, rtol=0.03)
    assert 0.2 < float((told[:, NOISE] > 0).float().mean()) < 0.6


def test_it_is_said_which_images_were_altered_strongly():
    look = replace(only(), strong_fraction=0.25, told_fraction=1.0)
    _, told, is_strong = augmented(cells(16), torch.Generator().manual_seed(0), look, REFERENCE)
    assert int(is_strong.sum()) == 4
    assert torch.equal(told[:, 1] == 1, is_strong)
