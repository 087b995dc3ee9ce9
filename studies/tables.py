"""Results → tables: CSV in full precision, Markdown and LaTeX as a paper prints them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from studies.analysis import Results
from studies.estimate import Estimate
from studies.outcomes import Part
from studies.plotting import percent_estimate, share_estimate, signed_estimate
from studies.report import tested_text


def csv_tables(results: Results) -> dict[str, str]:
    """File name → CSV, one table each; empty cells are not estimable and `reason` says why."""
    outcomes = [
        {"outcome": one.name, "interval_for": whom}
        | _numbers(estimate)
        | {
            "design_effect": one.design_effect if whom == "other readers" else None,
            "n_readers": one.n_readers,
            "n_cases": one.n_cases,
            "n_correct": one.n_correct,
            "n_judgements": one.n_judgements,
        }
        for one in results.outcomes
        for whom, estimate in (
            ("other readers", one.other_readers),
            ("these readers", one.these_readers),
            ("naive, comparison only", one.naive),
        )
    ]
    secondary = [
        {"outcome": one.name, "label": one.label}
        | _numbers(one.estimate)
        | {"tested_against": one.null, "p_value": one.p_value, "p_holm": one.p_adjusted}
        for one in results.secondary
    ]
    readers = [
        {
            "participant_id": one.participant_id,
            "excluded": one.excluded,
            "n_trials": one.n_trials,
            "n_correct": one.n_correct,
        }
        | _numbers(one.accuracy)
        | (
            {
                name: getattr(one.detection, name)
                for name in (
                    "hits",
                    "misses",
                    "false_alarms",
                    "correct_rejections",
                    "d_prime",
                    "d_prime_ci_low",
                    "d_prime_ci_high",
                    "criterion",
                    "criterion_ci_low",
                    "criterion_ci_high",
                )
            }
            if one.detection
            else {}
        )
        | {"median_response_time_s": one.median_response_time_s}
        for one in results.readers
    ]
    parts = [
        {"by": by, "group": one.name, "n_correct": one.n_correct, "n_judgements": one.n_judgements}
        | _numbers(one.accuracy)
        for by, found in _parts(results)
        for one in found
    ]
    tables = {"outcomes": outcomes, "secondary": secondary, "readers": readers, "parts": parts}
    return {
        f"{name}.csv": pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        for name, rows in tables.items()
        if rows
    }


def markdown(results: Results) -> str:
    """The outcomes and the readers, as a paper's supplement prints them."""
    return "\n".join(
        f"**{title}**\n\n{_markdown(rows)}" for title, rows in _for_paper(results) if rows
    )


def latex(results: Results) -> str:
    """The same for LaTeX, with the rules of `booktabs`."""
    return "\n".join(
        pd.DataFrame(_escaped(rows)).to_latex(
            index=False, escape=False, caption=_tex(title), position="htbp"
        )
        for title, rows in _for_paper(results)
        if rows
    )


def _for_paper(results: Results) -> Iterable[tuple[str, list[dict[str, str]]]]:
    level = f"{100 * results.confidence_level:g} %"
    yield (
        f"Outcomes of {results.n_counted_readers} readers and {results.n_cases} pictures, with "
        f"{level} intervals for other readers and other pictures",
        [
            {
                "Outcome": one.label,
                "Estimate": (share_estimate if one.name == "auc" else percent_estimate)(
                    one.other_readers
                ),
                "Design effect": "–" if one.design_effect is None else f"{one.design_effect:.2f}",
                "n": str(one.n_judgements),
            }
            for one in results.outcomes
        ],
    )
    yield (
        f"Secondary outcomes, with {level} intervals",
        [
            {
                "Outcome": one.label,
                "Estimate": text["estimate"],
                "P": text["p"],
                "P (Holm)": text["p_adjusted"],
            }
            for one in results.secondary
            for text in (tested_text(one),)
        ],
    )
    yield (
        f"Readers, with {level} intervals of independent judgements",
        [
            {
                "Reader": one.participant_id,
                "Right": f"{one.n_correct}/{one.n_trials}",
                "Accuracy (%)": percent_estimate(one.accuracy),
                "d′": _detected(one.detection, "d_prime", results.confidence_level),
                "Criterion": _detected(one.detection, "criterion", results.confidence_level),
            }
            for one in results.readers
        ],
    )


def _detected(found: Any, name: str, level: float) -> str:
    if found is None:
        return "–"
    return signed_estimate(
        Estimate(
            estimate=getattr(found, name),
            ci_low=getattr(found, f"{name}_ci_low"),
            ci_high=getattr(found, f"{name}_ci_high"),
            confidence_level=level,
            method="",
        )
    )


def _numbers(found: Estimate) -> dict[str, Any]:
    names = ("estimate", "ci_low", "ci_high", "standard_error", "df", "method", "reason")
    return {name: getattr(found, name) for name in names}


def _parts(results: Results) -> Iterable[tuple[str, tuple[Part, ...]]]:
    yield "class, real", results.by_class_real
    yield "class, generated", results.by_class_generated
    yield "generator", results.by_generator
    yield "experience", results.by_experience
    yield "confidence", results.by_confidence
    yield "trials", results.by_block


def _markdown(rows: list[dict[str, str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    head = rows[0]
    return line(head) + line("---" for _ in head) + "".join(line(row.values()) for row in rows)


def _escaped(rows: list[dict[str, str]]) -> list[Mapping[str, str]]:
    return [{_tex(name): _tex(value) for name, value in row.items()} for row in rows]


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "_": r"\_",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": r"\textbar{}",
        "−": "$-$",
        "′": "$'$",
        "–": "--",
        "“": "``",
        "”": "''",
    }
)


def _tex(text: str) -> str:
    return text.translate(_TEX)
