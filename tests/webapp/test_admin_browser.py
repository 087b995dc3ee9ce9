"""A researcher in a real browser leads a study from its audit to its unblinding."""

import csv
import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.webapp.admin_at_hand import NAME, PASSWORD, admin_server, built, read
from tests.webapp.studies_at_hand import pictures, protocol
from webapp.audit import audit_stimuli
from webapp.database import Database
from webapp.registry import Registry
from webapp.store import ReaderStore

CHROMIUM = Path(os.environ.get("PLAYWRIGHT_CHROMIUM", "/usr/bin/chromium"))
MISSING = f"no browser at {CHROMIUM}; install it with `apt-get install chromium`"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING),
]


@pytest.fixture
def database(tmp_path, stimuli_48):
    with closing(Database.create(f"sqlite:///{tmp_path / 'studies.sqlite3'}")) as made:
        registry = Registry(made)
        registry.set_password(NAME, PASSWORD)
        plan = protocol("tiny", blocks=[{"design": "authenticity", "n_trials": 8}])
        report = audit_stimuli(stimuli_48)
        assert not report.passed
        registry.create(plan, {"main": pictures(stimuli_48)})
        registry.record_audit("tiny", report.to_json(), passed=False)
        registry.create(
            plan.model_copy(update={"study_id": "other"}), {"main": pictures(stimuli_48)}
        )
        yield made


@pytest.fixture
def page(database, chromium):
    """Noting each request elsewhere and each complaint."""
    with admin_server(built(database)) as address:
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.address, page.complaints = address, []
        page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
        page.on(
            "request",
            lambda sent: (
                sent.url.startswith((address, "data:")) or page.complaints.append(sent.url)
            ),
        )
        yield page
        context.close()


def log_in(page):
    page.goto(page.address)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator(".cy-strip").wait_for()


def press(page, button, says):
    page.get_by_role("button", name=button, exact=True).click()
    page.locator(".cy-status", has_text=says).wait_for()


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_a_study_is_led_from_its_failed_audit_to_its_unblinding(page, database, tmp_path):
    log_in(page)
    assert page.get_by_role("radio").count() == 2
    tab(page, "Audit")
    page.get_by_text("Not passed").wait_for()
    press(page, "Freeze", "the blinding audit of study 'tiny' failed")
    page.get_by_label("Reason for going on").fill("a test of these pages")
    press(page, "Freeze", "Frozen.")
    press(page, "Open", "Open. Invited readers can begin")

    tab(page, "Readers")
    table = tmp_path / "readers.csv"
    table.write_text("label\nDr Adler\nDr Bianchi\n")
    page.locator("input[type=file]").first.set_input_files(table)
    page.get_by_text("readers.csv").wait_for()
    press(page, "Invite and make links", "2 readers are invited.")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download tiny-links.csv").click()
    links = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [link["label"] for link in links] == ["Dr Adler", "Dr Bianchi"]
    store = ReaderStore(database)
    read(store, database, links[0]["link"].rpartition("/s/")[2], is_right=True)

    tab(page, "Progress")
    page.get_by_role("button", name="Refresh").click()
    page.locator("tr", has_text="Dr Adler").get_by_text("finished").wait_for()
    assert page.get_by_label("Progress of tiny-P01").get_attribute("value") == "8"

    tab(page, "Readers")
    assert not page.get_by_text("shown this once").is_visible()
    page.get_by_label("One reader").click()
    page.get_by_role("option", name="tiny-P02 · Dr Bianchi · invited").click()
    press(page, "New link", "Earlier links of tiny-P02 open nothing any more.")
    second = store.find_reader(links[1]["link"].rpartition("/s/")[2])
    assert second.link == "revoked"
    page.get_by_label("One reader").click()
    page.get_by_role("option", name="tiny-P02").click()
    page.get_by_label("Reason for withdrawing").fill("moved away")
    press(page, "Withdraw the reader", "tiny-P02 has withdrawn; answers given are kept.")

    press(page, "Close", "Closed.")
    press(page, "Unblind", "unblinding needs a reason")
    page.get_by_label("Reason for unblinding").fill("all have read")
    press(page, "Unblind", "Unblinded.")
    tab(page, "Log")
    assert page.get_by_text("reason: all have read").is_visible()
    press(page, "Verify the log and what is frozen", "The log is whole")
    tab(page, "Data")
    press(page, "Make the export", "The export is made")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download tiny.zip").click()
    assert download.value.path().read_bytes()[:2] == b"PK"
    assert page.complaints == []

    events = [(one.kind, one.actor) for one in Registry(database).events("tiny")]
    assert events[2:] == [
        (kind, NAME)
        for kind in (
            *("override", "frozen", "opened", "invited", "reissued", "withdrawn", "closed"),
            *("unblinded", "exported"),
        )
    ]


def test_another_study_is_chosen_and_whoever_logs_out_is_out(page):
    log_in(page)
    page.get_by_text("other · draft").click()
    page.get_by_text("python -m webapp audit").wait_for()
    assert page.get_by_role("button", name="Freeze").count() == 0
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Reader studies").wait_for()
    page.goto(f"{page.address}/studies/")
    assert page.url == f"{page.address}/login"
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("Name and password do not fit").wait_for()


def test_a_press_after_the_session_has_ended_leads_to_the_login(page):
    log_in(page)
    page.context.clear_cookies()
    page.get_by_role("button", name="Refresh").click()
    page.get_by_label("Password").wait_for()
    assert page.url == f"{page.address}/login"


def test_the_pages_are_accessible(page):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    ).Axe()
    page.goto(page.address)
    found = {"login": serious(axe.run(page))}
    log_in(page)
    for name in ("Progress", "Readers", "Audit", "Protocol", "Log", "Data"):
        tab(page, name)
        page.wait_for_timeout(100)
        found[name] = serious(axe.run(page))
    assert {name: rules for name, rules in found.items() if rules} == {}


def serious(results):
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in results.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
