"""What `studies.planning` found, to be seen: a table, a CSV and contours."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from rich.table import Table
from scipy.interpolate import PchipInterpolator

from studies.planning import Design, PlanningError, StudySize
from studies.plotting import GENERATED, HEADLINE, INK, QUIET, figure, percent, svg

Floats = NDArray[np.float64]


def table(size: StudySize) -> Table:
    """The grid for a terminal."""
    cases = sorted({design.n_cases for design in size.designs})
    shown = Table(
        title=f"Power (%) {size.purpose}",
        caption=f"± simulation error. Below: mean full width of the {100 * size.confidence_level:g}"
        f" % interval, in points. ✓ reaches {100 * size.target_power:g} %; bold: no smaller does.",
    )
    shown.add_column("readers", justify="right")
    for n_cases in cases:
        shown.add_column(f"{n_cases} cases", justify="right")
    for start in range(0, len(size.designs), len(cases)):
        row = size.designs[start : start + len(cases)]
        shown.add_row(str(row[0].n_readers), *(_cell(size, design) for design in row))
    return shown


def to_csv(size: StudySize) -> str:
    """The grid, one design a row, in full precision; empty where there is no such number."""
    rows = []
    for design in size.designs:
        row: dict[str, int | float | None] = {
            "n_readers": design.n_readers,
            "n_cases": design.n_cases,
        }
        for name, power in (("equivalence", design.equivalence), ("difference", design.difference)):
            row[f"power_{name}"] = power.power if power else None
            row[f"power_{name}_standard_error"] = power.standard_error if power else None
        rows.append(row | {"interval_width": design.width})
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def contours(size: StudySize) -> str:
    """Contours of power and of interval width over readers and cases, as SVG.

    Raises:
        PlanningError: for fewer than 2 numbers of readers or of cases.
    """
    readers = sorted({design.n_readers for design in size.designs})
    cases = sorted({design.n_cases for design in size.designs})
    if min(len(readers), len(cases)) < 2:
        raise PlanningError(
            "contours need at least 2 numbers of readers and 2 of cases; plan a larger grid."
        )
    target, level = 100 * size.target_power, f"{100 * size.confidence_level:g} %"
    powers = [100 * design.asked.power for design in size.designs]
    widths = [100 * (design.width or 0.0) for design in size.designs]
    with figure(7.2, 3.4, left=0.07, right=0.47, bottom=0.14) as (fig, left):
        left.set_position((0.07, 0.14, 0.39, 0.72))
        right = fig.add_axes((0.57, 0.14, 0.39, 0.72))
        left.set_title("power (%)", fontsize=9, loc="left", pad=9)
        right.set_title(
            f"full width of the {level} interval (points)", fontsize=9, loc="left", pad=9
        )
        for axes, values, levels, colour, width in (
            (left, powers, (5, 20, 40, 60, 90, 95, 99), HEADLINE, 0.9),
            (left, powers, (target,), INK, 2.0),
            (right, widths, (3, 4, 5, 6, 8, 10, 15, 20, 30), GENERATED, 0.9),
        ):
            fine_cases, fine_readers, grid = _smooth(cases, readers, values)
            inside = [one for one in levels if grid.min() < one < grid.max()]
            if inside:
                lines = axes.contour(
                    fine_cases, fine_readers, grid, inside, colors=colour, linewidths=width
                )
                axes.clabel(lines, fmt="%g", fontsize=8)
        for axes in (left, right):
            _designs(axes, size, readers, cases)
        note = f"● reaches {target:g} % power   ◆ and no smaller design does   ○ does not reach it"
        fig.text(0.075, 0.965, note, fontsize=8, color=QUIET, va="center")
        label = f"Contours of power {size.purpose}, and of interval width"
        return svg(fig, "plan", label)


def _smooth(
    cases: list[int], readers: list[int], values: list[float]
) -> tuple[Floats, Floats, Floats]:
    """Values between the designs, by monotone cubics on logarithmic axes."""
    fine_cases, fine_readers = (np.geomspace(grid[0], grid[-1], 60) for grid in (cases, readers))
    grid = np.reshape(values, (len(readers), len(cases)))
    rows = PchipInterpolator(np.log(cases), grid, axis=1)(np.log(fine_cases))
    return fine_cases, fine_readers, PchipInterpolator(np.log(readers), rows)(np.log(fine_readers))


def _designs(axes: Axes, size: StudySize, readers: list[int], cases: list[int]) -> None:
    for design in size.designs:
        is_smallest = design in size.smallest
        axes.plot(
            design.n_cases,
            design.n_readers,
            "D" if is_smallest else "o",
            color=INK,
            markersize=6 if is_smallest else 2.5,
            markerfacecolor=INK if design.asked.power >= size.target_power else "white",
            markeredgewidth=0.7,
            clip_on=False,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(cases, [str(n) for n in cases])
    axes.set_yticks(readers, [str(n) for n in readers])
    axes.minorticks_off()
    axes.set_xlabel("cases, judged by every reader")
    axes.set_ylabel("readers")


def _cell(size: StudySize, design: Design) -> str:
    asked = design.asked
    text = (
        "✓ " * (asked.power >= size.target_power)
        + f"{percent(asked.power)} ± {percent(asked.standard_error)}\n"
        + ("no interval" if design.width is None else percent(design.width))
    )
    return f"[bold]{text}[/]" if design in size.smallest else text
