"""The BentoML service: each endpoint reads, calls one plain function, and shapes the answer.

`service.inference` brings torch, which takes seconds to import: the model thread imports it, and
endpoints only once a model is there, so that probes are answered meanwhile.
"""

import logging
import os
import uuid
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import bentoml
import click
from bentoml._internal.utils.analytics import usage_stats
from fastapi import FastAPI
from pydantic import PrivateAttr
from starlette.requests import Request

from service.body_limit import BodyLimitMiddleware
from service.engine import Engine
from service.forms import read_image_and_options, read_options
from service.images import Upload, decode
from service.problems import Problem, ProblemMiddleware, answers_problems
from service.schemas import (
    AnomalyScoreOptions,
    AnomalyScoreReply,
    ClassificationOptions,
    ClassificationReply,
    CounterfactualOptions,
    CounterfactualReply,
    GenerationOptions,
    GenerationReply,
    GenerationUsage,
    ModelList,
    Usage,
)
from service.settings import (
    SettingsError,
    check_port_is_free,
    checkpoint_folder,
    read_settings,
)

if TYPE_CHECKING:
    from service.model import Model

# Telemetry is off unless somebody turned it on. `bentoml serve` has asked, and remembered the
# answer, before it imports this module.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
usage_stats.do_not_track.cache_clear()

logger = logging.getLogger("bentoml.cytoverity")
try:
    settings = read_settings()
except SettingsError as error:
    raise SystemExit(f"cytoverity: {error}") from None

HOST, PORT = "127.0.0.1", 3000
"""There is no login: `bentoml serve --host 0.0.0.0` is a decision."""

resources = FastAPI(title="Cytoverity", docs_url=None, redoc_url=None, openapi_url=None)
"""What is read rather than computed; mounted beside the APIs, and in the same OpenAPI document."""


class Form(bentoml.IODescriptor):
    """A request that is described to BentoML, and read by `service.forms`."""

    _request: Request = PrivateAttr()

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Self:  # noqa: ARG003
        """Leave reading to the endpoint, where a refusal can still choose its answer."""
        form = cls.model_construct()
        form._request = request
        return form


class ClassificationForm(Form):
    """`multipart/form-data` with one file `image` and one JSON object `options`."""

    image: Path
    options: ClassificationOptions = ClassificationOptions()


class AnomalyScoreForm(Form):
    """`multipart/form-data` with one file `image` and one JSON object `options`."""

    image: Path
    options: AnomalyScoreOptions = AnomalyScoreOptions()


class CounterfactualForm(Form):
    """`multipart/form-data` with one file `image` and one JSON object `options`."""

    image: Path
    options: CounterfactualOptions


class GenerationForm(Form):
    """`application/json` or `multipart/form-data` with one JSON object `options`."""

    options: GenerationOptions


def stored_model(tag: str) -> Path | None:
    """Folder of a packaged model in BentoML's model store."""
    try:
        return Path(bentoml.models.get(tag).path)
    except (bentoml.exceptions.NotFound, ValueError):
        return None


