"""What a stranger, another reader, a curious reader and an impatient reader can do: nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import CLASSES
from webapp.bots import ReaderSession
from webapp.store import Store, utc_now
from webapp.tables import Participant


class Visit(ReaderSession):
    """A reader at work, with the HTTP client at hand."""

    def __init__(self, server, link):
        self.http = server.client()
        super().__init__(self.http)
        self.page = self.enter(link)

    def begin(self):
        self.call("consent")
        self.page = self.call("begin")
        return self.page


@pytest.fixture
def visits(server, stimuli):
    both = [Visit(server, link) for link in server.new_study(stimuli)]
    yield both
    for visit in both:
        visit.http.close()


@pytest.fixture(scope="module")
def curious(server, stimuli):
    """A reader who only looks around."""
    visit = Visit(server, server.new_study(stimuli)[0])
    yield visit.http
    visit.http.close()


@pytest.fixture
def database(server):
    store = Store.open(server.database_url)
    yield store
    store.close()


def test_a_personal_link_sets_a_cookie_that_scripts_and_other_sites_cannot_use(server, stimuli):
    (link, _) = server.new_study(stimuli)
    reply = httpx.get(link)
    assert (reply.status_code, reply.headers["location"]) == (303, "/study/")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_an_unknown_link_is_a_friendly_page_without_a_cookie(server):
    reply = httpx.get(f"{server.address}/s/unknown")
    assert reply.status_code == 404
    assert "This link is not known" in reply.text
    assert "ask the person who invited you" in reply.text
    assert "set-cookie" not in reply.headers


def test_an_expired_link_is_a_friendly_page_and_ends_a_running_visit(server, visits, database):
    visit = visits[0]
    visit.begin()
    token = visit.http.cookies["reader"]
    with database._engine.begin() as connection:
        connection.execute(
            Participant.__table__.update()
            .where(Participant.participant_id == database.find_reader(token).participant_id)
            .values(link_expires_at=(utc_now() - timedelta(seconds=1)).isoformat())
        )
    reply = httpx.get(f"{server.address}/s/{token}")
    assert reply.status_code == 404
    assert "This link has expired" in reply.text
    assert "Your answers so far are kept" in reply.text
    assert visit.http.get(visit.page.image_url).status_code == 404
    assert visit.http.get("/study/").status_code == 401


@pytest.mark.parametrize("path", ["/", "/no/such/page", "/image/none"])
def test_every_other_address_says_how_to_enter(server, path):
    reply = httpx.get(f"{server.address}{path}")
    assert reply.status_code == (200 if path == "/" else 404)
    assert "Please open your personal link" in reply.text


@pytest.mark.parametrize("cookies", [{}, {"reader": "forged"}])
def test_without_a_valid_cookie_every_call_fails_and_stores_nothing(
    server, visits, database, cookies
):
    page = visits[0].begin()
    before = len(list(database.responses(_study_of(database, visits[0]))))
    with httpx.Client(base_url=server.address, cookies=cookies) as stranger:
        assert stranger.get("/study/").status_code == 401
        assert stranger.get("/study/config").status_code == 401
        for fn_index in range(4):
            reply = stranger.post(
                "/study/gradio_api/run/predict",
                json={"data": [], "fn_index": fn_index, "event_data": _answer(page)},
            )
            assert reply.status_code == 401
            assert "data-page" not in reply.text
        assert stranger.get(page.image_url).status_code == 404
    assert len(list(database.responses(_study_of(database, visits[0])))) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/study/gradio_api/info"),
        ("GET", "/study/gradio_api/openapi.json"),
        ("GET", "/study/gradio_api/startup-events"),
        ("GET", "/study/gradio_api/heartbeat/x"),
        ("GET", "/study/gradio_api/runs"),
        ("GET", "/study/gradio_api/queue/data?session_hash=x"),
        ("GET", "/study/gradio_api/queue/status"),
        ("GET", "/study/gradio_api/file=pyproject.toml"),
        ("GET", "/study/file=pyproject.toml"),
        ("GET", "/study/monitoring"),
        ("GET", "/study/monitoring/summary"),
        ("GET", "/study/login"),
        ("GET", "/study/../pyproject.toml"),
        ("GET", "/study/assets/../gradio_api/info"),
        ("GET", "/study/assets/..%2f..%2f..%2fpackage.json"),
        ("POST", "/study/gradio_api/queue/join"),
        ("POST", "/study/gradio_api/call/answer"),
        ("POST", "/study/gradio_api/run/answer"),
        ("POST", "/study/gradio_api/upload"),
        ("POST", "/study/gradio_api/component_server"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
    ],
)
def test_what_gradio_and_fastapi_also_serve_is_closed_to_readers_too(curious, method, path):
    # As raw bytes, for the client would otherwise tidy the dots up.
    url = curious.base_url.copy_with(raw_path=path.encode())
    reply = curious.request(method, url, json={"data": []} if method == "POST" else None)
    assert reply.status_code in (403, 404)
    assert "named_endpoints" not in reply.text


def test_another_readers_picture_is_not_found(visits):
    mine, theirs = visits
    page = mine.begin()
    theirs.begin()
    assert mine.http.get(page.image_url).status_code == 200
    assert theirs.http.get(page.image_url).status_code == 404


def test_a_picture_cannot_be_fetched_again_after_its_answer(visits):
    page = visits[0].begin()
    visits[0].answer(page, "real", 1, 0.0)
    assert visits[0].http.get(page.image_url).status_code == 404


def test_another_reader_cannot_answer_for_me(visits, database):
    mine, theirs = visits
    page = mine.begin()
    shown = theirs.begin()
    after = theirs.answer(page, "real", 1, 0.0)
    assert (after.trial_number, shown.trial_number) == (1, 1)
    assert not list(database.responses(_study_of(database, mine)))


def test_many_clicks_at_the_same_moment_are_one_answer(visits, database):
    visit = visits[0]
    page = visit.begin()
    with ThreadPoolExecutor(8) as pool:
        after = list(pool.map(lambda _: visit.answer(page, "generated", 5, 0.0), range(8)))
    assert {shown.trial_number for shown in after} == {2}
    (row,) = database.responses(_study_of(database, visit))
    assert (row.trial_number, row.response, row.confidence) == (1, "generated", 5)


def test_calls_out_of_order_change_nothing(visits, database):
    visit = visits[0]
    assert visit.call("begin").name == "consent"
    assert visit.call("answer", _answer(visit.page)).name == "consent"
    assert visit.call("consent").name == "instructions"
    assert visit.call("answer", _answer(visit.page)).name == "instructions"
    assert visit.call("show").name == "instructions"
    assert visit.call("begin").trial_number == 1
    assert visit.call("consent").trial_number == 1
    assert visit.call("begin").trial_number == 1
    assert not list(database.responses(_study_of(database, visit)))


@pytest.mark.parametrize(
    "detail",
    [
        None,
        {},
        {"response": "real"},
        {"trial_id": "study-P01-T005", "response": "real", "confidence": 1, "response_time_s": 1},
        "real",
    ],
)
def test_nonsense_instead_of_an_answer_shows_the_same_trial_again(visits, database, detail):
    visit = visits[0]
    visit.begin()
    reply = visit.http.post(
        "/study/gradio_api/run/predict", json={"data": [], "event_data": detail, "fn_index": 3}
    )
    assert reply.status_code == 200
    assert "That answer could not be stored" in reply.text
    assert not list(database.responses(_study_of(database, visit)))


def test_a_failing_call_does_not_say_why(curious):
    reply = curious.post("/study/gradio_api/run/predict", json={"data": [1, 2, 3], "fn_index": 99})
    assert reply.is_error
    assert "Traceback" not in reply.text
    assert "site-packages" not in reply.text


def test_a_browser_is_told_to_keep_nothing_and_to_ask_nobody_else(visits):
    page = visits[0].begin()
    for reply in (visits[0].http.get("/study/"), visits[0].http.get(page.image_url)):
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert not {"etag", "last-modified", "server", "date"} & set(reply.headers)


def test_no_byte_that_a_reader_receives_tells_the_answer(server, stimuli):
    """Red team: everything but the pixels themselves, in two whole visits."""
    received, picture_replies = [], []

    def record(reply):
        reply.read()
        head = f"{reply.status_code} {reply.request.url} {reply.headers.raw!r}".encode()
        is_picture = reply.headers.get("content-type") == "image/png"
        received.append(head if is_picture else head + reply.content)
        if is_picture:
            picture_replies.append(reply)

    addresses = []
    for link in server.new_study(stimuli, n_trials=8):
        visit = Visit(server, link)
        visit.http.event_hooks["response"].append(record)
        visit.enter(link)
        visit.http.get("/study/theme.css")
        page = visit.begin()
        while page.name == "trial":
            again = visit.call("show")  # a reload: another address for the same picture
            assert again.image_url != page.image_url
            addresses += [page.image_url, again.image_url]
            visit.picture(page)
            visit.picture(again)
            page = visit.answer(again, "real", 1, 0.0)
        assert page.name == "finish"
        visit.http.close()

    everything = b"\n".join(received).lower()
    forbidden = [b"synthetic", b"manifest.csv", b"_digest", b"fake", *map(str.encode, CLASSES)]
    for stimulus in read_stimuli(stimuli):
        secrets = (stimulus.stimulus_id, stimulus.source_digest, stimulus.generator_digest)
        forbidden += [secret.encode() for secret in secrets if secret]
    for word in forbidden:
        assert word not in everything, word
    assert len(picture_replies) == 2 * 2 * 8
    assert len(set(addresses)) == len(addresses), "an address that comes back makes a picture known"
    # Real or generated, the replies differ in pixels only: same headers, same number of bytes.
    assert len({tuple(reply.headers.raw) for reply in picture_replies}) == 1
    assert len({len(reply.content) for reply in picture_replies}) == 1


def test_several_studies_in_one_database_do_not_mix(server, stimuli, database):
    first, second = (
        Visit(server, server.new_study(stimuli, title=title)[0]) for title in ("One", "Two")
    )
    for visit, title in ((first, "One"), (second, "Two")):
        reply = visit.http.post(
            "/study/gradio_api/run/predict", json={"data": [], "event_data": None, "fn_index": 0}
        )
        assert title in reply.text
        visit.http.close()


def test_what_the_protocol_says_is_shown_as_text_and_not_as_html(server, stimuli):
    hostile = "<script>alert(1)</script>"
    visit = Visit(server, server.new_study(stimuli, title=hostile, consent_text=hostile)[0])
    reply = visit.http.post(
        "/study/gradio_api/run/predict", json={"data": [], "event_data": None, "fn_index": 0}
    )
    assert hostile not in reply.json()["data"][0]
    assert "&lt;script&gt;" in reply.json()["data"][0]
    visit.http.close()


def test_the_log_of_the_server_holds_no_token(server, visits):
    visits[0].begin()
    assert visits[0].http.cookies["reader"] not in server.log()


def _answer(page):
    return {
        "presentation_token": page.attributes.get("data-presentation", "none"),
        "response": "real",
        "confidence": 1,
        "response_time_s": 0.0,
    }


def _study_of(database, visit):
    return database.find_reader(visit.http.cookies["reader"]).study_id
