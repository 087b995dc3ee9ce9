"""What a cell could have looked like on another slide, scanner or microscope.

Part of a batch is altered mildly (the square's symmetries, a little more or less stain) and counts
as the training set's own look, the rest strongly. The network is told what was done, or that
it is not told: samples asked for with the clean look stay clean (a non-leaky augmentation label,
Karras et al. 2020 and 2022, appendix F.2), and the classifier asks with the look unknown.

Shapes: B images; C, H, W are channels, height and width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (what torch's own documentation calls it)

from diffusion.latents import dihedral
from diffusion.network import N_APPEARANCE
from diffusion.white_balance import background, white_balanced

LEAST_BLUR_PX = 0.3
"""Below, a sampled Gaussian is the single middle tap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far the looks of a training batch are spread."""

    stain_jitter: float = 0.06
    """Mild: standard deviation of the log-gain of optical density, for each colour."""
    strong_fraction: float = 0.4
    """Share of a batch that is altered strongly."""
    log_scale: tuple[float, float] = (-0.65, 0.5)
    """Range of the magnification's logarithm."""
    shift_px: float = 5.0
    """Largest shift at 64 px; other sizes in proportion."""
    stain_mixing: float = 0.16
    """Standard deviation of what one colour's density takes from another's."""
    stain_gain: float = 0.36
    background: float = 0.14
    """Standard deviation of the logarithm of the ground's colour, and of its brightness."""
    gamma: float = 0.25
    blur_px: float = 1.5
    noise: float = 0.06
    """Largest standard deviation of sensor noise, in latents."""
    balanced_fraction: float = 0.7
    """Share of the strongly altered images that are white-balanced afterwards."""
    told_fraction: float = 0.7
    """Share of the images of which the decoder is told how they were altered."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.strong_fraction <= 1:
            raise ValueError(
                f"strong_fraction={self.strong_fraction}; give a share of the batch from 0 to 1."
            )


def augmented(
    latents: Tensor, generator: torch.Generator, look: Augmentation, reference: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells with another look, and what the decoder is told of it.

    Args:
        latents: clean images. (B, C, H, W)
        generator: of every random choice.
        look: how far to go.
        reference: the training set's ground, for white balance. (3,)

    Returns:
        Images (B, C, H, W); a 1 with the alteration, or zeros where nothing is told
        (B, 1 + N_APPEARANCE), an image of the training set's own look being a 1 and zeros; and
        which were altered strongly (B,).
    """
    n = len(latents)
    images = _turned(latents, generator)
    gains = look.stain_jitter * torch.randn(n, 1, 1, 1, generator=generator)
    gains = gains + look.stain_jitter * torch.randn(n, latents.shape[1], 1, 1, generator=generator)
    images = _with_density(images, _density(images) * (gains / 2**0.5).exp())

    numbers = torch.zeros(n, N_APPEARANCE)
    n_strong = round(look.strong_fraction * n)
    strong = torch.randperm(n, generator=generator)[:n_strong]
    is_told = torch.rand(n, generator=generator) < look.told_fraction
    if n_strong:
        altered, numbers[strong] = _strongly(images[strong], generator, look)
        balanced = torch.rand(n_strong, generator=generator) < look.balanced_fraction
        if balanced.any():
            altered[balanced] = white_balanced(altered[balanced], reference)
        images[strong] = altered
        is_told[strong[balanced]] = False
    told = torch.cat([torch.ones(n, 1), numbers], dim=1)
    is_strong = torch.zeros(n, dtype=torch.bool)
    is_strong[strong] = True
    return images, told * is_told[:, None], is_strong


