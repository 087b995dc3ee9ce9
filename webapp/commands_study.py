"""A study from draft to report, and what its log says."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import select

from studies.protocol import load_protocol
from studies.stimuli import read_stimuli, write_manifest
from webapp import enrolment, queries
from webapp.commands import (
    DatabaseOption,
    StudyArgument,
    cli,
    opened,
    out,
    progress_bar,
    registry_of,
    said_in_one_line,
    say,
    settings,
    the_study,
)
from webapp.database import Database
from webapp.monitor import ReaderStatus
from webapp.pictures import decode, encode_png
from webapp.registry import NEXT_STEP, Picture, Pool, StudySummary

TrainingOption = Annotated[
    Path | None,
    typer.Option(help="What the generator was trained on, to find near-copies.", metavar="DIR|CSV"),
]
CropOption = Annotated[
    int | None,
    typer.Option(min=8, help="Middle square that the generator saw of each, in pixels."),
]
OverrideOption = Annotated[
    str, typer.Option(help="Why to go on although the audit failed; the log keeps it.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; the log keeps it.")]


@cli.command()
@said_in_one_line
def create(
    protocol: Annotated[Path, typer.Option(help="Protocol file (TOML).")],
    stimuli: Annotated[Path, typer.Option(help="Stimulus set.", metavar="DIR")],
    practice: Annotated[
        Path | None, typer.Option(help="By default STIMULI/practice.", metavar="DIR")
    ] = None,
    attention: Annotated[
        Path | None, typer.Option(help="By default STIMULI/attention.", metavar="DIR")
    ] = None,
    training: TrainingOption = None,
    crop_px: CropOption = None,
    audit_out: Annotated[
        Path | None, typer.Option(help="For the report; by default STIMULI-audit.", metavar="DIR")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Store a protocol with its stimuli as a draft, and audit the blinding."""
    plan = load_protocol(protocol)
    folders: dict[Pool, Path] = {
        "main": stimuli,
        "practice": practice or stimuli / "practice",
        "attention": attention or stimuli / "attention",
    }
    pools: dict[Pool, list[Picture]] = {
        pool: _encoded(folder)
        for pool, folder in folders.items()
        if folder in (stimuli, practice, attention) or folder.exists()
    }
    made = Database.create(database or settings().database_url)
    try:
        registry_of(made).create(plan, pools)
        say(
            f"Study {plan.study_id} is a draft: {plan.n_participants} participants, "
            f"{plan.n_shown} trials each, protocol {plan.protocol_hash[:12]}…"
        )
        folder = audit_out or stimuli.with_name(f"{stimuli.name}-audit")
        _audit(made, plan.study_id, folder, training, crop_px)
    finally:
        made.close()


