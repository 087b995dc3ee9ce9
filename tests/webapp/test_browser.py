"""A reader in a real browser: by keyboard, by mouse, impatient."""

from datetime import datetime

import pytest

from tests.webapp.browser_at_hand import (
    NEEDS_CHROMIUM,
    answers,
    begin,
    name_of_page,
    stored,
    wait_for_trial,
)
from tests.webapp.studies_at_hand import ALL_DESIGNS

pytestmark = NEEDS_CHROMIUM

KEYS = {"authenticity": "r4", "pair": ["ArrowRight", "5"], "classification": "b2", "quality": "3"}
GIVEN = {
    "authenticity": ("real", 4),
    "pair": ("right", 5),
    "classification": ("basophil", 2),
    "quality": ("3", None),
}


def by_keyboard_to(page, selector):
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def leave_by_keyboard(page, name):
    if name == "background":
        for field in ("role", "years", "colour_vision", "display"):
            by_keyboard_to(page, f'[name="{field}"]')
            page.keyboard.press("1" if field == "years" else "Space")
    if name == "calibration":
        for field in ("dark", "light"):
            by_keyboard_to(page, f'[name="{field}"]')
            page.keyboard.press("Space")
            page.keyboard.press("ArrowLeft")  # from 0 round to 4
    if name in ("consent", "background", "calibration"):
        by_keyboard_to(page, ".cy-primary")
    page.keyboard.press("Enter")


def test_a_whole_study_by_keyboard_alone_survives_a_reload_and_asks_only_this_server(
    server, stimuli_48, practice_stimuli, attention_stimuli, browser
):
    link = server.new_study(
        stimuli_48, practice=practice_stimuli, attention=attention_stimuli, **ALL_DESIGNS
    )[0]
    page = browser.new_page()
    page.goto(link)
    seen, has_reloaded = [], False
    while (name := name_of_page(page)) != "finish":
        root = page.locator(".cy")
        shown = root.get_attribute("data-presentation")
        seen.append(name)
        if name != "trial":
            leave_by_keyboard(page, name)
        elif not has_reloaded and root.get_attribute("data-trial-number") == "3":
            has_reloaded = True
            page.reload()
            wait_for_trial(page, 3)
        else:
            for key in KEYS[root.get_attribute("data-design")]:
                page.keyboard.press(key)
        page.wait_for_function(
            "([name, shown]) => { const { page, presentation } ="
            " document.querySelector('.cy')?.dataset ?? {};"
            " return page && (page !== name || (presentation ?? null) !== shown) }",
            arg=[name, shown],
        )
    assert set(seen) == {
        *("consent", "background", "calibration", "instructions", "block", "break"),
        *("trial", "feedback"),
    }
    rows = stored(server, link)
    assert len(rows) == 34
    assert all((row.response, row.confidence) == GIVEN[row.design] for row in rows)
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
    wait_for_trial(page, 2)
    (row,) = stored(server, link)
    assert row.response_time_s >= 0.7
    assert datetime.fromisoformat(row.responded_at).tzinfo


