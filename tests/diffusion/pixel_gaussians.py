"""Two classes of pictures that differ in a known patch, with their exact denoiser."""

from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 12


@dataclass(frozen=True)
class PixelGaussians:
    """Independent Gaussian pixels; the class moves the mean of those in the patch."""

    means: Tensor  # (K, C, H, W)
    scale: float

    @staticmethod
    def with_patch(contrast: float = 0.5, n_classes: int = 2) -> "PixelGaussians":
        generator = torch.Generator().manual_seed(5)
        ground = 0.3 * torch.randn((3, SIZE, SIZE), generator=generator, dtype=torch.float64)
        means = ground.repeat(n_classes, 1, 1, 1)
        for k in range(1, n_classes):
            means[k, :, PATCH] += contrast * k
        return PixelGaussians(means, 0.4)

    def sample(self, labels: list[int], seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (len(labels), *self.means.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.means[labels] + self.scale * noise

    def denoise(self, noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        variance = self.scale**2 + sigmas.square().view(-1, 1, 1, 1)
        means = self.means[class_labels].to(noised)
        return means + self.scale**2 / variance * (noised - means)

    def log_odds_map(self, latents: Tensor, one: int, other: int) -> Tensor:
        """Exact log-odds of class `one` over `other`, pixel by pixel. (B, H, W)"""
        away = (latents - self.means[other]).square() - (latents - self.means[one]).square()
        return (away / (2 * self.scale**2)).sum(dim=1)

    def posteriors(self, latents: Tensor, digests: list[str] | None = None) -> Tensor:
        """Bayes' rule with equal priors. (B, K)"""
        squared = (latents[:, None] - self.means.to(latents)).square().flatten(2).sum(dim=2)
        return (-squared / (2 * self.scale**2)).softmax(dim=1)


PATCH = torch.zeros(SIZE, SIZE, dtype=torch.bool)
PATCH[3:7, 5:9] = True
