"""Where parts meet: the web app's client against the real service."""

import io

import httpx
import pytest
from PIL import Image

from diffusion.checkpoint import load_checkpoint
from webapp.errors import WebappError
from webapp.service_client import ServiceClient


@pytest.fixture
def over_http(client):
    """The web app's client on the service's own ASGI application, no socket between them."""

    def forward(request: httpx.Request) -> httpx.Response:
        reply = client.request(
            request.method,
            request.url.path,
            content=request.read(),
            headers={"content-type": request.headers.get("content-type", "")},
        )
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    transport = httpx.MockTransport(forward)
    return ServiceClient(httpx.Client(transport=transport, base_url="http://testserver"))


def test_the_web_app_reads_the_services_model_card(over_http, tiny_checkpoint):
    model = over_http.model()
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert model.digest == checkpoint.digest
    assert tuple(model.class_names) == checkpoint.class_names
    assert model.image_size == checkpoint.header.image_size
    assert model.crop_px == checkpoint.header.crop_px


def test_the_web_app_receives_the_pictures_that_it_asked_for(over_http):
    drawn = list(over_http.generate("platelet", 3, seed=11))
    assert [image.seed for image in drawn] == [11, 12, 13]
    sizes = {Image.open(io.BytesIO(image.png)).size for image in drawn}
    assert sizes == {(32, 32)}
    again = list(over_http.generate("platelet", 1, seed=12))
    assert again[0].png == drawn[1].png


def test_a_refusal_of_the_service_reaches_the_user_of_the_web_app_in_its_words(over_http):
    with pytest.raises(WebappError, match=r"the service refused /v1/generations \(422\): .*blast"):
        list(over_http.generate("blast", 1, seed=0))
