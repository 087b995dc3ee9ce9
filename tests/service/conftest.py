"""One running ASGI service for all tests: BentoML can make it once in a process."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient


def cell_image(width: int = 40, height: int = 36, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def client(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path_factory.mktemp("prometheus"))
    os.environ.setdefault("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
    from service import app
    from service.settings import ServiceSettings

    app.settings = ServiceSettings(checkpoint=tiny_checkpoint, device="cpu")
    with TestClient(app.BloodCellService.to_asgi(), raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code == 503:
            pass
        yield client


@pytest.fixture(scope="session")
def classify(client: TestClient):
    def post(content: bytes, options: str = "{}", name: str = "cell.png"):
        return client.post(
            "/v1/classifications", files={"image": (name, content)}, data={"options": options}
        )

    return post
