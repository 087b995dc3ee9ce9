"""A reader in a real browser, for the tests."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.webapp.studies_at_hand import Server
from webapp.database import Database
from webapp.queries import link as links
from webapp.queries import response, trial
from webapp.store import token_digest

CHROMIUM = Path(os.environ.get("PLAYWRIGHT_CHROMIUM", "/usr/bin/chromium"))
MISSING = f"no browser at {CHROMIUM}; install it with `apt-get install chromium`"
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING),
]


def name_of_page(page: Any) -> str:
    """Which page is shown, when it can be used."""
    page.wait_for_selector('.cy[data-page]:not([data-page="trial"]), [data-state="ready"]')
    return str(page.locator(".cy").get_attribute("data-page"))


def wait_for_trial(page: Any, number: int) -> None:
    """Until the cell of a trial is painted and can be judged."""
    page.wait_for_selector(f'[data-trial-number="{number}"][data-state="ready"]')


def leave(page: Any, name: str) -> None:
    """Do what a page before or between the trials asks for, and wait for the next."""
    root = page.locator(".cy").element_handle()
    if name == "background":
        page.get_by_label("Haematologist", exact=True).check(force=True)
        page.get_by_label("Normal").check(force=True)
        page.get_by_label("Laptop").check(force=True)
        page.get_by_label("Years").fill("12")
    if name == "calibration":
        for field in ("dark", "light"):
            page.locator(f'[name="{field}"][value="4"]').check(force=True)
    page.locator(".cy-primary").first.click()
    root.wait_for_element_state("hidden")


def begin(page: Any, link: str) -> None:
    """Open a link and go on to the first trial."""
    page.goto(link)
    while (name := name_of_page(page)) != "trial":
        leave(page, name)


def stored(server: Server, link: str) -> list[Any]:
    """What is stored of a reader, with the trial of each answer."""
    with closing(Database.open(server.database_url)) as database, database.read() as session:
        who = select(links.c.participant_id).where(
            links.c.token_digest == token_digest(link.rsplit("/", 1)[1])
        )
        return list(
            session.execute(
                select(response, trial.c.trial_number, trial.c.design)
                .join(trial, trial.c.trial_id == response.c.trial_id)
                .where(trial.c.participant_id == session.execute(who).scalar_one())
                .order_by(trial.c.position, response.c.revision)
            )
        )


def answers(server: Server, link: str) -> list[tuple[int, str, int]]:
    """Trial number, response and confidence of all that is stored."""
    return [(row.trial_number, row.response, row.confidence) for row in stored(server, link)]
