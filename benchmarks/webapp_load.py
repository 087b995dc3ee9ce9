"""Many readers at once on PostgreSQL: how long from an answer to the next picture, and memory.

    python benchmarks/webapp_load.py [--readers 200] [--trials 100] [--workers 2]

Everything runs on this machine: PostgreSQL with its own defaults (fsync on), `python -m webapp
serve`, and locust with readers who answer every 2 to 4 s and fetch one picture ahead, as the page
does.
The link, the pages before the first trial and the last answer are not timed. Targets: 95 % of the
answers lead to the next picture within 300 ms, no error, and memory flat over 20,000 answers.

Writes benchmarks/results/webapp.json.
"""

import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psycopg
import typer
from PIL import Image
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies.protocol import Protocol
from studies.stimuli import Stimulus
from tests.webapp import conftest
from tests.webapp.studies_at_hand import CLASSES, free_port
from webapp.database import Database
from webapp.pictures import encode_png, pixel_digest
from webapp.registry import Registry

ROOT = Path(__file__).parents[1]
JSON = ROOT / "benchmarks" / "results" / "webapp.json"
SIDE = 256
TARGET_MS = 300
FLAT_MB = 0.5
"""Growth over 1,000 answers that is still called flat: 10 MB over a whole run."""
WARM = 0.25
"""Share of the answers after which memory is expected not to grow any more."""

postgresql = contextmanager(inspect.unwrap(conftest.new_postgresql))


