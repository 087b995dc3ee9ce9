"""Request bodies, read strictly.

BentoML's own reader fetches a text value in a file field as a URL, parses a class called "1" as a
number, takes the last of two images, and ignores a misspelt field (serving.md, sections 2 and 3).
"""

import json
from http import HTTPStatus
from typing import TypeVar

from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.problems import Problem, invalid_options
from service.schemas import Options

MAX_PARTS = 8
MAX_OPTIONS_BYTES = 2**16

T = TypeVar("T", bound=Options)


async def read_image_and_options(request: Request, options_type: type[T]) -> tuple[bytes, T]:
    """The one file `image` and the optional part `options` of a multipart form.

    Raises:
        Problem: 400, 415 or 422.
    """
    if _media_type(request) != "multipart/form-data":
        raise _unsupported_media_type("multipart/form-data with a file `image`")
    form = await _form(request, {"image", "options"})
    images = form.getlist("image")
    if not images:
        raise _refused("missing_image", "There is no image; send it as a file named `image`.")
    if len(images) > 1:
        raise _refused(
            "several_images", f"There are {len(images)} images; send one in each request."
        )
    if not isinstance(images[0], UploadFile):
        raise _refused(
            "missing_image",
            "The part `image` is text, and addresses are not fetched; send the file itself.",
        )
    return await images[0].read(), await _options_of(form, options_type)


async def read_options(request: Request, options_type: type[T]) -> T:
    """The options of a request without a file: a form part, or JSON `{"options": {...}}`.

    Raises:
        Problem: 400, 415 or 422.
    """
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        return await _options_of(await _form(request, {"options"}), options_type)
    if media_type != "application/json":
        raise _unsupported_media_type('application/json {"options": {...}} or multipart/form-data')
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise _malformed("The body is not JSON.") from None
    if not isinstance(body, dict) or set(body) - {"options"}:
        raise _refused("unknown_part", 'Send one JSON object {"options": {...}}.')
    return _validated(json.dumps(body.get("options", {})), options_type)


async def _form(request: Request, known: set[str]) -> FormData:
    try:
        form = await request.form(
            max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=MAX_OPTIONS_BYTES
        )
    except HTTPException:
        raise _malformed(
            f"The multipart form cannot be read, or has more than {MAX_PARTS} parts."
        ) from None
    unknown = set(form) - known
    if unknown:
        raise _refused(
            "unknown_part",
            f"The form has a part {sorted(unknown)[0]!r}; "
            f"it takes {' and '.join(f'`{name}`' for name in sorted(known))}.",
        )
    return form


async def _options_of(form: FormData, options_type: type[T]) -> T:
    parts = form.getlist("options")
    if len(parts) > 1:
        raise _refused("several_options", "Send `options` once, as one JSON object.")
    if not parts:
        return _validated("{}", options_type)
    part = parts[0]
    return _validated(await part.read() if isinstance(part, UploadFile) else part, options_type)


def _validated(document: str | bytes, options_type: type[T]) -> T:
    try:
        return options_type.model_validate_json(document)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise _malformed("The part `options` is not JSON.") from None
        raise invalid_options(error) from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _malformed(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "malformed_request", detail)


def _refused(code: str, detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail)


def _unsupported_media_type(wanted: str) -> Problem:
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", f"Send {wanted}.")
