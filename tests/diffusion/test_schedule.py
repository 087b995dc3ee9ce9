import pytest
import torch

from diffusion.schedule import (
    alphas_from_log_snr,
    karras_sigmas,
    log_snr_from_sigmas,
    sigmas_from_log_snr,
    sigmas_from_timesteps,
    timesteps_from_sigmas,
)

SIGMAS = torch.logspace(-3, 2, 30, dtype=torch.float64)


def test_log_snr_is_minus_two_log_sigma():
    torch.testing.assert_close(log_snr_from_sigmas(torch.tensor([1.0])), torch.tensor([0.0]))
    torch.testing.assert_close(log_snr_from_sigmas(SIGMAS).exp(), 1 / SIGMAS**2)


def test_conversions_come_back_to_where_they_began():
    torch.testing.assert_close(sigmas_from_log_snr(log_snr_from_sigmas(SIGMAS)), SIGMAS)
    torch.testing.assert_close(sigmas_from_timesteps(timesteps_from_sigmas(SIGMAS)), SIGMAS)


def test_the_variance_preserving_channel_has_the_same_signal_to_noise_ratio():
    log_snr = log_snr_from_sigmas(SIGMAS)
    alphas = alphas_from_log_snr(log_snr)
    torch.testing.assert_close(alphas**2 / (1 - alphas**2), log_snr.exp())


def test_karras_levels_are_those_of_diffusers():
    from diffusers import EDMEulerScheduler

    theirs = EDMEulerScheduler(sigma_min=0.005, sigma_max=20.0)
    theirs.set_timesteps(18)
    ours = karras_sigmas(18, sigma_min=0.005, sigma_max=20.0)
    torch.testing.assert_close(ours, theirs.sigmas[:-1], rtol=1e-4, atol=1e-6)
    assert float(ours[0]) == pytest.approx(20.0)
