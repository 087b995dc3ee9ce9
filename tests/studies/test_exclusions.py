from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from studies.analysis import AnalysisError, analyse
from studies.bots import simulated_responses
from studies.exclusions import excluded
from studies.outcomes import outcome
from studies.protocol import AnalysisPlan, Block, ExclusionRules, Protocol
from studies.report import render
from tests.studies.sections import with_answers


def planned(n_trials=10, **rules):
    declared = AnalysisPlan(exclusions=ExclusionRules(**rules) if rules else None)
    return Protocol(study_id="s", n_participants=2, n_trials=n_trials, analysis=declared)


def session(answers="rg" * 5, seconds=3.0, name="P1"):
    """First presentations of one reader: "r" real, "g" generated, in this order."""
    n = len(answers)
    return pd.DataFrame(
        {
            "participant_id": name,
            "trial_number": np.arange(1, n + 1),
            "response": ["real" if answer == "r" else "generated" for answer in answers],
            "response_time_s": np.full(n, seconds),
        }
    )


def why(table, protocol):
    return {one.participant_id: one.reason for one in excluded(table, protocol)}


def test_without_a_declaration_a_reader_counts_who_has_judged_everything():
    both = pd.concat([session(name="P1"), session("rgrgrgrgr", name="P2")])
    assert why(both, planned()) == {
        "P2": "judged 9 of 10 stimuli; at least 100 % were declared",
    }


@pytest.mark.parametrize(("n_judged", "counts"), [(54, False), (55, True), (100, True)])
def test_the_declared_share_itself_is_enough(n_judged, counts):
    # 0.55 * 100 is 55.00000000000001, and 55 of 100 are 55 % all the same.
    found = why(session("rg" * 50)[:n_judged], planned(100, fewest_share=0.55))
    assert (found == {}) == counts
    if not counts:
        assert found == {"P1": "judged 54 of 100 stimuli; at least 55 % were declared"}


@pytest.mark.parametrize(("median", "counts"), [(0.75, False), (1.0, True), (1.25, True)])
def test_a_median_time_at_the_declared_limit_is_slow_enough(median, counts):
    found = why(session(seconds=median), planned(fastest_median_s=1.0))
    assert (found == {}) == counts
    if not counts:
        assert found == {"P1": "took 0.75 s at the median; at least 1 s were declared"}


def test_the_median_decides_and_not_the_mean_or_the_fastest_answer():
    slow_once = session(seconds=0.5)
    slow_once.loc[0, "response_time_s"] = 500.0
    fast_once = session(seconds=2.0)
    fast_once.loc[:3, "response_time_s"] = 0.1
    assert set(why(slow_once, planned(fastest_median_s=1.0))) == {"P1"}
    assert why(fast_once, planned(fastest_median_s=1.0)) == {}


@pytest.mark.parametrize(
    ("answers", "counts"), [("rrrrrggggg", True), ("rrrrrrgggg", False), ("rgggggggrr", False)]
)
def test_a_run_as_long_as_declared_is_not_too_long(answers, counts):
    found = why(session(answers), planned(longest_run=5))
    run = max(map(len, answers.replace("rg", "r g").replace("gr", "g r").split()))
    expected = f"gave the same answer {run} times in a row; at most 5 were declared"
    assert found == ({} if counts else {"P1": expected})


def test_a_run_is_one_of_trials_in_whatever_order_the_rows_lie():
    ordered = session("rgrgrrrrrr")
    lies = ordered.iloc[[4, 1, 5, 3, 6, 0, 7, 2, 8, 9]]
    assert why(lies, planned(longest_run=5)) == why(ordered, planned(longest_run=5)) != {}
    alternating = session("rg" * 5).sort_values("response")
    assert why(alternating, planned(longest_run=2)) == {}


def test_of_several_rules_the_first_one_is_named():
    hasty = session("rrrrrrrrrr", seconds=0.1)
    rules = {"fewest_share": 1.0, "fastest_median_s": 1.0, "longest_run": 5}
    assert "judged 9 of 10" in why(hasty[:9], planned(**rules))["P1"]
    assert "at the median" in why(hasty, planned(**rules))["P1"]
    assert "in a row" in why(hasty.assign(response_time_s=9.0), planned(**rules))["P1"]


def test_a_rule_holds_nobody_back_where_the_responses_lack_its_column():
    bare = session("r" * 10, seconds=0.1).drop(columns=["trial_number", "response_time_s"])
    assert why(bare, planned(fastest_median_s=1.0, longest_run=5)) == {}
    untimed = session(seconds=np.nan)
    assert why(untimed, planned(fastest_median_s=1.0)) == {}


def checks(answers, truth="gggg", name="P1"):
    """Answers of one reader to attention checks, and what they were."""
    return session(answers, name=name).assign(
        is_attention=True, is_synthetic=[one == "g" for one in truth]
    )


@pytest.mark.parametrize(("answers", "counts"), [("ggrr", False), ("gggr", True), ("gggg", True)])
def test_the_declared_share_of_attention_checks_is_enough(answers, counts):
    table = pd.concat([session().assign(is_attention=False, is_synthetic=True), checks(answers)])
    table = table.reset_index(drop=True)
    found = why(table, planned(fewest_attention=0.75))
    reason = "was right on 2 of 4 attention checks; at least 75 % were declared"
    assert found == ({} if counts else {"P1": reason})
    assert why(table, planned(fewest_share=1)) == {}


