"""Tiny studies for the tests: random pictures, a real server process, and nothing mocked."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from studies.protocol import Protocol
from studies.stimuli import Stimulus, read_stimuli, write_manifest
from webapp.blinding import BlindedTrial
from webapp.database import Database
from webapp.pictures import encode_png, pixel_digest
from webapp.registry import Invitation, Picture, Pool, Registry
from webapp.store import Answer, ReaderStore, Recorded

ROOT = Path(__file__).parents[2]
CLASSES = ("basophil", "monocyte")


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def pass_s(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def write_stimuli(
    folder: Path,
    *,
    per_class: int = 3,
    size: int = 64,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """A stimulus set of random pixels; the generated half is smoother, as it would really be."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    stimuli = []
    for class_name in classes:
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


def pictures(folder: Path) -> list[Picture]:
    """The stimuli of a folder with their PNGs."""
    return [(one, (folder / one.file).read_bytes()) for one in read_stimuli(folder)]


def protocol(study_id: str = "tiny", **changes: object) -> Protocol:
    values: dict[str, object] = {"study_id": study_id, "n_participants": 2}
    if "blocks" not in changes:
        values["n_trials"] = 12
    return Protocol.model_validate(values | changes)


ALL_DESIGNS: dict[str, object] = {
    "blocks": [
        {
            "design": "authenticity",
            "n_trials": 8,
            "n_practice": 2,
            "n_repeats": 2,
            "n_attention": 1,
        },
        {"design": "pair", "n_trials": 4},
        {"design": "classification", "n_trials": 4, "n_practice": 1},
        {"design": "quality", "n_trials": 4, "introduction": "How good is the picture?"},
        {"n_trials": 8, "primed": True, "introduction": "Look at the nucleus."},
    ],
    "conduct": {
        "background": True,
        "calibration": True,
        "undo": True,
        "break_every": 10,
        "repeat_gap": 3,
    },
    "languages": ["en", "de"],
}
"""Everything that a protocol knows; needs `per_class=12` of the main pool."""


def open_study(
    registry: Registry,
    plan: Protocol,
    main: Path,
    *,
    practice: Path | None = None,
    attention: Path | None = None,
    n_readers: int | None = None,
) -> list[Invitation]:
    """Create a study, freeze it whatever an audit would say, open it and invite its readers."""
    pools: dict[Pool, list[Picture]] = {"main": pictures(main)}
    if practice:
        pools["practice"] = pictures(practice)
    if attention:
        pools["attention"] = pictures(attention)
    registry.create(plan, pools)
    registry.record_audit(plan.study_id, "{}", passed=False)
    registry.freeze(plan.study_id, override="random pixels, for a test")
    registry.open(plan.study_id)
    n_readers = plan.n_participants if n_readers is None else n_readers
    labels = [f"reader {number}" for number in range(1, n_readers + 1)]
    return registry.invite(plan.study_id, labels, valid_days=1)


RESPONSES = {"authenticity": "real", "pair": "left", "classification": CLASSES[0], "quality": "3"}


def answer_to(trial: BlindedTrial, **changes: object) -> Answer:
    """An answer that the trial's design takes."""
    values: dict[str, object] = {
        "presentation_token": trial.presentation_token,
        "response": RESPONSES[trial.design],
        "confidence": None if trial.design == "quality" else 3,
        "response_time_s": 0.5,
    }
    return Answer.model_validate(values | changes)


def begin(store: ReaderStore, invitation: Invitation) -> str:
    """A reader agrees; the participant."""
    store.record_consent(invitation.participant_id, "en")
    return invitation.participant_id


def take(
    store: ReaderStore,
    participant_id: str,
    clock: Clock,
    *,
    n: int | None = None,
    **changes: object,
) -> list[tuple[BlindedTrial, Recorded]]:
    """Answer the next `n` trials, or all that are left, each after two seconds."""
    taken: list[tuple[BlindedTrial, Recorded]] = []
    while (n is None or len(taken) < n) and (trial := store.present(participant_id)) is not None:
        clock.pass_s(2)
        taken.append((trial, store.record_response(participant_id, answer_to(trial, **changes))))
    return taken


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """`python -m webapp serve` as a process of its own, as a study runs it."""

    folder: Path
    port: int = field(default_factory=free_port)
    database_url: str = ""
    """SQLite in the folder if empty."""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.database_url = self.database_url or f"sqlite:///{self.folder / 'studies.sqlite3'}"

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

    def new_study(
        self,
        main: Path,
        *,
        practice: Path | None = None,
        attention: Path | None = None,
        n_readers: int | None = None,
        **changes: object,
    ) -> list[str]:
        """Links of a fresh open study in this server's database; `changes` are the protocol's."""
        plan = protocol(f"study-{secrets.token_hex(4)}", **changes)
        with closing(Database.create(self.database_url)) as database:
            invitations = open_study(
                Registry(database),
                plan,
                main,
                practice=practice,
                attention=attention,
                n_readers=n_readers,
            )
        return [f"{self.address}/s/{one.token}" for one in invitations]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=30)
