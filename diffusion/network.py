"""The class-conditional denoiser: a small U-Net on image patches, with EDM preconditioning.

It is cut in two. The *trunk* sees the noised image, the *decoder* is told the class; a *head* on
the trunk names the class at once. To classify, the trunk is told nothing, so that all classes share
one pass of it. To draw, it may be told the class too: nothing is shared then, and a decoder of few
layers need not paint the class alone.

Shapes: B noised images; U units, each one image under one class; C, H, W are channels, height and
width of the latents; K classes; F features of the head.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (what torch's own documentation calls it)

from diffusion.schedule import sigmas_from_log_snr, timesteps_from_sigmas

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(noised, sigmas, class_labels) -> denoised`, all with the same leading dimension."""

Shared = tuple[Tensor, ...]
"""What all classes share about noised images; the leading dimension of each tensor is B."""

Appearance = Literal["clean", "any"]
"""What the network is told of an image's look: as in the training set, or nothing."""

N_FREQUENCIES = 32
N_APPEARANCE = 12
"""Numbers that describe how a training image was altered; see training/augmentation.py."""
N_FEATURES = 64
HEAD_LOG_SNR = 8.0
"""The noise level that the trunk is told when the head looks at a clean image."""


class SplitDenoiser(Protocol):
    """A denoiser in two steps: what every class shares, then what is left to do for one class."""

    def share(self, noised: Tensor, sigmas: Tensor) -> Shared:
        """The class-free part. (B, C, H, W), (B,)"""
        ...

    def finish(self, shared: Shared, rows: Tensor, class_labels: Tensor) -> Tensor:
        """Denoised latents of noised image `rows[u]` under class `class_labels[u]`. (U, C, H, W)"""
        ...


class Whole:
    """Any denoiser as a split one that shares nothing, such as a mixture's exact one."""

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise

    def share(self, noised: Tensor, sigmas: Tensor) -> Shared:
        """The inputs themselves."""
        return noised, sigmas

    def finish(self, shared: Shared, rows: Tensor, class_labels: Tensor) -> Tensor:
        """One whole evaluation for each unit."""
        noised, sigmas = shared
        return self._denoise(noised[rows], sigmas[rows], class_labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating-point operations for one image; a multiply-add counts two."""

    trunk: int
    """Once for each noise draw, whatever the number of classes."""
    decoder: int
    """Once for each noise draw and class."""
    head: int
    """One answer of the head: a pass of the encoder and its own layers."""

    @property
    def forward(self) -> int:
        """One undivided pass: one noise draw under one class."""
        return self.trunk + self.decoder


class ResidualBlock(nn.Module):
    """Two convolutions, their features scaled and shifted by noise level and class (FiLM)."""

    def __init__(self, width: int, n_embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(16, width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(n_embedding, 2 * width)
        self.norm_out = nn.GroupNorm(16, width)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        # A block that starts as the identity lets a deep network learn at once.
        _start_at_zero(self.conv_out)

    def forward(
        self, features: Tensor, embedding: Tensor, aside: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Features of the same shape.

        Args:
            features: (B, width, h, w)
            embedding: (B, n_embedding)
            aside: from a `Lateral`: what joins within the block and what joins its sum.
        """
        hidden = self.conv_in(F.silu(self.norm_in(features)))
        if aside is not None:
            hidden = hidden + aside[0]
            features = features + aside[1]
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm_out(hidden) * (1 + scale) + shift)
        return features + self.conv_out(self.dropout(hidden))


class FineStem(nn.Module):
    """Features at twice the patches' resolution, where granules and chromatin can be told apart.

    The patches' own stem is linear: what distinguishes one texture from another within a patch has
    to be found here. At low noise nearly all that can be said of a pixel is said by its neighbours,
    so the fine features also go straight to the output. Without that the U-Net has to pass every
    patch through all its layers, and what it draws is grainy.
    """

    def __init__(
        self, n_channels: int, patch_size: int, fine: int, coarse: int, n_embedding: int
    ) -> None:
        super().__init__()
        if patch_size % 2:
            raise ValueError(
                f"patch_size={patch_size} has no half for the fine stem; use an even one, such as "
                "2 or 4."
            )
        stride = patch_size // 2
        self.enter = nn.Conv2d(n_channels, fine, 3 if stride == 1 else 4, stride, padding=1)
        self.block = ResidualBlock(fine, n_embedding, dropout=0.0)
        self.leave = nn.Conv2d(fine, coarse, 3, 2, padding=1)
        _start_at_zero(self.leave)
        self.norm = nn.GroupNorm(16, fine)
        self.output = nn.Conv2d(fine, n_channels * stride**2, 3, padding=1)
        _start_at_zero(self.output)
        self._stride = stride

    def features(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W), (B, n_embedding) -> (B, fine, 2h, 2w)"""
        return cast(Tensor, self.block(self.enter(scaled), embedding))

    def coarse(self, features: Tensor) -> Tensor:
        """What joins the patches' stem. (B, fine, 2h, 2w) -> (B, coarse, h, w)"""
        return cast(Tensor, self.leave(F.silu(features)))

    def detail(self, features: Tensor) -> Tensor:
        """What joins the output. (B, fine, 2h, 2w) -> (B, C, H, W)"""
        return F.pixel_shuffle(self.output(F.silu(self.norm(features))), self._stride)


