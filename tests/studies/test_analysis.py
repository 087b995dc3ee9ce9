import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from studies.analysis import AnalysisError, analyse
from studies.bots import simulated_responses
from studies.equivalence import Verdict
from studies.outcomes import outcome
from studies.protocol import AnalysisPlan, ExclusionRules, Protocol
from studies.report import answer, conclusion, render
from studies.responses import ResponseError
from studies.sequential import UndeclaredLookError, sequential_plan
from tests.studies.results import every_number, limits
from tests.studies.sections import with_answers

NEEDED = ["participant_id", "stimulus_id", "is_synthetic", "response"]
TABLE = simulated_responses(n_readers=6, n_cases=24, d_prime=1.0)
BOTS = {"n_readers": 4, "n_cases": 12, "d_prime": 1.0, "class_names": ("ig", "platelet")}
SMALL = simulated_responses(**BOTS)


def planned(table, n_readers=None, n_trials=None, **analysis):
    """A protocol that fits the table."""
    return Protocol(
        study_id="s",
        n_participants=n_readers or int(table["participant_id"].nunique()),
        n_trials=n_trials or int(table.groupby("participant_id")["stimulus_id"].nunique().max()),
        analysis=AnalysisPlan(**analysis),
    )


def analysed(table, *, is_closed=False, **plan):
    return analyse(planned(table, **plan), table, data_digest="0" * 64, is_closed=is_closed)


def bare(**bots):
    """Only the needed columns; readers and pictures all alike but for d′."""
    alike = {"d_prime_sd": 0, "criterion_sd": 0, "case_sd": 0, "lapse_rate": 0}
    return simulated_responses(**alike | bots)[NEEDED]


def all_right(table):
    return table.assign(response=np.where(table["is_synthetic"], "generated", "real"))


# ------------------------------------------------------------------------------- the primary


@pytest.mark.parametrize("name", ["accuracy", "sensitivity", "specificity", "auc"])
def test_the_declared_primary_outcome_is_tested_against_one_half(name):
    table = TABLE[[*NEEDED, "confidence"]] if name == "auc" else TABLE[NEEDED]
    found = analysed(table, primary=name, equivalence_margin=0.1).primary
    expected = outcome(name, with_answers(table), planned(table, primary=name))
    assert found.outcome == expected
    assert found.interval == expected.headline
    headline = expected.headline
    t = np.array([headline.estimate - null for null in (0.5, 0.4, 0.6)]) / headline.standard_error
    assert found.p_difference == pytest.approx(2 * student_t.sf(abs(t[0]), headline.df))
    test = found.equivalence
    assert (test.low, test.high, test.alpha) == pytest.approx((0.4, 0.6, 0.05))
    assert test.p_low == pytest.approx(student_t.sf(t[1], headline.df))
    assert test.p_high == pytest.approx(student_t.cdf(t[2], headline.df))
    assert (found.look, found.n_looks, found.alpha) == (None, 0, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("word", "table", "sentences"),
    [
        (
            Verdict.DIFFERENT,
            bare(n_readers=6, n_cases=100, d_prime=1.5),
            "That differs from guessing (P < 0.001): the pictures could be told apart, better than "
            "by chance. Equivalence within the declared margin of 45.0 to 55.0 % was not shown (",
        ),
        (
            Verdict.DIFFERENT,
            bare(n_readers=6, n_cases=100, d_prime=-1.5),
            "the pictures could be told apart, worse than by chance. Equivalence within",
        ),
        (
            Verdict.EQUIVALENT,
            bare(n_readers=12, n_cases=400, d_prime=0.0),
            "Equivalence with guessing was shown: the outcome lies within the declared margin of "
            "45.0 to 55.0 % (90 % interval ",
        ),
        (
            Verdict.BOTH,
            bare(n_readers=12, n_cases=800, d_prime=0.12),
            "The difference is small: equivalence within the declared margin of 45.0 to 55.0 % was "
            "shown too (90 % interval ",
        ),
        (
            Verdict.NEITHER,
            bare(n_readers=5, n_cases=20, d_prime=0.0),
            "was not shown either (90 % interval ",
        ),
        (
            Verdict.NOT_ESTIMABLE,
            all_right(bare(n_readers=5, n_cases=20)),
            "Neither a difference from guessing nor equivalence can be tested.",
        ),
    ],
)
def test_difference_and_equivalence_have_one_verdict_and_one_sentence(word, table, sentences):
    results = analysed(table, equivalence_margin=0.05)
    found = results.primary
    assert found.verdict is word
    assert sentences in conclusion(found)
    if word is Verdict.NOT_ESTIMABLE:
        assert "no interval can be given" in answer(results)
        return
    assert answer(results).endswith(conclusion(found))
    is_different = found.interval.ci_low > 0.5 or found.interval.ci_high < 0.5
    is_inside = found.equivalence.ci_low > 0.45 and found.equivalence.ci_high < 0.55
    assert is_different == (word in (Verdict.DIFFERENT, Verdict.BOTH))
    assert is_inside == (word in (Verdict.EQUIVALENT, Verdict.BOTH))
    said = "A difference from guessing was not shown (P = "
    assert (said in conclusion(found)) == (not is_different)


