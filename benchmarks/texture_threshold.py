"""How much the share of pictures with a foreign texture owes to the division of reference cells.

    D=../shared/data
    python benchmarks/texture_threshold.py --checkpoint checkpoints/pbc64 --data $D/pbc64/train \
      --judged $D/pbc64/shift_batchB_dev --judged $D/shift/tecom_d1_dev --judged $D/shift/bccd_dev

A Gaussian of the finest level's statistics is fitted on some held-out cells, and the threshold is
the distance that one in a hundred of the others exceeds, as in `diffusion.anomaly`. Here the
division is made anew several times, and the distance is to the nearest class or to all cells as
one. Also judged: held-out cells that were kept out of all of it, as they are and altered.
"""

import sys
from dataclasses import replace
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
from diffusion.mahalanobis import fit_class_gaussians
from diffusion.white_balance import white_balanced
from training.augmentation import Augmentation, augmented
from training.data import read_images

N_FIT, N_APART, RATE = 400, 172, 0.01


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Its training cells.")],
    judged: Annotated[list[Path], typer.Option(help="Cells to judge.")],
    n_divisions: int = 6,
) -> None:
    """Print the lowest and highest share flagged at 1 % over the divisions."""
    model = load_checkpoint(checkpoint)
    header, network = model.header, model.network
    ground = torch.tensor(header.background)
    recipe = header.training_config

    def textures(latents: torch.Tensor) -> np.ndarray:
        shown = white_balanced(latents, ground).split(64)
        with torch.no_grad():
            return torch.cat([network.features_and_texture(x)[1] for x in shown]).double().numpy()

    def cells(folder: Path) -> torch.Tensor:
        side, crop = recipe["image_size"], recipe["crop_px"]
        return latents_from_images(read_images(folder, side, crop_px=crop).images)

    known = read_images(data, recipe["image_size"], crop_px=recipe["crop_px"])
    held = known.where(known.held_out(recipe["held_out_fraction"]))
    latents, labels = latents_from_images(held.images), held.labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(held))
    reference, apart = np.sort(order[N_APART:]), np.sort(order[:N_APART])
    everywhere = replace(Augmentation(), strong_fraction=1.0, balanced_fraction=0.0)
    altered = augmented(latents[apart], torch.Generator().manual_seed(0), everywhere, ground)[0]
    sets = {"held out": textures(latents[apart]), "held out, altered": textures(altered)}
    sets |= {folder.name: textures(cells(folder)) for folder in judged}
    seen, of = textures(latents[reference]), labels[reference]

    table = Table("distance to", *sets, title=f"{n_divisions} divisions of {len(seen)} cells")
    for name, classes in (("the nearest class", of), ("all cells as one", np.zeros_like(of))):
        shares = []
        for seed in range(n_divisions):
            chosen = np.random.default_rng(seed).permutation(len(seen))
            fitted, ranked = chosen[:N_FIT], chosen[N_FIT:]
            gaussians = fit_class_gaussians(seen[fitted], classes[fitted])
            far = [
                gaussians.squared_distances(x).min(axis=1) for x in (seen[ranked], *sets.values())
            ]
            rank = int(np.ceil((1 - RATE) * (len(ranked) + 1))) - 1
            shares.append([float((x > np.sort(far[0])[rank]).mean()) for x in far[1:]])
        lowest, highest = np.min(shares, axis=0), np.max(shares, axis=0)
        table.add_row(name, *(f"{a:.2f}–{b:.2f}" for a, b in zip(lowest, highest, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
