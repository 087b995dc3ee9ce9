"""Sizing by simulation, against the report's own code, the formulas of TOST and known limits."""

import csv
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from rich.console import Console
from scipy.special import ndtri
from scipy.stats import multivariate_normal

from studies.components import (
    Components,
    ComponentsError,
    components_from_pilot,
    covariance,
)
from studies.crossed import CrossedError, random_readers_and_cases
from studies.equivalence import (
    clustered_difference,
    clustered_tost,
    exact_tost_power,
    tost_power,
)
from studies.planning import PlanningError, _batches, crossed_errors, size_study
from studies.planning_views import contours, table, to_csv

ALIKE = Components(reader_sd=0.0, case_sd=0.0)


def planned(**settings):
    return size_study(**{"n_simulations": 2000} | settings)


def only(size):
    (design,) = size.designs
    return design


def answers(rng, n_readers, n_cases, components, n_studies=1, mu=0.0):
    shape = (n_studies, n_readers, n_cases)
    latent = mu + rng.standard_normal(shape)
    latent += rng.normal(0, components.reader_sd, (n_studies, n_readers, 1))
    latent += rng.normal(0, components.case_sd, (n_studies, 1, n_cases))
    return latent > 0


def errors_of(tables):
    of_cases = tables.sum(axis=1)
    together = (of_cases * (of_cases - 1)).sum(axis=1)
    return crossed_errors(tables.sum(axis=2), together, tables.shape[2])


# ---------------------------------------------------------------------- the analysis of one study


@pytest.mark.parametrize("shape", [(2, 10), (3, 17), (9, 40), (30, 25)])
def test_many_studies_at_once_have_the_errors_of_the_report(shape):
    rng = np.random.default_rng(3)
    tables = answers(rng, *shape, Components(reader_sd=0.3), n_studies=50, mu=0.4)
    for table_, *found in zip(tables, *errors_of(tables), strict=True):
        report = random_readers_and_cases(table_)
        wanted = report.estimate, report.standard_error, report.df
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_studies_without_spread_have_the_errors_of_the_report_too():
    alike = np.tile(np.arange(12) % 2 == 0, (4, 1))
    for table_ in (alike, np.ones((4, 12), dtype=bool)):
        (estimate,), (error,), (df,) = errors_of(table_[None])
        report = random_readers_and_cases(table_)
        assert (estimate, df) == (report.estimate, np.inf)
        assert error == pytest.approx(report.standard_error, rel=1e-12, abs=0)


def test_the_share_of_studies_is_that_of_the_reports_own_tests():
    settings = {"truth": 0.52, "margin": 0.1}
    readers, cases = np.array([4, 7]), np.array([40])
    size = planned(n_readers=readers, n_cases=cases, n_simulations=1000, seed=8, **settings)
    batches = _batches(0.52, Components(), readers, cases, 1000, 8)
    found = np.concatenate(list(batches), axis=1)
    for number, design in enumerate(size.designs):
        studies = found[:, :, number, 0].T
        shown = [clustered_tost(*one, low=0.4, high=0.6).is_equivalent for one in studies]
        differ = [clustered_difference(*one, null=0.5) <= 0.05 for one in studies]
        assert design.equivalence.power == np.mean(shown)
        assert design.difference.power == np.mean(differ)


def test_smaller_designs_are_the_first_readers_and_cases_of_the_largest():
    readers, cases = np.array([3, 5]), np.array([20, 50])
    (found,) = _batches(0.5, Components(), readers, cases, 100, 1)
    rng = np.random.default_rng(1)
    latent = rng.standard_normal((100, 5, 50), np.float32)
    latent += rng.normal(0, 0.15, (100, 5, 1)).astype(np.float32)
    latent += rng.normal(0, 0.5, (100, 1, 50)).astype(np.float32)
    for i, j in np.ndindex(2, 2):
        wanted = errors_of(latent[:, : readers[i], : cases[j]] > 0)
        np.testing.assert_allclose(found[:, :, i, j], wanted, rtol=1e-12)


