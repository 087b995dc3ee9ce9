"""One reader in four tabs at once, who reloads, answers, answers again and takes back at random."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from tests.webapp.studies_at_hand import answer_to, begin, open_study, protocol
from webapp.store import ReaderStore

N_TABS, N_STEPS = 4, 60


def press(store, reader, seed):
    """What one tab does; how many answers were stored and how many taken back."""
    rng, shown, counts = random.Random(seed), [], {"stored": 0, "undone": 0}
    for _ in range(N_STEPS):
        action = rng.choice(["present", "answer", "answer", "answer late", "undo"])
        if action == "undo":
            counts["undone"] += store.undo(reader)
        elif action == "present" or not shown:
            trial = store.present(reader)
            shown += [trial] if trial else []
        else:
            trial = shown[-1] if action == "answer" else rng.choice(shown)
            recorded = store.record_response(reader, answer_to(trial, response_time_s=0.0))
            counts["stored"] += recorded.outcome == "stored"
    return counts


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_pressed_the_answered_trials_are_the_first_ones(
    store, registry, database, stimuli_60, clock, seed
):
    plan = protocol(n_trials=60, conduct={"undo": True})
    reader = begin(store, open_study(registry, plan, stimuli_60)[0])
    stores = [store, ReaderStore(database, clock)] * (N_TABS // 2)  # as of two processes
    with ThreadPoolExecutor(N_TABS) as pool:
        counts = list(
            pool.map(lambda tab: press(stores[tab], reader, 10 * seed + tab), range(N_TABS))
        )
    n_stored = sum(count["stored"] for count in counts)
    n_undone = sum(count["undone"] for count in counts)
    assert n_undone > 0
    with database.read() as connection:
        rows = connection.execute(
            text(
                """SELECT position,
                (SELECT COUNT(*) FROM response WHERE response.trial_id = trial.trial_id) AS given,
                (SELECT COUNT(*) FROM retraction WHERE retraction.trial_id = trial.trial_id)
                AS undone FROM trial ORDER BY position"""
            )
        ).all()
    assert sum(row.given for row in rows) == n_stored, "each acknowledged answer is there once"
    assert sum(row.undone for row in rows) == n_undone
    assert all(row.undone <= 1 and row.given - row.undone in (0, 1) for row in rows)
    answered = [row.given > row.undone for row in rows]
    assert answered == sorted(answered, reverse=True), "none is skipped"
    for one in stores[:2]:
        assert one.progress(reader).n_answered == n_stored - n_undone
