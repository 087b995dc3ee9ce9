"""A curious reader keeps every byte. Nothing in them may tell but the pixels themselves."""

import ast
import re
import subprocess
import sys
import time
import zlib
from contextlib import closing
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select
from sqlmodel import SQLModel

from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import ALL_DESIGNS, CLASSES, ROOT
from tests.webapp.visits_at_hand import Visit, answer
from webapp.app import GRADIO_FILES, GRADIO_SHELL
from webapp.bots import known_by_pixels
from webapp.database import Database
from webapp.pictures import decode, pixel_digest
from webapp.telling import area, cross_validated_scores, limits, strata_of
from webapp.visit import CALLS

LEVEL = 0.999
"""Of the interval that contains chance: the test fails for no reason once in a thousand runs."""


@dataclass
class Recorder:
    """A reader's whole traffic, the pictures apart."""

    received: list[bytes] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    """To the reader's calls."""
    trial_pages: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[httpx.Response] = field(default_factory=list)

    def __call__(self, reply):
        reply.read()
        head = f"{reply.status_code} {reply.request.url} {reply.headers.raw!r}".encode()
        if reply.headers.get("content-type") == "image/png":
            self.pictures.append(reply)
            self.received.append(head)
            return
        page = reply.json().get("page") if "/study/do/" in str(reply.request.url) else ""
        if page == "trial":
            html = reply.json()["html"]
            self.trial_pages.append((re.search(r'data-design="(\w+)"', html)[1], html))
        if page == "feedback":  # tells on purpose, of practice pictures
            return
        if page:
            self.replies.append(reply.text.lower())
        self.received.append(head + reply.content)


def without_what_varies(html):
    """A trial's page without its tokens and counters, and without the offer to undo."""
    html = re.sub(r"<button[^>]*data-undo.*?</button>", "", html)
    html = re.sub(r'(data-presentation|data-next|src|data-exposure)="[^"]*"', "", html)
    html = re.sub(r'(data-trial-number|data-n-trials|data-block|max|value)="\d+"', "", html)
    return re.sub(r"(data-practice|Practice \d of \d|\d+ of \d+|\s+)", "", html)


@pytest.fixture(scope="module")
def folders(stimuli_48, practice_stimuli, attention_stimuli):
    return {"main": stimuli_48, "practice": practice_stimuli, "attention": attention_stimuli}


@pytest.fixture(scope="module")
def recorders(server, folders):
    """Two readers take a study of all designs, with reloads, errors and Gradio's own pages."""
    study = ALL_DESIGNS | {"n_participants": 2}
    recorders = []
    for link in server.new_study(folders["main"], **pools(folders), **study):
        recorder = Recorder()
        visit = Visit(server, link, record=recorder)
        for path in ("/study/config", "/study/theme.css", "/none", "/image/none", "/manifest.json"):
            visit.http.get(path)
        while visit.go_on().name == "trial":
            again = visit.call("show")  # a reload: another address for the same picture
            assert again.image_urls != visit.page.image_urls
            for address in again.image_urls:
                visit.http.get(address)
            visit.call("answer", answer(again, response="nonsense"))
            visit.page = visit.call("show")
            for address in visit.page.image_urls:
                visit.http.get(address)
            visit.give()
        visit.http.close()
        recorders.append(recorder)
    return recorders


def pools(folders):
    return {"practice": folders["practice"], "attention": folders["attention"]}


def test_no_byte_that_a_reader_receives_names_a_stimulus_its_source_or_its_truth(
    recorders, folders
):
    everything = b"\n".join(part for one in recorders for part in one.received).lower()
    forbidden = [b"synthetic", b"manifest.csv", b"_digest", b"fake"]
    for folder in folders.values():
        for stimulus in read_stimuli(folder):
            secrets = (stimulus.stimulus_id, stimulus.source_digest, stimulus.generator_digest)
            forbidden += [secret.encode() for secret in secrets if secret]
    for word in forbidden:
        assert word not in everything, word


def test_no_reply_says_that_a_trial_is_a_repeat_or_a_control(recorders):
    replies = "".join(reply for one in recorders for reply in one.replies)
    for word in ("repeat", "attention", "control"):
        assert word not in replies, word


def test_classes_are_named_as_options_only(recorders):
    for one in recorders:
        assert {design for design, _ in one.trial_pages} >= {"classification", "pair", "quality"}
        for design, html in one.trial_pages:
            if design != "classification":
                assert not [name for name in CLASSES if name in html.lower()]


def test_the_pages_of_a_design_differ_in_tokens_and_counters_alone(recorders):
    pages = {}
    for one in recorders:
        for design, html in one.trial_pages:
            html = html.replace(re.search(r"data-hint>([^<]*)<", html)[1], "")
            pages.setdefault(design, set()).add(without_what_varies(html))
    assert {design: len(kinds) for design, kinds in pages.items()} == dict.fromkeys(pages, 1)
    assert len(pages) == 4


def test_no_address_comes_back_for_another_trial_another_reader_or_a_repeat(recorders):
    shown = [address for one in recorders for address in addresses(one)]
    assert len(shown) > 140
    assert len(set(shown)) == len(shown)


def addresses(recorder):
    return list(dict.fromkeys(str(reply.request.url) for reply in recorder.pictures))


def test_the_replies_with_pictures_differ_in_their_pixels_alone(recorders):
    replies = [reply for one in recorders for reply in one.pictures]
    assert {reply.status_code for reply in replies} == {200}
    assert len({tuple(reply.headers.raw) for reply in replies}) == 1
    assert len({len(reply.content) for reply in replies}) == 1
    assert len({reply.content[:33] for reply in replies}) == 1  # signature and IHDR


def test_the_shell_is_the_same_for_every_reader_and_holds_no_study(server, stimuli):
    configs = []
    for title in ("One study", "Another study"):
        visit = Visit(server, server.new_study(stimuli, title=title)[0])
        configs.append(visit.http.get("/study/config").json())
        assert title not in visit.http.get("/study/").text
        visit.http.close()
    for config in configs:
        assert config["dependencies"] == []
        config["components"] = [one["type"] for one in config["components"]]
    varies = {key for key in configs[0] if configs[0][key] != configs[1][key]}
    assert varies <= {"app_id", "username", "layout", "page"}


def test_a_classifier_of_everything_but_pixels_is_at_chance(server, stimuli_60):
    """Lengths, headers, tokens, times and order of 420 trials against what was shown."""
    known = known_by_pixels([stimuli_60])
    features, leaks, truths, classes = [], [], [], []
    for link in server.new_study(stimuli_60, n_trials=60, n_participants=7):
        visit = Visit(server, link)
        before = 0.0
        while visit.go_on().name == "trial":
            page = visit.page
            asked_at = time.perf_counter()
            picture = visit.http.get(page.image_urls[0])
            picture_s = time.perf_counter() - asked_at
            shown = known[pixel_digest(decode(picture.content, name="picture"))].stimulus
            truths.append(shown.is_synthetic)
            classes.append(shown.class_name)
            token = page.attributes["data-presentation"]
            features.append(
                [
                    *(page.trial_number, page.trial_number % 2, before, picture_s),
                    *(len(picture.content), len(repr(picture.headers)), len(str(page))),
                    *map(ord, token[:8]),
                    *(sum(map(ord, token)), len(set(token)), token.count("_"), len(token)),
                ]
            )
            leaks.append(compressed_size(picture.content))
            answered_at = time.perf_counter()
            visit.give()
            before = time.perf_counter() - answered_at
        visit.http.close()
    assert len(truths) == 420
    strata = strata_of(truths, classes)
    rng = np.random.default_rng(0)
    features = np.array(features, dtype=np.float64)
    at_chance = area(cross_validated_scores(features, strata, rng), strata)
    low, high = limits(at_chance, strata, LEVEL)
    assert low < 0.5 < high
    # The same classifier finds what a server that compresses its pictures would tell.
    leaking = np.column_stack([features, leaks])
    found = area(cross_validated_scores(leaking, strata, rng), strata)
    assert limits(found, strata, LEVEL)[0] > 0.9


def compressed_size(png):
    return len(zlib.compress(decode(png, name="picture").tobytes()))


# Raw calls


LIST_OF_ROUTES = """
from webapp.app import create_app
(mounted,) = [route.app for route in create_app(None).routes if route.path == "/study"]
for path, methods in mounted.openapi()["paths"].items():
    for method in methods:
        print(method.upper(), "/study" + path)
"""


@pytest.fixture(scope="module")
def gradio_addresses():
    """Every route that Gradio serves, with something in the place of its parameters."""
    made = subprocess.run(  # a process of its own, for Gradio leaves event loops open
        [sys.executable, "-c", LIST_OF_ROUTES], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return [re.sub(r"\{[^}]*\}", "0", line).split() for line in made.stdout.splitlines()]


def rows_in_all_tables(database):
    with database.read() as session:
        return {
            table.name: session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in SQLModel.metadata.sorted_tables
        }


@pytest.mark.parametrize("who", ["anonymous", "another reader", "replaying reader"])
def test_no_endpoint_of_gradio_gives_or_changes_anything(server, stimuli, gradio_addresses, who):
    victim, other = (Visit(server, link) for link in server.new_study(stimuli))
    page = victim.go_on()
    body = {"data": [page.attributes["data-presentation"]], "fn_index": 0, "session_hash": "x"}
    body |= {"event_data": answer(page), "trigger_id": 1, "event_id": "x"}
    cookies = {
        "anonymous": {},
        "another reader": dict(other.http.cookies),
        "replaying reader": dict(victim.http.cookies),
    }[who]
    with (
        closing(Database.open(server.database_url)) as database,
        httpx.Client(base_url=server.address, cookies=cookies) as http,
    ):
        before = rows_in_all_tables(database)
        assert len(gradio_addresses) > 40
        for method, path in gradio_addresses:
            reply = http.request(method, path, json=None if method in ("GET", "HEAD") else body)
            is_open = path in GRADIO_SHELL or path.startswith(GRADIO_FILES)
            if not is_open or (who == "anonymous" and not path.startswith(GRADIO_FILES)):
                assert reply.status_code in (401, 404), (method, path)
            assert page.attributes["data-presentation"] not in reply.text
            assert "data-page=" not in reply.text or path in GRADIO_SHELL
        assert rows_in_all_tables(database) == before
    victim.http.close()
    other.http.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/docs", "/redoc", "/openapi.json", "/study/docs", "/study/openapi.json"),
        *("/study/../pyproject.toml", "/study/assets/../gradio_api/info"),
        *("/study/assets/..%2f..%2f..%2fpackage.json", "/study/static/../config.py"),
        *("/study/gradio_api/file=pyproject.toml", "/study/file=pyproject.toml"),
        *("/study/gradio_api/runs", "/study/monitoring/summary", "/study/gradio_api/queue/status"),
        *("/study//config", "/study/CONFIG", "/study/config/", "//study/config"),
    ],
)
def test_what_gradio_and_fastapi_also_serve_is_closed_to_readers_too(server, stimuli, path):
    visit = Visit(server, server.new_study(stimuli)[0])
    # As raw bytes, for the client would otherwise tidy the dots up.
    reply = visit.http.get(visit.http.base_url.copy_with(raw_path=path.encode()))
    assert reply.status_code in (403, 404)
    assert "components" not in reply.text
    visit.http.close()


def test_a_failing_call_does_not_say_why(server, stimuli):
    visit = Visit(server, server.new_study(stimuli)[0])
    for name in sorted(CALLS):
        for body in (b"\xff", b'{"data": [1]}', b'{"trial_number": "one", "language": []}'):
            reply = visit.http.post(f"/study/do/{name}", content=body)
            assert reply.status_code in (200, 400), name
            for word in ("Traceback", "site-packages", "Error", "pydantic", str(ROOT)):
                assert word not in reply.text
    visit.http.close()


# The list of pitfalls


def test_every_pitfall_has_a_countermeasure_and_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 31))
    text = (ROOT / "docs/security.md").read_text()
    for line in (line for line in text.splitlines() if re.match(r"\| \d+ \|", line)):
        named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", line)
        assert named, line
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text())
            assert test in {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
