import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from studies.detection import crossed_detection
from studies.metacognition import meta_d_prime
from studies.obuchowski_rockette import obuchowski_rockette
from studies.reader_figures import auc_delong
from studies.references import REFERENCES, cited
from studies.section_confidence import (
    analyse_confidence,
    confidence_methods,
    confidence_reasons,
    ratio_over_readers,
)
from studies.section_confidence_figures import confidence_context, confidence_figures
from tests.studies.sections import all_right, judged, nothing_of, plan, text_of, with_answers

TABLE = judged(n_cases=100, d_prime=1.2)
FOUND = analyse_confidence(TABLE, nothing_of(TABLE), plan())
TEXT = text_of("report_confidence.html.jinja", confidence_context(FOUND))


def section(table):
    found = analyse_confidence(table, nothing_of(table), plan())
    return found, text_of("report_confidence.html.jinja", confidence_context(found))


def readers_by_cases(column):
    table = TABLE.pivot(index="participant_id", columns="stimulus_id", values=column)
    truth = TABLE.groupby("stimulus_id")["is_synthetic"].first().loc[table.columns]
    return table.to_numpy(), truth.to_numpy()


def test_area_is_that_of_answer_and_confidence_as_one_scale_with_readers_and_cases_random():
    # Halves apart, so that "generated" with confidence 1 follows "real" with confidence 1.
    sign = np.where(TABLE["response"] == "generated", 1, -1)
    table = TABLE.assign(score=sign * (TABLE["confidence"] - 0.5))
    scores = table.pivot(index="participant_id", columns="stimulus_id", values="score")
    _, truth = readers_by_cases("is_correct")
    expected = obuchowski_rockette(auc_delong(scores.loc[:, truth], scores.loc[:, ~truth])).means[0]
    assert FOUND.ratings.auc.estimate == pytest.approx(expected.estimate.estimate)
    # The jackknife's covariance is DeLong's but for a factor near 1.
    assert FOUND.ratings.auc.ci_low == pytest.approx(expected.estimate.ci_low, abs=1e-3)


def test_interval_for_these_readers_is_the_narrower_one():
    others, these = FOUND.ratings.auc, FOUND.ratings.auc_these_readers
    assert others.estimate == pytest.approx(these.estimate)
    assert these.ci_high - these.ci_low < others.ci_high - others.ci_low


def test_d_prime_and_criterion_are_those_of_all_readers_together():
    called, truth = readers_by_cases("response")
    expected = crossed_detection(called == "generated", truth)
    assert FOUND.detection.d_prime.mean == expected.d_prime.mean
    assert [one.d_prime for one in FOUND.detection.readers] == [
        one.d_prime for one in expected.readers
    ]


def test_readers_of_known_d_prime_are_recovered():
    table = judged(n_readers=8, n_cases=300, d_prime=1.5, d_prime_sd=0.1, case_sd=0.0)
    found, _ = section(table)
    assert found.detection.d_prime.mean.estimate == pytest.approx(1.5, abs=0.15)
    # Φ(d′ / √2), and confidence of these readers knows all that the answer knew.
    assert found.ratings.auc.estimate == pytest.approx(0.856, abs=0.025)
    assert found.ratings.m_ratio.ci_low < 1 < found.ratings.m_ratio.ci_high


def test_ratings_of_each_reader_count_every_judgement_once():
    for one in FOUND.ratings.readers:
        rows = TABLE[TABLE["participant_id"] == one.participant_id]
        assert sum(one.noise_counts) == (~rows["is_synthetic"]).sum()
        assert sum(one.signal_counts) == rows["is_synthetic"].sum()
        surest = (rows["response"] == "generated") & (rows["confidence"] == 6)
        assert one.signal_counts[-1] == (surest & rows["is_synthetic"]).sum()
        alone = meta_d_prime(one.noise_counts, one.signal_counts, fixed_criterion="absolute")
        assert one.meta.meta_d_prime == alone.meta_d_prime


def test_reliability_has_a_point_for_each_confidence_at_its_declared_probability():
    shares = TABLE.groupby("confidence")["is_correct"].mean()
    found = FOUND.ratings.reliability
    assert [one.mean_probability for one in found] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert [one.frequency.estimate for one in found] == pytest.approx(shares.tolist())


def test_parts_of_the_brier_score_add_up_and_are_printed():
    brier = FOUND.ratings.brier
    squared = (0.4 + TABLE["confidence"] / 10 - TABLE["is_correct"]) ** 2
    assert brier.score.estimate == pytest.approx(squared.mean())
    assert brier.reliability - brier.resolution + brier.uncertainty == pytest.approx(
        brier.score.estimate
    )
    assert f"resolution {brier.resolution:.4f}" in TEXT


