"""The researchers' pages over raw HTTP: who gets in, what they get, and what nobody gets."""

import json
import re
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from sqlalchemy import text
from starlette.requests import Request
from starlette.routing import Mount

from studies.stimuli import read_stimuli
from tests.webapp.admin_at_hand import (
    NAME,
    PASSWORD,
    Researcher,
    admin_server,
    built,
    in_a_loop,
    open_study_of,
    read,
)
from tests.webapp.conftest import Clock
from webapp.admin import colours, create_admin_app
from webapp.admin_access import HEADERS, PAUSE_S, SESSION_S, Parcel, Parcels, Sessions
from webapp.admin_acts import show
from webapp.admin_pages import AdminPages
from webapp.audit import audit_stimuli
from webapp.database import Database
from webapp.errors import WebappError
from webapp.people import labels_in
from webapp.registry import Registry
from webapp.store import ReaderStore

NEAR_COPY = {
    "stimulus_id": "",
    "class_name": "basophil",
    "copy_of": "secret.png",
    "among": "the training pictures",
    "distance": 0.01,
    "threshold": 0.3,
    "how": "mirrored",
}


@pytest.fixture(scope="module")
def report(stimuli):
    """An audit that failed, not least for a near-copy, which it names."""
    drawn = next(one for one in read_stimuli(stimuli) if one.is_synthetic)
    values = audit_stimuli(stimuli).model_dump(exclude={"passed"})
    values["near_copies"] = [NEAR_COPY | {"stimulus_id": drawn.stimulus_id}]
    sentence = f"1 of 6 generated pictures is a near-copy of real ones, such as {drawn.stimulus_id}"
    values["problems"] = [
        {"code": "near_copy", "sentence": f"{sentence} of secret.png.", "remedy": "Draw it anew."},
        *values["problems"],
    ]
    return type(audit_stimuli(stimuli)).model_validate(values)


@pytest.fixture(scope="module")
def world(tmp_path_factory, stimuli, attention_stimuli, report):
    """Two servers over the same study; the readers of one are always right, of the other wrong."""
    with ExitStack() as stack:
        made = []
        for is_right in (True, False):
            folder = tmp_path_factory.mktemp("admin")
            database = Database.create(f"sqlite:///{folder / 'studies.sqlite3'}")
            stack.callback(database.close)
            clock = Clock()
            clock.moment -= timedelta(days=30)  # so long ago that "days ago" stays the same
            registry = Registry(database, clock, "anna")
            registry.set_password(NAME, PASSWORD)
            invited = open_study_of(registry, stimuli, attention_stimuli, report)
            for one in invited:
                read(ReaderStore(database, clock), database, one.token, is_right=is_right)
            app = built(database)
            address = stack.enter_context(admin_server(app))
            made.append(SimpleNamespace(database=database, app=app, address=address))
        yield made


@pytest.fixture(scope="module")
def address(world):
    return world[0].address


@pytest.fixture
def researcher(address):
    with closing(Researcher(address)) as made:
        yield made


def test_a_server_into_which_nobody_could_log_in_refuses_to_start(tmp_path):
    database = Database.create(f"sqlite:///{tmp_path / 'studies.sqlite3'}")
    with pytest.raises(WebappError, match=r"set one with `python -m webapp password NAME`"):
        create_admin_app(database)
    database.close()


def test_readers_who_are_always_right_look_like_readers_who_are_always_wrong(world):
    shown = []
    for one in world:
        with closing(Researcher(one.address)) as researcher:
            shown.append(researcher.press("show", "tiny").json()["data"])
    assert "4 of 4" in str(shown[0])  # the controls, right in both
    assert shown[0] == shown[1]


