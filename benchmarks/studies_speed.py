"""How long the statistics take, how much memory, and how both grow with the judgements.

    taskset -c 1 env OMP_NUM_THREADS=1 python benchmarks/studies_speed.py measure

The crossed interval and the AUC of Obuchowski and Rockette on 100 readers × 10,000 cases (target:
10 s, 2 GiB); growth with the number of judgements (target: a slope of at most 1 on log–log axes);
with --report also the whole report of 20 readers × 300 cases by the command line (target: 60 s).
Large runs are processes of their own, so that their peak is theirs. Growth is in processor time,
the best of three, which neighbours on the machine disturb least.

Writes benchmarks/results/studies_speed.json and docs/images/studies_speed.svg.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from studies.bots import simulated_responses
from studies.crossed import random_readers_and_cases
from studies.obuchowski_rockette import obuchowski_rockette
from studies.plotting import GENERATED, HEADLINE, QUIET, REAL, STYLE
from studies.protocol import AnalysisPlan, Protocol
from studies.reader_figures import auc_delong

ROOT = Path(__file__).parents[1]
JSON = ROOT / "benchmarks" / "results" / "studies_speed.json"
FIGURE = ROOT / "docs" / "images" / "studies_speed.svg"
READERS, CASES = 100, 10_000
GROWING = {
    "more cases, 20 readers": [(20, n) for n in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)],
    "more readers, 300 cases": [(r, 300) for r in (5, 10, 30, 100, 300, 1000)],
}
N_REPEATS = 3

app = typer.Typer(add_completion=False)


def tables(n_readers: int, n_cases: int) -> tuple[np.ndarray, ...]:
    """Right answers (R, N); measurements, and ratings from 1 to 12, of generated and real cases."""
    rng = np.random.default_rng([n_readers, n_cases])
    is_synthetic = np.arange(n_cases) % 2 == 1
    evidence = rng.standard_normal((n_readers, n_cases)) + rng.normal(0, 0.5, n_cases)
    evidence += rng.normal(0, 0.15, (n_readers, 1)) + np.where(is_synthetic, 0.3, -0.3)
    ratings = 1.0 + np.digitize(evidence, np.linspace(-2, 2, 11))
    correct = (evidence > 0) == is_synthetic
    return correct, *(
        scores[:, kind] for scores in (evidence, ratings) for kind in (is_synthetic, ~is_synthetic)
    )


ANALYSES: dict[str, Callable[..., object]] = {
    "crossed interval": lambda correct, *_: random_readers_and_cases(correct),
    "AUC of ratings": lambda _a, _b, _c, ones, zeros: obuchowski_rockette(auc_delong(ones, zeros)),
    "AUC of measurements": lambda _a, ones, zeros, *_: obuchowski_rockette(auc_delong(ones, zeros)),
}


def seconds_of(analysis: Callable[..., object], readings: tuple[np.ndarray, ...]) -> float:
    """Processor time, the best of `N_REPEATS`."""
    taken = []
    for _ in range(N_REPEATS):
        start = time.process_time()
        analysis(*readings)
        taken.append(time.process_time() - start)
    return min(taken)


def slope_of(n_judgements: list[int], seconds: list[float]) -> float:
    """Of a straight line through the points on log–log axes."""
    return float(np.polyfit(np.log(n_judgements), np.log(seconds), 1)[0])


def growth(sizes: dict[str, list[tuple[int, int]]]) -> dict:
    """Times and slopes of each analysis in each direction; the last decade apart, as fixed costs
    of the first sizes flatten the line.
    """
    found = {}
    for direction, designs in sizes.items():
        n = [readers * cases for readers, cases in designs]
        late = [i for i, size in enumerate(n) if size >= n[-1] / 10]
        seconds: dict[str, list[float]] = {name: [] for name in ANALYSES}
        for design in designs:
            readings = tables(*design)
            for name, analysis in ANALYSES.items():
                seconds[name].append(seconds_of(analysis, readings))
        found[direction] = {
            name: {
                "n_judgements": n,
                "seconds": taken,
                "slope": slope_of(n, taken),
                "slope_last_decade": slope_of([n[i] for i in late], [taken[i] for i in late]),
            }
            for name, taken in seconds.items()
        }
    return found


def child(*command: str) -> dict:
    """Wall time, processor time and peak memory of a process of its own.

    The peak is never below this process's own size: Linux counts from before the child's program.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_gib": used.ru_maxrss / 2**20,
    }


