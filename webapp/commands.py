"""What all commands share: the program, its settings, its database, and how it says no."""

import functools
import getpass
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Annotated, ParamSpec

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from studies.allocation import AllocationError
from studies.protocol import ProtocolError
from studies.responses import ResponseError
from studies.stimuli import StimulusError
from webapp.database import Database
from webapp.errors import WebappError
from webapp.registry import Registry
from webapp.settings import WebappSettings

cli = typer.Typer(
    help="Blinded reader studies in the browser.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console()
err = Console(stderr=True)

P = ParamSpec("P")


def said_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors that say what to do into one line and exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (
            WebappError,
            ProtocolError,
            StimulusError,
            AllocationError,
            ResponseError,
        ) as error:
            err.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None

    return run


def say(text: str) -> None:
    """One or more lines of plain text on the standard output."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def settings() -> WebappSettings:
    """The environment's settings.

    Raises:
        WebappError: if one of them cannot be used.
    """
    try:
        return WebappSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        raise WebappError(
            f"the environment variable {problem['loc'][0]} is {problem['input']!r}: "
            f"{problem['msg']}; correct or unset it."
        ) from None


DatabaseOption = Annotated[
    str | None,
    typer.Option(help="Database URL; DATABASE_URL, else sqlite:///studies.sqlite3.", metavar="URL"),
]
StudyArgument = Annotated[
    str | None,
    typer.Argument(metavar="[STUDY]", help="May be left out where the database holds one."),
]


@contextmanager
def opened(database_url: str | None) -> Iterator[tuple[Database, Registry]]:
    """The database that an option or the environment names, and its studies."""
    with closing(Database.open(database_url or settings().database_url)) as database:
        yield database, registry_of(database)


def registry_of(database: Database) -> Registry:
    """The studies of a database, in the name of whoever is logged in to the machine."""
    try:
        actor = f"{getpass.getuser()}, command line"
    except (KeyError, OSError):  # a container whose user has no name
        actor = "command line"
    return Registry(database, actor=actor)


def the_study(registry: Registry, study_id: str | None) -> str:
    """The study that was named, or the only one.

    Raises:
        WebappError: if it is not there, or none was named and there is not just one.
    """
    known = [one.study_id for one in registry.studies()]
    if study_id is None and len(known) == 1:
        return known[0]
    if study_id in known:
        return study_id
    asked = "one of several" if study_id is None else repr(study_id)
    raise WebappError(
        f"the database holds {', '.join(known) or 'no study'}, and {asked} was asked for; "
        "name one of them."
    )


def progress_bar() -> Progress:
    """On the standard error, so that results can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )
