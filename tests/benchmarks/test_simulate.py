"""The simulations use the intervals that the report uses, and the page says what they found."""

import json

import numpy as np
import pytest
from scipy.special import ndtr

from benchmarks import simulate
from benchmarks.monte_carlo import judged, mean
from benchmarks.simulated_crossed import (
    half_widths,
    is_equivalent,
    simulated,
    variances,
    wilson_limits,
)
from benchmarks.simulation_tables import PAGE, PROMISED, RESULTS, TABLES, draw, filled
from studies.clustered import rao_scott
from studies.crossed import fixed_readers, random_readers_and_cases
from studies.equivalence import clustered_tost
from studies.obuchowski_rockette import obuchowski_rockette
from studies.proportions import wilson
from studies.reader_figures import percent_correct_stratified
from studies.u_statistics import u_statistics_percent_correct

SIZES = [(2, 4), (3, 10), (5, 40), (8, 30)]


def tables(n_readers, n_cases, n_studies=25):
    rng = np.random.default_rng([n_readers, n_cases])
    chance = ndtr(rng.normal(0.3, 0.6, (n_studies, n_readers, 1)) + rng.normal(size=(1, n_cases)))
    return rng.random((n_studies, n_readers, n_cases)) < chance


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text())


def rows(results, section):
    return results["tables"][section]["rows"]


# The interval of many tables is that of one


@pytest.mark.parametrize(("n_readers", "n_cases"), SIZES)
def test_variances_and_degrees_of_freedom_are_those_of_the_methods(n_readers, n_cases):
    correct = tables(n_readers, n_cases)
    made = variances(correct).methods()
    kinds = np.arange(n_cases) < n_cases // 2
    for s, table in enumerate(correct):
        one = random_readers_and_cases(table)
        variance, df = made["crossed"]
        assert np.sqrt(variance[s]) == pytest.approx(one.standard_error)
        assert df[s] == pytest.approx(one.df)
        if one.is_estimable:
            half = half_widths(variance, df)[s]
            assert (one.estimate - half, one.estimate + half) == pytest.approx(
                (one.ci_low, one.ci_high)
            )
        by_case = fixed_readers(table)
        assert np.sqrt(made["by_case"][0][s]) == pytest.approx(by_case.standard_error)
        assert made["by_case"][1] == by_case.df
        by_reader = rao_scott(table.sum(axis=1), np.full(n_readers, n_cases)).proportion
        if by_reader.standard_error:
            assert np.sqrt(made["by_reader"][0][s]) == pytest.approx(by_reader.standard_error)
            assert made["by_reader"][1] == by_reader.df
        for name, other in (
            ("satterthwaite", u_statistics_percent_correct(table).means[0].estimate),
            ("stratified", obuchowski_rockette(percent_correct_stratified(table, kinds))
             .means[0].estimate),
        ):  # fmt: skip
            variance, df = made[name]
            if other.standard_error is not None:
                assert np.sqrt(variance[s]) == pytest.approx(other.standard_error), name
                assert df[s] == pytest.approx(np.inf if other.df is None else other.df), name


def test_a_table_without_variance_has_no_interval_and_so_covers_nothing():
    found = variances(np.ones((1, 5, 20), dtype=bool))
    half = half_widths(*found.methods()["crossed"])
    assert np.isnan(half).all()
    result = judged(np.array([0.4, np.nan]), np.array([0.6, np.nan]), 0.5)
    assert result["coverage"]["estimate"] == 0.5
    assert result["not_estimable"] == 0.5


def test_equivalence_of_many_tables_is_that_of_one():
    correct = tables(8, 30, n_studies=200)
    found = variances(correct)
    variance, df = found.methods()["crossed"]
    variance = variance / 20  # so that some are equivalent
    expected = [
        clustered_tost(p, np.sqrt(v), d, low=0.45, high=0.55).is_equivalent
        for p, v, d in zip(found.estimate, variance, df, strict=True)
    ]
    assert is_equivalent(found.estimate, variance, df).tolist() == expected
    assert 0 < sum(expected) < 200


def test_the_naive_limits_are_wilsons():
    low, high = wilson_limits(np.array([0.5, 0.9, 0.5]), 40)
    for s, n_correct in enumerate((20, 36, 20)):
        one = wilson(n_correct, 40)
        assert (low[s], high[s]) == (one.ci_low, one.ci_high)


@pytest.mark.parametrize(
    "design",
    [{"accuracy": 0.65}, {"accuracy": 0.5, "bias": 0.6, "bias_sd": 0.3}, {"accuracy": 0.9}],
)
def test_simulated_studies_have_the_accuracy_that_is_said(design):
    rng = np.random.default_rng(1)
    parts = list(simulated(2000, rng, n_readers=5, n_cases=40, **design))
    found = mean(np.concatenate([part.mean(axis=(1, 2)) for part in parts]))
    assert found["n"] == 2000
    assert found["estimate"] == pytest.approx(design["accuracy"], abs=0.01)


