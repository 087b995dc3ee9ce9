"""The web server: personal links, one image route, and Gradio for the pages.

Who asks is known from the cookie alone, what they may see from the database alone. Whatever else
a browser sends is an answer, and is checked as one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webapp import pages
from webapp.flow import Page, page_of
from webapp.store import Answer, Reader, Store

COOKIE = "reader"
COOKIE_DAYS = 30
STUDY = "/study"

GRADIO_FILES = tuple(f"{STUDY}/{part}" for part in ("assets/", "static/", "theme.css"))
"""Gradio's own scripts and styles: the same for every study."""

GRADIO_CALLS = (
    STUDY,
    f"{STUDY}/",
    f"{STUDY}/config",
    f"{STUDY}/gradio_api/run/predict",
)
"""What the page calls. Gradio serves much more (upload, queue, file cache, monitoring, run
history, API schema), callable even where it is hidden; none of it is reachable here."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
"""`default-src 'self'`: the browser itself refuses any request that would leave the server."""

UNKNOWN_LINK = (
    "This link is not known",
    "Please open the personal link from your invitation, whole and unchanged. If it still does "
    "not open, ask the person who invited you for a new one.",
)
EXPIRED_LINK = (
    "This link has expired",
    "Your answers so far are kept. Please ask the person who invited you for a new link.",
)
NO_LINK = (
    "Please open your personal link",
    "This is a reader study. You enter it through the personal link from your invitation; "
    "the same link brings you back to where you stopped.",
)
NOT_STORED = "That answer could not be stored. Please judge this cell."


def create_app(store: Store) -> FastAPI:
    """The whole server over one study database."""
    # FastAPI's own documentation would list the routes to anybody.
    app = FastAPI(title="Reader study", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        store.study_ids()
        return JSONResponse({"status": "ok"})

    @app.get("/")
    def front() -> HTMLResponse:
        return HTMLResponse(pages.notice_page(*NO_LINK))

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return Response(pages.FAVICON, media_type="image/svg+xml")

    @app.get("/manifest.json")
    def manifest() -> JSONResponse:
        return JSONResponse({"name": "Reader study"})  # Gradio's page asks the root for one

    @app.get("/s/{token}")
    def enter(token: str, request: Request) -> Response:
        reader = store.find_reader(token)
        if reader is None or reader.has_expired:
            words = UNKNOWN_LINK if reader is None else EXPIRED_LINK
            return HTMLResponse(pages.notice_page(*words), status_code=404)
        response = RedirectResponse(f"{STUDY}/", status_code=303)
        response.set_cookie(
            COOKIE,
            token,
            max_age=COOKIE_DAYS * 86400,
            httponly=True,
            # Not "strict": the link is opened from a mail, and the cookie must come along.
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @app.get("/image/{presentation_token}")
    def image(presentation_token: str, request: Request) -> Response:
        reader = current_reader(store, request.cookies)
        png = store.image(reader.participant_id, presentation_token) if reader else None
        if png is None:
            return HTMLResponse(pages.notice_page(*NO_LINK), status_code=404)
        return Response(png, media_type="image/png")

    @app.exception_handler(404)
    def not_found(_request: Request, _error: Exception) -> HTMLResponse:
        return HTMLResponse(pages.notice_page(*NO_LINK), status_code=404)

    app.add_middleware(StudyGuard, store=store)
    app = gr.mount_gradio_app(
        app,
        build_blocks(store),
        path=STUDY,
        theme=calm_theme(),
        css=pages.CSS,
        head=pages.HEAD,
        footer_links=[],
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )
    return app


def current_reader(store: Store, cookies: Any) -> Reader | None:
    """The reader whose cookie this is, unless the link has expired."""
    token = cookies.get(COOKIE)
    reader = store.find_reader(token) if token else None
    return None if reader is None or reader.has_expired else reader


def build_blocks(store: Store) -> gr.Blocks:
    """One component that shows whatever page the server says, and four calls."""

    def show(request: gr.Request) -> str:
        reader = current_reader(store, request.cookies)
        return current_page(store, reader) if reader else pages.notice_page(*NO_LINK)

    def consent(request: gr.Request) -> str:
        reader = current_reader(store, request.cookies)
        if reader:
            store.record_consent(reader.participant_id, store.protocol(reader.study_id))
        return show(request)

    def begin(request: gr.Request) -> str:
        reader = current_reader(store, request.cookies)
        if reader and page_of(store.progress(reader.participant_id)) is Page.INSTRUCTIONS:
            return current_page(store, reader, begins=True)
        return show(request)

    def answer(request: gr.Request, event: gr.EventData) -> str:
        reader = current_reader(store, request.cookies)
        if reader is None:
            return show(request)
        try:
            given = Answer.model_validate(event._data)
        except ValidationError:
            return current_page(store, reader, notice=NOT_STORED)
        points = store.protocol(reader.study_id).confidence_points
        outcome = store.record_response(reader.participant_id, given, confidence_points=points)
        notice = NOT_STORED if outcome == "refused" else ""
        return current_page(store, reader, notice=notice)

    with gr.Blocks(title="Reader study", analytics_enabled=False, fill_width=True) as blocks:
        page = gr.HTML(js_on_load=pages.SCRIPT, apply_default_css=False)
        call: Callable[..., Any] = partial(
            dict,
            outputs=page,
            queue=False,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        blocks.load(show, **call(api_name="show"))
        page.consent(consent, **call(api_name="consent"))
        page.begin(begin, **call(api_name="begin"))
        page.answer(answer, **call(api_name="answer"))
    return blocks


def current_page(store: Store, reader: Reader, *, begins: bool = False, notice: str = "") -> str:
    """The page on which this reader goes on; a trial is presented anew each time."""
    protocol = store.protocol(reader.study_id)
    progress = store.progress(reader.participant_id)
    match page_of(progress):
        case Page.CONSENT:
            return pages.consent_page(protocol)
        case Page.INSTRUCTIONS if not begins:
            return pages.instructions_page(protocol, progress.n_trials)
        case Page.FINISH:
            return pages.finish_page(protocol, progress.n_trials)
    trial = store.present_next(reader.participant_id)
    if trial is None:  # answered in another tab since
        return pages.finish_page(protocol, progress.n_trials)
    return pages.trial_page(protocol, trial, notice=notice)


def calm_theme() -> gr.themes.Base:
    """Gradio's plainest theme in the fonts of the reader's own machine, light by day and night."""
    ground = "#eef0f1"
    return gr.themes.Base(
        font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
    ).set(
        body_background_fill=ground,
        body_background_fill_dark=ground,
        body_text_color="#1c2429",
        body_text_color_dark="#1c2429",
    )


class StudyGuard:
    """Lets through Gradio's files, and for a known reader the calls of the page; nothing else."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 404 here, or hand on, with the same headers on every reply."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request, path = Request(scope), str(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *(
                        (key, value)
                        for key, value in message["headers"]
                        if key.decode() not in HEADERS
                    ),
                    *((key.encode(), value.encode()) for key, value in HEADERS.items()),
                ]
            await send(message)

        reply: ASGIApp = self._app
        if path.startswith(STUDY) and not path.startswith(GRADIO_FILES):
            if path not in GRADIO_CALLS:
                reply = HTMLResponse(pages.notice_page(*NO_LINK), status_code=404)
            elif not await run_in_threadpool(current_reader, self._store, request.cookies):
                reply = HTMLResponse(pages.notice_page(*NO_LINK), status_code=401)
        await reply(scope, receive, send_with_headers)