def test_ratio_over_readers_is_the_ratio_of_the_means_within_fiellers_limits():
    meta, d = [0.9, 1.4, 1.1, 0.7], [1.0, 1.5, 1.3, 1.0]
    found = ratio_over_readers(meta, d, confidence_level=0.95)
    assert found.estimate == pytest.approx(np.mean(meta) / np.mean(d))
    for limit in (found.ci_low, found.ci_high):
        # At its limits the ratio is just told from the data: t = 3.182 with 3 degrees of freedom.
        left = np.array(meta) - limit * np.array(d)
        assert abs(left.mean()) / (left.std(ddof=1) / 2) == pytest.approx(3.182446, abs=1e-5)


def test_ratio_to_a_d_prime_around_0_is_not_estimable():
    found = ratio_over_readers([0.3, 0.2, 0.4], [0.1, -0.1, 0.02], confidence_level=0.95)
    assert found.reason == "the mean d′ is not told from 0, and a ratio to it has no bounds"
    one = ratio_over_readers([0.3, None], [0.1, 0.2], confidence_level=0.95)
    assert one.reason == "1 reader with a meta-d′ says nothing about other readers"


def test_section_prints_estimates_readers_and_figures():
    area = FOUND.ratings.auc
    assert f"{area.estimate:.2f} ({area.ci_low:.2f} to {area.ci_high:.2f})" in TEXT
    assert set(confidence_figures(FOUND)) == {"detection", "roc", "type_2", "reliability", "meta"}
    for reader in TABLE["participant_id"].unique():
        assert reader in TEXT


def test_results_are_json_in_full_precision():
    again = json.loads(json.dumps(asdict(FOUND), allow_nan=False))
    assert again["ratings"]["auc"]["estimate"] == FOUND.ratings.auc.estimate


def test_order_of_the_rows_does_not_matter():
    shuffled = TABLE.sample(frac=1, random_state=3)
    assert analyse_confidence(shuffled, nothing_of(TABLE), plan()) == FOUND


def test_without_confidence_d_prime_stays_and_the_section_says_why_the_rest_is_absent():
    found, text = section(TABLE.drop(columns="confidence"))
    assert found.ratings is None
    assert found.detection == FOUND.detection
    assert "has no column `confidence`: there are no ratings to analyse" in text


def test_one_reader_has_an_area_for_this_reader_only():
    found, text = section(TABLE[TABLE["participant_id"] == TABLE["participant_id"].iloc[0]])
    assert not found.ratings.auc.is_estimable
    assert found.ratings.auc_these_readers.is_estimable
    assert "1 reader who rated 2 pictures of each kind says nothing about other readers" in text
    assert found.ratings.brier.score.is_estimable


def test_perfect_readers_have_no_meta_d_prime_and_the_section_says_why():
    found, text = section(all_right(TABLE))
    assert found.ratings.meta_d_prime.estimate is None
    assert "Meta-d′ of reader-1, reader-2" in text
    assert "every answer was right" in text


def test_readers_who_say_one_thing_with_one_confidence_are_not_estimable():
    found, text = section(with_answers(TABLE, response="real", confidence=3))
    assert found.ratings.auc.estimate == 0.5
    assert not found.ratings.binormal.is_estimable
    assert "the ratings do not differ between pictures, so that the variance is 0" in text
    assert "one rating was given to every picture" in text


def test_a_reader_of_one_kind_of_picture_has_no_d_prime_and_is_named():
    first = TABLE["participant_id"].iloc[0]
    found, text = section(TABLE[(TABLE["participant_id"] != first) | TABLE["is_synthetic"]])
    assert found.not_detected == (first,)
    assert f"one kind of picture only: {first}" in text
    assert "no real picture was rated" in text


@pytest.mark.parametrize("n_trials", [1, 2])
def test_readers_of_one_or_two_trials_make_a_section(n_trials):
    found, text = section(TABLE.groupby("participant_id").head(n_trials))
    assert not found.ratings.auc.is_estimable
    assert "not estimable" in text


def test_methods_cite_only_what_was_run():
    with_all, without = (
        confidence_methods(FOUND),
        confidence_methods(section(TABLE.drop(columns="confidence"))[0]),
    )
    assert REFERENCES["Obuchowski 1995"] in cited(with_all)
    assert REFERENCES["Hautus 1995"] in cited(without)
    assert REFERENCES["Obuchowski 1995"] not in cited(without)
    with pytest.raises(KeyError, match="Nobody 1900"):
        cited(["As said [Nobody 1900]."])


def test_reasons_name_quantity_reader_and_why():
    table = pd.concat([all_right(TABLE.head(100)), TABLE.tail(500)])
    found = analyse_confidence(table, nothing_of(table), plan())
    first = table["participant_id"].iloc[0]
    assert f"Type-2 AUC of {first}: every answer was right." in confidence_reasons(found)
