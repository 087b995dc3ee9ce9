"""The page says what the command found, and the command finds what theory says."""

import json

import numpy as np
import pytest

from benchmarks.worked_example import (
    ACCURACY,
    JSON,
    MARGIN,
    N_CORRECT,
    N_TRIALS,
    PAGE,
    SPREADS,
    design_effect,
    draw,
    filled,
    measured,
    naive,
    simulated,
    undoing,
)
from studies.components import ASSUMED
from studies.crossed import random_readers_and_cases
from studies.equivalence import clustered_difference, clustered_tost


@pytest.fixture(scope="module")
def results():
    return json.loads(JSON.read_text())


def error_of(effect):
    return np.sqrt(effect * ACCURACY * (1 - ACCURACY) / N_TRIALS)


def test_the_tables_of_the_page_are_those_of_the_result_file(results):
    page = PAGE.read_text()
    assert filled(page, results) == page
    assert page.count("<!-- end -->") == 4


def test_the_numbers_in_the_text_are_those_of_the_result_file(results):
    text = PAGE.read_text().split("<!-- end -->")[3]
    for claim in results["undone"].values():
        for who in claim.values():
            assert f"{who['design_effect']:.2f}" in text
        assert f"SD of {100 * claim['readers']['reader_sd_of_accuracy']:.1f} points" in text
    power = results["spreads"]["as `studies plan` assumes"]["power_of_equivalence"]
    assert f"| {100 * power:.0f} % |" in PAGE.read_text()


def test_the_result_file_is_what_the_command_computes(results):
    again = measured(n_tables=60, seed=2)
    for name, found in results["spreads"].items():
        other = again["spreads"][name]
        for key in ("ci_low", "ci_high"):
            assert other[key][1] == pytest.approx(found[key][1], abs=0.01)
        power = found["power_of_equivalence"]
        assert other["power_of_equivalence"] == pytest.approx(power, abs=0.1)
    assert again["naive"] == pytest.approx(results["naive"])
    for claim, found in results["undone"].items():
        for who, numbers in found.items():
            assert again["undone"][claim][who] == pytest.approx(numbers)


def test_the_naive_reading_is_both_and_the_published_interval(results):
    found = results["naive"]
    assert found["verdict"] == "both"
    assert [found["ci_low"], found["ci_high"]] == pytest.approx([0.505, 0.542], abs=6e-4)
    # Reference case B5.
    assert found["p_equivalence"] == pytest.approx(0.002108, abs=5e-7)


def test_reference_case_a4_is_one_sample_and_not_two(results):
    found = results["park"]
    assert found["specificity"]["p_difference"] == pytest.approx(0.141, abs=5e-4)
    assert found["p_against_a_second_sample"] == pytest.approx(0.2895, abs=5e-5)
    assert naive(1781, 3000)["p_difference"] == pytest.approx(9.4e-25, rel=0.01)


@pytest.mark.parametrize("spread", SPREADS.values(), ids=lambda spread: f"{spread.reader_sd}")
def test_simulated_tables_have_the_margin_and_the_design_effect_of_theory(spread):
    rng = np.random.default_rng(5)
    tables = [simulated(spread, rng) for _ in range(300)]
    assert {int(table.sum()) for table in tables} == {N_CORRECT}
    effects = [random_readers_and_cases(table).design_effect for table in tables]
    assert np.mean(effects) == pytest.approx(design_effect(spread), rel=0.12)


def test_the_spread_that_the_plan_assumes_leaves_neither_claim(results):
    found = results["spreads"]["as `studies plan` assumes"]
    assert found["reader_sd"] == ASSUMED.reader_sd
    assert found["verdicts"]["neither"] > 0.9


@pytest.mark.parametrize("df", [9, np.inf])
def test_at_the_design_effect_that_undoes_a_claim_its_interval_touches(df):
    at = error_of(undoing(ACCURACY - 0.5, 0.95, df)["design_effect"])
    assert clustered_difference(ACCURACY, at, df, null=0.5) == pytest.approx(0.05)
    at = error_of(undoing(0.55 - ACCURACY, 0.90, df)["design_effect"])
    assert clustered_tost(ACCURACY, at, df, **MARGIN).p_value == pytest.approx(0.05)


def test_the_figure_names_both_limits(results, tmp_path):
    draw(results, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    for words in ("50 %", "55 %", "1.22", "3.05", "design effect", "judgements that were right"):
        assert words in drawn
