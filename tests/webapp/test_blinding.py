import struct
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.webapp.studies_at_hand import begin, open_study, protocol
from webapp.blinding import BlindedTrial
from webapp.errors import WebappError
from webapp.pictures import decode, encode_png, framed, pixel_digest


def chunk_kinds(png: bytes) -> list[bytes]:
    position, kinds = 8, []
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        kinds.append(kind)
        position += 12 + length
    return kinds


def noise(n_levels: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(n_levels, size=(64, 64, 3), dtype=np.uint8))


TRIAL = {
    "design": "authenticity",
    "presentation_token": "here",
    "next_presentation_token": "ahead",
    "trial_number": 1,
    "n_trials": 2,
    "is_practice": False,
    "block_number": 1,
    "exposure_s": None,
    "can_undo": False,
}


def test_a_blinded_trial_has_no_field_for_an_answer():
    assert {field.name for field in fields(BlindedTrial)} == TRIAL.keys()


def test_a_blinded_trial_takes_no_further_facts():
    with pytest.raises(TypeError):
        BlindedTrial(**TRIAL, is_synthetic=True)
    with pytest.raises((AttributeError, TypeError)):
        BlindedTrial(**TRIAL).is_synthetic = True


@pytest.mark.parametrize(
    ("design", "here", "ahead"),
    [
        ("authenticity", ("/image/here",), ("/image/ahead",)),
        (
            "pair",
            ("/image/here/left", "/image/here/right"),
            ("/image/ahead/left", "/image/ahead/right"),
        ),
    ],
)
def test_picture_addresses_are_made_from_the_presentation_alone(design, here, ahead):
    trial = BlindedTrial(**TRIAL | {"design": design})
    assert (trial.image_urls, trial.next_image_urls) == (here, ahead)
    assert BlindedTrial(**TRIAL | {"next_presentation_token": None}).next_image_urls == ()


def test_what_the_store_presents_is_blinded(store, registry, stimuli):
    (invitation, _) = open_study(registry, protocol(), stimuli)
    assert type(store.present(begin(store, invitation))) is BlindedTrial


def test_a_picture_loses_its_comments_profile_and_gamma(tmp_path):
    telling = PngImagePlugin.PngInfo()
    telling.add_text("Comment", "Diffusion steps 50")
    path = tmp_path / "telling.png"
    noise(256).save(path, pnginfo=telling, icc_profile=b"profile", dpi=(72, 72))
    assert b"Diffusion steps" in path.read_bytes()
    assert set(chunk_kinds(encode_png(Image.open(path)))) == {b"IHDR", b"IDAT", b"IEND"}


def test_flat_and_noisy_pictures_are_equally_many_bytes_in_equal_chunks():
    flat, noisy = encode_png(noise(1)), encode_png(noise(256))
    assert len(flat) == len(noisy)
    assert chunk_kinds(flat) == chunk_kinds(noisy)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_every_colour_mode_becomes_the_same_encoding_without_loss(mode):
    image = noise(256).convert(mode)
    again = decode(encode_png(image), name="picture")
    assert again.mode == "RGB"
    assert pixel_digest(again) == pixel_digest(image)


@pytest.mark.parametrize(
    ("size", "crop_px"), [((360, 363), 200), ((360, 363), None), ((90, 70), 80)]
)
def test_real_pictures_are_cut_as_the_model_saw_them_in_training(size, crop_px):
    latents = pytest.importorskip("diffusion.latents", reason="the model library is not installed")
    rng = np.random.default_rng(1)
    photograph = Image.fromarray(rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8))
    ours = framed(photograph, 64, crop_px=crop_px)
    theirs = latents.framed(photograph, 64, crop_px=crop_px)
    assert pixel_digest(ours) == pixel_digest(theirs)


@pytest.mark.parametrize("data", [b"", b"no picture", encode_png(noise(256))[:5000]])
def test_a_broken_picture_is_named_with_advice(data):
    with pytest.raises(WebappError, match=r"basophil/7\.png cannot be decoded .* replace it"):
        decode(data, name="basophil/7.png")
