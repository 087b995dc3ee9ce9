"""The class-conditional denoiser: a small U-Net on image patches, with EDM preconditioning.

Shapes: B batch; C, H, W are channels, height and width of the latents.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (what torch's own documentation calls it)

from diffusion.schedule import timesteps_from_sigmas

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(noised, sigmas, class_labels) -> denoised`, all with the same leading dimension."""

N_FREQUENCIES = 32


def preconditioned(
    network: Callable[[Tensor, Tensor, Tensor], Tensor], sigma_data: float
) -> Denoiser:
    """The denoiser `D(x; sigma, c)` around a raw network `F`.

    The network sees inputs and targets of unit variance at every noise level; at low noise it only
    has to predict a correction.

    Source: Karras et al. (2022), eq. 7 and Table 1, right column.
    """

    def denoise(noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        sigmas_each = sigmas.view(-1, *[1] * (noised.ndim - 1))
        variance = sigmas_each.square() + sigma_data**2
        c_skip = sigma_data**2 / variance
        c_out = sigmas_each * sigma_data / variance.sqrt()
        raw = network(noised / variance.sqrt(), timesteps_from_sigmas(sigmas), class_labels)
        return c_skip * noised + c_out * raw.to(noised.dtype)

    return denoise


class ResidualBlock(nn.Module):
    """Two convolutions, their features scaled and shifted by noise level and class (FiLM)."""

    def __init__(self, n_in: int, n_out: int, n_embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(16, n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.film = nn.Linear(n_embedding, 2 * n_out)
        self.norm_out = nn.GroupNorm(16, n_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)
        # A block that starts as the identity lets a deep network learn at once.
        _start_at_zero(self.conv_out)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Features of the same size. (B, n_in, h, w), (B, n_embedding) -> (B, n_out, h, w)"""
        hidden = self.conv_in(F.silu(self.norm_in(features)))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm_out(hidden) * (1 + scale) + shift)
        return self.skip(features) + self.conv_out(self.dropout(hidden))


def _start_at_zero(convolution: nn.Conv2d) -> None:
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)


class CellDenoiser(ModelMixin, ConfigMixin):
    """Raw network `F(x, timestep, class)` of a class-conditional EDM model.

    `class_labels` run from 0 to `n_classes - 1`; the label `n_classes` means "class unknown" and
    is trained by class dropout. Patches become channels first (`patch_size`), which keeps a 64 px
    model cheap enough for a CPU.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,  # noqa: ARG002 (kept in the config)
        n_channels: int = 3,
        n_classes: int = 8,
        patch_size: int = 4,
        widths: tuple[int, ...] = (64, 112, 176),
        n_blocks: tuple[int, ...] = (1, 1, 1),
        n_embedding: int = 192,
        dropout: float = 0.0,
        sigma_data: float = 0.5,  # noqa: ARG002 (kept in the config)
    ) -> None:
        super().__init__()
        n_patch = n_channels * patch_size**2
        self.register_buffer(
            "frequencies",
            torch.exp(torch.linspace(0.0, 5.0, N_FREQUENCIES)),
            persistent=False,
        )
        self.embed_noise = nn.Sequential(
            nn.Linear(2 * N_FREQUENCIES, n_embedding),
            nn.SiLU(),
            nn.Linear(n_embedding, n_embedding),
        )
        self.embed_class = nn.Embedding(n_classes + 1, n_embedding)
        self.stem = nn.Conv2d(n_patch, widths[0], 3, padding=1)

        encoder: list[nn.Module] = []
        downs: list[nn.Module] = []
        n_before = widths[0]
        for level, (width, depth) in enumerate(zip(widths, n_blocks, strict=True)):
            downs.append(
                nn.Identity() if level == 0 else nn.Conv2d(n_before, width, 3, 2, padding=1)
            )
            encoder.append(
                nn.ModuleList(
                    ResidualBlock(width, width, n_embedding, dropout) for _ in range(depth)
                )
            )
            n_before = width
        self.middle = ResidualBlock(n_before, n_before, n_embedding, dropout)
        decoder: list[nn.Module] = []
        for width, depth in zip(reversed(widths), reversed(n_blocks), strict=True):
            blocks = [ResidualBlock(n_before + width, width, n_embedding, dropout)]
            blocks += [ResidualBlock(width, width, n_embedding, dropout) for _ in range(depth - 1)]
            decoder.append(nn.ModuleList(blocks))
            n_before = width
        self.encoder, self.downs = nn.ModuleList(encoder), nn.ModuleList(downs)
        self.decoder = nn.ModuleList(decoder)
        self.norm = nn.GroupNorm(16, n_before)
        self.head = nn.Conv2d(n_before, n_patch, 3, padding=1)
        _start_at_zero(self.head)

    def forward(self, scaled: Tensor, timesteps: Tensor, class_labels: Tensor) -> Tensor:
        """Raw prediction for inputs of unit variance.

        Args:
            scaled: noised latents times `c_in`. (B, C, H, W)
            timesteps: `ln(sigma) / 4`. (B,)
            class_labels: integers, `n_classes` where the class is unknown. (B,)

        Returns:
            The network's part of the denoised latents, in units of `c_out`. (B, C, H, W)
        """
        angles = timesteps[:, None] * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedding = F.silu(self.embed_noise(waves) + self.embed_class(class_labels))

        features = self.stem(F.pixel_unshuffle(scaled, self.config.patch_size))
        kept = []
        for down, blocks in zip(self.downs, self.encoder, strict=True):
            features = down(features)
            for block in cast(nn.ModuleList, blocks):
                features = block(features, embedding)
            kept.append(features)
        features = self.middle(features, embedding)
        for blocks in self.decoder:
            before = kept.pop()
            if features.shape[-1] != before.shape[-1]:
                features = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = torch.cat([features, before], dim=1)
            for block in cast(nn.ModuleList, blocks):
                features = block(features, embedding)
        patches = self.head(F.silu(self.norm(features)))
        return F.pixel_shuffle(patches, self.config.patch_size)

    def as_denoiser(self) -> Denoiser:
        """The preconditioned network, `(noised, sigmas, class_labels) -> denoised`."""
        return preconditioned(self, self.config.sigma_data)


def in_bfloat16(denoise: Denoiser, device: torch.device) -> Denoiser:
    """The same denoiser with matrix products in bfloat16: about twice as fast, three digits."""

    def denoise_in_bfloat16(noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return denoise(noised, sigmas, class_labels)

    return denoise_in_bfloat16


def count_flops(network: CellDenoiser) -> int:
    """Floating-point operations of one forward pass of one image (a multiply-add counts two)."""
    from torch.utils.flop_counter import FlopCounterMode

    config: Any = network.config
    side = config.image_size
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(
            torch.zeros(1, config.n_channels, side, side, device=device),
            torch.zeros(1, device=device),
            torch.zeros(1, dtype=torch.long, device=device),
        )
    return int(counter.get_total_flops())
