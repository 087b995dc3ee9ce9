from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.webapp.studies_at_hand import Server, write_stimuli
from webapp.store import Store


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def pass_s(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def stimuli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "stimuli")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    made = Store.create(f"sqlite:///{tmp_path / 'studies.sqlite3'}")
    made._now = clock
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, stimuli: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.new_study(stimuli)
    yield running.start()
    running.stop()


@pytest.fixture(scope="session")
def stimuli_60(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stimuli(tmp_path_factory.mktemp("set") / "stimuli", per_class=15, size=16)
