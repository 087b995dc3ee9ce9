"""The service as it is run: one `bentoml serve` process, from start to SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import cell_image, encoded

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 90


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A home of BentoML's own, and none of the settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CYTOVERITY_")}
    return kept | {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}


@pytest.fixture
def start(environment) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    processes = []

    def starting(target: str = ".", cwd: Path = ROOT, **settings: str):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "--port", str(port), target],
            cwd=cwd,
            env=environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield starting
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


def statuses_until_ready(url: str) -> list[int]:
    seen, deadline = [], time.monotonic() + START_TIMEOUT_S
    while not seen or seen[-1] != 200:
        assert time.monotonic() < deadline, f"not ready after {START_TIMEOUT_S} s: {seen}"
        try:
            seen.append(httpx.get(f"{url}/readyz", timeout=10).status_code)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            time.sleep(0.02)
    return seen


def test_a_server_starts_answers_refuses_and_stops(start, tiny_checkpoint):
    process, url = start(CYTOVERITY_CHECKPOINT=str(tiny_checkpoint), CYTOVERITY_MAX_WAITING="1")
    statuses = statuses_until_ready(url)
    assert set(statuses) <= {503, 200}, "probes get an answer while the model loads"

    image = encoded(cell_image())
    with httpx.Client(base_url=url, timeout=60) as http:
        options = {"options": '{"seed": 4}'}
        answer = http.post("/v1/classifications", files={"image": image}, data=options)
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 3

        drawing = {"options": {"class_name": "platelet", "n_images": 2, "seed": 1, "n_steps": 4}}
        drawn = http.post("/v1/generations", json=drawing)
        assert [image["seed"] for image in drawn.json()["images"]] == [1, 2]

        bad = http.post("/v1/classifications", files={"image": image[:-40]})
        assert (bad.status_code, bad.json()["code"]) == (422, "truncated_image")

        def long_drawing():
            long = {"options": {"class_name": "platelet", "n_images": 16, "n_steps": 300}}
            while (drawn := http.post("/v1/generations", json=long)).status_code == 429:
                pass  # a classification was in the one place
            return drawn

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(long_drawing)
            while (full := http.post("/v1/classifications", files={"image": image})).is_success:
                assert not running.done()
            assert (full.status_code, full.json()["code"]) == (429, "queue_full")
            assert int(full.headers["Retry-After"]) >= 1
            assert http.get("/v1/models").status_code == http.get("/readyz").status_code == 200
            # The drawing is under way: a polite stop lets it end.
            process.send_signal(signal.SIGTERM)
            assert len(running.result().json()["images"]) == 16
    log, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_server_without_its_model_says_so_in_one_line_and_ends(start):
    process, _ = start(CYTOVERITY_CHECKPOINT="/nowhere")
    log, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert log.strip().endswith(
        "cytoverity: CYTOVERITY_CHECKPOINT points to /nowhere, which has no cytoverity.json; "
        "give a checkpoint folder written by `python -m training run`."
    )
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_built_bento_serves_the_newest_packaged_model_from_any_folder(
    start, environment, tiny_checkpoint, tmp_path
):
    package = (
        "import shutil, sys, bentoml\n"
        "with bentoml.models.create('cytoverity') as model:\n"
        "    shutil.copytree(sys.argv[1], model.path, dirs_exist_ok=True)\n"
    )
    packaging = [sys.executable, "-W", "ignore", "-c", package, str(tiny_checkpoint)]
    subprocess.run(packaging, env=environment, check=True)
    building = [sys.executable, "-m", "bentoml", "build", "."]
    subprocess.run(building, cwd=ROOT, env=environment, check=True, capture_output=True)
    process, url = start(target="cytoverity:latest", cwd=tmp_path)
    statuses_until_ready(url)
    files = {"image": encoded(cell_image())}
    answer = httpx.post(f"{url}/v1/classifications", files=files, timeout=60)
    assert answer.json()["model"]["name"] == "tiny-random"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
