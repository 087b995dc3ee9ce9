"""Anomalous cells made from normal ones, to measure whether anomalies are noticed.

Two leave the cell's kind and spoil the picture (blur, stain shift); two join cells of different
classes into something that no class is (chimera, blend). And, from the drawer, the same cell in two
classes: a true counterfactual with the true place of the difference.

Shapes: n images, uint8 (n, H, W, 3).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from training.drawing import DrawingSettings, draw_cell

Images = NDArray[np.uint8]


def blurred(images: Images, sd: float) -> Images:
    """Images out of focus: a Gaussian of standard deviation `sd` pixels."""
    _check(images)
    if not sd > 0:
        raise ValueError(f"sd={sd}; give a blur above 0 pixels.")
    soft = gaussian_filter(images.astype(np.float64), (0, sd, sd, 0), mode="nearest")
    return _as_pixels(soft)


def stain_shifted(images: Images, *, degrees: float = 20.0, gain: float = 1.3) -> Images:
    """Images in another stain: optical densities turned in hue and made stronger.

    The density of each pixel, a vector over red, green and blue, is turned about the grey axis, so
    that empty ground stays empty and grey stays grey.

    Args:
        images: uint8 (n, H, W, 3)
        degrees: of the turn; 120 would exchange the colours.
        gain: factor on all densities.
    """
    _check(images)
    if not gain > 0:
        raise ValueError(f"gain={gain}; give a factor above 0.")
    density = -np.log((images + 1.0) / 256.0)
    turned = density @ _rotation_about_grey(math.radians(degrees)).T
    return _as_pixels(256.0 * np.exp(-gain * np.maximum(turned, 0)) - 1.0)


def _rotation_about_grey(angle: float) -> NDArray[np.float64]:
    """Rodrigues' rotation about (1, 1, 1) / sqrt(3). (3, 3)"""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation: NDArray[np.float64] = (
        np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    )
    return rotation


def partners(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each image another of a different class, drawn evenly from these. (n,) -> (n,)

    Raises:
        ValueError: if all images are of one class.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("all images are of one class; a mixture needs images of two.")
    return np.array([rng.choice(np.flatnonzero(labels != label)) for label in labels])


def chimeras(
    images: Images, others: Images, rng: np.random.Generator, *, seam: float = 2.0
) -> Images:
    """Half of one cell and half of another, joined through the middle at a random angle.

    Args:
        images: uint8 (n, H, W, 3)
        others: of another class, such as `images[partners(labels, rng)]`.
        rng: of the angles.
        seam: standard deviation of the soft border in pixels, so that no edge gives it away.
    """
    _check(images, others)
    if not seam > 0:
        raise ValueError(f"seam={seam}; give a border softer than 0 pixels.")
    height, width = images.shape[1:3]
    y = np.arange(height)[:, None] - (height - 1) / 2
    x = np.arange(width)[None, :] - (width - 1) / 2
    angles = rng.uniform(0, 2 * math.pi, len(images))[:, None, None]
    across = (np.cos(angles) * x + np.sin(angles) * y) / seam
    # The logistic function with this factor is the normal distribution function to 1 %.
    share = 1 / (1 + np.exp(-1.702 * np.clip(across, -100, 100)))[:, :, :, None]
    return _as_pixels(share * images + (1 - share) * others)


def blends(images: Images, others: Images, *, share: float = 0.5) -> Images:
    """Both cells in one place: the mean of the two pictures, smoother than either."""
    _check(images, others)
    if not 0 < share < 1:
        raise ValueError(f"share={share}; give a share of the first image between 0 and 1.")
    return _as_pixels(share * images.astype(np.float64) + (1 - share) * others)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPair:
    """One scene with a cell of either class: the truth about what tells the two apart."""

    image: Images
    """(size, size, 3)"""
    counterfactual: Images
    """The same seed in the other class. (size, size, 3)"""
    mask: NDArray[np.bool_]
    """Where the two differ visibly. (size, size)"""


def drawn_pair(
    class_name: str,
    other_name: str,
    seed: int,
    *,
    size: int = 64,
    threshold: int = 10,
    settings: DrawingSettings | None = None,
) -> DrawnPair:
    """The same seed drawn in two classes; scene, position, stain and noise are shared.

    Args:
        class_name: see `training.drawing.CLASS_NAMES`.
        other_name: another class.
        seed: of the scene and, with the class, of the cell.
        size: of the pictures.
        threshold: grey values by which some channel must differ to be inside the mask.
        settings: of the drawer.
    """
    if class_name == other_name:
        raise ValueError(f"both classes are {class_name}; a pair needs two.")
    image, other = (
        draw_cell(name, seed, size=size, settings=settings) for name in (class_name, other_name)
    )
    difference = np.abs(image.astype(np.int64) - other).max(axis=-1)
    return DrawnPair(image=image, counterfactual=other, mask=difference > threshold)


def _as_pixels(values: NDArray[np.float64]) -> Images:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _check(images: Images, others: Images | None = None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images are {images.dtype} with shape {images.shape}; give uint8 RGB images stacked "
            "as (n, height, width, 3)."
        )
    if others is not None and (others.dtype != np.uint8 or others.shape != images.shape):
        raise ValueError(
            f"images have shape {images.shape} and their partners {others.dtype} {others.shape}; "
            "give one partner of the same size for each image."
        )
