"""Which participant sees which stimulus when: the same stimuli for all, in an order of their own.

Every reader judges every case (a crossed design), because only then can the differences between
readers be told from the differences between cases.

Order comes from SHA-256 of (seed, purpose, stimulus), not from a random generator: it depends
neither on the order of the manifest nor on the version of a library.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from studies.protocol import Protocol
from studies.stimuli import Stimulus


class AllocationError(ValueError):
    """A protocol that the stimulus set cannot serve, with what to change."""


def allocate(
    protocol: Protocol, stimuli: Sequence[Stimulus], participant_number: int
) -> tuple[str, ...]:
    """The stimulus ids of one participant, in the order in which they are shown.

    Args:
        participant_number: counts from 1. Numbers beyond `n_participants` are valid: a
            participant who drops out is replaced under a new number.

    Raises:
        AllocationError: if the set is too small, or cannot be halved into real and generated.
    """
    if participant_number < 1:
        raise AllocationError(
            f"participant_number={participant_number}; participants are counted from 1."
        )
    shown = _shown_to_all(protocol, stimuli)
    return tuple(_shuffled(shown, protocol.seed, f"participant {participant_number}"))


def _shown_to_all(protocol: Protocol, stimuli: Sequence[Stimulus]) -> list[str]:
    n_trials = protocol.n_trials
    cells: defaultdict[tuple[bool, str], list[str]] = defaultdict(list)
    for stimulus in stimuli:
        cells[stimulus.is_synthetic, stimulus.class_name].append(stimulus.stimulus_id)
    for is_synthetic, word in ((False, "real"), (True, "generated")):
        if not any(truth == is_synthetic for truth, _ in cells):
            raise AllocationError(
                f"the stimulus set holds no {word} picture; "
                "a study of authenticity needs both kinds."
            )
    if n_trials > len(stimuli):
        raise AllocationError(
            f"n_trials={n_trials} but the set holds {len(stimuli)} stimuli; "
            f"set n_trials to {len(stimuli)} or less, or add stimuli."
        )
    if n_trials == len(stimuli):
        return [stimulus.stimulus_id for stimulus in stimuli]
    return _balanced_part(n_trials, cells, protocol.seed)


def _balanced_part(n_trials: int, cells: dict[tuple[bool, str], list[str]], seed: int) -> list[str]:
    if n_trials % 2:
        raise AllocationError(
            f"n_trials={n_trials} cannot be half real and half generated; "
            f"use {n_trials - 1} or {n_trials + 1}."
        )
    classes = sorted({class_name for _, class_name in cells})
    each, n_with_one_more = divmod(n_trials // 2, len(classes))
    # The same classes get one more among the real as among the generated: otherwise the class
    # of a cell would say something about the truth.
    with_one_more = _shuffled(classes, seed, "classes with one more")[:n_with_one_more]
    shown: list[str] = []
    for class_name in classes:
        n_needed = each + (class_name in with_one_more)
        for is_synthetic, word in ((False, "real"), (True, "generated")):
            found = cells.get((is_synthetic, class_name), [])
            if len(found) < n_needed:
                raise AllocationError(
                    f"n_trials={n_trials} needs {n_needed} {word} stimuli of class "
                    f"{class_name!r} but the set holds {len(found)}; add "
                    f"{n_needed - len(found)}, or lower n_trials."
                )
            shown += _shuffled(found, seed, f"stimuli shown, {word}")[:n_needed]
    return shown


def _shuffled(items: Sequence[str], seed: int, purpose: str) -> list[str]:
    return sorted(
        items, key=lambda item: hashlib.sha256(f"{seed}\0{purpose}\0{item}".encode()).digest()
    )
