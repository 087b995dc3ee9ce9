"""How well a checkpoint denoises at each noise level, as it draws and as it classifies.

    D=../shared/data/pbc64/val
    python benchmarks/denoising_loss.py --checkpoint checkpoints/pbc64 --data $D

The loss of Karras et al. (2022), eq. 8: an untrained network has 1 at every level. At high noise
the mean picture of each class, and of all, say what knowing the class and the looks is worth.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.checkpoint import load_checkpoint
from diffusion.latents import latents_from_images
from diffusion.schedule import sigmas_from_log_snr
from training.data import read_images

LEVELS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Labelled cells.")],
    n: Annotated[int, typer.Option(help="Cells, drawn at random.")] = 64,
) -> None:
    """Print the loss by log-SNR."""
    model = load_checkpoint(checkpoint)
    network, recipe = model.network, model.header.training_config
    images = read_images(data, recipe["image_size"], crop_px=recipe["crop_px"])
    latents = latents_from_images(images.images)
    labels = torch.from_numpy(images.labels.astype(np.int64))
    means = torch.stack([latents[labels == k].mean(dim=0) for k in range(len(images.class_names))])
    chosen = torch.from_numpy(np.random.default_rng(0).choice(len(latents), n, replace=False))
    clean, of = latents[chosen], labels[chosen]
    split, rows, sd = network.split(), torch.arange(n), network.config.sigma_data

    def loss(denoised: torch.Tensor, sigma: float) -> str:
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
        return f"{weight * float((denoised - clean).square().mean()):.3f}"

    denoisers = {
        "trunk and decoder told, as it draws": network.as_denoiser(),
        "decoder told, as it classifies": lambda x, s, k: split.finish(split.share(x, s), rows, k),
        "mean picture of its class": lambda _x, _s, k: means[k],
        "mean picture of all": lambda x, *_: latents.mean(dim=0).expand_as(x),
    }
    table = Table("log-SNR", *(f"{level:g}" for level in LEVELS), title=f"{n} cells of {data}")
    for name, denoise in denoisers.items():
        found = []
        for level in LEVELS:
            sigmas = sigmas_from_log_snr(torch.full((n,), level))
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                denoised = denoise(clean + sigmas.view(-1, 1, 1, 1) * noise, sigmas, of)
            found.append(loss(denoised, float(sigmas[0])))
        table.add_row(name, *found)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
