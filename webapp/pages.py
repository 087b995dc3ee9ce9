"""What each page looks like: values in, HTML out. The layout itself is in `pages.jinja`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies.protocol import Block, Design, Protocol
from webapp.blinding import BlindedTrial, Feedback
from webapp.strings import strings

HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")

HEAD = (
    '<meta name="color-scheme" content="light"><meta name="robots" content="noindex">'
    f"<style>{CSS}</style>"
)

EMPTY = '<div class="cy"><div class="cy-lost" role="alert" data-lost></div></div>'
"""Until the first reply."""

FAVICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<circle cx="8" cy="8" r="6.5" fill="none" stroke="#1f566d" stroke-width="2"/>
<circle cx="8" cy="8" r="2.5" fill="#1f566d"/></svg>"""

_macros: Any = (
    Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    .get_template("pages.jinja")
    .module
)

RESERVED_KEYS = frozenset("ux")
"""Letters that do something else on every trial."""


@dataclass(eq=False)
class Frame:
    """A study in one language: what is around every page."""

    protocol: Protocol
    language: str

    @cached_property
    def t(self) -> dict[str, Any]:
        """All words of the pages."""
        return strings(self.language)

    @cached_property
    def title(self) -> str:
        """Of the study."""
        return self.protocol.words(self.language).title or ""

    @cached_property
    def languages(self) -> dict[str, str]:
        """From which the reader may choose, by code."""
        return {code: strings(code)["name"] for code in self.protocol.languages}

    @cached_property
    def script(self) -> str:
        """The words that the script says."""
        return json.dumps(self.t["script"], ensure_ascii=False)

    # Before the trials

    def consent(self) -> str:
        """The consent text, word for word, and one button."""
        words = self.protocol.words(self.language)
        return _macros.consent(
            self,
            _paragraphs(words.consent_text),
            self.protocol.consent_version,
            self.protocol.conduct.withdrawal,
        )

    def background(self, notice: str = "") -> str:
        """Who reads, in four questions."""
        return _macros.background(self, notice)

    def calibration(self, notice: str = "") -> str:
        """Brightness and zoom of the reader's screen."""
        return _macros.calibration(self, notice)

    def instructions(self) -> str:
        """How to judge, with the keys."""
        protocol, t = self.protocol, self.t["instructions"]
        n_practice = sum(block.n_practice for block in protocol.rounds)
        amount = t["amount_practice" if n_practice else "amount"]
        points = {block.design: _n_points(protocol, block) for block in protocol.rounds}
        return _macros.instructions(
            self,
            _paragraphs(protocol.words(self.language).instructions),
            amount.format(n_trials=protocol.n_shown, n_practice=n_practice),
            list(points),
            points,
            protocol.conduct.undo,
        )

    def block(self, block_number: int) -> str:
        """What a reader is told before a block."""
        t, blocks = self.t["block"], self.protocol.rounds
        block = blocks[block_number - 1]
        facts = [t["amount_pair" if block.design == "pair" else "amount"]]
        facts += [t["amount_practice"]] if block.n_practice else []
        facts += [t["exposure"]] if block.exposure_s else []
        values = {
            "number": block_number,
            "n_blocks": len(blocks),
            "n_trials": block.n_shown,
            "n_practice": block.n_practice,
            "seconds": f"{block.exposure_s or 0:g}",
        }
        return _macros.block(
            self,
            t["heading" if len(blocks) > 1 else "heading_single"].format(**values),
            _paragraphs((self.protocol.words(self.language).introductions or ())[block_number - 1]),
            [fact.format(**values) for fact in facts],
        )

    # Trials and after

    def trial(self, trial: BlindedTrial, classes: tuple[str, ...] = (), *, notice: str = "") -> str:
        """One cell or two, one question, one gesture."""
        points = _n_points(self.protocol, self.protocol.rounds[trial.block_number - 1])
        return _macros.trial(self, trial, _furniture(self, trial.design, points, classes), notice)

    def feedback(self, feedback: Feedback) -> str:
        """What takes the place of the answers after a practice trial."""
        t = self.t["feedback"]
        text = t.get(feedback.truth) or t["class"].format(name=self.class_label(feedback.truth))
        return _macros.feedback(self, feedback.was_right, text)

    def pause(self, n_answered: int, n_trials: int) -> str:
        """The offer of a break."""
        return _macros.pause(self, n_answered, n_trials)

    def finish(self, n_trials: int, score: tuple[int, int] | None) -> str:
        """Thanks, and what the protocol allows the reader to know."""
        return _macros.finish(self, n_trials, score)

    def closed(self) -> str:
        """The study takes no answers now."""
        return _macros.closed(self)

    def class_label(self, class_name: str) -> str:
        """A class as readers call it."""
        return self.t["classes"].get(class_name.lower(), class_name.replace("_", " "))


