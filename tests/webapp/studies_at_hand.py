"""Tiny studies for the tests: random pictures, a real server process, and nothing mocked."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from studies.allocation import allocate
from studies.protocol import Protocol
from studies.stimuli import Stimulus, read_stimuli, write_manifest
from webapp.pictures import encode_png, pixel_digest
from webapp.store import Store

ROOT = Path(__file__).parents[2]
CLASSES = ("basophil", "monocyte")


def write_stimuli(folder: Path, *, per_class: int = 3, size: int = 64, seed: int = 0) -> Path:
    """A stimulus set of random pixels; the generated half is smoother, as it would really be."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    stimuli = []
    for class_name in CLASSES:
        for number in range(2 * per_class):
            is_synthetic = number >= per_class
            n_levels = 4 if is_synthetic else 256
            pixels = rng.integers(n_levels, size=(size, size, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            name = rng.bytes(8).hex()
            (folder / f"{name}.png").write_bytes(encode_png(image))
            stimuli.append(
                Stimulus(
                    stimulus_id=name,
                    file=f"{name}.png",
                    class_name=class_name,
                    is_synthetic=is_synthetic,
                    source_digest=pixel_digest(image),
                    generator_digest="ab" * 32 if is_synthetic else "",
                    seed=number if is_synthetic else None,
                )
            )
    write_manifest(folder, stimuli)
    return folder


def protocol(study_id: str = "tiny", **changes: object) -> Protocol:
    values: dict[str, object] = {"study_id": study_id, "n_participants": 2, "n_trials": 12}
    return Protocol.model_validate(values | changes)


def enrol(store: Store, plan: Protocol, stimuli: Path) -> dict[str, str]:
    """Add a study to a store; the tokens by participant."""
    chosen = read_stimuli(stimuli)
    return store.add_study(
        plan,
        [(stimulus, (stimuli / stimulus.file).read_bytes()) for stimulus in chosen],
        [allocate(plan, chosen, number) for number in range(1, plan.n_participants + 1)],
        valid_days=1,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """`python -m webapp serve` as a process of its own, as a study runs it."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.folder / 'studies.sqlite3'}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "webapp", "serve"),
                    *("--port", str(self.port), "--database", self.database_url),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.address}/healthz").is_success:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the server did not start: {self.log()}")

    def kill(self) -> None:
        """SIGKILL: no farewell, no flush."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def new_study(self, stimuli: Path, **changes: object) -> list[str]:
        """Links of a fresh study in this server's database."""
        store = Store.create(self.database_url)
        tokens = enrol(store, protocol(f"study-{secrets.token_hex(4)}", **changes), stimuli)
        store.close()
        return [f"{self.address}/s/{token}" for token in tokens.values()]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=30)