def _strongly(
    images: Tensor, generator: torch.Generator, look: Augmentation
) -> tuple[Tensor, Tensor]:
    """Images under another microscope, and the numbers that describe the change."""
    n, n_channels, side = images.shape[0], images.shape[1], images.shape[-1]

    def happens(probability: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) < probability).float()

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    # --- where the cell lies, and how large it is
    turns = happens(0.7) * uniform(-math.pi, math.pi)
    log_scales = happens(0.8) * uniform(*look.log_scale)
    shifts = look.shift_px * 2 / 64 * (2 * torch.rand(n, 2, generator=generator) - 1)
    cosine, sine = turns.cos() / log_scales.exp(), turns.sin() / log_scales.exp()
    affine = torch.stack(
        [
            torch.stack([cosine, -sine, shifts[:, 0]], dim=1),
            torch.stack([sine, cosine, shifts[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    # Beyond the frame lies either its mirror image or empty ground.
    ground_beyond = background(images)[:, :, None, None] * 2 - 1
    mirrored = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    empty = F.grid_sample(images - ground_beyond, grid, align_corners=False) + ground_beyond
    images = torch.where(happens(0.5, 1, 1, 1) > 0, mirrored, empty)

    # --- stain: the dyes' densities, each colour taking a little of the others
    density = _density(images)
    mixing = torch.eye(n_channels) + look.stain_mixing * normal(n_channels, n_channels)
    mixing = mixing + torch.diag_embed(look.stain_gain * normal(n_channels))
    overall = (look.stain_gain * normal(1, 1)).exp()
    is_stained = happens(0.85, 1, 1)
    mixing = torch.where(is_stained > 0, mixing * overall, torch.eye(n_channels))
    density = torch.einsum("bij,bjhw->bihw", mixing, density).clamp_min(0)

    # --- light: the ground's colour and brightness, and the camera's curve
    ground = look.background * (normal(1) + normal(n_channels)) * happens(0.8, 1)
    density = density + ground[:, :, None, None]
    gamma = look.gamma * normal() * happens(0.5)
    density = density * gamma.exp()[:, None, None, None]
    images = _with_density(images, density)

    # --- optics and sensor
    blur = uniform(0, look.blur_px) * happens(0.4) * side / 64
    blur = torch.where(blur > LEAST_BLUR_PX, blur, torch.zeros(()))
    images = _blurred(images, blur)
    noise = uniform(0, look.noise) * happens(0.4)
    images = images + noise[:, None, None, None] * torch.randn(images.shape, generator=generator)
    numbers = torch.cat(
        [
            torch.stack([torch.ones(n), turns.ne(0).float(), 2 * log_scales], dim=1),
            4 * (mixing.diagonal(dim1=1, dim2=2) - 1)[:, :3],
            4 * ground[:, :3],
            torch.stack([4 * gamma, blur, 20 * noise], dim=1),
        ],
        dim=1,
    )
    return images.clamp(-1, 1), numbers


def _turned(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Each in one of the square's symmetries: a smear has no up or down."""
    turns = torch.randint(8, (len(latents),), generator=generator)
    turned = torch.empty_like(latents)
    for turn in range(8):
        chosen = turns == turn
        turned[chosen] = dihedral(latents[chosen], turn)
    return turned


def _density(latents: Tensor) -> Tensor:
    """Optical density, -ln of the light let through."""
    return -((latents + 1) / 2).clamp_min(1 / 512).log()


def _with_density(latents: Tensor, density: Tensor) -> Tensor:
    return (2 * (-density).exp() - 1).to(latents).clamp(-1, 1)


def _blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    """Each image under a Gaussian blur of its own, in pixels; 0 leaves it. (B, C, H, W), (B,)"""
    chosen = sigmas > 0
    if not chosen.any():
        return images
    taps = torch.arange(-4, 5, dtype=images.dtype)
    kernel = (-0.5 * (taps / sigmas[chosen, None]).square()).exp()
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    some = images[chosen]
    b, c, h, w = some.shape
    kernel = kernel.repeat_interleave(c, dim=0)[:, None]
    padded = F.pad(some, (4, 4, 4, 4), mode="replicate").reshape(1, b * c, h + 8, w + 8)
    across = F.conv2d(padded, kernel[:, :, None, :], groups=b * c)
    images = images.clone()
    images[chosen] = F.conv2d(across, kernel[:, :, :, None], groups=b * c).view(b, c, h, w)
    return images