def test_a_reader_who_leans_towards_real_is_better_at_the_real_half():
    (correct,) = simulated(
        300, np.random.default_rng(2), n_readers=5, n_cases=40, accuracy=0.5, bias=0.6
    )
    assert correct[..., :20].mean() > 0.6
    assert correct[..., 20:].mean() < 0.4


# All of it runs


def test_the_whole_simulation_runs_and_fills_the_page(tmp_path):
    file = tmp_path / "out" / "quick.json"
    simulate.main(json_file=file, quick=True, seed=1)
    quick = json.loads(file.read_text())
    assert {name: len(one["rows"]) for name, one in quick["tables"].items()} == {
        name: len(section.rows) for name, section in simulate.SECTIONS.items()
    }
    assert quick["tables"]["coverage"]["n_studies"] == 40
    page = filled(PAGE.read_text(), quick)
    assert page.count("40 studies a row, seed 1") >= 3
    assert "nan" not in page
    draw(quick, tmp_path / "coverage.svg")
    assert "true accuracy 65 %" in (tmp_path / "coverage.svg").read_text()


# What the page says


def test_the_tables_of_the_page_are_those_of_the_file(results):
    text = PAGE.read_text()
    assert filled(text, results) == text
    assert text.count("<!-- end -->") == len(TABLES)


def test_a_row_of_the_file_can_be_made_again_alone(results):
    names = list(simulate.SECTIONS)
    section, index = simulate.SECTIONS["readers_alone"], 3
    of_file = results["tables"]["readers_alone"]
    rng = np.random.default_rng([results["seed"], names.index("readers_alone"), index])
    row = section.rows[index]
    again = section.simulate(of_file["n_studies"], rng, lambda n: None, **row)
    expected = of_file["rows"][index]["d_prime_found"]
    assert again["d_prime_found"]["mean"] == pytest.approx(expected["mean"])
    assert again["d_prime_found"]["coverage"] == expected["coverage"]


def test_the_crossed_interval_covers_as_promised_and_the_naive_one_fails(results):
    promised = [row for row in rows(results, "coverage") if row["accuracy"] in (0.5, 0.65)]
    sizes = {(row["n_readers"], row["n_cases"]) for row in promised}
    assert sizes == {(r, n) for r in (5, 10, 20) for n in (100, 300)}
    for row in promised:
        of = {name: found["coverage"]["estimate"] for name, found in row["methods"].items()}
        assert row["methods"]["crossed"]["coverage"]["n"] >= 2000
        assert PROMISED[0] <= of["crossed"] <= PROMISED[1], row
        assert of["naive"] < 0.7
        assert of["by_case"] < 0.9


def test_equivalence_is_claimed_wrongly_in_at_most_a_twentieth(results):
    for row in rows(results, "equivalence"):
        if row["accuracy"] in (0.45, 0.55):
            assert row["crossed"]["ci_low"] <= 0.05, row
    powers = [row["crossed"]["estimate"] for row in rows(results, "equivalence")]
    assert max(powers) > 0.8


def test_declared_looks_keep_the_error_from_eight_readers_on_and_undeclared_ones_do_not(results):
    for row in rows(results, "looks"):
        if row["n_readers"] / row["n_looks"] >= 8:
            for name in ("obrien-fleming", "pocock", "end_only"):
                assert row[name]["ci_low"] <= 0.052, (name, row)
        assert row["none"]["ci_low"] > 0.07


def test_areas_detection_and_metacognition_are_recovered(results):
    found = [row["methods"]["crossed"] for row in rows(results, "areas")]
    for row in rows(results, "readers_alone"):
        found.append(row["d_prime_found"] | {"truth": row["d_prime"]})
    for row in rows(results, "readers_together"):
        found += [row["mean_d_prime"], row["mean_criterion"]]
        assert row["readers"]["drawn"]["rms_error"] < row["readers"]["alone"]["rms_error"]
    for row in rows(results, "metacognition"):
        found += [row["meta_d_prime_found"], row["m_ratio_found"]]
    for one in found:
        assert one["mean"]["estimate"] == pytest.approx(one["truth"], abs=0.03)
        assert one["coverage"]["ci_high"] >= 0.94
        assert one["coverage"]["ci_low"] <= 0.97


def test_thresholds_and_lapses_of_bots_are_recovered(results):
    for row in rows(results, "curves"):
        threshold, lapse = row["threshold_unscaled_found"], row["lapse_rate_found"]
        assert threshold["mean"]["estimate"] == pytest.approx(threshold["truth"], rel=0.08)
        assert lapse["mean"]["estimate"] == pytest.approx(lapse["truth"], abs=0.01)
        assert threshold["coverage"]["ci_high"] >= 0.95
        assert lapse["coverage"]["ci_high"] >= 0.95 or not row["lapse_rate"]
