"""The web server: personal links, the reader's calls, one image route, and Gradio for the shell.

Who asks is known from the cookie alone, what they may see from the database alone. Whatever else
a browser sends is an answer, and is checked as one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import gradio as gr
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webapp import pages
from webapp.store import Reader, ReaderStore
from webapp.strings import preferred
from webapp.visit import CALLS, Visits

COOKIE = "reader"
COOKIE_DAYS = 30
STUDY = "/study"
LONGEST_BODY = 16_384
"""Bytes; the longest call that a page makes has a tenth of it."""

GRADIO_FILES = tuple(f"{STUDY}/{part}" for part in ("assets/", "static/", "theme.css"))
"""Gradio's own scripts and styles: the same for every study."""

GRADIO_SHELL = (STUDY, f"{STUDY}/", f"{STUDY}/config")
"""The page without a study in it. Gradio serves much more (event calls, queue, upload, file cache,
monitoring, run history, API schema), callable even where it is hidden; none is reachable here."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; base-uri 'self'; "
        "form-action 'self'; object-src 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
"""`default-src 'self'`: the browser itself refuses any request that would leave the server."""

Trouble = Literal["no_link", "unknown", "expired", "revoked", "withdrawn"]


def create_app(store: ReaderStore) -> FastAPI:
    """The whole server over one study database."""
    # FastAPI's own documentation would list the routes to anybody.
    app = FastAPI(title="Reader study", docs_url=None, redoc_url=None, openapi_url=None)
    visits = Visits(store)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        store.find_reader("")
        return JSONResponse({"status": "ok"})

    @app.get("/")
    def front(request: Request) -> HTMLResponse:
        return notice(request, "no_link", 200)

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return Response(pages.FAVICON, media_type="image/svg+xml")

    @app.get("/manifest.json")
    def manifest() -> JSONResponse:
        return JSONResponse({"name": "Reader study"})  # Gradio's page asks the root for one

    @app.get("/s/{token}")
    def enter(token: str, request: Request) -> Response:
        who = reader_or_trouble(store, {COOKIE: token})
        if isinstance(who, str):
            return notice(request, who, 404)
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

    async def do(request: Request) -> Response:
        name, body = request.path_params["name"], await body_of(request)
        if name not in CALLS or not isinstance(body, dict):
            return JSONResponse({"error": "unknown call"}, status_code=400)

        def reply() -> Response:
            who = reader_or_trouble(store, request.cookies)
            if isinstance(who, str):
                html = pages.notice_fragment(who, language_of(request))
                return JSONResponse({"page": "notice", "html": html}, status_code=401)
            return JSONResponse(asdict(visits.do(who, name, body)))

        return await run_in_threadpool(reply)

    def image(request: Request) -> Response:
        who = reader_or_trouble(store, request.cookies)
        token, side = request.path_params["token"], request.path_params.get("side")
        if isinstance(who, str) or side not in (None, "left", "right"):
            png = None
        else:
            png = store.image(who.participant_id, token, side)
        if png is None:
            return notice(request, "no_link", 404)
        return Response(png, media_type="image/png")

    # The routes of every trial go past FastAPI's dependencies, which cost more than the page.
    app.add_route(f"{STUDY}/do/{{name}}", do, methods=["POST"])
    app.add_route("/image/{token}", image)
    app.add_route("/image/{token}/{side}", image)

    @app.exception_handler(404)
    def not_found(request: Request, _error: Exception) -> HTMLResponse:
        return notice(request, "no_link", 404)

    app.add_middleware(StudyGuard, store=store)
    app = gr.mount_gradio_app(
        app,
        build_shell(),
        path=STUDY,
        theme=calm_theme(),
        # Given as `css`, Gradio would rewrite the selectors, and break those with commas inside.
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


def build_shell() -> gr.Blocks:
    """One component with the script in it, and no event: Gradio itself learns nothing."""
    with gr.Blocks(title="Reader study", analytics_enabled=False, fill_width=True) as shell:
        gr.HTML(pages.EMPTY, js_on_load=pages.SCRIPT, apply_default_css=False)
    return shell


def reader_or_trouble(store: ReaderStore, cookies: Mapping[str, str]) -> Reader | Trouble:
    """Whose cookie this is, or why it opens nothing."""
    token = cookies.get(COOKIE)
    reader = store.find_reader(token) if token else None
    if reader is None:
        return "unknown" if token else "no_link"
    if reader.is_withdrawn:
        return "withdrawn"
    return reader if reader.link == "valid" else reader.link


def language_of(request: Request) -> str:
    """For pages outside a study: the browser's."""
    return preferred(request.headers.get("accept-language", ""))


def notice(request: Request, trouble: Trouble, status_code: int) -> HTMLResponse:
    """A page that says how to enter."""
    html = pages.notice_page(trouble, language_of(request))
    return HTMLResponse(html, status_code=status_code)


async def body_of(request: Request) -> Any:
    """The JSON of a call; None where it is none, or longer than any page's."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            return None
    try:
        return json.loads(body or b"{}")
    except ValueError:
        return None


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
    """Lets through Gradio's files, and for a known reader its empty page; nothing else of it."""

    def __init__(self, app: ASGIApp, store: ReaderStore) -> None:
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
                    *(header for header in message["headers"] if header[0] not in _HEADERS),
                    *_HEADERS.items(),
                ]
            await send(message)

        reply: ASGIApp = self._app
        if path.startswith(STUDY) and not path.startswith((*GRADIO_FILES, f"{STUDY}/do/")):
            if path not in GRADIO_SHELL:
                reply = notice(request, "no_link", 404)
            else:
                who = await run_in_threadpool(reader_or_trouble, self._store, request.cookies)
                if isinstance(who, str):
                    reply = notice(request, who, 401)
        await reply(scope, receive, send_with_headers)


_HEADERS = {key.encode(): value.encode() for key, value in HEADERS.items()}
