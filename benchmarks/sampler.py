"""Steps, guidance and solver: how far drawn cells lie from real ones, against what a cell costs.

    python benchmarks/sampler.py --checkpoint checkpoints/pbc64 --data ../shared/data/pbc64/train \
      --judge runs/cnn

The kernel distance (KID) is taken in the features of an independent network (plain_cnn.py) to the
cells of `--data` that neither it nor the checkpoint was trained on, as many of each class as are
drawn. Every setting draws the same seeds. Two floors say what real cells get: cells that both
networks were trained on, and one half of the held-out cells against the other. `agreement` is how
often the independent network names the class that was asked for; its own accuracy on the held-out
cells is its ceiling, unless guidance draws textbook cells.

DPM-Solver++ is the sampler that ships, with one pass a step. Heun's method (Karras et al., 2022,
Algorithm 1 without noise added) takes two passes for each step but the last. Guidance takes every
pass twice.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from classifier import balanced
from plain_cnn import Judge, load_judge

from diffusion.checkpoint import Checkpoint, load_checkpoint
from diffusion.latents import latents_from_images
from diffusion.network import Denoiser
from diffusion.sampler import draw_noise, sample_latents
from diffusion.schedule import karras_sigmas
from studies.proportions import wilson
from training.data import DataError, LabelledImages, batches, read_images
from training.progress import Tenths, console, progress_bar
from training.sample_quality import kernel_distance

Array = NDArray[np.float64]
N_BLOCKS = 10
AT_ONCE = 32
wide = Console(width=120, highlight=False)


@torch.no_grad()
def heun(
    denoise: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    class_labels: Tensor,
    *,
    guidance_scale: float = 1.0,
    unknown: int = 0,
) -> Tensor:
    """Clean latents by Heun's method on dx = (x - D(x; sigma)) / sigma dsigma. (B, *)

    Args:
        denoise: the trained model.
        noise: standard normal. (B, *)
        sigmas: noise levels, falling, 0 not among them. (T,)
        class_labels: (B,)
        guidance_scale: as in `sample_latents`.
        unknown: label of "class unknown"; asked where the guidance is not 1.
    """

    def slope(latents: Tensor, sigma: Tensor) -> Tensor:
        levels = sigma.expand(len(latents))
        denoised = denoise(latents, levels, class_labels)
        if guidance_scale != 1:
            plain = denoise(latents, levels, torch.full_like(class_labels, unknown))
            denoised = plain + guidance_scale * (denoised - plain)
        return (latents - denoised) / sigma

    latents = noise * sigmas[0]
    for sigma, after in zip(sigmas, [*sigmas[1:], torch.zeros(())], strict=True):
        first = slope(latents, sigma)
        moved = latents + (after - sigma) * first
        if after > 0:
            moved = latents + (after - sigma) * (first + slope(moved, after)) / 2
        latents = moved
    return latents


def n_passes(solver: str, n_steps: int, guidance_scale: float) -> int:
    """Network passes that one drawn cell takes."""
    passes = 2 * n_steps - 1 if solver == "heun" else n_steps
    return passes * (1 if guidance_scale == 1 else 2)


def drawn(
    model: Checkpoint, labels: Sequence[int], solver: str, n_steps: int, guidance_scale: float
) -> Tensor:
    """One cell of each label; cell i has seed i. (n, C, H, W) in [-1, 1]"""
    config = model.network.config
    shape = (config.n_channels, config.image_size, config.image_size)
    levels = model.scheduler.config
    sigmas = karras_sigmas(n_steps, sigma_min=levels.sigma_min, sigma_max=levels.sigma_max)
    parts = []
    for chunk in batches(len(labels), AT_ONCE):
        seeds = range(len(labels))[chunk]
        if solver == "heun":
            latents = heun(
                model.denoise,
                draw_noise(seeds, shape),
                sigmas,
                torch.tensor(labels[chunk]),
                guidance_scale=guidance_scale,
                unknown=config.n_classes,
            )
        else:
            latents = sample_latents(
                model.network,
                model.scheduler,
                labels[chunk],
                seeds,
                n_steps=n_steps,
                guidance_scale=guidance_scale,
            )
        parts.append(latents.clamp(-1, 1))
    return torch.cat(parts)


def kid(one: Array, other: Array, seed: int) -> dict[str, float]:
    """Kernel distance with a 95 % interval from the spread of its blocks."""
    found = kernel_distance(one, other, n_blocks=N_BLOCKS, rng=np.random.default_rng(seed))
    half = float(stdtrit(N_BLOCKS - 1, 0.975)) * found.standard_error
    return {
        "estimate": found.estimate,
        "ci_low": found.estimate - half,
        "ci_high": found.estimate + half,
        "n": found.n,
    }


def agreement(judge: Judge, latents: Tensor, labels: Sequence[int]) -> dict[str, float]:
    """How often the judge names the class."""
    verdicts = [
        judge.probabilities(latents[chunk]).argmax(dim=1)
        for chunk in batches(len(latents), 2 * AT_ONCE)
    ]
    n_right = int((torch.cat(verdicts) == torch.tensor(labels)).sum())
    value = wilson(n_right, len(labels))
    return {
        "estimate": value.estimate,
        "ci_low": value.ci_low,
        "ci_high": value.ci_high,
        "n": value.n_trials,
    }


def features_of(judge: Judge, latents: Tensor) -> Array:
    parts = [judge.features(latents[chunk]) for chunk in batches(len(latents), 2 * AT_ONCE)]
    return torch.cat(parts).double().numpy()


def cheapest_good(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the settings whose interval reaches down to the best estimate, the cheapest."""
    best = min(row["kid"]["estimate"] for row in rows)
    good = [row for row in rows if row["kid"]["ci_low"] <= best]
    return min(good, key=lambda row: (row["gflop"], row["kid"]["estimate"]))


