"""Labelled cell images: a folder of images by class, or a packed set.

A packed set is `name.csv` with columns `archive, file, class` (and `class_id` where the classes
have a given order) beside the ZIP archives it names. Both become one array in memory.
"""

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion.latents import framed, image_digest
from training.progress import tracked

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


class DataError(Exception):
    """Images that cannot be used as they are; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Images of one size with their classes and digests, in the order they were read.

    Shapes: n images. `images` uint8 (n, size, size, 3), `labels` int64 (n,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    digests: tuple[str, ...]
    """SHA-256 of each image's pixels."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 of all (class, pixels) pairs, whatever their order and file format."""
        lines = sorted(
            f"{self.class_names[label]}:{digest}"
            for label, digest in zip(self.labels, self.digests, strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def where(self, chosen: NDArray[np.bool_]) -> "LabelledImages":
        """The chosen images, with the same class names. `chosen` (n,)"""
        return LabelledImages(
            images=self.images[chosen],
            labels=self.labels[chosen],
            class_names=self.class_names,
            digests=tuple(d for d, keep in zip(self.digests, chosen, strict=True) if keep),
        )

    def held_out(self, fraction: float) -> NDArray[np.bool_]:
        """Which images are kept from training: a fixed property of their pixels. (n,)

        Copies of one picture fall on the same side, and so does the same picture tomorrow.
        """
        return np.array([int(d[:8], 16) < fraction * 2**32 for d in self.digests], dtype=bool)

    def labelled_for(self, class_names: Sequence[str]) -> "LabelledImages":
        """The same images with labels in a model's order of classes; some may be absent here.

        Raises:
            DataError: if a class of these images is not one of the model's.
        """
        unknown = sorted({self.class_names[i] for i in self.labels} - set(class_names))
        if unknown:
            raise DataError(
                f"The model does not know {', '.join(unknown)}; it knows "
                f"{', '.join(class_names)}. Rename or remove these classes in the data."
            )
        to_model = np.array(
            [class_names.index(c) if c in class_names else -1 for c in self.class_names],
            dtype=np.int64,
        )
        return LabelledImages(
            images=self.images,
            labels=to_model[self.labels],
            class_names=tuple(class_names),
            digests=self.digests,
        )


def read_images(
    path: Path, image_size: int, *, crop_px: int | None = None, limit: int | None = None
) -> LabelledImages:
    """Images by class from a folder or a packed set (`name.csv`, or the same without `.csv`).

    Args:
        path: folder with one folder of images a class, or a packed set's table.
        image_size: side of the square they are framed to, in pixels.
        crop_px: centred square cut from larger photographs, see `diffusion.latents.framed`.
        limit: at most this many images, an equal share of each class as far as they reach.

    Raises:
        DataError: if nothing is there, a file cannot be read, or there is only one class.
    """
    table = path if path.suffix == ".csv" else path.with_name(path.name + ".csv")
    if path.is_dir():
        class_names, entries = _folder_entries(path)
    elif table.is_file():
        class_names, entries = _packed_entries(table)
    else:
        raise DataError(
            f"{path} is neither a folder of images by class nor a packed set (name.csv with its "
            "ZIP archives beside it); check the path."
        )
    if limit is not None:
        entries = _balanced(entries, limit)
    if not entries:
        raise DataError(
            f"{path} holds no images; put one folder for each class in it, with "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} files."
        )
    images, labels, digests, unreadable = [], [], [], []
    archives: dict[Path, zipfile.ZipFile] = {}
    try:
        for entry in tracked(entries, f"Reading {path.name}"):
            try:
                image = _decoded(entry, archives)
                framed_image = framed(image, image_size, crop_px=crop_px)
            except (OSError, SyntaxError, KeyError, ValueError, zipfile.BadZipFile) as error:
                unreadable.append(f"{entry.name} ({error})")
                continue
            pixels = np.asarray(framed_image, dtype=np.uint8)
            images.append(pixels)
            labels.append(entry.label)
            digests.append(image_digest(pixels))
    finally:
        for archive in archives.values():
            archive.close()
    if unreadable:
        shown = "; ".join(unreadable[:3]) + (" …" if len(unreadable) > 3 else "")
        raise DataError(
            f"{len(unreadable)} of {len(entries)} images in {path} cannot be read: {shown}. "
            "Repair or remove them, so that no image is left out silently."
        )
    return LabelledImages(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        class_names=class_names,
        digests=tuple(digests),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image file: in a folder, or as a member of an archive."""

    path: Path
    member: str | None
    label: int

    @property
    def name(self) -> str:
        return self.member or str(self.path)


def _folder_entries(folder: Path) -> tuple[tuple[str, ...], list[_Entry]]:
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")
    by_class = {
        c.name: sorted(p for p in c.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        for c in class_folders
    }
    by_class = {name: files for name, files in by_class.items() if files}
    names = tuple(by_class)
    return names, [
        _Entry(path, None, label) for label, name in enumerate(names) for path in by_class[name]
    ]


def _packed_entries(table: Path) -> tuple[tuple[str, ...], list[_Entry]]:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = {"file", "class"} - set(rows[0] if rows else {})
    if missing:
        raise DataError(
            f"{table} has no column {' or '.join(sorted(missing))}; a packed set's table needs "
            "`archive` (or a ZIP of the same name), `file` and `class`."
        )
    if "class_id" in rows[0]:
        names_by_id = dict(sorted({(int(r["class_id"]), r["class"]) for r in rows}))
        names = tuple(names_by_id.values())
    else:
        names = tuple(sorted({r["class"] for r in rows}))
    entries = [
        _Entry(
            table.parent / r.get("archive", table.with_suffix(".zip").name),
            r["file"],
            names.index(r["class"]),
        )
        for r in rows
    ]
    absent = sorted({e.path.name for e in entries if not e.path.is_file()})
    if absent:
        raise DataError(f"{table} names {', '.join(absent)}, not found beside it; copy it there.")
    return names, entries


def _balanced(entries: Iterable[_Entry], limit: int) -> list[_Entry]:
    """At most `limit` entries, taken in turn from each class, evenly spread within it."""
    by_class: dict[int, list[_Entry]] = {}
    for entry in entries:
        by_class.setdefault(entry.label, []).append(entry)
    # Files of a class are often sorted by donor or slide: take them from all over the list.
    pools = {
        label: [pool[i] for i in np.random.default_rng(0).permutation(len(pool))]
        for label, pool in sorted(by_class.items())
    }
    chosen: list[_Entry] = []
    while len(chosen) < limit and any(pools.values()):
        for pool in pools.values():
            if pool and len(chosen) < limit:
                chosen.append(pool.pop())
    return chosen


def _decoded(entry: _Entry, archives: dict[Path, zipfile.ZipFile]) -> Image.Image:
    if entry.member is None:
        source: io.BytesIO | Path = entry.path
    else:
        if entry.path not in archives:
            archives[entry.path] = zipfile.ZipFile(entry.path)
        source = io.BytesIO(archives[entry.path].read(entry.member))
    with Image.open(source) as image:
        image.load()
        return image.convert("RGB")


def class_counts(data: LabelledImages) -> dict[str, int]:
    """Number of images of each class, classes without images left out."""
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    return {name: int(n) for name, n in zip(data.class_names, counts, strict=True) if n}


def batches(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `range(n)`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
