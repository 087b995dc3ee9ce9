"""Which participant sees which stimulus when: the same stimuli for all, in an order of their own.

Every reader judges every case (a crossed design), because only then can the differences between
readers be told from the differences between cases.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from studies.order import apart, below, halves, in_turns, limited, shuffled, spread_places
from studies.protocol import Block, Conduct, Design, Protocol
from studies.stimuli import Stimulus

N_BEFORE_ATTENTION = 3
"""So many trials of a block come before its first attention check."""

Kind = Literal["main", "repeat", "attention", "practice"]


class AllocationError(ValueError):
    """A protocol that the stimuli cannot serve, with what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """The stimuli of a study by what they are for."""

    main: tuple[Stimulus, ...]
    practice: tuple[Stimulus, ...] = ()
    attention: tuple[Stimulus, ...] = ()
    """Obvious controls, which whoever looks gets right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One place in a reader's schedule."""

    position: int
    """From 1, over the whole study, practice too."""
    trial_number: int | None
    """From 1, over the whole study without practice; None for practice."""
    block_number: int
    """From 1, as the protocol numbers its blocks, whatever the order in which they are shown."""
    design: Design
    kind: Kind
    stimulus_ids: tuple[str, ...]
    """One; of a pair the left and the right one."""
    repeats_position: int | None
    """Of a repeat: where the same was shown first."""


class _Case(NamedTuple):
    """What a trial shows: a stimulus, or a real and a generated one of the same class."""

    stimulus_ids: tuple[str, ...]
    class_name: str
    is_synthetic: bool
    """False for a pair."""

    def __str__(self) -> str:
        return " ".join(self.stimulus_ids)


class _Round(NamedTuple):
    """A block with the cases that all readers see in it."""

    number: int
    block: Block
    main: list[_Case]
    repeated: list[_Case]
    attention: list[_Case]
    practice: list[_Case]


def n_arms(protocol: Protocol) -> int:
    """How many orders of the blocks there are; an arm is one of them, counted from 0."""
    if protocol.conduct.block_order == "fixed":
        return 1
    return max(1, sum(not block.primed for block in protocol.rounds))


def check(protocol: Protocol, pools: Pools) -> None:
    """Refuse, before any reader is there, what `schedule` would refuse.

    Raises:
        AllocationError: if the pools cannot serve the protocol, with what to change.
    """
    _rounds(protocol, pools)


def schedule(
    protocol: Protocol, pools: Pools, participant_number: int, arm: int = 0
) -> tuple[PlannedTrial, ...]:
    """All trials of one participant, in the order in which they are shown.

    In each block no truth comes more than `longest_run` times in a row among first showings and
    repeats, and at least `repeat_gap` trials lie between a first showing and its repeat. Of pairs
    the sides are balanced and limited in the same way.

    Args:
        participant_number: counts from 1. Numbers beyond `n_participants` are valid: a
            participant who drops out is replaced under a new number.
        arm: which order of the blocks, from 0 to `n_arms` - 1: unprimed blocks are rotated by so
            many, and primed ones follow them.

    Raises:
        AllocationError: if the pools cannot serve the protocol, with what to change.
    """
    if participant_number < 1:
        raise AllocationError(
            f"participant_number={participant_number}; participants are counted from 1."
        )
    rounds = _rounds(protocol, pools)
    unprimed = [one for one in rounds if not one.block.primed]
    trials: list[PlannedTrial] = []
    n_practice = 0
    for one in unprimed[arm:] + unprimed[:arm] + rounds[len(unprimed) :]:
        first_shown: dict[_Case, int] = {}
        for kind, case, is_turned in _in_order(one, protocol, participant_number):
            position = len(trials) + 1
            n_practice += kind == "practice"
            if kind == "main":
                first_shown[case] = position
            trials.append(
                PlannedTrial(
                    position=position,
                    trial_number=None if kind == "practice" else position - n_practice,
                    block_number=one.number,
                    design=one.block.design,
                    kind=kind,
                    stimulus_ids=case.stimulus_ids[::-1] if is_turned else case.stimulus_ids,
                    repeats_position=first_shown[case] if kind == "repeat" else None,
                )
            )
    return tuple(trials)


# What all readers see


def _rounds(protocol: Protocol, pools: Pools) -> list[_Round]:
    """The blocks as the first arm sees them: the unprimed ones, then the primed ones."""
    _refuse_pools(pools)
    _refuse_primed_too_early(protocol)
    taken: set[str] = set()
    rounds: list[_Round] = []
    for number, block in sorted(enumerate(protocol.rounds, 1), key=lambda one: one[1].primed):
        try:
            one = _round(number, block, protocol, pools, taken, rounds)
            _refuse_limits(one, protocol.conduct)
        except AllocationError as error:
            where = f"block {number}: " if len(protocol.rounds) > 1 else ""
            raise AllocationError(f"{where}{error}") from None
        for case in one.main + one.attention + one.practice:
            taken.update(case.stimulus_ids)
        rounds.append(one)
    return rounds