# --------------------------------------------------------------------------------- known limits


@pytest.mark.parametrize("n_alone", [288, 1000])
@pytest.mark.parametrize("n_readers", [5, 10])
def test_independent_trials_have_the_power_of_the_formula(n_readers, n_alone):
    # The margin of case B4, ± 5 points, shrunk to what n_alone trials are to 2,000 per reader.
    n_cases = 2000
    n_trials = n_readers * n_cases
    margin = 0.05 * np.sqrt(n_alone / n_trials)
    size = planned(
        margin=margin,
        components=ALIKE,
        n_readers=[n_readers],
        n_cases=[n_cases],
        n_simulations=1000,
    )
    limits = {"low": 0.5 - margin, "high": 0.5 + margin}
    error = np.sqrt(0.25 / n_trials)
    wanted = tost_power(error, df=n_readers - 1, truth=0.5, **limits)
    # 0.01 for Cov2, which is cut off at 0 and so a little too large on average.
    simulation_error = np.sqrt(wanted * (1 - wanted) / 1000)
    assert only(size).equivalence.power == pytest.approx(wanted, abs=3.5 * simulation_error + 0.01)
    # The exact test knows the variance, so the power of B4 is never exceeded where it is large.
    if n_alone >= 1000:
        assert only(size).equivalence.power < exact_tost_power(n_alone, low=0.45, high=0.55)


def test_equivalence_is_shown_too_often_by_at_most_the_level():
    size = planned(truth=0.5499999, margin=0.05, n_readers=[5, 20], n_cases=[100, 300])
    for design in size.designs:
        assert design.equivalence.power <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert max(design.equivalence.power for design in size.designs) > 0.02


def test_a_difference_is_found_too_often_by_about_the_level():
    size = planned(truth=0.5000001, n_readers=[10], n_cases=[200])
    assert only(size).difference.power == pytest.approx(0.05, abs=0.02)


def test_the_truth_is_the_mean_accuracy_of_the_bots():
    batches = _batches(0.7, Components(reader_sd=0.6), np.array([20]), np.array([200]), 2000, 1)
    estimates = np.concatenate([part[0] for part in batches])
    assert estimates.mean() == pytest.approx(0.7, abs=0.004)


def test_power_falls_as_readers_differ_more():
    powers = [
        only(planned(components=Components(reader_sd=sd), n_readers=[20], n_cases=[300]))
        for sd in (0.0, 0.15, 0.3)
    ]
    first, second, third = (design.equivalence.power for design in powers)
    assert first > second + 0.05
    assert second > third + 0.05


def test_more_cases_cannot_rescue_few_readers():
    size = planned(n_readers=[5], n_cases=[100, 2000], n_simulations=1000)
    assert size.designs[1].equivalence.power < 0.3
    assert size.smallest == ()
    assert size.fewest_readers == 12


def test_the_fewest_readers_are_what_endless_cases_need():
    readers = [10, 14]
    size = planned(n_readers=readers, n_cases=[2000], n_simulations=1000)
    below, above = (design.equivalence.power for design in size.designs)
    assert below < 0.8 - 0.03
    assert above > 0.8 + 0.03
    assert readers[0] < size.fewest_readers < readers[1]


def test_the_width_is_that_of_the_reports_intervals():
    rng = np.random.default_rng(5)
    reports = [random_readers_and_cases(one) for one in answers(rng, 8, 100, Components(), 1000)]
    wanted = np.mean([report.ci_high - report.ci_low for report in reports])
    assert only(planned(n_readers=[8], n_cases=[100])).width == pytest.approx(wanted, rel=0.03)


# ------------------------------------------------------------------------------------ the answer


