"""Progress bars that stay silent where nobody watches a terminal."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

console = Console(highlight=False)


def progress_bar(*extra_columns: str) -> Progress:
    """A bar with counts, time spent and time left; `extra_columns` name task fields to show."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        *[TextColumn(f"{{task.fields[{name}]}}") for name in extra_columns],
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        disable=not console.is_terminal,
    )


def tracked(items: Sequence[T], description: str) -> Iterable[T]:
    """The same items, with a bar on a terminal."""
    with progress_bar() as bar:
        yield from bar.track(items, description=description)


class Tenths:
    """Lines such as `Classifying: 171 of 1,708` at each tenth, where no bar is drawn."""

    def __init__(self, description: str, total: int) -> None:
        self._description, self._total, self._said = description, total, 0

    def at(self, done: int) -> None:
        """Say it if another tenth is complete."""
        tenth = 10 * done // self._total
        if tenth > self._said and not console.is_terminal:
            console.print(f"{self._description}: {done:,} of {self._total:,}")
        self._said = max(tenth, self._said)