def _round(
    number: int,
    block: Block,
    protocol: Protocol,
    pools: Pools,
    taken: set[str],
    before: Sequence[_Round],
) -> _Round:
    seed = protocol.seed
    main, practice, attention = (
        [stimulus for stimulus in pool if stimulus.stimulus_id not in taken]
        for pool in (pools.main, pools.practice, pools.attention)
    )
    same_design = [one for one in before if one.block.design == block.design]
    if block.primed and same_design:
        cases = _shown_again(same_design[0], block, seed)
    else:
        is_whole_set = block.design != "pair" and block.n_trials == len(main) == len(pools.main)
        chosen = main if is_whole_set else _balanced_part(block, main, pools, seed)
        cases = _cases(block, chosen, seed)
    return _Round(
        number=number,
        block=block,
        main=cases,
        repeated=_spread(cases, block.n_repeats, seed, f"repeats of block {number}"),
        attention=_beside("attention", block.n_attention, block, attention, seed),
        practice=_beside("practice", block.n_practice, block, practice, seed),
    )


def _shown_again(first: _Round, block: Block, seed: int) -> list[_Case]:
    n_cases = len(first.main)
    if block.n_trials > n_cases:
        raise AllocationError(
            f"n_trials={block.n_trials} but a primed block shows what block {first.number} showed, "
            f"which has {n_cases} trials; set it to {n_cases} or less."
        )
    return _spread(first.main, block.n_trials, seed, "shown again")


