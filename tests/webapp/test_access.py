"""What a stranger, another reader, a curious reader and an impatient reader can do: nothing."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from sqlalchemy import select, update

from tests.webapp.studies_at_hand import ALL_DESIGNS, RESPONSES
from tests.webapp.visits_at_hand import BEFORE_TRIALS, Visit, answer
from webapp.app import LONGEST_BODY
from webapp.database import Database
from webapp.queries import consent, link, milestone, response
from webapp.registry import Registry
from webapp.store import token_digest
from webapp.visit import CALLS


class Records:
    """What is stored about a visit."""

    def __init__(self, database):
        self.database = database

    def rows(self, visit, table):
        with self.database.read() as session:
            who = select(link.c.participant_id).where(
                link.c.token_digest == token_digest(visit.http.cookies["reader"])
            )
            (participant_id,) = session.execute(who).one()
            key = table.c.trial_id if table is response else table.c.participant_id
            return session.execute(
                select(table).where(key.startswith(participant_id)).order_by(key)
            ).all()


@pytest.fixture(scope="module")
def records(server):
    with closing(Database.open(server.database_url)) as database:
        yield Records(database)


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
    in_german = httpx.get(f"{server.address}/s/unknown", headers={"accept-language": "de"})
    assert "Dieser Link ist nicht bekannt" in in_german.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expires_at": "2020-01-01T00:00:00+00:00"}, "This link has expired"),
        ({"revoked_at": "2020-01-01T00:00:00+00:00"}, "This link has been replaced"),
    ],
)
def test_a_link_that_ends_is_a_friendly_page_and_ends_a_running_visit(
    visits, records, change, words
):
    visit = visits[0]
    page = visit.go_on()
    token = visit.http.cookies["reader"]
    with records.database.write() as session:
        session.execute(
            update(link).where(link.c.token_digest == token_digest(token)).values(**change)
        )
        session.commit()
    entered = visit.http.get(f"/s/{token}")
    called = visit.http.post("/study/do/answer", json=answer(page))
    assert (entered.status_code, called.status_code) == (404, 401)
    assert visit.http.get("/study/").status_code == 401
    assert visit.http.get(page.image_urls[0]).status_code == 404
    for reply in (entered.text, called.json()["html"]):
        assert words in reply
        assert "Your answers so far are kept" in reply


def test_a_reader_who_left_the_study_is_told_so(visits, records):
    visit = visits[0]
    visit.go_on()
    (who, *_) = records.rows(visit, consent)[0]
    Registry(records.database).withdraw(who, "moved away")
    reply = visit.http.post("/study/do/show", json={})
    assert reply.status_code == 401
    assert "You have left this study" in reply.json()["html"]


@pytest.mark.parametrize("path", ["/", "/no/such/page", "/image/none", "/image/none/left"])
def test_every_other_address_says_how_to_enter(server, path):
    reply = httpx.get(f"{server.address}{path}")
    assert reply.status_code == (200 if path == "/" else 404)
    assert "Please open your personal link" in reply.text


@pytest.mark.parametrize("cookies", [{}, {"reader": "forged"}])
def test_without_a_valid_cookie_every_call_fails_and_stores_nothing(
    server, visits, records, cookies
):
    page = visits[0].go_on()
    with httpx.Client(base_url=server.address, cookies=cookies) as stranger:
        assert stranger.get("/study/").status_code == 401
        assert stranger.get("/study/config").status_code == 401
        for name in CALLS:
            reply = stranger.post(f"/study/do/{name}", json=answer(page))
            assert reply.status_code == 401
            assert reply.json()["page"] == "notice"
        assert stranger.get(page.image_urls[0]).status_code == 404
    assert not records.rows(visits[0], response)


def test_another_readers_picture_is_not_found(visits):
    mine, theirs = visits
    page, shown = mine.go_on(), theirs.go_on()
    ahead = page.attributes["data-next"]
    for address in (*page.image_urls, ahead):
        assert mine.http.get(address).status_code == 200
        assert theirs.http.get(address).status_code == 404
    assert theirs.http.get(shown.image_urls[0]).status_code == 200


def test_only_the_present_picture_and_the_next_one_can_be_fetched(visits):
    visit = visits[0]
    first = visit.go_on()
    second = visit.give()
    assert second.attributes["data-presentation"] == first.attributes["data-next"].split("/")[-1]
    assert visit.http.get(first.image_urls[0]).status_code == 404
    assert visit.http.get(f"{second.image_urls[0]}/left").status_code == 404
    assert visit.http.get(f"{second.image_urls[0]}/middle").status_code == 404


def test_another_reader_cannot_answer_for_me(visits, records):
    mine, theirs = visits
    page, shown = mine.go_on(), theirs.go_on()
    after = theirs.call("answer", answer(page))
    assert (after.trial_number, shown.trial_number) == (1, 1)
    assert not records.rows(mine, response)
    assert not records.rows(theirs, response)


def test_many_clicks_at_the_same_moment_are_one_answer(visits, records):
    visit = visits[0]
    sent = answer(visit.go_on(), response="generated", confidence=5)
    with ThreadPoolExecutor(8) as pool:
        after = list(pool.map(lambda _: visit.call("answer", sent), range(8)))
    assert {shown.trial_number for shown in after} == {2}
    (row,) = records.rows(visit, response)
    assert (row.response, row.confidence) == ("generated", 5)


def test_an_answer_cannot_be_replayed_changed_or_given_ahead(visits, records):
    visit = visits[0]
    first = visit.go_on()
    second = visit.give()
    again = visit.call("answer", answer(first, response="generated"))
    assert again.trial_number == 2
    ahead = second.attributes["data-next"].split("/")[-1]
    refused = visit.call("answer", answer(second, presentation_token=ahead))
    assert refused.trial_number == 2
    (row,) = records.rows(visit, response)
    assert row.response == "real"


def test_calls_out_of_order_change_nothing(visits, records):
    visit = visits[0]
    for name in ("instructions", "block", "break", "background", "undo", "answer"):
        assert visit.call(name, answer(visit.page)).name == "consent"
    assert visit.call("consent").name == "instructions"
    assert visit.call("answer", answer(visit.page)).name == "instructions"
    assert visit.call("show").name == "instructions"
    assert visit.call("instructions").trial_number == 1
    for name in ("consent", "instructions", "undo", "calibration"):
        assert visit.call(name, {"trial_number": 1}).trial_number == 1
    assert not records.rows(visit, response)


@pytest.mark.parametrize(
    "changes",
    [
        {"response": "no idea"},
        {"response": "left"},
        {"confidence": 7},
        {"confidence": None},
        {"confidence": "5"},
        {"response_time_s": -1},
        {"response_time_s": 1e9},
        {"presentation_token": "x"},
        {"presentation_token": None},
        {"is_synthetic": True},
        {"client": {"a": "x" * 300}},
    ],
)
def test_an_answer_that_no_page_sends_is_refused_without_a_word_why(visits, records, changes):
    visit = visits[0]
    visit.go_on()
    reply = visit.http.post("/study/do/answer", json=answer(visit.page, **changes))
    assert reply.status_code == 200
    assert "That answer could not be stored" in reply.json()["html"]
    assert not records.rows(visit, response)


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'"x"', b'{"a": "' + b"x" * LONGEST_BODY])
def test_a_call_that_is_none_is_refused_by_a_code(curious, body):
    reply = curious.post("/study/do/show", content=body)
    assert (reply.status_code, reply.json()) == (400, {"error": "unknown call"})


def test_a_call_by_another_name_is_refused(curious):
    assert curious.post("/study/do/unblind", json={}).status_code == 400
    assert curious.get("/study/do/show").status_code in (404, 405)


def test_a_browser_is_told_to_keep_nothing_and_to_ask_nobody_else(visits):
    visit = visits[0]
    page = visit.go_on()
    replies = [visit.http.get(path) for path in ("/study/", page.image_urls[0], "/", "/none")]
    replies.append(visit.http.post("/study/do/show", json={}))
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store"
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert not {"etag", "last-modified", "server", "date"} & set(reply.headers)


def test_several_studies_in_one_database_do_not_mix(server, stimuli):
    for title in ("One", "Two"):
        visit = Visit(server, server.new_study(stimuli, title=title)[0])
        assert f">{title}</span>" in visit.http.post("/study/do/show", json={}).json()["html"]
        visit.http.close()


def test_the_log_of_the_server_holds_no_token(server, visits):
    visits[0].go_on()
    assert visits[0].http.cookies["reader"] not in server.log()


# The way through a study with everything in it


@pytest.fixture
def whole(server, stimuli_48, practice_stimuli, attention_stimuli):
    links = server.new_study(
        stimuli_48, practice=practice_stimuli, attention=attention_stimuli, **ALL_DESIGNS
    )
    visit = Visit(server, links[0])
    yield visit
    visit.http.close()


def test_a_whole_study_of_all_designs_goes_from_consent_to_the_last_page(whole, records):
    seen = []
    while whole.page.name != "finish":
        page = whole.page
        seen.append((page.name, page.attributes.get("data-design", "")))
        if page.name == "trial":
            assert whole.pictures(page)
            whole.give()
        else:
            name = "show" if page.name == "feedback" else page.name
            whole.page = whole.call(name, page.form)
    names = [name for name, _ in seen]
    assert names[:5] == ["consent", "background", "calibration", "instructions", "block"]
    assert (names.count("block"), names.count("break"), names.count("feedback")) == (5, 3, 3)
    assert {design for name, design in seen if name == "trial"} == RESPONSES.keys()
    assert len(records.rows(whole, response)) == names.count("trial") == 31 + 3


def test_what_a_reader_says_about_eyes_and_screen_is_stored_once(whole, records):
    whole.call("consent")
    about = {"role": "haematologist", "years": "12", "colour_vision": "normal", "display": "laptop"}
    refused = whole.call("background", about | {"years": "-1"})
    assert (refused.name, records.rows(whole, milestone)) == ("background", [])
    assert whole.call("background", about).name == "calibration"
    assert whole.call("background", about | {"years": "13"}).name == "calibration"
    screen = {"dark": "4", "light": "3", "number": "384", "pixel_ratio": 2, "gamut": "p3"}
    assert whole.call("calibration", screen | {"dark": "5"}).name == "calibration"
    assert whole.call("calibration", screen).name == "instructions"
    stored = {row.name: json.loads(row.detail_json) for row in records.rows(whole, milestone)}
    assert stored["background"] == about | {"years": 12}
    assert stored["calibration"].items() >= {"dark": 4, "light": 3, "pixel_ratio": 2.0}.items()


def test_the_language_can_be_changed_and_is_kept(whole, server):
    reply = whole.http.post("/study/do/language", json={"language": "de"})
    assert "Bevor Sie beginnen" in reply.json()["html"]
    whole.call("consent")
    assert "Einige Angaben" in whole.http.post("/study/do/show", json={}).json()["html"]
    unknown = whole.http.post("/study/do/language", json={"language": "xx"})
    assert "Einige Angaben" in unknown.json()["html"]


def test_undo_takes_back_one_answer_however_often_it_is_sent(whole, records):
    while whole.go_on().trial_number < 3 or "data-practice" in whole.page.attributes:
        whole.give()
    pressed_on = {"trial_number": whole.page.trial_number}
    assert [whole.call("undo", pressed_on).trial_number for _ in range(3)] == [2, 2, 2]
    whole.page = whole.call("show")
    whole.give(response="generated")
    second = [row for row in records.rows(whole, response) if row.revision == 2]
    assert [row.response for row in second] == ["generated"]
    assert whole.page.trial_number == 3


def test_a_study_that_is_closed_meanwhile_stores_nothing_more(visits, records):
    visit = visits[0]
    page = visit.go_on()
    study_id = records.rows(visit, consent)[0].participant_id.rsplit("-", 1)[0]
    Registry(records.database).close(study_id)
    assert visit.call("answer", answer(page)).name == "closed"
    assert visit.http.get(page.image_urls[0]).status_code == 404
    assert not records.rows(visit, response)


def test_every_page_before_the_trials_can_be_sent_again(whole):
    while (name := whole.page.name) in BEFORE_TRIALS:
        form = whole.page.form
        whole.page = whole.call(name, form)
        assert whole.call(name, form).name == whole.page.name
    assert whole.page.name == "trial"
