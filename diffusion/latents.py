"""Image files to latents and back: framing, colour range, scaling.

Latents are the pixels themselves: RGB, float32, 0..255 mapped linearly to [-1, 1], channels first.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Framing = Literal["auto", "crop", "whole"]


def latents_from_images(images: NDArray[np.uint8]) -> Tensor:
    """Latents of RGB images. uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images are {images.dtype} with shape {images.shape}; give uint8 RGB images stacked "
            "as (n, height, width, 3)."
        )
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().div_(127.5).sub_(1)


def images_from_latents(latents: Tensor) -> NDArray[np.uint8]:
    """RGB images of latents, clipped to the colour range. (B, 3, H, W) -> uint8 (B, H, W, 3)."""
    pixels = ((latents.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    images: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return images


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The square of a photograph that a model looks at, in the photograph's pixels."""

    framing: Literal["crop", "whole"]
    """Whether the training crop was cut, or the largest centred square."""
    left: int
    top: int
    side: int


def frame_region(
    size: tuple[int, int], image_size: int, *, crop_px: int | None, framing: Framing = "auto"
) -> Region:
    """Where in a photograph the model was trained to look.

    Args:
        size: width and height of the photograph.
        image_size: side of the model's images.
        crop_px: side of the centred square, in pixels of the photograph, that training images
            were cut to; None if they were whole frames. PBC: 200 of 360 x 363.
        framing: "crop" cuts that square, "whole" the largest centred square, and "auto" cuts
            the square unless the image is too small to hold one, or has the model's own size (a
            cell that was cropped before).

    Raises:
        ValueError: if a crop is asked for and the image is smaller than it.
    """
    width, height = size
    shorter = min(size)
    if framing == "crop" and (crop_px is None or shorter < crop_px):
        raise ValueError(
            f"The image is {width} x {height} px and cannot be cropped to "
            f"{crop_px or 'an undeclared number of'} px; send the whole photograph, or set "
            '`framing` to "whole" for a cell that is already cropped.'
        )
    is_cropped = framing == "crop" or (
        framing == "auto"
        and crop_px is not None
        and shorter >= crop_px
        and size != (image_size, image_size)
    )
    side = crop_px if is_cropped and crop_px is not None else shorter
    # An odd margin is shared as the PBC sets in ../shared/data were: more on the left and top.
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return Region(framing="crop" if is_cropped else "whole", left=left, top=top, side=side)


def framed(
    image: Image.Image, image_size: int, *, crop_px: int | None, framing: Framing = "auto"
) -> Image.Image:
    """The part of a photograph that the model was trained to see, RGB, at the model's size.

    Arguments and errors as for `frame_region`.
    """
    region = frame_region(image.size, image_size, crop_px=crop_px, framing=framing)
    box = (region.left, region.top, region.left + region.side, region.top + region.side)
    # Cut first: resizing from within the photograph would mix in pixels beyond the border.
    cut = image.convert("RGB").crop(box)
    if cut.size == (image_size, image_size):
        return cut
    return cut.resize((image_size, image_size), Image.Resampling.BICUBIC)


def image_digest(image: NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels with their shape: the same for the same picture in any file format."""
    header = f"{image.shape}:{image.dtype}:".encode()
    return hashlib.sha256(header + np.ascontiguousarray(image).tobytes()).hexdigest()


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """A lossless PNG without metadata, encoded alike for every image. uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def dihedral(latents: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of a square: `turn % 4` quarter turns, mirrored from 4 on."""
    rotated = torch.rot90(latents, turn % 4, dims=(-2, -1))
    return rotated.flip(-1) if turn >= 4 else rotated
