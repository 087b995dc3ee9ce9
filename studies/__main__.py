"""`python -m studies plan|analyse`: freeze a protocol before the data, report on it afterwards."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from studies.analysis import AnalysisError, analyse
from studies.blocks import analyse_blocks
from studies.blocks_report import render_blocks, summary_of
from studies.components import ASSUMED, Components, ComponentsError, components_from_pilot
from studies.crossed import CrossedError
from studies.planning import MOST_ANSWERS, PlanningError, size_study
from studies.planning_views import contours, table, to_csv
from studies.protocol import (
    AnalysisPlan,
    ExclusionRules,
    Protocol,
    ProtocolError,
    load_protocol,
)
from studies.report import answer, render
from studies.responses import ResponseError, read_responses, without_attention
from studies.sequential import SequentialError
from studies.tables import csv_tables, latex, markdown

REFUSALS = (
    AnalysisError,
    ComponentsError,
    CrossedError,
    PlanningError,
    ProtocolError,
    ResponseError,
    SequentialError,
)
app = typer.Typer(
    help="Plan a blinded reader study, and analyse it as planned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
said = Console(highlight=False, soft_wrap=True)
complained = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def plan(
    out: Annotated[Path, typer.Option(help="Where to write the protocol (.toml).")],
    study_id: Annotated[
        str, typer.Option(help="Lower-case letters, digits and hyphens.")
    ] = "first-light",
    title: Annotated[str, typer.Option(help="Heading of the study and report.")] = (
        "Real or generated?"
    ),
    n_participants: Annotated[int, typer.Option(help="Readers.")] = 6,
    n_trials: Annotated[int, typer.Option(help="Stimuli for each reader, the same for all.")] = 40,
    seed: Annotated[int, typer.Option(help="Decides stimuli and orders.")] = 1,
    margin: Annotated[
        float, typer.Option(help="Around 0.5: what counts as equivalent to guessing.")
    ] = 0.05,
    truth: Annotated[float, typer.Option(help="Accuracy that the plan assumes.")] = 0.5,
    reader_sd: Annotated[
        float, typer.Option(help="How readers differ, on the probit scale.")
    ] = ASSUMED.reader_sd,
    case_sd: Annotated[
        float, typer.Option(help="How pictures differ, on the probit scale.")
    ] = ASSUMED.case_sd,
    pilot: Annotated[
        Path | None, typer.Option(help="Responses of a pilot, to learn both from.")
    ] = None,
) -> None:
    """Write a protocol, and simulate what studies of several sizes would show.

    Beside the protocol lie the simulated power as a table (.power.csv) and as contours
    (.power.svg).
    """
    with _errors_in_one_line():
        try:
            protocol = Protocol(
                study_id=study_id,
                title=title,
                n_participants=n_participants,
                n_trials=n_trials,
                seed=seed,
                analysis=AnalysisPlan(
                    equivalence_margin=margin,
                    secondary=("sensitivity", "specificity", "d_prime", "criterion", "drift"),
                    index="consensus",
                    exclusions=ExclusionRules(),
                ),
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = str(problem["loc"][0]).replace("_", "-").replace("equivalence-", "")
            rule = problem["msg"].removeprefix("Input ")
            raise ProtocolError(f"--{name} is {problem['input']!r}, but {rule}.") from None
        spread = ASSUMED
        if pilot is not None:
            spread = _spread_of(pilot)
        elif (reader_sd, case_sd) != (ASSUMED.reader_sd, ASSUMED.case_sd):
            spread = Components(reader_sd=reader_sd, case_sd=case_sd, source="as given")
        protocol.write(out)
        try:
            with Progress(console=said, transient=True) as progress:
                task = progress.add_task("Simulating studies", total=1.0)
                size = size_study(
                    truth=truth,
                    margin=margin,
                    components=spread,
                    n_readers=_with(READERS, n_participants, least=2),
                    n_cases=_with(CASES, n_trials, least=10),
                    n_simulations=_affordable(n_participants, n_trials),
                    on_progress=lambda share: progress.update(task, completed=share),
                )
        except PlanningError:
            out.unlink()  # a plan that is refused must not stand in the way of the next one
            raise
        _say(f"Wrote {out}, protocol {protocol.protocol_hash}.")
        said.print(table(size))
        _say(size.assumptions)
        _say(size.answer)
        _write(out.with_suffix(".power.csv"), to_csv(size))
        _write(out.with_suffix(".power.svg"), contours(size))
    asked = [d for d in size.designs if (d.n_readers, d.n_cases) == (n_participants, n_trials)]
    for design in asked:
        width = "unknown" if design.width is None else f"{100 * design.width:.1f} points"
        _say(
            f"This protocol, {n_participants} readers × {n_trials} trials: power "
            f"{100 * design.asked.power:.0f} %, interval {width} wide on average."
        )


@app.command(name="analyse")
def analyse_command(
    protocol: Annotated[Path, typer.Option(help="The protocol that the study ran with.")],
    responses: Annotated[Path, typer.Option(help="The exported responses (.csv or .parquet).")],
    out: Annotated[Path, typer.Option(help="A folder for the report and its tables.")],
    closed: Annotated[
        bool,
        typer.Option(help="The study is over, with fewer readers than its last declared look."),
    ] = False,
) -> None:
    """Turn a protocol and its responses into the report that was planned.

    Writes report.html, results.json, CSV tables in full precision, and tables for a paper
    (tables.md, tables.tex).
    """
    with _errors_in_one_line():
        if out.suffix in (".html", ".json"):
            raise AnalysisError(
                f"--out is a folder, in which report.html and the tables will lie; {out} looks "
                f"like a file, so give {out.parent} or another folder."
            )
        planned = load_protocol(protocol)
        _say(f"Reading {responses} …")
        judgements = read_responses(responses)
        digest = hashlib.sha256(responses.read_bytes()).hexdigest()
        _say(
            f"Analysing {len(judgements)} judgements of "
            f"{judgements['participant_id'].nunique()} readers under protocol "
            f"{planned.protocol_hash[:12]} …"
        )
        results = analyse(planned, judgements, data_digest=digest, is_closed=closed)
        _say("Drawing the report …")
        _write(out / "report.html", render(results))
        _write(out / "results.json", results.to_json())
        for name, text in csv_tables(results).items():
            _write(out / name, text)
        _write(out / "tables.md", markdown(results))
        _write(out / "tables.tex", latex(results))
    _say(answer(results))


@app.command()
def blocks(
    protocol: Annotated[Path, typer.Option(help="The protocol that the study ran with.")],
    folder: Annotated[Path, typer.Option(help="The folder that `webapp export` wrote.")],
    out: Annotated[Path, typer.Option(help="A folder for the report.")],
) -> None:
    """Pairs, classes, ratings and a second round: blocks.html and blocks.json."""
    with _errors_in_one_line():
        planned = load_protocol(protocol)
        found = analyse_blocks(planned, folder)
        _write(out / "blocks.html", render_blocks(planned, found))
        _write(
            out / "blocks.json",
            json.dumps([one.to_json() for one in found], indent=1, ensure_ascii=False) + "\n",
        )
    for one in found:
        _say(summary_of(one))


READERS, CASES = (3, 5, 8, 12, 20, 30), (50, 100, 200, 300, 500)


def _affordable(n_readers: int, n_cases: int) -> int:
    """As many simulated studies as half a minute allows for the largest design."""
    largest = max(n_readers, READERS[-1]) * max(n_cases, CASES[-1])
    return max(1_000, min(10_000, MOST_ANSWERS // largest))


def _with(usual: tuple[int, ...], asked: int, *, least: int) -> tuple[int, ...]:
    return tuple(sorted({*usual, asked})) if asked >= least else usual


def _spread_of(pilot: Path) -> Components:
    judged = without_attention(read_responses(pilot))
    if "repeat_number" in judged:
        judged = judged[judged["repeat_number"] == 1]
    right = (judged["response"] == "generated") == judged["is_synthetic"]
    return components_from_pilot(
        judged.assign(right=right.astype(float))
        .pivot(index="participant_id", columns="stimulus_id", values="right")
        .to_numpy()
    )


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except REFUSALS as error:
        complained.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AnalysisError(
            f"{path} cannot be written ({error.strerror}); choose a place you may write to."
        ) from None
    _say(f"Wrote {path}.")


def _say(line: str) -> None:
    said.print(escape(line))


if __name__ == "__main__":
    app(prog_name="python -m studies")
