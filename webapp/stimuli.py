"""A folder of real pictures and draws of the service -> one stimulus set.

Real pictures are cut and scaled as the model's training pictures were; then both kinds go through
the same resampling and encoding, and get names and an order that say nothing.
"""

import csv
import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image

from studies.stimuli import Stimulus, write_manifest
from webapp.errors import WebappError
from webapp.pictures import decode, encode_png, framed, pixel_digest
from webapp.service_client import GeneratedImage, ServiceClient, ServiceModel

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
TILES = 4
"""Along each side of a picture that is cut up for an attention check."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """How many pictures of each class go into each pool, real and generated alike."""

    main: int
    practice: int = 0
    """Shown before the study, with feedback."""
    attention: int = 0
    """Real cells of their own, and others cut into tiles and mixed, which nobody can miss."""


def build_stimulus_set(
    real: dict[str, list[RealImage]],
    service: ServiceClient,
    *,
    per_class: Pictures,
    seed: int,
    out: Path,
    size: int | None = None,
    class_names: Sequence[str] | None = None,
    is_copy: Callable[[Image.Image], bool] = lambda _image: False,
    on_progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
) -> dict[str, tuple[Stimulus, ...]]:
    """Write as many real as generated pictures of each class to `out`; the stimuli of each pool.

    The main pool lies in `out` itself, the others in `out/practice` and `out/attention`. Stopped
    half-way, the same call goes on with the pictures that were drawn already.

    Args:
        seed: the same seed, pictures and model give the same set, whatever the batch size.
        size: width and height in pixels; the model's own if left out.
        class_names: all classes of the model if left out.
        is_copy: of a training picture; such a draw is left out, and the next seed drawn instead.

    Raises:
        WebappError: if a class or a picture is missing, or `out` is in use.
    """
    if out.exists() and any(out.iterdir()):
        raise WebappError(f"{out} is not empty; give a new folder for the stimulus set.")
    model = service.model()
    shown = list(class_names or model.class_names)
    n_real = per_class.main + per_class.practice + 2 * per_class.attention
    _refuse_missing(shown, model.class_names, real, n_real)
    rng = np.random.default_rng(seed)
    maker = _Maker(model, size or model.image_size, rng)
    draws = Draws(out.with_name(f"{out.name}.draws"), service, model, is_copy)
    n_drawn = per_class.main + per_class.practice

    def drew(class_name: str, before: int, n: int) -> None:
        on_progress(class_name, before + n, n_drawn * len(shown))

    for number, class_name in enumerate(shown):
        found = sorted(real[class_name], key=lambda image: image.name)
        chosen = [found[index] for index in rng.choice(len(found), n_real, replace=False)]
        drawn = draws.of(
            class_name,
            n_drawn,
            first_seed=int(rng.integers(2**30)),
            on_draw=partial(drew, class_name, number * n_drawn),
        )
        for pool, n in (("main", per_class.main), ("practice", per_class.practice)):
            for _ in range(n):
                maker.add_real(pool, class_name, chosen.pop())
                maker.add_generated(pool, class_name, drawn.pop())
        for _ in range(per_class.attention):
            maker.add_real("attention", class_name, chosen.pop())
            maker.add_mixed_tiles(class_name, chosen.pop())
    made = {pool: maker.write(pool, out) for pool in maker.pictures}
    draws.discard()
    return made


class Draws:
    """Generated pictures, kept in a folder until the set is whole."""

    def __init__(
        self,
        folder: Path,
        service: ServiceClient,
        model: ServiceModel,
        is_copy: Callable[[Image.Image], bool],
    ) -> None:
        self._folder, self._service, self._is_copy = folder, service, is_copy
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / "model.txt"
        if note.exists() and note.read_text() != model.digest:
            raise WebappError(
                f"{folder} holds pictures of another model, of a call that was stopped; delete it."
            )
        note.write_text(model.digest)

    def of(
        self, class_name: str, n: int, *, first_seed: int, on_draw: Callable[[int], None]
    ) -> list[GeneratedImage]:
        """The first n seeds from `first_seed` on whose pictures are no copies."""
        kept: list[GeneratedImage] = []
        seed, digest = first_seed, hashlib.sha256(class_name.encode()).hexdigest()[:8]
        while len(kept) < n:
            wanted = n - len(kept)
            for drawn in self._drawn(class_name, digest, seed, wanted):
                if not self._is_copy(decode(drawn.png, name=f"the draw of seed {drawn.seed}")):
                    kept.append(drawn)
                on_draw(len(kept))
            seed += wanted
            if seed - first_seed > 20 * n:
                raise WebappError(
                    f"of {seed - first_seed} pictures of {class_name} all but {len(kept)} are "
                    "near-copies of training pictures; this model repeats what it saw: train it "
                    "on more pictures, or for a shorter time."
                )
        return kept

    def _drawn(self, name: str, digest: str, seed: int, n: int) -> Iterator[GeneratedImage]:
        files = [self._folder / f"{digest}-{s}.png" for s in range(seed, seed + n)]
        there = list(takewhile(Path.exists, files))
        for s, file in enumerate(there, seed):
            yield GeneratedImage(seed=s, png=file.read_bytes())
        if missing := files[len(there) :]:
            new = self._service.generate(name, len(missing), seed=seed + len(there))
            for drawn, file in zip(new, missing, strict=True):
                part = file.with_suffix(".part")
                part.write_bytes(drawn.png)
                part.rename(file)
                yield drawn

    def discard(self) -> None:
        """Delete them: the set is whole."""
        shutil.rmtree(self._folder)


class _Maker:
    """Encodes pictures of every kind alike, under names that say nothing."""

    def __init__(self, model: ServiceModel, size: int, rng: np.random.Generator) -> None:
        self._model, self._size, self._rng = model, size, rng
        self._seen: set[str] = set()
        self.pictures: dict[str, list[tuple[Stimulus, bytes]]] = {}

    def add_real(self, pool: str, class_name: str, real: RealImage) -> None:
        data = real.read()
        self._add(
            pool,
            self._framed(decode(data, name=real.name)),
            real.name,
            class_name=class_name,
            is_synthetic=False,
            source_digest=hashlib.sha256(data).hexdigest(),
        )

    def add_generated(self, pool: str, class_name: str, drawn: GeneratedImage) -> None:
        name = f"the picture of {class_name} drawn with seed {drawn.seed}"
        self._add(
            pool,
            self._framed(decode(drawn.png, name=name)),
            name,
            class_name=class_name,
            is_synthetic=True,
            generator_digest=self._model.digest,
            seed=drawn.seed,
        )

    def add_mixed_tiles(self, class_name: str, real: RealImage) -> None:
        image = self._framed(decode(real.read(), name=real.name))
        side = self._size // TILES
        corners = [(x * side, y * side) for x in range(TILES) for y in range(TILES)]
        mixed = image.copy()
        for to, of in zip(corners, self._rng.permutation(len(corners)), strict=True):
            x, y = corners[of]
            mixed.paste(image.crop((x, y, x + side, y + side)), to)
        self._add(
            "attention",
            mixed,
            real.name,
            class_name=class_name,
            is_synthetic=True,
            generator_digest="tiles",
        )

    def _framed(self, image: Image.Image) -> Image.Image:
        # The model's size first, for every kind: a real picture brought to another size directly
        # would be sharper than any generated one.
        image = framed(image, self._model.image_size, crop_px=self._model.crop_px)
        return framed(image, self._size, crop_px=None)

    def _add(self, pool: str, image: Image.Image, name: str, **facts: object) -> None:
        digest = pixel_digest(image)
        if digest in self._seen:
            raise WebappError(f"{name} is there twice, pixel by pixel; remove one of the two.")
        self._seen.add(digest)
        stimulus_id = self._rng.bytes(8).hex()
        facts.setdefault("source_digest", digest)
        stimulus = Stimulus.model_validate(
            {"stimulus_id": stimulus_id, "file": f"{stimulus_id}.png", **facts}
        )
        self.pictures.setdefault(pool, []).append((stimulus, encode_png(image)))

    def write(self, pool: str, out: Path) -> tuple[Stimulus, ...]:
        folder = out if pool == "main" else out / pool
        folder.mkdir(parents=True, exist_ok=True)
        # By their random names, so that neither the manifest nor the times of the files tell.
        pictures = sorted(self.pictures[pool], key=lambda picture: picture[0].stimulus_id)
        for stimulus, png in pictures:
            (folder / stimulus.file).write_bytes(png)
        stimuli = tuple(stimulus for stimulus, _ in pictures)
        write_manifest(folder, stimuli)
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
