"""Scripted readers: they take a study over real HTTP, with known sensitivity, bias and lapses.

A bot is as blind as anybody: it learns what a picture is only by finding its pixels again in the
stimulus folder, and then forgets most of it.
"""

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from statistics import NormalDist
from time import perf_counter
from typing import Any, Literal

import httpx
import numpy as np
from PIL import Image

from studies.stimuli import read_stimuli
from webapp.errors import WebappError
from webapp.pictures import pixel_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Equal-variance Gaussian signal detection; the signal is "generated"."""

    d_prime: float = 1.0
    criterion: float = 0.0
    """Distance from the unbiased point; above 0 the reader says "real" more often."""
    lapse_rate: float = 0.02
    """How often the answer is a coin's, whatever was seen."""

    def judge(
        self, is_synthetic: bool, confidence_points: int, rng: np.random.Generator
    ) -> tuple[Literal["real", "generated"], int]:
        """Response and confidence, the latter from the distance of the evidence to the criterion.

        The edges of the confidence bins cut a standard normal, centred on the criterion, into
        equally likely parts.
        """
        evidence = rng.normal(self.d_prime / 2 if is_synthetic else -self.d_prime / 2)
        lapses, coin = rng.random() < self.lapse_rate, rng.random() < 0.5
        any_confidence = int(rng.integers(1, confidence_points + 1))
        if lapses:
            return "generated" if coin else "real", any_confidence
        distance = evidence - self.criterion
        edges = (
            NormalDist().inv_cdf(0.5 + edge / (2 * confidence_points))
            for edge in range(1, confidence_points)
        )
        confidence = 1 + sum(abs(distance) > edge for edge in edges)
        return "generated" if distance > 0 else "real", confidence


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a bot answered, counted as its answers were acknowledged."""

    participant_id: str
    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    correct_rejections: int = 0
    n: int = 0

    def add(self, response: str, is_synthetic: bool) -> None:
        """Count one answer; a hit is "generated" said of a generated picture."""
        says_generated = response == "generated"
        if is_synthetic:
            self.hits += says_generated
            self.misses += not says_generated
        else:
            self.false_alarms += says_generated
            self.correct_rejections += not says_generated
        self.n += 1

    def to_json(self) -> dict[str, Any]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPage:
    """What a browser would show: the attributes of the page, and the address of its picture."""

    attributes: dict[str, str] = field(default_factory=dict)
    image_url: str = ""

    @property
    def name(self) -> str:
        """consent, instructions, trial or finish."""
        return self.attributes.get("data-page", "")

    @property
    def trial_number(self) -> int:
        """Counts from 1; 0 where no trial is shown."""
        return int(self.attributes.get("data-trial-number", 0))


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}
        self.image_url = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "data-page" in found:
            self.attributes = found
        if tag == "img":
            self.image_url = found.get("src", "")


class ReaderSession:
    """One reader's visit: the calls that the page makes, one by one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._calls: dict[str, int] = {}

    def enter(self, link: str) -> ShownPage:
        """Open the personal link, load the page, and see where the study goes on."""
        reply = self._checked(self._http.get(link, follow_redirects=True))
        if not reply.url.path.startswith("/study"):
            raise WebappError(f"{link} did not lead into a study; use the links of this server.")
        calls = self._checked(self._http.get("/study/config")).json()["dependencies"]
        self._calls = {call["api_name"]: call["id"] for call in calls}
        return self.call("show")

    def call(self, name: str, detail: dict[str, Any] | None = None) -> ShownPage:
        """One of show, consent, begin, answer; the next page comes back."""
        reply = self._checked(
            self._http.post(
                "/study/gradio_api/run/predict",
                json={"data": [], "event_data": detail, "fn_index": self._calls[name]},
            )
        )
        parser = _PageParser()
        parser.feed(str(reply.json()["data"][0]))
        return ShownPage(attributes=parser.attributes, image_url=parser.image_url)

    def picture(self, page: ShownPage) -> bytes:
        """The bytes of the picture on a trial page."""
        return self._checked(self._http.get(page.image_url)).content

    def answer(
        self, page: ShownPage, response: str, confidence: int, response_time_s: float
    ) -> ShownPage:
        """Answer a trial page."""
        return self.call(
            "answer",
            {
                "presentation_token": page.attributes["data-presentation"],
                "response": response,
                "confidence": confidence,
                "response_time_s": response_time_s,
            },
        )

    def _checked(self, reply: httpx.Response) -> httpx.Response:
        if reply.is_error:
            raise WebappError(
                f"{reply.url.path} gave status {reply.status_code}; check that the link is one "
                "of this server and has not expired."
            )
        return reply


def truth_by_pixels(folder: Path) -> dict[str, bool]:
    """Whether a picture is synthetic, by the digest of its pixels."""
    truth: dict[str, bool] = {}
    for stimulus in read_stimuli(folder):
        with Image.open(folder / stimulus.file) as image:
            truth[pixel_digest(image)] = stimulus.is_synthetic
    return truth


def read_links(path: Path) -> list[tuple[str, str]]:
    """Participant id and link, line by line.

    Raises:
        WebappError: if the file is missing or a line is not of this kind.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise WebappError(
            f"{path} cannot be read ({error.strerror}); `python -m webapp create` writes it."
        ) from None
    links: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if len(line) != 2 or "/s/" not in line[1]:
            raise WebappError(
                f"{path} line {number} is not `participant link`; use the file that "
                "`python -m webapp create` wrote."
            )
        links.append((line[0], line[1]))
    return links


def take_study(
    link: str,
    participant_id: str,
    observer: Observer,
    truth: dict[str, bool],
    *,
    seed: int,
    participant_number: int,
    http: httpx.Client,
    on_answer: Callable[[int, int], None] = lambda _trial_number, _n_trials: None,
) -> Counts:
    """Play one reader from wherever the study stands to its finish page.

    The randomness of an answer depends on seed, participant and trial only, so a bot that is
    stopped and started again gives the answers it would have given.
    """
    counts = Counts(participant_id=participant_id)
    session = ReaderSession(http)
    page = session.enter(link)
    while page.name != "finish":
        if page.name == "consent":
            page = session.call("consent")
        elif page.name == "instructions":
            page = session.call("begin")
        elif page.name == "trial":
            digest = pixel_digest(Image.open(io.BytesIO(session.picture(page))))
            seen_at = perf_counter()
            if digest not in truth:
                raise WebappError(
                    "the server showed a picture that is not in the stimulus folder; "
                    "give the folder that the study was created with."
                )
            rng = np.random.default_rng([seed, participant_number, page.trial_number])
            points = int(page.attributes["data-confidence-points"])
            response, confidence = observer.judge(truth[digest], points, rng)
            answered, n_trials = page.trial_number, int(page.attributes["data-n-trials"])
            page = session.answer(page, response, confidence, perf_counter() - seen_at)
            if page.name == "trial" and page.trial_number != answered + 1:
                raise WebappError(
                    f"the server did not take the answer to trial {answered} of {participant_id}; "
                    "let nobody else use the link meanwhile."
                )
            counts.add(response, truth[digest])
            on_answer(answered, n_trials)
        else:
            raise WebappError("the server showed no page of a study; check its version and log.")
    return counts
