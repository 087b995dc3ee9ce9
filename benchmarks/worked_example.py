"""A published headline examined anew: what 52.3 % of 2,880 judgements can and cannot say.

    python benchmarks/worked_example.py

Writes benchmarks/results/worked_example.json and docs/images/worked_example.svg, and fills the
tables of docs/worked_example.md. The margins are published, the readers × images table is not: so
tables with those margins are simulated under stated spreads of readers and images (probit-normal,
as `studies.planning`), and each is analysed as the report analyses a real one.
"""

import json
import sys
from math import sqrt
from pathlib import Path

import matplotlib as mpl
import numpy as np
import typer
from matplotlib.figure import Figure
from scipy.stats import chi2_contingency
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from results_table import with_table

from studies.components import ASSUMED, Components, covariance
from studies.crossed import random_readers_and_cases
from studies.equivalence import clustered_difference, clustered_tost, exact_tost, verdict
from studies.planning import size_study
from studies.plotting import GENERATED, HEADLINE, INK, QUIET, RULE, STYLE
from studies.proportions import chance_test, wilson

ROOT = Path(__file__).parents[1]
JSON = ROOT / "benchmarks" / "results" / "worked_example.json"
PAGE = ROOT / "docs" / "worked_example.md"
FIGURE = ROOT / "docs" / "images" / "worked_example.svg"

N_READERS, N_CASES, N_CORRECT = 10, 288, 1507
N_TRIALS = N_READERS * N_CASES
ACCURACY = N_CORRECT / N_TRIALS
MARGIN = {"low": 0.45, "high": 0.55}
SPREADS = {
    "none": Components(reader_sd=0.0, case_sd=0.0),
    "mild": Components(reader_sd=0.05, case_sd=0.25),
    "as `studies plan` assumes": ASSUMED,
    "strong": Components(reader_sd=0.3, case_sd=0.8),
}
WORDS = ("none", "mild", "plan", "strong")
"""The same, on the figure."""
QUANTILES = (0.05, 0.5, 0.95)


def correlation(share: float) -> float:
    """Of two answers at 50 % correct that share this part of their latent variance."""
    return covariance(0.5, share) / 0.25


def design_effect(spread: Components) -> float:
    """Expected at 50 % correct, readers and images crossed."""
    of_reader, of_case = correlation(spread.reader_share), correlation(spread.case_share)
    return 1 + (N_CASES - 1) * of_reader + (N_READERS - 1) * of_case


def simulated(spread: Components, rng: np.random.Generator) -> np.ndarray:
    """A table with exactly the published number of right answers. (R, N)"""
    latent = rng.standard_normal((N_READERS, N_CASES))
    latent += rng.normal(0, spread.reader_sd, (N_READERS, 1))
    latent += rng.normal(0, spread.case_sd, N_CASES)
    return latent >= np.partition(latent.ravel(), N_TRIALS - N_CORRECT)[N_TRIALS - N_CORRECT]


def under(spread: Components, n_tables: int, rng: np.random.Generator) -> dict:
    """What the crossed analysis says of many tables with the published margin."""
    rows = []
    for _ in range(n_tables):
        found = random_readers_and_cases(simulated(spread, rng))
        numbers = found.estimate, found.standard_error, found.df
        difference = clustered_difference(*numbers, null=0.5)
        equivalence = clustered_tost(*numbers, **MARGIN)
        rows.append(
            {
                "design_effect": found.design_effect,
                "df": found.df,
                "ci_low": found.ci_low,
                "ci_high": found.ci_high,
                "p_difference": difference,
                "p_equivalence": equivalence.p_value,
                "verdict": verdict(equivalence, difference).value,
            }
        )
    verdicts = [row.pop("verdict") for row in rows]
    planned = size_study(
        components=spread,
        n_readers=[N_READERS],
        n_cases=[N_CASES],
        n_simulations=max(1000, 5 * n_tables),
    )
    return {
        "reader_sd": spread.reader_sd,
        "case_sd": spread.case_sd,
        "reader_sd_of_accuracy": sqrt(correlation(spread.reader_share)) / 2,
        "case_correlation": correlation(spread.case_share),
        "expected_design_effect": design_effect(spread),
        **{key: np.quantile([row[key] for row in rows], QUANTILES).tolist() for key in rows[0]},
        "verdicts": {word: verdicts.count(word) / n_tables for word in sorted(set(verdicts))},
        "power_of_equivalence": planned.designs[0].equivalence.power,
    }


