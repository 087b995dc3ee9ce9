"""The service as a process of our own, for whoever has a checkpoint and no server at hand."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from webapp.errors import WebappError

START_S = 180


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """Address of a service that runs the checkpoint, on this machine only, while in the context.

    Raises:
        WebappError: if the service does not start; the end of its log is in the message.
    """
    if not (checkpoint / "model_index.json").is_file():
        raise WebappError(
            f"{checkpoint} is not a checkpoint folder (no model_index.json); give the folder that "
            "`python -m training run` wrote."
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="cytoverity-service-") as folder:
        log = Path(folder) / "log.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(str(Path(sys.executable).with_name("bentoml")), "serve"),
                    *("--host", "127.0.0.1", "--port", str(port)),
                ],
                cwd=Path(__file__).parents[1],
                env={
                    **os.environ,
                    "CYTOVERITY_CHECKPOINT": str(checkpoint.resolve()),
                    "BENTOML_DO_NOT_TRACK": "True",
                    "BENTOML_HOME": folder,
                },
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, address, log)
            yield address
        finally:
            # The whole group: bentoml keeps its workers in processes of their own.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    end = " ".join(log.read_text(errors="replace").split()[-40:])
    raise WebappError(
        f"the service did not start within {START_S} s: … {end}; try `bentoml serve` by hand, and "
        "give its address with --service."
    )
