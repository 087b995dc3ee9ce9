import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from studies.discriminability import compare_observers, consensus_confidence
from studies.section_psychometric import (
    analyse_psychometric,
    psychometric_methods,
    psychometric_notes,
)
from studies.section_psychometric_figures import psychometric_context, psychometric_figures
from tests.studies.sections import all_right, judged, nothing_of, plan, text_of


def graded(n_readers=4, n_cases=200, threshold=0.0, width=2.0, seed=4):
    """Readers who are right along a known curve of the column `ease`; the last half is better."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(-2, 2, n_cases)
    rows = []
    for reader in range(n_readers):
        is_expert = 2 * reader >= n_readers
        # 80 % is at 0.8416 standard deviations, 5 to 95 % are 3.2897 of them.
        z = (ease - threshold + is_expert) * 3.2897 / width + 0.8416
        is_correct = rng.random(n_cases) < 0.5 + 0.48 * norm.cdf(z)
        rows += [
            {
                "participant_id": f"reader-{reader + 1}",
                "stimulus_id": f"case-{case}",
                "is_synthetic": bool(case % 2),
                "response": "generated" if right == bool(case % 2) else "real",
                "is_correct": right,
                "ease": ease[case],
                "experience": "expert" if is_expert else "student",
                "model_confidence": float(norm.cdf(ease[case] + 0.7)),
            }
            for case, right in enumerate(is_correct.tolist())
        ]
    return pd.DataFrame(rows)


TABLE = graded()
FOUND = analyse_psychometric(TABLE, nothing_of(TABLE), plan("ease"))
TEXT = text_of("report_psychometric.html.jinja", psychometric_context(FOUND))


def section(table, index):
    found = analyse_psychometric(table, nothing_of(table), plan(index))
    return found, text_of("report_psychometric.html.jinja", psychometric_context(found))


def named(found, kind):
    return [one for one in found.observers if one.kind == kind]


def test_threshold_width_and_lapse_of_known_readers_are_recovered():
    table = graded(n_cases=1500).query("experience == 'student'")
    found = analyse_psychometric(table, nothing_of(table), plan("ease"))
    pooled = found.observers[0]
    assert pooled.threshold.estimate == pytest.approx(0.0, abs=0.2)
    assert pooled.threshold.ci_low < 0 < pooled.threshold.ci_high
    assert pooled.width.ci_low < 2 < pooled.width.ci_high
    assert pooled.lapse_rate.ci_low < 0.02 < pooled.lapse_rate.ci_high


def test_readers_groups_and_all_of_them_are_on_one_axis_with_the_model():
    assert [one.kind for one in FOUND.observers] == (
        ["pooled", "group", "group"] + ["reader"] * 4 + ["model"]
    )
    expected = compare_observers(TABLE, index="ease", guess_rate=0.5).observers
    assert [one.name for one in named(FOUND, "reader")] == [one.name for one in expected]
    assert [one.n_correct for one in named(FOUND, "reader")] == [one.n_correct for one in expected]
    assert FOUND.observers[0].n_trials == len(TABLE)


def test_experts_have_the_lower_threshold_and_the_difference_says_how_surely():
    (difference,) = FOUND.differences
    assert (difference.first, difference.second) == ("expert", "student")
    assert difference.difference.ci_low < -1 < difference.difference.ci_high
    assert difference.probability_greater < 0.05


def test_guess_rate_of_readers_is_chance_and_freeing_it_is_shown_beside():
    pooled = FOUND.observers[0]
    assert (pooled.guess_rate.estimate, pooled.guess_rate.is_estimable) == (0.5, False)
    assert FOUND.free_guess.guess_rate.is_estimable
    assert "50.0 fixed" in TEXT
    assert "All readers, free guess" in TEXT


def test_model_is_right_where_its_confidence_in_the_true_class_exceeds_one_half():
    (model,) = named(FOUND, "model")
    pictures = TABLE.drop_duplicates("stimulus_id")
    assert model.n_trials == len(pictures)
    assert model.n_correct == (pictures["model_confidence"] > 0.5).sum()


def test_model_is_no_observer_where_its_own_confidence_is_the_index():
    found = analyse_psychometric(TABLE, nothing_of(TABLE), plan("model_confidence"))
    assert named(found, "model") == []
    assert found.index_label == "model’s confidence in the true class"
    assert found.observers[0].threshold.is_estimable


def test_consensus_leaves_the_reader_out():
    table = judged(n_readers=4, n_cases=100, case_sd=1.5, d_prime=1.0)
    found, text = section(table, "consensus")
    ordered = table.sort_values(["participant_id", "stimulus_id"])
    index = consensus_confidence(ordered)
    pooled = found.observers[0]
    total = np.dot(pooled.block_levels, pooled.block_n_trials)
    assert total == pytest.approx(index.sum())
    assert "mean confidence of the other readers (1 to 6)" in text
    assert any("nobody’s own confidence counts" in said for said in psychometric_methods(found))


def test_section_has_curves_posteriors_and_the_common_axis():
    assert set(psychometric_figures(FOUND)) == {"curves", "posteriors", "observers"}
    pooled = FOUND.observers[0]
    low, high = np.array(pooled.curve.band_low), np.array(pooled.curve.band_high)
    assert (low < pooled.curve.proportion).all()
    assert (high > pooled.curve.proportion).all()
    values, density = map(np.array, pooled.posteriors["width"])
    assert np.trapezoid(density, values) == pytest.approx(1, abs=0.01)
    assert set(pooled.posteriors) == {"threshold_unscaled", "width", "lambda", "eta"}
    assert f"{pooled.threshold.estimate:.2f}".replace("-", "−") in TEXT
    assert "expert − student" in TEXT


def test_results_are_json_and_do_not_depend_on_the_order_of_rows():
    json.dumps(asdict(FOUND), allow_nan=False)
    shuffled = TABLE.sample(frac=1, random_state=3)
    assert analyse_psychometric(shuffled, nothing_of(TABLE), plan("ease")) == FOUND


@pytest.mark.parametrize(
    ("index", "dropped", "why"),
    [
        (None, [], "The protocol names no index of discriminability"),
        ("consensus", [], "the response table has no column `confidence`"),
        ("ease", ["ease"], "has no column `ease`, which the protocol names"),
        ("experience", [], "`experience`, which the protocol names, does not hold numbers"),
    ],
)
def test_section_without_an_index_says_why_it_is_absent(index, dropped, why):
    found, text = section(TABLE.drop(columns=dropped), index)
    assert found.observers == ()
    assert psychometric_methods(found) == ()
    assert why in text


def test_one_reader_has_no_consensus():
    table = judged(n_readers=1)
    assert "no two readers judged the same picture" in section(table, "consensus")[1]


def test_pictures_without_an_index_are_counted_and_left_out():
    table = TABLE.assign(ease=TABLE["ease"].where(TABLE["stimulus_id"] != "case-0"))
    found = analyse_psychometric(table, nothing_of(table), plan("ease"))
    assert found.observers[0].n_left_out == 4
    assert "4 judgements of pictures without an index are left out." in psychometric_notes(found)


def test_readers_who_are_always_right_have_no_curve_and_the_section_says_why():
    found, text = section(all_right(TABLE), "ease")
    assert not any(one.threshold.is_estimable for one in named(found, "reader"))
    assert "the curve is not estimable: all 800 answers are right" in text
    assert "(reader-1, reader-2, reader-3, reader-4)" in " ".join(psychometric_notes(found))


def test_one_trial_of_each_reader_is_too_few():
    found, text = section(TABLE.groupby("participant_id").head(1), "ease")
    assert not found.observers[0].threshold.is_estimable
    assert "For all readers together the curve is not estimable" in text


def test_an_index_that_does_not_vary_gives_no_curve():
    text = section(TABLE.assign(ease=1.0), "ease")[1]
    assert "are at one level (1), so the index does not vary" in text


def test_a_single_group_is_no_group():
    table = TABLE.assign(experience="expert")
    found = analyse_psychometric(table, nothing_of(table), plan("ease"))
    assert named(found, "group") == []
    assert found.differences == ()
