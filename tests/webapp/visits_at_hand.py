"""Readers at work over HTTP, for the tests."""

from collections.abc import Callable

from tests.webapp.studies_at_hand import RESPONSES, Server
from webapp.bots import ReaderSession, ShownPage

BEFORE_TRIALS = ("consent", "background", "calibration", "instructions", "block", "break")


class Visit(ReaderSession):
    """A reader, with the HTTP client at hand."""

    def __init__(self, server: Server, link: str, **hooks: Callable[..., None]) -> None:
        self.http = server.client()
        self.http.event_hooks["response"] += hooks.values()
        super().__init__(self.http)
        self.page = self.enter(link)

    def go_on(self) -> ShownPage:
        """Leave every page up to the next trial, or to the end."""
        while self.page.name in BEFORE_TRIALS or self.page.name == "feedback":
            name = "show" if self.page.name == "feedback" else self.page.name
            self.page = self.call(name, self.page.form)
        return self.page

    def give(self, **changes: object) -> ShownPage:
        """Answer the trial on the page."""
        self.page = self.call("answer", answer(self.page, **changes))
        return self.page


def answer(page: ShownPage, **changes: object) -> dict[str, object]:
    """What a browser sends for a trial."""
    design = page.attributes.get("data-design", "authenticity")
    return {
        "presentation_token": page.attributes.get("data-presentation", "none"),
        "response": RESPONSES[design],
        "confidence": None if design == "quality" else 1,
        "response_time_s": 0.0,
    } | changes
