"""Counterfactuals on pictures whose classes differ in a known patch: the right edit is known."""

from functools import partial

import pytest
import torch

from diffusion.counterfactual import (
    EditPlan,
    change,
    counterfactuals,
    cycle_errors,
    edited,
    guided,
)
from diffusion.network import CellDenoiser
from diffusion.schedule import sigmas_from_log_snr
from tests.diffusion.pixel_gaussians import PATCH, PixelGaussians

PROBLEM = PixelGaussians.with_patch(contrast=0.5)
IMAGES = PROBLEM.sample([0, 1, 0], seed=3)
DIGESTS = ["a", "b", "c"]
PLAN = EditPlan(log_snr_min=-4, log_snr_last_start=4)


def denoise_any(noised, sigmas, class_labels, problem=PROBLEM):
    """Exact, also under the label after the last: the mean over what the image may be of."""
    classes = torch.arange(len(problem.means))
    of_each = torch.stack([problem.denoise(noised, sigmas, k.expand(len(noised))) for k in classes])
    squared = (noised - problem.means[:, None]).square().flatten(2).sum(dim=2)
    odds = (-squared / (2 * (problem.scale**2 + sigmas**2))).softmax(dim=0)
    of_any = (odds[:, :, None, None, None] * of_each).sum(dim=0)
    return torch.cat([of_each, of_any[None]])[class_labels, torch.arange(len(noised))]


def found_on(images=IMAGES, digests=DIGESTS, plan=PLAN, classify=PROBLEM.posteriors, **options):
    sources, targets = options.pop("sources", [0, 1, 0]), options.pop("targets", [1, 0, 1])
    options = {"value_range": None} | options
    denoise = options.pop("denoise", PROBLEM.denoise)
    return counterfactuals(denoise, images, digests, sources, targets, classify, plan, **options)


def ladder_noise(plan, n=3):
    generator = torch.Generator().manual_seed(0)
    shape = (n, plan.n_levels, *IMAGES.shape[1:])
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def edited_from(start, labels, plan=PLAN, denoise=PROBLEM.denoise, images=IMAGES, noise=None):
    noise = ladder_noise(plan) if noise is None else noise
    n = len(images)
    sources = torch.tensor([0, 1, 0])[:n]
    starts = torch.full((n,), start)
    return edited(
        denoise, images, noise, torch.arange(n), starts, sources, torch.tensor(labels)[:n], plan
    )


def test_every_edit_convinces_and_changes_nothing_outside_the_patch():
    found = found_on()
    for one, image in zip(found, IMAGES, strict=True):
        assert one.is_found
        assert one.probability > 0.9
        difference = (one.latents - image).abs().amax(dim=0)
        assert difference[~PATCH].max() < 1e-12
        assert difference[PATCH].min() > 0.1


def test_from_pure_noise_the_edit_is_the_difference_of_the_classes():
    plan = EditPlan(log_snr_min=-20, log_snr_max=9, n_levels=59)
    moved = edited_from(0, [1, 0, 1], plan=plan) - IMAGES
    exact = (PROBLEM.means[1] - PROBLEM.means[0]) * torch.tensor([1, -1, 1]).view(-1, 1, 1, 1)
    torch.testing.assert_close(moved, exact, rtol=0, atol=2e-3)


def test_no_lower_start_convinces():
    found = found_on()
    assert len({one.log_snr for one in found}) > 1
    for i, one in enumerate(found):
        less_noise = [s for s in PLAN.starts if float(PLAN.log_snr[s]) > one.log_snr]
        assert less_noise
        again = found_on(
            IMAGES[[i]],
            [DIGESTS[i]],
            PLAN.model_copy(
                update={
                    "log_snr_min": float(PLAN.log_snr[less_noise[-1]]),
                    "n_levels": PLAN.n_levels - less_noise[-1],
                }
            ),
            sources=[one.source],
            targets=[one.target],
        )
        assert not again[0].is_found


@pytest.mark.parametrize("denoise", [PROBLEM.denoise, guided(denoise_any, 2, 1.5)])
@pytest.mark.parametrize("start", [0, 9])
def test_the_identity_edit_is_exact(start, denoise):
    same = edited_from(start, [0, 1, 0], denoise=denoise)
    torch.testing.assert_close(same, IMAGES, rtol=0, atol=1e-12)
    assert all(one.identity_error < 1e-12 for one in found_on(denoise=denoise))


def test_the_identity_edit_of_a_network_in_float32_is_exact_to_rounding():
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=16,
        n_classes=3,
        widths=(16, 32),
        n_blocks=(1, 1),
        n_decoder_blocks=(1, 1),
        trunk_can_be_told=True,
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    noise = torch.randn(3, PLAN.n_levels, 3, 16, 16)
    denoise = guided(network.as_denoiser(), 3)
    same = edited_from(2, [0, 1, 0], denoise=denoise, images=images, noise=noise)
    torch.testing.assert_close(same, images, rtol=0, atol=2e-5)
    other = edited_from(2, [1, 2, 1], denoise=denoise, images=images, noise=noise)
    assert (other - images).abs().max() > 1e-3


