"""What a noise level counts: weightings over log-SNR, and the scores that they give.

    ln p_c(x) - ln p_c'(x) = -1/2 * integral of E( |noise - noise_c|^2 - |noise - noise_c'|^2 )
                             over log-SNR, squared errors summed over pixels

exact for an optimal denoiser (point-wise I-MMSE: Guo, Shamai & Verdu, 2005; Kong et al., 2023,
"Information-theoretic diffusion", eq. 6-9). A weighting multiplies the integrand.

Shapes: B images, N noise draws of an image, J = N / 2 antithetic pairs, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from diffusion.draws import DrawPlan, log_density

Weighting = Callable[[Tensor], Tensor]
"""Weight of each log-SNR in the integral; same shape. A `LearnedWeighting` may also cap."""


def elbo(log_snr: Tensor) -> Tensor:
    """One at every log-SNR: scores are log-likelihoods in nats, exact for an optimal denoiser."""
    return torch.ones_like(log_snr)


def robust(log_snr: Tensor) -> Tensor:
    """`exp(-log_snr / 2)`: low noise, where a learned network errs most, counts least.

    The same as weighting with sigma. A decision rule, not a likelihood: see
    docs/decisions/0003-two-weightings.md for what each is good for.
    """
    return (-log_snr / 2).exp()


WEIGHTINGS: dict[str, Weighting] = {"elbo": elbo, "robust": robust}


class LearnedWeighting(BaseModel):
    """Weights learned for decisions: a factor that varies with log-SNR, times `exp(-log_snr)`.

    With all factors 1 this is the start of the fit, `exp(-log_snr)`: the squared error of the
    denoised latents themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_snr_min: float
    log_snr_max: float
    weights: tuple[float, ...] = Field(min_length=1)
    """Factor in the middle of each of equal bins over the range, not negative; linear in between,
    constant beyond the outer middles. Steps would make a score depend on where in a bin its levels
    were drawn."""
    cap: float | None = Field(default=None, gt=0)
    """Most that one pair may say for or against a class, as an estimate of the whole score.

    What is capped is the pair's contribution centred over the classes that were compared; it then
    moves a block's score by at most `cap / n_levels`.
    """

    @model_validator(mode="after")
    def _weighs_something(self) -> "LearnedWeighting":
        if not self.log_snr_min < self.log_snr_max:
            raise ValueError(
                f"log_snr_min={self.log_snr_min} is not below log_snr_max={self.log_snr_max}."
            )
        if min(self.weights) < 0 or max(self.weights) <= 0:
            raise ValueError(
                f"weights={self.weights}; give factors that are not negative and not all zero."
            )
        return self

    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weight of each log-SNR. Same shape.

        Raises:
            ValueError: for a level outside the range on which the weights were learned.
        """
        low, high = float(log_snr.min()), float(log_snr.max())
        if low < self.log_snr_min or high > self.log_snr_max:
            raise ValueError(
                f"levels from {low:.3g} to {high:.3g}, but the weights were learned on "
                f"{self.log_snr_min:.3g} to {self.log_snr_max:.3g}; draw levels within that range, "
                "or learn the weights again."
            )
        factors = torch.tensor(self.weights, dtype=log_snr.dtype, device=log_snr.device)
        return self.shares(log_snr) @ factors * (-log_snr).exp()

    def shares(self, log_snr: Tensor) -> Tensor:
        """How much of each factor a log-SNR takes; they sum to 1. (...) -> (..., n_bins)"""
        n_bins = len(self.weights)
        share = (log_snr - self.log_snr_min) / (self.log_snr_max - self.log_snr_min)
        at = (share * n_bins - 0.5).clamp(0, n_bins - 1)
        return (1 - (at[..., None] - torch.arange(n_bins).to(at)).abs()).clamp_min(0)


def pair_scores(errors: Tensor, log_snr: Tensor, plan: DrawPlan, weighting: Weighting) -> Tensor:
    """What each antithetic pair alone says about the score of each class, centred over classes.

    The mean over pairs estimates the score.

    Args:
        errors: `|noise - predicted noise|^2`, draws in the order of `keyed_draws`. (..., N, K)
        log_snr: of each draw. (..., N)
        plan: how the draws were made; their weights are divided by its density.
        weighting: `elbo` gives nats.

    Returns:
        (..., J, K)
    """
    log_snr = log_snr.double().cpu()
    weights = weighting(log_snr) / log_density(plan, log_snr).exp()
    contributions = -0.5 * weights[..., None] * errors
    *leading, n_draws, n_classes = contributions.shape
    pairs: Tensor = contributions.reshape(*leading, n_draws // 2, 2, n_classes).mean(dim=-2)
    pairs = pairs - pairs.mean(dim=-1, keepdim=True)
    if isinstance(weighting, LearnedWeighting) and weighting.cap is not None:
        pairs = pairs.clamp(-weighting.cap, weighting.cap)
    return pairs


def block_log_likelihoods(
    errors: Tensor, log_snr: Tensor, plan: DrawPlan, weighting: Weighting
) -> Tensor:
    """Weighted log-likelihood of each class by each block, up to a constant shared by the classes.

    Args and units as for `pair_scores`; any whole number of blocks.

    Returns:
        Centred over classes. (..., n_blocks, K)
    """
    pairs = pair_scores(errors, log_snr, plan, weighting)
    *leading, _, n_classes = pairs.shape
    scores: Tensor = pairs.reshape(*leading, -1, plan.n_levels, n_classes).mean(dim=-2)
    return scores - scores.mean(dim=-1, keepdim=True)


def binned_margins(
    errors: Tensor, log_snr: Tensor, plan: DrawPlan, weighting: Weighting, *, n_bins: int
) -> Tensor:
    """By how much the best class beats the second best at each noise level, for `fitted_density`.

    Args:
        errors: of all classes. (B, N, K)
        log_snr: of each draw; uniform over the range, and some in each bin. (B, N)
        plan: how the draws were made.
        weighting: the one that the density is for.
        n_bins: equal bins over the plan's range.

    Returns:
        Weighted loss of the second-best class minus that of the best, per unit of log-SNR; best
        and second best by all levels together. (B, n_bins)

    Raises:
        ValueError: if a bin of an image holds no draw.
    """
    pairs = pair_scores(errors, log_snr, plan, weighting)
    best = pairs.mean(dim=1).topk(2, dim=-1).indices
    both = pairs.gather(2, best[:, None, :].expand(-1, pairs.shape[1], -1))
    at = log_snr.double().cpu()[:, ::2]
    margins = (both[..., 0] - both[..., 1]) * log_density(plan, at).exp()
    share = (at - plan.log_snr_min) / (plan.log_snr_max - plan.log_snr_min)
    is_in_bin = torch.nn.functional.one_hot((share * n_bins).long().clamp(0, n_bins - 1), n_bins)
    counts = is_in_bin.sum(dim=1)
    if int(counts.min()) == 0:
        raise ValueError(
            f"an image has {pairs.shape[1]} pairs and none in one of {n_bins} bins; use fewer "
            "bins, or more levels in each block."
        )
    return torch.einsum("bj,bjn->bn", margins, is_in_bin.double()) / counts


def fit_learned_weights(
    errors: Tensor,
    log_snr: Tensor,
    labels: Tensor,
    plan: DrawPlan,
    *,
    n_bins: int,
    penalty: float = 0.01,
    cap: float | None = None,
) -> tuple[LearnedWeighting, float]:
    """Weights, and the temperature of their scores, under which the true classes are most probable.

    Minimises the multinomial log-loss, averaged within each class first so that classes count
    alike, plus `penalty` times the mean of `(weight - 1)^2`, which keeps bins without evidence near
    the start and fixes the scale that a free temperature leaves open. To be fitted on images
    altered as those of other laboratories are: on clean ones the weights learn to trust low noise.

    Args:
        errors: of all classes, from validation images. (B, N, K)
        log_snr: (B, N)
        labels: true classes, as indices into K. (B,)
        plan: how the draws were made; its range is the range of the weights.
        n_bins: number of weights.
        penalty: nats.
        cap: see `LearnedWeighting`.

    Returns:
        The weighting, and the temperature by which its scores are to be divided.

    Raises:
        ValueError: if an error is missing, or a label is not the index of a class.
    """
    if not bool(torch.isfinite(errors).all()):
        raise ValueError(
            "some errors are missing (not a number), as after a race that eliminated classes; "
            "evaluate all classes on the images that weights are learned from."
        )
    if int(labels.min()) < 0 or int(labels.max()) >= errors.shape[-1]:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())} but the errors are of "
            f"{errors.shape[-1]} classes; give each label as an index into them."
        )
    start = LearnedWeighting(
        log_snr_min=plan.log_snr_min, log_snr_max=plan.log_snr_max, weights=(1.0,) * n_bins
    )
    # Both signs of a pair share their level, so every second draw tells it.
    shares = start.shares(log_snr.double().cpu()[:, ::2]).numpy()
    pairs = pair_scores(errors, log_snr, plan, start).numpy()
    fitted = _fit(pairs, shares, labels.cpu().numpy(), n_bins, penalty, cap)
    weighting = LearnedWeighting(
        log_snr_min=plan.log_snr_min,
        log_snr_max=plan.log_snr_max,
        weights=tuple(fitted[:-1].tolist()),
        cap=cap,
    )
    return weighting, float(np.exp(fitted[-1]))


def _fit(
    pairs: NDArray[np.float64],
    shares: NDArray[np.float64],
    labels: NDArray[np.int64],
    n_bins: int,
    penalty: float,
    cap: float | None,
) -> NDArray[np.float64]:
    """Weights and ln temperature. (B, J, K), (B, J, n_bins), (B,) -> (n_bins + 1,)"""
    n_images, n_pairs, n_classes = pairs.shape
    counts = np.bincount(labels, minlength=n_classes)
    share = 1 / (counts[labels] * np.count_nonzero(counts))
    is_true = np.eye(n_classes)[labels]

    def loss_and_gradient(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, temperature = parameters[:-1], np.exp(parameters[-1])
        weighted = (shares @ weights)[..., None] * pairs
        moves = np.ones_like(weighted)
        if cap is not None:
            moves = (np.abs(weighted) < cap).astype(np.float64)
            weighted = np.clip(weighted, -cap, cap)
        logits = weighted.mean(axis=1) / temperature
        log_posterior = logits - logsumexp(logits, axis=1, keepdims=True)
        slope = share[:, None] * (np.exp(log_posterior) - is_true)  # of the log-loss in the logits
        by_pair = np.einsum("bjk,bk->bj", moves * pairs, slope) / (n_pairs * temperature)
        gradient = np.append(
            np.einsum("bj,bjn->n", by_pair, shares) + 2 * penalty * (weights - 1) / n_bins,
            -(slope * logits).sum(),
        )
        log_loss = -(share * log_posterior[np.arange(n_images), labels]).sum()
        return float(log_loss + penalty * ((weights - 1) ** 2).mean()), gradient

    # Scores run to thousands under one network and to units under another.
    spread = np.log(np.abs(pairs.mean(axis=1)).max() + 1e-12)
    starts = [np.append(np.ones(n_bins), spread - shift) for shift in np.arange(0.0, 8.0)]
    start = min(starts, key=lambda parameters: loss_and_gradient(parameters)[0])
    bounds = [(0.0, None)] * n_bins + [(spread - 12, spread + 6)]
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    fitted: NDArray[np.float64] = found.x
    return fitted
