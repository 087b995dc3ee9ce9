"""One training run, top to bottom; run it again and it resumes."""

import csv
import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter

from diffusion.checkpoint import make_scheduler
from diffusion.latents import images_from_latents, latents_from_images
from diffusion.network import CellDenoiser
from diffusion.sampler import sample_latents
from diffusion.white_balance import reference_background
from training.augmentation import augmented
from training.config import TrainingConfig
from training.data import DataError, LabelledImages, class_counts
from training.ema import AveragedWeights
from training.loss import Objective, draw_sigmas
from training.progress import console, progress_bar

STATE_FILE = "state.pt"
CONFIG_FILE = "training.json"
LOSSES_FILE = "losses.csv"
WEIGHTS_FILE = "denoiser/diffusion_pytorch_model.safetensors"
LOG_EVERY_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """What a finished run hands to calibration and packaging."""

    network: CellDenoiser
    """Averaged weights."""
    background: torch.Tensor
    """The training set's ground. (3,)"""
    n_images_seen: int
    training_s: float
    """Seconds spent on optimiser steps, over all resumptions."""
    n_threads: int


def train(
    config: TrainingConfig,
    data: LabelledImages,
    out: Path,
    *,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainedNetwork:
    """Train a class-conditional denoiser and return its averaged weights.

    Every random choice is drawn from (seed, step), so a run that was killed and started again sees
    the same batches, and has the same losses, as one that was not.

    Args:
        config: the whole recipe.
        data: training images only; held-out ones were taken away before.
        out: folder for the state, TensorBoard scalars and sample grids.
        on_step: called with (step, loss) after each step.

    Raises:
        DataError: if there are fewer than two classes, or `out` belongs to another run.
    """
    # --- what there is to learn from
    if len(class_counts(data)) < 2:
        raise DataError(
            f"Only {len(class_counts(data))} class in the training data; a class-conditional model "
            "needs at least two folders with images."
        )
    if config.init_from is not None and not (Path(config.init_from) / WEIGHTS_FILE).is_file():
        raise DataError(
            f"{config.init_from} has no {WEIGHTS_FILE} to start from; give a checkpoint folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, config, data)
    by_class = [np.flatnonzero(data.labels == label) for label in range(len(data.class_names))]
    present = [label for label, indices in enumerate(by_class) if len(indices)]
    sigma_data = standard_deviation(data.images)
    reference = ground_of(data.images)

    # --- network, optimiser, averaged weights
    accelerator = Accelerator(mixed_precision="bf16")
    set_seed(config.seed)
    raw_network = CellDenoiser(
        image_size=config.image_size,
        n_classes=len(data.class_names),
        patch_size=config.patch_size,
        widths=config.widths,
        n_blocks=config.n_blocks,
        n_decoder_blocks=config.n_decoder_blocks,
        n_shared_stages=config.n_shared_stages,
        trunk_can_be_told=config.told_trunk_fraction > 0,
        dropout=config.dropout,
        sigma_data=sigma_data,
    )
    if config.init_from is not None:
        _start_from(raw_network, Path(config.init_from), whole_trunk=config.freeze_trunk)
    if config.freeze_trunk:
        for module in raw_network.trunk_modules():
            module.requires_grad_(False)
    averaged = AveragedWeights(raw_network.to(accelerator.device), config.ema_halflife_images)
    objective = Objective().to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [
            parameter
            for module in (raw_network, objective)
            for parameter in module.parameters()
            if parameter.requires_grad
        ],
        lr=config.lr,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
    )
    network, optimizer = accelerator.prepare(raw_network, optimizer)
    network.train()

    # --- pick up where an earlier start was killed
    step, elapsed_s, recent = 0, 0.0, list[float]()
    state_path = out / STATE_FILE
    if state_path.is_file():
        state = torch.load(state_path, map_location=accelerator.device, weights_only=True)
        raw_network.load_state_dict(state["network"])
        averaged.network.load_state_dict(state["averaged"])
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed_s, recent = state["step"], state["elapsed_s"], state["recent"]
        console.print(f"Resuming at {step * config.batch_size:,} images.")

    # --- the loop
    def snapshot() -> None:
        # One move replaces the state: a kill in between leaves the former one whole.
        state = {
            "network": raw_network.state_dict(),
            "averaged": averaged.network.state_dict(),
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed_s": elapsed_s,
            "recent": recent,
        }
        torch.save(state, state_path.with_suffix(".partial"))
        state_path.with_suffix(".partial").replace(state_path)

    def progress() -> float:
        if config.minutes is not None:
            return elapsed_s / (60 * config.minutes)
        return step / config.n_steps

    total = config.n_steps * config.batch_size if config.minutes is None else None
    snapshot_s = grid_s = elapsed_s
    with (
        closing(_LossTable(out / LOSSES_FILE, step)) as losses_file,
        closing(SummaryWriter(str(out / "tensorboard"))) as writer,
        progress_bar("loss", "speed") as bar,
    ):
        task = bar.add_task(
            "Training",
            total=total,
            completed=step * config.batch_size,
            loss="",
            speed="",
        )
        while progress() < 1:
            started = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, progress(), step * config.batch_size)
            batch = _draw_batch(config, data, by_class, present, reference, step)
            # Dropout asks torch's global generator, which a resumed run would find at its start.
            torch.manual_seed(int(np.random.default_rng([config.seed, step, 1]).integers(2**62)))
            with accelerator.autocast():
                terms = objective(
                    raw_network,
                    *(tensor.to(accelerator.device) for tensor in batch),
                    contrast_weight=config.contrast_weight,
                    head_weight=0.0 if config.freeze_trunk else config.head_weight,
                    noised_head_weight=config.noised_head_weight,
                )
            loss = terms["loss"]
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            n_seen = step * config.batch_size
            averaged.update(raw_network, batch_size=config.batch_size, n_images_seen=n_seen)
            values = {name: float(term.detach()) for name, term in terms.items()}
            value = values["loss"]
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"The loss became {value} after {n_seen} images; lower `lr` "
                    f"({config.lr}) in the recipe and start in a new folder."
                )
            elapsed_s += time.perf_counter() - started

            # --- tell the world
            recent.append(value)
            if on_step is not None:
                on_step(step, value)
            if step % LOG_EVERY_STEPS == 0:
                mean_loss = float(np.mean(recent))
                recent.clear()
                speed = n_seen / elapsed_s
                losses_file.writerow([step, n_seen, f"{mean_loss:.6f}"])
                for name, latest in values.items():
                    writer.add_scalar(name, latest, n_seen)
                writer.add_scalar("images_per_second", speed, n_seen)
                writer.add_scalar("lr", optimizer.param_groups[0]["lr"], n_seen)
                shown_total = total or int(n_seen / max(progress(), 1e-9))
                bar.update(
                    task,
                    completed=n_seen,
                    total=shown_total,
                    loss=f"loss {mean_loss:.4f}",
                    speed=f"{speed:.0f} images/s",
                )
                if not console.is_terminal and step % (LOG_EVERY_STEPS * 10) == 0:
                    left_min = elapsed_s / max(progress(), 1e-9) * (1 - progress()) / 60
                    console.print(
                        f"{n_seen:,} images · loss {mean_loss:.4f} · {speed:.0f} images/s · "
                        f"{left_min:.0f} min left"
                    )
            if elapsed_s - snapshot_s > 60 * config.snapshot_minutes:
                snapshot()
                snapshot_s = elapsed_s
            if elapsed_s - grid_s > 60 * config.grid_minutes:
                writer.add_image(
                    "samples", sample_grid(averaged.network), n_seen, dataformats="HWC"
                )
                grid_s = elapsed_s

        snapshot()
        grid = sample_grid(averaged.network)
        writer.add_image("samples", grid, step * config.batch_size, dataformats="HWC")
        Image.fromarray(grid).save(out / "samples.png")
    return TrainedNetwork(
        network=averaged.network,
        background=reference,
        n_images_seen=step * config.batch_size,
        training_s=elapsed_s,
        n_threads=torch.get_num_threads(),
    )


