"""A folder of real pictures and draws of the service -> one stimulus set.

Real pictures are cut and scaled as the model's training pictures were; then both kinds go through
the same resampling and encoding, and get names and an order that say nothing.
"""

import csv
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from studies.stimuli import Stimulus, write_manifest
from webapp.errors import WebappError
from webapp.pictures import decode, encode_png, framed, pixel_digest
from webapp.service_client import ServiceClient

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RealImage:
    """Where a real picture lies: a file, or a member of an archive."""

    name: str
    read: Callable[[], bytes]


def real_images(source: Path) -> dict[str, list[RealImage]]:
    """The pictures of a folder by class, or of a packed set (`name.csv` beside its ZIPs).

    Raises:
        WebappError: if there is nothing of the kind.
    """
    images = _packed(source) if source.suffix == ".csv" else _by_folder(source)
    if not images:
        raise WebappError(
            f"{source} holds no pictures by class; give a folder with one subfolder of pictures "
            "for each class, or the .csv of a packed set."
        )
    return images


def build_stimulus_set(
    real: dict[str, list[RealImage]],
    service: ServiceClient,
    *,
    per_class: int,
    seed: int,
    out: Path,
    size: int | None = None,
    class_names: Sequence[str] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
) -> tuple[Stimulus, ...]:
    """Write `per_class` real and as many generated pictures of each class to the folder `out`.

    Args:
        seed: the same seed, pictures and model give the same set, whatever the batch size.
        size: width and height in pixels; the model's own if left out.
        class_names: all classes of the model if left out.

    Raises:
        WebappError: if a class or a picture is missing, or `out` is in use.
    """
    if out.exists() and any(out.iterdir()):
        raise WebappError(f"{out} is not empty; give a new folder for the stimulus set.")
    model = service.model()
    shown = list(class_names or model.class_names)
    _refuse_missing(shown, model.class_names, real, per_class)
    rng = np.random.default_rng(seed)
    pictures: list[tuple[Stimulus, bytes]] = []
    seen: set[str] = set()

    def add(image: Image.Image, name: str, **facts: object) -> None:
        # The model's size first, for both kinds: a real picture brought to `size` directly would
        # be sharper than any generated one.
        image = framed(image, model.image_size, crop_px=model.crop_px)
        image = framed(image, size or model.image_size, crop_px=None)
        if pixel_digest(image) in seen:
            raise WebappError(f"{name} is there twice, pixel by pixel; remove one of the two.")
        seen.add(pixel_digest(image))
        stimulus_id = rng.bytes(8).hex()
        facts.setdefault("source_digest", pixel_digest(image))
        stimulus = Stimulus.model_validate(
            {"stimulus_id": stimulus_id, "file": f"{stimulus_id}.png", **facts}
        )
        pictures.append((stimulus, encode_png(image)))

    for number, class_name in enumerate(shown):
        on_progress(class_name, number, len(shown))
        found = sorted(real[class_name], key=lambda image: image.name)
        for index in rng.choice(len(found), per_class, replace=False):
            data = found[index].read()
            add(
                decode(data, name=found[index].name),
                found[index].name,
                class_name=class_name,
                is_synthetic=False,
                source_digest=hashlib.sha256(data).hexdigest(),
            )
        first_seed = int(rng.integers(2**31 - per_class))
        for drawn in service.generate(class_name, per_class, seed=first_seed):
            name = f"the picture of {class_name} drawn with seed {drawn.seed}"
            add(
                decode(drawn.png, name=name),
                name,
                class_name=class_name,
                is_synthetic=True,
                generator_digest=model.digest,
                seed=drawn.seed,
            )
    # By their random names, so that neither the manifest nor the times of the files tell.
    pictures.sort(key=lambda picture: picture[0].stimulus_id)
    out.mkdir(parents=True, exist_ok=True)
    for stimulus, png in pictures:
        (out / stimulus.file).write_bytes(png)
    stimuli = tuple(stimulus for stimulus, _ in pictures)
    write_manifest(out, stimuli)
    on_progress("done", len(shown), len(shown))
    return stimuli


def _refuse_missing(
    shown: Sequence[str],
    known: Sequence[str],
    real: dict[str, list[RealImage]],
    per_class: int,
) -> None:
    for class_name in shown:
        if class_name not in known:
            raise WebappError(
                f"the model knows no class {class_name!r}, only {', '.join(known)}; "
                "correct --classes."
            )
        n_found = len(real.get(class_name, ()))
        if n_found < per_class:
            raise WebappError(
                f"{n_found} real pictures of class {class_name!r} where {per_class} are needed "
                f"(found classes: {', '.join(sorted(real))}); add some, lower --per-class, or "
                "leave the class out with --classes."
            )


def _by_folder(folder: Path) -> dict[str, list[RealImage]]:
    if not folder.is_dir():
        return {}
    images: dict[str, list[RealImage]] = {}
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() in SUFFIXES:
            images.setdefault(path.parent.name, []).append(
                RealImage(name=f"{path.parent.name}/{path.name}", read=path.read_bytes)
            )
    return images


def _packed(table: Path) -> dict[str, list[RealImage]]:
    images: dict[str, list[RealImage]] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            archive, member = table.parent / row["archive"], row["file"]
            images.setdefault(row["class"], []).append(
                RealImage(name=f"{row['archive']}/{member}", read=_reader(archive, member))
            )
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise WebappError(
            f"{table} is not the table of a packed set ({error}); it needs the columns archive, "
            "file and class."
        ) from None
    return images


def _reader(archive: Path, member: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(archive) as opened:
                return opened.read(member)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise WebappError(
                f"{archive} does not give {member} ({error}); fetch the packed set again."
            ) from None

    return read
