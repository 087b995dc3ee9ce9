"""Averaged weights."""

import copy

import torch

from diffusion.network import CellDenoiser


class AveragedWeights:
    """Exponential moving average of a network's weights, its length counted in images.

    Early in a run the average is kept short (a twentieth of what was seen), so that it never
    carries the random start. Source: the schedule of Karras et al. (2022), Table 7 (EMA ramp-up).
    """

    def __init__(self, network: CellDenoiser, halflife_images: int) -> None:
        self.network: CellDenoiser = copy.deepcopy(network)
        self.network.eval().requires_grad_(False)
        self.halflife_images = halflife_images

    @torch.no_grad()
    def update(self, network: CellDenoiser, *, batch_size: int, n_images_seen: int) -> None:
        """Move towards the network's weights by one batch."""
        halflife = min(self.halflife_images, 0.05 * n_images_seen)
        beta = 0.5 ** (batch_size / max(halflife, 1e-8))
        for averaged, current in zip(self.network.parameters(), network.parameters(), strict=True):
            averaged.lerp_(current, 1 - beta)
