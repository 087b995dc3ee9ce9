"""Blood cells drawn from numbers: labelled pictures where no data set is at hand.

A picture is a scene (background, red cells, stain, focus, sensor: everything that says nothing
about the class) and a morphology (everything that does). Each has its own random stream, and the
scene's does not know the class: the same seed in two classes differs in the cell alone.

Light is absorbed, so colours are mixed as optical densities: `grey value = white * exp(-density)`.
Lengths are in pixels of a 64-px frame, whatever the size drawn, and the origin is its middle.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from training.cell_types import CELL_TYPES, TRAITS

Field = NDArray[np.floating[Any]]
"""One float32 value for each pixel of the supersampled frame, or of a part of it."""

CLASS_NAMES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
"""The eight types of the PBC data set, in its order; "ig" are immature granulocytes."""

FRAME = 64.0
SUPERSAMPLING = 2
MIN_SIZE = 16
MARKER = "drawing.json"
"""Written into each drawn set: how it was drawn, and that it may be drawn over."""

STAINS = np.array(
    [
        [1.15, 1.80, 0.46],  # azure B bound to DNA and to azurophil granules: violet
        [0.82, 0.72, 0.20],  # methylene blue bound to RNA: the blue of cytoplasm
        [0.19, 0.70, 0.46],  # eosin bound to haemoglobin and eosinophil granules: orange-pink
    ]
)
"""Density of red, green and blue light for one unit of each stain (May-Gruenwald-Giemsa)."""
AZURE, BLUE, EOSIN = range(3)
WHITE = np.array([253.0, 230.0, 206.0])
"""Grey values of the empty background: the cream of a stained smear, not paper white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSettings:
    """How varied and how hard the drawn cells are. The defaults are the embedded data set's."""

    difficulty: float = 0.65
    """How far the least typical cells go towards a look-alike class: 0 textbook, 1 all the way.

    Measured with a small convolutional network after 200 s on one core and 6,000 cells: balanced
    accuracy 0.96 at 0.5, 0.92 at 0.65.
    """
    stain_jitter: float = 1.0
    """Multiplies the variation of stain, white balance and exposure; 3 is another laboratory."""
    sensor_noise: float = 1.0
    """Multiplies the noise of the camera."""
    defocus: float = 1.0
    """Multiplies the blur."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be drawn."""
        if not 0 <= self.difficulty <= 1:
            raise ValueError(
                f"difficulty={self.difficulty}; give a number from 0 (textbook cells) to 1 "
                "(the hardest ones look like another class)."
            )
        for name in ("stain_jitter", "sensor_noise", "defocus"):
            value = getattr(self, name)
            if not 0 <= value <= 10:
                raise ValueError(
                    f"{name}={value}; give a number from 0 (none) to 10, 1 being the usual amount."
                )


def draw_cell(
    class_name: str, seed: int, *, size: int = 64, settings: DrawingSettings | None = None
) -> NDArray[np.uint8]:
    """One cell of the class in the middle of its field of view. uint8 (size, size, 3)

    The same arguments give the same picture in any order of calls, and the same seed in another
    class gives the same picture outside `cell_mask`.

    Raises:
        ValueError: if the class is not one of `CLASS_NAMES`, or the size is below 16 px.
    """
    settings = settings or DrawingSettings()
    scene, stain_amounts, _ = _stained_field(class_name, seed, size, settings)
    light = np.exp(-(stain_amounts @ scene.densities)) * scene.illumination(size)
    pixels = _defocused(_downsampled(light), scene.blur * settings.defocus * size / FRAME)
    pixels *= scene.white
    # Photon noise grows with the root of the light, read-out noise does not.
    noise_sd = scene.noise_sd * settings.sensor_noise * np.sqrt(0.3 + 0.7 * pixels / 255)
    pixels += noise_sd * scene.noise(size)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def cell_mask(
    class_name: str, seed: int, *, size: int = 64, settings: DrawingSettings | None = None
) -> NDArray[np.bool_]:
    """Where the cell of `draw_cell` with the same arguments has any influence. (size, size)"""
    settings = settings or DrawingSettings()
    scene, _, cover = _stained_field(class_name, seed, size, settings)
    blurred = _defocused(
        _downsampled(cover[:, :, None]), scene.blur * settings.defocus * size / FRAME
    )
    return blurred[:, :, 0] > 0