def pictures(n: int) -> list[tuple[Stimulus, bytes]]:
    """Half of them generated. Smooth noise, with as many bytes as pictures of cells."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(n):
        noise = gaussian_filter(rng.normal(128, 400, (SIDE, SIDE, 3)), (4, 4, 0))
        image = Image.fromarray(
            (noise + rng.normal(0, 2, noise.shape)).clip(0, 255).astype("uint8")
        )
        stimulus_id, is_synthetic = rng.bytes(8).hex(), number % 2 == 1
        stimulus = Stimulus(
            stimulus_id=stimulus_id,
            file=f"{stimulus_id}.png",
            class_name=CLASSES[number // 2 % 2],
            is_synthetic=is_synthetic,
            source_digest=pixel_digest(image),
            generator_digest="ab" * 32 if is_synthetic else "",
        )
        made.append((stimulus, encode_png(image)))
    return made


def open_study(database_url: str, n_readers: int, n_trials: int) -> tuple[list[str], float]:
    """Tokens of the readers of an open study, and the mean size of a picture in kB."""
    plan = Protocol(study_id="load", n_participants=n_readers, n_trials=n_trials)
    stimuli = pictures(n_trials)
    with closing(Database.create(database_url)) as database:
        registry = Registry(database)
        registry.create(plan, {"main": stimuli})
        registry.record_audit("load", "{}", passed=False)
        registry.freeze("load", override="noise, for a benchmark")
        registry.open("load")
        invited = registry.invite("load", [""] * n_readers, valid_days=1)
    return [one.token for one in invited], float(np.mean([len(png) for _, png in stimuli]) / 1000)


@contextmanager
def server(database_url: str, workers: int, folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process of a readers' server."""
    port = free_port()
    command = [sys.executable, "-m", "webapp", "serve", "--port", str(port)]
    command += ["--database", database_url, "--workers", str(workers)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{address}/healthz"):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield address, process.pid
        log_text = (folder / "server.log").read_text()
        assert "Traceback" not in log_text, log_text
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def family(pid: int) -> list[Path]:
    """The folders in /proc of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{one}") for one in (pid, *children)]


def memory_mb(pid: int) -> float:
    """Their heaps; code is left out, for how much of it counts depends on who else runs it."""
    rollups = [(one / "smaps_rollup").read_text() for one in family(pid)]
    return sum(int(rollup.split("Anonymous:")[1].split()[0]) / 1024 for rollup in rollups)


def cpu_s_of(pid: int) -> float:
    """Processor time of theirs until now."""
    ticks = [(one / "stat").read_text().rsplit(")")[-1].split()[11:13] for one in family(pid)]
    return sum(int(tick) for of in ticks for tick in of) / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Answers stored and memory used, every few seconds."""

    def __init__(self, database_url: str, pid: int) -> None:
        super().__init__(daemon=True)
        self._url, self._pid, self._ended = database_url, pid, threading.Event()
        self.samples: list[tuple[int, float]] = []

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ended.wait(2):
                (n,) = connection.execute("SELECT count(*) FROM response").fetchone() or (0,)
                if not self.samples or n > self.samples[-1][0]:
                    self.samples.append((int(n), memory_mb(self._pid)))

    def end(self) -> list[tuple[int, float]]:
        self._ended.set()
        self.join()
        return self.samples


def main(
    readers: Annotated[int, typer.Option(help="At once.")] = 200,
    trials: Annotated[int, typer.Option(help="Of each.")] = 100,
    workers: Annotated[int, typer.Option(help="Processes of the server.")] = 1,
    pace_s: Annotated[
        float, typer.Option(help="Between two answers of a reader, on average.")
    ] = 3.0,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = JSON,
) -> None:
    """Run the readers, print what was measured against the targets, and write it."""
    with tempfile.TemporaryDirectory(prefix="webapp-load-") as name, postgresql() as new:
        folder = Path(name)
        database_url = new()
        tokens, picture_kb = open_study(database_url, readers, trials)
        (folder / "links.txt").write_text("\n".join(tokens))
        with server(database_url, workers, folder) as (address, pid):
            watch = Watch(database_url, pid)
            watch.start()
            cpu_before_s = cpu_s_of(pid)
            stats = locust(folder, address, readers, trials, pace_s)
            samples, cpu_s = watch.end(), cpu_s_of(pid) - cpu_before_s
        with psycopg.connect(database_url) as connection:
            (n_answers,) = connection.execute("SELECT count(*) FROM response").fetchone() or (0,)
    result = {
        "readers": readers,
        "answers": n_answers,
        "answers_expected": readers * trials,
        "pace_s": pace_s,
        "workers": workers,
        "picture_kb": round(picture_kb, 1),
        "machine": f"{os.cpu_count()} × {processor()}, Python {platform.python_version()}",
        "requests": stats,
        "n_failures": sum(one["n_failures"] for one in stats.values()),
        "server_cpu_ms_per_answer": round(cpu_s * 1000 / n_answers, 1),
        "memory": memory_summary(samples, readers * trials),
        "memory_mb_after_answers": {
            n: round(mb, 1) for n, mb in samples[:: len(samples) // 40 + 1]
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report(result)


def locust(
    folder: Path, address: str, readers: int, trials: int, pace_s: float
) -> dict[str, dict[str, float]]:
    """Run all readers to their last answer; requests by name."""
    environment = os.environ | {
        "ADDRESS": address,
        "LINKS": str(folder / "links.txt"),
        "PACE_S": str(pace_s),
        "PYTHONPATH": str(ROOT),
    }
    spawn_rate = max(1, readers / 20)
    run_s = readers / spawn_rate + trials * 1.1 * pace_s + 20
    subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks/webapp_readers.py")),
            *("--headless", "--only-summary", "--users", str(readers)),
            *("--spawn-rate", f"{spawn_rate:g}", "--run-time", f"{run_s:.0f}s"),
            *("--json-file", str(folder / "locust"), "--exit-code-on-error", "0"),
        ],
        env=environment,
        check=True,
    )
    found = json.loads((folder / "locust.json").read_text())
    return {one["name"]: summary(one) for one in found}


def summary(one: dict[str, Any]) -> dict[str, float]:
    """Times of locust's histogram, which has all but the shortest to two digits."""
    times = sorted((float(ms), n) for ms, n in one["response_times"].items())
    total = sum(n for _, n in times)

    def percentile(share: float) -> float:
        seen = 0
        for ms, n in times:
            seen += n
            if seen >= share * total:
                return ms
        return 0.0

    return {
        "n": one["num_requests"],
        "n_failures": one["num_failures"],
        "median_ms": percentile(0.5),
        "p95_ms": percentile(0.95),
        "p99_ms": percentile(0.99),
        "max_ms": round(one["max_response_time"], 1),
    }


def memory_summary(samples: list[tuple[int, float]], n_expected: int) -> dict[str, float]:
    """Slope over the answers after the first quarter, and what it comes to."""
    warm = np.array([(n, mb) for n, mb in samples if n >= WARM * n_expected])
    slope = float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0]) * 1000
    return {
        "after_a_quarter_mb": round(float(warm[0, 1]), 1),
        "at_the_end_mb": round(float(warm[-1, 1]), 1),
        "mb_per_1000_answers": round(slope, 3),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((one.split(": ")[1] for one in lines if one.startswith("model name")), "?")


def report(result: dict[str, Any]) -> None:
    for name, one in result["requests"].items():
        times = ", ".join(
            f"{what} {one[key]:.0f} ms"
            for what, key in (("median", "median_ms"), ("95 %", "p95_ms"), ("99 %", "p99_ms"))
        )
        print(f"{name:24} {one['n']:6}, failed {one['n_failures']}; {times}")
    memory = result["memory"]
    print(
        f"memory: {memory['after_a_quarter_mb']:.0f} MB after a quarter of the answers, "
        f"{memory['at_the_end_mb']:.0f} MB at the end, "
        f"{memory['mb_per_1000_answers']:+.2f} MB per 1,000 answers"
    )
    is_met = (
        result["requests"]["submit to next picture"]["p95_ms"] <= TARGET_MS
        and result["n_failures"] == 0
        and memory["mb_per_1000_answers"] <= FLAT_MB
        and result["answers"] == result["answers_expected"]
    )
    print(f"server: {result['server_cpu_ms_per_answer']} ms of processor time for each answer")
    print(f"{result['answers']} answers: targets {'met' if is_met else 'NOT met'}")


if __name__ == "__main__":
    typer.run(main)
