"""Where on the log-SNR axis a checkpoint tells its classes apart, on the cells it held out.

    python benchmarks/draw_plans.py --checkpoint checkpoints/pbc64 --data ../shared/data/pbc64/train

Chooses nothing by itself: it prints balanced accuracy by level, by weighting and range, with the
image turned between draws and not, in float32 and bfloat16, and for another seed. Only cells that
training kept aside are used, so the validation and shift sets stay untouched.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.checkpoint import load_checkpoint
from diffusion.classifier import WEIGHTINGS, paired_class_errors
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.latents import latents_from_images
from diffusion.network import in_bfloat16
from diffusion.schedule import sigmas_from_log_snr
from training.data import batches, read_images
from training.progress import console, tracked


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option()],
    limit: Annotated[int, typer.Option(help="At most this many held-out cells.")] = 500,
    n_levels: int = 12,
) -> None:
    """Print the tables."""
    model = load_checkpoint(checkpoint)
    header = model.header
    cells = read_images(data, header.image_size, crop_px=header.crop_px)
    cells = cells.where(cells.held_out(header.training_config["held_out_fraction"]))
    cells = cells.where(np.arange(len(cells)) < limit).labelled_for(model.class_names)
    latents = latents_from_images(cells.images)
    labels = torch.from_numpy(cells.labels)
    fast = in_bfloat16(model.denoise, model.device)

    def errors_of(plan: DrawPlan, denoise, seed: int, what: str):
        errors, levels = [], []
        for chunk in tracked(list(batches(len(cells), 8)), what):
            draws = [
                keyed_draws(plan, latents.shape[1:], seed=seed, image_digest=digest)
                for digest in cells.digests[chunk]
            ]
            log_snr = torch.stack([d.log_snr for d in draws])
            errors.append(
                paired_class_errors(
                    denoise,
                    latents[chunk],
                    sigmas_from_log_snr(log_snr).to(latents),
                    torch.stack([d.noise for d in draws]),
                    torch.arange(len(model.class_names)),
                    turns=torch.stack([d.turns for d in draws]) if plan.turned else None,
                )
            )
            levels.append(log_snr)
        return torch.cat(errors), torch.cat(levels)

    def accuracy(scores: torch.Tensor) -> float:
        right = (scores.argmax(dim=1) == labels).double()
        return float(torch.stack([right[labels == k].mean() for k in labels.unique()]).mean())

    wide = DrawPlan(log_snr_min=-2, log_snr_max=7, n_levels=n_levels, n_blocks=1)
    straight, levels = errors_of(wide, fast, 0, "straight")
    turned, _ = errors_of(wide.model_copy(update={"turned": True}), fast, 0, "turned")
    other, other_levels = errors_of(
        wide.model_copy(update={"turned": True}), fast, 1, "turned, seed 1"
    )
    exact, _ = errors_of(wide.model_copy(update={"turned": True}), model.denoise, 0, "float32")

    console.print(f"{len(cells)} held-out cells, checkpoint {model.digest[:12]}")
    by_level = Table("log-SNR", "straight", "turned", "2 pairs", title="one pair at one level")
    for level in range(n_levels):
        pair = slice(2 * level, 2 * level + 2)
        row = [accuracy(-e[:, pair].sum(dim=1)) for e in (straight, turned)]
        both = accuracy(-(turned[:, pair] + other[:, pair]).sum(dim=1))
        centre = float(levels[:, pair].mean())
        by_level.add_row(f"{centre:.2f}", *(f"{value:.3f}" for value in (*row, both)))
    console.print(by_level)

    weightings = {**WEIGHTINGS, "x-MSE": lambda log_snr: (-log_snr).exp()}
    weightings["e^(-3/4 log-SNR)"] = lambda log_snr: (-0.75 * log_snr).exp()
    ranges = Table("weighting", "range", "straight", "turned", "turned, 2 seeds", "float32")
    for name, weighting in weightings.items():
        for low, high in ((0, n_levels), (1, 11), (2, 10), (3, 10), (3, 9), (4, 9), (2, 8)):
            used = slice(2 * low, 2 * high)

            def score(errors, at, weighting=weighting, used=used):
                return -(weighting(at[:, used])[..., None] * errors[:, used]).sum(dim=1)

            first = score(turned, levels)
            row = [
                score(straight, levels),
                first,
                first + score(other, other_levels),
                score(exact, levels),
            ]
            step = 9 / n_levels
            ranges.add_row(
                name,
                f"{-2 + step * low:.2f} to {-2 + step * high:.2f}",
                *(f"{accuracy(scores):.3f}" for scores in row),
            )
    console.print(ranges)
    for name, weighting in WEIGHTINGS.items():
        verdicts = [
            (weighting(at)[..., None] * errors).sum(dim=1).argmin(dim=1)
            for errors, at in ((turned, levels), (exact, levels), (other, other_levels))
        ]
        changed = [float((verdicts[0] != v).double().mean()) for v in verdicts[1:]]
        console.print(
            f"{name}: verdicts changed by float32 {changed[0]:.1%}, "
            f"by another seed {changed[1]:.1%}"
        )


if __name__ == "__main__":
    typer.run(main)
