"""Scripted readers: they take a study over real HTTP, each page as its form and buttons stand.

A bot is as blind as anybody: it learns what a picture is only by finding its pixels again in the
stimulus folders, and then forgets most of it (`webapp.observers`).
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import httpx
import numpy as np
from PIL import Image

from studies.protocol import Design
from studies.stimuli import Stimulus, read_stimuli
from webapp.blinding import image_urls
from webapp.errors import WebappError
from webapp.observers import Observer
from webapp.pictures import pixel_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the pixels of a picture give away to who has the folder."""

    stimulus: Stimulus
    is_attention: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One acknowledged answer."""

    trial_number: int
    is_practice: bool
    is_attention: bool
    is_repeat: bool
    """The same was shown earlier in this visit: a repeat, or the second, primed, round."""
    design: Design
    stimulus_ids: tuple[str, ...]
    is_synthetic: bool
    """Of a pair: the left one."""
    response: str
    confidence: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a bot answered, and whether it left before the end."""

    participant_id: str
    given: tuple[Given, ...]
    has_left: bool

    def to_json(self) -> dict[str, Any]:
        """The answers, and of authenticity the counts of first showings."""
        judged = [
            answer
            for answer in self.given
            if answer.design == "authenticity"
            and not (answer.is_practice or answer.is_attention or answer.is_repeat)
        ]
        called = [(answer.is_synthetic, answer.response == "generated") for answer in judged]
        return {
            "participant_id": self.participant_id,
            "hits": called.count((True, True)),
            "misses": called.count((True, False)),
            "false_alarms": called.count((False, True)),
            "correct_rejections": called.count((False, False)),
            "n": len(judged),
            "has_left": self.has_left,
            "answers": [asdict(answer) for answer in self.given],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPage:
    """What a browser would show: the page's attributes, its form, and the answers it offers."""

    attributes: Mapping[str, str] = field(default_factory=dict)
    responses: tuple[str, ...] = ()
    form: Mapping[str, str] = field(default_factory=dict)
    """Names of the fields, each with a value that it takes."""

    @property
    def name(self) -> str:
        """One of `webapp.flow.Page`, or `feedback` after a practice trial."""
        return self.attributes.get("data-page", "")

    @property
    def trial_number(self) -> int:
        """Counts from 1, practice by itself; 0 where no trial is shown."""
        return int(self.attributes.get("data-trial-number", 0))

    @property
    def is_practice(self) -> bool:
        """A trial that does not count."""
        return "data-practice" in self.attributes

    @property
    def place(self) -> tuple[str, bool, int]:
        """Which trial of the study it is."""
        return self.attributes["data-block"], self.is_practice, self.trial_number

    @property
    def image_urls(self) -> tuple[str, ...]:
        """Addresses of the pictures to judge; of a pair the left one first."""
        return image_urls(self.attributes["data-presentation"], self.design)

    @property
    def design(self) -> Design:
        """What is asked."""
        return cast(Design, self.attributes["data-design"])

    @classmethod
    def of(cls, html: str) -> "ShownPage":
        """Read a page."""
        parser = _PageParser()
        parser.feed(html)
        return cls(
            attributes=parser.attributes,
            responses=tuple(dict.fromkeys(parser.responses)),
            form=parser.form,
        )


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}
        self.responses: list[str] = []
        self.form: dict[str, str] = {}
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        name, value = found.get("name", ""), found.get("value", "")
        if "data-page" in found:
            self.attributes = found
        if "data-response" in found:
            self.responses.append(found["data-response"])
        if tag == "select":
            self._select = name
        elif tag == "option" and value and self._select:
            self.form.setdefault(self._select, value)
        elif tag == "input" and name:
            self.form.setdefault(name, value or found.get("min", "1"))


class ReaderSession:
    """One reader's visit: the calls that the page makes, one by one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def enter(self, link: str) -> ShownPage:
        """Open the personal link, load the page, and see where the study goes on."""
        reply = self._checked(self._http.get(link, follow_redirects=True))
        if not reply.url.path.startswith("/study"):
            raise WebappError(f"{link} did not lead into a study; use the links of this server.")
        return self.call("show")

    def call(self, name: str, detail: Mapping[str, Any] | None = None) -> ShownPage:
        """Show, consent, answer or another of the page's calls; the next page comes back."""
        reply = self._checked(self._http.post(f"/study/do/{name}", json=detail or {}))
        return ShownPage.of(reply.json()["html"])

    def pictures(self, page: ShownPage) -> list[bytes]:
        """The bytes of the pictures on a trial page."""
        return [self._checked(self._http.get(url)).content for url in page.image_urls]

    def answer(
        self, page: ShownPage, response: str, confidence: int | None, response_time_s: float
    ) -> ShownPage:
        """Answer a trial page."""
        return self.call(
            "answer",
            {
                "presentation_token": page.attributes["data-presentation"],
                "response": response,
                "confidence": confidence,
                "response_time_s": response_time_s,
                "client": {"hidden_s": 0.0},
            },
        )

    def _checked(self, reply: httpx.Response) -> httpx.Response:
        if reply.is_error:
            raise WebappError(
                f"{reply.url.path} gave status {reply.status_code}; check that the link is one "
                "of this server and still opens, and the server's log."
            )
        return reply


