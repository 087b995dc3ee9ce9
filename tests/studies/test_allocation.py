"""What is shown to all: balanced, each block its own, or refused with what to change."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from studies.allocation import AllocationError, Pools, check, n_arms, schedule
from studies.protocol import Block, Conduct, Protocol
from tests.studies.simulation import PBC_CLASSES, digest, stimulus_set

TOLD = {"primed": True, "introduction": "Look at the nucleus."}


def protocol(*blocks, **values):
    return Protocol(study_id="s", blocks=blocks, **values)


def pools(n_per_class, n_practice=0, n_attention=0):
    """Pools with so many real and generated stimuli of each class."""

    def renamed(pool, n):
        return tuple(
            one.model_copy(
                update={
                    "stimulus_id": digest(pool + one.stimulus_id)[:16],
                    "source_digest": digest(pool + one.stimulus_id),
                }
            )
            for one in stimulus_set(n)
        )

    return Pools(
        main=tuple(stimulus_set(n_per_class)),
        practice=renamed("practice", n_practice),
        attention=renamed("attention", n_attention),
    )


def shown(protocol, pools, *, block=1, number=1, kinds=("main",)):
    """The stimuli of one block in the order of one reader, of pairs left and right."""
    by_id = {one.stimulus_id: one for pool in all_pools(pools) for one in pool}
    return [
        by_id[stimulus_id]
        for trial in schedule(protocol, pools, number)
        if trial.block_number == block and trial.kind in kinds
        for stimulus_id in trial.stimulus_ids
    ]


def all_pools(pools):
    return (pools.main, pools.practice, pools.attention)


def cells(stimuli):
    return Counter((one.class_name, one.is_synthetic) for one in stimuli)


def test_every_reader_sees_every_stimulus_once():
    whole = pools(2)
    wanted = sorted(one.stimulus_id for one in whole.main)
    for number in range(1, 20):
        trials = schedule(protocol(n_trials=32), whole, number)
        assert sorted(id_ for trial in trials for id_ in trial.stimulus_ids) == wanted


def test_readers_see_different_orders():
    orders = {schedule(protocol(n_trials=32), pools(2), number) for number in range(1, 51)}
    assert len(orders) == 50


def test_the_same_seed_gives_the_same_schedule_whatever_the_order_of_the_manifest():
    plan = protocol(
        Block(n_trials=20, n_repeats=4, n_attention=2, n_practice=2),
        Block(design="pair", n_trials=8, n_practice=2),
    )
    one = pools(3, 1, 1)
    turned = Pools(main=one.main[::-1], practice=one.practice[::-1], attention=one.attention[::-1])
    assert schedule(plan, turned, 4) == schedule(plan, one, 4)
    assert schedule(plan.model_copy(update={"seed": 2}), one, 4) != schedule(plan, one, 4)


def test_the_schedules_of_the_first_protocols_never_change():
    # Computed with the allocation of first light: a change orphans the studies that it began.
    plan = Protocol(study_id="first-light", n_trials=40)
    orders = [[trial.stimulus_ids[0] for trial in schedule(plan, pools(9), i)] for i in (1, 2, 3)]
    assert hashlib.sha256(" ".join(map(" ".join, orders)).encode()).hexdigest() == (
        "fdf16f0e91511f304d8153005ed5bc6882e0965e68486582c99fd33732dd6069"
    )


def test_part_of_a_set_is_the_same_for_all_readers_and_balanced_by_class_and_truth():
    plan, nine = protocol(n_trials=48), pools(9)
    assert {*shown(plan, nine, number=2)} == {*shown(plan, nine, number=1)}
    assert cells(shown(plan, nine)) == {(c, truth): 3 for c in PBC_CLASSES for truth in (0, 1)}


def test_where_classes_do_not_divide_the_same_ones_get_one_more_on_both_sides():
    found = cells(shown(protocol(n_trials=40), pools(9)))
    assert all(found[name, False] == found[name, True] for name in PBC_CLASSES)
    assert sorted(found.values()) == [2] * 8 + [3] * 8


def test_one_more_is_taken_from_classes_that_have_it():
    few = {"basophil", "ig", "monocyte", "platelet"} & set(PBC_CLASSES)
    main = [one for one in stimulus_set(3) if one.class_name not in few or one.seed in (None, 0, 1)]
    found = cells(shown(protocol(n_trials=40), Pools(main=tuple(main))))
    assert len(few) >= 2
    assert all(found[name, truth] == 2 for name in few for truth in (False, True))


def test_several_generators_are_balanced_in_each_class_and_over_all():
    main = tuple(
        one.model_copy(update={"generator_digest": f"g{one.seed % 3}"}) if one.is_synthetic else one
        for one in stimulus_set(9)
    )
    found = [one for one in shown(protocol(n_trials=80), Pools(main=main)) if one.is_synthetic]
    of_class = Counter((one.class_name, one.generator_digest) for one in found)
    assert set(of_class.values()) == {1, 2}
    assert len(of_class) == 3 * len(PBC_CLASSES)
    assert sorted(Counter(one.generator_digest for one in found).values()) == [13, 13, 14]


def test_every_block_shows_balanced_stimuli_of_its_own():
    plan = protocol(
        Block(n_trials=32, n_attention=4, n_practice=3),
        Block(design="pair", n_trials=16, n_attention=4, n_practice=4),
        Block(design="classification", n_trials=16, n_practice=4),
        Block(design="quality", n_trials=16),
    )
    six = pools(6, 1, 1)
    everything = ("main", "attention", "practice")
    ids = [one for block in (1, 2, 3, 4) for one in shown(plan, six, block=block, kinds=everything)]
    assert len({one.stimulus_id for one in ids}) == len(ids) == 36 + 3 + 2 * 24 + 20 + 16
    for block, n_each in ((1, 2), (2, 2), (3, 1), (4, 1)):
        found = cells(shown(plan, six, block=block))
        assert found == {(c, truth): n_each for c in PBC_CLASSES for truth in (0, 1)}


def test_a_pair_is_real_and_generated_of_one_class_and_the_same_for_all_readers():
    plan, three = protocol(Block(design="pair", n_trials=20, n_repeats=3)), pools(3)
    pairs = []
    for number in (1, 2):
        found = shown(plan, three, number=number)
        pairs.append({frozenset(both) for both in zip(found[::2], found[1::2], strict=True)})
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == 20
    for one, other in pairs[0]:
        assert one.class_name == other.class_name
        assert one.is_synthetic != other.is_synthetic


def test_practice_and_attention_come_from_their_pools_and_practice_comes_first():
    plan = protocol(
        Block(n_trials=16, n_practice=3, n_attention=4), Block(n_trials=16, n_practice=2)
    )
    both = pools(2, 1, 1)
    trials = schedule(plan, both, 1)
    for kind, pool in (("main", 0), ("practice", 1), ("attention", 2)):
        ids = {one.stimulus_id for one in all_pools(both)[pool]}
        assert {trial.stimulus_ids[0] for trial in trials if trial.kind == kind} <= ids
    kinds = [[trial.kind for trial in trials if trial.block_number == block] for block in (1, 2)]
    assert kinds[0][:3] == ["practice"] * 3
    assert kinds[1] == ["practice"] * 2 + ["main"] * 16
    assert Counter(kinds[0]) == {"practice": 3, "main": 16, "attention": 4}
    assert [trial.position for trial in trials] == [*range(1, len(trials) + 1)]
    numbered = [trial.trial_number for trial in trials if trial.kind != "practice"]
    assert numbered == [*range(1, plan.n_shown + 1)]
    assert {trial.trial_number for trial in trials if trial.kind == "practice"} == {None}


def test_repeats_are_the_same_for_all_readers_balanced_and_point_to_the_first_showing():
    plan, three = protocol(Block(n_trials=32, n_repeats=16)), pools(3)
    repeated = [shown(plan, three, number=number, kinds=("repeat",)) for number in (1, 2)]
    assert {*repeated[0]} == {*repeated[1]}
    assert cells(repeated[0]) == {(c, truth): 1 for c in PBC_CLASSES for truth in (0, 1)}
    trials = schedule(plan, three, 1)
    for trial in trials:
        if trial.kind == "repeat":
            first = trials[trial.repeats_position - 1]
            assert (first.kind, first.stimulus_ids) == ("main", trial.stimulus_ids)
        else:
            assert trial.repeats_position is None


def test_a_primed_block_shows_the_first_round_of_its_design_again():
    plan = protocol(
        Block(n_trials=16),
        Block(design="pair", n_trials=8),
        Block(n_trials=16),
        Block(n_trials=16, **TOLD),
        Block(design="pair", n_trials=4, **TOLD),
    )
    four = pools(4)
    assert {*shown(plan, four, block=4)} == {*shown(plan, four, block=1)}
    assert {*shown(plan, four, block=5)} < {*shown(plan, four, block=2)}
    assert shown(plan, four, block=4) != shown(plan, four, block=1)


def test_a_primed_block_without_a_first_round_has_stimuli_of_its_own():
    plan = protocol(Block(design="quality", n_trials=16), Block(n_trials=16, **TOLD))
    assert not {*shown(plan, pools(2), block=1)} & {*shown(plan, pools(2), block=2)}


def test_arms_rotate_the_unprimed_blocks_and_primed_ones_go_last():
    blocks = (
        Block(n_trials=8, **TOLD),
        Block(n_trials=8),
        Block(design="pair", n_trials=4),
        Block(design="quality", n_trials=8),
    )
    balanced = protocol(*blocks, conduct=Conduct(block_order="balanced"))
    whole = pools(2)
    assert n_arms(balanced) == 3
    orders = []
    for arm in range(3):
        numbers = [trial.block_number for trial in schedule(balanced, whole, 1, arm)]
        orders.append([*dict.fromkeys(numbers)])
    assert orders == [[2, 3, 4, 1], [3, 4, 2, 1], [4, 2, 3, 1]]
    assert n_arms(protocol(*blocks[1:])) == 1
    assert n_arms(protocol(blocks[0], conduct=Conduct(block_order="balanced"))) == 1


def test_another_arm_shows_the_same_trials_in_another_order_of_blocks():
    plan = protocol(
        *(Block(n_trials=8, n_practice=2), Block(design="pair", n_trials=4)),
        conduct=Conduct(block_order="balanced"),
    )
    orders = [schedule(plan, pools(2, 1), 1, arm) for arm in (0, 1)]
    unplaced = [
        [
            replace(trial, position=0, trial_number=0)
            for trial in order
            if trial.block_number == block
        ]
        for block in (1, 2)
        for order in orders
    ]
    assert orders[0] != orders[1]
    assert unplaced[0] == unplaced[1]
    assert unplaced[2] == unplaced[3]


AUTHENTICITY, PAIR = Block(n_trials=16), Block(design="pair", n_trials=8)


@pytest.mark.parametrize(
    ("plan", "sets", "words"),
    [
        (
            protocol(n_trials=40),
            pools(2),
            "n_trials=40 needs 40 stimuli but there are 32 for it alone; add 8, or lower n_trials",
        ),
        (
            protocol(Block(design="pair", n_trials=20)),
            pools(2),
            "n_trials=20 needs 40 stimuli but there are 32 for it alone; add 8, or lower n_trials",
        ),
        (
            protocol(AUTHENTICITY, Block(n_trials=24)),
            pools(2),
            "block 2: n_trials=24 needs 24 stimuli but there are 16 for it alone; add 8, or lower",
        ),
        (
            protocol(AUTHENTICITY, Block(n_trials=32)),
            pools(2),
            "block 2: n_trials=32 needs 32 stimuli but there are 16 for it alone; add 16, or lower",
        ),
        (
            protocol(n_trials=31),
            pools(3),
            "n_trials=31 cannot be half real and half generated; use 30 or 32.",
        ),
        (
            protocol(Block(n_trials=16, n_practice=3)),
            Pools(main=pools(1).main, practice=pools(1, 1).practice[:2]),
            "n_practice=3 but there are 2 stimuli of the practice pool for it alone; add 1, or low",
        ),
        (
            protocol(Block(design="pair", n_trials=8, n_attention=9)),
            pools(1, 0, 1),
            "n_attention=9 but there are 8 pairs of one class of the attention pool for it alone; ",
        ),
        (
            protocol(AUTHENTICITY, Block(n_trials=24, **TOLD)),
            pools(5),
            "block 2: n_trials=24 but a primed block shows what block 1 showed, which has 16 trial",
        ),
        (
            protocol(AUTHENTICITY, Block(n_trials=16, **TOLD), PAIR),
            pools(5),
            "block 3 is not primed but follows one that is, so its readers know too; put primed bl",
        ),
        (
            protocol(Block(n_trials=16, n_repeats=2)),
            pools(2),
            "conduct.repeat_gap=8 cannot be kept with 8 real trials; set it below 8, or raise n_tr",
        ),
        (
            protocol(Block(design="pair", n_trials=8, n_repeats=2)),
            pools(2),
            "conduct.repeat_gap=8 cannot be kept with 8 trials; set it below 8, or raise n_trials",
        ),
        (
            protocol(n_trials=28, conduct=Conduct(longest_run=2)),
            Pools(main=tuple(one for one in stimulus_set(3) if one.seed in (None, 0))[:28]),
            "conduct.longest_run=2 cannot be kept with 21 trials of one truth and 7 of the other; ",
        ),
        (
            protocol(Block(n_trials=2, n_attention=1)),
            pools(2, 0, 1),
            "n_trials=2 leaves no trial before the attention checks; set it to 3 or more, or n_att",
        ),
        (
            protocol(AUTHENTICITY),
            Pools(main=pools(1).main, practice=pools(1).main[:1]),
            "of the practice pool is in the main pool too, where readers would know it again; take",
        ),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_what_to_change(plan, sets, words):
    with pytest.raises(AllocationError) as at_once:
        check(plan, sets)
    assert words in str(at_once.value)
    with pytest.raises(AllocationError) as caught:
        schedule(plan, sets, 1)
    assert str(caught.value) == str(at_once.value)


def test_the_advised_run_can_be_kept():
    main = tuple(one for one in stimulus_set(3) if one.seed in (None, 0))[:28]
    check(protocol(n_trials=28, conduct=Conduct(longest_run=3)), Pools(main=main))


def test_a_class_with_too_few_stimuli_is_refused_with_the_number_missing():
    main = tuple(one for one in stimulus_set(3) if one.class_name != "ig" or one.is_synthetic)
    words = "n_trials=32 needs 2 real stimuli of class 'ig' but there are 0 for it alone; add 2, or"
    with pytest.raises(AllocationError, match=words):
        check(protocol(n_trials=32), Pools(main=main))


def test_a_set_of_one_kind_is_refused():
    for truth, word in ((False, "generated"), (True, "real")):
        main = tuple(one for one in stimulus_set(3) if one.is_synthetic == truth)
        with pytest.raises(AllocationError, match=f"holds no {word} picture; every design needs"):
            check(protocol(n_trials=24), Pools(main=main))


def test_participants_are_counted_from_one():
    with pytest.raises(AllocationError, match="participants are counted from 1"):
        schedule(protocol(n_trials=16), pools(1), 0)
