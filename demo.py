"""The whole product once, on this machine and offline: what `make demo` runs.

Every step is a command that a user could type, run as a process of its own; this file only knows
their order. Everything it makes lies in demo-run/.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RUN = Path("demo-run")
MARKER = ".made-by-make-demo"
STOP_S = 30
console = Console(highlight=False)


class StepError(Exception):
    """A step that did not do what it should; the message is for the user."""


def main(
    data: Annotated[Path | None, typer.Option(help="A folder by class, or a packed set.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit", help="Stop the servers and end.")] = False,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 3.0,
    readers: Annotated[int, typer.Option(help="Scripted readers.", min=2)] = 6,
    service_port: Annotated[int, typer.Option(envvar="DEMO_SERVICE_PORT")] = 3000,
    webapp_port: Annotated[int, typer.Option(envvar="DEMO_WEBAPP_PORT")] = 7860,
) -> None:
    """Data set, training, evaluation, service, stimuli, a blinded study by bots, and its report."""
    started = time.monotonic()
    try:
        with ExitStack() as servers:
            everything(servers, data, minutes, readers, service_port, webapp_port)
            console.print(f"\nAll of it took {(time.monotonic() - started) / 60:.1f} minutes.")
            if not exit_at_end:
                console.print("Both servers stay up until you press Ctrl-C.")
                signal.pause()
    except KeyboardInterrupt:
        console.print("\nStopped; what was made stays in demo-run/.")
    except StepError as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True)
        raise typer.Exit(1) from None


def everything(
    servers: ExitStack,
    data: Path | None,
    minutes: float,
    readers: int,
    service_port: int,
    webapp_port: int,
) -> None:
    """Run all steps; servers that were started stop when `servers` closes."""
    for port, option in ((service_port, "--service-port"), (webapp_port, "--webapp-port")):
        refuse_busy(port, option)
    if data is not None and not (data.exists() or data.with_name(data.name + ".csv").exists()):
        raise StepError(f"{data} does not exist; give a folder of images by class, or a set's csv.")
    start_afresh()
    service, webapp = f"http://127.0.0.1:{service_port}", f"http://127.0.0.1:{webapp_port}"
    checkpoint, stimuli = RUN / "checkpoint", RUN / "stimuli"
    protocol, links = RUN / "protocol.toml", RUN / "links.txt"
    exported, report = RUN / "export", RUN / "report"
    os.environ["BENTOML_HOME"] = str((RUN / "bentoml").resolve())
    os.environ["DATABASE_URL"] = f"sqlite:///{(RUN / 'studies.sqlite3').resolve()}"

    if data is None:
        say(1, "Draw a labelled data set of eight cell types")
        run("training", "draw", "--out", RUN / "data")
        train_on, judge_on, real = RUN / "data" / "train", [RUN / "data" / "val"], None
        training = ("--training", train_on)
    else:
        say(1, f"Use the cells in {data}; a tenth of them is kept from training")
        train_on, judge_on, real = data, [data, "--held-out"], RUN / "real"
        training = ("--training", data) if data.is_dir() else ()

    say(2, f"Train a class-conditional diffusion model for {minutes:g} minutes")
    recipe = ("--recipe", "tiny", "--minutes", minutes)
    run("training", "run", *recipe, "--data", train_on, "--out", checkpoint)

    say(3, "Evaluate it on cells it has not seen")
    results = ("--json", RUN / "evaluation.json", "--limit", 240)
    run("training", "evaluate", "--checkpoint", checkpoint, "--data", *judge_on, *results)

    say(4, "Package it into BentoML's model store")
    run("training", "package", "--checkpoint", checkpoint)

    say(5, f"Serve it: bentoml serve on {service}")
    os.environ["CYTOVERITY_MODEL"] = "cytoverity:latest"
    bentoml = [str(Path(sys.executable).with_name("bentoml")), "serve"]
    bentoml += ["--host", "127.0.0.1", "--port", str(service_port)]
    serve(servers, "service", bentoml, f"{service}/readyz")

    say(6, "Draw stimuli through the service, and mix them with real cells")
    if real is not None:
        run(
            *("training", "export", "--checkpoint", checkpoint, "--data", *judge_on),
            *("--out", real, "--per-class", 3),
        )
    else:
        real = RUN / "data" / "val"
    n_each = min(3, *(len(list(folder.iterdir())) for folder in real.iterdir() if folder.is_dir()))
    run(
        *("webapp", "stimuli", "--real", real, "--service", service),
        *("--per-class", n_each, "--out", stimuli),
    )

    say(7, f"Plan a study for {readers} readers, audit its blinding, freeze and open it")
    n_trials = len(list(stimuli.glob("*.png")))
    run(
        *("studies", "plan", "--out", protocol, "--n-participants", readers),
        *("--n-trials", n_trials, "--title", "Real or generated?"),
    )
    run("webapp", "create", "--protocol", protocol, "--stimuli", stimuli, *training)
    reason = f"a demo: a model trained for {minutes:g} minutes, and no human readers"
    run("webapp", "launch", "--links", links, "--base-url", webapp, "--override", reason)
    command = [sys.executable, "-m", "webapp", "serve", "--port", str(webapp_port)]
    serve(servers, "webapp", command, f"{webapp}/healthz")

    say(8, f"{readers} scripted readers take the study over HTTP (d' 1.0, criterion 0.2)")
    run(
        *("webapp", "simulate", "--links", links, "--stimuli", stimuli, "--d-prime", 1.0),
        *("--criterion", 0.2, "--lapse-rate", 0.02, "--record", RUN / "counts.json"),
    )

    say(9, "Close, unblind, export, and analyse: readers and cases crossed")
    run("webapp", "close")
    run("webapp", "unblind", "--reason", "all scripted readers have finished")
    run("webapp", "export", "--out", exported)
    run("webapp", "verify")
    run(
        *("studies", "analyse", "--protocol", protocol, "--out", report),
        *("--responses", exported / "responses.csv"),
    )
    compare_counts(RUN / "counts.json", report / "results.json")

    console.print("\n[bold green]Done.[/bold green] Look at:")
    console.print(f"  report    {report / 'report.html'}   (numbers and tables beside it)")
    console.print(f"  audit     {RUN / 'stimuli-audit' / 'audit.html'}   (of the blinding)")
    console.print(f"  data      {exported}   (tables, codebook, log, hashes)")
    console.print(f"  samples   {checkpoint / 'run' / 'samples.png'}")
    console.print(f"  service   {service}   (try {service}/docs.json)")
    console.print(f"  study     {webapp}   (personal links: {links})")


def say(number: int, what: str) -> None:
    """Announce a step in one line."""
    console.print(f"\n[bold]{number}/9  {what}[/bold]", soft_wrap=True)


def run(part: str, *arguments: object) -> None:
    """`python -m part arguments…`, its progress on this terminal."""
    command = [sys.executable, "-m", part, *(str(a) for a in arguments)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise StepError(f"`python -m {part} {arguments[0]}` ended with status {code}; see above.")


def serve(servers: ExitStack, name: str, command: list[str], ready_url: str) -> None:
    """Start a server, wait until it answers, and stop it when `servers` closes."""
    log = RUN / f"{name}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the servers.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    servers.callback(stop, name, process)
    deadline = time.monotonic() + 120
    with console.status(f"Waiting for {ready_url} …"):
        while time.monotonic() < deadline:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise StepError(f"The {name} ended at once: {' '.join(last)} (log: {log})")
            if answers(ready_url):
                return
            time.sleep(0.2)
    raise StepError(f"The {name} did not answer at {ready_url} within two minutes (log: {log}).")


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(name: str, process: subprocess.Popen[bytes]) -> None:
    """End a server in an orderly way, and the hard way if it will not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        console.print(f"The {name} did not stop within {STOP_S} s and was killed.")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def refuse_busy(port: int, option: str) -> None:
    """Say in one line that a port is taken, before minutes of work."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StepError(
                f"Port {port} is busy; choose another: make demo DEMO_OPTIONS='{option} {port + 1}'"
            ) from None


def start_afresh() -> None:
    """An empty demo-run/; a folder of that name that the demo did not make is left alone."""
    if RUN.exists():
        if not (RUN / MARKER).exists():
            raise StepError(f"{RUN}/ is here but was not made by the demo; move it away.")
        shutil.rmtree(RUN)
    RUN.mkdir()
    (RUN / MARKER).touch()


def compare_counts(recorded: Path, reported: Path) -> None:
    """Refuse a report that does not hold exactly what the scripted readers answered."""
    fields = ("hits", "misses", "false_alarms", "correct_rejections")
    given = {
        reader["participant_id"]: tuple(reader[field] for field in fields)
        for reader in json.loads(recorded.read_text())["participants"]
    }
    found = {
        reader["participant_id"]: tuple(reader["detection"][field] for field in fields)
        for reader in json.loads(reported.read_text())["readers"]
    }
    if given != found:
        raise StepError(f"The report's counts {found} are not those of the readers, {given}.")
    console.print(f"The report holds exactly the {sum(map(sum, given.values()))} answers given.")


if __name__ == "__main__":
    typer.run(main)
