"""A reader in a real browser: keyboard, reload, second tab, a server that dies meanwhile."""

import os
from pathlib import Path

import pytest

from tests.webapp.studies_at_hand import Server
from webapp.store import Store

CHROMIUM = Path(os.environ.get("PLAYWRIGHT_CHROMIUM", "/usr/bin/chromium"))
MISSING = f"no browser at {CHROMIUM}; install it with `apt-get install chromium`"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING),
]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium):
    """A fresh browser profile that notes every request and every complaint."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.requested, context.complaints = [], []
    context.on("request", lambda request: context.requested.append(request.url))
    context.on("console", lambda said: context.complaints.append(f"{said.type}: {said.text}"))
    context.on("weberror", lambda error: context.complaints.append(str(error.error)))
    yield context
    context.close()


def trial(page, number):
    """Wait until the cell of a trial is painted and can be judged."""
    page.wait_for_selector(f'[data-trial-number="{number}"][data-state="ready"]')


def begin(page, link):
    page.goto(link)
    page.get_by_role("button", name="I agree to take part").click()
    page.get_by_role("button", name="Begin").click()
    trial(page, 1)


def stored(server, link):
    store = Store.open(server.database_url)
    reader = store.find_reader(link.rsplit("/", 1)[1])
    rows = [
        row
        for row in store.responses(reader.study_id)
        if row.participant_id == reader.participant_id
    ]
    store.close()
    return [(row.trial_number, row.response, row.confidence) for row in rows]


def test_a_study_by_keyboard_alone_survives_a_reload_and_asks_only_this_server(
    server, stimuli, browser
):
    (link, _) = server.new_study(stimuli, n_trials=4)
    page = browser.new_page()
    page.goto(link)
    for name in ("I agree to take part", "Begin"):
        page.get_by_role("button", name=name).wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    trial(page, 1)
    page.keyboard.press("r")
    page.keyboard.press("4")
    trial(page, 2)
    page.keyboard.press("g")
    page.keyboard.press("6")
    trial(page, 3)
    page.reload()
    trial(page, 3)
    assert page.get_by_text("3 of 4").is_visible()
    for number, keys in ((3, "g1"), (4, "r2")):
        trial(page, number)
        for key in keys:
            page.keyboard.press(key)
    page.wait_for_selector('[data-page="finish"]')
    assert stored(server, link) == [
        (1, "real", 4),
        (2, "generated", 6),
        (3, "generated", 1),
        (4, "real", 2),
    ]
    elsewhere = [
        url for url in browser.requested if not url.startswith((server.address, "data:", "blob:"))
    ]
    assert elsewhere == []
    assert browser.complaints == []


def test_the_response_time_runs_from_the_painted_cell_to_the_answer(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.wait_for_timeout(700)
    page.get_by_label("Real, confidence 2 of 6").click()
    trial(page, 2)
    store = Store.open(server.database_url)
    (row,) = store.responses(store.find_reader(link.rsplit("/", 1)[1]).study_id)
    store.close()
    assert 0.7 <= row.response_time_s < (row.responded_at - row.presented_at).total_seconds()


def test_a_double_click_and_a_held_key_are_one_answer(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.get_by_label("Real, confidence 5 of 6").dblclick()
    trial(page, 2)
    page.keyboard.down("g")
    for _ in range(5):
        page.keyboard.down("3")  # the second and later ones are repeats of a held key
    trial(page, 3)
    page.keyboard.press("g")
    page.keyboard.down("3")  # held since the last trial
    page.wait_for_timeout(300)
    page.keyboard.up("3")
    assert stored(server, link) == [(1, "real", 5), (2, "generated", 3)]


def test_a_number_without_a_letter_answers_nothing_and_says_why(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.keyboard.press("5")
    assert page.get_by_text("First R for real or G for generated").is_visible()
    page.keyboard.press("r")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    assert page.get_by_text("First R for real or G for generated").is_visible()
    assert stored(server, link) == []


def test_the_picture_is_described_neutrally_and_can_be_shown_as_pixels(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    cell = page.get_by_alt_text("cell image")
    assert cell.is_visible()
    assert cell.evaluate("cell => getComputedStyle(cell).imageRendering") == "auto"
    page.keyboard.press("p")
    assert cell.evaluate("cell => getComputedStyle(cell).imageRendering") == "pixelated"
    assert page.get_by_role("button", name="Show pixels").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (820, 1180), (390, 844)])
def test_a_trial_fits_the_screen_without_scrolling(server, stimuli, chromium, width, height):
    (link, _) = server.new_study(stimuli)
    context = chromium.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    begin(page, link)
    size = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert size == [width, height]
    assert page.get_by_alt_text("cell image").bounding_box()["width"] >= 0.4 * width
    context.close()


def test_a_page_opened_without_a_link_says_how_to_enter(server, browser):
    page = browser.new_page()
    page.goto(f"{server.address}/study/")
    assert page.get_by_role("heading", name="Please open your personal link").is_visible()


@pytest.fixture
def mortal_server(tmp_path):
    made = Server(tmp_path)
    yield made
    made.kill()


def test_a_server_that_dies_and_comes_back_costs_the_reader_no_answer(
    mortal_server, stimuli, browser
):
    server = mortal_server
    (link, _) = server.new_study(stimuli)
    server.start()
    page = browser.new_page()
    begin(page, link)
    # Dead and back while the reader looks at the cell.
    server.kill()
    server.start()
    page.keyboard.press("r")
    page.keyboard.press("1")
    trial(page, 2)
    # Dead when the reader answers.
    server.kill()
    page.keyboard.press("g")
    page.keyboard.press("5")
    page.get_by_text("The server does not reply").wait_for()
    server.start()
    trial(page, 3)
    assert not page.get_by_text("The server does not reply").is_visible()
    assert stored(server, link) == [(1, "real", 1), (2, "generated", 5)]