def test_without_a_margin_equivalence_is_not_tested_and_that_is_said():
    found = analysed(TABLE[NEEDED]).primary
    assert (found.equivalence, found.verdict) == (None, None)
    assert conclusion(found).endswith(
        "Whether they are indistinguishable was not tested, as the protocol declares no margin of "
        "equivalence."
    )


# --------------------------------------------------------------------------------- the looks

LOOKS = {"looks": (4, 8), "spending": "obrien-fleming", "equivalence_margin": 0.05}


def seen_by(n_readers):
    return bare(n_readers=n_readers, n_cases=30, d_prime=0.7)


def test_a_look_that_was_not_declared_is_refused():
    words = r"a look at 6 was not declared, the protocol declares looks at 4, 8; wait for 8 and te"
    with pytest.raises(UndeclaredLookError, match=words):
        analysed(seen_by(6), n_readers=8, **LOOKS)


@pytest.mark.parametrize(
    ("spending", "first", "last"), [("obrien-fleming", 0.00305, 0.0490), ("pocock", 0.0310, 0.0277)]
)
def test_a_declared_look_has_the_level_that_its_spending_leaves(spending, first, last):
    # Two looks at one half and all of the information, as ldbounds prints them.
    plan = LOOKS | {"spending": spending}
    early = analysed(seen_by(4), n_readers=8, **plan).primary
    late = analysed(seen_by(8), **plan).primary
    assert (early.look.number, late.look.number, early.n_looks) == (1, 2, 2)
    assert early.alpha == early.look.nominal_alpha == pytest.approx(first, abs=1e-5)
    assert late.alpha == pytest.approx(last, abs=2e-4)


def test_a_look_with_few_readers_warns_of_its_level():
    words = "With fewer than 8 the test errs more often than its small level says"
    for n_readers, is_warned in ((4, True), (8, False)):
        cautions = analysed(seen_by(n_readers), n_readers=8, **LOOKS).cautions
        assert any(words in caution for caution in cautions) == is_warned


def test_at_a_look_the_interval_is_the_repeated_one_and_wider_than_the_plain_one():
    found = analysed(seen_by(4), n_readers=8, **LOOKS).primary
    plain, repeated = found.outcome.headline, found.interval
    half = student_t.isf(found.alpha / 2, plain.df) * plain.standard_error
    expected = (plain.estimate - half, plain.estimate + half)
    assert limits(repeated) == pytest.approx(expected)
    assert repeated.ci_low < plain.ci_low < plain.ci_high < repeated.ci_high
    assert repeated.confidence_level == pytest.approx(0.95)


def test_at_a_look_equivalence_spends_its_own_error():
    # One side of 0.05 at half of the information: 2 − 2 Φ(z / √½), z the quantile of 0.975.
    found = analysed(seen_by(4), n_readers=8, **LOOKS).primary
    expected = 2 * norm.sf(norm.ppf(0.975) * np.sqrt(2))
    assert found.equivalence.alpha == pytest.approx(expected)
    assert found.equivalence.confidence_level == pytest.approx(1 - 2 * expected)


