"""Classification by denoising: the best class is the one that explains the noise.

`weighting` says why scores are log-likelihoods, `racing` and `packing` how to spend fewer
evaluations.

Shapes: B images, N noise draws, K classes; * is the shape of one image's latents.
"""

import torch
from torch import Tensor

from diffusion.network import SplitDenoiser
from diffusion.packing import noised_latents, turned_latents, unit_errors


@torch.no_grad()
def paired_class_errors(
    split: SplitDenoiser,
    latents: Tensor,
    sigmas: Tensor,
    noise: Tensor,
    class_labels: Tensor,
    *,
    turns: Tensor | None = None,
    micro_batch: int = 256,
) -> Tensor:
    """Squared error of the noise predicted under every candidate class, for draws of one's own.

    Every class sees the same draws: what a draw adds to all errors alike then cancels in the
    differences between classes, and those are all that decides.

    Args:
        split: the trained model.
        latents: clean images. (B, *)
        sigmas: noise levels, in the units of `latents`. (B, N)
        noise: standard normal draws. (B, N, *)
        class_labels: candidate classes, the same for all images or of each. (K,) or (B, K)
        turns: symmetry of the square in which each draw sees its image, 0..7. (B, N)
        micro_batch: most units (one draw under one class) in one call; at least one draw is.

    Returns:
        `|noise - predicted noise|^2`, summed over the image. (B, N, K)

    Source: Li et al. (2023), "Your diffusion model is secretly a zero-shot classifier", Alg. 1.
    """
    n_images, n_draws = sigmas.shape
    of_image = class_labels.expand(n_images, class_labels.shape[-1])
    n_classes = of_image.shape[1]
    errors = []
    n_rows = max(micro_batch // n_classes, 1)
    for rows in torch.split(torch.arange(n_images * n_draws), n_rows):
        image, draw = rows // n_draws, rows % n_draws
        clean = latents[image]
        if turns is not None:
            clean = turned_latents(clean, turns[image, draw])
        of_rows = unit_errors(
            split,
            clean,
            noised_latents(clean, sigmas[image, draw], noise[image, draw]),
            sigmas[image, draw],
            torch.arange(len(rows), device=clean.device).repeat_interleave(n_classes),
            of_image[image].flatten(),
        )
        errors.append(of_rows)
    return torch.cat(errors).view(n_images, n_draws, n_classes)