class Lateral(nn.Module):
    """What the encoder hands to a level of the decoder; it does not see the class.

    Normalised by itself: what comes up from the coarser level is often much larger, and fine detail
    added to it before a common normalisation is lost.
    """

    def __init__(self, width: int, n_patch: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(16, width)
        self.within = nn.Conv2d(width, width, 3, padding=1)
        self.around = nn.Conv2d(width, width, 1)
        self.detail_within = nn.Conv2d(n_patch, width, 3, padding=1) if n_patch else None
        self.detail_around = nn.Conv2d(n_patch, width, 1) if n_patch else None

    def forward(self, level: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, h, w), (B, n_patch, h, w) -> two of (B, width, h, w)"""
        within, around = self.within(F.silu(self.norm(level))), self.around(level)
        if self.detail_within is not None and self.detail_around is not None:
            within = within + self.detail_within(patches)
            around = around + self.detail_around(patches)
        return within, around


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _blocks(width: int, n: int, n_embedding: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(width, n_embedding, dropout) for _ in range(n))


class CellDenoiser(ModelMixin, ConfigMixin):
    """Raw network of a class-conditional EDM model, with a discriminative head.

    `class_labels` run from 0 to `n_classes - 1`; the label `n_classes` means "class unknown" and
    is trained by class dropout. Patches become channels first (`patch_size`, an even number), which
    keeps a 64 px model cheap enough for a CPU; what is finer than that a `FineStem` of `stem_width`
    channels has to find.

    `n_shared_stages` says how much all classes share. Stage 1 is the encoder, the stages after it
    are the levels of the decoder from coarse to fine, the last is the output convolution:
    0 conditions everything on the class, 1 (the default) the decoder, one more each time a level
    less, and `len(widths) + 1` is a shared network whose last convolution has an output a class.
    benchmarks/conditioning.py compares them.

    With `trunk_can_be_told` there is a table of what a trunk that draws is told of the class. That
    cells are to look as in the training set goes without saying: it is never told in training of
    any others.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,  # noqa: ARG002 (kept in the config)
        n_channels: int = 3,
        n_classes: int = 8,
        patch_size: int = 4,
        stem_width: int = 32,
        widths: tuple[int, ...] = (80, 144, 224),
        n_blocks: tuple[int, ...] = (2, 2, 2),
        n_decoder_blocks: tuple[int, ...] = (1, 1, 1),
        n_shared_stages: int = 1,
        trunk_can_be_told: bool = False,
        n_embedding: int = 192,
        dropout: float = 0.0,
        head_dropout: float = 0.2,
        sigma_data: float = 0.5,  # noqa: ARG002 (kept in the config)
    ) -> None:
        super().__init__()
        if trunk_can_be_told and n_shared_stages == 0:
            raise ValueError(
                "trunk_can_be_told with n_shared_stages=0: all of the network is told the class "
                "already, which leaves no trunk to tell; leave it out, or share one stage or more."
            )
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
        self.embed_appearance = nn.Linear(N_APPEARANCE + 1, n_embedding)

        self.stem = nn.Conv2d(n_patch, widths[0], 3, padding=1)
        self.fine_stem = FineStem(n_channels, patch_size, stem_width, widths[0], n_embedding)
        levels = list(zip(widths, n_blocks, n_decoder_blocks, strict=True))
        self.encoder = nn.ModuleList(_blocks(w, n, n_embedding, dropout) for w, n, _ in levels)
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, 2, padding=1) for fine, coarse in pairwise(widths)
        )
        # At the finest level the noised patches themselves go along, with noise and granules.
        self.laterals = nn.ModuleList(
            Lateral(w, n_patch if level == 0 else 0) for level, w in enumerate(widths[:-1])
        )
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(_blocks(w, n, n_embedding, dropout) for w, _, n in levels)
        self.norm = nn.GroupNorm(16, widths[0])
        n_outputs = n_classes + 1 if n_shared_stages > len(widths) else 1
        self.output = nn.Conv2d(widths[0], n_outputs * n_patch, 3, padding=1)
        _start_at_zero(self.output)

        n_pooled = sum(widths[-2:])
        self.head_norm = nn.LayerNorm(n_pooled)
        self.head_hidden = nn.Linear(n_pooled, N_FEATURES)
        self.head_drop = nn.Dropout(head_dropout)
        self.head = nn.Linear(N_FEATURES, n_classes)

        # Last: from one seed all other weights are drawn alike, with this table or without.
        self.trunk_class: nn.Embedding | None = None
        if trunk_can_be_told:
            self.trunk_class = nn.Embedding(n_classes + 1, n_embedding)

    # --- the parts

    def told_trunk(self, class_labels: Tensor) -> Tensor | None:
        """What `share` adds where the trunk is told to draw cells of these classes.

        Args:
            class_labels: integers, `n_classes` where the class is unknown. (B,)

        Returns:
            An addition to the embedding of the noise level, (B, n_embedding); None for a network
            whose trunk cannot be told.
        """
        return None if self.trunk_class is None else cast(Tensor, self.trunk_class(class_labels))

    def share(self, scaled: Tensor, timesteps: Tensor, told: Tensor | None = None) -> Shared:
        """The stages of the trunk: what all classes share, as long as it is told nothing.

        Args:
            scaled: noised latents times `c_in`. (B, C, H, W)
            timesteps: `ln(sigma) / 4`. (B,)
            told: from `told_trunk`, zeros for an image whose trunk is told nothing; None tells of
                none. What comes out is then for the class that was told. (B, n_embedding)

        Returns:
            The waves of the noise level, the head's features (B, F), the linear part of the answer,
            the features so far, and what the remaining stages need of the encoder's levels, coarse
            to fine. Where everything is conditioned on the class, the waves and the input.
        """
        waves = self._waves(timesteps)
        if self.config.n_shared_stages == 0:
            return waves, scaled
        embedding = self.embed_noise(waves)
        if told is not None:
            embedding = embedding + told
        embedding = F.silu(embedding)
        patches, fine = self._patches(scaled), self.fine_stem.features(scaled, embedding)
        levels = self.encode(patches, fine, embedding)
        features, rest = self._lateral(levels, patches)
        for stage in range(1, min(self.config.n_shared_stages, len(levels) + 1)):
            features, rest = self._decode_level(stage, features, rest, embedding)
        detail = self.fine_stem.detail(fine)
        return waves, self._head_features(levels), detail, features, *rest

    def encode(self, patches: Tensor, fine: Tensor, embedding: Tensor) -> list[Tensor]:
        """Features of each level of the encoder, fine to coarse.

        Args:
            patches: (B, n_patch, h, w)
            fine: from the fine stem. (B, stem_width, 2h, 2w)
            embedding: (B, n_embedding)
        """
        features = self.stem(patches) + self.fine_stem.coarse(fine)
        levels = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                features = self.downs[level - 1](features)
            for block in cast(nn.ModuleList, blocks):
                features = block(features, embedding)
            levels.append(features)
        return levels

    def finish(
        self,
        shared: Shared,
        rows: Tensor,
        class_labels: Tensor,
        appearance: Tensor | Appearance = "clean",
    ) -> Tensor:
        """Raw prediction for unit u: noised image `rows[u]` under class `class_labels[u]`.

        Args:
            shared: from `share`.
            rows: index into its leading dimension. (U,)
            class_labels: integers, `n_classes` where the class is unknown. (U,)
            appearance: "clean" as the training set, "any" for an unknown look, or the numbers
                themselves behind a 1 that says they are known. (U, 1 + N_APPEARANCE)

        Returns:
            The network's part of the denoised latents, in units of `c_out`. (U, C, H, W)
        """
        n_shared, n_levels = self.config.n_shared_stages, len(self.encoder)
        if isinstance(appearance, str):
            appearance = self._appearance(len(rows), appearance, class_labels.device)
        if n_shared == 0:
            waves, scaled = shared
            embedding = F.silu(self._embedding(waves[rows], class_labels, appearance))
            scaled = scaled[rows]
            patches, fine = self._patches(scaled), self.fine_stem.features(scaled, embedding)
            features, rest = self._lateral(self.encode(patches, fine, embedding), patches)
            detail = self.fine_stem.detail(fine)
        else:
            waves, _, detail, features, *rest = (tensor[rows] for tensor in shared)
            embedding = F.silu(self._embedding(waves, class_labels, appearance))
        for stage in range(max(n_shared, 1), n_levels + 1):
            features, rest = self._decode_level(stage, features, rest, embedding)
        decoded = self.output(F.silu(self.norm(features)))
        if n_shared > n_levels:
            each = decoded.unflatten(1, (self.config.n_classes + 1, -1))
            decoded = each[torch.arange(len(rows), device=rows.device), class_labels]
        return F.pixel_shuffle(decoded, self.config.patch_size) + detail

    def _patches(self, scaled: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, n_patch, h, w)"""
        return F.pixel_unshuffle(scaled, self.config.patch_size)

    def _lateral(self, levels: Sequence[Tensor], patches: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest level, and what the finer ones hand to the decoder, coarse to fine."""
        rest: list[Tensor] = []
        for lateral, level in zip(reversed(self.laterals), reversed(levels[:-1]), strict=True):
            rest += lateral(level, patches)
        return levels[-1], rest

    def _decode_level(
        self, stage: int, features: Tensor, rest: Sequence[Tensor], embedding: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Stage 1 is the coarsest level; the others first go up and meet the encoder's."""
        level = len(self.encoder) - stage
        rest, aside = list(rest), None
        if stage > 1:
            features = F.interpolate(self.ups[level](features), scale_factor=2.0, mode="nearest")
            aside = rest[0], rest[1]
            rest = rest[2:]
        for block in cast(nn.ModuleList, self.decoder[level]):
            features = block(features, embedding, aside)
            aside = None
        return features, rest

    def _waves(self, timesteps: Tensor) -> Tensor:
        angles = timesteps[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def _embedding(self, waves: Tensor, class_labels: Tensor, appearance: Tensor) -> Tensor:
        embedding: Tensor = self.embed_noise(waves)
        return embedding + self.embed_class(class_labels) + self.embed_appearance(appearance)

    def _appearance(self, n: int, kind: Appearance, device: torch.device) -> Tensor:
        numbers = torch.zeros(n, 1 + N_APPEARANCE, device=device)
        numbers[:, 0] = 1.0 if kind == "clean" else 0.0
        return numbers

    # --- what callers use

    def trunk_modules(self) -> list[nn.Module]:
        """What the head's answer depends on: embedding of noise, encoder, and the head."""
        return [
            self.embed_noise,
            self.stem,
            self.fine_stem.enter,
            self.fine_stem.block,
            self.fine_stem.leave,
            self.encoder,
            self.downs,
            self.head_norm,
            self.head_hidden,
            self.head,
        ]

    def forward(self, scaled: Tensor, timesteps: Tensor, class_labels: Tensor) -> Tensor:
        """One undivided pass that draws: images look as the training set, and the trunk is told so.

        Args:
            scaled: noised latents times `c_in`. (B, C, H, W)
            timesteps: `ln(sigma) / 4`. (B,)
            class_labels: integers, `n_classes` where the class is unknown. (B,)

        Returns:
            The network's part of the denoised latents, in units of `c_out`. (B, C, H, W)
        """
        rows = torch.arange(len(scaled), device=scaled.device)
        shared = self.share(scaled, timesteps, self.told_trunk(class_labels))
        return self.finish(shared, rows, class_labels)

    def _head_features(self, levels: Sequence[Tensor]) -> Tensor:
        pooled = torch.cat([F.silu(level).mean(dim=(2, 3)) for level in levels[-2:]], dim=1)
        return F.silu(self.head_hidden(self.head_norm(pooled)))

    def features(self, latents: Tensor) -> Tensor:
        """Last hidden layer of the head for clean images. (B, C, H, W) -> (B, F)"""
        return self.features_and_texture(latents)[0]

    def features_and_texture(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees of clean images, and how they look close by.

        Args:
            latents: clean images. (B, C, H, W)

        Returns:
            Last hidden layer of the head (B, F); mean and standard deviation over the image of each
            feature of the finest level (B, 2 * widths[0]). The latter change with stain, focus and
            sensor, and with granules.
        """
        sigma = sigmas_from_log_snr(torch.full((len(latents),), HEAD_LOG_SNR)).to(latents)
        waves = self._waves(timesteps_from_sigmas(sigma))
        embedding = self.embed_noise(waves)
        if self.config.n_shared_stages == 0:
            unknown = torch.full((len(latents),), self.config.n_classes, device=latents.device)
            embedding = self._embedding(
                waves, unknown, self._appearance(len(latents), "any", latents.device)
            )
        scale = (sigma.square() + self.config.sigma_data**2).rsqrt()
        scaled = latents * scale.view(-1, 1, 1, 1)
        embedding = F.silu(embedding)
        fine = self.fine_stem.features(scaled, embedding)
        levels = self.encode(self._patches(scaled), fine, embedding)
        finest = levels[0].float()
        texture = torch.cat([F.silu(finest).mean(dim=(2, 3)), finest.std(dim=(2, 3))], dim=1)
        return self._head_features(levels), texture

    def head_logits(self, latents: Tensor) -> Tensor:
        """The head's logits for clean images. (B, C, H, W) -> (B, K)"""
        return cast(Tensor, self.head(self.head_drop(self.features(latents))))

    def as_denoiser(self) -> Denoiser:
        """The preconditioned network as it draws, `(noised, sigmas, class_labels) -> denoised`.

        Trunk and decoder are told. What the classifier compares is `split`, whose trunk is not.
        """
        split = self.split(appearance="clean")

        def denoise(noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
            rows = torch.arange(len(noised), device=noised.device)
            shared = split.share(noised, sigmas, self.told_trunk(class_labels))
            return split.finish(shared, rows, class_labels)

        return denoise

    def split(
        self, *, appearance: Appearance = "any", bfloat16: bool = False
    ) -> "PreconditionedNetwork":
        """The preconditioned network in two steps; in bfloat16 about twice as fast."""
        return PreconditionedNetwork(self, appearance=appearance, bfloat16=bfloat16)

    def flops(self) -> Flops:
        """What each part costs for one image when it classifies, counted on an image of zeros."""
        from torch.utils.flop_counter import FlopCounterMode

        config: Any = self.config
        side, device = config.image_size, next(self.parameters()).device
        image = torch.zeros(1, config.n_channels, side, side, device=device)
        first = torch.zeros(1, dtype=torch.long, device=device)
        counts = []
        with torch.no_grad():
            with FlopCounterMode(display=False) as counter:
                shared = self.share(image, torch.zeros(1, device=device))
            counts.append(int(counter.get_total_flops()))
            with FlopCounterMode(display=False) as counter:
                self.finish(shared, first, first)
            counts.append(int(counter.get_total_flops()))
            with FlopCounterMode(display=False) as counter:
                self.head_logits(image)
            counts.append(int(counter.get_total_flops()))
        return Flops(trunk=counts[0], decoder=counts[1], head=counts[2])


class PreconditionedNetwork:
    """`D(x; sigma, c)` around the raw network, in two steps.

    The network sees inputs and targets of unit variance at every noise level; at low noise it only
    has to predict a correction.

    Source: Karras et al. (2022), eq. 7 and Table 1, right column.
    """

    def __init__(self, network: CellDenoiser, *, appearance: Appearance, bfloat16: bool) -> None:
        self.network = network
        self.appearance: Appearance = appearance
        self.bfloat16 = bfloat16

    def share(self, noised: Tensor, sigmas: Tensor, told: Tensor | None = None) -> Shared:
        """The class-free part, unless its trunk is `told`. (B, C, H, W), (B,), (B, n_embedding)"""
        variance = self._variance(sigmas)
        with self.precision(noised.device):
            shared = self.network.share(
                noised * variance.rsqrt(), timesteps_from_sigmas(sigmas), told
            )
        return noised, sigmas, *shared

    def finish(self, shared: Shared, rows: Tensor, class_labels: Tensor) -> Tensor:
        """Denoised latents of noised image `rows[u]` under class `class_labels[u]`. (U, C, H, W)"""
        noised, sigmas, *rest = shared
        with self.precision(noised.device):
            raw = self.network.finish(tuple(rest), rows, class_labels, self.appearance)
        return self.denoised(noised[rows], sigmas[rows], raw)

    def denoised(self, noised: Tensor, sigmas: Tensor, raw: Tensor) -> Tensor:
        """Denoised latents from the raw network's output. (U, C, H, W)"""
        variance = self._variance(sigmas)
        sigma_data = self.network.config.sigma_data
        c_skip = sigma_data**2 / variance
        c_out = sigmas.view(-1, 1, 1, 1) * sigma_data * variance.rsqrt()
        return c_skip * noised + c_out * raw.to(noised.dtype)

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which the network's parts are to be called."""
        # A caller's own autocast is left alone where this asks for nothing.
        return torch.autocast(device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def _variance(self, sigmas: Tensor) -> Tensor:
        return sigmas.view(-1, 1, 1, 1).square() + self.network.config.sigma_data**2
