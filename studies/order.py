"""Order by chance within rules: shuffled, in turns, runs limited, second showings kept apart.

Chance comes from SHA-256 of (seed, purpose, item), not from a random generator: it depends
neither on the order of the manifest nor on the version of a library.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

Item = TypeVar("Item")
Showing = TypeVar("Showing", bound=Hashable)


def shuffled(
    items: Sequence[Item], seed: int, purpose: str, name: Callable[[Item], object] = str
) -> list[Item]:
    """The items in an order that depends on their names alone, which must differ."""
    return sorted(items, key=lambda item: _digest(seed, purpose, name(item)))


def below(n: int, seed: int, purpose: str, item: object) -> int:
    """A number from 0 to n - 1."""
    return int.from_bytes(_digest(seed, purpose, item)) % n


def _digest(seed: int, purpose: str, item: object) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{item}".encode()).digest()


def in_turns(
    items: Sequence[Item], group: Callable[[Item], Hashable], rank: Callable[[Item], Any]
) -> list[Item]:
    """One item of each group, those of the lowest rank first, then a second one of each …"""
    n_before: Counter[Hashable] = Counter()
    keys = []
    for place, item in enumerate(items):
        keys.append((n_before[group(item)], rank(item), place))
        n_before[group(item)] += 1
    return [items[place] for *_, place in sorted(keys)]


def halves(n: int, seed: int, purpose: str) -> list[bool]:
    """Half True, half False; of an odd number, chance decides which there is one more of."""
    return [number % 2 == 1 for number in shuffled(range(n + n % 2), seed, purpose)[:n]]


def spread_places(n: int, n_others: int, n_before: int, seed: int, purpose: str) -> list[int]:
    """Increasing places, from 0, of `n` items: one in each of equal stretches after `n_before`.

    There should be `n_before` others at least.
    """
    n_free = n + n_others - n_before
    ends = [n_before + i * n_free // max(1, n) for i in range(n + 1)]
    return [start + below(end - start, seed, purpose, start) for start, end in pairwise(ends)]


def limited(order: Sequence[Item], truth: Callable[[Item], bool], longest: int) -> list[Item]:
    """The order, changed only where a truth would come more than `longest` times in a row.

    The next item is the first one after which the others can still be ordered. Both truths are
    treated alike, so that of two equal halves each is as likely at every place. There should be
    `longest` of the one at most for each of the other, and `longest` more.
    """
    left, kept = list(order), list[Item]()
    n_left = Counter(map(truth, order))
    run = {False: 0, True: 0}

    def may_be_next(item: Item) -> bool:
        this = truth(item)
        n_same, n_other = n_left[this] - 1, n_left[not this]
        room = longest - run[this] - 1
        return (
            room >= 0 and n_same <= room + longest * n_other and n_other <= longest * (n_same + 1)
        )

    while left:
        item = next(filter(may_be_next, left))
        left.remove(item)
        kept.append(item)
        this = truth(item)
        n_left[this] -= 1
        run = {this: run[this] + 1, not this: 0}
    return kept


def apart(order: Sequence[Showing], places: Sequence[int], gap: int) -> list[Showing]:
    """The order, changed only where fewer than `gap` places would lie between two showings.

    Args:
        order: what is shown, each once or twice; more than `gap` different ones, if any twice.
        places: where, increasing.
    """
    left, kept = list(order), list[Showing]()
    n_left = Counter(order)
    waiting: dict[Showing, int] = {}

    def waiting_after(item: Showing) -> dict[Showing, int]:
        still = {one: place for one, place in waiting.items() if one != item}
        return still | ({item: places[len(kept)]} if n_left[item] == 2 else {})

    def may_be_next(item: Showing) -> bool:
        place, rest = places[len(kept)], places[len(kept) + 1 :]
        if item in waiting and place - waiting[item] <= gap:
            return False
        # Can the rest be kept apart? Best is to show at once what is to be shown twice, and all
        # second showings last, in the order of the first ones.
        n_twice = sum(n == 2 for n in n_left.values()) - (n_left[item] == 2)
        first = [*waiting_after(item).values(), *rest[:n_twice]]
        second = rest[len(rest) - len(first) :]
        return all(late - early > gap for early, late in zip(first, second, strict=True))

    while left:
        item = next(filter(may_be_next, left))
        waiting = waiting_after(item)
        left.remove(item)
        kept.append(item)
        n_left[item] -= 1
    return kept
