import csv
import zipfile
from itertools import groupby
from operator import itemgetter

import pytest

from service.classification import classify
from service.images import decode
from service.model import read_model
from service.schemas import ClassificationOptions
from service.settings import SHIPPED_CHECKPOINT

N_EACH = 2

pytestmark = pytest.mark.skipif(
    not SHIPPED_CHECKPOINT.is_dir(), reason="checkpoints/pbc64 is not in this working tree"
)


@pytest.fixture(scope="module")
def shipped():
    return read_model(SHIPPED_CHECKPOINT, device="cpu")


@pytest.fixture(scope="module")
def photographs(shared_data):
    """Photographs of each class that the model was not trained on."""
    folder = shared_data / "pbc_original"
    rows = [
        row
        for row in csv.DictReader((folder / "examples.csv").read_text().splitlines())
        if row["split"] == "val"
    ]
    rows.sort(key=itemgetter("class", "file"))
    with zipfile.ZipFile(folder / "examples.zip") as archive:
        return [
            (name, decode(archive.read(row["file"]), max_pixels=10**6).image)
            for name, of_class in groupby(rows, key=itemgetter("class"))
            for row in list(of_class)[:N_EACH]
        ]


@pytest.mark.parametrize("row", ["fused", "generative", "head"])
def test_the_shipped_checkpoint_recognises_photographs_it_was_not_trained_on(
    shipped, photographs, row
):
    options = ClassificationOptions(row=row, anomaly=False)
    best = [classify(shipped, image, options).best_class for _, image in photographs]
    right = [found == name for found, (name, _) in zip(best, photographs, strict=True)]
    # At 0.93 balanced accuracy, fewer than 12 of 16 would happen once in 260 times.
    assert len(right) == N_EACH * 8
    assert sum(right) >= 12


def test_the_shipped_checkpoint_keeps_its_promises_on_photographs(shipped, photographs):
    answers = [classify(shipped, image, ClassificationOptions()) for _, image in photographs]
    assert all(answer.is_calibrated and answer.anomaly for answer in answers)
    held = [
        name in answer.prediction_set.shown
        for answer, (name, _) in zip(answers, photographs, strict=True)
    ]
    # At 0.9, fewer than 11 of 16 would happen once in 300 times.
    assert sum(held) >= 11
    alarms = [answer.anomaly.is_anomalous for answer in answers]
    assert sum(alarms) <= 2  # at a rate of 0.01, more would happen once in 1,900 times
    given = [
        (answer.predicted_class, name)
        for answer, (name, _) in zip(answers, photographs, strict=True)
        if not answer.is_abstained
    ]
    assert len(given) >= 8
