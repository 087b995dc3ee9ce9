"""Denoising loss, its noise levels, and the augmentation of a batch.

Shapes: B batch; C, H, W are channels, height and width of the latents.
"""

import torch
from torch import Tensor

from diffusion.latents import dihedral
from diffusion.network import Denoiser
from diffusion.schedule import sigmas_from_log_snr
from training.config import TrainingConfig


def draw_sigmas(n: int, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Noise levels of one batch: log-normal, a share of them uniform in log-SNR. (n,)

    Source: Karras et al. (2022), Table 1; the uniform share trains the levels that the classifier
    visits and the log-normal rarely does.
    """
    log_normal = (
        config.log_sigma_mean + config.log_sigma_std * torch.randn(n, generator=generator)
    ).exp()
    low, high = config.uniform_log_snr
    uniform = sigmas_from_log_snr(low + (high - low) * torch.rand(n, generator=generator))
    is_uniform = torch.rand(n, generator=generator) < config.uniform_fraction
    return torch.where(is_uniform, uniform, log_normal)


def denoising_losses(
    denoise: Denoiser,
    latents: Tensor,
    sigmas: Tensor,
    noise: Tensor,
    class_labels: Tensor,
    *,
    sigma_data: float,
) -> Tensor:
    """Weighted squared error of each image, averaged over its pixels. (B,)

    Args:
        denoise: the model in training.
        latents: clean images. (B, C, H, W)
        sigmas: noise levels. (B,)
        noise: standard normal. (B, C, H, W)
        class_labels: (B,)
        sigma_data: standard deviation of the latents.

    Source: Karras et al. (2022), eq. 8: weight `(sigma^2 + sigma_data^2) / (sigma sigma_data)^2`,
        under which an untrained network has a loss of one at every level.
    """
    noised = latents + sigmas.view(-1, 1, 1, 1) * noise
    errors = (denoise(noised, sigmas, class_labels) - latents).square().mean(dim=(1, 2, 3))
    return errors * (sigmas.square() + sigma_data**2) / (sigmas * sigma_data).square()


def augmented(latents: Tensor, generator: torch.Generator, *, stain_jitter: float) -> Tensor:
    """The same cells turned, mirrored and stained a little differently. (B, C, H, W)

    A smear has no up or down, so quarter turns and mirror images are as likely as the original.
    The stain varies as a gain of each colour's optical density, as a longer or shorter bath does.
    """
    n = len(latents)
    turns = torch.randint(8, (n,), generator=generator)
    turned = torch.empty_like(latents)
    for turn in range(8):
        chosen = turns == turn
        turned[chosen] = dihedral(latents[chosen], turn)
    if stain_jitter == 0:
        return turned
    shared = torch.randn(n, 1, 1, 1, generator=generator)
    each = torch.randn(n, latents.shape[1], 1, 1, generator=generator)
    gains = (stain_jitter * (shared + each) / 2**0.5).exp().to(latents.device)
    transmission = ((turned + 1) / 2).clamp_min(1 / 512)
    return 2 * transmission.pow(gains) - 1
