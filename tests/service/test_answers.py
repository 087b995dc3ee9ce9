import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import load_checkpoint
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
    (expected,) = CellClassifier.from_checkpoint(checkpoint).classify(
        latents_from_images(pixels[None]), [image_digest(pixels)], seed=5
    )
    answer = verdict(classify(PNG, '{"seed": 5}'))
    found = {p["class_name"]: p["probability"] for p in answer["predictions"]}
    assert found == dict(expected.probabilities)
    assert answer["predicted_class"] == expected.predicted_class
    assert answer["log_odds"] == expected.log_odds
    assert answer["generative_log_odds"] == expected.generative_log_odds
    assert answer["model"] == {"name": "tiny-random", "digest": checkpoint.digest}


def test_the_reply_says_what_it_cost_and_how_to_get_it_again(classify, tiny_checkpoint):
    reply = classify(PNG, '{"seed": 9, "row": "generative"}').json()
    # signs, blocks, levels; and classes
    assert (reply["cost"]["trunk_passes"], reply["cost"]["class_passes"]) == (12, 36)
    assert reply["cost"]["gflop"] > 0
    assert reply["usage"]["compute_time_ms"] > 0 <= reply["usage"]["queue_time_ms"]
    pixels = np.asarray(framed(IMAGE, 32, crop_px=None))
    assert reply["provenance"] == {
        "checkpoint_digest": load_checkpoint(tiny_checkpoint).digest,
        "image_digest": image_digest(pixels),
        "seed": 9,
        "row": "generative",
        "weighting": "robust",
        "draw_plan": {
            "log_snr_min": -1.0,
            "log_snr_max": 6.0,
            "n_levels": 3,
            "n_blocks": 2,
            "turned": False,
            "density": None,
        },
        "candidate_class_names": ["basophil", "eosinophil", "platelet"],
        "device": "cpu",
        "precision": "bfloat16",
        "torch_version": torch.__version__,
    }


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


def test_declared_classes_are_stated_in_the_answer(classify):
    answer = verdict(classify(PNG, '{"class_names": ["platelet", "basophil"]}'))
    assert {p["class_name"] for p in answer["predictions"]} == {"platelet", "basophil"}
    assert sum(p["probability"] for p in answer["predictions"]) == pytest.approx(1)
    assert answer["excluded_classes"] == ["eosinophil"]
    assert answer["provenance"]["candidate_class_names"] == ["basophil", "platelet"]
    assert "holds among `basophil`, `platelet` only" in answer["warnings"][0]


def test_what_an_uncalibrated_model_cannot_say_is_null(classify):
    answer = verdict(classify(PNG, '{"level": 0.5}'))
    assert answer["is_calibrated"] is False
    for name in ("prediction_set", "risk", "texture", "anomaly", "evidence_map"):
        assert answer[name] is None
    assert "promise no rate" in answer["warnings"][0]


def test_every_option_goes_through(classify):
    options = {
        "class_names": ["platelet", "basophil"],
        "row": "generative",
        "n_blocks": 3,
        "weighting": "elbo",
        "level": 0.8,
        "classwise": True,
        "anomaly": False,
        "evidence_map": True,
        "seed": 2,
        "framing": "whole",
    }
    answer = verdict(classify(PNG, json.dumps(options)))
    assert answer["provenance"]["draw_plan"]["n_blocks"] == 3
    assert answer["provenance"]["weighting"] == "elbo"
    assert answer["evidence_map"]["png_base64"].startswith("iVBORw0KGgo")


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
    assert card["forward_passes_per_classification"] == 37  # the head, and 12 draws of 3 classes
    assert (card["weighting"], card["alpha"], card["false_alarm_rate"]) == ("robust", 0.05, 0.01)
    assert not card["is_calibrated"]
    assert not card["is_white_balanced"]
    assert not card["finds_anomalies"]
    assert [row["row"] for row in card["rows"]] == ["fused", "generative", "head"]


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
