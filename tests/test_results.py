"""The numbers in README and docs/results.md are those of the result files, to the digit."""

import json

import pytest

from benchmarks.results_table import DECLARED, RESULTS, ROOT, SETS, filled, load
from diffusion.checkpoint import checkpoint_digest


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_of_a_page_are_those_of_the_result_files(page):
    text = (ROOT / page).read_text()
    assert filled(text) == text
    assert text.count("<!-- end -->") >= 1
    assert f"{load('val')['rows']['fused']['balanced_accuracy']['estimate']:.3f}" in text


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
