"""Uploaded bytes to an 8-bit image, or a refusal that names the fault.

Taken: PNG, JPEG, TIFF (first page), BMP and WebP (first frame); 8 bits a channel; black and white,
grey, palette, RGB, and alpha where every pixel is opaque. Refused rather than guessed at: more
than 8 bits (which range is the cell's?), transparency (over which background?), CMYK and Lab.
Orientation tags and colour profiles are ignored, as they are in training.
"""

import io
import warnings
from dataclasses import dataclass
from http import HTTPStatus

from PIL import Image

from service.problems import Problem

SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),
    ("TIFF", 0, b"MM\0+"),
    ("BMP", 0, b"BM"),
    ("WEBP", 8, b"WEBP"),
)
"""Formats taken, with the place and value of the bytes that they start with."""

REFUSED_SIGNATURES: tuple[tuple[str, int, bytes], ...] = (
    ("GIF", 0, b"GIF8"),
    ("PDF", 0, b"%PDF"),
    ("DICOM", 128, b"DICM"),
    ("AVIF or HEIC", 4, b"ftyp"),
    ("JPEG 2000", 4, b"jP  "),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("Photoshop", 0, b"8BPS"),
    ("SVG", 0, b"<svg"),
    ("ZIP", 0, b"PK\x03\x04"),
)
"""Formats recognised only to say so."""

MODES = {"1", "L", "P", "RGB", "YCbCr"}
MODES_WITH_ALPHA = {"LA", "PA", "RGBA"}
TIFF_BITS_PER_SAMPLE = 258
PNG_BIT_DEPTH_BYTE = 24

# Above its own limit Pillow only warns, and decodes.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An image that is safe to look at, and what the sender should know about it."""

    image: Image.Image
    warnings: tuple[str, ...]


def decode(content: bytes, *, max_pixels: int) -> Upload:
    """The image in a file's bytes, fully decoded.

    Raises:
        Problem: 413, 415 or 422; every kind of fault has its own code.
    """
    image_format = _recognised(content)
    try:
        image = Image.open(io.BytesIO(content), formats=[image_format])
        _check_size(image.size, max_pixels)
        if image_format == "PNG":
            # Pillow skips the checksums of pixel data unless asked to verify.
            image.verify()
            image = Image.open(io.BytesIO(content), formats=[image_format])
        _check_pixel_format(image, content)
        n_frames = getattr(image, "n_frames", 1)
        image.load()
    except Problem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(max_pixels) from None
    except Exception as error:  # whatever a decoder raises is the file's fault
        raise _undecodable(image_format, error) from None
    notes = []
    if n_frames > 1:
        notes.append(f"The file holds {n_frames} pictures; only the first was used.")
    if image.mode in {"1", "L", "LA"}:
        notes.append("The image has no colour; the model was trained on stained cells.")
    return Upload(image=_opaque(image), warnings=tuple(notes))


def _recognised(content: bytes) -> str:
    if not content:
        raise _unusable("empty_image", "The image file is empty; send the file's content.")
    for name, place, signature in SIGNATURES:
        if content[place : place + len(signature)] == signature:
            return name
    for name, place, signature in REFUSED_SIGNATURES:
        if content[place : place + len(signature)] == signature:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported_image_format",
                f"{name} files are not taken; send PNG, JPEG, TIFF, BMP or WebP.",
            )
    raise _unusable("not_an_image", "The file is not an image; send PNG, JPEG, TIFF, BMP or WebP.")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_large(max_pixels, f"{width} x {height}")


def _check_pixel_format(image: Image.Image, content: bytes) -> None:
    n_bits = 8
    if image.format == "PNG":
        n_bits = content[PNG_BIT_DEPTH_BYTE]
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        n_bits = max(tags.get(TIFF_BITS_PER_SAMPLE, (8,)))
    if n_bits > 8 or image.mode not in MODES | MODES_WITH_ALPHA:
        depth = f"{n_bits} bits a channel" if n_bits > 8 else f"colour mode {image.mode}"
        raise _unusable(
            "unsupported_pixel_format",
            f"The image has {depth}; convert it to RGB with 8 bits a channel.",
        )


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    least, _ = with_alpha.getchannel("A").getextrema()
    if isinstance(least, int) and least < 255:
        raise _unusable(
            "unsupported_pixel_format",
            "The image is transparent in places; flatten it onto its background.",
        )
    return with_alpha.convert("RGB")


def _undecodable(image_format: str, error: Exception) -> Problem:
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return _unusable(
            "truncated_image",
            f"The {image_format} file ends too early; send the whole file.",
        )
    return _unusable(
        "corrupt_image",
        f"The {image_format} file is damaged and cannot be decoded; export it again.",
    )


def _too_large(max_pixels: int, size: str | None = None) -> Problem:
    is_size = f"is {size} pixels, and" if size else "has too many pixels;"
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "image_too_large",
        f"The image {is_size} {max_pixels:,} pixels is the most; send one cell, not the slide.",
    )


def _unusable(code: str, detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail)