def draw_data_set(
    out: Path,
    n_per_class: int,
    seed: int,
    settings: DrawingSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    split: str = "train",
    size: int = 64,
) -> None:
    """Writes `out/<class>/<number>.png`, and how it was drawn to `out/drawing.json`.

    A drawn set that is already there is replaced.

    Args:
        out: folder of the set; made where it is missing.
        n_per_class: pictures of each class.
        seed: with `split`, decides every picture.
        settings: how varied and how hard.
        progress: called with (pictures done, pictures in all) after each.
        split: "train", "val" or any other name; no picture of one split is drawn in another.
        size: side of the pictures in pixels.

    Raises:
        ValueError: if `n_per_class` or `size` is too small, or `out` holds something else.
    """
    settings = settings or DrawingSettings()
    _check_size(size)
    if n_per_class < 1:
        raise ValueError(f"n_per_class={n_per_class}; draw at least 1 picture of each class.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder that is empty or does not exist yet.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ValueError(
            f"{out} is not empty and holds no drawn set, so nothing was written; "
            "give a folder that is empty or does not exist yet."
        )
    for class_name in CLASS_NAMES:
        shutil.rmtree(out / class_name, ignore_errors=True)
        (out / class_name).mkdir(parents=True)
    record = {"seed": seed, "split": split, "size": size, "n_per_class": n_per_class}
    record |= {"class_names": list(CLASS_NAMES), "settings": asdict(settings)}
    (out / MARKER).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    n_digits = max(4, len(str(n_per_class - 1)))
    for class_number, class_name in enumerate(CLASS_NAMES):
        for i, cell_seed in enumerate(cell_seeds(seed, split, class_name, n_per_class)):
            picture = draw_cell(class_name, cell_seed, size=size, settings=settings)
            Image.fromarray(picture).save(out / class_name / f"{i:0{n_digits}d}.png")
            if progress is not None:
                progress(class_number * n_per_class + i + 1, len(CLASS_NAMES) * n_per_class)


def cell_seeds(seed: int, split: str, class_name: str, n_cells: int) -> tuple[int, ...]:
    """Seeds for `draw_cell`, 64 bits each: others for each seed, split and class."""
    name = int.from_bytes(hashlib.sha256(f"{split}/{class_name}".encode()).digest()[:16], "big")
    words = np.random.SeedSequence([seed, name]).generate_state(n_cells, np.uint64)
    return tuple(int(word) for word in words)


# --- the scene: what two classes with one seed share ----------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neighbour:
    x: float
    y: float
    radius: float
    angle: float
    elongation: float
    pallor: float
    amount: float
    is_platelet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """All that the seed decides whatever the class."""

    densities: Field
    """Density of each colour for one unit of each stain, on this slide. (3, 3)"""
    white: Field
    blur: float
    """Standard deviation of the defocus."""
    noise_sd: float
    gradient: tuple[float, float]
    neighbours: tuple[_Neighbour, ...]
    x: float
    y: float
    angle: float
    textures: dict[str, Field]
    rng: np.random.Generator = field(repr=False)
    """What is left of the stream, for the noise: as many draws as there are pixels."""

    def illumination(self, size: int) -> Field:
        ramp = np.linspace(-1, 1, size * SUPERSAMPLING, dtype=np.float32)
        along_x, along_y = self.gradient
        return np.float32(1) + (along_x * ramp[None, :] + along_y * ramp[:, None])[:, :, None]

    def noise(self, size: int) -> Field:
        return self.rng.standard_normal((size, size, 3), dtype=np.float32)