def test_a_double_click_and_a_held_key_are_one_answer(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.get_by_label("Real, confidence 5 of 6").dblclick()
    wait_for_trial(page, 2)
    page.keyboard.down("g")
    for _ in range(5):
        page.keyboard.down("3")  # the second and later ones are repeats of a held key
    wait_for_trial(page, 3)
    page.keyboard.press("g")
    page.keyboard.down("3")  # held since the last trial
    page.wait_for_timeout(300)
    page.keyboard.up("3")
    assert answers(server, link) == [(1, "real", 5), (2, "generated", 3)]


def test_many_presses_while_the_server_is_slow_are_one_answer(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.route("**/study/do/answer", lambda route: (page.wait_for_timeout(400), route.continue_()))
    for key in "r1g2r3":
        page.keyboard.press(key)
    wait_for_trial(page, 2)
    assert answers(server, link) == [(1, "real", 1)]
    assert len([url for url in browser.requested if url.endswith("/do/answer")]) == 1


def test_a_number_without_a_letter_answers_nothing_and_says_why(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.keyboard.press("5")
    assert page.get_by_text("First R for real or G for generated").is_visible()
    page.keyboard.press("r")
    assert page.get_by_text("Real: how sure are you, 1 to 6?").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    assert page.get_by_text("First R for real or G for generated").is_visible()
    assert answers(server, link) == []


def test_a_class_is_chosen_then_how_sure(server, stimuli, browser):
    blocks = [{"design": "classification", "n_trials": 8}]
    (link, _) = server.new_study(stimuli, blocks=blocks)
    page = browser.new_page()
    begin(page, link)
    page.get_by_label("How sure are you?, confidence 2 of 6").click()
    assert page.get_by_text("First the type of cell").is_visible()
    page.get_by_role("button", name="Monocyte").click()
    assert page.get_by_role("button", name="Monocyte").get_attribute("aria-pressed") == "true"
    page.get_by_label("How sure are you?, confidence 2 of 6").click()
    wait_for_trial(page, 2)
    assert answers(server, link) == [(1, "monocyte", 2)]


def test_the_last_answer_is_taken_back_where_the_protocol_allows_it(server, stimuli, browser):
    (link, _) = server.new_study(stimuli, conduct={"undo": True})
    page = browser.new_page()
    begin(page, link)
    for key in "r1":
        page.keyboard.press(key)
    wait_for_trial(page, 2)
    page.keyboard.press("u")
    wait_for_trial(page, 1)
    page.get_by_label("Generated, confidence 6 of 6").click()
    wait_for_trial(page, 2)
    assert page.get_by_label("Take back the last answer").count() == 0
    assert answers(server, link) == [(1, "real", 1), (1, "generated", 6)]


def test_the_next_picture_is_there_before_it_is_asked_for(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.wait_for_function(
        "performance.getEntriesByType('resource').filter(one =>"
        " one.name.includes('/image/')).length === 2"
    )
    ahead = page.locator(".cy").get_attribute("data-next")
    pictures = [url for url in browser.requested if "/image/" in url]
    assert len(pictures) == 2
    assert pictures[1].endswith(ahead)
    page.keyboard.press("r")
    page.keyboard.press("1")
    wait_for_trial(page, 2)
    again = [url for url in browser.requested if url.endswith(ahead)]
    assert len(again) == 1
    assert page.get_by_alt_text("cell image").get_attribute("src").startswith("blob:")


def test_the_picture_is_described_neutrally_and_can_be_shown_as_pixels(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    cell = page.get_by_alt_text("cell image")
    assert cell.is_visible()
    assert cell.evaluate("cell => getComputedStyle(cell).imageRendering") == "auto"
    page.keyboard.press("x")
    assert cell.evaluate("cell => getComputedStyle(cell).imageRendering") == "pixelated"
    assert page.get_by_role("button", name="Pixels").get_attribute("aria-pressed") == "true"


def test_the_picture_is_enlarged_and_moved_by_keys_wheel_and_drag(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    cell, stage = page.get_by_alt_text("cell image"), page.locator(".cy-stage")
    box = stage.bounding_box()

    def corner():
        shown = cell.bounding_box()
        return shown["x"] - box["x"], shown["y"] - box["y"], shown["width"] / box["width"]

    page.keyboard.press("+")
    assert corner()[2] == pytest.approx(1.5, abs=0.01)
    x, y, _ = corner()
    page.keyboard.press("Shift+ArrowRight")
    assert corner()[0] == pytest.approx(x - 0.1 * box["width"], abs=2)
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 230)
    page.mouse.up()
    assert corner()[1] == pytest.approx(y + 30, abs=2)
    before = corner()[2]
    page.mouse.wheel(0, -200)
    page.wait_for_function("document.querySelector('[data-scale]').textContent !== '150 %'")
    assert corner()[2] > before
    page.keyboard.press("0")
    assert corner() == pytest.approx((1, 1, 1), abs=2)
    page.keyboard.press("r")
    page.keyboard.press("1")
    wait_for_trial(page, 2)
    assert page.locator("[data-scale]").text_content() == "100 %"
    assert '"zoom_max": 2.2' in stored(server, link)[0].client_json


def test_help_lists_the_keys_and_keeps_them_from_answering(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    page.keyboard.press("?")
    assert page.get_by_role("dialog").get_by_text("Take back the letter").is_visible()
    page.keyboard.press("r")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert answers(server, link) == []


def test_time_left_is_told_after_some_trials(server, stimuli, browser):
    (link, _) = server.new_study(stimuli)
    page = browser.new_page()
    begin(page, link)
    for number in range(1, 4):
        wait_for_trial(page, number)
        assert page.locator("[data-left]").text_content() == ""
        page.keyboard.press("r")
        page.keyboard.press("1")
    wait_for_trial(page, 4)
    assert page.get_by_text("less than a minute left").is_visible()


def test_the_language_is_chosen_before_the_trials(server, stimuli, browser):
    (link, _) = server.new_study(stimuli, languages=("en", "de"))
    page = browser.new_page()
    page.goto(link)
    page.get_by_role("button", name="Deutsch").click()
    page.get_by_role("heading", name="Bevor Sie beginnen").wait_for()
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_role("button", name="Ich bin einverstanden").click()
    page.get_by_role("button", name="Beginnen").click()
    wait_for_trial(page, 1)
    page.keyboard.press("e")
    assert page.get_by_text("Echt: Wie sicher sind Sie, 1 bis 6?").is_visible()


def test_a_page_opened_without_a_link_says_how_to_enter(server, browser):
    page = browser.new_page()
    page.goto(f"{server.address}/study/")
    assert page.get_by_role("heading", name="Please open your personal link").is_visible()