@app.command()
def large(n_readers: int, n_cases: int) -> None:
    """Crossed interval and AUC of one large study: what the parent measures."""
    readings = tables(n_readers, n_cases)
    for analysis in ANALYSES.values():
        analysis(*readings)


def report(n_readers: int, n_cases: int) -> dict:
    """The whole report of a simulated study, by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        protocol, responses = Path(folder, "protocol.toml"), Path(folder, "responses.csv")
        Protocol(
            study_id="speed",
            n_participants=n_readers,
            n_trials=n_cases,
            analysis=AnalysisPlan(
                equivalence_margin=0.05,
                secondary=("sensitivity", "specificity", "auc", "d_prime", "drift", "class"),
                index="consensus",
            ),
        ).write(protocol)
        simulated_responses(n_readers=n_readers, n_cases=n_cases).to_csv(responses, index=False)
        command = [sys.executable, "-m", "studies", "analyse", "--protocol", str(protocol)]
        return child(*command, "--responses", str(responses), "--out", f"{folder}/report")


def draw(results: dict, path: Path) -> None:
    """Time against judgements in both directions, with the slopes in the legend."""
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        looks = ((HEADLINE, "o", "-"), (REAL, "s", "--"), (GENERATED, "^", "-."))
        for axes, (direction, analyses) in zip(panels, results["growth"].items(), strict=True):
            for (name, one), (colour, marker, line) in zip(analyses.items(), looks, strict=True):
                axes.loglog(
                    one["n_judgements"],
                    one["seconds"],
                    marker=marker,
                    linestyle=line,
                    color=colour,
                    markersize=4,
                    linewidth=1.2,
                    label=f"{name}, slope {one['slope']:.2f}",
                )
            ends = np.array([one["n_judgements"][0], one["n_judgements"][-1]])
            axes.loglog(ends, ends * 1e-6, ":", color=QUIET, label="slope 1, 1 µs each")
            decades = 10 ** np.arange(3, 7)
            axes.set_xticks(decades, [f"{n:,}" for n in decades])
            axes.set_yticks(10.0 ** np.arange(-4, 1), ["0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s"])
            axes.set(xlim=(1e3, 4e6), ylim=(5e-5, 30))
            axes.set_title(direction, fontsize=9, loc="left")
            axes.legend(frameon=False, fontsize=7.5, loc="upper left")
        panels[0].set_ylabel("processor time")
        figure.supxlabel("judgements", size=9)
        figure.savefig(path, metadata={"Date": None})


@app.command()
def measure(with_report: bool = typer.Option(False, "--report")) -> None:
    """Measure, write the JSON and the figure."""
    results = json.loads(JSON.read_text()) if JSON.exists() else {}
    results["n_threads"] = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    this = [sys.executable, __file__, "large"]
    results["start"] = child(*this, "2", "100")
    results["large"] = {
        "n_readers": READERS,
        "n_cases": CASES,
        **child(*this, str(READERS), str(CASES)),
    }
    print(f"{READERS} × {CASES}: {results['large']}, of which starting: {results['start']}")
    results["growth"] = growth(GROWING)
    for direction, analyses in results["growth"].items():
        for name, one in analyses.items():
            slopes = f"slope {one['slope']:.2f}, last decade {one['slope_last_decade']:.2f}"
            print(f"{direction}, {name}: {slopes}, {one['seconds'][-1]:.3f} s at the end")
    if with_report:
        results["report"] = {"n_readers": 20, "n_cases": 300, **report(20, 300)}
        print(f"report of 20 × 300: {results['report']}")
    JSON.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, FIGURE)


if __name__ == "__main__":
    app()