def _balanced_part(
    block: Block, stimuli: Sequence[Stimulus], pools: Pools, seed: int
) -> list[Stimulus]:
    n_needed = block.n_trials * (2 if block.design == "pair" else 1)
    if n_needed > len(stimuli):
        raise AllocationError(
            f"n_trials={block.n_trials} needs {n_needed} stimuli but there are {len(stimuli)} for "
            f"it alone; add {n_needed - len(stimuli)}, or lower n_trials."
        )
    if n_needed % 2:
        raise AllocationError(
            f"n_trials={n_needed} cannot be half real and half generated; "
            f"use {n_needed - 1} or {n_needed + 1}."
        )
    cells: defaultdict[tuple[str, bool], list[Stimulus]] = defaultdict(list)
    for stimulus in stimuli:
        cells[stimulus.class_name, stimulus.is_synthetic].append(stimulus)
    classes = sorted({stimulus.class_name for stimulus in pools.main})
    each, n_with_one_more = divmod(n_needed // 2, len(classes))
    # The same classes get one more among the real as among the generated: otherwise the class
    # of a cell would say something about the truth.
    with_one_more = sorted(
        shuffled(classes, seed, "classes with one more"),
        key=lambda name: min(len(cells[name, False]), len(cells[name, True])) <= each,
    )[:n_with_one_more]
    chosen: list[Stimulus] = []
    n_chosen: Counter[str] = Counter()
    for class_name in classes:
        n_of_class = each + (class_name in with_one_more)
        for is_synthetic, word in ((False, "real"), (True, "generated")):
            found = cells[class_name, is_synthetic]
            if len(found) < n_of_class:
                raise AllocationError(
                    f"n_trials={block.n_trials} needs {n_of_class} {word} stimuli of class "
                    f"{class_name!r} but there are {len(found)} for it alone; add "
                    f"{n_of_class - len(found)}, or lower n_trials."
                )
            part = in_turns(
                shuffled(found, seed, f"stimuli shown, {word}", lambda one: one.stimulus_id),
                group=lambda one: one.generator_digest,
                rank=lambda one: n_chosen[one.generator_digest],
            )[:n_of_class]
            n_chosen.update(one.generator_digest for one in part)
            chosen += part
    return chosen


def _beside(
    pool: Literal["practice", "attention"],
    n_needed: int,
    block: Block,
    stimuli: Sequence[Stimulus],
    seed: int,
) -> list[_Case]:
    cases = _cases(block, stimuli, seed)
    if n_needed > len(cases):
        kind = "pairs of one class" if block.design == "pair" else "stimuli"
        raise AllocationError(
            f"n_{pool}={n_needed} but there are {len(cases)} {kind} of the {pool} pool for it "
            f"alone; add {n_needed - len(cases)}, or lower n_{pool}."
        )
    return _spread(cases, n_needed, seed, pool)


def _cases(block: Block, stimuli: Sequence[Stimulus], seed: int) -> list[_Case]:
    if block.design != "pair":
        return [_Case((one.stimulus_id,), one.class_name, one.is_synthetic) for one in stimuli]
    kinds: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for one in shuffled(stimuli, seed, "pairs", lambda one: one.stimulus_id):
        kinds[one.class_name][one.is_synthetic].append(one.stimulus_id)
    return [
        _Case(both, class_name, False)
        for class_name, (real, generated) in kinds.items()
        for both in zip(real, generated, strict=False)
    ]


def _refuse_pools(pools: Pools) -> None:
    for is_synthetic, word in ((False, "real"), (True, "generated")):
        if all(stimulus.is_synthetic != is_synthetic for stimulus in pools.main):
            raise AllocationError(
                f"the stimulus set holds no {word} picture; every design needs both kinds."
            )
    sources = {stimulus.source_digest for stimulus in pools.main}
    for name, pool in (("practice", pools.practice), ("attention", pools.attention)):
        for stimulus in pool:
            if stimulus.source_digest in sources:
                raise AllocationError(
                    f"{stimulus.stimulus_id} of the {name} pool is in the main pool too, where "
                    f"readers would know it again; take it out of the {name} pool."
                )


def _refuse_primed_too_early(protocol: Protocol) -> None:
    if protocol.conduct.block_order == "balanced":
        return
    for number, (before, block) in enumerate(pairwise(protocol.rounds), 2):
        if before.primed and not block.primed:
            raise AllocationError(
                f"block {number} is not primed but follows one that is, so its readers know too; "
                'put primed blocks last, or set conduct.block_order to "balanced".'
            )


def _refuse_limits(one: _Round, conduct: Conduct) -> None:
    is_pair, longest, gap = one.block.design == "pair", conduct.longest_run, conduct.repeat_gap
    first = Counter(case.is_synthetic for case in one.main)
    again = Counter(case.is_synthetic for case in one.repeated)
    fewer, more = sorted(first[truth] + again[truth] for truth in (False, True))
    if not is_pair and longest is not None and more > longest * (fewer + 1):
        raise AllocationError(
            f"conduct.longest_run={longest} cannot be kept with {more} trials of one truth and "
            f"{fewer} of the other; set it to {-(-more // (fewer + 1))} or more."
        )
    for truth in again:
        if first[truth] <= gap:
            word = "" if is_pair else "generated " if truth else "real "
            raise AllocationError(
                f"conduct.repeat_gap={gap} cannot be kept with {first[truth]} {word}trials; set it "
                f"below {first[truth]}, or raise n_trials."
            )
    if one.attention and len(one.main) < N_BEFORE_ATTENTION:
        raise AllocationError(
            f"n_trials={len(one.main)} leaves no trial before the attention checks; set it to "
            f"{N_BEFORE_ATTENTION} or more, or n_attention to 0."
        )


# What one reader sees


def _in_order(
    one: _Round, protocol: Protocol, participant_number: int
) -> list[tuple[Kind, _Case, bool]]:
    """The trials of a block, practice first; True turns a pair round: the generated one is left."""
    seed, gap = protocol.seed, protocol.conduct.repeat_gap
    purpose = f"participant {participant_number}"
    if one.number > 1:
        purpose += f", block {one.number}"

    order = shuffled(one.main, seed, purpose)
    for case in shuffled(one.repeated, seed, f"{purpose}, repeats"):
        earliest = min(order.index(case) + gap + 1, len(order))
        later = below(len(order) + 1 - earliest, seed, f"{purpose}, place of repeat", case)
        order.insert(earliest + later, case)
    longest = protocol.conduct.longest_run or len(order)
    turns = limited(halves(len(order), seed, f"{purpose}, sides"), bool, longest)
    if one.block.design != "pair":
        order = limited(order, _truth, longest)
    for truth in (False, True):
        places = [place for place, case in enumerate(order) if _truth(case) == truth]
        for place, case in zip(places, apart([order[i] for i in places], places, gap), strict=True):
            order[place] = case

    trials: list[tuple[Kind, _Case, bool]] = []
    shown = set()
    for case, turn in zip(order, turns, strict=True):
        trials.append(("repeat" if case in shown else "main", case, turn))
        shown.add(case)
    attention = shuffled(one.attention, seed, f"{purpose}, attention")
    turns = halves(len(attention), seed, f"{purpose}, sides of attention")
    places = spread_places(
        *(len(attention), len(order), N_BEFORE_ATTENTION),
        *(seed, f"{purpose}, places of attention"),
    )
    for place, case, turn in zip(places, attention, turns, strict=True):
        trials.insert(place, ("attention", case, turn))
    practice = shuffled(one.practice, seed, f"{purpose}, practice")
    turns = halves(len(practice), seed, f"{purpose}, sides in practice")
    before: list[tuple[Kind, _Case, bool]] = [
        ("practice", case, turn) for case, turn in zip(practice, turns, strict=True)
    ]
    return before + trials


def _truth(case: _Case) -> bool:
    return case.is_synthetic


def _spread(cases: Sequence[_Case], n_needed: int, seed: int, purpose: str) -> list[_Case]:
    """So many of the cases, as evenly over classes and truth as they allow."""
    classes = shuffled(sorted({case.class_name for case in cases}), seed, purpose)
    return in_turns(
        shuffled(cases, seed, purpose),
        group=lambda case: (case.class_name, case.is_synthetic),
        rank=lambda case: (classes.index(case.class_name), case.is_synthetic),
    )[:n_needed]
