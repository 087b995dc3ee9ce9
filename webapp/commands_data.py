"""What goes into a study and what comes out: stimuli, scripted readers, the export."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import typer

from webapp.bots import Played, known_by_pixels, read_links, take_study
from webapp.commands import (
    DatabaseOption,
    StudyArgument,
    cli,
    opened,
    progress_bar,
    said_in_one_line,
    say,
    the_study,
)
from webapp.errors import WebappError
from webapp.observers import Observer
from webapp.service_client import ServiceClient
from webapp.stimuli import Pictures, build_stimulus_set, real_images


@cli.command()
@said_in_one_line
def stimuli(
    real: Annotated[Path, typer.Option(help="Folder of real pictures by class, or a packed .csv.")],
    per_class: Annotated[int, typer.Option(min=1, help="Real, and generated, pictures a class.")],
    out_folder: Annotated[Path, typer.Option("--out", help="New folder for the stimulus set.")],
    service: Annotated[
        str | None, typer.Option(help="Address of the service.", metavar="URL")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Or a checkpoint folder.", metavar="DIR")
    ] = None,
    practice: Annotated[int, typer.Option(min=0, help="For practice, of each a class.")] = 0,
    attention: Annotated[int, typer.Option(min=0, help="Obvious controls, of each a class.")] = 0,
    training: Annotated[
        Path | None,
        typer.Option(help="What the model was trained on; near-copies of it are not taken."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which pictures; the same gives the same.")] = 1,
    size: Annotated[int | None, typer.Option(min=8, help="Pixels; the model's by default.")] = None,
    classes: Annotated[str | None, typer.Option(help="Some of the classes, by comma.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Wait so long for one reply.")] = 600,
) -> None:
    """Draw pictures, take as many real ones, encode all alike; goes on where it was stopped."""
    with (
        _address(service, checkpoint) as address,
        httpx.Client(base_url=address, timeout=timeout_s) as http,
        progress_bar() as progress,
    ):
        task = progress.add_task("stimuli", total=None)

        def show(what: str, done: int, of: int) -> None:
            progress.update(task, description=f"stimuli: {what}", completed=done, total=of)

        client, options = ServiceClient(http), {}
        if training is not None:
            from webapp.near_copies import KnownPictures, training_images

            known = KnownPictures(
                training_images(training), crop_px=client.model().crop_px, on_progress=show
            )
            options = {"is_copy": known.is_copy}
        made = build_stimulus_set(
            real_images(real),
            client,
            per_class=Pictures(main=per_class, practice=practice, attention=attention),
            seed=seed,
            out=out_folder,
            size=size,
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            on_progress=show,
            **options,
        )
    counts = ", ".join(f"{len(of)} {pool}" for pool, of in made.items())
    say(f"{counts} stimuli, half real, half generated, in {out_folder}")


@contextmanager
def _address(service: str | None, checkpoint: Path | None) -> Iterator[str]:
    if (service is None) == (checkpoint is None):
        raise WebappError("give either --service and its address, or --checkpoint and its folder.")
    if checkpoint is None:
        yield str(service)
        return
    from webapp.local_service import serving

    with serving(checkpoint) as address:
        yield address


@cli.command()
@said_in_one_line
def simulate(
    links: Annotated[Path, typer.Option(help="File of personal links.")],
    stimuli_folder: Annotated[Path, typer.Option("--stimuli", help="Stimulus set.")],
    practice: Annotated[Path | None, typer.Option(help="By default STIMULI/practice.")] = None,
    attention: Annotated[Path | None, typer.Option(help="By default STIMULI/attention.")] = None,
    d_prime: Annotated[float, typer.Option(help="Between generated and real.")] = 1.0,
    class_d_prime: Annotated[float, typer.Option(help="Between a cell's class and others.")] = 3.0,
    criterion: Annotated[float, typer.Option(help="Above 0: says real more often.")] = 0.0,
    lapse_rate: Annotated[float, typer.Option(min=0, max=1, help="Blind answers.")] = 0.02,
    confidence_noise: Annotated[float, typer.Option(min=0, help="Of confidence alone.")] = 0.0,
    dropout: Annotated[float, typer.Option(min=0, max=1, help="Leave before the end.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    record: Annotated[Path | None, typer.Option(help="Write the answers given, as JSON.")] = None,
) -> None:
    """Scripted readers take the study over HTTP, all at the same time."""
    observer = Observer(
        d_prime=d_prime,
        class_d_prime=class_d_prime,
        criterion=criterion,
        lapse_rate=lapse_rate,
        confidence_noise=confidence_noise,
        dropout=dropout,
    )
    practice = practice or stimuli_folder / "practice"
    attention = attention or stimuli_folder / "attention"
    known = known_by_pixels(
        [stimuli_folder, *([practice] if practice.exists() else [])],
        attention if attention.exists() else None,
    )
    invited = read_links(links)
    with progress_bar() as progress:
        tasks = [progress.add_task(code, total=None) for code, _ in invited]

        def play(number: int) -> Played:
            code, link = invited[number]
            address = httpx.URL(link).copy_with(raw_path=b"/")
            try:
                with httpx.Client(base_url=address, timeout=60) as http:
                    return take_study(
                        link,
                        code,
                        observer,
                        known,
                        seed=seed,
                        participant_number=number + 1,
                        http=http,
                        on_answer=lambda trial, of: progress.update(
                            tasks[number], completed=trial, total=of
                        ),
                    )
            except httpx.TransportError as error:
                raise WebappError(
                    f"the study server at {address} cannot be reached ({error}); start it with "
                    "`python -m webapp serve`."
                ) from None

        with ThreadPoolExecutor(max_workers=8) as pool:
            played = list(pool.map(play, range(len(invited))))
    if record:
        facts = asdict(observer) | {"seed": seed, "signal": "generated"}
        facts["participants"] = [one.to_json() for one in played]
        record.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    n_answers = sum(not answer.is_practice for one in played for answer in one.given)
    n_left = sum(one.has_left for one in played)
    left = f"; {n_left} of them left before the end" if n_left else ""
    say(f"{len(played)} scripted readers gave {n_answers} answers{left}")


@cli.command()
@said_in_one_line
def export(
    out_file: Annotated[
        Path,
        typer.Option("--out", help=".zip or a new folder: all; .csv or .parquet: the responses."),
    ],
    study: StudyArgument = None,
    database: DatabaseOption = None,
) -> None:
    """Write a study as files that other programs read; in code before it is unblinded."""
    from webapp.export import export_study  # pandas: the other commands do not need it

    with opened(database) as (_, registry):
        study_id = the_study(registry, study)
        n_answers = export_study(registry, study_id, out_file)
    say(f"{n_answers} answers of study {study_id} in {out_file}")
