import pytest
import torch
from diffusers import DiffusionPipeline

from diffusion.checkpoint import make_scheduler
from diffusion.pipeline import CellPipeline
from diffusion.sampler import draw_noise, sample_latents
from tests.diffusion.test_network import small_network


class GaussianNetwork(torch.nn.Module):
    """Raw network whose denoiser is exact for pixels distributed as N(mean of class, sd^2)."""

    means = torch.tensor([-0.4, 0.6, 0.1])

    def __init__(self, sd: float, sigma_data: float) -> None:
        super().__init__()
        self.dummy = torch.nn.Parameter(torch.zeros(1))
        self.sd = sd
        self.config = type(
            "Config",
            (),
            {"n_classes": 2, "n_channels": 3, "image_size": 32, "sigma_data": sigma_data},
        )

    def forward(self, scaled, timesteps, labels):
        sigma = (4 * timesteps).exp().view(-1, 1, 1, 1)
        total = (sigma**2 + self.config.sigma_data**2).sqrt()
        noised = scaled * total
        mean = self.means[labels].view(-1, 1, 1, 1)
        denoised = mean + self.sd**2 / (self.sd**2 + sigma**2) * (noised - mean)
        c_skip, c_out = (
            (self.config.sigma_data / total) ** 2,
            sigma * self.config.sigma_data / total,
        )
        return (denoised - c_skip * noised) / c_out


def test_samples_of_an_exact_model_have_the_mean_and_spread_of_their_class():
    network = GaussianNetwork(sd=0.25, sigma_data=0.5)
    drawn = sample_latents(
        network, make_scheduler(network), [0] * 8 + [1] * 8, range(16), n_steps=24
    )
    for chosen, mean in ((drawn[:8], -0.4), (drawn[8:], 0.6)):
        assert float(chosen.mean()) == pytest.approx(mean, abs=0.01)
        assert float(chosen.std()) == pytest.approx(0.25, abs=0.01)


def test_guidance_moves_away_from_the_unconditional_mean():
    network = GaussianNetwork(sd=0.25, sigma_data=0.5)
    plain, guided = (
        sample_latents(network, make_scheduler(network), [1] * 4, range(4), guidance_scale=g)
        for g in (1.0, 2.0)
    )
    # Means: class 0.6, unconditional 0.1: twice the way is 1.1.
    assert float(plain.mean()) == pytest.approx(0.6, abs=0.02)
    assert float(guided.mean()) == pytest.approx(1.1, abs=0.02)


def test_an_image_depends_on_its_own_seed_and_not_on_its_neighbours():
    network = small_network()
    scheduler = make_scheduler(network)
    together = sample_latents(network, scheduler, [0, 1, 2], [5, 6, 7], n_steps=4)
    alone = sample_latents(network, scheduler, [1], [6], n_steps=4)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_cells_are_drawn_with_the_look_of_the_training_set():
    network = small_network()
    scheduler = make_scheduler(network)

    def drawn():
        return sample_latents(network, scheduler, [0], [5], n_steps=4)

    before = drawn()
    network.embed_appearance.weight[:, 1:] += 1  # what other looks are told with
    assert torch.equal(drawn(), before)
    network.embed_appearance.weight[:, 0] += 1  # the 1 that says the look is known
    assert not torch.equal(drawn(), before)


def test_cells_are_drawn_by_a_trunk_that_is_told_the_class():
    network = small_network(trunk_can_be_told=True)
    scheduler = make_scheduler(network)

    def drawn():
        return sample_latents(network, scheduler, [0], [5], n_steps=4)

    before = drawn()
    network.trunk_class.weight[1:] += 1  # the other classes, and the unknown one
    assert torch.equal(drawn(), before)
    network.trunk_class.weight[0] += 1
    assert not torch.equal(drawn(), before)


def test_guidance_goes_from_where_trunk_and_decoder_are_told_that_the_class_is_unknown():
    network = small_network(trunk_can_be_told=True)
    scheduler = make_scheduler(network)

    def drawn(guidance_scale):
        # A single step is linear in what the network says.
        return sample_latents(
            network, scheduler, [0], [5], n_steps=1, guidance_scale=guidance_scale
        )

    plain, beyond, back = (drawn(scale) for scale in (1.0, 3.0, 0.0))
    for table in (network.trunk_class.weight, network.embed_class.weight):
        table[0] = table[-1]
    unknown = drawn(1.0)
    assert (plain - unknown).abs().max() > 1e-2
    torch.testing.assert_close(back, unknown, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(beyond, unknown + 3 * (plain - unknown), rtol=1e-4, atol=1e-4)


def test_one_seed_is_one_noise():
    noise = draw_noise([3, 4, 3], (2, 2))
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])


def test_diffusers_own_pipeline_interface_draws_the_same_picture(tiny_checkpoint):
    pipelines = [
        kind.from_pretrained(tiny_checkpoint) for kind in (CellPipeline, DiffusionPipeline)
    ]
    assert all(isinstance(pipeline, CellPipeline) for pipeline in pipelines)
    first, second = (p([0], [9], num_inference_steps=4).images[0] for p in pipelines)
    assert first.size == (32, 32)
    assert first.tobytes() == second.tobytes()


def test_a_seed_for_each_image_is_demanded():
    network = small_network()
    with pytest.raises(ValueError, match="2 class labels for 1 seeds; give one seed an image"):
        sample_latents(network, make_scheduler(network), [0, 1], [5])


def test_an_unknown_class_is_refused():
    network = small_network()
    with pytest.raises(ValueError, match=r"class labels \[3\] are not all below 3"):
        sample_latents(network, make_scheduler(network), [3], [5])
