"""WCAG 2.2 AA, as far as a program can tell, on every page."""

import pytest

from tests.webapp.browser_at_hand import NEEDS_CHROMIUM, leave, name_of_page
from tests.webapp.studies_at_hand import ALL_DESIGNS

pytestmark = NEEDS_CHROMIUM

axe_playwright_python = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def pages(server, stimuli_48, practice_stimuli, attention_stimuli):
    """Goes through a study and stops at every kind of page."""
    (link, *_) = server.new_study(
        stimuli_48, practice=practice_stimuli, attention=attention_stimuli, **ALL_DESIGNS
    )

    def walk(page):
        page.goto(link)
        seen = set()
        while True:
            name = name_of_page(page)
            design = page.locator(".cy").get_attribute("data-design") or ""
            if (name, design) not in seen:
                seen.add((name, design))
                yield f"{name} {design}".strip()
            if name == "finish":
                return
            if name == "trial":
                token = page.locator(".cy").get_attribute("data-presentation")
                if design == "classification":
                    page.locator("[data-row]").first.click()
                    page.locator('[data-confidence="1"]').click()
                else:
                    page.locator(".cy-scale button").first.click()
                page.wait_for_function(
                    "token => document.querySelector('.cy').dataset.page !== 'trial' ||"
                    " document.querySelector('.cy').dataset.presentation !== token",
                    arg=token,
                )
            else:
                leave(page, name)

    return walk


@pytest.mark.parametrize("screen", [(1280, 900), (390, 844)])
def test_axe_finds_no_violation_on_any_page(pages, chromium, screen):
    context = chromium.new_context(viewport={"width": screen[0], "height": screen[1]})
    page = context.new_page()
    axe, found, n_pages = axe_playwright_python.Axe(), {}, 0
    for name in pages(page):
        n_pages += 1
        found |= violations(axe, page, name)
        if name == "trial authenticity":
            page.keyboard.press("r")
            page.keyboard.press("?")
            found |= violations(axe, page, "help")
            page.keyboard.press("Escape")
    assert found == {}
    assert n_pages >= 13
    context.close()


def violations(axe, page, name):
    found = axe.run(page, options=RULES).response["violations"]
    return {(name, one["id"]): [node["html"][:120] for node in one["nodes"]] for one in found}


def test_pages_without_a_study_are_accessible_too(server, browser):
    page = browser.new_page()
    page.goto(f"{server.address}/s/unknown")
    assert violations(axe_playwright_python.Axe(), page, "notice") == {}


def test_the_focus_goes_through_a_trial_from_top_to_bottom_and_is_seen(pages, browser):
    page = browser.new_page()
    next(name for name in pages(page) if name == "trial authenticity")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    order = []
    for _ in range(17):
        page.keyboard.press("Tab")
        box = page.evaluate(
            "(() => { const one = document.activeElement; const { x, y } ="
            " one.getBoundingClientRect(); const { outlineWidth, outlineStyle } ="
            " getComputedStyle(one); return [one.ariaLabel ?? one.textContent.trim(), x, y,"
            " outlineStyle === 'solid' && parseFloat(outlineWidth) >= 2] })()"
        )
        order.append(box)
    names = [name for name, *_ in order]
    assert names[:5] == ["Zoom out", "Whole picture", "Zoom in", "X Pixels", names[4]]
    assert names[4:] == [
        *(f"Real, confidence {value} of 6" for value in range(1, 7)),
        *(f"Generated, confidence {value} of 6" for value in range(1, 7)),
        names[-1],
    ]
    assert all(is_seen for *_, is_seen in order[:16])
    rows = [round(y / 40) for _, _, y, _ in order[:16]]
    assert rows == sorted(rows)


def test_nothing_moves(pages, browser):
    page = browser.new_page()
    next(name for name in pages(page) if name == "trial authenticity")
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter(one => { const style = getComputedStyle(one);"
        " return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0 })"
        ".map(one => one.outerHTML.slice(0, 80))"
    )
    assert moving == []


def test_a_whole_screen_reader_hears_page_question_and_advice(pages, browser):
    page = browser.new_page()
    next(name for name in pages(page) if name == "trial authenticity")
    tree = page.locator("body").aria_snapshot()
    for line in (
        'heading "Is this cell real or generated?"',
        'img "cell image"',
        'group "Real"',
        'button "Real, confidence 1 of 6"',
        "progressbar",
        "status",
    ):
        assert line in tree, tree