def test_attention_checks_count_for_no_other_rule():
    nine = session("rgrgrgrgr").assign(is_attention=False, is_synthetic=True)
    fast = checks("rrrr", truth="rrrr").assign(response_time_s=0.1, trial_number=[2, 4, 6, 8])
    both = pd.concat([nine, fast], ignore_index=True)
    assert "judged 9 of 10" in why(both, planned(fewest_share=1))["P1"]
    rules = {"fewest_share": 0.9, "fastest_median_s": 1.0, "longest_run": 2}
    assert why(both, planned(**rules, fewest_attention=1.0)) == {}


def test_only_the_checks_of_a_reader_are_asked():
    some = [
        session(name=name).assign(is_attention=False, is_synthetic=True) for name in ("P1", "P2")
    ]
    table = pd.concat([*some, checks("rrrr", name="P2")], ignore_index=True)
    assert set(why(table, planned(fewest_attention=0.5))) == {"P2"}


def test_a_share_is_one_of_the_authenticity_trials_alone():
    blocks = (Block(n_trials=10), Block(design="pair", n_trials=30))
    protocol = Protocol(study_id="s", blocks=blocks)
    assert why(session(), protocol) == {}
    assert "judged 9 of 10" in why(session()[:9], protocol)["P1"]


@pytest.fixture(scope="module")
def careless():
    """Six readers, of whom the last answers "real" to everything, and at once."""
    table = simulated_responses(n_readers=6, n_cases=24, d_prime=2.0)
    last = table["participant_id"] == "reader-6"
    table.loc[last, "response"] = "real"
    table.loc[last, "response_time_s"] = 0.2
    return table.drop(columns=["confidence", "class_name"])


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"fastest_median_s": 0.5}, "took 0.2 s at the median"),
        ({"longest_run": 15}, "gave the same answer 24 times in a row"),
    ],
)
def test_the_primary_outcome_is_shown_with_and_without_the_excluded(careless, rules, word):
    protocol = planned(24, **rules)
    found = analyse(protocol, careless, data_digest="")
    counted = with_answers(careless[careless["participant_id"] != "reader-6"])
    assert found.primary.outcome == outcome("accuracy", counted, protocol)
    assert found.without_exclusions == outcome("accuracy", with_answers(careless), protocol)
    assert found.primary.outcome != found.without_exclusions
    assert (found.n_readers, found.n_counted_readers) == (6, 5)
    assert [one.participant_id for one in found.excluded] == ["reader-6"]
    assert found.excluded[0].reason.startswith(word)
    assert [one.excluded for one in found.readers] == [None] * 5 + [found.excluded[0].reason]
    assert "1 of 6 readers are left out by the rules" in " ".join(found.cautions)


def test_an_excluded_reader_is_in_no_result_over_readers(careless):
    protocol = planned(24, fastest_median_s=0.5)
    found = analyse(protocol, careless, data_digest="")
    assert {one.n_readers for one in found.outcomes} == {5}
    assert "reader-6" not in found.agreement.readers
    assert "reader-6" not in found.confidence.detected
    assert sum(part.n_judgements for part in found.by_block) == 5 * 24


def test_attention_checks_are_in_no_result_and_the_report_says_so(careless):
    table = careless.assign(is_attention=False)
    check = table.groupby("participant_id").head(2).assign(is_attention=True)
    check = check.assign(stimulus_id=check["stimulus_id"] + "-check", response="real")
    with_checks = pd.concat([table, check], ignore_index=True)
    protocol = planned(24)
    found = analyse(protocol, with_checks, data_digest="")
    without = analyse(protocol, careless, data_digest="")
    assert (found.n_attention, without.n_attention) == (12, 0)
    assert found.n_responses == without.n_responses == 6 * 24
    assert replace(found, n_attention=0).to_json() == without.to_json()
    assert "12 answers to attention checks, in no result" in render(found)
    assert "attention checks" not in render(without)


def test_a_reader_who_did_not_attend_is_left_out_of_the_result(careless):
    table = careless.assign(is_attention=False)
    check = table.groupby("participant_id").head(2).assign(is_attention=True, is_synthetic=True)
    answers = np.where(check["participant_id"] == "reader-6", "real", "generated")
    check = check.assign(stimulus_id=check["stimulus_id"] + "-check", response=answers)
    protocol = planned(24, fewest_attention=0.75)
    found = analyse(protocol, pd.concat([table, check], ignore_index=True), data_digest="")
    (left_out,) = found.excluded
    assert left_out.participant_id == "reader-6"
    assert left_out.reason == "was right on 0 of 2 attention checks; at least 75 % were declared"
    assert left_out.reason in render(found)


def test_where_nobody_is_left_out_there_is_no_second_result(careless):
    found = analyse(planned(24), careless, data_digest="")
    assert found.excluded == ()
    assert found.without_exclusions is None


def test_a_study_in_which_nobody_counts_is_refused_with_the_reason_of_one(careless):
    with pytest.raises(AnalysisError, match=r"none of the 6 readers counts .*reader-\d took 0.2 s"):
        analyse(
            planned(24, fastest_median_s=1.0), careless.assign(response_time_s=0.2), data_digest=""
        )
