import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

N_REFERENCE = 20
"""Reference cells of each class; half of them are ranked."""


def cell_image(width: int = 40, height: int = 36, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint):
    """The tiny checkpoint as the service loads it: nothing was calibrated."""
    from service.inference import load

    return load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def calibrated_model(tiny_model):
    """The same network, calibrated on made-up cells: right verdicts have log-odds of 0 to 4, wrong
    ones of 0.5, and the true class conforms down to log-odds of -2."""
    from diffusion.anomaly import fit_anomaly_reference
    from diffusion.conformal import AbstentionCalibration, ConformalCalibration
    from diffusion.latents import image_digest, latents_from_images

    own = tiny_model.settings
    right = tuple(np.repeat(np.linspace(0, 4, 81), 3).round(6).tolist())
    strange = tuple(np.linspace(-4, 2, 121).round(6).tolist())
    of_each_row = {
        "conformal": ConformalCalibration(method="lac", scores=(strange,) * 3),
        "abstention": AbstentionCalibration(right=right, wrong=(0.5,) * 90, n_classes=3),
        "default_risk": 0.2,
    }
    scales = {"generative_scale": 50.0, "head_scale": 5.0}
    rows = {}
    for name, row in own.rows.items():
        known = {key: value for key, value in scales.items() if getattr(row.posterior, key)}
        posterior = row.posterior.model_copy(update={**known, "n_cells": 363})
        rows[name] = row.model_copy(update={"posterior": posterior, **of_each_row})
    own = own.model_copy(update={"rows": rows})
    images = np.stack([np.asarray(cell_image(32, 32, seed=i)) for i in range(3 * N_REFERENCE)])
    digests = [image_digest(image) for image in images]
    classifier = with_settings(tiny_model, own).classifier
    prepared = classifier.prepared(latents_from_images(images))
    looked = classifier.look(prepared, digests)
    log_p = own.rows["fused"].posterior.log_probabilities(looked.evidence)
    reference = fit_anomaly_reference(
        classifier.measurements(prepared, digests, looked, log_p),
        np.arange(len(images)) % 3,
        high_noise=range(3),
        low_noise=range(4, 6),
    )
    facts = {"rows": {"fused": {"balanced_accuracy": 0.91, "n": 363, "gflop": 0.11}}}
    settings = own.model_copy(
        update={"anomaly": reference, "false_alarm_rate": 0.1, "facts": facts}
    )
    return with_settings(tiny_model, settings)


def with_settings(model, settings):
    """The same checkpoint as if it had been written with other settings."""
    from diffusion.cell_classifier import CellClassifier
    from service.model import Model

    header = model.checkpoint.header.model_copy(update={"classifier": settings})
    return Model(
        checkpoint=replace(model.checkpoint, header=header),
        classifier=CellClassifier(
            model.checkpoint.network, settings, header.class_names, background=header.background
        ),
    )


@pytest.fixture(scope="session")
def classify(client: TestClient):
    def post(content: bytes, options: str = "{}", name: str = "cell.png"):
        return client.post(
            "/v1/classifications", files={"image": (name, content)}, data={"options": options}
        )

    return post
