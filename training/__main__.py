"""`python -m training draw|run|evaluate|package|export`: from images to a checkpoint and back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.progress import Progress, TaskID

from diffusion.checkpoint import CheckpointError, CheckpointHeader, load_checkpoint
from training.config import RECIPES, TrainingConfig
from training.data import DataError, LabelledImages, class_counts, read_images
from training.drawing import CLASS_NAMES, draw_data_set
from training.evaluate import evaluate as evaluated
from training.finish import finish, refuse_too_few
from training.loop import train
from training.package import package as packaged
from training.progress import console, progress_bar

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False
)

DataPath = Annotated[
    Path, typer.Option("--data", help="A folder of images by class, or name.csv of a packed set.")
]
CheckpointPath = Annotated[
    Path, typer.Option("--checkpoint", help="A folder written by `run`, or checkpoints/pbc64.")
]
HeldOut = Annotated[
    bool, typer.Option("--held-out", help="Only the cells of --data that `run` kept aside.")
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the user can mend is said in one line; the rest stays a traceback."""
    try:
        yield
    except (DataError, CheckpointError, ValueError) as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True)
        raise typer.Exit(2) from None


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="Folder to make: train/ and val/, by class.")],
    n_per_class: Annotated[int, typer.Option(help="Training cells of each class.")] = 400,
    n_val_per_class: Annotated[int, typer.Option(help="Validation cells of each class.")] = 40,
    size: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 64,
    seed: int = 0,
) -> None:
    """Draw a labelled data set of eight cell types, without any download."""
    with one_line_errors():
        for split, n in (("train", n_per_class), ("val", n_val_per_class)):
            with progress_bar() as bar:
                task = bar.add_task(f"Drawing {split}", total=n * len(CLASS_NAMES))
                report = partial(_advance, bar, task)
                draw_data_set(out / split, n, seed, split=split, size=size, progress=report)
            console.print(f"Drew {n} cells of each of {len(CLASS_NAMES)} classes in {out / split}")


@app.command()
def run(
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")],
    data: DataPath,
    out: Annotated[Path, typer.Option(help="Checkpoint folder to make; its run/ holds the state.")],
    minutes: Annotated[float | None, typer.Option(help="Train by the clock.")] = None,
    images: Annotated[int | None, typer.Option(help="Train for this many images shown.")] = None,
    crop_px: Annotated[
        int | None,
        typer.Option(help="Centred square to cut from larger images; 0 takes the whole frame."),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Checkpoint whose weights to start from.")
    ] = None,
    freeze_trunk: Annotated[
        bool, typer.Option("--freeze-trunk", help="Train the decoder only, with --init-from.")
    ] = False,
    strong_fraction: Annotated[
        float | None,
        typer.Option(help="Share of each batch that is altered strongly; the recipe's by default."),
    ] = None,
    seed: int = 0,
) -> None:
    """Train a checkpoint; run the same line again after a kill, and it resumes."""
    with one_line_errors():
        config = _recipe(recipe, minutes=minutes, images=images, seed=seed)
        if crop_px is not None:
            config = replace(config, crop_px=crop_px or None)
        if init_from is not None or freeze_trunk:
            config = replace(
                config,
                init_from=None if init_from is None else str(init_from),
                freeze_trunk=freeze_trunk,
            )
        if strong_fraction is not None:
            look = replace(config.augmentation, strong_fraction=strong_fraction)
            config = replace(config, augmentation=look)
        found = read_images(data, config.image_size, crop_px=config.crop_px)
        held_out = found.held_out(config.held_out_fraction)
        _describe(found, int(held_out.sum()))
        refuse_too_few(found, found.where(held_out))
        trained = train(config, found.where(~held_out), out / "run")
        digest = finish(config, found, found.where(held_out), trained, out)
    console.print(
        f"Checkpoint {digest[:12]} in {out}: {trained.n_images_seen:,} images shown in "
        f"{trained.training_s / 60:.1f} min on {trained.n_threads} thread(s)."
    )