def learning_rate(config: TrainingConfig, progress: float, n_images_seen: int) -> float:
    """Linear warm-up in images, then half a cosine down to a hundredth of the peak."""
    warmup = min(1.0, (n_images_seen + config.batch_size) / max(config.warmup_images, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * warmup * (0.01 + 0.99 * cosine)


def standard_deviation(images: NDArray[np.uint8]) -> float:
    """Standard deviation of the latents about each colour's mean. uint8 (n, H, W, 3)

    Measured on at most 2,000 evenly spaced images: the third digit is of no consequence.
    """
    chosen = images[:: max(1, len(images) // 2000)]
    latents = latents_from_images(chosen)
    return round(float(latents.var(dim=(0, 2, 3)).mean().sqrt()), 4)


def ground_of(images: NDArray[np.uint8]) -> torch.Tensor:
    """Colour of the ground between the cells, measured on at most 500 evenly spaced images. (3,)"""
    return reference_background(latents_from_images(images[:: max(1, len(images) // 500)]))


def sample_grid(network: CellDenoiser, *, n_per_class: int = 4) -> NDArray[np.uint8]:
    """Drawn cells: one row for each class. uint8 (n_classes * H, n_per_class * W, 3)"""
    n_classes = network.config.n_classes
    labels = [label for label in range(n_classes) for _ in range(n_per_class)]
    latents = sample_latents(network, make_scheduler(network), labels, range(len(labels)))
    images = images_from_latents(latents)
    rows = [
        np.concatenate(list(images[i * n_per_class : (i + 1) * n_per_class]), axis=1)
        for i in range(n_classes)
    ]
    return np.concatenate(rows, axis=0)


def _draw_batch(
    config: TrainingConfig,
    data: LabelledImages,
    by_class: list[NDArray[np.intp]],
    present: list[int],
    reference: torch.Tensor,
    step: int,
) -> tuple[torch.Tensor, ...]:
    """Batch number `step`, in the order that `Objective` takes it: class-balanced images."""
    rng = np.random.default_rng([config.seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    labels = rng.choice(present, size=config.batch_size)
    indices = [int(rng.choice(by_class[label])) for label in labels]
    latents, told, is_strong = augmented(
        latents_from_images(data.images[indices]), generator, config.augmentation, reference
    )
    noise = torch.randn(latents.shape, generator=generator)
    is_hidden = torch.rand(config.batch_size, generator=generator) < config.class_dropout
    uniform = torch.rand((config.batch_size, len(data.class_names)), generator=generator)
    gumbel = -(-uniform.clamp(1e-9, 1 - 1e-7).log()).log()
    # Always as many, so that every step costs the same.
    n_told = round(config.told_trunk_fraction * config.batch_size)
    mild = (~is_strong).nonzero()[:, 0]
    is_trunk_told = torch.zeros(config.batch_size, dtype=torch.bool)
    is_trunk_told[mild[torch.randperm(len(mild), generator=generator)[:n_told]]] = True
    told[is_trunk_told, 0] = 1.0
    sigmas = draw_sigmas(is_trunk_told, config, generator)
    shown = torch.from_numpy(labels.astype(np.int64))
    return latents, told, sigmas, noise, shown, is_hidden, gumbel, is_trunk_told


def _start_from(network: CellDenoiser, folder: Path, *, whole_trunk: bool) -> None:
    """Take over the weights of a checkpoint, as far as names and shapes agree."""
    own = network.state_dict()
    found = {
        name: weights.to(own[name].dtype)
        for name, weights in load_file(folder / WEIGHTS_FILE).items()
        if name in own and own[name].shape == weights.shape
    }
    trunk = {id(p) for module in network.trunk_modules() for p in module.parameters()}
    missing = [n for n, p in network.named_parameters() if id(p) in trunk and n not in found]
    if not found or (whole_trunk and missing):
        raise DataError(
            f"{'The trunk' if found else 'No weight'} in {folder} does not fit this recipe's "
            "network; start from a checkpoint of the same recipe."
        )
    network.load_state_dict(found, strict=False)
    console.print(f"Starting from {folder}: {len(found)} of {len(own)} tensors taken over.")


def _claim(out: Path, config: TrainingConfig, data: LabelledImages) -> None:
    """Write the whole recipe before the first step, or refuse a folder of another run."""
    described = {
        "config": json.loads(json.dumps(config.as_json())),
        "data_digest": data.digest,
        "class_names": list(data.class_names),
        "n_images": len(data),
    }
    path = out / CONFIG_FILE
    if path.is_file():
        earlier = json.loads(path.read_text())
        recipes = [run["config"] for run in (earlier, described)]
        # How the classifier is fitted afterwards is no part of the run.
        differing = sorted(
            key
            for key in described["config"]
            if key != "fitting" and recipes[0].get(key) != recipes[1][key]
        )
        if any(earlier[key] != described[key] for key in described if key != "config"):
            differing.append("the data")
        if differing:
            raise DataError(
                f"{out} holds a run that differs in {', '.join(differing)}; give another --out, "
                "or the same options to resume it."
            )
    path.write_text(json.dumps(described, indent=2) + "\n")


class _LossTable:
    """`losses.csv`: step, images seen, mean loss since the row before."""

    def __init__(self, path: Path, step: int) -> None:
        """Open it without the rows that a run resumed at `step` will write again."""
        kept: list[list[str]] = []
        if path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]
        self._file = path.open("w", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(["step", "n_images", "loss"])
        self._csv.writerows(kept)

    def writerow(self, row: list[Any]) -> None:
        self._csv.writerow(row)
        self._file.flush()

    def close(self) -> None:
        self._file.close()
