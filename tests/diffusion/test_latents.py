import csv
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.latents import (
    dihedral,
    frame_region,
    framed,
    image_digest,
    images_from_latents,
    latents_from_images,
    png_bytes,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def test_images_survive_the_way_to_latents_and_back():
    latents = latents_from_images(IMAGES)
    assert latents.shape == (3, 3, 8, 8)
    assert latents.min() >= -1
    assert latents.max() <= 1
    assert np.array_equal(images_from_latents(latents), IMAGES)


def test_colours_out_of_range_are_clipped_and_not_wrapped():
    assert images_from_latents(torch.full((1, 3, 2, 2), 1.5)).min() == 255
    assert images_from_latents(torch.full((1, 3, 2, 2), -1.5)).max() == 0


def test_wrong_pixels_are_refused():
    with pytest.raises(ValueError, match="give uint8 RGB images"):
        latents_from_images(IMAGES.astype(float))


def disc(width: int, height: int, radius: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert("RGB")


def mean_of(image: Image.Image) -> float:
    return float(np.asarray(image).mean() / 255)


def test_a_whole_photograph_is_cut_to_what_the_model_was_trained_on():
    photograph = disc(360, 363, 100)
    cut = framed(photograph, 64, crop_px=200)
    assert cut.size == (64, 64)
    assert mean_of(cut) == pytest.approx(np.pi / 4, abs=0.01)  # the disc fills the square
    whole = framed(photograph, 64, crop_px=200, framing="whole")
    assert mean_of(whole) == pytest.approx(np.pi * 100**2 / 360**2, abs=0.01)


def test_a_cell_that_is_already_cropped_is_only_resized():
    assert framed(disc(64, 64, 20), 64, crop_px=200).size == (64, 64)
    small = framed(disc(120, 120, 60), 64, crop_px=200)
    assert mean_of(small) == pytest.approx(np.pi / 4, abs=0.01)


def test_an_original_photograph_gives_exactly_the_pixels_of_the_packed_set(shared_data):
    """The 64 px training images were cut by others: ours must be the same to the last bit."""
    rows = {}
    for name in ("train", "val"):
        with (shared_data / "pbc64" / f"{name}.csv").open() as file:
            rows |= {row["source_name"]: row for row in csv.DictReader(file)}
    compared = 0
    with zipfile.ZipFile(shared_data / "pbc_original" / "examples.zip") as originals:
        for member in sorted(originals.namelist())[::16]:
            row = rows[member.split("/")[-1]]
            with zipfile.ZipFile(shared_data / "pbc64" / row["archive"]) as archive:
                expected = Image.open(io.BytesIO(archive.read(row["file"]))).convert("RGB")
            original = Image.open(io.BytesIO(originals.read(member)))
            assert framed(original, 64, crop_px=200).tobytes() == expected.tobytes(), member
            compared += 1
    assert compared == 10


@pytest.mark.parametrize("size", [(64, 64), (60, 64), (64, 61), (40, 36), (32, 32), (20, 90)])
@pytest.mark.parametrize("crop_px", [None, 40])
@pytest.mark.parametrize("framing", ["auto", "whole"])
def test_the_region_that_is_stated_holds_the_pixels_that_were_seen(size, crop_px, framing):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    region = frame_region(size, 32, crop_px=crop_px, framing=framing)
    cut = pixels[region.top : region.top + region.side, region.left : region.left + region.side]
    assert cut.shape == (region.side, region.side, 3)
    seen = framed(Image.fromarray(pixels), 32, crop_px=crop_px, framing=framing)
    alone = framed(Image.fromarray(cut), 32, crop_px=None)
    assert seen.tobytes() == alone.tobytes()


def test_a_crop_that_does_not_fit_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="cannot be cropped to 200 px; send the whole photograph"):
        framed(disc(120, 120, 60), 64, crop_px=200, framing="crop")


def test_the_digest_is_of_the_pixels():
    assert image_digest(IMAGES[0]) == image_digest(IMAGES[0].copy())
    assert image_digest(IMAGES[0]) != image_digest(IMAGES[1])
    assert image_digest(IMAGES[0]) != image_digest(IMAGES[0].reshape(4, 16, 3))


def test_png_bytes_are_lossless_and_say_nothing_else():
    data = png_bytes(IMAGES[0])
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), IMAGES[0])
        assert image.info == {}


def test_the_eight_symmetries_of_a_square_are_all_different():
    latents = latents_from_images(IMAGES[:1])
    turned = {dihedral(latents, turn).numpy().tobytes() for turn in range(8)}
    assert len(turned) == 8
