"""Classes whose Bayes rule is known: Gaussian mixtures with their exact denoiser."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixtures:
    """K classes, each an equal mixture of M isotropic Gaussians in d dimensions."""

    means: Tensor  # (K, M, d)
    scale: float  # standard deviation of every component

    @staticmethod
    def two_moons() -> "Mixtures":
        angles = torch.linspace(0, torch.pi, 5, dtype=torch.float64)
        upper = torch.stack([angles.cos(), angles.sin()], dim=1)
        lower = torch.stack([1 - angles.cos(), 0.5 - angles.sin()], dim=1)
        return Mixtures(torch.stack([upper, lower]), 0.25)

    @staticmethod
    def random(n_classes: int, n_components: int, d: int, spread: float) -> "Mixtures":
        generator = torch.Generator().manual_seed(7)
        shape = (n_classes, n_components, d)
        return Mixtures(spread * torch.randn(shape, generator=generator, dtype=torch.float64), 0.5)

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Points (n, d) and the classes they were drawn from (n,)."""
        generator = torch.Generator().manual_seed(seed)
        n_classes, n_components, d = self.means.shape
        labels = torch.arange(n) % n_classes
        components = torch.randint(n_components, (n,), generator=generator)
        noise = torch.randn((n, d), generator=generator, dtype=torch.float64)
        return self.means[labels, components] + self.scale * noise, labels

    def log_densities(self, points: Tensor, sigma: float = 0.0) -> Tensor:
        """ln p_c of points after noise of standard deviation sigma, to a constant. (n, K)"""
        squared = (points[:, None, None, :] - self.means).square().sum(-1)  # (n, K, M)
        variance = self.scale**2 + sigma**2
        return torch.logsumexp(-squared / (2 * variance), dim=-1)

    def denoise(self, noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        """E[x | noised, class], exactly. (n, d)"""
        means = self.means[class_labels]  # (n, M, d)
        squared = (noised[:, None, :] - means).square().sum(-1)
        return self._denoised(noised, sigmas, means, squared)

    def share(self, noised: Tensor, sigmas: Tensor) -> tuple[Tensor, ...]:
        """The same in two steps: first the squared distances to all classes, (n, K, M)."""
        return noised, sigmas, (noised[:, None, None, :] - self.means).square().sum(-1)

    def finish(self, shared: tuple[Tensor, ...], rows: Tensor, class_labels: Tensor) -> Tensor:
        """Then each unit's own class. (U, d)"""
        noised, sigmas, squared = (tensor[rows] for tensor in shared)
        own = squared[torch.arange(len(rows)), class_labels]
        return self._denoised(noised, sigmas, self.means[class_labels], own)

    def _denoised(self, noised: Tensor, sigmas: Tensor, means: Tensor, squared: Tensor) -> Tensor:
        variance = self.scale**2 + sigmas.square()  # (n,)
        of_component = torch.softmax(-squared / (2 * variance[:, None]), dim=1)
        kept = (self.scale**2 / variance)[:, None, None]
        each = means + kept * (noised[:, None, :] - means)
        return (of_component[:, :, None] * each).sum(dim=1)
