"""Many readers' schedules: every rule held, and position says nothing about the truth."""

from collections import Counter
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f

from studies.allocation import AllocationError, check, n_arms, schedule
from studies.protocol import Block, Conduct, Protocol
from tests.studies.test_allocation import pools

CONDUCT = Conduct(longest_run=3, repeat_gap=8, block_order="balanced")
EVERYTHING = Protocol(
    study_id="s",
    conduct=CONDUCT,
    blocks=(
        Block(n_trials=32, n_repeats=6, n_attention=3, n_practice=2),
        Block(design="pair", n_trials=13, n_repeats=4, n_attention=2, n_practice=2),
        Block(design="classification", n_trials=18, n_practice=2),
        Block(design="quality", n_trials=16),
        Block(n_trials=16, primed=True, introduction="Look at the nucleus."),
    ),
)
SETS = pools(7, 1, 1)
IS_SYNTHETIC = {
    one.stimulus_id: one.is_synthetic
    for pool in (SETS.main, SETS.practice, SETS.attention)
    for one in pool
}
CLASS_NAME = {one.stimulus_id: one.class_name for one in SETS.main}


def block_of(trials, number, *kinds):
    return [one for one in trials if one.block_number == number and one.kind in kinds]


def truths(trials, number):
    """Of each judged trial whether it, or the left one of a pair, is generated."""
    judged = block_of(trials, number, "main", "repeat")
    return [IS_SYNTHETIC[trial.stimulus_ids[0]] for trial in judged]


def assert_rules_are_held(protocol, trials):
    conduct = protocol.conduct
    for number, block in enumerate(protocol.rounds, 1):
        kinds = Counter(trial.kind for trial in trials if trial.block_number == number)
        wanted = {"main": block.n_trials, "repeat": block.n_repeats}
        wanted |= {"attention": block.n_attention, "practice": block.n_practice}
        assert kinds == +Counter(wanted)
        order = truths(trials, number)
        if conduct.longest_run:
            assert max(len(list(same)) for _, same in groupby(order)) <= conduct.longest_run
        if block.design == "pair":
            assert abs(2 * sum(order) - len(order)) <= 1
        shown = block_of(trials, number, "main", "repeat", "attention")
        checks = [place for place, trial in enumerate(shown) if trial.kind == "attention"]
        assert min(checks, default=3) >= 3
        # One in each of equal stretches, so that two are less than two stretches from each other.
        stretch = (len(shown) - 3) / max(1, len(checks))
        assert all(late - early < 2 * stretch + 1 for early, late in pairwise(checks))
        judged = block_of(trials, number, "main", "repeat")
        place_of = {trial.position: place for place, trial in enumerate(judged)}
        for place, trial in enumerate(judged):
            if trial.kind == "repeat":
                assert place - place_of[trial.repeats_position] > conduct.repeat_gap


def p_of_flatness(truths_of_readers):
    """p value of the hypothesis that every position is as often real as generated.

    The mean over readers at each position, in the metric of its own covariance (Hotelling's T²),
    because positions of one reader exclude each other and limited runs tie neighbours.
    """
    halves = np.asarray(truths_of_readers, dtype=float) - 0.5
    mean, covariance = halves.mean(axis=0), np.cov(halves.T)
    n, rank = len(halves), np.linalg.matrix_rank(covariance)
    t_squared = n * mean @ np.linalg.pinv(covariance, hermitian=True) @ mean
    return f.sf(t_squared * (n - rank) / ((n - 1) * rank), rank, n - rank)


@pytest.mark.parametrize(
    "n_readers", [1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_over_many_enrolments_position_says_nothing_and_every_rule_is_held(n_readers):
    plan = EVERYTHING
    n_designs = len(plan.rounds)
    order_of = {number: [] for number in range(1, n_designs + 1)}
    shown_to_first = None
    for number in range(1, n_readers + 1):
        trials = schedule(plan, SETS, number, number % n_arms(plan))
        assert_rules_are_held(plan, trials)
        shown = [
            frozenset(
                id_ for trial in block_of(trials, block, "main") for id_ in trial.stimulus_ids
            )
            for block in order_of
        ]
        shown_to_first = shown_to_first or shown
        assert shown == shown_to_first
        for block, orders in order_of.items():
            orders.append(truths(trials, block))
    for block, stimuli in zip(plan.rounds, shown_to_first, strict=True):
        real = Counter(CLASS_NAME[one] for one in stimuli if not IS_SYNTHETIC[one])
        generated = Counter(CLASS_NAME[one] for one in stimuli if IS_SYNTHETIC[one])
        assert real == generated
        assert max(real.values()) - min(real.values()) <= 1
        assert len(stimuli) == block.n_trials * (2 if block.design == "pair" else 1)
    # Level 0.001 for all blocks together: one honest seed in a thousand would fail.
    p_values = {block: p_of_flatness(orders) for block, orders in order_of.items()}
    assert min(p_values.values()) > 0.001 / n_designs, p_values


def test_an_order_in_which_one_position_tells_a_little_is_found_out():
    plan = Protocol(study_id="s", n_trials=32, conduct=CONDUCT)
    orders = [truths(schedule(plan, SETS, number), 1) for number in range(1, 1001)]
    assert p_of_flatness(orders) > 0.001
    for order in orders[:200]:  # so that 60 % begin with a generated one, or with a real one
        order[0] = True
    assert p_of_flatness(orders) < 0.001


def test_each_stimulus_is_as_often_early_as_late():
    plan = Protocol(study_id="s", n_trials=32, conduct=CONDUCT)
    n_readers = 500
    places = Counter()
    for number in range(1, n_readers + 1):
        for trial in schedule(plan, SETS, number):
            places[trial.stimulus_ids[0]] += trial.position
    means = np.array([*places.values()]) / n_readers
    # The mean of 500 numbers from 1 to 32 has a standard deviation of 0.41.
    assert len(means) == 32
    assert np.abs(means - 16.5).max() < 4 * 0.41


blocks = st.builds(
    lambda n_trials, share, **values: Block(
        n_trials=n_trials, n_repeats=int(share * n_trials), **values
    ),
    n_trials=st.sampled_from([2, 3, 7, *range(4, 41, 4)]),
    share=st.sampled_from([0, 0, 0.1, 0.5, 1]),
    design=st.sampled_from(["authenticity", "pair"]),
    n_practice=st.integers(0, 3),
    n_attention=st.integers(0, 5),
    primed=st.sampled_from([False, False, True]),
    introduction=st.just("Look."),
)
conducts = st.builds(
    Conduct,
    longest_run=st.sampled_from([None, 2, 3]),
    repeat_gap=st.integers(1, 10),
    block_order=st.sampled_from(["fixed", "balanced"]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(blocks, min_size=1, max_size=3), conducts, st.integers(1, 10_000))
def test_what_is_not_refused_beforehand_is_scheduled_by_the_rules(some, conduct, number):
    some.sort(key=lambda block: block.primed)
    plan = Protocol(study_id="s", blocks=some, conduct=conduct)
    try:
        check(plan, SETS)
    except AllocationError:
        return
    for arm in range(n_arms(plan)):
        assert_rules_are_held(plan, schedule(plan, SETS, number, arm))