def _scene(seed: int, settings: DrawingSettings) -> _Scene:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0])))
    jitter = settings.stain_jitter
    # Amount of each stain, then its hue, then lamp and white balance.
    amounts = np.exp(0.10 * jitter * rng.standard_normal(3))
    hues = np.exp(0.05 * jitter * rng.standard_normal((3, 3)))
    exposure, *balance = rng.standard_normal(4)
    white = WHITE * np.exp(jitter * (0.015 * exposure + 0.008 * np.array(balance)))
    slope = 0.02 * rng.standard_normal(2)
    return _Scene(
        densities=(STAINS * amounts[:, None] * hues).astype(np.float32),
        white=white.astype(np.float32),
        blur=float(rng.gamma(4.0, 0.10)),
        noise_sd=float(np.exp(0.9 + 0.4 * rng.standard_normal())),
        gradient=(float(slope[0]), float(slope[1])),
        neighbours=_neighbours(rng),
        x=float(1.2 * rng.standard_normal()),
        y=float(1.2 * rng.standard_normal()),
        angle=float(rng.uniform(0, 2 * math.pi)),
        textures={
            name: rng.standard_normal((n_knots, n_knots), dtype=np.float32)
            for name, n_knots in TEXTURE_KNOTS.items()
        },
        rng=rng,
    )


TEXTURE_KNOTS = {"outline": 11, "shape": 13, "coarse": 26, "fine": 44, "grain": 56}


def _neighbours(rng: np.random.Generator) -> tuple[_Neighbour, ...]:
    """Red cells around the middle, most of them apart from each other, and stray platelets."""
    n_wanted = int(rng.integers(4, 13))
    tries = rng.uniform(size=(40, 7))
    typical_radius = 9.6 + 0.5 * float(rng.standard_normal())
    found: list[_Neighbour] = []
    for u in tries:
        distance, angle = 19 + 26 * math.sqrt(u[0]), 2 * math.pi * u[1]
        # One in twenty is a stray platelet.
        is_platelet = bool(u[6] < 0.05)
        one = _Neighbour(
            x=distance * math.cos(angle),
            y=distance * math.sin(angle),
            radius=2 + 2 * u[2] if is_platelet else typical_radius * (0.88 + 0.24 * u[2]),
            angle=math.pi * u[3],
            elongation=0.22 * u[4] ** 2,
            pallor=0.25 + 0.55 * u[5] if u[5] > 0.12 else 0.0,
            amount=0.85 + 0.3 * u[6],
            is_platelet=is_platelet,
        )
        touching = (
            math.hypot(one.x - other.x, one.y - other.y) < 0.86 * (one.radius + other.radius)
            for other in found
        )
        if not any(touching):
            found.append(one)
        if len(found) == n_wanted:
            break
    return tuple(found)


# --- the morphology: what the class decides -------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Morphology:
    """One cell's value of each trait, and the stream for where its lobes and granules lie."""

    traits: dict[str, float]
    rng: np.random.Generator = field(repr=False)


def _morphology(class_name: str, seed: int, settings: DrawingSettings) -> _Morphology:
    number = CLASS_NAMES.index(class_name)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1 + number])))
    cell_type = CELL_TYPES[class_name]
    look_alike = CELL_TYPES[cell_type.looks_like[int(rng.integers(len(cell_type.looks_like)))]]
    # Few cells are far from typical: the share of the look-alike has density 2 (1 - u).
    towards = settings.difficulty * (1 - math.sqrt(1 - float(rng.uniform())))
    traits = {}
    for trait in TRAITS:
        own, other = (
            rng.uniform(*getattr(cell_type, trait)),
            rng.uniform(*getattr(look_alike, trait)),
        )
        traits[trait] = float(own + towards * (other - own))
    return _Morphology(traits=traits, rng=rng)


# --- painting -------------------------------------------------------------------------------


def _stained_field(
    class_name: str, seed: int, size: int, settings: DrawingSettings
) -> tuple[_Scene, Field, Field]:
    """The scene, the amounts of stain (n, n, 3) and how far the cell covers each pixel (n, n)."""
    if class_name not in CELL_TYPES:
        raise ValueError(
            f"There is no drawing of {class_name!r}; the drawn classes are "
            f"{', '.join(CLASS_NAMES)}."
        )
    _check_size(size)
    scene = _scene(seed, settings)
    stain_amounts = _red_cells(scene, size)
    cover = np.zeros(stain_amounts.shape[:2], dtype=np.float32)
    window, cell_amounts, cell_cover = _cell(scene, _morphology(class_name, seed, settings), size)
    behind = stain_amounts[window]
    behind += cell_cover[:, :, None] * (cell_amounts - behind)
    cover[window] = cell_cover
    return scene, stain_amounts, cover


