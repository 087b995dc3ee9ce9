"""The server dies without warning while readers answer; nothing that was acknowledged is lost."""

import multiprocessing
import random
import socket
import tempfile
import threading
import time
from contextlib import closing

import httpx
import pytest

from tests.webapp.studies_at_hand import Server, write_stimuli
from webapp.bots import ReaderSession
from webapp.commands_servers import serve
from webapp.database import Database
from webapp.registry import Registry

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["webapp.app", "webapp.commands_servers", "uvicorn"])


def serve_in(folder, **arguments):
    tempfile.tempdir = str(folder)  # who is killed does not tidy up
    serve(**arguments)


class ForkedServer(Server):
    """The same server, forked from a process that has done its imports: they take seconds."""

    def start(self):
        arguments = {"database": self.database_url, "host": "127.0.0.1", "port": self.port}
        self.process = FORKS.Process(
            target=serve_in, args=(self.folder,), kwargs=arguments, daemon=True
        )
        self.process.start()
        while self.process.is_alive():
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                time.sleep(0.01)
        raise AssertionError(f"the server ended with {self.process.exitcode}")

    def kill(self):
        self.process.kill()
        self.process.join()
        self.process.close()


class Bot:
    """A reader who answers as fast as the server replies, and whom its death does not deter."""

    def __init__(self, server, link, seed):
        self.server, self.link = server, link
        self.rng = random.Random(seed)
        self.given = {}
        """What was acknowledged, by trial number."""
        self.pending = None
        """The page and the answer that no reply has come to yet: it is sent again, unchanged."""

    def play(self):
        try:
            with self.server.client() as http:
                session = ReaderSession(http)
                page = session.enter(self.link)
                while page.name in ("consent", "instructions"):
                    page = session.call(page.name)
                while page.name == "trial" or self.pending:
                    if self.pending is None:
                        assert page.trial_number == len(self.given) + 1, "none skipped or repeated"
                        said = self.rng.choice(["real", "generated"]), self.rng.randint(1, 6)
                        self.pending = page, said
                    shown, said = self.pending
                    page = session.answer(shown, *said, 0.0)
                    self.given[shown.trial_number] = said
                    self.pending = None
        except httpx.TransportError:
            return


@pytest.mark.parametrize(
    ("n_kills", "n_readers", "n_trials"),
    [
        pytest.param(4, 4, 60, id="4 kills"),
        pytest.param(200, 20, 400, id="200", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_sigkill_loses_no_acknowledged_answer_and_readers_resume(
    tmp_path, database_url, n_kills, n_readers, n_trials
):
    server = ForkedServer(tmp_path, database_url=database_url)
    stimuli = write_stimuli(tmp_path / "stimuli", per_class=n_trials // 4, size=16)
    links = server.new_study(stimuli, n_participants=n_readers, n_trials=n_trials)
    bots = [Bot(server, link, seed) for seed, link in enumerate(links)]
    failures = []
    rng = random.Random(5)

    def guarded(bot):
        try:
            bot.play()
        except BaseException as failure:
            failures.append(failure)

    def n_acknowledged():
        return sum(len(bot.given) for bot in bots)

    for _ in range(n_kills):
        server.start()
        readers = [threading.Thread(target=guarded, args=(bot,)) for bot in bots]
        for reader in readers:
            reader.start()
        enough = n_acknowledged() + rng.randint(0, n_readers)
        while n_acknowledged() < enough and any(reader.is_alive() for reader in readers):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))  # anywhere in the life of an answer
        server.kill()
        for reader in readers:
            reader.join()
        assert not failures, failures
    assert 0 < n_acknowledged() < n_readers * n_trials, "killed in the middle"
    n_in_flight = sum(bot.pending is not None for bot in bots)
    assert n_in_flight > 0

    with closing(Database.open(database_url)) as database:
        registry = Registry(database)
        (study,) = registry.studies()
        assert registry.verify(study.study_id) == []
        registry.close(study.study_id)
        registry.unblind(study.study_id, "the test is over")
        rows = list(registry.responses(study.study_id, design="authenticity"))
        readers = registry.readers(study.study_id)
    for bot, reader in zip(bots, readers, strict=True):
        stored = {
            row.trial_number: (row.response, row.confidence)
            for row in rows
            if row.participant_id == reader.participant_id
        }
        in_flight = {bot.pending[0].trial_number: bot.pending[1]} if bot.pending else {}
        assert stored in (bot.given, bot.given | in_flight)
        assert sorted(stored) == list(range(1, len(stored) + 1)), "no trial skipped"
    assert len(rows) == len({row.trial_id for row in rows}), "no trial twice"