def undoing(distance: float, level: float, df: float) -> dict:
    """The design effect at which an interval of that level reaches `distance` from its estimate,
    and the spread of readers that alone would make it.
    """
    quantile = student_t.ppf(0.5 + level / 2, df)
    effect = distance**2 / quantile**2 / (ACCURACY * (1 - ACCURACY) / N_TRIALS)
    reader_sd = sqrt((effect - 1) / (N_CASES - 1) * ACCURACY * (1 - ACCURACY))
    return {"design_effect": effect, "reader_sd_of_accuracy": reader_sd}


def naive(n_correct: int, n_trials: int) -> dict:
    """As if all judgements were independent."""
    interval, test = wilson(n_correct, n_trials), exact_tost(n_correct, n_trials, **MARGIN)
    p_value = chance_test(n_correct, n_trials).p_value
    return {
        "n_correct": n_correct,
        "n_trials": n_trials,
        "accuracy": n_correct / n_trials,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "p_difference": p_value,
        "p_equivalence": test.p_value,
        "verdict": verdict(test, p_value).value,
        "design_effect_that_undoes_difference": (n_correct / n_trials - 0.5) ** 2
        / student_t.ppf(0.975, np.inf) ** 2
        / (n_correct * (n_trials - n_correct) / n_trials**3),
    }


def measured(n_tables: int, seed: int) -> dict:
    """All numbers of the page."""
    rng = np.random.default_rng(seed)
    above, below = ACCURACY - 0.5, MARGIN["high"] - ACCURACY
    second_sample = chi2_contingency([[779, 721], [750, 750]], correction=False)
    return {
        "seed": seed,
        "n_tables": n_tables,
        "naive": naive(N_CORRECT, N_TRIALS),
        "spreads": {name: under(spread, n_tables, rng) for name, spread in SPREADS.items()},
        "undone": {
            "difference": {
                "images": undoing(above, 0.95, np.inf),
                "readers": undoing(above, 0.95, N_READERS - 1),
            },
            "equivalence": {
                "images": undoing(below, 0.90, np.inf),
                "readers": undoing(below, 0.90, N_READERS - 1),
            },
        },
        "park": {
            "accuracy": naive(1781, 3000),
            "specificity": naive(779, 1500),
            "p_against_a_second_sample": float(second_sample.pvalue),
        },
    }


