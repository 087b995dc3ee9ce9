import re
import socket
from pathlib import Path

import pytest

from service.settings import (
    ServiceSettings,
    SettingsError,
    check_port_is_free,
    checkpoint_folder,
    read_settings,
)

NOWHERE = Path("/nowhere/checkpoints")


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch):
    monkeypatch.delenv("CYTOVERITY_CHECKPOINT", raising=False)


@pytest.fixture
def checkpoint_at(tmp_path):
    def make(name: str) -> Path:
        folder = tmp_path / name
        (folder / "denoiser").mkdir(parents=True)
        (folder / "cytoverity.json").touch()
        (folder / "denoiser" / "diffusion_pytorch_model.safetensors").touch()
        return folder

    return make


def test_a_folder_goes_before_a_tag_before_the_shipped_one_before_the_newest(checkpoint_at):
    named, tagged, shipped, newest = map(checkpoint_at, ["named", "tagged", "shipped", "newest"])
    store = {"blood:v1": tagged, "cytoverity:latest": newest}.get

    def chosen(shipped=shipped, **settings):
        return checkpoint_folder(ServiceSettings(**settings), stored_model=store, shipped=shipped)

    assert chosen(checkpoint=named, model="blood:v1") == named
    assert chosen(model="blood:v1") == tagged
    assert chosen() == shipped
    assert chosen(shipped=NOWHERE) == newest


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CYTOVERITY_MODEL", "cytoverity:v7")
    monkeypatch.setenv("CYTOVERITY_MAX_WAITING", "3")
    settings = read_settings()
    assert (settings.model, settings.max_waiting) == ("cytoverity:v7", 3)


def refusal(shipped=NOWHERE, **settings) -> str:
    with pytest.raises(SettingsError) as caught:
        checkpoint_folder(
            ServiceSettings(**settings), stored_model=lambda tag: None, shipped=shipped
        )
    return str(caught.value)


def test_no_model_at_all_is_refused_with_both_ways_out():
    assert "set CYTOVERITY_CHECKPOINT to a checkpoint folder, or put one into" in refusal()


def test_a_folder_that_is_no_checkpoint_is_refused_by_its_name(tmp_path):
    message = refusal(checkpoint=tmp_path)
    assert re.search(r"CYTOVERITY_CHECKPOINT points to .* has no cytoverity.json", message)


def test_a_missing_tag_is_refused_rather_than_replaced_by_another_model(checkpoint_at):
    message = refusal(shipped=checkpoint_at("shipped"), model="cytoverity:gone")
    assert "CYTOVERITY_MODEL=cytoverity:gone is not in the model store" in message


def test_a_setting_that_is_not_a_number_is_named(monkeypatch):
    monkeypatch.setenv("CYTOVERITY_MAX_WAITING", "many")
    with pytest.raises(SettingsError, match="CYTOVERITY_MAX_WAITING=many"):
        read_settings()


def test_a_busy_port_is_said_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Port {port} .*choose another"):
            check_port_is_free("127.0.0.1", port)


def test_importing_the_service_turns_telemetry_off_even_after_bentoml_has_asked():
    import os
    import subprocess
    import sys

    code = (
        "from bentoml._internal.utils.analytics import usage_stats\n"
        "assert not usage_stats.do_not_track()\n"
        "import service.app\n"
        "assert usage_stats.do_not_track()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "BENTOML_DO_NOT_TRACK"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
