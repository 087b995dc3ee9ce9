"""Which pictures are near-copies of known ones: turned, mirrored, moved, re-encoded or relit.

A picture is known by its signature: 14 × 14 colour means of its middle, less their surroundings,
of norm 1. The distance of two is that of their signatures, the least over turns, mirror images and
shifts of up to 4 pixels: 0 for a copy, about 1.4 for strangers.
"""

import csv
import zipfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from scipy.ndimage import gaussian_filter

from studies.stimuli import Stimulus
from webapp.pictures import decode, encode_png, framed
from webapp.stimuli import RealImage, real_images

Means = NDArray[np.float32]
Signatures = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

SIDE, WINDOW, BLOCK = 64, 56, 4
MIDDLE = (SIDE - WINDOW) // 2
SHIFTS = range(SIDE - WINDOW + 1)
COARSE_SHIFTS = (1, 4, 7)
N_CANDIDATES = 3
SAME = 0.05
"""Closer than this are two files of one picture; distinct cells never are."""
FARTHEST = 2.0
N_REFERENCE = 150


class Pair(BaseModel):
    """A generated picture and the real one that it is most like."""

    model_config = ConfigDict(frozen=True)

    stimulus_id: str
    class_name: str
    copy_of: str
    """Name of the real picture."""
    among: str
    """`the training pictures`, or `the real pictures of this set`."""
    distance: float
    threshold: float
    """Below it a picture is a near-copy."""
    how: str
    """What brings the generated one onto the real one: `mirrored, moved by 2 and −1 px`."""
    png_base64: str = ""
    """The real picture, for the report."""

    @property
    def is_near_copy(self) -> bool:
        """Whether the two are taken for one picture."""
        return self.distance < self.threshold

    @property
    def closeness(self) -> float:
        """The distance as a multiple of the threshold."""
        return self.distance / self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The known picture that is nearest to one."""

    image: RealImage
    distance: float
    how: str


class KnownPictures:
    """Pictures to be copied from, and the distance below which one counts as a copy."""

    def __init__(
        self,
        images: Sequence[RealImage],
        *,
        crop_px: int | None = None,
        seed: int = 0,
        on_progress: Progress = lambda _what, _done, _of: None,
    ) -> None:
        """Read all pictures, at least 2.

        Args:
            crop_px: side of the square that the model was shown of a photograph, as in `framed`.

        Half of nearly the smallest distance (the 5 % quantile) between pictures that are known to
        be distinct is the threshold. Pictures that are there twice do not count for it.
        """
        self._images, self._crop_px = images, crop_px
        signatures = []
        for number, image in enumerate(images):
            means = _means(decode(image.read(), name=image.name), crop_px)
            signatures.append(_signatures([_grid(means, MIDDLE, MIDDLE)])[0])
            on_progress("reading known pictures", number + 1, len(images))
        self._signatures = np.stack(signatures)
        sample = np.random.default_rng(seed).permutation(len(images))[:N_REFERENCE]
        distances = []
        for number, index in enumerate(sample):
            means = _means(decode(images[index].read(), name=images[index].name), crop_px)
            distances.append(self._nearest(means, but_itself=True).distance)
            on_progress("comparing known pictures", number + 1, len(sample))
        self.threshold = float(np.quantile(distances, 0.05)) / 2

    def nearest(self, image: Image.Image) -> Near:
        """The known picture that `image` is most like."""
        return self._nearest(_means(image, None), but_itself=False)

    def is_copy(self, image: Image.Image) -> bool:
        """Whether `image` is a near-copy of a known picture."""
        return self.nearest(image).distance < self.threshold

    def pair(self, stimulus: Stimulus, image: Image.Image, among: str) -> Pair:
        """A generated stimulus and the known picture that it is most like."""
        near = self.nearest(image)
        known = decode(near.image.read(), name=near.image.name)
        return Pair(
            stimulus_id=stimulus.stimulus_id,
            class_name=stimulus.class_name,
            copy_of=near.image.name,
            among=among,
            distance=near.distance,
            threshold=self.threshold,
            how=near.how,
            png_base64=b64encode(encode_png(framed(known, SIDE, crop_px=self._crop_px))).decode(),
        )

    def _nearest(self, means: Means, *, but_itself: bool) -> Near:
        symmetries = _symmetries(means)
        coarse = [
            _grid(turned, top, left)
            for turned in symmetries.values()
            for top, left in product(COARSE_SHIFTS, COARSE_SHIFTS)
        ]
        likeness = _signatures(coarse) @ self._signatures.T
        best = likeness.max(axis=0)
        if but_itself:
            best[_distance(best) < SAME] = -1
        found: list[tuple[float, int, str]] = []
        for index in (index for index in np.argsort(-best)[:N_CANDIDATES] if best[index] > -1):
            name = list(symmetries)[likeness[:, index].argmax() // len(COARSE_SHIFTS) ** 2]
            moves = list(product(SHIFTS, SHIFTS))
            fine = [_grid(symmetries[name], top, left) for top, left in moves]
            distances = _distance(_signatures(fine) @ self._signatures[index])
            top, left = moves[int(distances.argmin())]
            moved = f"moved by {MIDDLE - left} and {MIDDLE - top} px".replace("-", "−")
            how = [name, moved if (top, left) != (MIDDLE, MIDDLE) else ""]
            found.append((float(distances.min()), int(index), ", ".join(filter(None, how))))
        distance, index, how_found = min(found, default=(FARTHEST, 0, ""))
        return Near(image=self._images[index], distance=distance, how=how_found or "as it is")


def training_images(source: Path) -> list[RealImage]:
    """All pictures of a folder by class, or of a packed set.

    Raises:
        WebappError: if there is nothing of the kind.
    """
    images = [image for of_class in real_images(source).values() for image in of_class]
    if source.suffix != ".csv":
        return images
    # `real_images` opens the archive anew for each picture: minutes for ten thousand.
    opened = cache(zipfile.ZipFile)
    with source.open(newline="", encoding="utf-8-sig") as file:
        return [
            RealImage(
                name=f"{row['archive']}/{row['file']}",
                read=partial(opened(source.parent / row["archive"]).read, row["file"]),
            )
            for row in csv.DictReader(file)
        ]


def _means(image: Image.Image, crop_px: int | None) -> Means:
    """The mean of every square of 4 × 4 pixels."""
    pixels = np.asarray(framed(image, SIDE, crop_px=crop_px), dtype=np.float32)
    n = SIDE - BLOCK + 1
    rows = np.add.reduce([pixels[first : first + n] for first in range(BLOCK)])
    return np.add.reduce([rows[:, first : first + n] for first in range(BLOCK)]) / BLOCK**2


def _symmetries(means: Means) -> dict[str, Means]:
    return {
        ", ".join(filter(None, (mirrored, f"turned by {90 * turns}°" if turns else ""))): np.rot90(
            from_which, turns
        )
        for mirrored, from_which in (("", means), ("mirrored", means[:, ::-1]))
        for turns in range(4)
    }


def _grid(means: Means, top: int, left: int) -> Means:
    """The 14 × 14 squares of the window that starts there."""
    return means[top : top + WINDOW : BLOCK, left : left + WINDOW : BLOCK]


def _signatures(grids: Sequence[Means]) -> Signatures:
    """One row for each grid. (n, 588)"""
    stacked = np.stack(grids)
    stacked = stacked - gaussian_filter(stacked, (0, 2, 2, 0), mode="nearest")
    flat = stacked.reshape(len(grids), -1)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6))


def _distance(likeness: Signatures) -> Signatures:
    return np.asarray(np.sqrt(np.maximum(0, 2 - 2 * likeness)))
