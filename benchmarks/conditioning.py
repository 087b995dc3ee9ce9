"""Where the class should enter the network: accuracy, cost and samples of each arm.

    python benchmarks/conditioning.py --data ../shared/data/pbc64/train --images 80000 \
      --judge runs/cnn --json benchmarks/results/conditioning.json

Each arm trains until it has seen `--images` cells and used as much processor time as the first arm
needed for them; snapshots are taken when each of the two is reached, so that arms are compared at
equal images and at equal time. The learning rate is constant and the weights are averaged, so that
a snapshot is worth as much as an end. Judged on the cells that training keeps aside.
"""

import copy
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from plain_cnn import load_judge

from diffusion.checkpoint import make_scheduler
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.latents import latents_from_images
from diffusion.network import CellDenoiser
from diffusion.sampler import sample_latents
from diffusion.schedule import sigmas_from_log_snr
from studies.proportions import wilson
from training.augmentation import Augmentation
from training.config import TrainingConfig, pbc64
from training.data import LabelledImages, batches, read_images
from training.ema import AveragedWeights
from training.evaluate import mean_of_proportions
from training.loop import _draw_batch, ground_of, standard_deviation
from training.loss import Objective
from training.progress import console
from training.sample_quality import kernel_distance

UNTOLD = {"told_trunk_fraction": 0.0}
ALONE = {"head_weight": 0.0, "noised_head_weight": 0.0, "contrast_weight": 0.0, **UNTOLD}
ARMS = {
    "class in encoder and decoder": {"n_shared_stages": 0, **ALONE},
    "class in the decoder": {"n_shared_stages": 1, **ALONE},
    "class in the last level (deep K outputs)": {"n_shared_stages": 3, **ALONE},
    "K outputs of the last convolution": {"n_shared_stages": 4, **ALONE},
    "class in the decoder, head and contrast": {"n_shared_stages": 1},
    "class in the decoder, head only": {"n_shared_stages": 1, "contrast_weight": 0.0},
    "class in the decoder, head and contrast, trunk never told": {"n_shared_stages": 1, **UNTOLD},
}
PLAN = DrawPlan(log_snr_min=-1.0, log_snr_max=6.0, n_levels=6, n_blocks=1)


