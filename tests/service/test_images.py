import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.images import decode
from service.problems import Problem
from tests.service.conftest import cell_image, encoded

MAX_PIXELS = 4096 * 4096
IMAGE = cell_image()


def refusal(content: bytes, max_pixels: int = MAX_PIXELS) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(content, max_pixels=max_pixels)
    return caught.value


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds no pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_pixels_that_were_saved(image_format, options):
    upload = decode(encoded(IMAGE, image_format, **options), max_pixels=MAX_PIXELS)
    assert np.array_equal(np.asarray(upload.image), np.asarray(IMAGE))
    assert upload.warnings == ()


def test_a_jpeg_is_taken():
    upload = decode(encoded(IMAGE, "JPEG"), max_pixels=MAX_PIXELS)
    assert (upload.image.mode, upload.image.size) == ("RGB", IMAGE.size)


def test_a_flipped_bit_in_a_png_is_noticed_wherever_it_could_change_a_pixel():
    image = cell_image(12, 12)
    content = encoded(image)
    codes, rng = [], random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        try:
            upload = decode(bytes(damaged), max_pixels=MAX_PIXELS)
        except Problem as problem:
            codes.append(problem.code)
        else:  # in the trailer
            assert np.array_equal(np.asarray(upload.image), np.asarray(image))
    assert set(codes) == {"corrupt_image", "truncated_image", "not_an_image"}
    assert len(codes) > 280


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_half_a_file_of_any_format_is_refused(image_format):
    content = encoded(cell_image(200, 200), image_format)
    problem = refusal(content[: len(content) // 2])
    assert problem.code in {"truncated_image", "corrupt_image"}
    assert problem.status == 422


def test_random_bytes_behind_a_good_signature_never_escape_as_another_error():
    rng = random.Random(1)
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM"):
        for _ in range(40):
            assert refusal(start + rng.randbytes(200)).status in {413, 422}


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"GIF89a", "GIF"),
        (b"%PDF-1.7", "PDF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\0\0\0\x20ftypheic", "AVIF or HEIC"),
        (b"<svg xmlns", "SVG"),
    ],
)
def test_other_formats_are_refused_by_name(start, name):
    problem = refusal(start + bytes(100))
    assert problem.status == 415
    assert problem.detail == f"{name} files are not taken; send PNG, JPEG, TIFF, BMP or WebP."


def test_a_huge_image_is_refused_from_its_header():
    # Pillow itself refuses above 179 megapixels, only warns above 89, and decodes below.
    for width, height in [(20_000, 10_000), (10_000, 9_999), (4097, 4096)]:
        problem = refusal(png_header(width, height))
        assert (problem.status, problem.code) == (413, "image_too_large")


def test_the_pixel_limit_itself_is_allowed():
    width, height = IMAGE.size
    assert decode(encoded(IMAGE), max_pixels=width * height).image.size == IMAGE.size
    assert refusal(encoded(IMAGE), max_pixels=width * height - 1).code == "image_too_large"


def test_sixteen_bit_images_are_refused_in_every_disguise():
    deep = Image.fromarray(np.zeros((8, 8), dtype=np.uint16))
    # Pillow opens 16-bit RGB as 8-bit without a word: patch the depth of an 8-bit file.
    rgb16 = bytearray(png_header(4, 4))
    rgb16[24] = 16
    rgb16[29:33] = struct.pack(">I", zlib.crc32(bytes(rgb16[12:29])))
    floats = Image.fromarray(np.zeros((8, 8), dtype=np.float32))
    for content in (encoded(deep), encoded(deep, "TIFF"), bytes(rgb16), encoded(floats, "TIFF")):
        problem = refusal(content)
        assert (problem.status, problem.code) == (422, "unsupported_pixel_format")
        assert "convert it to RGB with 8 bits a channel" in problem.detail


def test_cmyk_is_refused():
    assert refusal(encoded(IMAGE.convert("CMYK"), "JPEG")).code == "unsupported_pixel_format"


def test_opaque_alpha_is_dropped_and_transparency_is_refused():
    opaque = IMAGE.convert("RGBA")
    upload = decode(encoded(opaque), max_pixels=MAX_PIXELS)
    assert np.array_equal(np.asarray(upload.image), np.asarray(IMAGE))
    opaque.putpixel((3, 3), (0, 0, 0, 254))
    assert "transparent in places" in refusal(encoded(opaque)).detail


def test_grey_images_are_taken_with_a_warning():
    upload = decode(encoded(IMAGE.convert("L")), max_pixels=MAX_PIXELS)
    assert upload.image.mode == "RGB"
    assert "no colour" in upload.warnings[0]


def test_the_first_page_of_a_tiff_is_used_and_said():
    buffer = io.BytesIO()
    IMAGE.save(buffer, format="TIFF", save_all=True, append_images=[cell_image(seed=1)])
    upload = decode(buffer.getvalue(), max_pixels=MAX_PIXELS)
    assert np.array_equal(np.asarray(upload.image), np.asarray(IMAGE))
    assert upload.warnings == ("The file holds 2 pictures; only the first was used.",)
