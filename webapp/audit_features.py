"""What a program without an eye for cells sees in a picture: the possible tells, by group.

All of it is about how a picture was made and stored, not about what it shows. H, W are height and
width; pixels are RGB, 0 to 255. (H, W, 3)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

CHANNELS = ("red", "green", "blue")
BANDS = (0.03, 0.06, 0.12, 0.18, 0.24, 0.3, 0.36, 0.42, 0.5, 0.71)
"""Edges of the bands of spatial frequency, in cycles per pixel; 0.71 is the corner."""
LUMA = np.array([0.299, 0.587, 0.114])
YCC = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Brightness and two colour differences, as JPEG stores them. ITU-T T.871."""


def _colour(pixels: Pixels) -> dict[str, float]:
    found = {}
    for name, channel in zip(CHANNELS, np.moveaxis(pixels, 2, 0), strict=True):
        found[f"mean of {name}"] = channel.mean()
        found[f"spread of {name}"] = channel.std()
    return found


def _palette(pixels: Pixels) -> dict[str, float]:
    found: dict[str, float] = {
        "number of colours": float(len(np.unique(pixels @ np.array([65536, 256, 1]))))
    }
    for name, channel in zip(CHANNELS, np.moveaxis(pixels, 2, 0), strict=True):
        counts = np.bincount(channel.ravel(), minlength=256)
        used = np.flatnonzero(counts)
        low, high = used[0], used[-1]
        found |= {
            f"highest level of {name}": float(high),
            f"lowest level of {name}": float(low),
            f"commonest level of {name}": float(counts.argmax()),
            f"share of {name} at 255": counts[255] / channel.size,
            f"share of {name} at 254": counts[254] / channel.size,
            f"share of {name} at 0": counts[0] / channel.size,
            f"crowding at the highest level of {name}": np.log(
                (counts[high] + 1) / (counts[high - 1] + 1)
            ),
            f"crowding at the lowest level of {name}": np.log(
                (counts[low] + 1) / (counts[min(low + 1, 255)] + 1)
            ),
            f"share of odd levels of {name}": counts[1::2].sum() / channel.size,
            f"gaps in the levels of {name}": 1 - len(used) / (high - low + 1),
            f"comb in the levels of {name}": _comb(counts),
            f"last bit of {name} shared by neighbours": _correlation(
                channel[:, :-1] & 1, channel[:, 1:] & 1
            ),
        }
    return found


def _comb(counts: NDArray[np.int64]) -> float:
    """How much single levels stand out from the mean of their neighbours."""
    middle = (counts[:-2] + counts[2:]) / 2
    return float(np.abs(counts[1:-1] - middle).sum() / counts.sum())


