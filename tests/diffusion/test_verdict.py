"""The words of a verdict, in each case that a reader may meet."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from diffusion.conformal import AbstentionRule, fit_conformal
from diffusion.probability import Evidence, PosteriorCalibration
from diffusion.verdict import Anomaly, Cost, Verdict, give_verdict, probability_words

NAMES = ("basophil", "eosinophil", "monocyte", "platelet")
DIGEST = "3fa29c81d5b7" + "0" * 52
RULE = AbstentionRule(
    log_odds_min=3.0,
    risk=0.01,
    confidence_level=0.95,
    n_given=800,
    n_wrong=3,
    risk_high=0.0096,
    n_cells=900,
)


def conformal():
    """Calibrated on cells whose log-odds lie between 2 and 5."""
    log_odds = np.linspace(2, 5, 400)
    rest = -np.logaddexp(0, log_odds)
    log_p = np.repeat(rest[:, None] - np.log(3), 4, axis=1)
    labels = np.arange(400) % 4
    log_p[np.arange(400), labels] = -np.logaddexp(0, -log_odds)
    return fit_conformal(log_p, labels, uniforms=np.full((400, 2), 0.5))


def verdict(scores, *, row="generative", head=None, **options) -> Verdict:
    scores = None if scores is None else np.array([scores], dtype=float)
    errors = None
    if scores is not None:
        errors = np.where(scores == np.nanmax(scores), 0.0, 0.25)
    calibration = PosteriorCalibration(
        row=row,
        generative_scale=None if row == "head" else 1.0,
        head_scale=None if row == "generative" else 1.0,
        class_bias=(0.0,) * 4,
        n_cells=400,
    )
    evidence = Evidence(
        scores=scores,
        standard_errors=errors,
        head=None if head is None else np.log([head]),
    )
    return give_verdict(
        evidence,
        model_class_names=NAMES,
        posterior=calibration,
        conformal=conformal(),
        cost=Cost(trunk_passes=5, class_passes=16, flops=1_234_000_000),
        weighting="robust",
        seed=7,
        image_digest=DIGEST,
        **options,
    )


CLEAR = [-10.0, 6.0, -2.0, -10.0]
CLOSE = [1.5, 2.0, -4.0, -9.0]


def test_a_clear_verdict_reads_so():
    seen = {
        "texture": Anomaly(p_value=0.71, alarm_rate=0.05),
        "anomaly": Anomaly(p_value=0.43, alarm_rate=0.05),
    }
    assert str(verdict(CLEAR, abstention=RULE, **seen)) == (
        "verdict     eosinophil (over 99.9 %)\n"
        "candidates  basophil, eosinophil, monocyte, platelet (all classes of the model)\n"
        "next        monocyte under 0.1 %, basophil under 0.1 %\n"
        "90 % set    eosinophil\n"
        "log-odds    eosinophil to monocyte: 7.904 nats\n"
        "race        eosinophil to monocyte: 8 ± 0.25 weighted nats (robust)\n"
        "texture     p = 0.71, above the alarm rate of 0.05\n"
        "anomaly     p = 0.43, above the alarm rate of 0.05\n"
        "cost        5 trunk and 16 class passes, 1.23 GFLOP\n"
        "from        generative row, seed 7, image 3fa29c81d5b7"
    )


def test_an_undecided_verdict_names_the_classes_and_keeps_them_in_the_set():
    found = verdict(CLOSE, undecided=[0, 1])
    assert found.undecided_classes == ("basophil", "eosinophil")
    assert found.conforming_set == ()
    assert found.shown_set == ("eosinophil", "basophil")
    assert "undecided   basophil, eosinophil: the draws did not tell them apart" in str(found)
    assert "90 % set    no class conforms; shown: eosinophil, basophil" in str(found)
    assert found.predicted_class == "eosinophil"


def test_one_class_left_alive_is_a_decision():
    assert verdict(CLEAR, undecided=[1]).undecided_classes == ()


def test_an_abstained_verdict_gives_no_class_and_says_why():
    found = verdict(CLOSE, abstention=RULE)
    assert found.is_abstained
    assert found.predicted_class is None
    assert str(found).startswith(
        "no verdict  most probable: eosinophil (62.0 %)\n"
        "because     38 % is left for the other classes, and a risk of 1 % allows 4.7 %\n"
    )


def test_without_a_rule_it_does_not_abstain():
    assert verdict(CLOSE).predicted_class == "eosinophil"


def test_declared_candidates_are_stated_with_those_that_are_left_out():
    found = verdict(CLEAR, candidates=[3, 0])
    assert found.class_names == ("basophil", "platelet")
    assert set(found.probabilities) == {"basophil", "platelet"}
    assert sum(found.probabilities.values()) == pytest.approx(1)
    words = "candidates  basophil, platelet, as declared; not considered: eosinophil, monocyte\n"
    assert words in str(found)


def test_an_anomalous_image_gets_no_class_however_sure_the_classifier_is():
    found = verdict(CLEAR, abstention=RULE, anomaly=Anomaly(p_value=0.0004, alarm_rate=0.05))
    assert found.predicted_class is None
    assert str(found).startswith(
        "no verdict  most probable: eosinophil (over 99.9 %)\n"
        "because     it is unlike the reference cells of every class (p < 0.001, at or below the "
        "alarm rate of 0.05)\n"
    )


def test_a_foreign_texture_gets_no_class_and_is_named_as_such():
    found = verdict(CLEAR, abstention=RULE, texture=Anomaly(p_value=0.002, alarm_rate=0.01))
    assert found.predicted_class is None
    assert str(found).startswith(
        "no verdict  most probable: eosinophil (over 99.9 %)\n"
        "because     its texture is unlike the reference cells', as under another stain or "
        "microscope (p = 0.002, at or below the alarm rate of 0.01)\n"
    )
    assert "\ntexture     p = 0.002, at or below the alarm rate of 0.01\n" in str(found)
    assert "anomaly" not in str(found)


@pytest.mark.parametrize(("p_value", "n_reasons"), [(0.05, 1), (0.0501, 0)])
@pytest.mark.parametrize("name", ["texture", "anomaly"])
def test_a_p_value_withholds_the_verdict_up_to_its_rate(name, p_value, n_reasons):
    found = verdict(CLEAR, **{name: Anomaly(p_value=p_value, alarm_rate=0.05)})
    assert len(found.reasons) == n_reasons


def test_every_reason_is_given():
    odd = Anomaly(p_value=0.01, alarm_rate=0.05)
    reasons = verdict(CLOSE, abstention=RULE, texture=odd, anomaly=odd).reasons
    assert [reason.split()[0] for reason in reasons] == ["38", "its", "it"]


def test_what_was_not_looked_for_is_not_printed():
    found = verdict(CLEAR)
    assert (found.texture, found.anomaly) == (None, None)
    assert "texture" not in str(found)
    plain = found.as_json()
    assert (plain["texture"], plain["anomaly"]) == (None, None)


def test_the_head_alone_has_log_odds_and_none_of_a_race():
    found = verdict(None, row="head", head=[0.05, 0.9, 0.04, 0.01])
    assert found.log_odds == pytest.approx(np.log(0.9 / 0.05))
    assert found.generative_log_odds is None
    assert "log-odds    eosinophil to basophil: 2.89 nats\n" in str(found)
    assert "race        none, the head alone decides\n" in str(found)


def test_a_runner_up_that_the_head_ruled_out_has_log_odds_and_none_of_a_race():
    # The race leaves monocyte far behind: next is a class that it did not hold.
    scores = [np.nan, 3.0, -30.0, np.nan]
    found = verdict(scores, row="fused", head=[0.005, 0.9, 0.09, 0.005])
    assert found.runner_up == "basophil"
    assert found.log_odds == pytest.approx(np.log(0.9 / 0.005))
    assert found.generative_log_odds is None
    assert "log-odds    eosinophil to basophil: 5.193 nats\n" in str(found)
    assert "race        eosinophil to basophil: none, the head had ruled one of" in str(found)
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize("row", ["head", "generative", "fused"])
def test_log_odds_are_those_of_the_probabilities_and_never_negative(row):
    found = verdict(None if row == "head" else CLOSE, row=row, head=[0.2, 0.1, 0.6, 0.1])
    best, second = list(found.probabilities.values())[:2]
    assert found.log_odds == pytest.approx(np.log(best / second))
    assert found.log_odds > 0


def test_generative_log_odds_are_negative_where_the_head_outvotes_the_scores():
    found = verdict([0.5, 0.0, -9.0, -9.0], row="fused", head=[0.01, 0.97, 0.01, 0.01])
    assert found.best_class == "eosinophil"
    assert found.generative_log_odds == pytest.approx(-0.5)
    assert found.generative_log_odds_standard_error == pytest.approx(0.25)
    assert found.log_odds == pytest.approx(np.log(97) - 0.5, abs=0.01)


def test_without_standard_errors_none_is_printed():
    found = replace(verdict(CLEAR), generative_log_odds_standard_error=None)
    assert "eosinophil to monocyte: 8 weighted nats (robust)" in str(found)


def test_classes_that_are_kept_beside_the_set_are_told_apart():
    found = replace(verdict(CLEAR), shown_set=("eosinophil", "platelet"), is_set_classwise=True)
    assert "90 % set    eosinophil; kept: platelet (classwise)" in str(found)


def test_a_level_of_999_in_a_thousand_is_not_printed_as_certainty():
    assert "99.9 % set" in str(verdict(CLEAR, level=0.999))


def test_no_probability_reads_as_certain():
    words = [probability_words(p) for p in (1.0, 0.99951, 0.999, 0.5, 0.001, 0.0)]
    assert words == ["over 99.9 %", "over 99.9 %", "99.9 %", "50.0 %", "0.1 %", "under 0.1 %"]


def test_rich_prints_the_same_words_also_of_names_that_look_like_markup():
    found = replace(verdict(CLEAR), best_class="[red]cell[/red]")
    found = replace(found, probabilities={"[red]cell[/red]": 0.9, "platelet": 0.1})
    console = Console(file=StringIO(), width=200)
    console.print(found)
    assert console.file.getvalue().rstrip() == str(found)


def test_the_verdict_is_plain_json_with_all_that_was_asked():
    found = verdict(
        CLOSE,
        undecided=[0, 1],
        abstention=RULE,
        texture=Anomaly(p_value=0.02, alarm_rate=0.05),
        anomaly=Anomaly(p_value=0.5, alarm_rate=0.05),
    )
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["predicted_class"] is None
    assert plain["best_class"] == "eosinophil"
    assert plain["is_abstained"]
    assert plain["texture"] == {"p_value": 0.02, "alarm_rate": 0.05, "is_anomalous": True}
    assert plain["anomaly"] == {"p_value": 0.5, "alarm_rate": 0.05, "is_anomalous": False}
    assert plain["cost"] == {"trunk_passes": 5, "class_passes": 16, "flops": 1_234_000_000}
    assert plain["undecided_classes"] == ["basophil", "eosinophil"]
    assert plain["log_odds"] == pytest.approx(0.5, abs=0.01)
    assert plain["generative_log_odds"] == pytest.approx(0.5)
    assert (plain["seed"], plain["image_digest"], plain["row"]) == (7, DIGEST, "generative")
    assert list(plain["probabilities"]) == ["eosinophil", "basophil", "monocyte", "platelet"]


def test_a_prior_moves_the_verdict():
    log_prior = np.log([0.9, 0.05, 0.03, 0.02])
    assert verdict(CLOSE, log_prior=log_prior).best_class == "basophil"


def test_more_than_one_image_is_refused():
    two = Evidence(scores=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"\(2, 4\) images and classes for one image and 4"):
        give_verdict(
            two,
            model_class_names=NAMES,
            posterior=PosteriorCalibration(
                row="generative", generative_scale=1.0, class_bias=(0.0,) * 4, n_cells=1
            ),
            conformal=conformal(),
            cost=Cost(trunk_passes=0, class_passes=0, flops=0),
            weighting="robust",
            seed=0,
            image_digest=DIGEST,
        )


def test_an_undecided_class_that_was_no_candidate_is_refused():
    with pytest.raises(ValueError, match=r"undecided=\[1, 2\] are not all candidates \[0, 1\]"):
        verdict(CLEAR, candidates=[0, 1], undecided=[2, 1])