def test_the_smallest_designs_reach_the_target_and_none_below_them_does():
    size = planned()
    assert [(one.n_readers, one.n_cases) for one in size.smallest] == [(20, 300), (30, 200)]
    for one in size.smallest:
        assert one.equivalence.power >= 0.8
    assert size.answer.startswith(
        "20 readers × 300 cases give 81 % power (simulation error ±0.9) to show equivalence within "
        "5 points of chance if the true accuracy is 50 % (30 × 200 reach 80 % too)."
    )
    assert "at least 12 readers with any number of cases" in size.answer


def test_a_design_of_fewer_than_five_readers_is_never_the_answer():
    size = planned(components=ALIKE, margin=0.1, n_readers=[3, 5], n_cases=[500])
    assert size.designs[0].equivalence.power > 0.8
    assert size.smallest == (size.designs[1],)


def test_when_nothing_suffices_the_answer_says_what_comes_nearest():
    size = planned(n_readers=[6], n_cases=[40])
    assert size.smallest == ()
    assert "No design here reaches 80 % power to show equivalence" in size.answer
    assert "6 readers × 40 cases come nearest" in size.answer
    assert "or a wider margin" in size.answer


def test_without_a_margin_the_power_is_that_of_a_difference():
    size = planned(truth=0.6, margin=None, n_readers=[5, 20], n_cases=[50, 200])
    assert all(one.equivalence is None for one in size.designs)
    assert "to find a difference from chance if the true accuracy is 60 %" in size.answer
    assert size.smallest[0].difference.power >= 0.8


def test_the_assumed_spread_is_stated_and_can_be_replaced():
    assert "0.15 and cases of 0.5 on the probit scale (assumed, not measured)" in (
        planned(n_readers=[5], n_cases=[50]).assumptions
    )
    measured = Components(reader_sd=0.3, case_sd=0.2, source="from a pilot of 9 readers")
    size = planned(components=measured, n_readers=[5], n_cases=[50])
    assert "0.3 and cases of 0.2 on the probit scale (from a pilot of 9 readers)" in (
        size.assumptions
    )


def test_the_seed_decides_the_numbers():
    settings = {"n_readers": [5], "n_cases": [100]}
    assert planned(**settings) == planned(**settings)
    assert planned(**settings).designs != planned(seed=2, **settings).designs


def test_the_result_is_json_and_progress_reaches_the_end():
    seen = []
    size = planned(n_readers=[5, 9], n_cases=[50, 500], on_progress=seen.append)
    assert json.loads(json.dumps(asdict(size), allow_nan=False))["designs"][0]["n_readers"] == 5
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == 1


# -------------------------------------------------------------------------------------- to be seen


def test_the_table_shows_power_and_width_of_every_design():
    size = planned(n_readers=[5, 30], n_cases=[100, 300])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(size))
    shown = console.export_text()
    for design in size.designs:
        assert f"{100 * design.equivalence.power:.1f} ± " in shown
        assert f"{100 * design.width:.1f}" in shown
    assert f"✓ {100 * size.designs[-1].equivalence.power:.1f}" in shown


def test_the_csv_holds_every_number_in_full():
    size = planned(truth=0.52, n_readers=[5, 30], n_cases=[100, 300])
    rows = list(csv.DictReader(io.StringIO(to_csv(size))))
    assert len(rows) == 4
    assert float(rows[2]["power_equivalence"]) == size.designs[2].equivalence.power
    assert float(rows[2]["power_difference"]) == size.designs[2].difference.power
    assert float(rows[2]["interval_width"]) == size.designs[2].width
    assert (rows[2]["n_readers"], rows[2]["n_cases"]) == ("30", "100")
    at_chance = list(csv.DictReader(io.StringIO(to_csv(planned(n_readers=[5], n_cases=[50])))))
    assert at_chance[0]["power_difference"] == ""


def test_the_contours_have_both_panels_and_the_line_of_the_target():
    shown = contours(planned())
    assert shown.startswith("<svg")
    for text in ("power (%)", "full width of the 95 % interval (points)", ">80<", ">readers<"):
        assert text in shown
    assert "#1c2733" in shown  # the line of the target


