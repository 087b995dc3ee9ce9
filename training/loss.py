"""The noise levels of a training step and what it minimises.

Shapes: B batch; C, H, W are channels, height and width of the latents; K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (what torch's own documentation calls it)

from diffusion.network import CellDenoiser
from diffusion.schedule import log_snr_from_sigmas, sigmas_from_log_snr
from training.config import TrainingConfig


def draw_sigmas(
    is_trunk_told: Tensor, config: TrainingConfig, generator: torch.Generator
) -> Tensor:
    """Noise levels of one batch: log-normal, a share of them uniform in log-SNR. (B,)

    Args:
        is_trunk_told: whose trunk is told what to draw; a larger share of them is uniform. (B,)

    Source: Karras et al. (2022), Table 1; the uniform share trains the levels that the log-normal
    rarely visits, but the classifier and the first steps of a drawing do.
    """
    n = len(is_trunk_told)
    log_normal = (
        config.log_sigma_mean + config.log_sigma_std * torch.randn(n, generator=generator)
    ).exp()
    low, high = config.uniform_log_snr
    uniform = sigmas_from_log_snr(low + (high - low) * torch.rand(n, generator=generator))
    share = torch.where(is_trunk_told, config.told_uniform_fraction, config.uniform_fraction)
    return torch.where(torch.rand(n, generator=generator) < share, uniform, log_normal)


class Objective(nn.Module):
    """What a training step minimises; its only parameters are the contrast's scale at each level.

    The contrast asks that the image's own class denoises it better than a wrong class does: the
    logistic loss of the difference of the two denoising losses, scaled by level.
    """

    KNOTS = (-8.0, 12.0, 11)
    """First and last log-SNR of the scale's knots, and their number; linear in between."""

    def __init__(self) -> None:
        super().__init__()
        # Differences of the weighted losses between classes are hundredths: e^5.5 of them is one.
        self.log_scale = nn.Parameter(torch.full((self.KNOTS[2],), 5.5))

    def forward(
        self,
        network: CellDenoiser,
        latents: Tensor,
        told: Tensor,
        sigmas: Tensor,
        noise: Tensor,
        class_labels: Tensor,
        is_hidden: Tensor,
        gumbel: Tensor,
        is_trunk_told: Tensor,
        *,
        contrast_weight: float,
        head_weight: float,
        noised_head_weight: float,
    ) -> dict[str, Tensor]:
        """The terms of the loss, each a mean over the rows in it; `loss` is their weighted sum.

        All noised images are denoised. Those whose trunk is told nothing are also contrasted, and
        named, with noise and without.

        Args:
            network: in training.
            latents: clean images. (B, C, H, W)
            told: what the network is told of their look. (B, 1 + N_APPEARANCE)
            sigmas: noise levels. (B,)
            noise: standard normal. (B, C, H, W)
            class_labels: true classes. (B,)
            is_hidden: whose class is told to nobody. (B,)
            gumbel: standard Gumbel, to draw a wrong class for each. (B, K)
            is_trunk_told: whose trunk is told the class too, where it can be. (B,)

        Source: Karras et al. (2022), eq. 8: weight `(sigma^2 + sigma_data^2) / (sigma
            sigma_data)^2`, under which an untrained network has a loss of one at every level.
        """
        n = len(latents)
        split = network.split()
        sigma_data = network.config.sigma_data
        noised = latents + sigmas.view(-1, 1, 1, 1) * noise
        shown = torch.where(is_hidden, network.config.n_classes, class_labels)
        told_trunk = network.told_trunk(shown)
        if told_trunk is not None:
            told_trunk = told_trunk * is_trunk_told[:, None]
        _, _, *shared = split.share(noised, sigmas, told_trunk)
        untold = (~is_trunk_told).nonzero()[:, 0]
        log_snr = log_snr_from_sigmas(sigmas)[untold]
        true = class_labels[untold]
        terms = {}
        proposed = gumbel[untold]
        if noised_head_weight > 0:
            logits = network.head(network.head_drop(shared[1][untold])).float()
            noised_ce = F.cross_entropy(logits, true, reduction="none")
            # Where hardly a shape is left, there is no class to be named.
            terms["noised_head"] = _mean(noised_ce * log_snr.sigmoid())
            # The head proposes the wrong class, so that the contrast works where classes are close.
            proposed = proposed + logits.detach()
        if head_weight > 0:
            terms["head"] = latents.new_zeros(())
            if len(untold):
                logits = network.head_logits(latents[untold]).float()
                terms["head"] = F.cross_entropy(logits, true)

        rows = torch.arange(n, device=latents.device)
        if contrast_weight > 0:
            wrong = proposed.scatter(1, true[:, None], -torch.inf).argmax(dim=1)
            rows, shown = torch.cat([rows, untold]), torch.cat([shown, wrong])
        raw = network.finish(tuple(shared), rows, shown, told[rows])
        denoised = split.denoised(noised[rows], sigmas[rows], raw)
        squared = (denoised - latents[rows]).square().mean(dim=(1, 2, 3)).float()
        weights = (sigmas.square() + sigma_data**2) / (sigmas * sigma_data).square()
        losses = squared * weights[rows]
        terms["denoising"] = losses[:n].mean()
        if contrast_weight > 0:
            margin = self._scale(log_snr) * (losses[n:] - losses[untold])
            terms["contrast"] = _mean(F.softplus(-margin) * ~is_hidden[untold])
        weight_of = {
            "denoising": 1.0,
            "contrast": contrast_weight,
            "noised_head": noised_head_weight,
            "head": head_weight,
        }
        terms["loss"] = torch.stack([weight_of[name] * term for name, term in terms.items()]).sum()
        return terms

    def _scale(self, log_snr: Tensor) -> Tensor:
        low, high, n = self.KNOTS
        at = ((log_snr - low) / (high - low) * (n - 1)).clamp(0, n - 1.001)
        left = at.long()
        share = at - left
        return (self.log_scale[left] * (1 - share) + self.log_scale[left + 1] * share).exp()


def _mean(values: Tensor) -> Tensor:
    """Zero where there is none, as in a batch whose trunk is told of every row."""
    return values.sum() / max(len(values), 1)
