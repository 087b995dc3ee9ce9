import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.webapp.audit_at_hand import (
    PBC,
    Pixels,
    cells,
    fields,
    jpeg,
    resampled,
    shifted,
    write_set,
)
from webapp.audit import audit_stimuli
from webapp.near_copies import KnownPictures, training_images
from webapp.pictures import encode_png
from webapp.stimuli import RealImage


def known(pictures: list[Pixels]) -> KnownPictures:
    return KnownPictures(
        [
            RealImage(name=f"{number}.png", read=lambda data=data: data)
            for number, data in enumerate(encode_png(Image.fromarray(p)) for p in pictures)
        ]
    )


def moved(pixels: Pixels) -> Pixels:
    """By 2 to the left and 3 down."""
    return np.pad(pixels, ((3, 0), (0, 2), (0, 0)), mode="edge")[:64, 2:]


TREATMENTS = {
    "as it is": lambda pixels: pixels,
    "mirrored": lambda pixels: pixels[:, ::-1],
    "turned by 270°": lambda pixels: np.rot90(pixels),
    "mirrored, turned by 90°": lambda pixels: np.rot90(pixels)[:, ::-1],
    "moved": moved,
    "lighter": shifted(1),
    "JPEG": jpeg(75),
    "mirrored JPEG": lambda pixels: jpeg(75)(pixels[:, ::-1].copy()),
    "resampled": resampled(0.5, Image.Resampling.BILINEAR),
    "flat": lambda pixels: (128 + 0.8 * (pixels - 128.0)).astype(np.uint8),
}


@pytest.fixture(scope="module")
def some() -> tuple[list[Pixels], KnownPictures]:
    pictures = fields(60, seed=5)
    return pictures, known(pictures)


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_copy_is_found(some, treatment):
    pictures, of = some
    for number in (0, 17, 42):
        image = Image.fromarray(np.ascontiguousarray(TREATMENTS[treatment](pictures[number])))
        near = of.nearest(image)
        assert near.image.name == f"{number}.png"
        assert near.distance < of.threshold
        assert of.is_copy(image)


def test_what_was_done_to_a_copy_is_said(some):
    pictures, of = some

    def how(pixels: Pixels) -> str:
        return of.nearest(Image.fromarray(np.ascontiguousarray(pixels))).how

    assert how(pictures[3]) == "as it is"
    assert how(pictures[3][:, ::-1]) == "mirrored"
    assert how(np.rot90(pictures[3])) == "turned by 270°"
    assert how(moved(pictures[3])) == "moved by 2 and −3 px"


def test_other_pictures_of_the_same_kind_are_no_copies(some):
    _, of = some
    assert not any(of.is_copy(Image.fromarray(pixels)) for pixels in fields(60, seed=6))


def test_pictures_that_are_there_twice_do_not_lower_the_threshold(some):
    pictures, of = some
    twice = known(pictures + [pixels[::-1].copy() for pixels in pictures])
    assert twice.threshold == pytest.approx(of.threshold, rel=0.1)


def test_three_known_pictures_are_enough(some):
    pictures, _ = some
    of = known(pictures[:3])
    assert of.is_copy(Image.fromarray(shifted(1)(pictures[0])))
    assert not of.is_copy(Image.fromarray(pictures[4]))


def test_training_photographs_are_cut_as_the_model_saw_them(tmp_path: Path):
    photographs = fields(12, size=360, seed=7)
    folder = tmp_path / "training" / "basophil"
    folder.mkdir(parents=True)
    for number, pixels in enumerate(photographs):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    copy = Image.fromarray(photographs[4]).crop((80, 80, 280, 280)).resize((64, 64), 3)
    images = training_images(tmp_path / "training")
    assert KnownPictures(images, crop_px=200).is_copy(copy)
    assert not KnownPictures(images).is_copy(copy)


def test_copies_of_training_pictures_and_of_real_stimuli_are_listed_and_refused(tmp_path: Path):
    pictures, training = fields(24, seed=8), fields(30, seed=9)
    pictures[2] = training[11][:, ::-1]  # generated
    pictures[7] = shifted(1)(np.rot90(pictures[5]))  # generated, of a real one
    folder = write_set(tmp_path / "set", pictures)
    for number, pixels in enumerate(training):
        path = tmp_path / "training" / "cell" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    report = audit_stimuli(folder, training=tmp_path / "training")
    assert not report.passed
    assert {pair.among for pair in report.near_copies} == {
        "the training pictures",
        "the real pictures of this set",
    }
    mirrored = next(p for p in report.near_copies if p.among == "the training pictures")
    assert (mirrored.copy_of, mirrored.how) == ("cell/11.png", "mirrored")
    problem = next(problem for problem in report.problems if problem.code == "near_copy")
    assert problem.sentence.startswith("2 of 12 generated pictures are near-copies of real ones")
    assert "Draw them anew with other seeds" in problem.remedy
    assert report.n_training == 30


@pytest.mark.slow
def test_no_real_cell_is_a_copy_of_ten_thousand_others_and_every_treated_one_is():
    validation, _ = cells(PBC / "val.csv")
    of = KnownPictures(training_images(PBC / "train.csv"))
    for pixels in validation[::8]:
        assert not of.is_copy(Image.fromarray(pixels))
    training, _ = cells(PBC / "train.csv")
    for treatment in TREATMENTS.values():
        for pixels in training[::400]:
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(treatment(pixels))).save(buffer, "PNG")
            assert of.is_copy(Image.open(buffer))
