"""Published decision rules of diffusion classifiers, as opponents: what each spends on one image.

`published_rule` is CytoDiffusion's (Deltadahl et al., 2024 and 2025), `staged_rule` the staged
top-k of Li et al. (2023), `uniform_grid` the same without stages. Written anew from the papers and
the authors' programs, for our noise levels and networks. All run one image at a time and a whole
network pass for each class and draw; `Outcome` also counts what they would cost on a network whose
trunk all classes share.

Where they differ from the authors' programs:

- Every draw is keyed by (seed, image, draw); theirs are not repeatable.
- A latent is a whole image of pixels: no autoencoder, and no disc mask (our images are cropped).
- A draw of the published rule turns the image by one of the square's eight symmetries; theirs turns
  it by any angle and changes its colours, which needs an encoder pass for every draw.
- A weight polynomial that falls below the smallest spread it was fitted to is kept there; theirs
  stops with an error where it is negative.

Shapes: B images, N noise draws, T timesteps, K candidate classes; * is one image's latents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr
from torch import Tensor

from diffusion.classifier import paired_class_errors
from diffusion.latents import dihedral
from diffusion.network import Flops, SplitDenoiser
from diffusion.packing import noised_latents, unit_errors

Array = NDArray[np.float64]

N_TIMESTEPS = 1000
FIRST_LOOK, LOOK_EVERY = 21, 5
"""Draws before the first t-test, and between one and the next."""
P_VALUE = 0.002
MAX_DRAWS = 2000
LI_STAGES = ((8, 4), (25, 2), (100, 1))
"""(draws of a class up to the stage's end, classes kept), scaled from their CIFAR-10 recipe of
(50, 5), (500, 1) to eight classes and a small network."""
LI_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a rule says of one image, and what that took."""

    class_labels: tuple[int, ...]
    """The candidates, in the order of K."""
    scores: Array
    """High is likely. A class that left keeps the score it left with: ask `winner`. (K,)"""
    winner: int
    """Label of the likeliest class."""
    survivors: tuple[int, ...]
    """Labels never eliminated; one unless the budget ran out."""
    n_draws: int
    n_class_passes: int
    """Draws times classes evaluated in each."""
    rows: Array
    """Weighted errors above the best class of each draw, imputed where a class had left; only the
    published rule compares these. (N, K)"""

    def flops_as_published(self, flops: Flops) -> int:
        """A whole pass of the network for each class and draw."""
        return self.n_class_passes * flops.forward

    def flops_shared(self, flops: Flops) -> int:
        """The trunk once for each draw, the decoder for each class: our network, their rule."""
        return self.n_draws * flops.trunk + self.n_class_passes * flops.decoder


def stable_diffusion_sigmas(signal_std: float = 1.0) -> Array:
    """Noise level of each timestep of Stable Diffusion 1.5, `sqrt((1 - abar) / abar)`. (1000,)

    The "scaled linear" schedule: square roots of beta even from 0.00085 to 0.012.

    Args:
        signal_std: standard deviation of the latents. Stable Diffusion's are scaled to 1; with
            another network's own spread here, a timestep has the same ratio of signal power to
            noise power there.
    """
    betas = np.linspace(0.00085**0.5, 0.012**0.5, N_TIMESTEPS) ** 2
    kept = np.cumprod(1 - betas)
    sigmas: Array = signal_std * np.sqrt((1 - kept) / kept)
    return sigmas


def shuffled_timesteps(n: int, seed: int) -> NDArray[np.int64]:
    """n timesteps even over 1..999, each about twice if n is 2000, in one order for all images."""
    even = np.linspace(1, N_TIMESTEPS - 1, n).astype(np.int64)
    return np.random.default_rng([seed, n]).permutation(even)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadPolynomial:
    """How far errors of the classes lie apart at a timestep: the published weight is 1 / P(u)."""

    coefficients: tuple[float, ...]
    """P = a0 + a1 u + ... + a4 u^4 with u = (1000 - t) / 1000."""
    floor: float
    """Smallest spread that it was fitted to; P is not taken for less."""

    def unfloored(self, timesteps: NDArray[np.int64]) -> Array:
        """P itself. Same shape."""
        return np.polynomial.polynomial.polyval(_u(timesteps), self.coefficients)

    def weights(self, timesteps: NDArray[np.int64]) -> Array:
        """Weight of each timestep. Same shape."""
        weights: Array = 1 / np.maximum(self.unfloored(timesteps), self.floor)
        return weights


def fit_spread(errors: Array, timesteps: NDArray[np.int64]) -> SpreadPolynomial:
    """Quartic through the median, over images, of the errors' standard deviation between classes.

    Args:
        errors: raw, of all classes, at the same timesteps for every image. (B, T, K)
        timesteps: at least five different ones. (T,)

    Raises:
        ValueError: for too few timesteps, or classes that nowhere differ.
    """
    if len(set(timesteps.tolist())) < 5 or errors.shape[1] != len(timesteps):
        raise ValueError(
            f"{len(timesteps)} timesteps for errors of shape {errors.shape}; a quartic needs five "
            "different ones, and errors as (images, timesteps, classes)."
        )
    spread = np.median(errors.std(axis=2, ddof=1), axis=0)
    if not (np.isfinite(spread).all() and spread.min() > 0):
        raise ValueError(
            "the classes' errors do not differ at some timestep; the weights of the published rule "
            "need a network that knows its classes apart."
        )
    coefficients = np.polyfit(_u(timesteps), spread, 4)[::-1]
    return SpreadPolynomial(
        coefficients=tuple(float(c) for c in coefficients), floor=float(spread.min())
    )


def errors_at(
    split: SplitDenoiser,
    latents: Tensor,
    image_digests: Sequence[str],
    timesteps: NDArray[np.int64],
    class_labels: Sequence[int],
    *,
    signal_std: float = 1.0,
    turned: bool = True,
    seed: int = 0,
) -> Array:
    """Raw errors of all classes, one draw at each timestep: what `fit_spread` takes. (B, T, K)"""
    sigmas = torch.from_numpy(stable_diffusion_sigmas(signal_std)[timesteps]).to(latents)
    labels = torch.tensor(list(class_labels), device=latents.device)
    of_images = []
    for image, digest in zip(latents, image_digests, strict=True):
        draws = [_draw(image, f"spread:{seed}:{digest}:{n}") for n in range(len(timesteps))]
        of_images.append(
            paired_class_errors(
                split,
                image[None],
                sigmas[None],
                torch.stack([noise for noise, _ in draws])[None],
                labels,
                turns=torch.tensor([[turn for _, turn in draws]]) if turned else None,
            )
        )
    return torch.cat(of_images).double().numpy()


@torch.no_grad()
def published_rule(
    split: SplitDenoiser,
    latents: Tensor,
    image_digest: str,
    class_labels: Sequence[int],
    spread: SpreadPolynomial,
    *,
    signal_std: float = 1.0,
    turned: bool = True,
    max_draws: int = MAX_DRAWS,
    seed: int = 0,
) -> Outcome:
    """CytoDiffusion's rule: draws until paired t-tests have dropped all classes but one.

    Each draw shares noise and symmetry among the surviving classes, which fill one batch. Its
    weighted errors count from the smallest one. A class that left is given the mean of its earlier
    rows, which leaves its score where it was; it cannot win any more.

    Args:
        split: the trained model.
        latents: one clean image. (*)
        image_digest: keys its noise.
        class_labels: the candidates.
        spread: weights of the timesteps, fitted to this network.
        signal_std: see `stable_diffusion_sigmas`.
        turned: draw one of the eight symmetries each time.
        max_draws: the cap.
        seed: another seed draws other noise, and the timesteps in another order.

    Source: the authors' program, 2024-09-25: trials, row minimum, imputation, test and stop.
    """
    labels = torch.tensor(list(class_labels), device=latents.device)
    timesteps = shuffled_timesteps(max_draws, seed)
    sigmas = torch.from_numpy(stable_diffusion_sigmas(signal_std)[timesteps]).to(latents)
    weights = spread.weights(timesteps)
    rows = np.zeros((max_draws, len(labels)))
    is_in = np.ones(len(labels), dtype=bool)
    n_draws = n_class_passes = 0
    while n_draws < max_draws and is_in.sum() > 1:
        noise, turn = _draw(latents, f"published:{seed}:{image_digest}:{n_draws}")
        clean = dihedral(latents, turn) if turned else latents
        candidates = labels[torch.from_numpy(is_in).to(labels.device)]
        n_in = len(candidates)
        clean = clean.expand(n_in, *latents.shape)
        sigma = sigmas[n_draws].expand(n_in)
        errors = unit_errors(
            split,
            clean,
            noised_latents(clean, sigma, noise),
            sigma,
            torch.arange(n_in, device=latents.device),
            candidates,
        )
        weighted = weights[n_draws] * errors.double().numpy()
        rows[n_draws, is_in] = weighted - weighted.min()
        if n_in < len(labels):
            rows[n_draws, ~is_in] = rows[:n_draws, ~is_in].mean(axis=0)
        n_draws, n_class_passes = n_draws + 1, n_class_passes + n_in
        if n_draws >= FIRST_LOOK and (n_draws - FIRST_LOOK) % LOOK_EVERY == 0:
            is_in &= ~is_beaten(rows[:n_draws], is_in)
    means = rows[:n_draws].mean(axis=0)
    survivors = [int(label) for label, stays in zip(labels, is_in, strict=True) if stays]
    return Outcome(
        class_labels=tuple(int(label) for label in labels),
        scores=-means / (means.mean() or 1.0),
        winner=int(labels[_best(means, is_in)]),
        survivors=tuple(survivors),
        n_draws=n_draws,
        n_class_passes=n_class_passes,
        rows=rows[:n_draws].copy(),
    )


def is_beaten(rows: Array, is_in: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Survivors that differ from the best one at p < 0.002 and have the greater mean. (K,)

    Args:
        rows: errors of all draws so far. (N, K)
        is_in: which classes survive. (K,)
    """
    means = rows.mean(axis=0)
    best = _best(means, is_in)
    p_values = paired_t_test(rows, rows[:, [best]])
    beaten: NDArray[np.bool_] = is_in & (p_values < P_VALUE) & (means > means[best])
    return beaten


def paired_t_test(first: Array, second: Array) -> Array:
    """Two-sided p-value of each column's paired t-test; not a number where all pairs tie.

    (N, K), (N, K) or (N, 1) -> (K,)
    """
    differences = first - second
    n = len(differences)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = differences.mean(axis=0) / (differences.std(axis=0, ddof=1) / np.sqrt(n))
    p_values: Array = 2 * stdtr(n - 1, -np.abs(t))
    return p_values


@torch.no_grad()
def staged_rule(
    split: SplitDenoiser,
    latents: Tensor,
    image_digest: str,
    class_labels: Sequence[int],
    *,
    stages: Sequence[tuple[int, int]] = LI_STAGES,
    signal_std: float = 1.0,
    seed: int = 0,
) -> Outcome:
    """Li et al.'s staged top-k: mean error over an even grid of timesteps, the worse classes leave.

    Draws of one image fill batches of 32 passes, as in the authors' program; draws of earlier
    stages are kept.

    Args:
        split: the trained model.
        latents: one clean image. (*)
        image_digest: keys its noise.
        class_labels: the candidates.
        stages: (draws of each class up to the stage's end, classes kept), the last keeping one.
        signal_std: see `stable_diffusion_sigmas`.
        seed: another seed draws other noise.

    Raises:
        ValueError: for stages that do not lead to one class.

    Source: Li et al. (2023), Algorithm 2, and the authors' program, `eval_prob_adaptive`.
    """
    kept = [keep for _, keep in stages]
    draws = [n for n, _ in stages]
    if kept[-1] != 1 or kept[0] > len(class_labels) or kept != sorted(kept, reverse=True):
        raise ValueError(
            f"stages {tuple(stages)} for {len(class_labels)} classes; the last stage must keep one "
            "class, and none more than the one before it or than there are."
        )
    if draws != sorted(set(draws)) or not 0 < draws[0] <= draws[-1] <= N_TIMESTEPS:
        raise ValueError(
            f"stages {tuple(stages)}; the draws are totals, so let them grow, to {N_TIMESTEPS} at "
            "most."
        )
    labels = torch.tensor(list(class_labels), device=latents.device)
    sigmas = torch.from_numpy(stable_diffusion_sigmas(signal_std)).to(latents)
    errors = np.full((0, len(labels)), np.nan)
    remaining = np.arange(len(labels))
    n_class_passes = 0
    for timesteps, (_, n_kept) in zip(staged_timesteps(draws), stages, strict=True):
        first = len(errors)
        keys = [f"li:{seed}:{image_digest}:{first + n}" for n in range(len(timesteps))]
        noise = torch.stack([_draw(latents, key)[0] for key in keys])
        added = np.full((len(timesteps), len(labels)), np.nan)
        added[:, remaining] = _passes(
            split, latents, sigmas[timesteps], noise, labels[torch.from_numpy(remaining)]
        )
        errors = np.vstack([errors, added])
        n_class_passes += len(timesteps) * len(remaining)
        order = np.argsort(errors[:, remaining].mean(axis=0), kind="stable")
        remaining = np.sort(remaining[order[:n_kept]])
    return Outcome(
        class_labels=tuple(int(label) for label in labels),
        scores=-np.nanmean(errors, axis=0) / latents.numel(),
        winner=int(labels[remaining[0]]),
        survivors=(int(labels[remaining[0]]),),
        n_draws=len(errors),
        n_class_passes=n_class_passes,
        rows=errors,
    )


def staged_timesteps(draws: Sequence[int]) -> list[list[int]]:
    """New timesteps of each stage: even ones among an even grid of the last stage's number."""
    most = max(draws)
    step = N_TIMESTEPS // most
    grid = list(range(step // 2, N_TIMESTEPS, step))[:most]
    stages: list[list[int]] = []
    seen: set[int] = set()
    for n in draws:
        stride = len(grid) // n
        stages.append([t for t in grid[stride // 2 :: stride][:n] if t not in seen])
        seen.update(stages[-1])
    return stages


def uniform_grid(
    split: SplitDenoiser,
    latents: Tensor,
    image_digest: str,
    class_labels: Sequence[int],
    *,
    n_draws: int,
    signal_std: float = 1.0,
    seed: int = 0,
) -> Outcome:
    """Mean error of every class over an even grid of timesteps: one stage, no elimination."""
    return staged_rule(
        split,
        latents,
        image_digest,
        class_labels,
        stages=((n_draws, 1),),
        signal_std=signal_std,
        seed=seed,
    )


def _passes(
    split: SplitDenoiser, latents: Tensor, sigmas: Tensor, noise: Tensor, labels: Tensor
) -> Array:
    """Errors of all draws under all classes, a whole pass for each. (N,), (N, *), (K,) -> (N, K)"""
    n_draws, n_classes = len(sigmas), len(labels)
    draw = torch.arange(n_draws, device=latents.device).repeat_interleave(n_classes)
    of_units = labels.repeat(n_draws)
    errors = []
    for units in torch.split(torch.arange(len(draw), device=latents.device), LI_BATCH):
        clean = latents.expand(len(units), *latents.shape)
        sigma = sigmas[draw[units]]
        errors.append(
            unit_errors(
                split,
                clean,
                noised_latents(clean, sigma, noise[draw[units]]),
                sigma,
                torch.arange(len(units), device=latents.device),
                of_units[units],
            )
        )
    return torch.cat(errors).view(n_draws, n_classes).double().numpy()


def _draw(latents: Tensor, key: str) -> tuple[Tensor, int]:
    """Standard normal noise and a symmetry of the square that belong to a key. (*), 0..7"""
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    turn = int(torch.randint(8, (), generator=generator))
    noise = torch.randn(latents.shape, generator=generator, dtype=latents.dtype)
    return noise.to(latents.device), turn


def _best(means: Array, is_in: NDArray[np.bool_]) -> int:
    """The survivor with the smallest mean error; the first of equals."""
    return int(np.where(is_in, means, np.inf).argmin())


def _u(timesteps: NDArray[np.int64]) -> Array:
    u: Array = (N_TIMESTEPS - timesteps) / N_TIMESTEPS
    return u
