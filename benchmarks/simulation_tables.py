"""Tables and figure of docs/statistics.md, from what `simulate.py` wrote; it calls this at the end.

    python benchmarks/simulation_tables.py

Each table stands between two HTML comments; what lies between them is replaced. A test holds the
page to the file.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from results_table import with_table

from studies.plotting import GENERATED, HEADLINE, INK, QUIET, REAL, figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "simulate.json"
PAGE = ROOT / "docs" / "statistics.md"
FIGURE = ROOT / "docs" / "images" / "coverage.svg"
PROMISED = (0.93, 0.97)
Row = dict[str, Any]


def percent(value: dict[str, float]) -> str:
    """`94.5 (94.0–94.9)`, in per cent with the Monte-Carlo interval."""
    return "{:.1f} ({:.1f}–{:.1f})".format(
        *(100 * value[key] for key in ("estimate", "ci_low", "ci_high"))
    )


def covers(found: Row) -> str:
    return percent(found["coverage"])


def number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def found_mean(found: Row, digits: int = 3) -> str:
    """`1.003 ± 0.006`: the mean over studies, with its Monte-Carlo error of 95 %."""
    mean = found["mean"]
    return f"{number(mean['estimate'], digits)} ± {mean['ci_high'] - mean['estimate']:.{digits}f}"


def size(row: Row) -> str:
    return f"{row['n_readers']} × {row['n_cases']}"


def table(results: Row, section: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, and below it what made it."""
    of_section = results["tables"][section]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    lines += ["", f"`make simulate`, section `{section}`: {of_section['n_studies']:,} studies a "]
    lines[-1] += f"row, seed {results['seed']}, {of_section['cpu_s']:.1f} s."
    return "\n".join(lines)


def rows_of(results: Row, section: str) -> list[Row]:
    return results["tables"][section]["rows"]


def coverage(results: Row) -> str:
    heads = ["true accuracy", "readers × cases", "**crossed**", "width, points"]
    heads += ["df: median (mean)", "by reader only", "by case only", "naive Wilson"]
    heads += ["naive width", "design effect"]
    rows = []
    for row in rows_of(results, "coverage"):
        of = row["methods"]
        rows.append(
            [
                f"{row['accuracy']:.2f}",
                size(row),
                f"**{covers(of['crossed'])}**",
                f"{100 * of['crossed']['mean_width']:.1f}",
                f"{row['median_df']:.1f} ({row['mean_df'] or inf:.1f})",
                *(covers(of[name]) for name in ("by_reader", "by_case", "naive")),
                f"{100 * of['naive']['mean_width']:.1f}",
                f"{row['design_effect']:.1f}",
            ]
        )
    return table(results, "coverage", heads, rows)


def alternatives(results: Row) -> str:
    heads = ["true accuracy", "readers × cases", "**Hillis**", "truth below / above"]
    heads += ["Satterthwaite", "readers − 1", "normal", "logit limits"]
    heads += ["bootstrap, standard", "bootstrap, percentile"]
    resampled = {(row["accuracy"], size(row)): row for row in rows_of(results, "bootstrap")}
    rows = []
    for row in rows_of(results, "coverage"):
        of, key = row["methods"], (row["accuracy"], size(row))
        sides = (100 * of["crossed"][f"truth_{side}"] for side in ("below", "above"))
        rows.append(
            [
                f"{row['accuracy']:.2f}",
                size(row),
                f"**{covers(of['crossed'])}**",
                "{:.1f} / {:.1f}".format(*sides),
                *(covers(of[k]) for k in ("satterthwaite", "readers_less_1", "normal", "logit")),
                *(
                    covers(resampled[key][kind]) if key in resampled else "–"
                    for kind in ("standard", "percentile")
                ),
            ]
        )
    n = results["tables"]["bootstrap"]["n_studies"]
    return table(results, "coverage", heads, rows) + f" Bootstrap: section `bootstrap`, {n:,}."