def test_contours_are_drawn_where_no_design_has_any_power():
    assert "<svg" in contours(planned(margin=0.001, n_readers=[5, 6], n_cases=[20, 30]))


def test_contours_of_a_single_design_are_refused():
    with pytest.raises(PlanningError, match="at least 2 numbers of readers and 2 of cases"):
        contours(planned(n_readers=[5], n_cases=[50, 100]))


# ------------------------------------------------------------------------------------ components


def test_the_covariance_is_that_of_the_bivariate_normal():
    for truth, share in ((0.5, 0.2), (0.8, 0.6)):
        normal = multivariate_normal(cov=[[1, share], [share, 1]])
        wanted = normal.cdf([ndtri(truth), ndtri(truth)]) - truth**2
        assert covariance(truth, share) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("truth", [0.5, 0.75])
@pytest.mark.parametrize(("reader_sd", "case_sd"), [(0.15, 0.5), (0.5, 0.2), (0.0, 0.0)])
def test_a_pilots_components_are_recovered(truth, reader_sd, case_sd):
    wanted = Components(reader_sd=reader_sd, case_sd=case_sd)
    rng = np.random.default_rng(11)
    mu = ndtri(truth) * wanted.latent_sd
    found = components_from_pilot(answers(rng, 200, 2000, wanted, mu=mu)[0])
    assert found.reader_sd == pytest.approx(reader_sd, abs=0.07)
    assert found.case_sd == pytest.approx(case_sd, abs=0.03)
    assert found.source == "from a pilot of 200 readers and 2000 cases"


def test_small_pilots_are_right_on_average():
    rng = np.random.default_rng(12)
    truth = Components(reader_sd=0.4, case_sd=0.5)
    found = [components_from_pilot(one) for one in answers(rng, 8, 80, truth, 300)]
    assert np.mean([one.reader_sd**2 for one in found]) == pytest.approx(0.16, rel=0.15)
    assert np.mean([one.case_sd**2 for one in found]) == pytest.approx(0.25, rel=0.15)


def test_a_pilot_that_says_nothing_of_noise_is_refused():
    for pilot in (np.ones((3, 12)), np.tile(np.arange(12) % 2, (4, 1))):
        with pytest.raises(ComponentsError, match="no noise to plan with"):
            components_from_pilot(pilot)
    with pytest.raises(CrossedError, match="lacks 1 of 12 cases"):
        components_from_pilot(np.where(np.eye(3, 12, k=11), np.nan, 1.0))
    with pytest.raises(ComponentsError, match="standard deviations of at least 0"):
        replace(ALIKE, reader_sd=-0.1)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"margin": 0.0}, "as a proportion between 0 and 0.5, such as 0.05"),
        ({"margin": 5.0}, "as a proportion between 0 and 0.5, such as 0.05"),
        ({"truth": 0.56}, "not inside the margin from 0.45 to 0.55"),
        ({"truth": 0.45}, "leave it out and look for a difference"),
        ({"truth": 1.0}, "give the true accuracy"),
        ({"margin": None}, "give a margin to show that they are equivalent"),
        ({"alpha": 0.5}, "give a level such as 0.05"),
        ({"confidence_level": 95}, "give a fraction such as 0.95"),
        ({"target_power": 80}, "give a fraction such as 0.8"),
        ({"n_readers": [1, 5]}, "1 reader says nothing about other readers"),
        ({"n_readers": [2, 4]}, "the report speaks of these readers only"),
        ({"n_cases": [5, 50]}, "fewer than 10 cases are too few"),
        ({"n_simulations": 100}, "simulate at least 1000"),
        ({"n_readers": [1000], "n_cases": [10_000]}, "or plan a smaller grid"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_advice(settings, advice):
    with pytest.raises(PlanningError, match=advice):
        planned(**settings)
