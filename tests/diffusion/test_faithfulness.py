"""Tests of explanations, tested on a problem where the right explanation is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from diffusion.draws import DrawPlan
from diffusion.evidence import evidence_maps
from diffusion.faithfulness import (
    gaussian_blur,
    pointing_game,
    rank_correlation,
    removal_curve,
    with_shuffled_weights,
)
from diffusion.network import CellDenoiser, Whole
from diffusion.weighting import elbo
from tests.diffusion.pixel_gaussians import PATCH, PixelGaussians

PROBLEM = PixelGaussians.with_patch(contrast=1.5)
IMAGE = PROBLEM.means[1]
PLAN = DrawPlan(log_snr_min=-6, log_snr_max=8, n_levels=14, n_blocks=2)


def score(latents):
    return PROBLEM.log_odds_map(latents, 1, 0).sum(dim=(1, 2))


def evidence():
    found = evidence_maps(
        Whole(PROBLEM.denoise), IMAGE[None], ["a"], [1], [0], PLAN, weighting=elbo
    )
    return found.total[0]


def curve(of_map, **options):
    return removal_curve(
        score, IMAGE, of_map, generator=torch.Generator().manual_seed(0), **options
    )


@pytest.mark.parametrize("inserting", [False, True])
def test_a_true_map_moves_the_odds_sooner_than_chance(inserting):
    found = curve(evidence(), inserting=inserting)
    assert found.advantage > 0.2
    # The patch is a ninth of the picture: two tenths of the pixels hold all there is to say.
    done = (found.by_evidence[4] - found.by_evidence[0]) / (
        found.by_evidence[-1] - found.by_evidence[0]
    )
    assert found.fractions[4] == 0.2
    assert done == pytest.approx(1)


def test_a_map_of_the_wrong_place_is_no_better_than_chance():
    assert curve(evidence().roll(6, dims=0)).advantage < 0.05


def test_curves_begin_and_end_alike_whatever_the_order():
    found = curve(evidence())
    for end in (0, -1):
        torch.testing.assert_close(
            found.by_chance[:, end], found.by_evidence[end].expand(len(found.by_chance))
        )
    assert found.by_evidence[0] == pytest.approx(float(score(IMAGE[None])))


def test_the_blur_is_scipys():
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    expected = gaussian_filter(image.numpy(), (0, 0, 1.5, 1.5), mode="nearest", truncate=3.0)
    np.testing.assert_allclose(gaussian_blur(image, 1.5).numpy(), expected, atol=2e-3)
    flat = torch.full((1, 1, 8, 8), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 4.0), flat)


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 9, (8, 8)).astype(float)
    other = one + rng.normal(0, 3, (8, 8)).round()
    found = rank_correlation(torch.from_numpy(one), torch.from_numpy(other))
    assert found == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)


def test_shuffled_weights_are_the_same_numbers_in_other_places():
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=16, n_classes=2, widths=(16, 32), n_blocks=(1, 1), n_decoder_blocks=(1, 1)
    )
    before = [p.clone() for p in network.parameters()]
    shuffled = list(with_shuffled_weights(network, 3).parameters())
    for old, kept, new in zip(before, network.parameters(), shuffled, strict=True):
        assert torch.equal(old, kept)
        assert torch.equal(old.flatten().sort().values, new.detach().flatten().sort().values)
    assert any(not torch.equal(old, new) for old, new in zip(before, shuffled, strict=True))


def test_a_map_of_the_network_does_not_survive_the_shuffling_of_its_weights():
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=16, n_classes=2, widths=(16, 32), n_blocks=(1, 1), n_decoder_blocks=(1, 1)
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    image = torch.rand(1, 3, 16, 16) * 2 - 1

    def map_of(one: CellDenoiser, seed: int) -> torch.Tensor:
        found = evidence_maps(
            one.split(appearance="clean"), image, ["a"], [1], [0], PLAN, weighting=elbo, seed=seed
        )
        return found.total[0]

    own = map_of(network, 0)
    of_other_noise = rank_correlation(own, map_of(network, 1))
    of_shuffled = rank_correlation(own, map_of(with_shuffled_weights(network, 1), 0))
    assert abs(of_shuffled) < 0.3 < of_other_noise


def test_evidence_points_at_the_patch_where_the_classes_differ():
    found = pointing_game(evidence(), PATCH)
    assert found.is_hit
    assert found.share_inside == pytest.approx(1)
    assert found.area == pytest.approx(16 / 144)


def test_evidence_elsewhere_misses():
    found = pointing_game(evidence().roll(6, dims=0), PATCH)
    assert not found.is_hit
    assert found.share_inside < 0.5


def test_an_even_map_gets_the_share_that_chance_gives():
    found = pointing_game(torch.ones(12, 12), PATCH)
    assert found.share_inside == pytest.approx(found.area)


def test_a_mask_without_an_inside_is_refused():
    with pytest.raises(ValueError, match="some pixels inside and some outside"):
        pointing_game(torch.ones(12, 12), torch.zeros(12, 12, dtype=torch.bool))