def notice_page(name: str, language: str) -> str:
    """A whole page outside the study: a link that does not open, an address that is none."""
    return _macros.notice(language, strings(language)["notice"][name], Markup(HEAD))


def notice_fragment(name: str, language: str) -> str:
    """The same, for the page that is already open."""
    return _macros.gone(language, strings(language)["notice"][name])


def class_keys(labels: Sequence[str]) -> list[str]:
    """A letter for each label: its first one, where that is free, else another of its own."""
    keys: dict[str, str] = {}
    free = set(ascii_lowercase) - RESERVED_KEYS
    for reach in (1, None):  # all first letters are given out before any other
        for label in labels:
            wanted = label.lower()[:reach] + ("" if reach else ascii_lowercase)
            if label not in keys and (key := next((one for one in wanted if one in free), "")):
                keys[label] = key
                free.remove(key)
    return [keys.get(label, "") for label in labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Furniture:
    """What all trials of a block have in common, made once."""

    attributes: Markup
    question: str
    alts: tuple[str, ...]
    help_button: Markup
    tools: Markup
    tools_with_undo: Markup
    panel: Markup
    end: Markup


@cache
def _furniture(frame: Frame, design: Design, points: int, classes: tuple[str, ...]) -> _Furniture:
    t, protocol = frame.t, frame.protocol
    values = range(1, points + 1)
    rows: list[tuple[str, str, str, str]] = []
    alts: tuple[str, ...] = (t["trial"]["picture"],)
    match design:
        case "authenticity":
            for response in ("real", "generated"):
                key = t["authenticity"][f"{response}_key"]
                rows.append((response, key.lower(), key, t["authenticity"][response]))
        case "pair":
            alts = (t["trial"]["picture_left"], t["trial"]["picture_right"])
            rows = [
                ("left", "arrowleft", "←", t["pair"]["left"]),
                ("right", "arrowright", "→", t["pair"]["right"]),
            ]
        case "classification":
            labels = [frame.class_label(name) for name in classes]
            for name, key, label in zip(classes, class_keys(labels), labels, strict=True):
                rows.append((name, key, key.upper(), label))
    match design:
        case "quality":
            panel = _macros.quality_panel(frame, values)
        case "classification":
            panel = _macros.class_panel(frame, rows, values)
        case _:
            panel = _macros.confidence_panel(frame, rows, values)
    attributes = Markup('data-confidence-points="{}" data-words="{}"').format(
        "" if design == "quality" else points, frame.script
    )
    return _Furniture(
        attributes=attributes,
        question=t[design]["question"],
        alts=alts,
        help_button=_macros.help_button(t),
        tools=_macros.tools(frame),
        tools_with_undo=_macros.tools(frame, undo=True),
        panel=panel,
        end=_macros.end(
            frame,
            design,
            {design: points},
            protocol.conduct.undo,
            protocol.conduct.withdrawal,
        ),
    )


def _n_points(protocol: Protocol, block: Block) -> int:
    return block.rating_points if block.design == "quality" else protocol.confidence_points


def _paragraphs(text: str | None) -> list[str]:
    blocks = (" ".join(block.split()) for block in (text or "").split("\n\n"))
    return [block for block in blocks if block]