def main(
    data: Annotated[Path, typer.Option()],
    judge: Annotated[Path, typer.Option(help="Folder of a plain CNN, for the samples.")],
    images: int = 80_000,
    cells: Annotated[int, typer.Option(help="Held-out cells to classify.")] = 480,
    samples: Annotated[int, typer.Option(help="Cells to draw for the kernel distance.")] = 480,
    only: Annotated[str, typer.Option(help="Comma-separated numbers of arms.")] = "",
    seed: int = 0,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Train, judge, print."""
    recipe = replace(pbc64(), augmentation=Augmentation(strong_fraction=0.0), seed=seed)
    known = read_images(data, recipe.image_size)
    held_out = known.held_out(recipe.held_out_fraction)
    fit, aside = known.where(~held_out), known.where(held_out)
    # An equal share of each class.
    order = np.concatenate(
        [np.flatnonzero(aside.labels == k)[: cells // 8] for k in range(len(known.class_names))]
    )
    tested = aside.where(np.isin(np.arange(len(aside)), order))
    critic = load_judge(judge)
    real = critic.features(latents_from_images(tested.images)).double().numpy()

    chosen = [list(ARMS)[int(i)] for i in only.split(",")] if only else list(ARMS)
    results, budget_s = {}, 0.0
    for name in chosen:
        config = replace(recipe, **ARMS[name])
        at_images, at_time, spent_s = trained(config, fit, images, budget_s)
        budget_s = budget_s or spent_s
        flops = at_images.flops()
        results[name] = {
            "n_parameters": sum(p.numel() for p in at_images.parameters()),
            "gflop_trunk": flops.trunk / 1e9,
            "gflop_decoder": flops.decoder / 1e9,
            "gflop_all_classes": (flops.trunk + 8 * flops.decoder) / 1e9,
            "cpu_s_for_the_images": spent_s,
            "equal_images": judged(at_images, tested, critic, real, samples),
            "equal_time": judged(at_time, tested, critic, real, samples),
        }
        console.print(f"{name}: {results[name]}", soft_wrap=True)
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            facts = {
                "data_digest": tested.digest,
                "train_digest": fit.digest,
                "n": len(tested),
                "images": images,
                "seed": seed,
            }
            json_file.write_text(json.dumps({**facts, "arms": results}, indent=2) + "\n")
    table = Table("arm", "GFLOP, 8 classes", "images: accuracy", "KID", "time: accuracy", "KID")
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['gflop_all_classes']:.2f}",
            *(
                text
                for when in ("equal_images", "equal_time")
                for text in (
                    "{estimate:.3f} ({ci_low:.3f}–{ci_high:.3f})".format(
                        **row[when]["balanced_accuracy"]
                    ),
                    "{estimate:.3f} ± {standard_error:.3f}".format(**row[when]["kid"]),
                )
            ),
        )
    console.print(table)


def trained(
    config: TrainingConfig, data: LabelledImages, n_images: int, budget_s: float
) -> tuple[CellDenoiser, CellDenoiser, float]:
    """Averaged weights at equal images and at equal time, and the seconds for the images."""
    by_class = [np.flatnonzero(data.labels == k) for k in range(len(data.class_names))]
    ground, sigma_data = ground_of(data.images), standard_deviation(data.images)
    torch.manual_seed(config.seed)
    network = CellDenoiser(
        n_shared_stages=config.n_shared_stages,
        trunk_can_be_told=config.told_trunk_fraction > 0,
        sigma_data=sigma_data,
        widths=config.widths,
    )
    objective, averaged = Objective(), AveragedWeights(network, 10_000)
    optimizer = torch.optim.AdamW(
        [*network.parameters(), *objective.parameters()], lr=1e-3, betas=(0.9, 0.99)
    )
    network.train()
    step, spent_s = 0, 0.0
    at_images: CellDenoiser | None = None
    at_time: CellDenoiser | None = None
    images_s = 0.0
    while at_images is None or at_time is None:
        began = time.process_time()
        batch = _draw_batch(config, data, by_class, list(range(len(by_class))), ground, step)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 200)
        with torch.autocast("cpu", torch.bfloat16):
            terms = objective(
                network,
                *batch,
                contrast_weight=config.contrast_weight,
                head_weight=config.head_weight,
                noised_head_weight=config.noised_head_weight,
            )
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        averaged.update(
            network, batch_size=config.batch_size, n_images_seen=step * config.batch_size
        )
        spent_s += time.process_time() - began
        if at_images is None and step * config.batch_size >= n_images:
            at_images, images_s = copy.deepcopy(averaged.network), spent_s
        if at_time is None and spent_s >= (budget_s or images_s or float("inf")):
            at_time = copy.deepcopy(averaged.network)
        if step % 250 == 0:
            console.print(f"{step * config.batch_size:,} images · {spent_s:.0f} s")
    return at_images, at_time, images_s


@torch.no_grad()
def judged(
    network: CellDenoiser, tested: LabelledImages, critic, real: np.ndarray, n_samples: int
) -> dict:
    """Accuracy with twelve draws for each class, and the kernel distance of samples."""
    n_classes = len(tested.class_names)
    split = network.split(appearance="clean", bfloat16=True)
    verdicts = []
    for chunk in batches(len(tested), 8):
        latents = latents_from_images(tested.images[chunk])
        draws = [
            keyed_draws(PLAN, tuple(latents.shape[1:]), seed=0, image_digest=digest)
            for digest in tested.digests[chunk]
        ]
        log_snr = torch.stack([d.log_snr for d in draws]).flatten()
        sigmas = sigmas_from_log_snr(log_snr).float()
        clean = latents.repeat_interleave(PLAN.n_draws, dim=0)
        noised = clean + sigmas.view(-1, 1, 1, 1) * torch.cat([d.noise for d in draws])
        rows = torch.arange(len(noised)).repeat_interleave(n_classes)
        labels = torch.arange(n_classes).repeat(len(noised))
        denoised = split.finish(split.share(noised, sigmas), rows, labels)
        squared = (denoised - clean[rows]).square().sum(dim=(1, 2, 3)) / sigmas[rows].square()
        weighted = squared.view(-1, n_classes) * (-log_snr / 2).exp()[:, None]
        verdicts.append(weighted.view(len(latents), -1, n_classes).sum(dim=1).argmin(dim=1))
    right = (torch.cat(verdicts).numpy() == tested.labels).astype(int)
    balanced = mean_of_proportions(
        [
            wilson(int(right[tested.labels == k].sum()), int((tested.labels == k).sum()))
            for k in range(n_classes)
        ]
    )
    labels = [i % n_classes for i in range(n_samples)]
    drawn = torch.cat(
        [
            sample_latents(network, make_scheduler(network), labels[chunk], range(n_samples)[chunk])
            for chunk in batches(n_samples, 32)
        ]
    )
    features = critic.features(drawn.clamp(-1, 1)).double().numpy()
    kid = kernel_distance(features, real, rng=np.random.default_rng(0))
    return {
        "balanced_accuracy": {
            "estimate": balanced.estimate,
            "ci_low": balanced.ci_low,
            "ci_high": balanced.ci_high,
            "n": balanced.n_trials,
        },
        "kid": {"estimate": kid.estimate, "standard_error": kid.standard_error, "n": kid.n},
    }


if __name__ == "__main__":
    typer.run(main)
