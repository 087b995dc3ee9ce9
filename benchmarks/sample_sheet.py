"""A sheet of cells drawn by a checkpoint: one row for each class.

python benchmarks/sample_sheet.py --checkpoint checkpoints/pbc64 --out docs/images/samples.jpg
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.checkpoint import load_checkpoint
from diffusion.latents import images_from_latents
from diffusion.sampler import sample_latents


def main(
    checkpoint: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    n_per_class: int = 10,
    n_steps: int = 24,
    zoom: int = 2,
) -> None:
    """Draw seeds 0 to n - 1 of each class: not chosen."""
    model = load_checkpoint(checkpoint)
    rows = []
    for label in range(len(model.class_names)):
        latents = sample_latents(
            model.network,
            model.scheduler,
            [label] * n_per_class,
            range(n_per_class),
            n_steps=n_steps,
        )
        rows.append(np.concatenate(list(images_from_latents(latents)), axis=1))
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    sheet = sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.BICUBIC)
    sheet.save(out, quality=92)


if __name__ == "__main__":
    typer.run(main)