def _check_size(size: int) -> None:
    if size < MIN_SIZE:
        raise ValueError(
            f"size={size} is too small to show a nucleus; use at least {MIN_SIZE} px, better 64."
        )


Window = tuple[slice, slice]


def _window(x: float, y: float, reach: float, size: int) -> tuple[Window, Field, Field]:
    """The part of the frame within `reach` of a point, and coordinates from that point."""
    n = size * SUPERSAMPLING
    step = FRAME / n

    def cut(centre: float) -> tuple[slice, Field]:
        middle = (centre + FRAME / 2) / step
        first = min(max(math.floor(middle - reach / step), 0), n)
        last = min(max(math.ceil(middle + reach / step), first), n)
        at = (np.arange(first, last, dtype=np.float32) + 0.5) * step - FRAME / 2 - centre
        return slice(first, last), at.astype(np.float32)

    columns, at_x = cut(x)
    rows, at_y = cut(y)
    return (rows, columns), at_x[None, :], at_y[:, None]


def _turned(x: Field, y: Field, angle: float, elongation: float) -> tuple[Field, Field]:
    """Coordinates along and across an ellipse whose axes differ by `elongation`."""
    stretch = np.float32(math.sqrt(1 + elongation))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return (cos * x + sin * y) / stretch, (cos * y - sin * x) * stretch


def _inside(distance: Field, softness: float) -> Field:
    """1 inside, 0 outside, and a smooth step of the given width where `distance` is 0."""
    t = np.clip(np.float32(0.5) - distance / np.float32(softness), 0, 1)
    return t * t * (np.float32(3) - np.float32(2) * t)


def _red_cells(scene: _Scene, size: int) -> Field:
    """Amounts of stain without the cell. (n, n, 3)"""
    n = size * SUPERSAMPLING
    haemoglobin = np.zeros((n, n), dtype=np.float32)
    granular = np.zeros((n, n), dtype=np.float32)
    outline = _texture(scene, "outline", n)
    for one in scene.neighbours:
        window, x, y = _window(one.x, one.y, 1.2 * one.radius + 2, size)
        along, across = _turned(x, y, one.angle, one.elongation)
        r = np.sqrt(along * along + across * across) + 0.5 * outline[window]
        cover = _inside(r - one.radius, 1.6) * one.amount
        if one.is_platelet:
            np.maximum(granular[window], cover, out=granular[window])
            continue
        # Biconcave: thin in the middle, thickest at two thirds of the radius.
        s = (r / (0.5 * one.radius)) ** 2
        thickness = cover * (1 - one.pallor * np.exp(-s * s * 0.7))
        np.maximum(haemoglobin[window], thickness, out=haemoglobin[window])
    granular *= 1 + 0.5 * _texture(scene, "fine", n)
    amounts = np.empty((n, n, 3), dtype=np.float32)
    amounts[:, :, AZURE] = 0.45 * np.maximum(granular, 0)
    amounts[:, :, BLUE] = 0.20 * haemoglobin
    amounts[:, :, EOSIN] = 0.33 * haemoglobin
    return amounts


