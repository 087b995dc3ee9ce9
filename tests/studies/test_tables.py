import csv
import io
import json
import re
from itertools import product

import pytest

from studies.analysis import analyse
from studies.bots import simulated_responses
from studies.protocol import AnalysisPlan, Protocol
from studies.tables import csv_tables, latex, markdown

NAMES = ("P_1 & co", "50 % {of} #2", "a|b>c", "C:\\x~y^z$")
"""Each with what Markdown or LaTeX would take for its own."""
NUMBERS = ("estimate", "ci_low", "ci_high", "standard_error", "df")


@pytest.fixture(scope="module")
def results():
    table = simulated_responses(n_readers=4, n_cases=16, d_prime=1.0, class_names=("ig", "mono"))
    names = dict(zip(table["participant_id"].unique(), NAMES, strict=True))
    table = table.assign(participant_id=table["participant_id"].map(names))
    plan = AnalysisPlan(secondary=("sensitivity", "d_prime", "drift", "class", "generator"))
    protocol = Protocol(study_id="s", n_participants=4, n_trials=16, analysis=plan)
    return analyse(protocol, table, data_digest="")


@pytest.fixture(scope="module")
def plain(results):
    return json.loads(results.to_json())


@pytest.fixture(scope="module")
def tables(results):
    return {
        name: list(csv.DictReader(io.StringIO(text))) for name, text in csv_tables(results).items()
    }


def number(cell):
    return float(cell) if cell else None


def same(row, estimate):
    """A row of a CSV holds the numbers of `results.json`, to the last digit; empty is null."""
    for name in NUMBERS:
        assert number(row[name]) == estimate[name], name
    assert row["reason"] == (estimate["reason"] or "")
    assert row["method"] == estimate["method"]


def test_there_is_a_csv_for_each_kind_of_result(tables):
    assert set(tables) == {"outcomes.csv", "secondary.csv", "readers.csv", "parts.csv"}


def test_the_outcomes_read_back_to_the_numbers_of_the_json(tables, plain):
    rows = tables["outcomes.csv"]
    assert len(rows) == 3 * len(plain["outcomes"]) == 12
    whose = ("other_readers", "these_readers", "naive")
    for row, (one, whom) in zip(rows, product(plain["outcomes"], whose), strict=True):
        assert row["outcome"] == one["name"]
        assert row["interval_for"].startswith(whom.replace("_", " "))
        assert number(row["n_judgements"]) == one["n_judgements"]
        same(row, one[whom])
        of_others = one["design_effect"] if whom == "other_readers" else None
        assert number(row["design_effect"]) == of_others
    assert rows[2]["interval_for"] == "naive, comparison only"


def test_the_secondary_outcomes_read_back_with_both_p_values(tables, plain):
    rows = tables["secondary.csv"]
    assert [row["outcome"] for row in rows] == [one["name"] for one in plain["secondary"]]
    assert [row["outcome"] for row in rows] == [
        *("sensitivity", "d_prime", "drift", "class", "generator")
    ]
    for row, one in zip(rows, plain["secondary"], strict=True):
        same(row, one["estimate"])
        for column, name in (("p_value", "p_value"), ("p_holm", "p_adjusted")):
            assert number(row[column]) == one[name]
        assert number(row["tested_against"]) == one["null"]
    assert rows[-1]["reason"] == "the responses name fewer than two in the column `generator`"


def test_the_readers_read_back_with_their_names_and_counts(tables, plain):
    rows = tables["readers.csv"]
    assert sorted(row["participant_id"] for row in rows) == sorted(NAMES)
    for row, one in zip(rows, plain["readers"], strict=True):
        same(row, one["accuracy"])
        assert row["participant_id"] == one["participant_id"]
        for name in ("hits", "misses", "false_alarms", "correct_rejections", "d_prime",
                     "d_prime_ci_low", "d_prime_ci_high", "criterion"):  # fmt: skip
            assert number(row[name]) == one["detection"][name], name
        assert int(row["n_correct"]) == int(row["hits"]) + int(row["correct_rejections"])
        assert number(row["median_response_time_s"]) == one["median_response_time_s"]


def test_the_parts_read_back_and_say_what_they_are_parts_of(tables, plain):
    rows = tables["parts.csv"]
    kinds = {
        "class, real": "by_class_real",
        "class, generated": "by_class_generated",
        "confidence": "by_confidence",
        "trials": "by_block",
    }
    assert list(dict.fromkeys(row["by"] for row in rows)) == list(kinds)
    expected = [one for name in kinds.values() for one in plain[name]]
    for row, one in zip(rows, expected, strict=True):
        assert row["group"] == one["name"]
        same(row, one["accuracy"])


def test_a_table_without_rows_is_no_file():
    table = simulated_responses(n_readers=2, n_cases=8)[
        ["participant_id", "stimulus_id", "is_synthetic", "response"]
    ]
    protocol = Protocol(study_id="s", n_participants=2, n_trials=8)
    found = analyse(protocol, table, data_digest="")
    assert set(csv_tables(found)) == {"outcomes.csv", "readers.csv"}
    for text in (markdown(found), latex(found)):
        assert "Secondary" not in text
        assert "None" not in text
        assert "nan" not in text.lower()


def test_the_markdown_tables_have_a_row_for_each_result_and_no_row_is_broken(results):
    titles = re.findall(r"\*\*(.*?)\*\*\n\n((?:\|.*\n)+)", markdown(results))
    assert [title.split()[0] for title, _ in titles] == ["Outcomes", "Secondary", "Readers,"]
    for (_, block), n_rows, n_columns in zip(titles, (4, 5, 4), (4, 4, 5), strict=True):
        lines = block.splitlines()
        assert len(lines) == 2 + n_rows
        for line in lines:
            assert len(re.findall(r"(?<!\\)\|", line)) == n_columns + 1
        assert set(lines[1]) == set("| -")
    assert "| a\\|b>c | " in markdown(results)


def test_the_markdown_holds_the_numbers_of_the_report(results):
    accuracy, headline = results.outcomes[0], results.primary.interval
    low, high = 100 * headline.ci_low, 100 * min(1, headline.ci_high)
    row = (
        f"| Accuracy | {100 * headline.estimate:.1f} ({low:.1f} to {high:.1f}) | "
        f"{accuracy.design_effect:.2f} | 64 |"
    )
    assert row in markdown(results)


def test_latex_has_a_table_for_each_and_every_row_all_its_columns(results):
    text = latex(results)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 3
    for block, n_columns in zip(
        re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL),
        (4, 4, 5),
        strict=True,
    ):
        rows = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert len(rows) in (5, 6)
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {n_columns - 1}


def test_what_is_special_in_latex_is_escaped(results):
    text = latex(results)
    for name in (r"P\_1 \& co", r"50 \% \{of\} \#2", r"a\textbar{}b$>$c",
                 r"C:\textbackslash{}x\textasciitilde{}y\textasciicircum{}z\$"):  # fmt: skip
        assert f"{name} &" in text
    assert re.search(r"(?<!\\)[%#]", text) is None
    assert r"Accuracy (\%)" in text
    assert re.search(r"[′−–“”|]|(?<!\$)[<>]", text) is None
