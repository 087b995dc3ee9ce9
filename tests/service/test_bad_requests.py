"""Every kind of bad request has its own status and code, and tells nothing about the server."""

import json

import pytest

from tests.service.conftest import cell_image, encoded
from tests.service.test_images import png_header

PNG = encoded(cell_image())
JPEG = encoded(cell_image(200, 200), "JPEG")
DAMAGED_PNG = PNG[:-30] + bytes([PNG[-30] ^ 1]) + PNG[-29:]


def assert_refused(response, status: int, code: str) -> dict:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"].endswith(".")
    for secret in ("Traceback", "/work", "site-packages", "pydantic.dev", "http://", "https://"):
        assert secret not in response.text
    return problem


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("bit-flipped.png", DAMAGED_PNG, 422, "corrupt_image"),
        ("truncated.jpg", JPEG[: len(JPEG) // 2], 422, "truncated_image"),
        ("text.png", b"Basophil, slide 7\n", 422, "not_an_image"),
        ("cell.gif", encoded(cell_image(), "GIF"), 415, "unsupported_image_format"),
        ("report.png", encoded(cell_image(), "PDF"), 415, "unsupported_image_format"),
        ("200-megapixels.png", png_header(20_000, 10_000), 413, "image_too_large"),
        ("empty.png", b"", 422, "empty_image"),
    ],
)
def test_each_kind_of_bad_image_has_its_status_and_code(classify, name, content, status, code):
    assert_refused(classify(content, name=name), status, code)


def test_a_bad_image_does_not_change_the_answer_to_the_next_good_one(classify):
    before = classify(PNG).json()["predictions"]
    assert classify(DAMAGED_PNG).status_code == 422
    assert classify(PNG).json()["predictions"] == before


def test_a_request_without_an_image_is_told_how_to_send_one(client):
    response = client.post("/v1/classifications", files={"options": (None, "{}")})
    problem = assert_refused(response, 422, "missing_image")
    assert "send it as a file named `image`" in problem["detail"]


def test_an_address_in_place_of_an_image_is_not_fetched(client):
    response = client.post(
        "/v1/classifications", files={"image": (None, "http://127.0.0.1:1/cell.png")}
    )
    assert_refused(response, 422, "missing_image")


def test_two_images_are_refused_rather_than_one_ignored(client):
    files = [("image", ("a.png", PNG)), ("image", ("b.png", PNG))]
    assert_refused(client.post("/v1/classifications", files=files), 422, "several_images")


def test_a_misspelt_part_is_refused(client):
    files = {"image": ("a.png", PNG), "optoins": (None, "{}")}
    problem = assert_refused(client.post("/v1/classifications", files=files), 422, "unknown_part")
    assert "'optoins'" in problem["detail"]


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ('{"sead": 1}', "/options/sead"),
        ('{"seed": -1}', "/options/seed"),
        ('{"seed": "1"}', "/options/seed"),
        ('{"n_levels": 6}', "/options/n_levels"),  # the plan belongs to the calibration
        ('{"n_blocks": 65}', "/options/n_blocks"),
        ('{"weighting": "uniform"}', "/options/weighting"),
        ('{"weighting": "learned"}', "/options/weighting"),
        ('{"row": "best"}', "/options/row"),
        ('{"level": 1}', "/options/level"),
        ('{"level": NaN}', "/options/level"),
        ('{"risk": 0}', "/options/risk"),
        ('{"anomaly": "yes"}', "/options/anomaly"),
        ('{"evidence_map": 1}', "/options/evidence_map"),
        ('{"framing": "zoom"}', "/options/framing"),
        ('{"class_names": ["basophil"]}', "/options/class_names"),
        ('{"class_names": ["basophil", "basophil"]}', "/options/class_names"),
        ("1", "/options"),
    ],
)
def test_an_option_that_cannot_be_used_is_pointed_at(classify, options, pointer):
    problem = assert_refused(classify(PNG, options), 422, "invalid_options")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_options_that_are_not_json_are_malformed(classify):
    assert_refused(classify(PNG, "{seed: 1}"), 400, "malformed_request")