def _cell(scene: _Scene, morphology: _Morphology, size: int) -> tuple[Window, Field, Field]:
    """Where the cell lies, its amounts of stain and how far it covers what is behind it."""
    t, rng, n = morphology.traits, morphology.rng, size * SUPERSAMPLING
    radius = t["radius"]
    reach = radius * math.sqrt(1 + t["elongation"]) + 2.2 * t["ruggedness"] + 1
    window, x, y = _window(scene.x, scene.y, reach, size)
    along, across = _turned(x, y, scene.angle, t["elongation"])
    outline, coarse, fine, grain = (
        _texture(scene, name, n)[window] for name in ("outline", "coarse", "fine", "grain")
    )
    to_edge = np.sqrt(along * along + across * across) - radius
    to_edge += np.float32(t["ruggedness"]) * outline
    cover = _inside(to_edge, 1.2)

    to_nucleus = _to_nucleus(along, across, t, rng)
    to_nucleus += 0.5 * _texture(scene, "shape", n)[window]
    np.maximum(to_nucleus, to_edge + np.float32(0.9), out=to_nucleus)
    nucleus = _inside(to_nucleus, 1.1) * np.float32(min(1.0, t["nucleus"] / 0.3))

    mottled = 1 + t["mottling"] * (0.7 * fine + 0.5 * grain)
    membrane = 1 + 0.25 * np.exp(-np.square(to_edge + 1.0))
    chromatin = 1 + t["chromatin"] * (
        t["clumping"] * coarse + (1 - t["clumping"]) * fine + 0.35 * grain
    )
    # A nucleus is darkest where the envelope is seen edge-on.
    envelope = 1 + 0.15 * np.exp(-np.square(to_nucleus + 0.8))
    granules = _granules(x, y, radius, t, rng)
    vacuoles = _vacuoles(along, across, radius, t, rng) * (1 - nucleus)
    granules *= 1 - nucleus * (1 - t["over_nucleus"])

    cytoplasm = mottled * membrane * (1 - nucleus) * (1 - 0.8 * vacuoles)
    amounts = np.empty((*to_edge.shape, 3), dtype=np.float32)
    amounts[:, :, AZURE] = t["azure"] * cytoplasm + t["granule_azure"] * granules
    amounts[:, :, AZURE] += t["nucleus"] * nucleus * chromatin * envelope
    amounts[:, :, BLUE] = t["blue"] * cytoplasm
    amounts[:, :, EOSIN] = t["eosin"] * cytoplasm + t["granule_eosin"] * granules
    return window, np.maximum(amounts, 0, out=amounts), cover


def _to_nucleus(
    along: Field, across: Field, t: dict[str, float], rng: np.random.Generator
) -> Field:
    """Distance to the outline of a chain of lobes, negative inside."""
    radius, n_lobes = t["radius"], max(1, round(t["lobes"]))
    lobe_radii = t["lobe_radius"] * radius * np.exp(0.10 * rng.standard_normal(5))
    wander = rng.standard_normal((5, 2)) * 0.05 * radius
    heading = float(rng.uniform(0, 2 * math.pi))
    mirror = 1.0 if rng.uniform() < 0.5 else -1.0

    # Lobes at equal steps along an arc, moved so that their mean lies near the cell's centre.
    steps = np.linspace(-0.5, 0.5, n_lobes) if n_lobes > 1 else np.zeros(1)
    bend = max(t["bend"], 1e-3)
    arc_radius = t["chain_length"] * radius / bend
    centres = np.stack(
        [arc_radius * np.sin(bend * steps), mirror * arc_radius * np.cos(bend * steps)], axis=1
    )
    centres += wander[:n_lobes] * (n_lobes > 1) - centres.mean(axis=0)
    centres[:, 0] += t["off_centre"] * radius
    turn = np.array(
        [[math.cos(heading), math.sin(heading)], [-math.sin(heading), math.cos(heading)]]
    )
    centres = (centres @ turn).astype(np.float32)

    def to_point(centre: Field) -> Field:
        return np.sqrt(np.square(along - centre[0]) + np.square(across - centre[1]))

    parts = [to_point(c) - np.float32(r) for c, r in zip(centres, lobe_radii, strict=False)]
    for start, end in pairwise(centres):
        span = end - start
        share = (along - start[0]) * span[0] + (across - start[1]) * span[1]
        share = np.clip(share / max(float(span @ span), 1e-6), 0, 1)
        distance = np.hypot(along - start[0] - share * span[0], across - start[1] - share * span[1])
        parts.append(distance - np.float32(t["waist"] * radius))
    # A soft minimum joins the parts without creases.
    softness = np.float32(0.7)
    joined = np.zeros(np.broadcast_shapes(along.shape, across.shape), dtype=np.float32)
    for part in parts:
        joined += np.exp(np.clip(-part / softness, -40, 40))
    return -softness * np.log(joined)