@bentoml.service(
    name="cytoverity",
    http={"host": HOST, "port": PORT},
    traffic={"timeout": 86_400},  # BentoML's timeout answers, but does not stop the work
)
@bentoml.asgi_app(resources)
class BloodCellService:
    """Classifies and draws single blood cells with a class-conditional diffusion model."""

    def __init__(self) -> None:
        self.engine = Engine(max_waiting=settings.max_waiting)
        # Loading takes seconds: meanwhile the probes must get their answer.
        self.loading = self.engine.start(self._load)

    def _load(self) -> "Model":
        from service import inference

        try:
            folder = checkpoint_folder(settings, stored_model=stored_model)
            model = inference.load(folder, device=settings.device)
        except Exception as error:
            logger.error("The model cannot be loaded: %s", error)
            raise
        logger.info(
            "Serving %s (sha256 %s) on %s",
            model.reference.name,
            model.reference.digest[:12],
            model.checkpoint.device,
        )
        return model

    @property
    def model(self) -> "Model":
        """The model.

        Raises:
            Problem: 503 while it is not loaded.
        """
        if not self.loading.done():
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "model_loading",
                "The model is loading; come back in a few seconds.",
                retry_after_s=2,
            )
        if self.loading.exception() is not None:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "model_failed",
                "The model could not be loaded; the server's log says why.",
            )
        return self.loading.result()

    async def _decoded(self, content: bytes) -> Upload:
        return await self.engine.prepare(
            partial(decode, content, max_pixels=settings.max_image_pixels)
        )

    @bentoml.api(route="/v1/classifications")
    @answers_problems
    async def classify(self, form: ClassificationForm, /) -> ClassificationReply:
        """Class of one cell, or why none is given, and how far to trust it."""
        model = self.model
        from service import classification

        content, options = await read_image_and_options(form._request, ClassificationOptions)
        _check_budget(classification.classification_passes(model, options))
        with self.engine.admitted():
            upload = await self._decoded(content)
            finished = await self.engine.compute(
                partial(classification.classify, model, upload.image, options)
            )
        answer = finished.value.model_dump()
        answer["warnings"] = [*upload.warnings, *finished.value.warnings]
        return ClassificationReply(
            **answer,
            id=_new_id(),
            model=model.reference,
            usage=Usage(
                compute_time_ms=finished.compute_time_ms, queue_time_ms=finished.queue_time_ms
            ),
        )

    @bentoml.api(route="/v1/anomaly-scores")
    @answers_problems
    async def score_anomaly(self, form: AnomalyScoreForm, /) -> AnomalyScoreReply:
        """How unlike the reference cells one image is, part by part."""
        model = self.model
        from service.anomaly_scores import anomaly_score

        content, options = await read_image_and_options(form._request, AnomalyScoreOptions)
        with self.engine.admitted():
            upload = await self._decoded(content)
            finished = await self.engine.compute(
                partial(anomaly_score, model, upload.image, options)
            )
        return AnomalyScoreReply(
            **finished.value,
            id=_new_id(),
            model=model.reference,
            warnings=list(upload.warnings),
            usage=Usage(
                compute_time_ms=finished.compute_time_ms, queue_time_ms=finished.queue_time_ms
            ),
        )

    @bentoml.api(route="/v1/counterfactuals")
    @answers_problems
    async def edit(self, form: CounterfactualForm, /) -> CounterfactualReply:
        """The smallest edit of one cell that the model takes for another class."""
        model = self.model
        from service.counterfactuals import counterfactual

        content, options = await read_image_and_options(form._request, CounterfactualOptions)
        with self.engine.admitted():
            upload = await self._decoded(content)
            finished = await self.engine.compute(
                partial(counterfactual, model, upload.image, options)
            )
        answer, n_passes = finished.value
        return CounterfactualReply(
            **answer,
            id=_new_id(),
            model=model.reference,
            warnings=list(upload.warnings),
            usage=GenerationUsage(
                forward_passes=n_passes,
                compute_time_ms=finished.compute_time_ms,
                queue_time_ms=finished.queue_time_ms,
            ),
        )

    @bentoml.api(route="/v1/generations")
    @answers_problems
    async def generate(self, form: GenerationForm, /) -> GenerationReply:
        """Drawn cells of one class, as PNG; image `i` has the seed `seed + i`."""
        model = self.model
        from service import inference

        options = await read_options(form._request, GenerationOptions)
        n_passes = inference.generation_passes(options)
        _check_budget(n_passes)
        with self.engine.admitted():
            finished = await self.engine.compute(partial(inference.generate, model, options))
        images, provenance = finished.value
        return GenerationReply(
            id=_new_id(),
            model=model.reference,
            class_name=options.class_name,
            images=images,
            provenance=provenance,
            usage=GenerationUsage(
                forward_passes=n_passes,
                compute_time_ms=finished.compute_time_ms,
                queue_time_ms=finished.queue_time_ms,
            ),
        )

    @resources.get("/v1/models")
    @answers_problems
    async def models(self) -> ModelList:
        """The model that is served: classes, conventions, digest, cost."""
        model = self.model
        from service import inference

        return ModelList(models=[inference.describe(model)])

    @resources.get("/v2/health/live")
    async def live(self) -> dict[str, bool]:
        """Open Inference Protocol: the process answers."""
        return {"live": True}

    @resources.get("/v2/health/ready")
    @answers_problems
    async def ready(self) -> dict[str, bool]:
        """Open Inference Protocol: the model is loaded and warm; 503 before."""
        return {"ready": self.model is not None}

    def __is_ready__(self) -> bool:
        """What BentoML's own `/readyz` asks."""
        return self.loading.done() and self.loading.exception() is None

    @bentoml.on_deployment
    @staticmethod
    def check_before_start() -> None:
        """Refuse to start in one line: a worker that fails is respawned for ever."""
        asked = click.get_current_context(silent=True)
        host, port = (asked.params.get(name) if asked else None for name in ("host", "port"))
        try:
            check_port_is_free(host or HOST, port or PORT)
            folder = checkpoint_folder(settings, stored_model=stored_model)
        except SettingsError as error:
            raise SystemExit(f"cytoverity: {error}") from None
        # The workers inherit what was checked, wherever they are started.
        os.environ["CYTOVERITY_CHECKPOINT"] = str(folder)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Let the running request end."""
        self.engine.close()


# The decorator made a bentoml.Service of the class. The first middleware is the outermost.
_service: Any = BloodCellService
_service.add_asgi_middleware(ProblemMiddleware)
_service.add_asgi_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)


def _check_budget(n_passes: int) -> None:
    if n_passes > settings.max_forward_passes:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "too_much_work",
            f"This takes {n_passes:,} forward passes and {settings.max_forward_passes:,} are the "
            "most for one request; ask for fewer blocks, classes, steps or images.",
        )


def _new_id() -> str:
    return uuid.uuid4().hex
