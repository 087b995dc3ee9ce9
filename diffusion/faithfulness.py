"""Whether an evidence map tells what the classifier goes by: tests against the classifier itself.

Shapes: C, H, W are channels, height and width of the latents; S fractions of the image, R random
repeats.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (what torch's own documentation calls it)

from diffusion.latents import dihedral

Score = Callable[[Tensor], Tensor]
"""Log-odds of the class that a map speaks for, on the same noise for all. (M, C, H, W) -> (M,)"""

FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalCurve:
    """Log-odds while pixels are replaced (or put back), by evidence and by chance."""

    fractions: Tensor
    """Share of the pixels replaced, or put back. (S,)"""
    by_evidence: Tensor
    """Pixels in the order of the evidence, the highest first. (S,)"""
    by_chance: Tensor
    """Pixels in the order of the same map laid elsewhere. (R, S)"""

    @property
    def advantage(self) -> float:
        """Mean distance of the evidence's curve from chance, as a share of the whole change.

        Positive where the map finds what matters, 0 where it does not, whether pixels are taken
        away or put back.
        """
        change = self.by_evidence[-1] - self.by_evidence[0]
        between = torch.trapezoid(self.by_evidence - self.by_chance.mean(dim=0), self.fractions)
        return float(between / change)


@torch.no_grad()
def removal_curve(
    score: Score,
    latents: Tensor,
    evidence: Tensor,
    *,
    generator: torch.Generator,
    inserting: bool = False,
    fractions: Sequence[float] = FRACTIONS,
    n_random: int = 10,
    blur: float | None = None,
) -> RemovalCurve:
    """The deletion curve of a map, or with `inserting` its insertion curve.

    A pixel is deleted by giving it the value of the image's blur there. Chance is the same map,
    turned and shifted at random: single pixels at random would tear the image more than any map.

    Args:
        score: the classifier.
        latents: one image, better one that is put into the class. (C, H, W)
        evidence: its map for the class. (H, W)
        generator: of the random places.
        inserting: start from the blurred image and put the pixels back.
        fractions: rising shares of the image, from 0 to 1.
        n_random: random places.
        blur: standard deviation of the blur in pixels; None for a sixth of the height.

    Source: Petsiuk, Das & Saenko (2018), "RISE".
    """
    height = latents.shape[-2]
    blurred = gaussian_blur(latents[None], height / 6 if blur is None else blur)[0]
    start, end = (blurred, latents) if inserting else (latents, blurred)
    maps = [evidence, *(_elsewhere(evidence, generator) for _ in range(n_random))]
    curves = []
    for one in maps:
        rank = one.flatten().argsort(descending=True).argsort().view(one.shape).to(latents.device)
        steps = [torch.where(rank < f * rank.numel(), end, start) for f in fractions]
        curves.append(score(torch.stack(steps)).double().cpu())
    return RemovalCurve(
        fractions=torch.tensor(list(fractions), dtype=torch.float64),
        by_evidence=curves[0],
        by_chance=torch.stack(curves[1:]),
    )


def _elsewhere(evidence: Tensor, generator: torch.Generator) -> Tensor:
    """The map in one of its eight symmetries, shifted around the borders."""
    turn = int(torch.randint(8, (), generator=generator))
    shifts = [int(torch.randint(n, (), generator=generator)) for n in evidence.shape]
    return dihedral(evidence, turn).roll(shifts, dims=(0, 1))


def gaussian_blur(latents: Tensor, sd: float) -> Tensor:
    """Images under a Gaussian of standard deviation `sd` pixels, borders repeated. (B, C, H, W)"""
    reach = max(1, round(3 * sd))
    at = torch.arange(-reach, reach + 1, dtype=latents.dtype, device=latents.device)
    weights = (-0.5 * (at / sd).square()).exp()
    weights = weights / weights.sum()
    planes = F.pad(latents.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(latents.shape)


def with_shuffled_weights(network: nn.Module, seed: int) -> nn.Module:
    """A copy in which each weight tensor's entries change places: nothing learned is left.

    The spread of every layer stays, so that the copy computes something of the usual size.

    Source: Adebayo et al. (2018), "Sanity checks for saliency maps"; there weights are drawn anew.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in copy.parameters():
            order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
            weights.copy_(weights.flatten()[order].view(weights.shape))
    return copy


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of two maps over their pixels; ties share their mean rank."""
    ranks = torch.stack([_ranks(one.flatten()), _ranks(other.flatten())])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return ranks[inverse].double()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """How one map agrees with the place where the classes truly differ."""

    is_hit: bool
    """Whether the pixel of highest evidence lies inside."""
    share_inside: float
    """Share of the positive evidence that lies inside."""
    area: float
    """Share of the image that is inside: what a map would get by chance."""


def pointing_game(evidence: Tensor, mask: Tensor) -> Pointing:
    """Evidence against a true mask. (H, W), bool (H, W)

    Raises:
        ValueError: if the sizes differ, or nothing or everything is inside.

    Source: Zhang et al. (2018), "Top-down neural attention by excitation backprop".
    """
    if evidence.shape != mask.shape or not 0 < int(mask.sum()) < mask.numel():
        raise ValueError(
            f"a map of {tuple(evidence.shape)} and a mask of {tuple(mask.shape)} with "
            f"{int(mask.sum())} pixels inside; give a mask of the map's size with some pixels "
            "inside and some outside."
        )
    positive = evidence.clamp_min(0)
    total = float(positive.sum())
    return Pointing(
        is_hit=bool(mask.flatten()[evidence.argmax()]),
        share_inside=float(positive[mask].sum()) / total if total > 0 else 0.0,
        area=float(mask.double().mean()),
    )
