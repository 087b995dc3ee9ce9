"""Noise levels: sigma, log-SNR and the network's timesteps, and the conversions between them.

One channel everywhere: `noised = latents + sigma * noise` with standard normal `noise`. Its
signal-to-noise ratio is `1 / sigma**2`, so `log_snr = -2 ln(sigma)`; a variance-preserving model
with signal `alpha` and noise `sigma_vp` is the same channel at `sigma = sigma_vp / alpha`.
"""

import torch
from torch import Tensor


def log_snr_from_sigmas(sigmas: Tensor) -> Tensor:
    """Natural logarithm of the signal-to-noise ratio, `-2 ln(sigma)`. Same shape."""
    return -2 * sigmas.log()


def sigmas_from_log_snr(log_snr: Tensor) -> Tensor:
    """Noise standard deviation in units of the latents, `exp(-log_snr / 2)`. Same shape."""
    return (-log_snr / 2).exp()


def timesteps_from_sigmas(sigmas: Tensor) -> Tensor:
    """What the network is told about the noise, `ln(sigma) / 4`. Karras et al. (2022), Table 1."""
    return sigmas.log() / 4


def sigmas_from_timesteps(timesteps: Tensor) -> Tensor:
    """Noise level of a network timestep, `exp(4 t)`. Inverse of `timesteps_from_sigmas`."""
    return (4 * timesteps).exp()


def alphas_from_log_snr(log_snr: Tensor) -> Tensor:
    """Signal amplitude of the variance-preserving form, `sqrt(sigmoid(log_snr))`. Same shape."""
    return log_snr.sigmoid().sqrt()


def karras_sigmas(n_steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels from high to low, even in sigma^(1/rho). (n_steps,)

    Source: Karras et al. (2022), eq. 5.
    """
    return torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n_steps) ** rho
