"""Which page a reader sees: a pure function of what is stored, so that nothing else can be lost."""

from dataclasses import dataclass
from enum import StrEnum


class Page(StrEnum):
    """The pages of a study, in their order."""

    CLOSED = "closed"
    CONSENT = "consent"
    BACKGROUND = "background"
    CALIBRATION = "calibration"
    INSTRUCTIONS = "instructions"
    BLOCK = "block"
    BREAK = "break"
    TRIAL = "trial"
    FINISH = "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is stored about one reader, without any answer."""

    is_open: bool
    """The study takes answers. A finished reader sees the last page also when it is closed."""
    has_consented: bool
    asks_background: bool
    asks_calibration: bool
    milestones: frozenset[str]
    """Pages left behind: background, calibration, instructions, block-1 …, break-40 …"""

    n_trials: int
    """Without practice."""
    n_answered: int
    next_block: int | None
    """Block of the next unanswered trial, practice included; None when all are answered."""
    has_introduction: bool
    """That block has words of its own, or is one of several."""
    break_every: int | None


def page_of(progress: Progress) -> Page:
    """The page on which the reader goes on, on whatever device."""
    done = progress.milestones
    if progress.has_consented and progress.next_block is None:
        return Page.FINISH
    if not progress.is_open:
        return Page.CLOSED
    if not progress.has_consented:
        return Page.CONSENT
    if progress.asks_background and "background" not in done:
        return Page.BACKGROUND
    if progress.asks_calibration and "calibration" not in done:
        return Page.CALIBRATION
    if "instructions" not in done:
        return Page.INSTRUCTIONS
    if progress.has_introduction and f"block-{progress.next_block}" not in done:
        return Page.BLOCK
    if milestone_of_break(progress) not in (None, *done):
        return Page.BREAK
    return Page.TRIAL


def milestone_of_break(progress: Progress) -> str | None:
    """Name of the break that is due after so many answers, or None."""
    every, n_answered = progress.break_every, progress.n_answered
    if every is None or n_answered == 0 or n_answered % every:
        return None
    return f"break-{n_answered}"
