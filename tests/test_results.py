"""The numbers in README and docs/results.md are those of the result files, to the digit."""

import json

import pytest

from benchmarks import results_table
from benchmarks.results_table import DECLARED, RESULTS, ROOT, SETS, abstention, filled, load
from diffusion.checkpoint import checkpoint_digest


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_of_a_page_are_those_of_the_result_files(page):
    text = (ROOT / page).read_text()
    assert filled(text) == text
    assert text.count("<!-- end -->") >= 1
    assert f"{load('val')['rows']['fused']['balanced_accuracy']['estimate']:.3f}" in text


def test_the_table_of_abstention_shows_what_each_guard_leaves(monkeypatch):
    def share(estimate):
        return {"estimate": estimate, "ci_low": estimate - 0.05, "ci_high": estimate + 0.05, "n": 9}

    rule = {"risk": 0.02, "confident": share(0.9), "wrong_confident": share(0.3)}
    rule |= {"foreign_texture": share(0.7), "given": share(0.2), "wrong_given": None}
    result = {"rows": {"fused": {"abstention": rule}}, "flagged_as_anomalous": share(0.8)}
    monkeypatch.setattr(results_table, "load", lambda name: result)
    head, line, *rows = abstention().split("\n")
    assert head == (
        "| set | risk vouched for | confident | wrong of those confident | foreign texture | "
        "verdict given | wrong of those given | flagged as anomalous |"
    )
    assert line.count("|") == head.count("|") == rows[0].count("|")
    assert len(rows) == len(SETS) + len(DECLARED)
    assert rows[0].endswith(
        " | 2% | 0.900 (0.850–0.950) | 0.300 (0.250–0.350) | 0.700 (0.650–0.750) | "
        "0.200 (0.150–0.250) | – | 0.800 (0.750–0.850) |"
    )


def test_a_set_without_rule_or_reference_has_dashes(monkeypatch):
    whole = {"estimate": 1.0, "ci_low": 0.9, "ci_high": 1.0, "n": 30}
    rule = {"risk": None, "confident": whole, "wrong_confident": whole, "foreign_texture": None}
    rule |= {"given": whole, "wrong_given": whole}
    result = {"rows": {"fused": {"abstention": rule}}, "flagged_as_anomalous": None}
    monkeypatch.setattr(results_table, "load", lambda name: result)
    cells = [cell.strip() for cell in abstention().split("\n")[2].split("|")[2:-1]]
    assert [i for i, cell in enumerate(cells) if cell == "–"] == [0, 3, 6]


def test_the_results_are_those_of_the_checkpoint_that_ships():
    digest = checkpoint_digest(ROOT / "checkpoints" / "pbc64")
    assert {load(name)["checkpoint_digest"] for name in (*SETS, *DECLARED)} == {digest}


def test_opponents_and_checkpoint_were_judged_on_the_same_cells():
    for opponent in ("cnn", "knn"):
        sets = json.loads((RESULTS / f"{opponent}.json").read_text())["sets"]
        for name in SETS:
            assert sets[name]["data_digest"] == load(name)["data_digest"], (opponent, name)


def test_the_shipped_checkpoint_is_small_enough_for_a_repository():
    folder = ROOT / "checkpoints" / "pbc64"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size <= 16 * 2**20


def test_the_model_card_quotes_the_results():
    card = (ROOT / "checkpoints" / "pbc64" / "README.md").read_text()
    for name in SETS:
        fused = load(name)["rows"]["fused"]["balanced_accuracy"]
        assert f"{fused['estimate']:.3f}" in card, name
