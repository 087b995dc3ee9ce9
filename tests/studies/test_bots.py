"""Bots whose parameters the table must show."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from studies.bots import simulated_responses
from studies.components import components_from_pilot

ALIKE = {"d_prime_sd": 0.0, "criterion_sd": 0.0, "case_sd": 0.0, "lapse_rate": 0.0}
MANY = {"n_readers": 20, "n_cases": 2000}


def rates(table):
    said = table["response"] == "generated"
    return said[table["is_synthetic"]].mean(), said[~table["is_synthetic"]].mean()


def right(table):
    return (table["response"] == "generated") == table["is_synthetic"]


def test_every_reader_judges_every_case_once_in_an_order_of_its_own():
    table = simulated_responses(n_readers=4, n_cases=30)
    assert len(table) == 120
    assert not table.duplicated(["participant_id", "stimulus_id"]).any()
    assert not table.duplicated(["participant_id", "trial_number"]).any()
    orders = table.groupby("participant_id")["stimulus_id"].agg(tuple)
    assert orders.nunique() == 4
    assert table["participant_id"].iloc[0] == "reader-1"


def test_a_case_has_one_truth_and_one_class_and_half_of_each_class_is_generated():
    table = simulated_responses(n_readers=3, n_cases=32)
    assert (table.groupby("stimulus_id")[["is_synthetic", "class_name"]].nunique() == 1).all(
        axis=None
    )
    assert (table.groupby("class_name")["is_synthetic"].mean() == 0.5).all()


def test_the_columns_have_the_types_of_a_table_that_was_read():
    table = simulated_responses(n_readers=2, n_cases=10)
    kinds = {name: table[name].dtype.kind for name in table}
    assert kinds["is_synthetic"] == "b"
    assert kinds["trial_number"] == kinds["confidence"] == "i"
    assert kinds["response_time_s"] == "f"
    assert set(table["response"]) == {"real", "generated"}
    assert table["response_time_s"].min() > 0


def test_the_same_seed_gives_the_same_table_and_another_one_does_not():
    first = simulated_responses(n_readers=3, n_cases=20, seed=4)
    assert first.equals(simulated_responses(n_readers=3, n_cases=20, seed=4))
    assert not first.equals(simulated_responses(n_readers=3, n_cases=20, seed=5))


def test_d_prime_and_criterion_are_recovered():
    hits, false_alarms = rates(simulated_responses(d_prime=1.2, criterion=0.3, **MANY, **ALIKE))
    assert ndtri(hits) - ndtri(false_alarms) == pytest.approx(1.2, abs=0.04)
    assert -(ndtri(hits) + ndtri(false_alarms)) / 2 == pytest.approx(0.3, abs=0.02)


def test_lapses_are_coin_tosses():
    settings = ALIKE | {"lapse_rate": 0.2}
    hits, false_alarms = rates(simulated_responses(d_prime=8, **MANY, **settings))
    assert (hits, false_alarms) == pytest.approx((0.9, 0.1), abs=0.01)


def test_readers_differ_in_bias_as_told():
    table = simulated_responses(n_readers=200, n_cases=1000, **ALIKE | {"criterion_sd": 0.5})
    said = (table["response"] == "real").groupby(table["participant_id"]).mean()
    assert ndtri(said).std() == pytest.approx(0.5, abs=0.08)


def test_readers_and_cases_differ_as_told_in_the_units_of_the_plan():
    table = simulated_responses(
        n_readers=100, n_cases=1000, d_prime=0, d_prime_sd=0.6, criterion_sd=0, lapse_rate=0
    )
    table["is_correct"] = right(table)
    pilot = table.pivot(index="participant_id", columns="stimulus_id", values="is_correct")
    found = components_from_pilot(pilot.to_numpy())
    assert found.reader_sd == pytest.approx(0.3, abs=0.07)
    assert found.case_sd == pytest.approx(0.5, abs=0.04)


def test_learning_raises_d_prime_from_the_first_to_the_last_trial():
    table = simulated_responses(d_prime=1, learning=2, **MANY, **ALIKE)
    fifth = MANY["n_cases"] // 5
    early = right(table)[table["trial_number"] <= fifth].mean()
    late = right(table)[table["trial_number"] > 4 * fifth].mean()
    # The mean d′ of the first fifth is 0.2, that of the last 1.8.
    assert (early, late) == pytest.approx((ndtr(0.1), ndtr(0.9)), abs=0.02)


def test_a_bot_that_only_guesses_uses_all_of_its_confidence_scale():
    table = simulated_responses(d_prime=0, **MANY, **ALIKE)
    shares = table["confidence"].value_counts(normalize=True).sort_index()
    assert list(shares.index) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(shares, 1 / 6, atol=0.01)


def test_confident_answers_are_right_more_often_and_quicker():
    table = simulated_responses(d_prime=1, confidence_points=4, **MANY)
    assert right(table).groupby(table["confidence"]).mean().is_monotonic_increasing
    times = table.groupby("confidence")["response_time_s"].median()
    assert list(times.index) == [1, 2, 3, 4]
    assert times.is_monotonic_decreasing
