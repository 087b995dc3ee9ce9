"""A reader in a real browser: other screens, two tabs, sleep, and a server that comes and goes."""

import json

import pytest

from tests.webapp.browser_at_hand import (
    NEEDS_CHROMIUM,
    answers,
    begin,
    leave,
    name_of_page,
    stored,
    wait_for_trial,
)
from tests.webapp.studies_at_hand import ALL_DESIGNS, Server

pytestmark = NEEDS_CHROMIUM

SCREENS = {"desktop": (1280, 900), "tablet": (820, 1180), "phone": (390, 844)}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_fits_the_width_and_every_trial_the_screen(
    server, stimuli_48, practice_stimuli, attention_stimuli, chromium, screen
):
    link = server.new_study(
        stimuli_48, practice=practice_stimuli, attention=attention_stimuli, **ALL_DESIGNS
    )[0]
    width, height = SCREENS[screen]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, has_touch=screen != "desktop"
    )
    page = context.new_page()
    page.goto(link)
    places = {}
    while (name := name_of_page(page)) != "finish":
        size = page.evaluate(
            "(({scrollWidth, scrollHeight}) => [scrollWidth, scrollHeight])"
            "(document.documentElement)"
        )
        assert size[0] == width, name
        if name == "trial":
            root = page.locator(".cy")
            design, token = (
                root.get_attribute(f"data-{what}") for what in ("design", "presentation")
            )
            assert size[1] == height, design
            boxes = page.evaluate(
                "[...document.querySelectorAll('.cy-stage, .cy-scale, [data-zoom]')].map(one => {"
                " const box = one.getBoundingClientRect();"
                " return [box.x, box.y, box.width, box.height] })"
            )
            # Nothing moves from trial to trial.
            assert places.setdefault(design, boxes) == boxes
            assert boxes[0][2] >= 0.35 * width
            smallest = page.evaluate(
                "Math.min(...[...document.querySelectorAll('.cy-panel button')].flatMap(one => {"
                " const box = one.getBoundingClientRect(); return [box.width, box.height] }))"
            )
            assert smallest >= 44
            press(page, design)
            page.wait_for_function(
                "token => document.querySelector('.cy').dataset.page !== 'trial' ||"
                " document.querySelector('.cy').dataset.presentation !== token",
                arg=token,
            )
        else:
            leave(page, name)
    assert len(places) == 4
    context.close()


def press(page, design):
    if design == "classification":
        page.locator("[data-row]").first.click()
        page.locator('[data-confidence="3"]').first.click()
    else:
        page.locator(".cy-scale button").first.click()


def test_two_fingers_enlarge_the_picture(server, stimuli, chromium):
    (link, _) = server.new_study(stimuli)
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    begin(page, link)
    box = page.locator(".cy-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = context.new_cdp_session(page)

    def touch(kind, apart):
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        fingers.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [] if kind == "touchEnd" else points},
        )

    touch("touchStart", 40)
    for apart in (50, 60, 70, 80):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    page.wait_for_function("parseInt(document.querySelector('[data-scale]').textContent) > 170")
    assert page.evaluate("visualViewport.scale") == 1
    context.close()


def test_a_second_tab_shows_the_same_trial_and_stores_each_answer_once(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    first = browser.new_page()
    begin(first, link)
    second = browser.new_page()
    second.goto(link)
    wait_for_trial(second, 1)
    second.keyboard.press("r")
    second.keyboard.press("2")
    wait_for_trial(second, 2)
    first.bring_to_front()
    first.keyboard.press("g")  # to the trial that the other tab has answered
    first.keyboard.press("6")
    wait_for_trial(first, 2)
    first.keyboard.press("g")
    first.keyboard.press("5")
    wait_for_trial(first, 3)
    assert answers(server, link) == [(1, "real", 2), (2, "generated", 5)]


def test_another_device_goes_on_at_the_same_trial(server, stimuli, chromium, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    for key in "r1":
        page.keyboard.press(key)
    wait_for_trial(page, 2)
    page.close()
    tablet = chromium.new_context(viewport={"width": 820, "height": 1180}, has_touch=True)
    page = tablet.new_page()
    page.goto(link)
    wait_for_trial(page, 2)
    tablet.close()


def test_the_time_in_which_the_tab_was_hidden_is_reported(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.evaluate(
        """async () => {
          const turn = (state) => {
            const property = { value: state, configurable: true };
            Object.defineProperty(document, "visibilityState", property);
            document.dispatchEvent(new Event("visibilitychange"));
          };
          turn("hidden");
          await new Promise((resolve) => setTimeout(resolve, 600));
          turn("visible");
        }"""
    )
    for key in "r1":
        page.keyboard.press(key)
    wait_for_trial(page, 2)
    (row,) = stored(server, link)
    client = json.loads(row.client_json)
    assert 0.6 <= client["hidden_s"] <= row.response_time_s
    assert (client["n_hidden"], client["input"]) == (1, "keyboard")
    assert (client["screen_width"], client["pixel_ratio"]) == (1280, 1)


def test_sleep_and_wake_while_an_answer_is_under_way_costs_nothing(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    browser.set_offline(True)
    page.keyboard.press("r")
    page.keyboard.press("1")
    page.get_by_text("The server does not reply").wait_for()
    browser.set_offline(False)
    wait_for_trial(page, 2)
    assert page.locator("[data-lost]").text_content() == ""
    assert answers(server, link) == [(1, "real", 1)]


def test_a_reply_that_is_lost_costs_nothing_and_is_stored_once(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    lost = []

    def swallow(route):
        route.fetch()  # the server stores the answer
        lost.append(route)
        route.abort()

    page.route("**/study/do/answer", swallow, times=1)
    page.keyboard.press("r")
    page.keyboard.press("1")
    wait_for_trial(page, 2)
    assert len(lost) == 1
    assert answers(server, link) == [(1, "real", 1)]


def test_a_picture_that_is_lost_on_the_way_is_fetched_again(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    page.route("**/image/*", lambda route: route.abort(), times=1)
    begin(page, link)
    assert page.get_by_alt_text("cell image").is_visible()


def test_a_picture_with_a_time_limit_goes_and_does_not_come_back(server, stimuli, browser):
    blocks = [{"n_trials": 8, "exposure_s": 1.0}]
    (link, _) = server.new_study(stimuli, blocks=blocks)
    page = browser.new_page()
    begin(page, link)
    assert page.get_by_alt_text("cell image").is_visible()
    page.get_by_text("The time for this picture is over").wait_for()
    assert page.get_by_alt_text("cell image").count() == 0
    page.reload()
    page.get_by_text("The time for this picture is over").wait_for()
    assert page.get_by_alt_text("cell image").count() == 0
    page.keyboard.press("g")
    page.keyboard.press("3")
    wait_for_trial(page, 2)
    assert page.get_by_alt_text("cell image").is_visible()
    assert answers(server, link) == [(1, "generated", 3)]


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
    wait_for_trial(page, 2)
    # Dead when the reader answers.
    server.kill()
    page.keyboard.press("g")
    page.keyboard.press("5")
    page.get_by_text("The server does not reply").wait_for()
    server.start()
    wait_for_trial(page, 3)
    assert page.locator("[data-lost]").text_content() == ""
    assert answers(server, link) == [(1, "real", 1), (2, "generated", 5)]
