"""A researchers' server in the test's own process, reached over real HTTP."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from tests.webapp.studies_at_hand import free_port, pictures, protocol
from webapp.admin import create_admin_app
from webapp.audit import AuditReport
from webapp.database import Database
from webapp.registry import Invitation, Registry
from webapp.store import Answer, ReaderStore

Made = TypeVar("Made")
NAME, PASSWORD = "anna", "a long password"


@contextmanager
def admin_server(app: FastAPI) -> Iterator[str]:
    """Its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def in_a_loop(make: Callable[[], Made]) -> Made:
    """Make something where a loop runs: else Gradio makes some and leaves them.

    In a thread of its own: after a browser test this one has a running loop already.
    """

    async def build() -> Made:
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, build()).result()


def built(database: Database) -> FastAPI:
    """The researchers' server."""
    return in_a_loop(lambda: create_admin_app(database))


class Researcher(httpx.Client):
    """A client that is logged in and presses buttons as the page's script would."""

    def __init__(self, address: str) -> None:
        self.received: list[bytes] = []
        super().__init__(base_url=address, timeout=60, event_hooks={"response": [self._keep]})
        self.post("/login", data={"name": NAME, "password": PASSWORD})
        config = self.get("/studies/config").json()
        self._indices = {one["api_name"]: one["id"] for one in config["dependencies"]}

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        self.received.append(str(response.headers.raw).encode() + response.content)

    def press(self, act: str, *values: object) -> httpx.Response:
        """The reply of the server to one press; the first value is the study."""
        return self.post(
            "/studies/gradio_api/run/predict",
            json={"fn_index": self._indices[act], "data": values, "session_hash": "tests"},
        )

    def upload(self, content: bytes, name: str) -> dict[str, object]:
        """A file, as a value for `press`."""
        reply = self.post("/studies/gradio_api/upload", files={"files": (name, content)})
        meta = {"_type": "gradio.FileData"}
        return {"path": reply.json()[0], "orig_name": name, "meta": meta}


def open_study_of(
    registry: Registry, main: Path, attention: Path, report: AuditReport, study_id: str = "tiny"
) -> list[Invitation]:
    """Four trials of two classes and two controls, two readers invited."""
    plan = protocol(study_id, blocks=[{"design": "authenticity", "n_trials": 8, "n_attention": 2}])
    registry.create(plan, {"main": pictures(main), "attention": pictures(attention)})
    registry.record_audit(study_id, report.to_json(), report.passed)
    registry.freeze(study_id, override="random pixels, for a test")
    registry.open(study_id)
    return registry.invite(study_id, ["Dr Adler", "Dr Bianchi"], valid_days=9)


def read(store: ReaderStore, database: Database, token: str, *, is_right: bool) -> None:
    """All trials, every judgement right or every one wrong; the controls always right."""
    reader = store.find_reader(token)
    assert reader is not None
    store.record_consent(reader.participant_id, "en")
    while trial := store.present(reader.participant_id):
        with database.read() as session:
            kind, is_synthetic = session.execute(
                text(
                    "SELECT trial.kind, stimulus.is_synthetic FROM presentation"
                    " JOIN trial ON trial.trial_id = presentation.trial_id"
                    " JOIN stimulus ON stimulus.stimulus_id = trial.stimulus_id"
                    " AND stimulus.study_id = trial.study_id WHERE token = :token"
                ),
                {"token": trial.presentation_token},
            ).one()
        says_generated = bool(is_synthetic) == (is_right or kind == "attention")
        store.record_response(
            reader.participant_id,
            Answer(
                presentation_token=trial.presentation_token,
                response="generated" if says_generated else "real",
                confidence=4,
                response_time_s=0.0,
            ),
        )
