import io

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
def classify(client: TestClient):
    def post(content: bytes, options: str = "{}", name: str = "cell.png"):
        return client.post(
            "/v1/classifications", files={"image": (name, content)}, data={"options": options}
        )

    return post
