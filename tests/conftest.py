"""Shared by all parts: a tiny checkpoint with random weights, written as the real ones are."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks; servers run beside the tests
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
TINY_CLASSES = ("basophil", "eosinophil", "platelet")


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, crop_px: int | None = None) -> Path:
    import torch  # takes seconds, and half of the tests need none of it

    from diffusion.checkpoint import CheckpointHeader, save_checkpoint
    from diffusion.classifier_settings import ClassifierSettings
    from diffusion.draws import DrawPlan
    from diffusion.network import CellDenoiser

    torch.manual_seed(seed)
    network = CellDenoiser(
        image_size=32,
        n_classes=len(TINY_CLASSES),
        widths=(16, 32),
        n_blocks=(1, 1),
        n_decoder_blocks=(1, 1),
        n_embedding=32,
        sigma_data=0.5,
    )
    # Some layers start at zero, and then all classes tie: give every weight a value.
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    header = CheckpointHeader(
        name="tiny-random",
        class_names=TINY_CLASSES,
        image_size=32,
        crop_px=crop_px,
        data_digest="0" * 64,
        n_training_images=0,
        n_images_seen=0,
        training_config={},
        classifier=ClassifierSettings.uncalibrated(
            len(TINY_CLASSES), DrawPlan(n_levels=3, n_blocks=2)
        ),
    )
    save_checkpoint(folder, network, header)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real cells (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def client(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The real service in this process; BentoML can make it once."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path_factory.mktemp("prometheus"))
    os.environ.setdefault("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
    from service import app
    from service.settings import ServiceSettings

    app.settings = ServiceSettings(checkpoint=tiny_checkpoint, device="cpu")
    with TestClient(app.BloodCellService.to_asgi(), raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code == 503:
            pass
        yield client