# --------------------------------------------------------------------------------- page and figure


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def p_words(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def spread_words(quantiles: list[float], words=lambda value: f"{value:.1f}") -> str:
    """`3.2 (1.9–5.1)`: median and the middle 90 %."""
    low, middle, high = (words(value) for value in quantiles)
    return f"{middle} ({low}–{high})"


def published(results: dict) -> str:
    one = results["naive"]
    low, high = percent(one["ci_low"]), percent(one["ci_high"])
    return "\n".join(
        [
            "| 1,507 of 2,880, as if independent | |",
            "| --- | --- |",
            f"| 95 % interval (Wilson) | {low}–{high} % |",
            f"| p against 50 %, exact | {p_words(one['p_difference'])} |",
            f"| p of equivalence within 45–55 %, exact TOST | {p_words(one['p_equivalence'])} |",
            f"| verdict | {one['verdict']}: different from chance, and equivalent |",
        ]
    )


def scenarios(results: dict) -> str:
    rows = results["spreads"]

    def line(title: str, cell) -> str:
        return f"| {title} | " + " | ".join(cell(one) for one in rows.values()) + " |"

    def concluded(*words: str):
        return lambda one: f"{100 * sum(one['verdicts'].get(word, 0) for word in words):.0f} %"

    return "\n".join(
        [
            "| assumed spread | " + " | ".join(rows) + " |",
            "| --- |" + " --- |" * len(rows),
            line(
                "SD of the readers' true accuracies, points",
                lambda one: percent(one["reader_sd_of_accuracy"]),
            ),
            line(
                "correlation of two readers' answers to one image",
                lambda one: f"{one['case_correlation']:.2f}",
            ),
            line("design effect expected", lambda one: f"{one['expected_design_effect']:.1f}"),
            line("design effect found", lambda one: spread_words(one["design_effect"])),
            line("df", lambda one: spread_words(one["df"], lambda df: f"{df:.0f}")),
            line("95 % interval, lower end", lambda one: spread_words(one["ci_low"], percent)),
            line("95 % interval, upper end", lambda one: spread_words(one["ci_high"], percent)),
            line("p against 50 %", lambda one: spread_words(one["p_difference"], p_words)),
            line("p of equivalence", lambda one: spread_words(one["p_equivalence"], p_words)),
            line("tables that say “different”", concluded("different", "both")),
            line("tables that say “equivalent”", concluded("equivalent", "both")),
            line("tables that say neither", concluded("neither")),
            line(
                "power of the equivalence test, were the truth 50 %",
                lambda one: f"{100 * one['power_of_equivalence']:.0f} %",
            ),
        ]
    )


def undone(results: dict) -> str:
    lines = [
        "| what undoes it | design effect, if images differ | design effect, if readers differ | "
        "the latter as SD of the readers' accuracies, points |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in (
        ("difference", "“different from chance”: the 95 % interval reaches 50 %"),
        ("equivalence", "“equivalent within 5 points”: the 90 % interval reaches 55 %"),
    ):
        images, readers = (results["undone"][name][who] for who in ("images", "readers"))
        lines.append(
            f"| {title} | {images['design_effect']:.2f} | {readers['design_effect']:.2f} | "
            f"{percent(readers['reader_sd_of_accuracy'])} |"
        )
    return "\n".join(lines)


def park(results: dict) -> str:
    found = results["park"]
    accuracy, specificity = found["accuracy"], found["specificity"]
    return "\n".join(
        [
            "| Park et al. (2021) | all images | generated images |",
            "| --- | --- | --- |",
            f"| right | {accuracy['n_correct']:,} of {accuracy['n_trials']:,} "
            f"({percent(accuracy['accuracy'])} %) | {specificity['n_correct']} of "
            f"{specificity['n_trials']:,} ({percent(specificity['accuracy'])} %) |",
            "| p as printed | < .001 | .29 |",
            f"| p against a second sample of 750 in 1,500 | – | "
            f"{found['p_against_a_second_sample']:.3f} |",
            f"| p against 50 %, exact, as if independent | {p_words(accuracy['p_difference'])} | "
            f"{specificity['p_difference']:.3f} |",
            f"| design effect that undoes “different” | "
            f"{accuracy['design_effect_that_undoes_difference']:.0f} | not different anyhow |",
        ]
    )


TABLES = {"published": published, "scenarios": scenarios, "undone": undone, "park": park}


def filled(text: str, results: dict) -> str:
    """The page with every table between its comments made anew."""
    for name, table in TABLES.items():
        text = with_table(text, name, table(results))
    return text


def draw(results: dict, path: Path) -> None:
    """Both intervals against the design effect, and where the four spreads lie."""
    effects = np.geomspace(1, 16, 200)
    errors = 100 * np.sqrt(effects * ACCURACY * (1 - ACCURACY) / N_TRIALS)
    with mpl.rc_context({**STYLE, "figure.facecolor": "white"}):
        figure = Figure(figsize=(7.2, 3.5), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, level, limit, title in (
            (panels[0], "difference", 0.95, 50, "Different from chance? 95 % interval"),
            (panels[1], "equivalence", 0.90, 55, "Equivalent within 5 points? 90 % interval"),
        ):
            axes.axhline(100 * ACCURACY, color=INK, linewidth=0.8)
            axes.axhline(limit, color=GENERATED, linewidth=1.2, linestyle=":")
            axes.text(15.6, limit + 0.2, f"{limit} %", ha="right", color=GENERATED)
            for who, df, line, marker, va in (
                ("images", np.inf, "-", "o", "top"),
                ("readers", N_READERS - 1, "--", "s", "bottom"),
            ):
                reach = student_t.ppf(0.5 + level / 2, df) * errors
                label = f"only {who} differ ({'normal' if who == 'images' else 't, 9 df'})"
                for edge in (100 * ACCURACY + reach, 100 * ACCURACY - reach):
                    axes.plot(effects, edge, line, color=HEADLINE, linewidth=1.2, label=label)
                    label = None
                effect = results["undone"][name][who]["design_effect"]
                axes.plot(effect, limit, marker, color=GENERATED, markersize=5, zorder=3)
                below = limit + (0.6 if va == "bottom" else -0.7)
                axes.text(effect, below, f"{effect:.2f}", ha="center", va=va, color=GENERATED)
            for spread, word in zip(results["spreads"].values(), WORDS, strict=True):
                axes.axvline(spread["expected_design_effect"], color=RULE, linewidth=0.8, zorder=0)
                axes.text(spread["expected_design_effect"], 41.3, f" {word}", color=QUIET, size=8)
            axes.set_xscale("log", base=2)
            axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
            axes.set(xlim=(1, 18), ylim=(41, 64))
            axes.set_title(title, fontsize=9, loc="left")
        figure.supxlabel("design effect (variance over that of independent judgements)", size=9)
        panels[0].set_ylabel("judgements that were right (%)")
        panels[0].legend(frameon=False, fontsize=8, loc="upper left")
        figure.savefig(path, metadata={"Date": None})


def main(n_tables: int = 2000, seed: int = 1) -> None:
    """Simulate, write the JSON and the figure, and fill the page."""
    results = measured(n_tables, seed)
    JSON.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, FIGURE)
    PAGE.write_text(filled(PAGE.read_text(), results))
    print("\n\n".join(table(results) for table in TABLES.values()))


if __name__ == "__main__":
    typer.run(main)
