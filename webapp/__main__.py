"""`python -m webapp stimuli|create|serve|bots|export`; alone it serves."""

import functools
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Annotated, ParamSpec

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from studies.allocation import AllocationError, allocate
from studies.protocol import ProtocolError, load_protocol
from studies.responses import ResponseError
from studies.stimuli import StimulusError, read_stimuli
from webapp.bots import Counts, Observer, read_links, take_study, truth_by_pixels
from webapp.errors import WebappError
from webapp.export import export_responses
from webapp.pictures import decode, encode_png
from webapp.service_client import ServiceClient
from webapp.settings import WebappSettings
from webapp.stimuli import build_stimulus_set, real_images
from webapp.store import Store

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


@cli.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Serve the studies of the database, unless a command says otherwise."""
    if context.invoked_subcommand is None:
        serve()


@cli.command()
@said_in_one_line
def stimuli(
    real: Annotated[Path, typer.Option(help="Folder of real pictures by class, or a packed .csv.")],
    service: Annotated[str, typer.Option(help="Address of the service.", metavar="URL")],
    per_class: Annotated[int, typer.Option(min=1, help="Real, and generated, pictures a class.")],
    out_folder: Annotated[Path, typer.Option("--out", help="New folder for the stimulus set.")],
    seed: Annotated[int, typer.Option(min=0, help="Which pictures; the same gives the same.")] = 1,
    size: Annotated[int | None, typer.Option(min=8, help="Pixels; the model's by default.")] = None,
    classes: Annotated[str | None, typer.Option(help="Some of the classes, by comma.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Wait so long for one reply.")] = 600,
) -> None:
    """Draw generated pictures through the service, take as many real ones, encode all alike."""
    with httpx.Client(base_url=service, timeout=timeout_s) as http, _progress_bar() as progress:
        task = progress.add_task("stimuli", total=None)
        made = build_stimulus_set(
            real_images(real),
            ServiceClient(http),
            per_class=per_class,
            seed=seed,
            out=out_folder,
            size=size,
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            on_progress=lambda what, done, of: progress.update(
                task, description=f"stimuli: {what}", completed=done, total=of
            ),
        )
    out.print(f"{len(made)} stimuli, half real, half generated, in {out_folder}")


@cli.command()
@said_in_one_line
def create(
    protocol: Annotated[Path, typer.Option(help="Protocol file (TOML).")],
    stimuli_folder: Annotated[Path, typer.Option("--stimuli", help="Stimulus set.")],
    links: Annotated[Path, typer.Option(help="New file for the personal links.")],
    database: DatabaseOption = None,
    base_url: Annotated[str | None, typer.Option(help="Address that readers will use.")] = None,
    valid_days: Annotated[int, typer.Option(min=1, help="How long the links open.")] = 180,
) -> None:
    """Enrol the participants, store the whole schedule, write one personal link for each."""
    environment = settings()
    plan = load_protocol(protocol)
    chosen = read_stimuli(stimuli_folder)
    schedules = [allocate(plan, chosen, number) for number in range(1, plan.n_participants + 1)]
    pictures = [
        (stimulus, encode_png(decode((stimuli_folder / stimulus.file).read_bytes(), name=file)))
        for stimulus in chosen
        for file in [str(stimuli_folder / stimulus.file)]
    ]
    address = (base_url or f"http://{environment.host}:{environment.port}").rstrip("/")
    with closing(Store.create(database or environment.database_url)) as store:
        store.refuse_second(plan)
        # The file first: the database keeps digests only, so links that cannot be written are lost.
        try:
            file = os.fdopen(os.open(links, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        except OSError as error:
            raise WebappError(
                f"{links} cannot be made ({error.strerror}); give a new file in a folder that "
                "exists."
            ) from None
        try:
            with file:
                tokens = store.add_study(plan, pictures, schedules, valid_days=valid_days)
                file.writelines(f"{code} {address}/s/{token}\n" for code, token in tokens.items())
        except BaseException:
            links.unlink()
            raise
    out.print(
        f"Study {plan.study_id} created: {plan.n_participants} participants, {plan.n_trials} "
        f"trials each, protocol {plan.protocol_hash[:12]}…\nPersonal links are in {links}; "
        "send each to one reader only.",
        soft_wrap=True,
    )


@cli.command("serve")
@said_in_one_line
def serve_command(
    database: DatabaseOption = None,
    host: Annotated[str | None, typer.Option(help="WEBAPP_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="WEBAPP_PORT, else 7860.")] = None,
) -> None:
    """Serve the studies of the database until Ctrl-C."""
    _serve(database, host, port)


@said_in_one_line
def serve() -> None:
    """Serve with the settings of the environment."""
    _serve(None, None, None)


def _serve(database: str | None, host: str | None, port: int | None) -> None:
    environment = settings()
    host, port = host or environment.host, port or environment.port
    store = Store.open(database or environment.database_url)
    listener = _listener(host, port)
    with tempfile.TemporaryDirectory(prefix="cytoverity-webapp-") as scratch:
        # Gradio would keep a cache of pictures; it gets an empty place, and none to keep.
        os.environ["GRADIO_TEMP_DIR"] = scratch
        import uvicorn  # here, and the app too: the other commands need neither

        from webapp.app import create_app

        server = uvicorn.Server(
            # No access log: it would hold the tokens of the links.
            uvicorn.Config(
                create_app(store),
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=3,
            )
        )
        out.print(f"Reader studies at http://{host}:{port} (Ctrl-C stops)", highlight=False)
        sys.stdout.flush()
        # After its orderly end uvicorn raises the signal again, for whoever handled it before.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            store.close()
    out.print("Stopped; all answers are stored.")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise WebappError(
            f"port {port} on {host} cannot be used ({error.strerror}); stop what uses it, or "
            "choose another with --port or WEBAPP_PORT."
        ) from None
    return listener


@cli.command()
@said_in_one_line
def bots(
    links: Annotated[Path, typer.Option(help="File of personal links.")],
    stimuli_folder: Annotated[Path, typer.Option("--stimuli", help="Stimulus set.")],
    d_prime: Annotated[float, typer.Option(help="Sensitivity.")] = 1.0,
    criterion: Annotated[float, typer.Option(help="Above 0: says real more often.")] = 0.0,
    lapse_rate: Annotated[float, typer.Option(min=0, max=1, help="Blind answers.")] = 0.02,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    record: Annotated[Path | None, typer.Option(help="Write the counts given, as JSON.")] = None,
) -> None:
    """Scripted readers take the study over HTTP, all at the same time."""
    observer = Observer(d_prime=d_prime, criterion=criterion, lapse_rate=lapse_rate)
    truth, invited = truth_by_pixels(stimuli_folder), read_links(links)
    with _progress_bar() as progress:
        tasks = [progress.add_task(code, total=None) for code, _ in invited]

        def play(number: int) -> Counts:
            code, link = invited[number]
            task = tasks[number]
            address = httpx.URL(link).copy_with(raw_path=b"/")
            try:
                with httpx.Client(base_url=address, timeout=60) as http:
                    counts = take_study(
                        link,
                        code,
                        observer,
                        truth,
                        seed=seed,
                        participant_number=number + 1,
                        http=http,
                        on_answer=lambda trial, of: progress.update(
                            task, completed=trial, total=of
                        ),
                    )
            except httpx.TransportError as error:
                raise WebappError(
                    f"the study server at {address} cannot be reached ({error}); start it with "
                    "`python -m webapp serve`."
                ) from None
            return counts

        with ThreadPoolExecutor(max_workers=8) as pool:
            counted = list(pool.map(play, range(len(invited))))
    if record:
        facts = {
            "d_prime": d_prime,
            "criterion": criterion,
            "lapse_rate": lapse_rate,
            "seed": seed,
            "signal": "generated",
            "participants": [counts.to_json() for counts in counted],
        }
        record.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    n_answers = sum(counts.n for counts in counted)
    out.print(f"{len(counted)} scripted readers gave {n_answers} answers")


@cli.command()
@said_in_one_line
def export(
    out_file: Annotated[Path, typer.Option("--out", help="Table, .csv or .parquet.")],
    database: DatabaseOption = None,
    study: Annotated[str | None, typer.Option(help="Where there are several.")] = None,
) -> None:
    """Write the answers as one tidy table, with its codebook."""
    with closing(Store.open(database or settings().database_url)) as store:
        study_id, n_answers = export_responses(store, out_file, study)
    out.print(f"{n_answers} answers of study {study_id} in {out_file}", soft_wrap=True)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


if __name__ == "__main__":
    cli(prog_name="python -m webapp")
