"""HTTP to the service that draws the generated pictures."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from webapp.errors import WebappError

Model = TypeVar("Model", bound=BaseModel)

MAX_IMAGES = 16
"""Pictures in one request, as the service allows."""


class ServiceModel(BaseModel):
    """What the service says about a model."""

    name: str
    digest: str
    class_names: list[str]
    image_size: int
    crop_px: int | None = None
    """Centred square of a photograph that the model was trained on; None for all of it."""


class _Models(BaseModel):
    models: list[ServiceModel]


class _Image(BaseModel):
    seed: int
    png_base64: str


class _Generation(BaseModel):
    model: dict[str, Any]
    images: list[_Image]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedImage:
    """A drawn picture and the seed that draws it again."""

    seed: int
    png: bytes


class ServiceClient:
    """The two calls that a study needs. The base URL and the timeout are the HTTP client's."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def model(self) -> ServiceModel:
        """The model that the service runs."""
        models = self._parsed(_Models, self._request("GET", "/v1/models")).models
        if not models:
            raise WebappError(
                f"the service at {self._http.base_url} runs no model; start it with a checkpoint."
            )
        return models[0]

    def generate(self, class_name: str, n_images: int, *, seed: int) -> Iterator[GeneratedImage]:
        """Draw pictures of one class; picture `i` has the seed `seed + i`."""
        for start in range(0, n_images, MAX_IMAGES):
            options = {
                "class_name": class_name,
                "n_images": min(MAX_IMAGES, n_images - start),
                "seed": seed + start,
            }
            form = {"options": (None, json.dumps(options), "application/json")}
            reply = self._request("POST", "/v1/generations", files=form)
            generation = self._parsed(_Generation, reply)
            if len(generation.images) != options["n_images"]:
                raise self._not_understood(
                    f"{len(generation.images)} images where {options['n_images']} were asked for"
                )
            for image in generation.images:
                try:
                    png = base64.b64decode(image.png_base64, validate=True)
                except binascii.Error:
                    raise self._not_understood("an image that is not base64") from None
                yield GeneratedImage(seed=image.seed, png=png)

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            reply = self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise WebappError(
                f"the service at {self._http.base_url} took longer than "
                f"{self._http.timeout.read:.0f} s; ask for fewer pictures or wait until it is idle."
            ) from None
        except httpx.TransportError as error:
            raise WebappError(
                f"the service at {self._http.base_url} cannot be reached ({error}); "
                "start it with `bentoml serve`, or correct --service."
            ) from None
        if reply.is_error:
            raise WebappError(f"the service refused {path} ({reply.status_code}): {_detail(reply)}")
        return reply

    def _parsed(self, model: type[Model], reply: httpx.Response) -> Model:
        try:
            return model.model_validate_json(reply.content)
        except ValidationError as error:
            raise self._not_understood(str(error.errors()[0]["msg"])) from None

    def _not_understood(self, found: str) -> WebappError:
        return WebappError(
            f"the reply of {self._http.base_url} is not the /v1 interface of the service "
            f"({found}); check that --service names Cytoverity's service."
        )


def _detail(reply: httpx.Response) -> str:
    try:
        problem = reply.json()
        return str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        return "no detail given; look into its log."
