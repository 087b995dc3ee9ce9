import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from studies.agreement import fleiss_kappa
from studies.krippendorff import krippendorff_alpha
from studies.references import REFERENCES
from studies.section_agreement import agreement_methods, agreement_reasons, analyse_agreement
from studies.section_agreement_figures import agreement_context, agreement_figures
from tests.studies.sections import all_right, judged, nothing_of, plan, text_of, with_answers

TABLE = judged(d_prime=1.0)


def shown_again(table, n_changed=0):
    """Ten pictures again for each reader, `n_changed` of them with another answer."""
    again = table.groupby("participant_id").head(10)
    other = again["response"].map({"real": "generated", "generated": "real"})
    is_changed = again.groupby("participant_id").cumcount() < n_changed
    response = again["response"].where(~is_changed, other)
    return with_answers(again, response=response, repeat_number=2)


FOUND = analyse_agreement(TABLE, shown_again(TABLE, 3), plan())


def section(table, repeats):
    found = analyse_agreement(table, repeats, plan())
    return found, text_of("report_agreement.html.jinja", agreement_context(found))


def by_name(found):
    return {one.name: one.agreement for one in found.coefficients}


def units(column):
    return TABLE.pivot(index="stimulus_id", columns="participant_id", values=column)


def test_coefficients_are_of_pictures_by_readers():
    expected = fleiss_kappa(units("response").to_numpy(dtype=object)).coefficient.estimate
    assert by_name(FOUND)["Fleiss’ κ"].coefficient.estimate == pytest.approx(expected)
    rating = np.where(TABLE["response"] == "generated", 6 + TABLE["confidence"], 7)
    rating = np.where(TABLE["response"] == "real", 7 - TABLE["confidence"], rating)
    ratings = TABLE.assign(rating=rating.astype(float)).pivot(
        index="stimulus_id", columns="participant_id", values="rating"
    )
    alpha = krippendorff_alpha(ratings.to_numpy(), scale="ordinal").coefficient.estimate
    found = by_name(FOUND)["Krippendorff’s α, ordinal"].coefficient.estimate
    assert found == pytest.approx(alpha)


def test_intervals_are_bootstrapped_over_pictures():
    for one in FOUND.coefficients:
        shown = one.agreement.bootstrap
        assert "bootstrap of 2,000 resamples of units" in shown.method
        assert shown.ci_low < shown.estimate < shown.ci_high


def test_pairs_are_the_shares_of_equal_answers():
    answers = units("response")
    first, second = FOUND.readers[0], FOUND.readers[1]
    assert FOUND.pairs[0][1] == pytest.approx((answers[first] == answers[second]).mean())
    assert FOUND.pairs[0][0] is None
    assert FOUND.pairs[2][5] == FOUND.pairs[5][2]
    off_diagonal = [share for row in FOUND.pairs for share in row if share is not None]
    percent = by_name(FOUND)["Percent agreement"].coefficient.estimate
    assert np.mean(off_diagonal) == pytest.approx(percent)


def test_readers_who_change_3_of_10_answers_agree_with_themselves_in_7():
    assert FOUND.consistency.percent.estimate == pytest.approx(0.7)
    assert [one.percent.estimate for one in FOUND.consistency.readers] == pytest.approx([0.7] * 6)
    assert FOUND.consistency.n_pairs == 60


def test_readers_are_in_the_order_in_which_people_count():
    table = judged(n_readers=11, n_cases=20)
    found = analyse_agreement(table, shown_again(table), plan())
    assert found.readers[-1] == found.consistency.readers[-1].reader == "reader-11"


def test_section_prints_coefficients_pairs_and_consistency():
    _, text = section(TABLE, shown_again(TABLE, 3))
    kappa = by_name(FOUND)["Fleiss’ κ"].bootstrap
    assert f"{kappa.estimate:.2f} (" in text
    assert "70.0 (" in text
    figures = agreement_figures(FOUND)
    assert set(figures) == {"coefficients", "pairs"}
    # The shares, and on the diagonal the reader with themselves.
    assert f">{100 * FOUND.pairs[0][1]:.0f}<" in figures["pairs"]
    assert ">70<" in figures["pairs"]


def test_results_are_json_and_do_not_depend_on_the_order_of_rows():
    json.dumps(asdict(FOUND), allow_nan=False)
    shuffled = TABLE.sample(frac=1, random_state=3)
    again = shown_again(TABLE, 3).sample(frac=1, random_state=4)
    assert analyse_agreement(shuffled, again, plan()) == FOUND


def test_without_repeats_the_section_says_so():
    found, text = section(TABLE, nothing_of(TABLE))
    assert found.consistency.readers == ()
    assert "not estimable: no reader was shown a case twice" in text
    assert len(agreement_methods(found)) < len(agreement_methods(FOUND))


def test_without_confidence_only_the_answers_are_compared():
    found, text = section(TABLE.drop(columns="confidence"), nothing_of(TABLE))
    assert list(by_name(found)) == list(by_name(FOUND))[:4]
    assert "no column `confidence`: only the answers were compared" in text


def test_one_reader_agrees_with_nobody():
    found, text = section(TABLE[TABLE["participant_id"] == "reader-1"], nothing_of(TABLE))
    assert set(agreement_figures(found)) == {"coefficients"}
    assert "Fleiss’ κ of answers: 1 rater rated, and agreement needs two." in text


def test_readers_who_all_say_real_have_no_kappa():
    found, text = section(with_answers(TABLE, response="real"), nothing_of(TABLE))
    assert by_name(found)["Percent agreement"].observed == 1
    assert "Fleiss’ κ of answers: all ratings are the same, so chance alone would agree." in text


def test_perfect_readers_agree_perfectly_without_an_interval():
    found, _ = section(all_right(TABLE), nothing_of(TABLE))
    assert by_name(found)["Fleiss’ κ"].coefficient.estimate == pytest.approx(1)
    assert "no sign of certainty" in " ".join(agreement_reasons(found))


def test_readers_of_different_pictures_have_no_pair():
    n = len(TABLE) // 6
    parts = [TABLE.iloc[n * i : n * i + n].sort_values("stimulus_id") for i in range(6)]
    apart = pd.concat([part.iloc[10 * i : 10 * i + 10] for i, part in enumerate(parts)])
    found, text = section(apart, nothing_of(TABLE))
    assert all(share is None for row in found.pairs for share in row)
    assert "no units have two ratings" in text


def test_one_trial_makes_a_section():
    assert "1 reader on 1 picture;" in section(TABLE.head(1), nothing_of(TABLE))[1]


def test_more_readers_than_names_fit_are_still_drawn():
    table = judged(n_readers=30, n_cases=20)
    found = analyse_agreement(table, nothing_of(table), plan())
    pairs = agreement_figures(found)["pairs"]
    assert "reader-30" not in pairs
    assert "<image" not in pairs


def test_the_section_brings_the_sources_that_its_methods_cite():
    context = agreement_context(FOUND)
    cited_keys = [key for key in REFERENCES if f"[{key}]" in " ".join(context["agreement_methods"])]
    assert {REFERENCES[key] for key in cited_keys} == set(context["agreement_sources"])
    assert len(cited_keys) >= 3
