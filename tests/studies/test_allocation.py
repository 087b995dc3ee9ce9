from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from studies.allocation import AllocationError, allocate
from studies.protocol import Protocol
from tests.studies.simulation import PBC_CLASSES, stimulus_set


def protocol(**values):
    return Protocol(study_id="s", **values)


def test_every_reader_sees_every_stimulus_once():
    stimuli = stimulus_set(2)
    wanted = sorted(stimulus.stimulus_id for stimulus in stimuli)
    for number in range(1, 20):
        assert sorted(allocate(protocol(n_trials=32), stimuli, number)) == wanted


def test_readers_see_different_orders():
    stimuli = stimulus_set(2)
    orders = {allocate(protocol(n_trials=32), stimuli, number) for number in range(1, 51)}
    assert len(orders) == 50


def test_the_same_seed_gives_the_same_order_whatever_the_order_of_the_manifest():
    stimuli = stimulus_set(3)
    one = allocate(protocol(n_trials=32), stimuli, 4)
    assert allocate(protocol(n_trials=32), stimuli[::-1], 4) == one
    assert allocate(protocol(n_trials=32, seed=2), stimuli, 4) != one


def test_part_of_a_set_is_the_same_for_all_readers_and_balanced_by_class_and_truth():
    stimuli = stimulus_set(9)
    by_id = {stimulus.stimulus_id: stimulus for stimulus in stimuli}
    plan = protocol(n_trials=48)
    shown = allocate(plan, stimuli, 1)
    assert set(allocate(plan, stimuli, 2)) == set(shown)
    counts = Counter((by_id[i].class_name, by_id[i].is_synthetic) for i in shown)
    assert counts == {(name, truth): 3 for name in PBC_CLASSES for truth in (True, False)}


def test_where_classes_do_not_divide_the_same_ones_get_one_more_on_both_sides():
    stimuli = stimulus_set(9)
    by_id = {stimulus.stimulus_id: stimulus for stimulus in stimuli}
    shown = [by_id[i] for i in allocate(protocol(n_trials=40), stimuli, 1)]
    real = Counter(one.class_name for one in shown if not one.is_synthetic)
    generated = Counter(one.class_name for one in shown if one.is_synthetic)
    assert real == generated
    assert sorted(real.values()) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_position_says_nothing_about_truth_over_many_readers():
    stimuli = stimulus_set(2)
    truth = {stimulus.stimulus_id: stimulus.is_synthetic for stimulus in stimuli}
    n_readers = 4000
    generated = np.zeros(32)
    for number in range(1, n_readers + 1):
        generated += [truth[i] for i in allocate(protocol(n_trials=32), stimuli, number)]
    # Half of each reader's 32 are generated, so positions are slightly negatively correlated.
    statistic = ((generated - n_readers / 2) ** 2 / (n_readers / 4)).sum() * 31 / 32
    assert chi2.sf(statistic, 31) > 0.001


def test_more_trials_than_stimuli_are_refused_with_the_number_there_is():
    with pytest.raises(AllocationError, match="n_trials=40 but the set holds 32 stimuli; set n_t"):
        allocate(protocol(n_trials=40), stimulus_set(2), 1)


def test_an_odd_part_is_refused_with_its_even_neighbours():
    with pytest.raises(AllocationError, match="cannot be half real and half generated; use 30 or"):
        allocate(protocol(n_trials=31), stimulus_set(3), 1)


def test_a_class_with_too_few_stimuli_is_refused_with_the_number_missing():
    stimuli = [one for one in stimulus_set(3) if one.class_name != "ig" or one.is_synthetic]
    with pytest.raises(AllocationError, match="2 real stimuli of class 'ig' but the set holds 0"):
        allocate(protocol(n_trials=32), stimuli, 1)


def test_a_set_without_generated_pictures_is_refused():
    real = [one for one in stimulus_set(3) if not one.is_synthetic]
    with pytest.raises(AllocationError, match="holds no generated picture"):
        allocate(protocol(n_trials=24), real, 1)


def test_participants_are_counted_from_one():
    with pytest.raises(AllocationError, match="participants are counted from 1"):
        allocate(protocol(n_trials=16), stimulus_set(1), 0)
