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
