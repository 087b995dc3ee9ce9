import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.checkpoint import load_checkpoint
from diffusion.classifier import WEIGHTINGS
from diffusion.classifier import classify as library_classify
from diffusion.latents import framed, image_digest, latents_from_images
from tests.service.conftest import cell_image, encoded

IMAGE = cell_image()
PNG = encoded(IMAGE)
DRAWS_AND_TIMES = {"id", "usage"}


def verdict(response) -> dict:
    assert response.status_code == 200, response.text
    return {k: v for k, v in response.json().items() if k not in DRAWS_AND_TIMES}


def test_the_answer_is_the_librarys_for_the_same_pixels(classify, tiny_checkpoint):
    checkpoint = load_checkpoint(tiny_checkpoint)
    pixels = np.asarray(framed(IMAGE, 32, crop_px=None))
    expected = library_classify(
        checkpoint.denoise,
        latents_from_images(pixels[None]),
        [image_digest(pixels)],
        [0, 1, 2],
        checkpoint.header.draw_plan,
        weighting=WEIGHTINGS["robust"],
        temperature=checkpoint.header.temperature,
        seed=5,
    )
    answer = verdict(classify(PNG, '{"seed": 5}'))
    for prediction in answer["predictions"]:
        k = checkpoint.class_names.index(prediction["class_name"])
        assert prediction["probability"] == pytest.approx(expected.posteriors[0, k].item())
        assert prediction["score"] == pytest.approx(expected.scores[0, k].item())
        assert prediction["standard_error"] == pytest.approx(expected.standard_errors[0, k].item())
    assert answer["model"] == {"name": "tiny-random", "digest": checkpoint.digest}


def test_predictions_are_ranked_and_add_up(classify):
    answer = verdict(classify(PNG))
    predictions = answer["predictions"]
    assert [p["rank"] for p in predictions] == [1, 2, 3]
    assert predictions == sorted(predictions, key=lambda p: -p["score"])
    assert sum(p["probability"] for p in predictions) == pytest.approx(1)
    assert answer["predicted_class"] == predictions[0]["class_name"]
    assert answer["margin"] == predictions[0]["score"] - predictions[1]["score"]
    assert answer["decided"] == (answer["margin"] > 2 * predictions[1]["standard_error"])


def test_the_reply_says_what_it_cost_and_how_to_get_it_again(classify):
    reply = classify(PNG, '{"seed": 9}').json()
    assert reply["usage"]["forward_passes"] == 3 * 2 * 2 * 3  # classes, signs, blocks, levels
    assert reply["usage"]["compute_time_ms"] > 0 <= reply["usage"]["queue_time_ms"]
    provenance = reply["provenance"]
    assert provenance["seed"] == 9
    assert provenance["weighting"] == "robust"
    assert (provenance["draw_plan"]["n_levels"], provenance["draw_plan"]["n_blocks"]) == (3, 2)
    assert provenance["candidate_class_names"] == ["basophil", "eosinophil", "platelet"]
    assert provenance["device"] == "cpu"
    assert provenance["torch_version"] == torch.__version__
    pixels = np.asarray(framed(IMAGE, 32, crop_px=None))
    assert provenance["image_digest"] == image_digest(pixels)


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(classify):
    assert verdict(classify(PNG, '{"seed": 1}')) == verdict(classify(PNG, '{"seed": 1}'))
    first, second = (verdict(classify(PNG, f'{{"seed": {s}}}'))["predictions"] for s in (1, 2))
    assert first != second


def test_the_answer_is_bit_for_bit_the_same_under_load(classify):
    images = [encoded(cell_image(seed=seed)) for seed in range(8)]
    alone = [verdict(classify(content)) for content in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda content: verdict(classify(content)), images * 2))
    assert together == alone * 2


def test_the_same_pixels_in_another_file_format_get_the_same_answer(classify):
    assert verdict(classify(PNG)) == verdict(classify(encoded(IMAGE, "TIFF"), name="cell.tif"))


