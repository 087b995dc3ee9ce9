"""The smallest change that makes another class of an image: what would it have to look like?

An image x is noised to every level of a ladder independently, `x_i = x + sigma_i noise_i`. What a
denoiser of x's own class c leaves unexplained on the way from x_i to x_{i+1} is kept, and added
again on the way down under another class c':

    x'_{i+1} = x_{i+1} + m_i(x'_i; c') - m_i(x_i; c)
    m_i(z; c) = D_c(z) + (sigma_{i+1} / sigma_i)^2 (z - D_c(z))

With c' = c nothing changes, at any start. The higher the noise at the start, the more may change;
the lowest start that convinces the classifier gives the smallest edit.

Whatever D is, the same D unexplains and explains. Ours is `guided(network.as_denoiser(), K)`: an
edit is a drawing, so the trunk is told the class, and it is drawn away from all other classes.
Guided away from its own class alone, an edit runs past a class that lies between others.

Source: Huberman-Spiegelglas, Kulikov & Michaeli (2024), "An edit friendly DDPM noise space", in
variance-exploding form; m_i is the DDPM posterior mean (Ho et al., 2020, eq. 7). Their noise maps
are `(x_{i+1} - m_i(x_i; c)) / s_i`; the scale s_i cancels.

Shapes: B images, M edits, T levels, K classes; * is the shape of one image's latents, (C, H, W).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from diffusion.network import Denoiser
from diffusion.schedule import sigmas_from_log_snr

Classify = Callable[[Tensor, list[str]], Tensor]
"""Calibrated probabilities of the classes, `(latents (M, *), digests) -> (M, K)`."""

GUIDANCE = 2.0
"""Chosen on 64 cells of `val`: by 1 some edits do not convince, by 4 the ground has a pattern."""
TEN_GREY_VALUES = 10 / 127.5


def guided(denoise: Denoiser, unknown: int, guidance: float = GUIDANCE) -> Denoiser:
    """What edits by: further into each class than `denoise` goes, `D_c + guidance (D_c - D_?)`.

    `unknown` is the label under which the class is unknown, so that D_? is the mean over the
    classes that the noised image may be of. Source: Ho & Salimans (2022), classifier-free guidance.
    """

    def further(noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        labels = torch.cat([class_labels, torch.full_like(class_labels, unknown)])
        both = denoise(noised.repeat(2, 1, 1, 1), sigmas.repeat(2), labels)
        of_class, of_any = both.chunk(2)
        return of_class + guidance * (of_class - of_any)

    return further


class EditPlan(BaseModel):
    """The ladder of noise levels, and where on it edits may start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_snr_min: float = -3.0
    """Highest noise that an edit may start from."""
    log_snr_last_start: float = 2.0
    """Lowest noise that an edit may start from. From less, only texture changes, and a generative
    classifier can be convinced by edits that no eye sees: the network that edits is its own."""
    log_snr_max: float = 7.0
    """Where the ladder ends; the last step goes from there to the image."""
    n_levels: int = Field(default=21, ge=2)
    min_probability: float = Field(default=0.9, gt=0, lt=1)
    """Of the new class, to count as found."""
    starts_at_once: int = Field(default=3, ge=1)
    """Starts tried in one batch; edits from starts above the smallest that works are wasted."""

    @model_validator(mode="after")
    def _levels_rise(self) -> "EditPlan":
        if not self.log_snr_min <= self.log_snr_last_start <= self.log_snr_max:
            raise ValueError(
                f"log_snr_min={self.log_snr_min}, log_snr_last_start={self.log_snr_last_start}, "
                f"log_snr_max={self.log_snr_max}; give them in rising order."
            )
        return self

    @property
    def log_snr(self) -> Tensor:
        """The ladder, from high noise to low. (T,)"""
        return torch.linspace(
            self.log_snr_min, self.log_snr_max, self.n_levels, dtype=torch.float64
        )

    @property
    def starts(self) -> tuple[int, ...]:
        """Steps of the ladder at which edits may start, from low noise to high."""
        n_starts = int((self.log_snr <= self.log_snr_last_start + 1e-9).sum())
        return tuple(reversed(range(n_starts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactual:
    """One image edited towards another class."""

    latents: Tensor
    """The smallest edit that convinces; where none does, the one that came closest. (*)"""
    source: int
    target: int
    is_found: bool
    """Whether the classifier gives the target more than the plan's probability."""
    probability: float
    """Of the target, by the classifier that searched."""
    log_snr: float
    """Where the edit started: the lower, the more had to be redrawn."""
    identity_error: float
    """Largest change where source and target are the same, from the same start; 0 when exact."""


@torch.no_grad()
def counterfactuals(
    denoise: Denoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    sources: Sequence[int],
    targets: Sequence[int],
    classify: Classify,
    plan: EditPlan,
    *,
    seed: int = 0,
    value_range: tuple[float, float] | None = (-1.0, 1.0),
) -> list[Counterfactual]:
    """For each image the smallest edit that the classifier puts into the target class.

    An image's answer depends on its digest and the seed, not on its neighbours in the batch.

    Args:
        denoise: the trained model, as it draws and guided.
        latents: clean images; 2 B edits and more are alive at once. (B, *)
        image_digests: they key the noise. (B,)
        sources: the classes that the images are in. (B,)
        targets: the classes wanted. (B,)
        classify: decides whether an edit convinces. Edits come with digests of their own.
        plan: levels, starts and the probability wanted.
        seed: another seed edits along other noise.
        value_range: edits are clipped to it, as pictures are; None leaves them.

    Raises:
        ValueError: if numbers differ, or an image is already of its target class.
    """
    counts = (len(image_digests), len(sources), len(targets))
    if counts != (len(latents),) * 3:
        raise ValueError(
            f"{len(latents)} images with {counts} digests, sources and targets; give one of each "
            "for every image."
        )
    if any(source == target for source, target in zip(sources, targets, strict=True)):
        raise ValueError("an image has its own class as target; ask for another class.")
    noise = _ladder_noise(plan, tuple(latents.shape[1:]), image_digests, seed).to(latents)
    source_labels = torch.tensor(list(sources), device=latents.device)
    target_labels = torch.tensor(list(targets), device=latents.device)
    best: list[tuple[float, int, Tensor]] = [(-1.0, plan.starts[0], image) for image in latents]
    searching = list(range(len(latents)))
    for first in range(0, len(plan.starts), plan.starts_at_once):
        tried = [(i, s) for i in searching for s in plan.starts[first:][: plan.starts_at_once]]
        if not tried:
            break
        rows = torch.tensor([i for i, _ in tried], device=latents.device)
        starts = torch.tensor([start for _, start in tried], device=latents.device)
        edits = edited(
            denoise, latents, noise, rows, starts, source_labels, target_labels[rows], plan
        )
        if value_range is not None:
            edits = edits.clamp(*value_range)
        names = [f"{image_digests[i]}:{sources[i]}>{targets[i]}@{start}" for i, start in tried]
        of_target = classify(edits, names).cpu()[range(len(tried)), [targets[i] for i, _ in tried]]
        for (i, start), probability, edit in zip(tried, of_target.tolist(), edits, strict=True):
            # Starts come from low noise to high: the first that convinces is the smallest edit.
            if best[i][0] <= plan.min_probability and probability > best[i][0]:
                best[i] = (probability, start, edit)
        searching = [i for i in searching if best[i][0] <= plan.min_probability]
    everyone = torch.arange(len(latents), device=latents.device)
    starts = torch.tensor([start for _, start, _ in best], device=latents.device)
    same = edited(denoise, latents, noise, everyone, starts, source_labels, source_labels, plan)
    identity_errors = (same - latents).abs().flatten(1).amax(dim=1).tolist()
    return [
        Counterfactual(
            latents=edit,
            source=source,
            target=target,
            is_found=probability > plan.min_probability,
            probability=probability,
            log_snr=float(plan.log_snr[start]),
            identity_error=identity_error,
        )
        for (probability, start, edit), source, target, identity_error in zip(
            best, sources, targets, identity_errors, strict=True
        )
    ]


@torch.no_grad()
def edited(
    denoise: Denoiser,
    latents: Tensor,
    noise: Tensor,
    rows: Tensor,
    starts: Tensor,
    source_labels: Tensor,
    target_labels: Tensor,
    plan: EditPlan,
) -> Tensor:
    """Images redrawn under another class from given steps of the ladder. (M, *)

    Args:
        denoise: the trained model, guided or not.
        latents: clean images. (B, *)
        noise: of each image at each level. (B, T, *)
        rows: image that each edit starts from. (M,)
        starts: step of the ladder at which it starts. (M,)
        source_labels: class of each image. (B,)
        target_labels: class of each edit. (M,)
        plan: the ladder.
    """
    sigmas = torch.cat([sigmas_from_log_snr(plan.log_snr), torch.zeros(1)]).to(latents)
    edits = latents[rows] + sigmas[starts].view(-1, 1, 1, 1) * noise[rows, starts]
    for step in range(int(starts.min()), plan.n_levels):
        alive = (starts <= step).nonzero()[:, 0]
        of_image = rows[alive]
        # Only images with an edit alive are denoised as they are.
        needed, at_needed = torch.unique(of_image, return_inverse=True)
        noised = latents[needed] + sigmas[step] * noise[needed, step]
        denoised = denoise(
            torch.cat([noised, edits[alive]]),
            sigmas[step].expand(len(needed) + len(alive)),
            torch.cat([source_labels[needed], target_labels[alive]]),
        )
        as_source, as_target = denoised[: len(needed)][at_needed], denoised[len(needed) :]
        kept = (sigmas[step + 1] / sigmas[step]).square()
        moved = (1 - kept) * (as_target - as_source)
        moved = moved + kept * (edits[alive] - noised[at_needed])
        below = latents[of_image]
        if step + 1 < plan.n_levels:
            below = below + sigmas[step + 1] * noise[of_image, step + 1]
        edits[alive] = below + moved
    return edits


def _ladder_noise(
    plan: EditPlan, shape: tuple[int, ...], image_digests: Sequence[str], seed: int
) -> Tensor:
    """Independent noise for each level of each image, keyed by its digest. (B, T, *)"""
    drawn = []
    for digest in image_digests:
        key = hashlib.sha256(f"counterfactual:{seed}:{digest}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
        drawn.append(torch.randn((plan.n_levels, *shape), generator=generator))
    return torch.stack(drawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How much of one image an edit changed."""

    l1: float
    """Mean absolute change of the latents."""
    changed: Tensor
    """Pixels with a channel that changed by more than the threshold. bool (H, W)"""

    @property
    def fraction_changed(self) -> float:
        """Share of the pixels changed: 0 is no edit, 1 another picture."""
        fraction: float = self.changed.double().mean().item()
        return fraction


def change(latents: Tensor, edit: Tensor, *, threshold: float | Tensor = TEN_GREY_VALUES) -> Change:
    """Proximity and sparsity of an edit. (C, H, W), (C, H, W)

    `threshold` may be a map, such as three standard errors of each pixel over seeds. (H, W)
    """
    difference = (edit - latents).abs()
    return Change(l1=float(difference.mean()), changed=difference.amax(dim=0) > threshold)


@torch.no_grad()
def cycle_errors(
    denoise: Denoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    found: Sequence[Counterfactual],
    plan: EditPlan,
    *,
    seed: int = 0,
) -> Tensor:
    """Mean absolute difference of each image and its edit edited back, from the same start. (B,)

    The way back has noise of its own. To be read beside `change(...).l1`: the same size would mean
    that nothing came back.
    """
    edits = torch.stack([one.latents for one in found])
    back = [f"{digest}:back" for digest in image_digests]
    noise = _ladder_noise(plan, tuple(latents.shape[1:]), back, seed).to(latents)
    levels = plan.log_snr
    steps = [int((levels - one.log_snr).abs().argmin()) for one in found]
    returned = edited(
        denoise,
        edits,
        noise,
        torch.arange(len(edits), device=latents.device),
        torch.tensor(steps, device=latents.device),
        torch.tensor([one.target for one in found], device=latents.device),
        torch.tensor([one.source for one in found], device=latents.device),
        plan,
    )
    return (returned - latents).abs().flatten(1).mean(dim=1)
