"""Who takes part: readers and their links; and researchers, who may log in."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from webapp.commands import (
    DatabaseOption,
    StudyArgument,
    cli,
    opened,
    said_in_one_line,
    say,
    settings,
    the_study,
)
from webapp.commands_study import OverrideOption, ReasonOption
from webapp.errors import WebappError
from webapp.people import labels_in
from webapp.registry import Invitation

LinksOption = Annotated[Path, typer.Option(help="New file for the personal links.")]
BaseUrlOption = Annotated[str | None, typer.Option(help="Address that readers will use.")]
ValidDaysOption = Annotated[int, typer.Option(min=1, help="How long the links open.")]
ParticipantArgument = Annotated[str, typer.Argument(metavar="PARTICIPANT")]


@cli.command()
@said_in_one_line
def invite(
    links: LinksOption,
    study: StudyArgument = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table (CSV) with a column `label`, a line a reader.")
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Or so many without a label.")] = None,
    scripted: Annotated[
        bool, typer.Option(help="Dry run: never counted for the balance, nor exported.")
    ] = False,
    language: Annotated[str | None, typer.Option(help="In which they begin.")] = None,
    valid_days: ValidDaysOption = 180,
    base_url: BaseUrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Add readers, and write one personal link for each."""
    if (labels is None) == (n is None):
        raise WebappError("give either --labels readers.csv, or --n and how many.")
    if labels is not None and not labels.is_file():
        raise WebappError(f"{labels} is not there; give a table with a column `label`.")
    names = labels_in(labels) if labels is not None else [""] * (n or 0)
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        _write_links(
            links,
            base_url,
            lambda: registry.invite(
                study_id, names, valid_days=valid_days, is_bot=scripted, language=language
            ),
        )


@cli.command()
@said_in_one_line
def launch(
    links: LinksOption,
    study: StudyArgument = None,
    override: OverrideOption = "",
    valid_days: ValidDaysOption = 180,
    base_url: BaseUrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Freeze and open an audited study, and invite as many readers as its protocol says."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)

        def launched() -> list[Invitation]:
            registry.freeze(study_id, override=override)
            registry.open(study_id)
            n_participants = registry.summary(study_id).protocol.n_participants
            return registry.invite(study_id, [""] * n_participants, valid_days=valid_days)

        _write_links(links, base_url, launched)
        say(f"Study {study_id} is open; serve it with `python -m webapp serve`")


@cli.command()
@said_in_one_line
def extend(
    n: Annotated[int, typer.Option("--by", min=1, help="How many readers more.")],
    reason: ReasonOption,
    links: LinksOption,
    study: StudyArgument = None,
    valid_days: ValidDaysOption = 180,
    base_url: BaseUrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """Raise the number of participants, on the record; open again if closed; invite them."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)

        def extended() -> list[Invitation]:
            summary = registry.summary(study_id)
            more = {"n_participants": summary.protocol.n_participants + n}
            registry.amend(study_id, summary.protocol.model_copy(update=more), reason)
            if summary.state == "closed":
                registry.open(study_id)
            return registry.invite(study_id, [""] * n, valid_days=valid_days)

        _write_links(links, base_url, extended)


@cli.command()
@said_in_one_line
def reissue(
    participant: ParticipantArgument,
    links: LinksOption,
    valid_days: ValidDaysOption = 180,
    base_url: BaseUrlOption = None,
    database: DatabaseOption = None,
) -> None:
    """A new link to the same place; the old ones open nothing any more, and nothing is lost."""
    with opened(database) as (_, registry):

        def reissued() -> list[Invitation]:
            token = registry.reissue(participant, valid_days)
            return [Invitation(participant_id=participant, label="", token=token)]

        _write_links(links, base_url, reissued)


@cli.command()
@said_in_one_line
def revoke(participant: ParticipantArgument, database: DatabaseOption = None) -> None:
    """Shut all links of a reader; what was answered stays."""
    with opened(database) as (_, registry):
        registry.revoke(participant)
        say(f"The links of {participant} open nothing any more")


@cli.command()
@said_in_one_line
def withdraw(
    participant: ParticipantArgument, reason: ReasonOption, database: DatabaseOption = None
) -> None:
    """A reader stops for good; their answers are kept or erased as the protocol says."""
    with opened(database) as (_, registry):
        registry.withdraw(participant, reason)
        say(f"{participant} has withdrawn")


@cli.command()
@said_in_one_line
def password(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the researcher.")],
    database: DatabaseOption = None,
) -> None:
    """Let a researcher log in to the admin app, or change the password."""
    with opened(database) as (_, registry):
        typed = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        registry.set_password(name, typed)
        say(f"{name} can log in to `python -m webapp admin`")


def _write_links(
    path: Path, base_url: str | None, make: Callable[[], Sequence[Invitation]]
) -> None:
    """A file that only its owner can read, with a participant and a link in each line."""
    # The file first: the database keeps digests only, so links that cannot be written are lost.
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    except OSError as error:
        raise WebappError(
            f"{path} cannot be made ({error.strerror}); give a new file in a folder that exists."
        ) from None
    address = base_url.rstrip("/") if base_url else settings().readers_url
    try:
        with file:
            made = make()
            file.writelines(f"{one.participant_id} {address}/s/{one.token}\n" for one in made)
    except BaseException:
        path.unlink()
        raise
    say(f"{len(made)} personal links are in {path}; send each to one reader only")