def known_by_pixels(folders: Sequence[Path], attention: Path | None = None) -> dict[str, Known]:
    """What each picture of some stimulus sets is, by the digest of its pixels."""
    known: dict[str, Known] = {}
    for folder in (*folders, *([attention] if attention else [])):
        for stimulus in read_stimuli(folder):
            with Image.open(folder / stimulus.file) as image:
                digest = pixel_digest(image)
            known[digest] = Known(stimulus=stimulus, is_attention=folder == attention)
    return known


def read_links(path: Path) -> list[tuple[str, str]]:
    """Participant id and link, line by line.

    Raises:
        WebappError: if the file is missing or a line is not of this kind.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise WebappError(
            f"{path} cannot be read ({error.strerror}); `python -m webapp invite` writes it."
        ) from None
    links: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if len(line) != 2 or "/s/" not in line[1]:
            raise WebappError(
                f"{path} line {number} is not `participant link`; use the file that "
                "`python -m webapp invite` wrote."
            )
        links.append((line[0], line[1]))
    return links


def take_study(
    link: str,
    participant_id: str,
    observer: Observer,
    known: Mapping[str, Known],
    *,
    seed: int,
    participant_number: int,
    http: httpx.Client,
    on_answer: Callable[[int, int], None] = lambda _trial_number, _n_trials: None,
) -> Played:
    """Play one reader from wherever the study stands to its finish page, or till the bot leaves.

    The randomness of an answer depends on seed, participant and trial only, so a bot that is
    stopped and started again gives the answers it would have given.
    """
    given: list[Given] = []
    session = ReaderSession(http)
    page = session.enter(link)
    while page.name != "finish":
        if page.name == "feedback":
            page = session.call("show")
            continue
        if page.name in ("consent", "background", "calibration", "instructions", "block", "break"):
            page = session.call(page.name, page.form)
            continue
        if page.name != "trial":
            raise WebappError(
                f"there is no trial for {participant_id} (the page is {page.name!r}); open the "
                "study with `python -m webapp open`, or check the server's log."
            )
        number, n_trials = page.trial_number, int(page.attributes["data-n-trials"])
        is_practice = page.is_practice
        leaves_after = observer.leaves_after(
            n_trials, np.random.default_rng([seed, participant_number])
        )
        if not is_practice and number > leaves_after:
            return Played(participant_id=participant_id, given=tuple(given), has_left=True)
        shown = [_recognised(picture, known) for picture in session.pictures(page)]
        seen_at = perf_counter()
        response, confidence = observer.judge(
            page.design,
            [picture.stimulus for picture in shown],
            page.responses,
            int(page.attributes.get("data-confidence-points") or 0),
            np.random.default_rng([seed, participant_number, number, is_practice]),
            is_obvious=shown[0].is_attention,
        )
        answered, page = page, session.answer(page, response, confidence, perf_counter() - seen_at)
        if page.name == "trial" and page.place == answered.place:
            raise WebappError(
                f"the server did not take the answer to trial {number} of {participant_id}; "
                "let nobody else use the link meanwhile."
            )
        stimulus_ids = tuple(picture.stimulus.stimulus_id for picture in shown)
        given.append(
            Given(
                trial_number=number,
                is_practice=is_practice,
                is_attention=shown[0].is_attention,
                is_repeat=any(
                    set(one.stimulus_ids) == set(stimulus_ids) and one.design == answered.design
                    for one in given
                ),
                design=answered.design,
                stimulus_ids=stimulus_ids,
                is_synthetic=shown[0].stimulus.is_synthetic,
                response=response,
                confidence=confidence,
            )
        )
        if not is_practice:
            on_answer(number, n_trials)
    return Played(participant_id=participant_id, given=tuple(given), has_left=False)


def _recognised(png: bytes, known: Mapping[str, Known]) -> Known:
    digest = pixel_digest(Image.open(io.BytesIO(png)))
    if digest not in known:
        raise WebappError(
            "the server showed a picture that is in none of the stimulus folders; give those that "
            "the study was created with, also --practice and --attention."
        )
    return known[digest]
