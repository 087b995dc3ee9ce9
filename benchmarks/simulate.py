"""Simulated studies with a known truth: do the intervals of `studies` hold what they promise?

    python benchmarks/simulate.py

Every row of every table has its own random numbers, keyed by (seed, section, row), so it depends on
no other row. What is simulated stands in `simulated_crossed` and `simulated_readers`.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy
import typer
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import simulation_tables
from simulated_crossed import areas, bootstrap, coverage, equivalence, looks
from simulated_readers import curves, metacognition, readers_alone, readers_together

from training.progress import Tenths, console, progress_bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table: what is simulated, for how many studies, in which rows."""

    simulate: Callable[..., dict[str, Any]]
    n_studies: int
    rows: Sequence[dict[str, Any]]


def designs(*sizes: tuple[int, int], **others: Any) -> list[dict[str, Any]]:
    return [{"n_readers": readers, "n_cases": cases, **others} for readers, cases in sizes]


SIZES = [(readers, cases) for readers in (5, 10, 20) for cases in (100, 300)]
EFFECTS = [
    {"reader_sd": 0.0, "case_sd": 0.0},
    {"reader_sd": 0.0, "case_sd": 0.5},
    {"reader_sd": 0.3, "case_sd": 0.0},
    {"reader_sd": 0.15, "case_sd": 0.5},
    {"reader_sd": 0.6, "case_sd": 1.0},
    {"bias": 0.0, "bias_sd": 0.3},
    {"bias": 0.6, "bias_sd": 0.3},
]
SECTIONS = {
    "coverage": Section(
        simulate=coverage,
        n_studies=10_000,
        rows=[row for a in (0.5, 0.65, 0.9) for row in designs(*SIZES, accuracy=a)],
    ),
    "effects": Section(
        simulate=coverage,
        n_studies=10_000,
        rows=[
            row | effect for effect in EFFECTS for row in designs((5, 100), (20, 300), accuracy=0.5)
        ],
    ),
    "bootstrap": Section(
        simulate=bootstrap,
        n_studies=500,
        rows=[row for a in (0.5, 0.9) for row in designs((5, 100), (20, 300), accuracy=a)],
    ),
    "areas": Section(
        simulate=areas,
        n_studies=2_000,
        rows=[row for d in (0.0, 1.0, 2.0) for row in designs((10, 200), d_prime=d)],
    ),
    "equivalence": Section(
        simulate=equivalence,
        n_studies=10_000,
        rows=[
            row
            for truth in (0.55, 0.45, 0.525, 0.5)
            for row in designs(
                (10, 100),
                (10, 300),
                (20, 300),
                (40, 300),
                accuracy=truth,
                reader_sd=0.15,
            )
        ],
    ),
    "looks": Section(
        simulate=looks,
        n_studies=10_000,
        rows=[
            row | {"n_looks": n_looks}
            for n_looks in (2, 3, 6)
            for row in [
                *designs((24, 100), (48, 100), accuracy=0.5),
                *designs((24, 100), accuracy=0.5, case_sd=0.0),
            ]
        ],
    ),
    "readers_alone": Section(
        simulate=readers_alone,
        n_studies=10_000,
        rows=[
            {"d_prime": d, "criterion": c, "n_each": n}
            for n in (50, 144)
            for d, c in ((0.0, 0.0), (1.0, 0.3), (2.0, 0.5), (3.0, 0.0))
        ],
    ),
    "readers_together": Section(
        simulate=readers_together,
        n_studies=1_000,
        rows=designs((5, 200), (10, 200), (20, 200)),
    ),
    "curves": Section(
        simulate=curves,
        n_studies=500,
        rows=[
            {"n_trials": n, "threshold": 0.3, "width": 0.5, "lapse_rate": lapse_rate, "eta": eta}
            for n, lapse_rate, eta in (
                (300, 0.05, "free"),
                (1000, 0.05, "free"),
                (1000, 0.01, "free"),
                (1000, 0.0, "free"),
                (300, 0.05, 0.0),
                (1000, 0.05, 0.0),
            )
        ],
    ),
    "metacognition": Section(
        simulate=metacognition,
        n_studies=1_000,
        rows=[{"d_prime": 1.5, "m_ratio": ratio, "n_each": 144} for ratio in (1.0, 0.7)],
    ),
}


def simulate(*, seed: int, fewer: int = 1) -> dict[str, Any]:
    """All tables; `fewer` divides the number of studies, down to 2."""
    results: dict[str, Any] = {}
    with progress_bar() as bar:
        for number, (name, section) in enumerate(SECTIONS.items()):
            n_studies, start = max(2, section.n_studies // fewer), time.process_time()
            tick = counted(bar, name, n_studies * len(section.rows))
            rows = []
            for index, row in enumerate(section.rows):
                rng = np.random.default_rng([seed, number, index])
                rows.append(row | section.simulate(n_studies, rng, tick, **row))
            cpu_s = time.process_time() - start
            results[name] = {"n_studies": n_studies, "cpu_s": cpu_s, "rows": rows}
    return results


def counted(bar: Progress, name: str, total: int) -> Callable[[int], None]:
    """What a section tells how many studies more are done."""
    task, tenths, done = bar.add_task(name, total=total), Tenths(name, total), 0

    def tick(n: int) -> None:
        nonlocal done
        done += n
        bar.update(task, completed=done)
        tenths.at(done)

    return tick


def main(
    json_file: Annotated[Path, typer.Option("--json")] = Path("benchmarks/results/simulate.json"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Few studies: that it runs, not what it finds.")
    ] = False,
    seed: int = 0,
) -> None:
    """Simulate everything, write the JSON; fill docs/statistics.md unless it was quick."""
    start, cpu = time.perf_counter(), time.process_time()
    tables = simulate(seed=seed, fewer=250 if quick else 1)
    results = {
        "seed": seed,
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "tables": tables,
    }
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    console.print(f"{results['cpu_s'] / 60:.1f} minutes of one core; results in {json_file}")
    if not quick:
        simulation_tables.main(json_file)


if __name__ == "__main__":
    typer.run(main)
