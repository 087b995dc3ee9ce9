import asyncio
from concurrent.futures import Future

from diffusion.checkpoint import load_checkpoint
from service import inference
from service.schemas import ClassificationOptions
from tests.conftest import write_tiny_checkpoint
from tests.service.conftest import cell_image


def test_a_photograph_is_cropped_as_in_training_unless_told_otherwise(tmp_path):
    checkpoint = load_checkpoint(write_tiny_checkpoint(tmp_path / "cropping", crop_px=40))
    photograph = cell_image(64, 60)

    def region(**options):
        verdict = inference.classify(checkpoint, photograph, ClassificationOptions(**options))
        return verdict.region.model_dump()

    assert region() == {"framing": "crop", "left": 12, "top": 10, "side": 40}
    assert region() == region(framing="crop")
    assert region(framing="whole") == {"framing": "whole", "left": 2, "top": 0, "side": 60}


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
