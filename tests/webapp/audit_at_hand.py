"""Stimulus sets for the audit: blurred noise, and real cells where there are any."""

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from studies.stimuli import Stimulus, write_manifest
from webapp.pictures import encode_png, pixel_digest

Pixels = NDArray[np.uint8]
Treatment = Callable[[Pixels], Pixels]

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PBC = DATA / "pbc64"


def fields(
    n: int, *, ground: float = 253.5, ground_sd: float = 0.4, size: int = 64, seed: int = 0
) -> list[Pixels]:
    """Blurred dark noise on a light ground: white-balanced and nearly saturated, as cells are.

    Args:
        ground_sd: how much the ground differs between pictures, in grey levels.
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        dark = np.maximum(0, gaussian_filter(rng.normal(size=(size, size, 3)), (4, 4, 0))) * 400
        grain = gaussian_filter(rng.normal(size=(size, size, 3)), (0.7, 0.7, 0)) * 2
        level = ground + rng.normal(0, ground_sd)
        made.append(np.clip(np.rint(level - dark + grain), 0, 255).astype(np.uint8))
    return made


def write_set(
    folder: Path,
    pictures: Sequence[Pixels],
    *,
    classes: Sequence[str] = ("basophil", "monocyte"),
    treatment: Treatment = lambda pixels: pixels,
) -> Path:
    """Every second picture of each class counts as generated, and is treated."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    stimuli = []
    for number, pixels in enumerate(pictures):
        is_synthetic = number // len(classes) % 2 == 1
        image = Image.fromarray(np.ascontiguousarray(treatment(pixels) if is_synthetic else pixels))
        name = rng.bytes(8).hex()
        (folder / f"{name}.png").write_bytes(encode_png(image))
        stimuli.append(
            Stimulus(
                stimulus_id=name,
                file=f"{name}.png",
                class_name=classes[number % len(classes)],
                is_synthetic=is_synthetic,
                source_digest=pixel_digest(image),
            )
        )
    write_manifest(folder, stimuli)
    return folder


def cells(table: Path) -> tuple[list[Pixels], list[str]]:
    """All pictures of a packed set of real cells, and their classes."""
    if not table.is_file():
        pytest.skip(f"no real cells at {table}")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row.get("archive", f"{table.stem}.zip") for row in rows]
    archives = {name: zipfile.ZipFile(table.parent / name) for name in set(names)}
    files = (
        io.BytesIO(archives[name].read(row["file"])) for name, row in zip(names, rows, strict=True)
    )
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return pictures, [row["class"] for row in rows]


def by_class(pictures: Sequence[Pixels], classes: Sequence[str], n: int, seed: int) -> list[Pixels]:
    """n pictures of each class, at random, the classes taking turns as `write_set` expects."""
    rng = np.random.default_rng(seed)
    of_class = [
        rng.choice(np.flatnonzero(np.array(classes) == name), n, replace=False)
        for name in sorted(set(classes))
    ]
    return [pictures[index] for row in np.transpose(of_class) for index in row]


def jpeg(quality: int) -> Treatment:
    def through_jpeg(pixels: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return through_jpeg


def shifted(levels: int) -> Treatment:
    return lambda pixels: np.clip(pixels.astype(int) + levels, 0, 255).astype(np.uint8)


def resampled(factor: float, kernel: Image.Resampling) -> Treatment:
    def down_and_up(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels)
        side = round(image.width * factor)
        return np.asarray(image.resize((side, side), kernel).resize(image.size, kernel))

    return down_and_up