def test_a_subset_of_classes_is_renormalised_and_stated(classify):
    whole = {p["class_name"]: p for p in verdict(classify(PNG))["predictions"]}
    answer = verdict(classify(PNG, '{"class_names": ["platelet", "basophil"]}'))
    both = whole["platelet"]["probability"] + whole["basophil"]["probability"]
    assert {p["class_name"] for p in answer["predictions"]} == {"platelet", "basophil"}
    for prediction in answer["predictions"]:
        expected = whole[prediction["class_name"]]["probability"] / both
        assert prediction["probability"] == pytest.approx(expected)
    assert answer["provenance"]["candidate_class_names"] == ["platelet", "basophil"]
    assert "holds among `platelet`, `basophil` only" in answer["warnings"][0]


@pytest.mark.parametrize(
    ("options", "score_kind"),
    [
        ("{}", "calibrated"),
        ('{"weighting": "robust", "n_levels": 3}', "calibrated"),
        ('{"weighting": "elbo"}', "uncalibrated"),
        ('{"n_blocks": 3}', "uncalibrated"),
    ],
)
def test_only_the_checkpoints_own_plan_and_weighting_are_called_calibrated(
    classify, options, score_kind
):
    answer = verdict(classify(PNG, options))
    assert answer["score_kind"] == score_kind
    told = any("not calibrated" in warning for warning in answer["warnings"])
    assert told == (score_kind == "uncalibrated")


def test_one_block_has_no_standard_error_and_decides_nothing(classify):
    answer = verdict(classify(PNG, '{"n_blocks": 1}'))
    assert {p["standard_error"] for p in answer["predictions"]} == {None}
    assert answer["decided"] is False
    assert "nothing is decided" in answer["warnings"][-1]


def test_the_region_that_was_looked_at_is_stated(classify):
    assert verdict(classify(PNG))["region"] == {
        "framing": "whole",
        "left": 2,
        "top": 0,
        "side": 36,
    }


def draw(client, **options):
    response = client.post("/v1/generations", json={"options": options})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_drawn_image_depends_on_its_own_seed_only(client):
    three = draw(client, class_name="platelet", n_images=3, seed=10, n_steps=4)
    assert [image["seed"] for image in three["images"]] == [10, 11, 12]
    alone = draw(client, class_name="platelet", n_images=1, seed=12, n_steps=4)
    assert alone["images"][0] == three["images"][2]
    assert three["usage"]["forward_passes"] == 12


def test_drawn_images_are_plain_pngs_of_the_models_size(client):
    reply = draw(client, class_name="basophil", seed=1, n_steps=4)
    image = Image.open(io.BytesIO(base64.b64decode(reply["images"][0]["png_base64"])))
    assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", (32, 32), {})


def test_a_seed_that_was_not_given_is_chosen_and_returned(client):
    chosen = draw(client, class_name="basophil", n_steps=4)
    again = draw(client, class_name="basophil", n_steps=4, seed=chosen["images"][0]["seed"])
    assert again["images"] == chosen["images"]
    assert draw(client, class_name="basophil", n_steps=4)["images"] != chosen["images"]


def test_guidance_costs_twice(client):
    reply = draw(client, class_name="basophil", seed=1, n_steps=4, guidance_scale=2)
    assert reply["usage"]["forward_passes"] == 8


def test_drawing_takes_a_form_as_well(client):
    options = '{"class_name": "basophil", "seed": 1, "n_steps": 4}'
    response = client.post("/v1/generations", files={"options": (None, options)})
    expected = draw(client, class_name="basophil", seed=1, n_steps=4)
    assert response.json()["images"] == expected["images"]


def test_the_model_is_described(client, tiny_checkpoint):
    (card,) = client.get("/v1/models").json()["models"]
    assert card["name"] == "tiny-random"
    assert card["digest"] == load_checkpoint(tiny_checkpoint).digest
    assert card["class_names"] == ["basophil", "eosinophil", "platelet"]
    assert card["image_size"] == 32
    assert card["forward_passes_per_classification"] == 36


def test_health_is_answered_to_both_conventions(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_the_openapi_document_names_every_path_and_option(client):
    document = client.get("/docs.json").json()
    assert {"/v1/classifications", "/v1/generations", "/v1/models"} <= set(document["paths"])
    body = document["paths"]["/v1/classifications"]["post"]["requestBody"]["content"]
    assert set(body["multipart/form-data"]["schema"]["properties"]) == {"image", "options"}
    options = document["components"]["schemas"]["ClassificationOptions"]["properties"]
    assert options["seed"]["description"].startswith("Another seed draws other noise")
