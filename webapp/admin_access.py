"""Who may use the researchers' pages: a name and a password, a cookie, and a gate before the rest.

Gradio's own login is not used: its sessions never end, its cookie goes along with requests from
other sites, and it answers some calls to anybody. Here nobody reaches Gradio before logging in.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Annotated

from fastapi import FastAPI, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webapp.admin_views import macros
from webapp.errors import WebappError

COOKIE = "researcher"
SESSION_S = 12 * 3600
TRIES = 5
PAUSE_S = 300
PARCELS = 20
STUDIES = "/studies"

OPEN_TO_ALL = ("/login", "/favicon.ico")
"""Whole without script, style sheet or font from elsewhere."""

GRADIO_PATHS = (
    *(f"{STUDIES}/assets/", f"{STUDIES}/static/", f"{STUDIES}/theme.css"),
    *(f"{STUDIES}/gradio_api/upload", f"{STUDIES}/gradio_api/heartbeat/"),
)
GRADIO_CALLS = (STUDIES, f"{STUDIES}/", f"{STUDIES}/config", f"{STUDIES}/gradio_api/run/predict")
"""What the page needs. The file cache, the queue, monitoring and run history are unreachable."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; "
        "form-action 'self'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}

FAVICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<rect width="16" height="16" rx="3" fill="#1f566d"/>
<circle cx="8" cy="8" r="4.5" fill="none" stroke="#fff" stroke-width="1.6"/>
<circle cx="8" cy="8" r="1.6" fill="#fff"/></svg>"""


class Sessions:
    """Who is logged in. Kept in memory: a restart logs everybody out and loses nothing else."""

    def __init__(
        self, check_password: Callable[[str, str], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._check_password, self._now = check_password, now
        self._sessions: dict[str, tuple[str, float]] = {}
        self._wrong: dict[str, tuple[int, float]] = {}
        self._one_at_a_time = Lock()  # or guesses sent together would all be checked

    def log_in(self, name: str, password: str) -> str:
        """The token of a new session.

        Raises:
            WebappError: if name and password do not fit, or did not fit too often.
        """
        with self._one_at_a_time:
            now = self._now()
            self._wrong = {of: tries for of, tries in self._wrong.items() if tries[1] > now}
            self._sessions = {of: held for of, held in self._sessions.items() if held[1] > now}
            n_wrong, until = self._wrong.get(name, (0, now))
            if n_wrong >= TRIES:
                raise WebappError(
                    f"Too many wrong passwords for this name; wait {-(-(until - now) // 60):.0f} "
                    "min, then try again."
                )
            if not self._check_password(name, password):
                self._wrong[name] = (n_wrong + 1, now + PAUSE_S)
                raise WebappError(
                    "Name and password do not fit; try again, or set a new password with "
                    "`python -m webapp password NAME`."
                )
            self._wrong.pop(name, None)
            token = secrets.token_urlsafe(32)
            self._sessions[token] = (name, now + SESSION_S)
            return token

    def name(self, request: Request) -> str | None:
        """Of whoever holds the cookie of a session that has not ended."""
        name, until = self._sessions.get(request.cookies.get(COOKIE, ""), (None, 0.0))
        return name if until > self._now() else None

    def log_out(self, request: Request) -> None:
        """End the session of this cookie."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A file for one researcher."""

    owner: str
    file_name: str
    content: bytes


class Parcels:
    """Files that are fetched once, by the researcher for whom they were made, and touch no disk.

    Gradio would write them into its cache and give them to everybody who is logged in.
    """

    def __init__(self) -> None:
        self._parcels: dict[str, Parcel] = {}

    def put(self, parcel: Parcel) -> str:
        """The address under which it waits; the oldest of too many is dropped."""
        key = secrets.token_urlsafe(32)
        self._parcels[key] = parcel
        for oldest in list(self._parcels)[:-PARCELS]:
            self._parcels.pop(oldest, None)
        return f"/download/{key}"

    def take(self, key: str, owner: str) -> Parcel | None:
        """The parcel, which is gone then."""
        parcel = self._parcels.get(key)
        if parcel is None or parcel.owner != owner:
            return None
        return self._parcels.pop(key, None)


def add_routes(app: FastAPI, sessions: Sessions, parcels: Parcels, css: str) -> None:
    """Login, logout, downloads."""

    @app.get("/")
    def front() -> Response:
        return RedirectResponse(f"{STUDIES}/", status_code=303)

    @app.get("/favicon.ico")
    def favicon() -> Response:
        return Response(FAVICON, media_type="image/svg+xml")

    @app.get("/manifest.json")
    def manifest() -> dict[str, str]:
        return {"name": "Reader studies"}  # Gradio's page asks the root for one

    @app.get("/login")
    def login_form() -> Response:
        return HTMLResponse(macros.login(css, ""))

    @app.post("/login")
    def log_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=1000)] = "",
    ) -> Response:
        try:
            token = sessions.log_in(name.strip(), password)
        except WebappError as refusal:
            return HTMLResponse(macros.login(css, str(refusal)), status_code=401)
        response = RedirectResponse(f"{STUDIES}/", status_code=303)
        response.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    @app.post("/logout")
    def log_out(request: Request) -> Response:
        sessions.log_out(request)
        return RedirectResponse("/login", status_code=303)

    @app.get("/download/{key}")
    def download(key: str, request: Request) -> Response:
        parcel = parcels.take(key, sessions.name(request) or "")
        if parcel is None:
            return Response("This download was fetched already; ask for a new one.", 404)
        return Response(
            parcel.content,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{parcel.file_name}"'},
        )


class AdminGuard:
    """Nothing but the login page for whoever is not logged in; of Gradio, only what is used."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 303, 401 or 404 here, or hand on, with the same headers on every reply."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request, path = Request(scope), str(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                kept = [pair for pair in message["headers"] if pair[0] not in own]
                message["headers"] = [*kept, *own.items()]
            await send(message)

        reply: ASGIApp = self._app
        if path not in OPEN_TO_ALL and self._sessions.name(request) is None:
            if path in ("/", STUDIES, f"{STUDIES}/") and request.method == "GET":
                reply = RedirectResponse("/login", status_code=303)
            else:
                reply = Response("Log in first.", 401)
        elif (path.startswith(STUDIES) and path not in GRADIO_CALLS) and not path.startswith(
            GRADIO_PATHS
        ):
            reply = Response("Not found.", 404)
        await reply(scope, receive, send_with_headers)
