import pytest
import torch

from diffusion.white_balance import MAX_GAIN, background, reference_background, white_balanced

GROUND = (0.82, 0.78, 0.86)
CELL = (0.45, 0.25, 0.55)


def smear(ground=GROUND, *, share_of_cell=0.3, side=64, noise=0.0, cell=CELL):
    """One cell of a given area on empty ground, as latents. (1, 3, side, side)"""
    at = torch.arange(side) - (side - 1) / 2
    distance = (at[:, None].square() + at.square()).sqrt()
    radius = distance.flatten().quantile(share_of_cell)
    is_cell = (distance < radius).float()
    colours = torch.tensor([ground, cell])[:, :, None, None]
    transmission = colours[0] * (1 - is_cell) + colours[1] * is_cell
    grain = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    return (2 * (transmission + noise * grain).clamp(0, 1) - 1)[None]


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=atol, rtol=0)


@pytest.mark.parametrize("share_of_cell", [0.0, 0.3, 0.6, 0.8])
def test_the_ground_is_found_however_much_of_the_frame_the_cell_fills(share_of_cell):
    close(background(smear(share_of_cell=share_of_cell))[0], GROUND)


def test_the_ground_is_found_under_sensor_noise_and_beside_dead_pixels():
    latents = smear(share_of_cell=0.6, noise=0.02)
    latents[..., :1, :60] = 1.0  # under 3 %: a reflection
    close(background(latents)[0], GROUND, atol=0.02)


def test_an_image_with_the_reference_ground_comes_back_as_it_was():
    latents = smear(noise=0.01)
    close(white_balanced(latents, background(latents)[0]), latents)


@pytest.mark.parametrize("gains", [(0.7, 0.9, 0.8), (1.1, 0.75, 1.05)])
def test_a_coloured_lamp_is_taken_back(gains):
    latents = smear()
    lit = 2 * ((latents + 1) / 2 * torch.tensor(gains)[:, None, None]) - 1
    assert (lit - latents).abs().max() > 0.1
    assert lit.max() < 1  # nothing was lost to overexposure
    close(white_balanced(lit, torch.tensor(GROUND)), latents)


def test_what_was_overexposed_stays_lost_and_the_rest_comes_back():
    latents = smear(ground=(0.82, 0.78, 0.9), cell=(0.4, 0.2, 0.5))
    latents[..., :1, :60] = 0.96  # brighter than the ground, too few pixels to be it
    lamp = torch.tensor([1.1, 1.1, 1.1])[:, None, None]
    lit = (2 * ((latents + 1) / 2 * lamp) - 1).clamp(max=1)
    back = white_balanced(lit, torch.tensor([0.82, 0.78, 0.9]))
    is_clipped = lit == 1
    assert is_clipped.any()
    close(back[~is_clipped], latents[~is_clipped])
    assert (back[is_clipped] < latents[is_clipped]).all()


def test_each_image_is_balanced_by_itself():
    images = torch.cat([smear(), smear((0.5, 0.6, 0.7)), smear(share_of_cell=0.7)])
    reference = torch.tensor([0.8, 0.8, 0.8])
    together = white_balanced(images, reference)
    for i in range(3):
        assert torch.equal(together[[i]], white_balanced(images[[i]], reference))
    close(background(together), reference.expand(3, -1))


def test_no_colour_is_amplified_or_dimmed_more_than_the_limit():
    dark, bright = smear((0.2, 0.8, 0.8), cell=(0.05, 0.2, 0.3)), smear()
    close(background(white_balanced(dark, torch.tensor([0.8, 0.8, 0.8])))[0, 0], 0.2 * MAX_GAIN)
    dimmed = background(white_balanced(bright, torch.tensor([0.1, 0.1, 0.1])))[0]
    close(dimmed, torch.tensor(GROUND) / MAX_GAIN)


def test_a_black_image_stays_black():
    assert white_balanced(-torch.ones(1, 3, 8, 8), torch.tensor(GROUND)).max() == -1


def test_balanced_images_stay_within_the_colour_range():
    balanced = white_balanced(smear((0.5, 0.6, 0.7), noise=0.1), torch.tensor([0.95, 0.95, 0.95]))
    assert balanced.min() >= -1
    assert balanced.max() <= 1


def test_the_reference_ground_is_the_middle_one_of_many_images():
    images = torch.cat([smear((r, 0.8, 0.8)) for r in (0.6, 0.9, 0.7, 0.8, 0.1)])
    close(reference_background(images), [0.7, 0.8, 0.8])