def effects(results: Row) -> str:
    heads = ["reader SD", "case SD", "lean: mean, SD", "readers × cases", "**crossed**"]
    heads += ["stratified by kind", "by reader only", "by case only", "naive Wilson"]
    heads += ["variance / true", "Cov2 < 0"]
    rows = []
    for row in rows_of(results, "effects"):
        of = row["methods"]
        rows.append(
            [
                f"{row.get('reader_sd', 0.3):.2f}",
                f"{row.get('case_sd', 0.5):.1f}",
                f"{row['bias']:.1f}, {row['bias_sd']:.1f}" if "bias" in row else "none",
                size(row),
                f"**{covers(of['crossed'])}**",
                *(covers(of[k]) for k in ("stratified", "by_reader", "by_case", "naive")),
                f"{row['variance_over_true']:.2f}",
                f"{row['cov2_below_0']:.0%}".replace("%", " %"),
            ]
        )
    return table(results, "effects", heads, rows)


def areas(results: Row) -> str:
    heads = ["true area", "readers × cases", "mean estimate", "**crossed**", "width"]
    heads += ["U-statistics", "by case only (fixed readers)", "naive DeLong"]
    rows = []
    for row in rows_of(results, "areas"):
        of = row["methods"]
        rows.append(
            [
                number(row["truth"]),
                size(row),
                found_mean(of["crossed"], 4),
                f"**{covers(of['crossed'])}**",
                number(of["crossed"]["mean_width"]),
                *(covers(of[name]) for name in ("u_statistics", "by_case", "naive")),
            ]
        )
    return table(results, "areas", heads, rows)


def equivalence(results: Row) -> str:
    heads = ["true accuracy", "readers × cases", "**claimed, crossed**", "by the power formula"]
    heads += ["claimed, naive exact TOST"]
    rows = [
        [
            f"{row['accuracy']:.3f}",
            size(row),
            f"**{percent(row['crossed'])}**",
            f"{100 * row['by_formula']:.1f}",
            percent(row["naive"]),
        ]
        for row in rows_of(results, "equivalence")
    ]
    return table(results, "equivalence", heads, rows)


def looks(results: Row) -> str:
    heads = ["looks", "readers × cases", "cases differ", "O’Brien–Fleming", "Pocock"]
    heads += [
        "5 % at each look",
        "one test at the end",
        "first look alone, Pocock’s level",
        "found",
    ]
    rows = [
        [
            f"{row['n_looks']}",
            size(row),
            "no" if row.get("case_sd") == 0 else "yes",
            *(percent(row[k]) for k in ("obrien-fleming", "pocock", "none", "end_only")),
            f"{100 * row['first_look']['level']:.2f}",
            percent(row["first_look"]["found"]),
        ]
        for row in rows_of(results, "looks")
    ]
    return table(results, "looks", heads, rows)


def readers_alone(results: Row) -> str:
    heads = ["true d′", "true c", "pictures of each kind", "mean d′", "covers d′", "mean c"]
    heads += ["covers c"]
    rows = [
        [
            f"{row['d_prime']:.1f}",
            f"{row['criterion']:.1f}",
            str(row["n_each"]),
            *(
                text(row[f"{name}_found"])
                for name in ("d_prime", "criterion")
                for text in (found_mean, covers)
            ),
        ]
        for row in rows_of(results, "readers_alone")
    ]
    return table(results, "readers_alone", heads, rows)


def readers_together(results: Row) -> str:
    heads = ["readers × cases", "mean d′ (true 1)", "**covers**", "t over readers only"]
    heads += ["mean c (true 0.2)", "covers", "SD of d′ (true 0.3)", "covers"]
    heads += ["a reader’s error: alone → drawn", "a reader’s interval: alone", "drawn"]
    rows = []
    for row in rows_of(results, "readers_together"):
        alone, drawn = (row["readers"][name] for name in ("alone", "drawn"))
        rows.append(
            [
                size(row),
                found_mean(row["mean_d_prime"]),
                f"**{covers(row['mean_d_prime'])}**",
                covers(row["mean_d_prime_by_reader"]),
                found_mean(row["mean_criterion"]),
                covers(row["mean_criterion"]),
                found_mean(row["between_reader_sd"]),
                covers(row["between_reader_sd"]),
                f"{alone['rms_error']:.3f} → {drawn['rms_error']:.3f}",
                covers(alone),
                covers(drawn),
            ]
        )
    return table(results, "readers_together", heads, rows)


