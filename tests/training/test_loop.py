from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.conftest import write_folder
from training.config import RECIPES, TrainingConfig, smoke_test
from training.data import DataError, read_images
from training.ema import AveragedWeights
from training.loop import learning_rate, train
from training.loss import augmented, denoising_losses, draw_sigmas

CONFIG = replace(smoke_test(), n_images=48 * 16, snapshot_minutes=1e-9)


class KilledError(Exception):
    pass


@pytest.fixture
def data(tmp_path):
    return read_images(write_folder(tmp_path / "cells", {"a": 40, "b": 40}), 32)


def losses_of(config, data, out, *, kill_after=None):
    seen = {}

    def on_step(step, loss):
        seen[step] = loss
        if step == kill_after:
            raise KilledError

    try:
        trained = train(config, data, out, on_step=on_step)
    except KilledError:
        trained = None
    return seen, trained


def test_a_killed_run_started_again_has_the_same_loss_curve(data, tmp_path):
    whole, trained = losses_of(CONFIG, data, tmp_path / "whole")
    first, _ = losses_of(CONFIG, data, tmp_path / "killed", kill_after=30)
    second, resumed = losses_of(CONFIG, data, tmp_path / "killed")
    assert min(second) == 30  # step 30 was killed before its snapshot, so it is taken again
    assert first | second == whole
    for weight, same in zip(
        trained.network.parameters(), resumed.network.parameters(), strict=True
    ):
        assert torch.equal(weight, same)
    tables = [
        (tmp_path / name / "losses.csv").read_text().splitlines() for name in ("whole", "killed")
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 3


def test_training_lowers_the_loss(data, tmp_path):
    config = replace(CONFIG, n_images=128 * 16, snapshot_minutes=1.0)
    losses, trained = losses_of(config, data, tmp_path / "run")
    assert np.mean([losses[s] for s in range(120, 129)]) < 0.8 * np.mean(
        [losses[s] for s in range(1, 9)]
    )
    assert trained.n_images_seen == 128 * 16
    assert (tmp_path / "run" / "samples.png").is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_training_by_the_clock_ends_on_time(data, tmp_path):
    config = replace(CONFIG, minutes=0.02)
    _, trained = losses_of(config, data, tmp_path / "run")
    assert trained.training_s >= 1.2
    assert trained.n_images_seen > 0


def test_a_folder_of_another_run_is_refused_with_the_difference(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=2)
    with pytest.raises(DataError, match="differs in lr; give another --out"):
        train(replace(CONFIG, lr=1e-3), data, tmp_path / "run")


def test_other_data_are_refused(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=2)
    with pytest.raises(DataError, match="differs in the data"):
        train(CONFIG, data.where(data.labels >= 0).where(np.arange(80) > 3), tmp_path / "run")


def test_one_class_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="Only 1 class in the training data"):
        train(CONFIG, data.where(data.labels == 0), tmp_path / "run")


def test_an_untrained_network_has_a_loss_of_one_at_every_level():
    # It is the linear denoiser of its preconditioning, and the data have the variance it expects.
    torch.manual_seed(0)
    latents = 0.5 * torch.randn(256, 3, 8, 8)
    noise = torch.randn_like(latents)
    for sigma in (0.05, 0.5, 5.0):

        def linear(noised, sigmas, labels):
            return noised * 0.25 / (0.25 + sigmas.view(-1, 1, 1, 1) ** 2)

        losses = denoising_losses(
            linear, latents, torch.full((256,), sigma), noise, torch.zeros(256), sigma_data=0.5
        )
        assert float(losses.mean()) == pytest.approx(1.0, abs=0.02)


def test_noise_levels_follow_the_recipe():
    config = replace(smoke_test(), uniform_fraction=0.0)
    sigmas = draw_sigmas(100_000, config, torch.Generator().manual_seed(0))
    assert float(sigmas.log().mean()) == pytest.approx(config.log_sigma_mean, abs=0.02)
    assert float(sigmas.log().std()) == pytest.approx(config.log_sigma_std, abs=0.02)
    everywhere = replace(smoke_test(), uniform_fraction=1.0)
    log_snr = -2 * draw_sigmas(100_000, everywhere, torch.Generator().manual_seed(0)).log()
    assert float(log_snr.min()) == pytest.approx(-6, abs=0.01)
    assert float(log_snr.mean()) == pytest.approx(1.5, abs=0.05)


def test_stain_jitter_scales_optical_density_and_keeps_white_white():
    latents = torch.full((2000, 3, 4, 4), 0.0)  # transmission one half
    generator = torch.Generator().manual_seed(0)
    jittered = augmented(latents, generator, stain_jitter=0.1)
    log_gains = ((jittered + 1) / 2).log().div(np.log(0.5)).log()
    assert float(log_gains.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(log_gains.std()) == pytest.approx(0.1, abs=0.01)
    white = augmented(torch.ones(8, 3, 4, 4), generator, stain_jitter=0.1)
    torch.testing.assert_close(white, torch.ones(8, 3, 4, 4))


def test_turning_keeps_every_pixel():
    latents = torch.rand(16, 3, 4, 4)
    turned = augmented(latents, torch.Generator().manual_seed(1), stain_jitter=0.0)
    assert torch.equal(turned.flatten(2).sort(dim=2).values, latents.flatten(2).sort(dim=2).values)
    assert not torch.equal(turned, latents)


def test_the_average_reaches_weights_that_stay(tiny_checkpoint):
    from diffusion.checkpoint import load_checkpoint

    network = load_checkpoint(tiny_checkpoint).network
    averaged = AveragedWeights(network, halflife_images=100)
    before = [p.clone() for p in averaged.network.parameters()]
    for p in network.parameters():
        p.data.add_(1.0)
    averaged.update(network, batch_size=100, n_images_seen=100_000)  # one half-life
    for old, new in zip(before, averaged.network.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)


def test_the_learning_rate_warms_up_and_ends_near_zero():
    config = smoke_test()
    assert learning_rate(config, 0.0, 0) == pytest.approx(config.lr / 4)
    assert learning_rate(config, 0.0, 10_000) == pytest.approx(config.lr)
    assert learning_rate(config, 1.0, 10_000) == pytest.approx(config.lr / 100)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_carried_out(name):
    config = RECIPES[name]()
    assert config.name == name
    assert config.n_steps * config.batch_size >= config.n_images


def test_a_size_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"image_size=60 does not divide .* use a multiple of 16"):
        TrainingConfig(name="odd", image_size=60)


def test_no_images_and_no_time_are_refused():
    with pytest.raises(ValueError, match="both must be at least 1"):
        TrainingConfig(name="none", n_images=0)
    with pytest.raises(ValueError, match="give a positive number, such as 3"):
        TrainingConfig(name="none", minutes=0)
