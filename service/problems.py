"""Refusals as problem documents (RFC 9457), with a stable `code` a program can branch on."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

P = ParamSpec("P")
T = TypeVar("T")

MEDIA_TYPE = "application/problem+json"
KEPT_HEADERS = {b"allow", b"retry-after", b"server", b"x-bentoml-request-id"}

logger = logging.getLogger("bentoml.cytoverity")

FRAMEWORK_REFUSALS: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "There is nothing at this path; /docs.json lists what is."),
    405: ("method_not_allowed", "This path does not take this method; see the Allow header."),
    415: ("unsupported_media_type", "This path does not take this content type."),
    500: ("internal_error", "The fault is ours; the server's log has the details."),
    503: ("not_ready", "The service is not ready; come back later."),
}
"""Code and words for what the frameworks refuse by themselves."""


class Problem(Exception):  # noqa: N818 - the RFC's word
    """A request that is refused; the detail says what to do about it."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s

    def document(self) -> dict[str, Any]:
        """The body of the refusal."""
        document: dict[str, Any] = {
            "type": f"urn:cytoverity:problem:{self.code}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return document

    def response(self) -> Response:
        """The refusal as an HTTP response."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return Response(
            json.dumps(self.document()),
            status_code=int(self.status),
            headers=headers,
            media_type=MEDIA_TYPE,
        )


def invalid_options(error: ValidationError) -> Problem:
    """422 with one entry for each option at fault, without the validator's links and inputs."""
    errors = [
        {"pointer": "/" + "/".join(["options", *map(str, e["loc"])]), "message": e["msg"]}
        for e in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    told = "; ".join(f"{e['pointer'].removeprefix('/')}: {e['message']}" for e in errors)
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_options",
        f"The options cannot be used: {told}.",
        errors=errors,
    )


def answers_problems(
    endpoint: Callable[P, Awaitable[T]],
) -> Callable[P, Awaitable[T | Response]]:
    """Return refusals as responses: BentoML logs whatever is raised as an error of ours."""

    @wraps(endpoint)
    async def answering(*args: P.args, **kwargs: P.kwargs) -> T | Response:
        try:
            return await endpoint(*args, **kwargs)
        except Problem as problem:
            return problem.response()

    return answering


class ProblemMiddleware:
    """Turns every other refusal that passes, and every exception, into a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is well, and rewrite what is not."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = rewriting = False

        async def send_or_rewrite(message: Message) -> None:
            nonlocal started, rewriting
            if message["type"] == "http.response.start":
                started = True
                headers = dict(message.get("headers", ()))
                media_type = headers.get(b"content-type", b"").partition(b";")[0]
                if message["status"] >= 400 and media_type != MEDIA_TYPE.encode():
                    rewriting = True
                    problem = framework_problem(message["status"])
                    kept = [(k, v) for k, v in headers.items() if k.lower() in KEPT_HEADERS]
                    return await _send_problem(problem, scope, receive, send, kept)
            if not rewriting:
                await send(message)

        try:
            await self.app(scope, receive, send_or_rewrite)
        except Exception:
            if started:
                raise
            logger.exception("Unexpected error on %s %s", scope["method"], scope["path"])
            await _send_problem(framework_problem(500), scope, receive, send, [])


def framework_problem(status: int) -> Problem:
    """The document for a status that a framework answered with in its own words."""
    code, detail = FRAMEWORK_REFUSALS.get(
        status, ("refused", "The request was refused; check it against /docs.json.")
    )
    return Problem(HTTPStatus(status), code, detail)


async def _send_problem(
    problem: Problem, scope: Scope, receive: Receive, send: Send, kept: list[tuple[bytes, bytes]]
) -> None:
    response = problem.response()
    response.raw_headers.extend(kept)
    await response(scope, receive, send)