@app.command()
def evaluate(
    checkpoint: CheckpointPath,
    data: DataPath,
    classes: Annotated[
        str | None,
        typer.Option(help="Candidate classes that you declare, comma-separated; all by default."),
    ] = None,
    anomaly: Annotated[bool, typer.Option(help="Also measure which cells are flagged.")] = False,
    halves: Annotated[
        int, typer.Option(help="Refit sets and calibration on so many random halves of the cells.")
    ] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results here.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only this many cells, balanced.")] = None,
    held_out: HeldOut = False,
    seed: Annotated[int, typer.Option(help="Of the noise draws.")] = 0,
) -> None:
    """Classify labelled cells and print recalls with intervals: head, generative, fused."""
    with one_line_errors():
        model = load_checkpoint(checkpoint)
        cells = _cells_for(model.header, data, limit=limit, held_out=held_out)
        result = evaluated(
            model,
            cells,
            candidates=None if classes is None else [name.strip() for name in classes.split(",")],
            anomaly=anomaly,
            n_halves=halves,
            seed=seed,
        )
        if json_file is not None:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    console.print(result.as_table())
    for row, of_row in result.rows.items():
        if of_row.halves is not None:
            console.print(f"{row}:", of_row.halves.as_table(result.class_names))
    if json_file is not None:
        console.print(f"Results in {json_file}")


@app.command()
def package(checkpoint: CheckpointPath) -> None:
    """Put a checkpoint into the BentoML model store, for `bentoml serve`."""
    with one_line_errors():
        tag = packaged(checkpoint)
    console.print(f"In the model store as {tag}")


@app.command()
def export(
    checkpoint: CheckpointPath,
    data: DataPath,
    out: Annotated[Path, typer.Option(help="Folder to make, by class.")],
    per_class: Annotated[int, typer.Option(help="At most this many cells of each class.")] = 10,
    held_out: HeldOut = False,
) -> None:
    """Write real cells as the model sees them, for a stimulus set or a look."""
    with one_line_errors():
        model = load_checkpoint(checkpoint)
        cells = _cells_for(model.header, data, limit=None, held_out=held_out)
        if out.exists() and any(out.iterdir()):
            raise DataError(f"{out} is not empty; give a new folder.")
        written = dict.fromkeys(cells.class_names, 0)
        for image, label, digest in zip(cells.images, cells.labels, cells.digests, strict=True):
            name = cells.class_names[label]
            if written[name] < per_class:
                (out / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(out / name / f"{digest[:16]}.png")
                written[name] += 1
    console.print(f"Wrote {sum(written.values())} cells of {len(written)} classes to {out}")


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _recipe(name: str, *, minutes: float | None, images: int | None, seed: int) -> TrainingConfig:
    if name not in RECIPES:
        raise DataError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    if minutes is not None and images is not None:
        raise DataError("Give --minutes or --images, not both: each says how long to train.")
    config = replace(RECIPES[name](), seed=seed)
    if minutes is not None:
        config = replace(config, minutes=minutes)
    if images is not None:
        config = replace(config, n_images=images)
    return config


def _cells_for(
    header: CheckpointHeader, data: Path, *, limit: int | None, held_out: bool
) -> LabelledImages:
    """Labelled cells framed for a checkpoint; with `held_out`, none it was trained on."""
    if limit is not None and limit < 1:
        raise DataError(f"--limit {limit} leaves no cell; give at least 1.")
    cells = read_images(
        data, header.image_size, crop_px=header.crop_px, limit=None if held_out else limit
    )
    if not held_out:
        return cells
    kept = cells.where(cells.held_out(header.training_config["held_out_fraction"]))
    if limit is not None and limit < len(kept):
        # Taken in turn from each class, as `read_images` does.
        turn = np.zeros(len(kept), dtype=np.int64)
        for label in np.unique(kept.labels):
            of_class = kept.labels == label
            turn[of_class] = np.arange(of_class.sum())
        chosen = np.zeros(len(kept), dtype=bool)
        chosen[np.argsort(turn, kind="stable")[:limit]] = True
        kept = kept.where(chosen)
    return kept


def _describe(data: LabelledImages, n_held_out: int) -> None:
    counts = ", ".join(f"{name} {n:,}" for name, n in class_counts(data).items())
    console.print(
        f"{len(data):,} cells ({counts}); {n_held_out:,} kept aside for calibration · "
        f"data {data.digest[:12]}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    app()
