from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_folder(folder: Path, classes: dict[str, int], *, size: int = 32, seed: int = 0) -> Path:
    """Images by class, each class its own colour with noise: easy to tell apart."""
    rng = np.random.default_rng(seed)
    for k, (name, n) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.normal(60 + 60 * k, 25, (size, size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "cells", {"alpha": 12, "beta": 9, "gamma": 6})
