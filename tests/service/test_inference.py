import asyncio
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

from diffusion.checkpoint import load_checkpoint, save_checkpoint
from service.classification import classify
from service.inference import describe
from service.model import read_model
from service.schemas import ClassificationOptions
from tests.conftest import write_tiny_checkpoint
from tests.service.conftest import cell_image

HEAD_ALONE = ClassificationOptions(row="head")


def test_a_photograph_is_cropped_as_in_training_unless_told_otherwise(tmp_path):
    model = read_model(write_tiny_checkpoint(tmp_path / "cropping", crop_px=40), device="cpu")
    photograph = cell_image(64, 60)

    def region(**options):
        answer = classify(model, photograph, ClassificationOptions(**options))
        return answer.region.model_dump()

    assert region() == {"framing": "crop", "left": 12, "top": 10, "side": 40}
    assert region() == region(framing="crop")
    assert region(framing="whole") == {"framing": "whole", "left": 2, "top": 0, "side": 60}


def test_an_image_is_seen_under_the_light_of_the_training_set(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    balanced = checkpoint.header.model_copy(update={"background": (0.8, 0.8, 0.8)})
    save_checkpoint(tmp_path / "balanced", checkpoint.network, balanced)
    pixels = np.asarray(cell_image(32, 32)) // 2 + 100
    reddish = (pixels * [1.0, 0.8, 0.7]).astype(np.uint8)

    def balances(folder):
        model = read_model(folder, device="cpu")
        assert describe(model).is_white_balanced == (model.checkpoint.header.background is not None)
        return [
            {p.class_name: p.probability for p in answer.predictions}
            for answer in (
                classify(model, Image.fromarray(image.astype(np.uint8)), HEAD_ALONE)
                for image in (pixels, reddish)
            )
        ]

    white, red = balances(tmp_path / "balanced")
    assert red == pytest.approx(white, abs=2e-3)
    white, red = balances(tiny_checkpoint)
    assert red != pytest.approx(white, abs=2e-3)


def test_the_service_is_not_ready_before_its_model_and_says_so():
    from service.app import BloodCellService

    service = object.__new__(BloodCellService.inner)
    service.loading = Future()
    waiting = asyncio.run(service.ready())
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (503, "2")
    assert b'"code": "model_loading"' in waiting.body
    assert service.__is_ready__() is False

    service.loading.set_exception(OSError("secret path"))
    failed = asyncio.run(service.ready())
    assert failed.status_code == 503
    assert b'"code": "model_failed"' in failed.body
    assert b"secret" not in failed.body
    assert service.__is_ready__() is False


def test_the_card_says_what_each_row_is_worth_and_what_was_promised(calibrated_model):
    card = describe(calibrated_model)
    assert (card.is_calibrated, card.finds_anomalies, card.false_alarm_rate) == (True, True, 0.1)
    fused, generative, head = card.rows
    assert fused.model_dump() == {
        "row": "fused",
        "n_blocks": 2,
        "default_risk": 0.2,
        "balanced_accuracy": 0.91,
        "n_cells": 363,
        "gflop": 0.11,
    }
    # What was not measured is not made up.
    assert (generative.balanced_accuracy, generative.n_cells) == (None, None)
    assert (head.row, head.n_blocks) == ("head", None)
    # The head, 12 draws of 3 classes, 12 draws of the anomaly profile.
    assert card.forward_passes_per_classification == 1 + 36 + 12
