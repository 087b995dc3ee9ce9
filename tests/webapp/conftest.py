import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel

from tests.webapp.browser_at_hand import CHROMIUM
from tests.webapp.studies_at_hand import Clock, Server, free_port, write_stimuli
from webapp.database import Database
from webapp.registry import Registry
from webapp.store import ReaderStore


@pytest.fixture(scope="session")
def stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "stimuli")


@pytest.fixture(scope="session")
def stimuli_48(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "stimuli", per_class=12, size=16)


@pytest.fixture(scope="session")
def stimuli_60(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "stimuli", per_class=15, size=16)


@pytest.fixture(scope="session")
def practice_stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "practice", seed=1, size=16)


@pytest.fixture(scope="session")
def attention_stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "attention", seed=2, size=16)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def new_postgresql() -> Iterator[Callable[[], str]]:
    """Makes an empty database on a PostgreSQL server of the tests' own; its URL."""
    psycopg = pytest.importorskip("psycopg", reason="pip install 'psycopg[binary]'")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # It refuses to run as root, and then may not enter pytest's own folders.
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = tempfile.mkdtemp(prefix="cytoverity-postgresql-")
    shutil.chown(folder, user)
    port = free_port()

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [binaries[-1] / program, "-D", f"{folder}/data", *arguments],
            user=user if os.getuid() == 0 else None,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start("initdb", "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync").wait() == 0
    server = start("postgres", "-p", str(port), "-k", folder, "-h", "127.0.0.1")
    address = f"postgresql://tests@127.0.0.1:{port}/"
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"{address}postgres").close()
            break
        except psycopg.OperationalError:
            assert server.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL did not start in time"
            time.sleep(0.05)

    def new() -> str:
        name = f"study_{secrets.token_hex(4)}"
        with psycopg.connect(f"{address}postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{address}{name}"

    yield new
    server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
    server.wait()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def migrated_postgresql(new_postgresql: Callable[[], str]) -> str:
    """A database that has the newest schema, for one test after the other."""
    url = new_postgresql()
    Database.create(url).close()
    return url


@pytest.fixture
def postgresql_url(new_postgresql: Callable[[], str]) -> str:
    """An empty database."""
    return new_postgresql()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for studies, once on each of the two kinds of database."""
    if request.param == "postgresql":
        import psycopg

        url = str(request.getfixturevalue("migrated_postgresql"))
        with psycopg.connect(url) as connection:  # emptied: a new one takes much longer
            for table in reversed(SQLModel.metadata.sorted_tables):
                connection.execute(f"DELETE FROM {table.name}")
        return url
    return f"sqlite:///{tmp_path / 'studies.sqlite3'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database.create(database_url)
    yield made
    made.close()


@pytest.fixture
def store(database: Database, clock: Clock) -> ReaderStore:
    return ReaderStore(database, clock)


@pytest.fixture
def registry(database: Database, clock: Clock) -> Registry:
    return Registry(database, clock)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, stimuli: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.new_study(stimuli)
    yield running.start()
    running.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """A fresh browser profile that notes every request and every complaint."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.requested, context.complaints = [], []
    context.on("request", lambda request: context.requested.append(request.url))
    context.on("console", lambda said: context.complaints.append(f"{said.type}: {said.text}"))
    context.on("weberror", lambda error: context.complaints.append(str(error.error)))
    yield context
    context.close()