def _granules(
    x: Field, y: Field, radius: float, t: dict[str, float], rng: np.random.Generator
) -> Field:
    """How much granule there is at each pixel, 0 to about 1.2."""
    painted = np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)
    n_granules = round(t["granules"])
    places = rng.uniform(size=(260, 4))[:n_granules]
    if n_granules < 1 or min(painted.shape) < 2:
        return painted
    step = float(x[0, 1] - x[0, 0])
    r = 0.97 * radius * np.sqrt(places[:, 0])
    angle = 2 * math.pi * places[:, 1]
    columns = (r * np.cos(angle) - float(x[0, 0])) / step
    rows = (r * np.sin(angle) - float(y[0, 0])) / step
    sizes = t["granule_radius"] * (0.75 + 0.5 * places[:, 2]) / step
    strengths = 0.8 + 0.4 * places[:, 3]

    # All granules at once: each paints the square of pixels that it can reach.
    half = math.ceil(float(sizes.max()))
    near = np.arange(-half, half + 1)
    at_row = np.rint(rows)[:, None] + near
    at_column = np.rint(columns)[:, None] + near
    away = np.square(at_row - rows[:, None])[:, :, None]
    away = away + np.square(at_column - columns[:, None])[:, None, :]
    dabs = strengths[:, None, None] * np.clip(1.4 - away / np.square(sizes)[:, None, None], 0, 1)
    at_row, at_column = np.broadcast_arrays(at_row[:, :, None], at_column[:, None, :])
    visible = (at_row >= 0) & (at_row < painted.shape[0])
    visible &= (at_column >= 0) & (at_column < painted.shape[1]) & (dabs > 0)
    pixels = at_row[visible].astype(np.intp) * painted.shape[1]
    pixels += at_column[visible].astype(np.intp)
    np.maximum.at(painted.reshape(-1), pixels, dabs[visible].astype(np.float32))
    return painted


def _vacuoles(
    along: Field, across: Field, radius: float, t: dict[str, float], rng: np.random.Generator
) -> Field:
    """Empty bubbles in the cytoplasm, 1 inside them."""
    hollow = np.zeros(np.broadcast_shapes(along.shape, across.shape), dtype=np.float32)
    for u in rng.uniform(size=(8, 3))[: round(t["vacuoles"])]:
        r, angle = radius * (0.5 + 0.42 * u[0]), 2 * math.pi * u[1]
        away = np.square(along - np.float32(r * math.cos(angle)))
        away += np.square(across - np.float32(r * math.sin(angle)))
        bubble = _inside(np.sqrt(away) - np.float32(0.7 + 1.1 * u[2] ** 2), 0.9)
        np.maximum(hollow, bubble, out=hollow)
    return hollow


def _texture(scene: _Scene, name: str, n: int) -> Field:
    """Smooth noise of mean 0 and variance near 1 over the frame. (n, n)"""
    weights = _spline(TEXTURE_KNOTS[name], n)
    return np.clip(weights @ scene.textures[name] @ weights.T, -2.2, 2.2)


@lru_cache(maxsize=32)
def _spline(n_knots: int, n: int) -> Field:
    """Cubic B-spline weights from knots to pixels, scaled to keep the variance. (n, n_knots)"""
    at = np.linspace(1, n_knots - 2, n)[:, None] - np.arange(n_knots)[None, :]
    away = np.abs(at)
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.clip(2 - away, 0, None) ** 3 / 6
    weights = np.where(away < 1, near, far)
    return (weights / np.sqrt(np.square(weights).sum(axis=1, keepdims=True))).astype(np.float32)


def _downsampled(values: Field) -> Field:
    """Means of the 2 x 2 pixels that make one pixel of the picture."""
    rows = values[0::SUPERSAMPLING] + values[1::SUPERSAMPLING]
    return (rows[:, 0::SUPERSAMPLING] + rows[:, 1::SUPERSAMPLING]) / np.float32(4)


def _defocused(pixels: Field, sd: float) -> Field:
    if sd < 0.15:  # no pixel would change by a grey value
        return pixels
    for axis in (0, 1):
        pixels = gaussian_filter1d(pixels, sd, axis=axis, mode="nearest", truncate=3.0)
    return pixels
