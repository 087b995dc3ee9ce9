"""One way to turn a picture into bytes, so that bytes say no more than pixels do."""

import hashlib
import io

from PIL import Image, UnidentifiedImageError

from webapp.errors import WebappError


def encode_png(image: Image.Image) -> bytes:
    """RGB PNG with the chunks IHDR, IDAT, IEND only.

    Not compressed: a smooth picture compresses better than a noisy one, so the number of bytes
    would tell generated from real. Stored plainly, equal sizes give equally many bytes.
    """
    buffer = io.BytesIO()
    # From raw pixels: a decoded file drags its gamma, profile and text chunks along.
    bare = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    bare.save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def decode(data: bytes, *, name: str) -> Image.Image:
    """The picture in `data`, decoded whole.

    Raises:
        WebappError: if it cannot be decoded; `name` says which one.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise WebappError(
            f"{name} cannot be decoded ({error}); replace it by a whole PNG, JPEG, TIFF, BMP or "
            "WebP picture, or remove it."
        ) from None
    return image


def framed(image: Image.Image, size: int, *, crop_px: int | None) -> Image.Image:
    """The part of a photograph that a model was trained to see, at the model's size, in RGB.

    Args:
        crop_px: side of the centred square, in pixels of the photograph, that training pictures
            were cut to; None for the largest square. A picture too small for it was cut before.

    Any other cut would show real cells larger or smaller than generated ones. Kept equal to
    `diffusion.latents.framed`, which this part must not import, by a test.
    """
    rgb = image.convert("RGB")
    if rgb.size == (size, size):
        return rgb
    side = min(rgb.size)
    if crop_px is not None and side >= crop_px:
        side = crop_px
    left, top = (rgb.width - side + 1) // 2, (rgb.height - side + 1) // 2
    cut = rgb.crop((left, top, left + side, top + side))
    return cut.resize((size, size), Image.Resampling.BICUBIC)


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of size and RGB values: the same for the same picture in any encoding."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