def test_a_study_that_closed_early_spends_what_is_left():
    found = analysed(seen_by(6), n_readers=8, is_closed=True, **LOOKS).primary
    assert (found.look.number, found.look.information) == (2, 6)
    assert found.look.cumulative_alpha == pytest.approx(0.05)
    spent = sequential_plan((4, 8), alpha=0.05).looks[0].nominal_alpha
    assert spent < found.alpha < 0.05


def test_more_readers_than_the_last_look_are_a_closing_look():
    found = analysed(seen_by(9), n_readers=8, **LOOKS).primary
    assert (found.look.number, found.look.information) == (2, 9)


# ------------------------------------------------------------------- repeats, order, cautions


def with_repeats():
    """Each reader sees five pictures again, and answers the opposite of what is right."""
    again = TABLE[TABLE["stimulus_id"].isin([f"case-{i}" for i in (1, 2, 5, 8, 9)])]
    wrong = np.where(again["is_synthetic"], "real", "generated")
    again = again.assign(
        response=wrong,
        repeat_number=2,
        trial_number=again.groupby("participant_id").cumcount() + 25,
    )
    return pd.concat([TABLE.assign(repeat_number=1), again], ignore_index=True)


def test_repeats_change_nothing_but_agreement_with_oneself():
    plan = {"secondary": ("drift", "d_prime")}
    once, twice = (json.loads(analysed(t, **plan).to_json()) for t in (TABLE, with_repeats()))
    own = twice["agreement"].pop("consistency")
    assert once["agreement"].pop("consistency")["n_pairs"] == 0
    assert own["n_pairs"] == 6 * 5
    rows = TABLE[TABLE["stimulus_id"].isin([f"case-{i}" for i in (1, 2, 5, 8, 9)])]
    was_wrong = (rows["response"] == "generated") != rows["is_synthetic"]
    assert own["percent"]["estimate"] == pytest.approx(was_wrong.mean())
    assert (twice.pop("n_repeats"), twice.pop("n_responses")) == (30, 174)
    assert (once.pop("n_repeats"), once.pop("n_responses")) == (0, 144)
    assert twice == once


def test_a_first_showing_after_a_repeat_is_in_the_course_of_the_session():
    table = with_repeats()
    first = table["repeat_number"] == 1
    table["trial_number"] += np.where(first, 5, -24)
    found = analysed(table).by_block
    assert [one.name for one in found] == ["1–8", "9–15", "16–22", "23–29"]
    assert sum(one.n_judgements for one in found) == 144


def test_the_order_of_rows_changes_no_byte():
    shuffled = SMALL.sample(frac=1, random_state=5).reset_index(drop=True)
    plan = {"secondary": ("class", "drift"), "index": "consensus"}
    one, other = (analysed(table, **plan) for table in (SMALL, shuffled))
    assert one.to_json() == other.to_json()


def test_readers_are_told_as_they_are_counted():
    table = bare(n_readers=11, n_cases=8)
    assert [one.participant_id for one in analysed(table).readers] == [
        f"reader-{i}" for i in range(1, 12)
    ]


@pytest.mark.parametrize(
    ("table", "plan", "words"),
    [
        (seen_by(1), {}, "One reader says nothing about other readers"),
        (seen_by(4), {}, "With 4 readers (fewer than 5) the interval for other readers is fragile"),
        (seen_by(6), {"n_readers": 9}, "The protocol planned 9 readers; 6 count."),
        (seen_by(6), {}, "have no column `protocol_hash`, so the file does not prove"),
        (bare(n_readers=6, n_cases=30, d_prime=0.7, seed=3), {}, "do not take it for precision"),
        (all_right(seen_by(6)), {}, "No interval can be given for the primary outcome: the readin"),
        (TABLE.assign(confidence=TABLE["confidence"].where(TABLE["trial_number"] > 2)), {},
         "12 of 144 judgements have no confidence."),
    ],
)  # fmt: skip
def test_what_weakens_a_result_is_said(table, plan, words):
    found = analysed(table, **plan)
    assert words in " ".join(found.cautions)
    if "precision" in words:
        assert found.primary.outcome.design_effect < 1