def flat(routes):
    """Those of routers too, which FastAPI keeps folded."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from flat(inner.routes) if inner else (route,)


def test_an_anonymous_caller_reaches_the_login_page_and_nothing_else(world):
    app, address = world[0].app, world[0].address
    (mount,) = [route for route in app.routes if isinstance(route, Mount)]
    places = [(route.path, route.methods) for route in app.routes if route is not mount]
    places += [(f"/studies{route.path}", route.methods) for route in flat(mount.app.routes)]
    n_tried = 0
    assert ("/studies/gradio_api/queue/join", {"POST"}) in places
    for path, methods in places:
        filled = re.sub(r"\{[^}]*\}", "x", path)
        for method in sorted(methods or {"GET"}):
            reply = httpx.request(method, f"{address}{filled}")
            if filled not in ("/login", "/favicon.ico"):
                assert reply.status_code in (303, 401), (method, filled)
                assert reply.content in (b"", b"Log in first."), (method, filled)
                assert reply.headers.get("location", "/login") == "/login"
            n_tried += 1
    assert n_tried > 80
    login = httpx.get(f"{address}/login").text
    assert not re.search(r'src=|href=|url\(|@import|tiny|"dependencies"', login)


def test_a_caller_with_a_made_up_cookie_is_anonymous(address):
    for cookie in ("researcher", "access-token", "access-token-unsecure"):
        reply = httpx.get(f"{address}/studies/config", headers={"cookie": f"{cookie}=anna"})
        assert (reply.status_code, reply.text) == (401, "Log in first.")


def test_what_the_page_does_not_use_of_gradio_is_unreachable_even_when_logged_in(researcher):
    for path in (
        *("queue/join", "queue/data", "info", "openapi.json", "runs", "run-history/buckets"),
        *("file=/etc/passwd", "file/etc/passwd", "app_id", "startup-events", "component_server"),
        *("token", "user", "call/show", "run/show", "api/predict", "vibe-code", "proxy=x"),
    ):
        for method in ("GET", "POST"):
            reply = researcher.request(method, f"/studies/gradio_api/{path}")
            assert (reply.status_code, reply.text) == (404, "Not found."), path
    for path in ("/studies/monitoring", "/studies/monitoring/summary", "/studies/login"):
        assert researcher.get(path).status_code == 404
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert researcher.get(path).status_code == 404


def test_every_reply_forbids_storing_framing_and_other_servers(researcher):
    for path in ("/login", "/studies/", "/studies/config", "/studies/nothing", "/download/x"):
        headers = researcher.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(address):
    reply = httpx.post(f"{address}/login", data={"name": NAME, "password": PASSWORD})
    cookie = reply.headers["set-cookie"].lower()
    assert reply.status_code == 303
    assert {"httponly", "samesite=strict", f"max-age={SESSION_S}"} <= set(cookie.split("; "))
    assert PASSWORD not in cookie
    secure = httpx.post(
        f"{address}/login",
        data={"name": NAME, "password": PASSWORD},
        headers={"x-forwarded-proto": "https"},
    )
    assert "secure" in secure.headers["set-cookie"].lower()


def test_a_wrong_password_and_an_unknown_name_are_refused_in_the_same_words(address):
    replies = [
        httpx.post(f"{address}/login", data={"name": name, "password": "wrong"})
        for name in (NAME, "<b>nobody</b>")
    ]
    assert [reply.status_code for reply in replies] == [401, 401]
    assert "Name and password do not fit" in replies[0].text
    assert replies[0].text == replies[1].text
    assert "set-cookie" not in replies[0].headers


def sessions_at(clock):
    return Sessions(
        lambda name, password: (name, password) == (NAME, PASSWORD),
        lambda: clock.moment.timestamp(),
    )


def asking(token):
    return Request({"type": "http", "headers": [(b"cookie", f"researcher={token}".encode())]})


def test_after_five_wrong_passwords_a_name_must_wait_even_with_the_right_one(clock):
    sessions = sessions_at(clock)
    for _ in range(5):
        with pytest.raises(WebappError, match="do not fit; try again"):
            sessions.log_in(NAME, "wrong")
    with pytest.raises(WebappError, match="wait 5 min, then try again"):
        sessions.log_in(NAME, PASSWORD)
    clock.pass_s(PAUSE_S + 1)
    assert sessions.name(asking(sessions.log_in(NAME, PASSWORD))) == NAME


def test_a_session_ends_by_itself_and_by_logging_out(clock):
    sessions = sessions_at(clock)
    first, second = (asking(sessions.log_in(NAME, PASSWORD)) for _ in range(2))
    sessions.log_out(first)
    assert (sessions.name(first), sessions.name(second)) == (None, NAME)
    clock.pass_s(SESSION_S)
    assert sessions.name(second) is None


def test_a_download_is_fetched_once_and_only_by_whom_it_was_made_for():
    parcels = Parcels()
    address = parcels.put(Parcel(owner="anna", file_name="links.csv", content=b"secret"))
    key = address.removeprefix("/download/")
    assert parcels.take(key, "ben") is None
    assert parcels.take(key, "anna").content == b"secret"
    assert parcels.take(key, "anna") is None


def test_a_handler_that_is_called_without_a_login_says_so_and_shows_nothing(world):
    pages = AdminPages(world[0].database, Parcels(), "http://study")

    in_a_loop(pages.blocks)
    shown = pages._handler(show)(gr.Request(username=None), "tiny")
    assert "you are not logged in any more" in shown[pages.status]
    assert "tiny" not in str(list(shown.values()))


def test_a_refusal_keeps_its_words_and_another_error_becomes_a_code(world, researcher, caplog):
    refused = researcher.press("freeze", "tiny", "").text
    assert "is open and cannot be frozen" in refused
    with world[0].database.write() as session:
        session.execute(text("ALTER TABLE consent RENAME TO elsewhere"))
        session.commit()
    failed = researcher.press("show", "tiny").text
    with world[0].database.write() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO consent"))
        session.commit()
    (code,) = re.findall("That did not work: error ([0-9a-f]{6})", failed)
    assert "consent" not in failed
    assert f"admin error {code}" in caplog.text


def words_of(received):
    """All that was received, but the one line of the protocol that names the primary outcome."""
    everything = b"\n".join(received).decode(errors="replace")
    return everything.replace("primary = &#34;accuracy&#34;", "")


def test_no_byte_tells_truth_class_or_accuracy_before_unblinding(
    researcher, stimuli, attention_stimuli
):
    researcher.get("/studies/")
    researcher.get("/studies/config")
    for act in ("show", "verify", "close", "open_study"):
        assert researcher.press(act, "tiny").status_code == 200
    received = words_of(researcher.received)
    assert "Near-copies of real pictures" in received
    assert "1 of 6 generated pictures is a near-copy of real ones" in received
    forbidden = ["accuracy", "sensitivity", "d_prime", "is_synthetic", "correct", "secret.png"]
    for one in (*read_stimuli(stimuli), *read_stimuli(attention_stimuli)):
        forbidden += [one.stimulus_id, one.class_name, one.source_digest, one.generator_digest]
    found = {word for word in forbidden if word and word in received}
    assert found == set()


def test_uploads_are_small_tables_that_are_gone_after_reading(researcher):
    reply = researcher.post(
        "/studies/gradio_api/upload", files={"files": ("readers.csv", b"x" * 300_000)}
    )
    assert reply.status_code == 413
    table = researcher.upload(b"label\nDr Chen\nDr Chen\n", "readers.csv")
    refused = researcher.press("invite", "tiny", table, 9).text
    assert "Dr Chen&#39; is invited already" in refused
    assert not Path(table["path"]).exists()
    elsewhere = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    reply = researcher.press("invite", "tiny", elsewhere, 9)
    assert (reply.status_code, "root:" in reply.text) == (500, False)
    picture = researcher.upload(b"label\nDr Chen\n", "readers.png")
    assert researcher.press("invite", "tiny", picture, 9).status_code == 500


def test_a_protocol_is_amended_from_a_file_and_only_with_a_reason(world, researcher):
    registry = Registry(world[0].database)
    plan = registry.summary("tiny").protocol.model_copy(update={"n_participants": 3})
    refused = researcher.press("amend", "tiny", researcher.upload(b"=", "plan.toml"), "more").text
    assert ">plan.toml is not a TOML file" in refused.replace("\\", "")
    for reason, words in (("", "an amendment needs a reason"), ("one more reader", "Amended.")):
        file = researcher.upload(plan.to_toml().encode(), "plan.toml")
        assert words in researcher.press("amend", "tiny", file, reason).text
    assert registry.summary("tiny").protocol == plan
    assert (registry.events("tiny")[-1].kind, registry.events("tiny")[-1].actor) == (
        "amended",
        NAME,
    )


def test_links_are_revoked_for_the_chosen_reader_alone(world, researcher):
    assert "no reader was chosen" in researcher.press("revoke", "tiny", None).text
    assert "open nothing any more" in researcher.press("revoke", "tiny", "tiny-P01").text
    links = {one.participant_id: one.link for one in Registry(world[0].database).monitor("tiny")}
    assert (links["tiny-P01"], links["tiny-P02"]) == ("revoked", "expired")


def test_a_report_is_noted_by_nothing_but_its_digest(researcher):
    assert "64 hex digits; `sha256sum" in researcher.press("report", "tiny", "report.html").text
    assert "is open and cannot be reported" in researcher.press("report", "tiny", "AB" * 32).text


def test_a_log_that_was_written_over_is_shown_to_be(world, researcher):
    with world[1].database.write() as session:
        session.execute(text("UPDATE event SET actor = 'nobody' WHERE number = 2"))
        session.commit()
    with closing(Researcher(world[1].address)) as elsewhere:
        broken = elsewhere.press("verify", "tiny").text
    assert "is not whole: event 2 (audited) was changed after it was written" in broken
    assert "The log is whole" in researcher.press("verify", "tiny").text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name\nDr Adler\n", "is not a table with a column `label`"),
        (b"\xff\xfe\x00", "is not a table with a column `label`"),
        (b"label\n", "names no reader; add a line for each"),
    ],
)
def test_a_table_of_readers_that_cannot_be_used_is_refused_with_advice(tmp_path, content, words):
    path = tmp_path / "readers.csv"
    path.write_bytes(content)
    with pytest.raises(WebappError, match=words):
        labels_in(path)


def test_labels_are_read_from_what_spreadsheets_write(tmp_path):
    path = tmp_path / "readers.csv"
    path.write_bytes('\ufefflabel,ward\r\n"Adler, Prof.",7\r\n Dr Bianchi ,8\r\n'.encode())
    assert labels_in(path) == ["Adler, Prof.", "Dr Bianchi"]


def test_a_label_that_is_markup_is_shown_as_text(world, researcher):
    registry = Registry(world[0].database)
    registry.invite("tiny", ["<img src=x onerror=alert(1)>"], valid_days=1)
    monitor = researcher.press("show", "tiny").json()["data"]
    assert "&lt;img src=x onerror" in json.dumps(monitor)
    assert not [one for one in monitor if isinstance(one, str) and "<img src=x" in one]


def test_the_colours_are_those_of_the_readers_page():
    assert "--cy-accent: #1f566d;" in colours()
    assert len(re.findall("--cy-", colours())) >= 8