def _numbers(text: str, kind: Callable[[str], Any]) -> list[Any]:
    return [kind(part) for part in text.split(",") if part]


def _words(value: dict[str, float]) -> str:
    return "{estimate:.3f} ({ci_low:.3f}–{ci_high:.3f})".format(**value)


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Training set; its held-out cells are compared with.")],
    judge: Annotated[Path, typer.Option(help="Folder of a plain CNN.")],
    per_class: Annotated[int, typer.Option(help="Cells to draw of each class.")] = 40,
    steps: Annotated[str, typer.Option(help="Of DPM-Solver++.")] = "8,12,18,32",
    heun_steps: Annotated[str, typer.Option(help="Of Heun's method; empty for none.")] = "6,9",
    guidance: Annotated[str, typer.Option(help="Guidance scales.")] = "1,1.5,2",
    seed: Annotated[int, typer.Option(help="Of the cells compared with and of KID's blocks.")] = 0,
    json_file: Annotated[Path, typer.Option("--json")] = Path("benchmarks/results/sampler.json"),
) -> None:
    """Draw, judge, print; the JSON is written after each setting."""
    model, critic = load_checkpoint(checkpoint), load_judge(judge)
    header = model.header
    if tuple(critic.facts["class_names"]) != header.class_names:
        raise DataError(f"{judge} and {checkpoint} name different classes; train one of them anew.")
    known = read_images(data, header.image_size, crop_px=header.crop_px)
    known = known.labelled_for(header.class_names)
    held_out = known.held_out(header.training_config["held_out_fraction"])
    n = per_class * len(header.class_names)
    aside = balanced(known.where(held_out), n, seed)
    trained_on = balanced(known.where(~held_out), n, seed)

    def features_of_cells(cells: LabelledImages) -> Array:
        return features_of(critic, latents_from_images(cells.images))

    real, half = features_of_cells(aside), np.arange(len(aside)) % 2 == 0
    floors = {
        "training cells": kid(features_of_cells(trained_on), real, seed),
        "half of the held-out cells": kid(real[half], real[~half], seed),
    }
    ceiling = agreement(critic, latents_from_images(aside.images), aside.labels.tolist())
    labels = [i % len(header.class_names) for i in range(n)]
    settings = [
        (solver, n_steps, scale)
        for solver, listed in (("dpm-solver++", steps), ("heun", heun_steps))
        for n_steps in _numbers(listed, int)
        for scale in _numbers(guidance, float)
    ]
    cost = model.network.flops().forward
    total = sum(n_passes(*setting) for setting in settings)
    results: dict[str, Any] = {
        "checkpoint_digest": model.digest,
        "data_digest": aside.digest,
        "judge": critic.facts,
        "n": n,
        "seed": seed,
        "floor": floors,
        "judge_accuracy": ceiling,
        "rows": [],
    }
    done, tenths = 0, Tenths("Drawing", total)
    with progress_bar() as bar:
        task = bar.add_task("Drawing", total=total)
        for setting in settings:
            latents = drawn(model, labels, *setting)
            solver, n_steps, scale = setting
            results["rows"].append(
                {
                    "solver": solver,
                    "n_steps": n_steps,
                    "guidance_scale": scale,
                    "n_passes": n_passes(*setting),
                    "gflop": n_passes(*setting) * cost / 1e9,
                    "kid": kid(features_of(critic, latents), real, seed),
                    "agreement": agreement(critic, latents, labels),
                }
            )
            done += n_passes(*setting)
            bar.update(task, completed=done)
            tenths.at(done)
            results["cheapest_good"] = cheapest_good(results["rows"])
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("solver", "steps", "guidance", "GFLOP a cell", "KID", "named as asked")
    for name, value in floors.items():
        named = "" if name == "training cells" else _words(ceiling)
        table.add_row(f"real: {name}", "", "", "", _words(value), named)
    for row in sorted(results["rows"], key=lambda row: row["gflop"]):
        chosen = "  ←" if row is results["cheapest_good"] else ""
        table.add_row(
            row["solver"],
            f"{row['n_steps']}",
            f"{row['guidance_scale']:g}",
            f"{row['gflop']:.1f}",
            _words(row["kid"]) + chosen,
            _words(row["agreement"]),
        )
    table.caption = f"← cheapest of those not worse than the best · {n} cells a setting"
    wide.print(table)
    console.print(f"Results in {json_file}")


if __name__ == "__main__":
    typer.run(main)
