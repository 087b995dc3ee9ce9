"""`/v1/anomaly-scores` and `/v1/counterfactuals`: the library's answers, and their refusals."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from service.anomaly_scores import anomaly_score
from service.classification import classify as classified
from service.counterfactuals import counterfactual
from service.problems import Problem
from service.schemas import (
    AnomalyScoreOptions,
    AnomalyScoreReply,
    ClassificationOptions,
    CounterfactualOptions,
    CounterfactualReply,
)
from tests.conftest import TINY_CLASSES
from tests.service.conftest import cell_image, encoded

PNG = encoded(cell_image())


def picture(text):
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_anomaly_score_is_that_of_the_classification(calibrated_model):
    image = cell_image()
    found = anomaly_score(calibrated_model, image, AnomalyScoreOptions(seed=3))
    verdict = classified(calibrated_model, image, ClassificationOptions(seed=3, anomaly=True))
    assert found["p_value"] == verdict.anomaly.p_value
    assert found["is_anomalous"] == verdict.anomaly.is_anomalous
    assert found["texture"] == verdict.texture
    assert found["cost"] == verdict.cost
    names = calibrated_model.settings.anomaly.part_names
    assert [part.name for part in found["parts"]] == list(names)
    assert all(0 < part.p_value <= 1 for part in found["parts"])


def test_a_model_without_reference_cells_has_no_anomaly_score(tiny_model):
    with pytest.raises(Problem, match="no reference cells to find anomalies with"):
        anomaly_score(tiny_model, cell_image(), AnomalyScoreOptions())


def edit_of(model, image, **options):
    taken = classified(model, image, ClassificationOptions()).best_class
    other = next(name for name in TINY_CLASSES if name != taken)
    return taken, counterfactual(
        model, image, CounterfactualOptions(**({"target_class": other} | options))
    )


def test_an_edit_says_what_it_changed_and_what_it_took(calibrated_model):
    taken, (found, n_passes) = edit_of(calibrated_model, cell_image())
    assert found["source_class"] == taken != found["target_class"]
    before, after = picture(found["original_png_base64"]), picture(found["png_base64"])
    shown_l1 = np.abs(after - before).mean() / 255
    assert found["l1"] == pytest.approx(shown_l1, abs=0.004)
    assert (found["probability"] > 0.9) == found["reached_target"]
    assert found["identity_error"] < 1e-4
    assert n_passes > 50
    assert picture(found["difference_png_base64"]).shape == before.shape


def test_an_edit_is_a_function_of_pixels_and_options(calibrated_model):
    first, second, other = (
        edit_of(calibrated_model, cell_image(), seed=seed)[1] for seed in (5, 5, 6)
    )
    assert first == second
    assert first[0]["l1"] != other[0]["l1"]


def test_the_class_that_a_cell_is_edited_from_may_be_given(calibrated_model):
    taken, _ = edit_of(calibrated_model, cell_image())
    source, target = (name for name in TINY_CLASSES if name != taken)
    options = {"source_class": source, "target_class": target}
    _, (found, _) = edit_of(calibrated_model, cell_image(), **options)
    assert (found["source_class"], found["target_class"]) == (source, target)


def test_an_edit_towards_the_cells_own_class_is_refused(calibrated_model):
    image = cell_image()
    taken = classified(calibrated_model, image, ClassificationOptions()).best_class
    with pytest.raises(Problem, match=f"taken for `{taken}` already; ask for another"):
        counterfactual(calibrated_model, image, CounterfactualOptions(target_class=taken))


def test_an_edit_towards_an_unknown_class_is_refused(calibrated_model):
    with pytest.raises(Problem, match="does not know `blast`; it knows"):
        counterfactual(calibrated_model, cell_image(), CounterfactualOptions(target_class="blast"))


def test_both_are_answered_over_http(client):
    scores = client.post("/v1/anomaly-scores", files={"image": ("cell.png", PNG)})
    # The tiny checkpoint that is served has no reference cells.
    assert scores.status_code == 422
    assert scores.json()["code"] == "unsupported_options"
    taken = client.post("/v1/classifications", files={"image": ("cell.png", PNG)}).json()
    other = next(name for name in TINY_CLASSES if name != taken["best_class"])
    reply = client.post(
        "/v1/counterfactuals",
        files={"image": ("cell.png", PNG)},
        data={"options": f'{{"target_class": "{other}"}}'},
    )
    assert reply.status_code == 200, reply.text
    answer = CounterfactualReply.model_validate(reply.json())
    assert answer.target_class == other
    assert answer.provenance.image_digest == taken["provenance"]["image_digest"]
    assert answer.usage.forward_passes > 50
    missing = client.post("/v1/counterfactuals", files={"image": ("cell.png", PNG)})
    assert missing.json()["code"] == "invalid_options"
    assert "target_class: Field required" in missing.json()["detail"]


def test_the_reply_holds_all_that_the_score_says(calibrated_model):
    found = anomaly_score(calibrated_model, cell_image(), AnomalyScoreOptions())
    usage = {"compute_time_ms": 1.0, "queue_time_ms": 0.0}
    reply = AnomalyScoreReply(
        **found, id="1", model=calibrated_model.reference, warnings=[], usage=usage
    )
    assert AnomalyScoreReply.model_validate_json(reply.model_dump_json()) == reply
    assert torch.__version__ == reply.provenance.torch_version
