"""The temperature that turns a checkpoint's scores into probabilities, from held-out cells."""

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from diffusion.classifier import WEIGHTINGS, classify, posterior
from diffusion.draws import DrawPlan
from diffusion.latents import latents_from_images
from diffusion.network import CellDenoiser, in_bfloat16
from training.data import LabelledImages, batches
from training.progress import Tenths, progress_bar

IMAGES_AT_ONCE = 16


def class_scores(
    network: CellDenoiser,
    data: LabelledImages,
    plan: DrawPlan,
    *,
    weighting: str,
    seed: int = 0,
    description: str = "Classifying",
) -> Tensor:
    """Weighted log-likelihoods of all the model's classes, centred. (n, K)

    In bfloat16: on the held-out cells of PBC it changes fewer verdicts than another seed does
    (docs/notes/measurements.md).
    """
    device = next(network.parameters()).device
    denoise = in_bfloat16(network.as_denoiser(), device)
    scores = []
    tenths = Tenths(description, len(data))
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(data))
        for chunk in batches(len(data), IMAGES_AT_ONCE):
            result = classify(
                denoise,
                latents_from_images(data.images[chunk]).to(device),
                data.digests[chunk],
                range(network.config.n_classes),
                plan,
                weighting=WEIGHTINGS[weighting],
                seed=seed,
            )
            scores.append(result.scores)
            bar.update(task, completed=chunk.stop)
            tenths.at(chunk.stop)
    return torch.cat(scores)


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The divisor of the scores under which the true classes are most probable.

    Classes count alike, as they do in training: the log-loss is averaged within each class first.

    Args:
        scores: (n, K)
        labels: true classes. (n,)

    Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.2.
    """
    counts = labels.bincount(minlength=scores.shape[1])
    weights = 1.0 / counts[labels].double()
    weights = weights / weights.sum()

    def log_loss(log_temperature: float) -> float:
        chosen = posterior(scores, temperature=float(torch.tensor(log_temperature).exp()))
        true = chosen.gather(1, labels[:, None])[:, 0].clamp_min(1e-300)
        return float(-(weights * true.log()).sum())

    # Scores run to thousands under one weighting and to units under another.
    spread = float(scores.abs().max().clamp_min(1e-6).log())
    fitted = minimize_scalar(log_loss, bounds=(spread - 12, spread + 3), method="bounded")
    return float(torch.tensor(float(fitted.x)).exp())
