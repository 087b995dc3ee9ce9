"""`python -m studies plan|analyse`: freeze a protocol before the data, report on it afterwards."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from studies.analysis import AnalysisError, analyse
from studies.crossed import CrossedError
from studies.proportions import wilson
from studies.protocol import Protocol, ProtocolError, load_protocol
from studies.report import render
from studies.responses import ResponseError, read_responses

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
) -> None:
    """Write a protocol with comments, and say how exact its answer would be at best."""
    with _errors_in_one_line():
        try:
            protocol = Protocol(
                study_id=study_id,
                title=title,
                n_participants=n_participants,
                n_trials=n_trials,
                seed=seed,
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = str(problem["loc"][0]).replace("_", "-")
            rule = problem["msg"].removeprefix("Input ")
            raise ProtocolError(f"--{name} is {problem['input']!r}, but {rule}.") from None
        protocol.write(out)
    n_judgements = n_participants * n_trials
    level = protocol.analysis.confidence_level
    at_chance = wilson(n_judgements // 2, n_judgements, confidence_level=level)
    width = 100 * (at_chance.ci_high - at_chance.ci_low)
    _say(f"Wrote {out}, protocol {protocol.protocol_hash}.")
    _say(
        f"{n_participants} readers × {n_trials} trials = {n_judgements} judgements: at 50 % the "
        f"{100 * level:g} % interval would be {width:.1f} points wide if all judgements were "
        "independent (naive). They are not, so expect the report's interval to be wider."
    )


@app.command(name="analyse")
def analyse_command(
    protocol: Annotated[Path, typer.Option(help="The protocol that the study ran with.")],
    responses: Annotated[Path, typer.Option(help="The exported responses (.csv or .parquet).")],
    out: Annotated[Path, typer.Option(help="Where to write the report (.html).")],
    json: Annotated[
        Path | None, typer.Option(help="Where to write the numbers in full precision too.")
    ] = None,
) -> None:
    """Turn a protocol and its responses into the report that was planned."""
    with _errors_in_one_line():
        planned = load_protocol(protocol)
        _say(f"Reading {responses} …")
        table = read_responses(responses)
        digest = hashlib.sha256(responses.read_bytes()).hexdigest()
        _say(
            f"Analysing {len(table)} judgements of {table['participant_id'].nunique()} readers "
            f"under protocol {planned.protocol_hash[:12]} …"
        )
        results = analyse(planned, table, data_digest=digest)
        _write(out, render(results))
        if json is not None:
            _write(json, results.to_json())


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except (AnalysisError, CrossedError, ProtocolError, ResponseError) as error:
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
