"""A reader for locust, who does what the page does: answers, and fetches one picture ahead.

`benchmarks/webapp_load.py` runs it; the links are in the file that LINKS names. The time between
two answers varies by a third to either side, as people's does: locust lets readers in by tens at
each full second, and at a constant pace a third of them would answer at the same instant for ever.
"""

import os
import re
import time
from collections import deque
from pathlib import Path

from locust import FastHttpUser, between, task

PACE_S = float(os.environ["PACE_S"])
LINKS = deque(Path(os.environ["LINKS"]).read_text().split())
# Not parsed as HTML: the load shall come from the server, not from here.
ATTRIBUTE = re.compile(r'data-(page|presentation|trial-number|next)="([^"]*)"')
PICTURE = re.compile(r'src="(/image/[^"]*)"')


class Reader(FastHttpUser):
    """One answer in `PACE_S` seconds on average, from the first page to the last."""

    wait_time = between(2 / 3 * PACE_S, 4 / 3 * PACE_S)
    host = os.environ["ADDRESS"]

    def on_start(self) -> None:
        self.client.get(f"/s/{LINKS.popleft()}", name="link")
        self.ahead: set[str] = set()
        self.call("show")
        while self.page["page"] != "trial":
            self.call(self.page["page"])
        self.fetch_pictures()

    def call(self, name: str, **detail: object) -> None:
        html = self.client.post(f"/study/do/{name}", json=detail, name=name).json()["html"]
        self.page = dict(ATTRIBUTE.findall(html))
        self.pictures = PICTURE.findall(html)

    def fetch_pictures(self) -> None:
        """Those that are not here yet."""
        for url in self.pictures:
            if url not in self.ahead:
                self.client.get(url, name="picture")
        self.ahead.clear()

    @task
    def judge(self) -> None:
        if self.page["page"] == "finish":
            return
        answered = self.page
        for url in answered["next"].split():  # while the reader looks
            self.client.get(url, name="picture ahead")
            self.ahead.add(url)
        sent_at = time.perf_counter()
        self.call(
            "answer",
            presentation_token=answered["presentation"],
            response="real",
            confidence=3,
            response_time_s=0.0,
            client={"hidden_s": 0.0, "pixel_ratio": 2.0, "view_width": 1280, "zoom_max": 1.0},
        )
        if self.page["page"] == "finish":
            return
        is_taken = self.page["trial-number"] != answered["trial-number"]
        self.fetch_pictures()
        self.environment.events.request.fire(
            request_type="reader",
            name="submit to next picture",
            response_time=(time.perf_counter() - sent_at) * 1000,
            response_length=0,
            exception=None if is_taken else ValueError("the answer was not taken"),
            context={},
        )