def _spectrum(pixels: Pixels) -> dict[str, float]:
    height, width = pixels.shape[:2]
    window = np.outer(np.hanning(height), np.hanning(width))
    planes = np.moveaxis(pixels @ YCC.T, 2, 0)
    power = np.abs(np.fft.rfft2((planes - planes.mean((1, 2), keepdims=True)) * window)) ** 2
    down, across = np.abs(np.fft.fftfreq(height))[:, None], np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(down, across)
    # A column of rfft2 stands for two of the whole spectrum, but the first and (even) last.
    power[:, :, 1 : (width + 1) // 2] *= 2
    luma, *chroma = power

    def log_power(of: Array, where: NDArray[np.bool_]) -> float:
        return float(np.log(of[where].sum() + 1))

    whole = radius > 0
    found = {
        f"power at {low:g} to {high:g} cycles per pixel": log_power(
            luma, (radius >= low) & (radius < high)
        )
        - log_power(luma, whole)
        for low, high in pairwise(BANDS)
    }
    for name, of in zip(("blue–yellow", "red–green"), chroma, strict=True):
        found[f"fine power of {name}"] = log_power(of, radius >= 0.25) - log_power(of, whole)
    for name, near, far in (("coarse", 0.06, 0.25), ("fine", 0.25, 0.71)):
        ring = (radius >= near) & (radius < far)
        found[f"horizontal against vertical, {name}"] = log_power(
            luma, ring & (across > 2 * down)
        ) - log_power(luma, ring & (down > 2 * across))
    lines = (np.abs(across - 0.25) < 0.5 / width) | (np.abs(down - 0.25) < 0.5 / height)
    beside = (np.abs(across - 0.25) < 2.5 / width) | (np.abs(down - 0.25) < 2.5 / height)
    found["peak at every fourth pixel"] = log_power(luma, lines) - log_power(luma, beside)
    ends = (across > 0.5 - 0.5 / width) | (down > 0.5 - 0.5 / height)
    beside = (across > 0.5 - 2.5 / width) | (down > 0.5 - 2.5 / height)
    found["peak at every second pixel"] = log_power(luma, ends) - log_power(luma, beside)
    return found


def _border(pixels: Pixels) -> dict[str, float]:
    luma = pixels @ LUMA
    found = {}
    sides = {"top": luma, "bottom": luma[::-1], "left": luma.T, "right": luma.T[::-1]}
    for name, rows in sides.items():
        steps = np.abs(np.diff(rows[:6], axis=0)).mean(axis=1)
        found[f"step at the {name} edge"] = np.log((steps[0] + 0.1) / (steps[1:].mean() + 0.1))
    ring = np.concatenate([side[0] for side in sides.values()])
    inner = np.concatenate([side[2, 2:-2] for side in sides.values()])
    found["edge brighter than inside"] = ring.mean() - inner.mean()
    found["edge rougher than inside"] = np.log(
        (np.abs(np.diff(ring)).mean() + 0.1) / (np.abs(np.diff(inner)).mean() + 0.1)
    )
    return found


def _compression(pixels: Pixels) -> dict[str, float]:
    height, width = (8 * (length // 8) for length in pixels.shape[:2])
    planes = np.moveaxis(pixels[:height, :width] @ YCC.T, 2, 0)
    found = {}
    for name, plane in (("across", planes[0]), ("down", planes[0].T)):
        steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
        at_blocks = np.arange(len(steps)) % 8 == 7
        found[f"8-pixel blocks {name}"] = np.log(
            (steps[at_blocks].mean() + 0.1) / (steps[~at_blocks].mean() + 0.1)
        )
    # What JPEG rounded to zero is zero on its own grid of blocks only; what is smooth, on any. The
    # blocks at the edges count half: the other grid, shifted by half a block, has half of them.
    on_grid = _shares_of_cosines_at_zero(planes)
    on_grid[:, [0, -1]] /= 2
    on_grid[:, :, [0, -1]] /= 2
    off_grid = _shares_of_cosines_at_zero(planes[:, 4:-4, 4:-4])
    for name, on, off in zip(
        ("brightness", "blue–yellow", "red–green"), on_grid, off_grid, strict=True
    ):
        found[f"zeros of {name} on JPEG's grid"] = np.log(
            (on.sum() / off.size + 0.01) / (off.mean() + 0.01)
        )
    return found


def _shares_of_cosines_at_zero(planes: Array) -> Array:
    """Of each 8 × 8 block of each plane. (planes, rows, columns)"""
    n_planes, height, width = planes.shape
    blocks = planes.reshape(n_planes, height // 8, 8, width // 8, 8).swapaxes(2, 3)
    cosines = dctn(blocks, axes=(3, 4), norm="ortho")
    return np.asarray((np.abs(cosines) < 0.75).mean(axis=(3, 4)))


def _noise(pixels: Pixels) -> dict[str, float]:
    found = {}
    image = Image.fromarray(pixels)
    for scale in (1, 2, 4):
        small = image.resize((image.width // scale, image.height // scale), Image.Resampling.BOX)
        fine = _laplacian(np.asarray(small, dtype=np.float64))
        found[f"grain at {scale} pixel{'s' * (scale > 1)}"] = np.log((fine @ LUMA).std() + 0.1)
        if scale == 1:
            residue = fine
    for name, channel in zip(CHANNELS, np.moveaxis(residue, 2, 0), strict=True):
        found[f"grain of {name}"] = np.log(channel.std() + 0.1)
        # Half of most pictures is empty ground, where only the sensor speaks.
        found[f"grain of {name} on the ground"] = np.log(np.median(np.abs(channel)) + 0.5)
    luma = residue @ LUMA
    found["peakedness of the grain"] = float(
        np.log((luma**4).mean() / (luma.var() ** 2 + 1e-3) + 1)
    )
    for name, first, second in (
        ("red and green", residue[..., 0], residue[..., 1]),
        ("green and blue", residue[..., 1], residue[..., 2]),
        ("red and blue", residue[..., 0], residue[..., 2]),
        ("neighbours across", luma[:, :-1], luma[:, 1:]),
        ("neighbours down", luma[:-1], luma[1:]),
    ):
        found[f"grain shared by {name}"] = _correlation(first, second)
    return found


def _laplacian(values: Array) -> Array:
    inside = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return np.asarray(inside - around / 4)


def _correlation(first: Array | Pixels, second: Array | Pixels) -> float:
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A way in which a picture may tell how it was made."""

    by: str
    """It, after "told by"."""
    remedy: str
    measure: Callable[[Pixels], dict[str, float]]


GROUPS = {
    "compression": Group(
        by="traces of JPEG",
        remedy="Start both kinds from pictures that were never stored as JPEG at this size, or "
        "pass both through the same JPEG once.",
        measure=_compression,
    ),
    "spectrum": Group(
        by="the spectrum",
        remedy="Pass the real pictures through the same resampling as the generated ones: the same "
        "first size, the same kernel, the same final size; if both went through it already, the "
        "generator draws too smoothly or too roughly.",
        measure=_spectrum,
    ),
    "noise": Group(
        by="the grain",
        remedy="Pass the real pictures through the same resampling and denoising as the generated "
        "ones; if both went through it already, the grain is the generator's own, and only a "
        "better one will do.",
        measure=_noise,
    ),
    "border": Group(
        by="the border",
        remedy="Cut all pictures alike, inside whatever frame or padding one kind has.",
        measure=_border,
    ),
    "palette": Group(
        by="the palette",
        remedy="Give all pictures their grey levels in one way: clip and round alike, and shift or "
        "stretch neither kind, not even by one level.",
        measure=_palette,
    ),
    "colour": Group(
        by="brightness and colour",
        remedy="Bring all pictures to the same white and brightness by one rule, or train on "
        "pictures from the same staining and microscope as the real ones here.",
        measure=_colour,
    ),
}
"""By code, the most specific first: what tells by the first often tells by later ones too."""


def measured(
    pictures: Sequence[Pixels], on_progress: Callable[[str, int, int], None]
) -> dict[str, dict[str, Array]]:
    """Group → feature → its value in each picture. At least 16 × 16 pixels. (N,)"""
    rows = []
    for number, picture in enumerate(pictures, 1):
        rows.append({code: group.measure(picture) for code, group in GROUPS.items()})
        on_progress("measuring pictures", number, len(pictures))
    return {
        code: {
            name: np.array([row[code][name] for row in rows], dtype=np.float64) for name in names
        }
        for code, names in rows[0].items()
    }
