"""The function behind `POST /v1/classifications`, with a calibration and without one."""

import base64
import io
import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from diffusion.elimination import BlockVariancePrior
from diffusion.latents import framed, image_digest, latents_from_images
from diffusion.weighting import LearnedWeighting
from service.classification import classification_passes, classify
from service.problems import Problem
from service.schemas import ClassificationOptions
from tests.conftest import TINY_CLASSES
from tests.service.conftest import cell_image, with_settings

IMAGE = cell_image()
ROWS = ("fused", "generative", "head")


def answer_of(model, image=IMAGE, **options):
    return classify(model, image, ClassificationOptions.model_validate(options, strict=False))


def log_odds(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def refusal_of(model, **options) -> str:
    with pytest.raises(Problem) as caught:
        answer_of(model, **options)
    assert (int(caught.value.status), caught.value.code) == (422, "unsupported_options")
    return caught.value.detail


# --- the library's verdict, whole


@pytest.mark.parametrize("row", ROWS)
def test_the_answer_is_the_librarys_verdict_on_the_same_pixels(calibrated_model, row):
    pixels = np.asarray(framed(IMAGE, 32, crop_px=None))
    (expected,) = calibrated_model.classifier.classify(
        latents_from_images(pixels[None]), [image_digest(pixels)], row=row, anomaly=True, seed=5
    )
    answer = answer_of(calibrated_model, row=row, seed=5)
    assert {p.class_name: p.probability for p in answer.predictions} == expected.probabilities
    assert (answer.predicted_class, answer.best_class, answer.reasons) == (
        expected.predicted_class,
        expected.best_class,
        list(expected.reasons),
    )
    assert answer.log_odds == expected.log_odds
    assert (answer.generative_log_odds, answer.generative_log_odds_standard_error) == (
        expected.generative_log_odds,
        expected.generative_log_odds_standard_error,
    )
    assert answer.prediction_set.conforming == list(expected.conforming_set)
    assert answer.prediction_set.shown == list(expected.shown_set)
    assert answer.anomaly.p_value == expected.anomaly.p_value
    if row == "generative":
        assert answer.texture is expected.texture is None
    else:
        assert answer.texture.p_value == expected.texture.p_value
    assert answer.undecided_classes == list(expected.undecided_classes)
    cost = expected.cost
    assert answer.cost.model_dump() == {
        "trunk_passes": cost.trunk_passes,
        "class_passes": cost.class_passes,
        "gflop": cost.flops / 1e9,
    }
    assert (answer.provenance.row, answer.provenance.seed) == (row, 5)


@pytest.mark.parametrize("row", ROWS)
def test_predictions_are_ranked_by_probability_and_add_up(calibrated_model, row):
    predictions = answer_of(calibrated_model, row=row).predictions
    assert [p.rank for p in predictions] == [1, 2, 3]
    assert predictions == sorted(predictions, key=lambda p: -p.probability)
    assert sum(p.probability for p in predictions) == pytest.approx(1)


@pytest.mark.parametrize("row", ROWS)
def test_log_odds_are_those_of_the_two_best_probabilities(calibrated_model, row):
    answer = answer_of(calibrated_model, row=row)
    best, second, _ = answer.predictions
    assert answer.log_odds == pytest.approx(math.log(best.probability / second.probability))


def test_scores_are_distances_to_the_winner_of_the_race_and_give_its_log_odds(calibrated_model):
    answer = answer_of(calibrated_model, row="generative")
    best, second, _ = answer.predictions
    assert max(p.score for p in answer.predictions) == 0
    assert answer.generative_log_odds == pytest.approx(best.score - second.score)
    errors = [p.standard_error for p in answer.predictions]
    assert sorted(errors)[0] == 0 < sorted(errors)[1]


def test_the_head_alone_has_no_scores_and_the_race_costs_nothing(calibrated_model):
    answer = answer_of(calibrated_model, row="head", anomaly=False)
    assert {(p.score, p.standard_error) for p in answer.predictions} == {(None, None)}
    assert answer.generative_log_odds is None
    assert (answer.cost.trunk_passes, answer.cost.class_passes) == (1, 0)


def test_a_class_that_the_head_pruned_has_a_probability_and_no_score(calibrated_model):
    settings = calibrated_model.settings.model_copy(update={"prune_below": 0.4})
    answer = answer_of(with_settings(calibrated_model, settings))
    assert sorted(p.score is None for p in answer.predictions) == [False, False, True]
    (pruned,) = (p for p in answer.predictions if p.score is None)
    assert pruned.standard_error is None
    assert 0 < pruned.probability < 1
    assert (answer.generative_log_odds is None) == (pruned in answer.predictions[:2])


def test_one_block_alone_has_scores_without_standard_errors(tiny_model):
    answer = answer_of(tiny_model, n_blocks=1)
    assert answer.generative_log_odds is not None
    assert answer.generative_log_odds_standard_error is None
    assert {p.standard_error for p in answer.predictions} == {None}


# --- determinism


@pytest.mark.parametrize("row", ROWS)
def test_an_image_gets_the_same_answer_alone_and_after_others(calibrated_model, row):
    alone = answer_of(calibrated_model, row=row, seed=3)
    for seed in range(3):
        answer_of(calibrated_model, cell_image(seed=10 + seed), row=ROWS[seed])
    assert answer_of(calibrated_model, row=row, seed=3) == alone


@pytest.mark.parametrize("seed", range(6))
def test_the_order_in_which_classes_are_declared_changes_nothing(calibrated_model, seed):
    image, options = cell_image(seed=seed), {"row": "generative", "anomaly": False}
    whole = answer_of(calibrated_model, image, **options)
    for names in (TINY_CLASSES, TINY_CLASSES[::-1], TINY_CLASSES[1:] + TINY_CLASSES[:1]):
        assert answer_of(calibrated_model, image, class_names=names, **options) == whole


# --- declared classes


@pytest.mark.parametrize("row", ROWS)
def test_declared_classes_are_stated_and_share_the_whole_probability(calibrated_model, row):
    answer = answer_of(calibrated_model, row=row, class_names=("platelet", "basophil"))
    assert {p.class_name for p in answer.predictions} == {"basophil", "platelet"}
    assert sum(p.probability for p in answer.predictions) == pytest.approx(1)
    assert answer.excluded_classes == ["eosinophil"]
    assert answer.provenance.candidate_class_names == ["basophil", "platelet"]
    assert "holds among `basophil`, `platelet` only, as the request declared" in answer.warnings[0]
    assert set(answer.prediction_set.shown) <= {"basophil", "platelet"}


def test_declaring_classes_leaves_the_odds_between_them_to_the_head_alone(calibrated_model):
    # The head's evidence does not depend on who else is a candidate.
    whole = {p.class_name: p for p in answer_of(calibrated_model, row="head").predictions}
    two = answer_of(calibrated_model, row="head", class_names=("platelet", "basophil"))
    both = {p.class_name: p.probability for p in two.predictions}
    expected = whole["platelet"].probability / whole["basophil"].probability
    assert both["platelet"] / both["basophil"] == pytest.approx(expected)


def test_declared_classes_say_which_level_their_set_keeps_to(calibrated_model):
    two = ("platelet", "basophil")
    told = "keeps to its level within each class only"
    assert any(told in w for w in answer_of(calibrated_model, class_names=two).warnings)
    classwise = answer_of(calibrated_model, class_names=two, classwise=True)
    assert not any(told in w for w in classwise.warnings)
    assert classwise.prediction_set.is_classwise


# --- prediction sets and abstention


def test_sets_of_a_higher_level_hold_those_of_a_lower_one(calibrated_model):
    sizes = set()
    for seed in range(6):
        image = cell_image(seed=seed)
        sets = [
            answer_of(calibrated_model, image, level=level).prediction_set
            for level in (0.3, 0.6, 0.9, 0.99)
        ]
        names = [set(one.conforming) for one in sets]
        assert all(low <= high for low, high in pairwise(names))
        assert [one.level for one in sets] == [0.3, 0.6, 0.9, 0.99]
        sizes |= {len(one) for one in names}
    assert len(sizes) > 1


def test_a_verdict_is_withheld_exactly_where_the_calibration_cells_erred(calibrated_model):
    # Above log-odds of 0.5 no calibration cell is wrong, and from there down 90 of 300 are.
    unreferenced = calibrated_model.settings.model_copy(update={"anomaly": None})
    model = with_settings(calibrated_model, unreferenced)
    withheld = set()
    for seed in range(8):
        answer = answer_of(model, cell_image(seed=seed))
        odds = log_odds(answer.predictions[0].probability)
        if abs(odds - 0.55) > 0.06:  # thresholds come in steps of 0.1
            assert answer.is_abstained == (odds < 0.55)
        assert (answer.predicted_class is None) == answer.is_abstained
        assert answer.best_class == answer.predictions[0].class_name
        assert all("is left for the other classes" in reason for reason in answer.reasons)
        withheld.add(answer.is_abstained)
        assert answer.risk == 0.2
    assert withheld == {True, False}


def test_a_risk_that_the_calibration_cells_cannot_vouch_for_is_refused(calibrated_model):
    assert "calibration cells cannot show a risk of 0.001" in refusal_of(
        calibrated_model, risk=0.001
    )
    assert answer_of(calibrated_model, risk=0.15).risk == 0.15


def test_a_risk_is_refused_where_nothing_vouches_for_any(tiny_model, calibrated_model):
    assert "no calibration cells vouch" in refusal_of(tiny_model, risk=0.1)
    refusal = refusal_of(calibrated_model, risk=0.1, row="generative", weighting="elbo")
    assert "under the weighting `elbo`" in refusal


def test_an_uncalibrated_checkpoint_promises_nothing_and_says_so(tiny_model):
    answer = answer_of(tiny_model)
    assert not answer.is_calibrated
    assert (answer.prediction_set, answer.risk) == (None, None)
    assert (answer.texture, answer.anomaly) == (None, None)
    (warning,) = answer.warnings
    assert "Nothing was calibrated on held-out cells with the row `fused`" in warning
    assert answer.predicted_class == answer.best_class


# --- rows, weightings, budgets


def test_another_weighting_ranks_and_is_not_calibrated(calibrated_model):
    answer = answer_of(calibrated_model, row="generative", weighting="elbo")
    assert answer.provenance.weighting == "elbo"
    assert not answer.is_calibrated
    assert answer.prediction_set is None
    assert "under the weighting `elbo`" in answer.warnings[0]


def test_the_models_own_weighting_by_name_changes_nothing(calibrated_model):
    named = answer_of(calibrated_model, row="generative", weighting="robust")
    assert named == answer_of(calibrated_model, row="generative")


@pytest.mark.parametrize("row", ["fused", "head"])
def test_another_weighting_is_for_the_generative_row_only(calibrated_model, row):
    refusal = refusal_of(calibrated_model, row=row, weighting="elbo")
    assert "another weighting is for the row 'generative' only" in refusal


def test_a_budget_of_a_race_is_refused_where_nothing_races(calibrated_model):
    assert "the head races nothing" in refusal_of(calibrated_model, row="head", n_blocks=4)


def test_another_budget_than_the_calibrations_is_said(calibrated_model):
    answer = answer_of(calibrated_model, n_blocks=4)
    assert answer.provenance.draw_plan.n_blocks == 4
    assert "Calibrated at a budget of 2 blocks" in answer.warnings[0]
    assert not answer_of(calibrated_model, n_blocks=2).warnings


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(
    "options", [{}, {"n_blocks": 5}, {"class_names": TINY_CLASSES[:2]}, {"anomaly": False}]
)
@pytest.mark.parametrize("evidence_map", [True, False])
def test_no_classification_takes_more_than_was_budgeted(
    calibrated_model, row, options, evidence_map
):
    wanted = {"row": row, "evidence_map": evidence_map, **options}
    if row == "head" and not evidence_map:
        wanted.pop("n_blocks", None)
    cost = answer_of(calibrated_model, **wanted).cost
    budget = classification_passes(
        calibrated_model, ClassificationOptions.model_validate(wanted, strict=False)
    )
    assert max(cost.trunk_passes, cost.class_passes) <= budget


# --- anomaly


def test_anomaly_is_looked_for_wherever_there_is_a_reference(calibrated_model):
    found = answer_of(calibrated_model).anomaly
    assert 0 < found.p_value <= 1
    assert found.false_alarm_rate == 0.1
    assert answer_of(calibrated_model, anomaly=False).anomaly is None


def test_an_empty_field_is_an_anomaly_and_gets_no_verdict(calibrated_model):
    # The reference cells are noise; a field of one colour is as unlike them as can be.
    answer = answer_of(calibrated_model, Image.new("RGB", (32, 32), (230, 200, 210)))
    assert answer.anomaly.is_anomalous
    assert answer.predicted_class is None
    assert any("unlike the reference cells of every class" in r for r in answer.reasons)
    assert answer.best_class in TINY_CLASSES


@pytest.mark.parametrize("row", ["fused", "head"])
@pytest.mark.parametrize("anomaly", [True, False])
def test_the_texture_is_compared_in_every_answer_that_asks_the_head(calibrated_model, row, anomaly):
    image = cell_image(32, 32, seed=100)
    found = answer_of(calibrated_model, image, row=row, anomaly=anomaly)
    assert found.texture.false_alarm_rate == 0.1
    assert found.texture.is_anomalous == (found.texture.p_value <= 0.1)
    assert found.texture == answer_of(calibrated_model, image, row="head", anomaly=False).texture
    assert found.texture == answer_of(calibrated_model, image, class_names=TINY_CLASSES[:2]).texture
    # Noise, as the reference cells are.
    assert found.texture.p_value > 0.1


def test_without_a_pass_of_the_head_there_is_no_texture(calibrated_model):
    assert answer_of(calibrated_model, row="generative", anomaly=False).texture is None
    assert answer_of(calibrated_model, row="generative", anomaly=True).texture is None


def test_a_foreign_texture_gets_no_verdict_and_says_why(calibrated_model):
    # Among reference cells that are nearer than any cell can be, every image is foreign.
    own = calibrated_model.settings.anomaly
    nearest = own.texture.folds[0].model_copy(update={"distances": (-1.0,) * 30})
    texture = own.texture.model_copy(update={"folds": (nearest,)})
    reference = own.model_copy(update={"texture": texture})
    settings = calibrated_model.settings.model_copy(update={"anomaly": reference})
    answer = answer_of(with_settings(calibrated_model, settings), row="head", anomaly=False)
    assert answer.texture.p_value == 1 / 31
    assert answer.texture.is_anomalous
    assert answer.anomaly is None
    assert answer.predicted_class is None
    assert any("its texture is unlike the reference cells'" in r for r in answer.reasons)


def test_looking_for_anomalies_without_a_reference_is_refused(tiny_model):
    assert "no reference cells to find anomalies with" in refusal_of(tiny_model, anomaly=True)


def test_a_reference_too_small_to_raise_an_alarm_is_said(calibrated_model):
    # All reference cells are ranked by their texture, half of them by all of their parts.
    def said(rate, **options):
        settings = calibrated_model.settings.model_copy(update={"false_alarm_rate": rate})
        found = answer_of(with_settings(calibrated_model, settings), **options).warnings
        return [one.split("`")[1] for one in found if "No image can be flagged" in one]

    reference = calibrated_model.settings.anomaly
    n_ranked = len(reference.surprises)
    assert sum(len(fold.distances) for fold in reference.texture.folds) > n_ranked
    assert said(1 / (n_ranked + 1) - 1e-6) == ["anomaly"]
    assert said(0.001) == ["texture", "anomaly"]
    assert said(0.001, row="head", anomaly=False) == ["texture"]
    assert said(calibrated_model.settings.false_alarm_rate) == []


def test_where_the_false_alarm_rate_was_not_measured_the_answer_says_so(calibrated_model):
    told = "was not measured with another row or declared classes"

    def is_told(**options):
        return any(told in warning for warning in answer_of(calibrated_model, **options).warnings)

    assert is_told(row="head")
    assert is_told(row="generative", weighting="elbo")
    assert is_told(class_names=TINY_CLASSES[:2])
    assert not is_told()
    assert not is_told(row="head", anomaly=False)


# --- the evidence map


@pytest.mark.parametrize("weighting", ["robust", "elbo"])
def test_the_evidence_map_adds_up_to_the_log_odds_of_the_race(calibrated_model, weighting):
    answer = answer_of(
        calibrated_model, row="generative", weighting=weighting, evidence_map=True, seed=4
    )
    shown = answer.evidence_map
    assert (shown.class_name, shown.rival_class_name) == tuple(
        p.class_name for p in answer.predictions[:2]
    )
    assert shown.n_blocks == 2
    # Up to the rounding of bfloat16, in which both are computed in batches of other sizes.
    assert shown.log_odds == pytest.approx(answer.generative_log_odds, rel=0.02, abs=1e-4)
    assert [band.name for band in shown.bands] == ["shape", "structure", "texture"]
    assert sum(band.log_odds for band in shown.bands) == pytest.approx(shown.log_odds)
    assert [(b.log_snr_min, b.log_snr_max) for b in shown.bands] == [
        (None, 2),
        (2, 5),
        (5, None),
    ]


def test_the_evidence_picture_is_a_plain_png_of_the_models_size(calibrated_model):
    shown = answer_of(calibrated_model, evidence_map=True).evidence_map
    picture = Image.open(io.BytesIO(base64.b64decode(shown.png_base64)))
    assert (picture.format, picture.mode, picture.size, picture.info) == (
        "PNG",
        "RGB",
        (32, 32),
        {},
    )


def test_the_map_of_a_race_that_ended_early_is_of_the_blocks_that_were_raced(calibrated_model):
    sure = BlockVariancePrior(degrees_of_freedom=1e4, scale=1e-6)
    settings = calibrated_model.settings.model_copy(update={"variance_prior": sure})
    model = with_settings(calibrated_model, settings)
    answer = answer_of(model, row="generative", evidence_map=True, n_blocks=8)
    assert answer.undecided_classes == []
    assert answer.evidence_map.n_blocks == 1
    assert answer.evidence_map.log_odds_standard_error is None
    assert answer.evidence_map.log_odds == pytest.approx(
        answer.generative_log_odds, rel=0.02, abs=1e-4
    )


def test_a_pair_that_did_not_race_gets_a_map_of_the_whole_budget(calibrated_model):
    shown = answer_of(calibrated_model, row="head", evidence_map=True, n_blocks=3).evidence_map
    assert shown.n_blocks == 3
    assert math.isfinite(shown.log_odds)
    assert shown.log_odds_standard_error > 0


def test_a_map_adds_up_under_learned_weights_a_cap_and_a_density_too(calibrated_model):
    own = calibrated_model.settings
    learned = LearnedWeighting(log_snr_min=-1, log_snr_max=6, weights=(1, 3), cap=0.01)
    plan = own.draw_plan.model_copy(update={"density": (0.3, 0.7), "turned": True})
    settings = own.model_copy(update={"weighting": learned, "draw_plan": plan})
    model = with_settings(calibrated_model, settings)
    answer = answer_of(model, row="generative", evidence_map=True)
    assert answer.provenance.weighting == "learned"
    assert answer.provenance.draw_plan.density == [0.3, 0.7]
    assert answer.evidence_map.log_odds == pytest.approx(
        answer.generative_log_odds, rel=0.02, abs=1e-4
    )


def test_a_map_costs_two_classes_for_each_draw_of_it(calibrated_model):
    plain = answer_of(calibrated_model, row="head", anomaly=False)
    mapped = answer_of(calibrated_model, row="head", anomaly=False, evidence_map=True)
    assert plain.evidence_map is None
    n_draws = 2 * 3 * 2  # signs, levels, blocks
    assert mapped.cost.trunk_passes - plain.cost.trunk_passes == n_draws
    assert mapped.cost.class_passes - plain.cost.class_passes == 2 * n_draws
    assert mapped.cost.gflop > plain.cost.gflop