def test_edits_are_those_of_stored_noise_maps():
    """The published form: noise maps by the source class, then sampling by the target."""
    noise = ladder_noise(PLAN)
    sigmas = sigmas_from_log_snr(PLAN.log_snr)
    image, source, target, start = IMAGES[:1], torch.tensor([0]), torch.tensor([1]), 5

    def posterior_mean(noised, step, label):
        denoised = PROBLEM.denoise(noised, sigmas[step : step + 1], label)
        if step + 1 == PLAN.n_levels:
            return denoised
        return denoised + (sigmas[step + 1] / sigmas[step]) ** 2 * (noised - denoised)

    def spread(step):
        if step + 1 == PLAN.n_levels:
            return torch.tensor(1.0)
        return sigmas[step + 1] * (1 - (sigmas[step + 1] / sigmas[step]) ** 2).sqrt()

    chain = [image + s * noise[0, i] for i, s in enumerate(sigmas)] + [image]
    maps = [
        (chain[i + 1] - posterior_mean(chain[i], i, source)) / spread(i)
        for i in range(PLAN.n_levels)
    ]
    latents = chain[start]
    for step in range(start, PLAN.n_levels):
        latents = posterior_mean(latents, step, target) + spread(step) * maps[step]
    ours = edited_from(start, [1, 0, 1])[:1]
    torch.testing.assert_close(ours, latents)


def test_more_noise_at_the_start_allows_a_larger_edit():
    sizes = [
        float((edited_from(start, [1, 0, 1]) - IMAGES).abs().mean()) for start in (16, 12, 8, 4)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 5


def test_guidance_goes_further():
    plain = (edited_from(6, [1, 0, 1]) - IMAGES).abs().mean()
    further = (edited_from(6, [1, 0, 1], denoise=guided(denoise_any, 2, 1.0)) - IMAGES).abs().mean()
    assert further > 1.05 * plain


def test_guided_edits_stop_at_a_class_that_lies_between_others():
    """Guided away from the source alone, which is to call it "unknown", they run past it."""
    problem = PixelGaussians.with_patch(contrast=0.3, n_classes=3)
    images = problem.sample([0, 0, 0], seed=4)

    def redrawn(unknown):
        denoise = guided(partial(denoise_any, problem=problem), unknown, 2.0)
        noise, rows, zeros = ladder_noise(PLAN), torch.arange(3), torch.zeros(3, dtype=torch.long)
        edits = edited(denoise, images, noise, rows, zeros + 2, zeros, zeros + 1, PLAN)
        return problem.posteriors(edits).argmax(dim=1).tolist()

    assert redrawn(unknown=3) == [1, 1, 1]
    assert redrawn(unknown=0) == [2, 2, 2]


def test_an_edit_does_not_depend_on_its_neighbours():
    together = found_on()
    for i in range(3):
        (alone,) = found_on(
            IMAGES[[i]], [DIGESTS[i]], sources=[[0, 1, 0][i]], targets=[[1, 0, 1][i]]
        )
        assert alone.log_snr == together[i].log_snr
        torch.testing.assert_close(alone.latents, together[i].latents)


def test_the_number_of_starts_tried_at_once_changes_the_cost_only():
    one_by_one = found_on(plan=PLAN.model_copy(update={"starts_at_once": 1}))
    at_once = found_on(plan=PLAN.model_copy(update={"starts_at_once": 50}))
    for one, other in zip(one_by_one, at_once, strict=True):
        assert one.log_snr == other.log_snr
        torch.testing.assert_close(one.latents, other.latents)


def test_where_no_edit_convinces_it_says_so_and_shows_the_closest():
    def stubborn(latents, digests):
        return 0.5 * PROBLEM.posteriors(latents)

    for one in found_on(classify=stubborn):
        assert not one.is_found
        assert 0 < one.probability <= 0.5
        assert one.identity_error < 1e-12


def test_the_classifier_is_asked_with_a_digest_for_each_edit():
    asked = []

    def remembering(latents, digests):
        asked.extend(digests)
        return PROBLEM.posteriors(latents)

    found_on(classify=remembering)
    assert len(set(asked)) == len(asked)
    assert any(digest.startswith("a:0>1@") for digest in asked)


def test_pictures_stay_in_their_range():
    (one,) = found_on(
        IMAGES[:1].clamp(-0.2, 0.2), ["a"], sources=[0], targets=[1], value_range=(-0.2, 0.2)
    )
    assert one.latents.abs().max() <= 0.2


def test_an_image_with_its_own_class_as_target_is_refused():
    with pytest.raises(ValueError, match="ask for another class"):
        found_on(targets=[1, 1, 1])


def test_a_missing_digest_is_refused():
    with pytest.raises(ValueError, match="give one of each for every image"):
        found_on(digests=["a"])


def test_levels_out_of_order_are_refused():
    with pytest.raises(ValueError, match="give them in rising order"):
        EditPlan(log_snr_min=5, log_snr_last_start=1)


# Measures.


def test_change_counts_pixels_and_grey_values():
    image, edit = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    edit[1, 0, :2] = 0.5
    edit[0, 3, 3] = 0.01
    found = change(image, edit)
    assert found.fraction_changed == 2 / 16
    assert found.l1 == pytest.approx((2 * 0.5 + 0.01) / 48)
    errors = torch.full((4, 4), 1.0)
    errors[0, 1] = 0.001
    assert change(image, edit, threshold=3 * errors).changed.nonzero().tolist() == [[0, 1]]


def test_there_and_back_is_closer_to_the_image_than_there():
    found = found_on()
    there = torch.tensor([change(i, o.latents).l1 for i, o in zip(IMAGES, found, strict=True)])
    back = cycle_errors(PROBLEM.denoise, IMAGES, DIGESTS, found, PLAN)
    # Both ways are linear and equal here, so everything comes back.
    assert (back < 1e-9).all()
    assert (there > 1e-3).all()