@cli.command()
@said_in_one_line
def audit(
    study: StudyArgument = None,
    training: TrainingOption = None,
    crop_px: CropOption = None,
    audit_out: Annotated[
        Path | None, typer.Option(help="For the report; by default STUDY-audit.", metavar="DIR")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Look for all that tells generated from real pictures but the cells, and keep the report."""
    with opened(database) as (found, registry):
        study_id = the_study(registry, study)
        _audit(found, study_id, audit_out or Path(f"{study_id}-audit"), training, crop_px)


@cli.command()
@said_in_one_line
def freeze(
    study: StudyArgument = None, override: OverrideOption = "", database: DatabaseOption = None
) -> None:
    """Hash protocol, stimuli, allocation and analysis plan together; none changes any more."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.freeze(study_id, override=override)
        say(f"Study {study_id} is frozen: {registry.summary(study_id).frozen_hash}")


@cli.command("open")
@said_in_one_line
def open_study(study: StudyArgument = None, database: DatabaseOption = None) -> None:
    """Let readers in, for the first time or again."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.open(study_id)
        say(f"Study {study_id} is open")


@cli.command()
@said_in_one_line
def close(study: StudyArgument = None, database: DatabaseOption = None) -> None:
    """Take no more answers."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.close(study_id)
        say(f"Study {study_id} is closed")


@cli.command()
@said_in_one_line
def unblind(
    reason: ReasonOption, study: StudyArgument = None, database: DatabaseOption = None
) -> None:
    """Give the truth to the analysts; there is no way back."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.unblind(study_id, reason)
        say(f"Study {study_id} is unblinded; `python -m webapp export` gives the truth now")


@cli.command()
@said_in_one_line
def reported(
    report: Annotated[Path, typer.Argument(help="The report's file, whose hash is noted.")],
    study: StudyArgument = None,
    database: DatabaseOption = None,
) -> None:
    """Note in the log which report was made of an unblinded study."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.mark_reported(study_id, hashlib.sha256(report.read_bytes()).hexdigest())
        say(f"Study {study_id} is reported")


@cli.command()
@said_in_one_line
def amend(
    protocol: Annotated[Path, typer.Option(help="The new version (TOML).")],
    reason: ReasonOption,
    study: StudyArgument = None,
    database: DatabaseOption = None,
) -> None:
    """Put another version of the protocol in force, on the record."""
    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        registry.amend(study_id, load_protocol(protocol), reason)
        summary = registry.summary(study_id)
        say(
            f"Study {study_id} runs under protocol {summary.protocol.protocol_hash[:12]}… and is "
            f"{summary.state}"
        )


@cli.command()
@said_in_one_line
def verify(study: StudyArgument = None, database: DatabaseOption = None) -> None:
    """Check the log's chain of hashes, and that what was frozen is unchanged."""
    with opened(database) as (_, registry):
        chosen = [the_study(registry, study)] if study else [s.study_id for s in registry.studies()]
        is_whole = True
        for study_id in chosen:
            problems = registry.verify(study_id)
            is_whole &= not problems
            last = registry.events(study_id)[-1]
            for problem in problems:
                say(f"{study_id}: {problem}")
            if not problems:
                say(f"{study_id}: whole; {last.number} events, the last {last.event_hash}")
        if not is_whole:
            raise typer.Exit(1)


@cli.command()
@said_in_one_line
def status(study: StudyArgument = None, database: DatabaseOption = None) -> None:
    """The studies; of one, its readers too. Nothing here says how well anybody judges."""
    with opened(database) as (_, registry):
        studies = registry.studies()
        out.print(_table_of_studies([one for one in studies if study in (None, one.study_id)]))
        if study or len(studies) == 1:
            study_id = the_study(registry, study)
            out.print(_table_of_readers(registry.monitor(study_id)))
            out.print(_next_step(registry.summary(study_id)), markup=False, highlight=False)


def _encoded(folder: Path) -> list[Picture]:
    """The stimuli of a folder, each encoded once more: identical files, whatever made them."""
    return [
        (one, encode_png(decode((folder / one.file).read_bytes(), name=str(folder / one.file))))
        for one in read_stimuli(folder)
    ]


def _audit(
    database: Database, study_id: str, folder: Path, training: Path | None, crop_px: int | None
) -> None:
    """Audit the pictures as they are stored, which is how they will be shown."""
    from webapp.audit import audit_stimuli  # scipy and matplotlib: the other commands need neither
    from webapp.audit_report import write_report

    registry = registry_of(database)
    margin = registry.summary(study_id).protocol.conduct.audit_margin
    with TemporaryDirectory() as stored, progress_bar() as progress:
        _write_stimuli(database, study_id, Path(stored))
        task = progress.add_task("audit", total=None)
        report = audit_stimuli(
            Path(stored),
            margin=margin,
            training=training,
            crop_px=crop_px,
            on_progress=lambda what, done, of: progress.update(
                task, description=f"audit: {what}", completed=done, total=of
            ),
        )
        page = write_report(report, Path(stored), folder)
    registry.record_audit(study_id, report.model_dump_json(), report.passed)
    for problem in report.problems:
        say(f"  ✗ {problem.sentence} {problem.remedy}")
    for warning in report.warnings:
        say(f"  ! {warning}")
    say(f"The blinding audit {'passed' if report.passed else 'FAILED'}; its report is {page}")


def _write_stimuli(database: Database, study_id: str, folder: Path) -> None:
    columns = queries.stimulus.c
    with database.read() as session:
        stimuli = enrolment.pools(session, study_id).main
        rows = session.execute(
            select(columns.stimulus_id, columns.png).where(columns.study_id == study_id)
        )
        pngs = {row.stimulus_id: row.png for row in rows}
    for one in stimuli:
        (folder / one.file).write_bytes(pngs[one.stimulus_id])
    write_manifest(folder, stimuli)


def _table_of_studies(studies: list[StudySummary]) -> Table:
    table = Table("study", "state", "audit", "readers", "finished", "answers", "created", box=None)
    for one in studies:
        passed = {None: "–", True: "passed", False: "failed"}[one.audit_passed]
        table.add_row(
            *(one.study_id, one.state, passed, f"{one.n_invited}/{one.protocol.n_participants}"),
            *(str(one.n_finished), str(one.n_answers), one.created_at[:16].replace("T", " ")),
        )
    return table


def _table_of_readers(readers: list[ReaderStatus]) -> Table:
    table = Table("reader", "label", "state", "link", "answers", "median s", "checks", box=None)
    for one in readers:
        right, of = one.attention
        table.add_row(
            one.participant_id,
            one.label + " (scripted)" * one.is_bot,
            one.state,
            one.link,
            f"{one.n_answered}/{one.n_trials}",
            "" if one.median_response_time_s is None else f"{one.median_response_time_s:.1f}",
            f"{right}/{of}" if of else "",
        )
    return table


def _next_step(summary: StudySummary) -> str:
    if summary.state in NEXT_STEP:
        return f"Next: python -m webapp {NEXT_STEP[summary.state]} {summary.study_id}"
    return f"Next: python -m webapp export {summary.study_id} --out {summary.study_id}.zip"