def test_six_readers_of_a_protocol_that_fits_come_without_a_caution():
    table = TABLE[NEEDED].assign(study_id="s", protocol_hash=planned(TABLE).protocol_hash)
    table.loc[table["participant_id"] == "reader-1", "response"] = "real"
    assert analysed(table).cautions == ()


# ---------------------------------------------------------------------------------- refusals


def test_responses_of_another_protocol_are_refused():
    with pytest.raises(ResponseError, match="was given under protocol ffffffffffff… but this pro"):
        analysed(TABLE.assign(protocol_hash="f" * 64))


def test_a_study_without_a_reader_who_is_through_is_refused():
    words = r"none of the 6 readers counts \(the furthest has judged 24 of 25 stimuli; reader-1 jud"
    with pytest.raises(AnalysisError, match=words):
        analysed(TABLE, n_trials=25)


def test_readers_who_judged_different_stimuli_are_refused():
    other = TABLE.assign(stimulus_id=TABLE["participant_id"] + TABLE["stimulus_id"])
    words = "the 6 readers who count judged 144 different stimuli, not the same 24; a crossed study"
    with pytest.raises(AnalysisError, match=words):
        analysed(other, n_trials=24)


@pytest.mark.parametrize(("kind", "word"), [(True, "generated"), (False, "real")])
def test_a_study_of_one_kind_of_picture_is_refused(kind, word):
    with pytest.raises(AnalysisError, match=f"all stimuli are {word}; accuracy of a study of auth"):
        analysed(TABLE.assign(is_synthetic=kind))


# ---------------------------------------------------------------------------- degenerate data

EVERY_TEST = ("sensitivity", "specificity", "auc", "d_prime", "criterion", "drift",
              "response_time", "class", "generator", "experience")  # fmt: skip
AND_LATE = pd.concat([SMALL, SMALL[:1].assign(participant_id="late")], ignore_index=True)
OWN = SMALL["stimulus_id"].str[5:].astype(int) % 5 == SMALL["participant_id"].str[7:].astype(int)
WHOLE = {
    "one reader": simulated_responses(**BOTS | {"n_readers": 1}),
    "two readers": simulated_responses(**BOTS | {"n_readers": 2}),
    "every answer alike": SMALL.assign(response="real"),
    "everybody right": all_right(SMALL),
    "a reader with one trial": AND_LATE,
    "needed columns only": SMALL[NEEDED],
    "one class, confidence and time": SMALL.assign(
        class_name="ig", confidence=3, response_time_s=0.0
    ),
    "some confidence missing": SMALL.assign(confidence=[np.nan, *SMALL["confidence"][1:]]),
    "no confidence": SMALL.drop(columns="confidence"),
    "readers all alike": pd.concat([SMALL[:12].assign(participant_id=f"P{i}") for i in range(3)]),
}
PARTIAL = {
    "a reader with one trial counts": AND_LATE,
    "two pictures of a kind": simulated_responses(**BOTS | {"n_cases": 4}),
    "two or three trials of each reader": SMALL[OWN],
    "one trial of each reader": SMALL[OWN].drop_duplicates("participant_id"),
}


@pytest.mark.parametrize("name", [*WHOLE, *PARTIAL])
def test_degenerate_data_make_a_report_that_says_why_and_nowhere_nan(name):
    table = (WHOLE | PARTIAL)[name].reset_index(drop=True)
    rules = ExclusionRules(fewest_share=0.01 if name in PARTIAL else 1)
    plan = {"secondary": EVERY_TEST, "index": "consensus", "equivalence_margin": 0.05}
    results = analysed(table, n_trials=12, exclusions=rules, **plan)
    json.loads(results.to_json(), parse_constant=pytest.fail)
    assert not any(np.isnan(number) for number in every_number(results))
    for one in results.secondary:
        assert (one.p_value is None) == (one.estimate.reason is not None)
    html = render(results)
    for one in filter(None, (*results.outcomes, results.without_exclusions)):
        for found in (one.other_readers, one.these_readers, one.naive):
            assert found.is_estimable == (found.reason is None)
        assert one.other_readers.is_estimable or f": {one.other_readers.reason}." in html
    assert not re.search(r"\b(nan|inf)\b", html, flags=re.IGNORECASE)
    assert "None" not in html
    assert answer(results) in html.replace("&lt;", "<")