def test_an_unknown_class_is_answered_with_the_known_ones(classify):
    response = classify(PNG, '{"class_names": ["basophil", "unicorn"]}')
    problem = assert_refused(response, 422, "unknown_class")
    assert problem["detail"] == (
        "The model does not know `unicorn`; it knows `basophil`, `eosinophil`, `platelet`."
    )


def test_a_crop_larger_than_the_image_is_refused_with_the_way_out(classify):
    problem = assert_refused(classify(PNG, '{"framing": "crop"}'), 422, "image_too_small")
    assert 'set `framing` to "whole"' in problem["detail"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weighting": "elbo"}, "is for the row 'generative' only"),
        ({"risk": 0.1}, "risk=0.1: no calibration cells vouch for a rate of wrong verdicts"),
        ({"anomaly": True}, "has no reference cells to find anomalies with"),
        ({"row": "head", "n_blocks": 2}, "the head races nothing"),
    ],
)
def test_options_that_this_model_cannot_serve_are_refused_in_words(classify, options, words):
    problem = assert_refused(classify(PNG, json.dumps(options)), 422, "unsupported_options")
    assert words in problem["detail"]


def test_more_work_than_a_request_may_ask_for_is_refused_before_it_starts(classify, monkeypatch):
    from service import app

    few = app.settings.model_copy(update={"max_forward_passes": 1200})
    monkeypatch.setattr(app, "settings", few)
    assert classify(PNG).status_code == 200
    response = classify(PNG, '{"n_blocks": 64, "evidence_map": true}')
    problem = assert_refused(response, 422, "too_much_work")
    # the head, and 384 draws of 3 classes; the map evaluates 2 more
    assert "takes 1,921 forward passes" in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/classifications", "/v1/generations"])
@pytest.mark.parametrize("media_type", ["image/png", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_refused(client, path, media_type):
    response = client.post(path, content=PNG, headers={"content-type": media_type})
    assert_refused(response, 415, "unsupported_media_type")


def test_pickles_are_refused(client):
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    response = client.post("/v1/generations", content=b"\x80\x04N.", headers=headers)
    assert_refused(response, 415, "unsupported_media_type")


def test_a_form_without_boundary_is_malformed(client):
    headers = {"content-type": "multipart/form-data"}
    response = client.post("/v1/classifications", content=PNG, headers=headers)
    assert_refused(response, 400, "malformed_request")


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_broken_json_is_malformed(client, body):
    headers = {"content-type": "application/json"}
    response = client.post("/v1/generations", content=body, headers=headers)
    assert_refused(response, 400, "malformed_request")


def test_a_misspelt_field_beside_the_options_is_refused(client):
    body = {"options": {"class_name": "basophil"}, "seed": 3}
    assert_refused(client.post("/v1/generations", json=body), 422, "unknown_part")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "invalid_options"),
        ({"class_name": "unicorn"}, "unknown_class"),
        ({"class_name": "basophil", "n_images": 17}, "invalid_options"),
        ({"class_name": "basophil", "n_steps": 1001}, "invalid_options"),
        ({"class_name": "basophil", "n_images": 16, "n_steps": 1000}, "too_much_work"),
    ],
)
def test_a_drawing_that_cannot_be_made_is_refused(client, options, code):
    assert_refused(client.post("/v1/generations", json={"options": options}), 422, code)


def test_a_body_over_the_limit_is_refused_by_its_declared_length(classify):
    assert_refused(classify(bytes(11 * 2**20)), 413, "body_too_large")


def test_a_body_over_the_limit_is_refused_as_it_is_counted_when_sent_in_chunks(client):
    sent = []

    def chunks():
        for _ in range(30):
            sent.append(2**20)
            yield bytes(2**20)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = client.post("/v1/classifications", content=chunks(), headers=headers)
    assert_refused(response, 413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/classifications", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
    ],
)
def test_the_frameworks_own_refusals_are_problem_documents(client, method, path, status, code):
    assert_refused(client.request(method, path), status, code)


def test_a_fault_of_ours_is_a_500_without_internals(classify, monkeypatch):
    from service import classification

    def fails(*arguments):
        raise RuntimeError("secret /srv/path")

    monkeypatch.setattr(classification, "classify", fails)
    problem = assert_refused(classify(PNG), 500, "internal_error")
    assert "secret" not in json.dumps(problem)
