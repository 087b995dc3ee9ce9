"""The server dies without warning while readers answer; nothing that was acknowledged is lost."""

import random
import threading
import time

import httpx

from tests.webapp.studies_at_hand import Server
from webapp.bots import ReaderSession
from webapp.store import Store

N_TRIALS, N_READERS, N_KILLS = 60, 3, 2


def play(server, link, acknowledged, seed):
    """Answer until the server dies or the study ends; note each answer once it is acknowledged."""
    rng = random.Random(seed)
    with server.client() as http:
        try:
            session = ReaderSession(http)
            page = session.enter(link)
            # Resumed at the next trial: the one after the last acknowledged, or one later if an
            # answer was stored and the server died before it could say so.
            if acknowledged:
                assert page.trial_number - 1 - max(acknowledged) in (0, 1)
            for step in ("consent", "begin"):
                if page.name in ("consent", "instructions"):
                    page = session.call(step)
            while page.name == "trial":
                response, confidence = rng.choice(["real", "generated"]), rng.randint(1, 6)
                number = page.trial_number
                page = session.answer(page, response, confidence, 0.0)
                assert number not in acknowledged
                acknowledged[number] = (response, confidence)
        except httpx.TransportError:
            return


def test_sigkill_loses_no_acknowledged_answer_and_readers_resume(tmp_path, stimuli_60):
    server = Server(tmp_path)
    links = server.new_study(stimuli_60, n_participants=N_READERS, n_trials=N_TRIALS)
    acknowledged = [{} for _ in links]
    failures = []
    rng = random.Random(5)

    def guarded(number, round_number):
        try:
            play(server, links[number], acknowledged[number], f"{number} {round_number}")
        except AssertionError as failure:
            failures.append(failure)

    for round_number in range(N_KILLS):
        server.start()
        readers = [
            threading.Thread(target=guarded, args=(number, round_number))
            for number in range(len(links))
        ]
        for reader in readers:
            reader.start()
        before = sum(map(len, acknowledged))
        while sum(map(len, acknowledged)) < before + 6 and any(r.is_alive() for r in readers):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))  # anywhere in the life of an answer
        server.kill()
        for reader in readers:
            reader.join()
    assert not failures, failures
    assert 0 < sum(map(len, acknowledged)) < N_READERS * N_TRIALS, "killed in the middle"

    store = Store.open(server.database_url)
    (study_id,) = store.study_ids()
    rows = list(store.responses(study_id))
    for number, given in enumerate(acknowledged, 1):
        stored = {
            row.trial_number: (row.response, row.confidence)
            for row in rows
            if row.participant_id == f"{study_id}-P{number:02d}"
        }
        assert given.items() <= stored.items()
        assert len(stored) - len(given) <= N_KILLS, "only answers in flight were not acknowledged"
        assert sorted(stored) == list(range(1, len(stored) + 1)), "no trial skipped"
    assert len(rows) == len({row.trial_id for row in rows}), "no trial twice"
    store.close()