def curves(results: Row) -> str:
    names = {"threshold_unscaled": "threshold at 80 %", "width": "width", "lapse_rate": "lapse"}
    heads = ["trials", "over-dispersion", "true lapse"]
    heads += [head for name in names.values() for head in (f"{name}: true", "mean", "covers")]
    rows = [
        [
            f"{row['n_trials']:,}",
            "fitted" if row["eta"] == "free" else "none",
            f"{row['lapse_rate']:.2f}",
            *(
                text
                for name in names
                for found in [row[f"{name}_found"]]
                for text in (number(found["truth"]), found_mean(found), covers(found))
            ),
        ]
        for row in rows_of(results, "curves")
    ]
    return table(results, "curves", heads, rows)


def metacognition(results: Row) -> str:
    heads = ["true d′", "true meta-d′", "mean", "covers", "true M-ratio", "mean", "covers"]
    rows = [
        [
            f"{row['d_prime']:.1f}",
            *(
                text
                for name in ("meta_d_prime", "m_ratio")
                for found in [row[f"{name}_found"]]
                for text in (number(found["truth"], 2), found_mean(found), covers(found))
            ),
        ]
        for row in rows_of(results, "metacognition")
    ]
    return table(results, "metacognition", heads, rows)


def run(results: Row) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"All of it took {results['cpu_s'] / 60:.1f} minutes of one core ({versions}). "
        f"Seed {results['seed']}; each row has random numbers of its own."
    )


TABLES = {
    "run": run,
    "coverage": coverage,
    "alternatives": alternatives,
    "effects": effects,
    "areas": areas,
    "equivalence": equivalence,
    "looks": looks,
    "readers alone": readers_alone,
    "readers together": readers_together,
    "curves": curves,
    "metacognition": metacognition,
}


def filled(text: str, results: Row) -> str:
    """The page with every table between its comments made anew."""
    for name, made in TABLES.items():
        text = with_table(text, name, made(results))
    return text


def draw(results: Row, path: Path) -> None:
    """Coverage by design: the crossed interval, and what forgets readers, cases or both."""
    rows = rows_of(results, "coverage")
    truths = sorted({row["accuracy"] for row in rows})
    styles = {
        "crossed": ("readers and cases crossed", HEADLINE, "o"),
        "by_reader": ("by reader only", REAL, "^"),
        "by_case": ("by case only", GENERATED, "s"),
        "naive": ("naive: judgements independent", INK, "x"),
    }
    with figure(7.2, 3.3, left=0.075, right=0.36) as (fig, first):
        fig.set_facecolor("white")
        panels = [first, *(fig.add_axes((0, 0, 1, 1), sharey=first) for _ in truths[1:])]
        for k, (axes, truth) in enumerate(zip(panels, truths, strict=True)):
            axes.set_position((0.075 + 0.312 * k, 0.2, 0.292, 0.6))
            axes.axhspan(*(100 * end for end in PROMISED), color=HEADLINE, alpha=0.12, linewidth=0)
            of_panel = [row for row in rows if row["accuracy"] == truth]
            for m, (name, (label, colour, marker)) in enumerate(styles.items()):
                found = [row["methods"][name]["coverage"] for row in of_panel]
                axes.plot(
                    [place + 0.08 * (m - 1.5) for place in range(len(found))],
                    [100 * one["estimate"] for one in found],
                    marker,
                    label=label,
                    color=colour,
                    markersize=4.5,
                )
            axes.set_title(f"true accuracy {100 * truth:.0f} %", fontsize=9, loc="left")
            names = [size(row).replace(" ", "\n", 1) for row in of_panel]
            axes.set_xticks(range(len(names)), names, fontsize=7.5)
            axes.tick_params(labelleft=k == 0)
        panels[0].set_ylim(20, 100)
        panels[0].set_ylabel("coverage (%)")
        panels[1].set_xlabel("readers × cases")
        handles = panels[0].get_legend_handles_labels()
        fig.legend(*handles, loc=(0.06, 0.925), ncols=4, frameon=False, fontsize=8)
        note = "band: 93 to 97 %; Monte-Carlo errors are smaller than the markers"
        fig.text(0.99, 0.015, note, fontsize=7.5, color=QUIET, ha="right")
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, metadata={"Date": None})


def main(json_file: Path = RESULTS) -> None:
    """Fill the page, draw the figure."""
    results = json.loads(json_file.read_text())
    PAGE.write_text(filled(PAGE.read_text(), results))
    draw(results, FIGURE)
    print(f"Filled the tables of {PAGE.relative_to(ROOT)}, drew {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
