"""Which page a reader sees: a pure function of what is stored, so that nothing else can be lost."""

from dataclasses import dataclass
from enum import StrEnum


class Page(StrEnum):
    """The pages of a study, in their order."""

    CONSENT = "consent"
    INSTRUCTIONS = "instructions"
    TRIAL = "trial"
    FINISH = "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is stored about one reader, without any answer."""

    has_consented: bool
    has_begun: bool
    """A first trial was shown, so the instructions were read."""

    n_trials: int
    n_answered: int


def page_of(progress: Progress) -> Page:
    """The page on which the reader goes on, on whatever device."""
    if not progress.has_consented:
        return Page.CONSENT
    if progress.n_answered >= progress.n_trials:
        return Page.FINISH
    if not progress.has_begun:
        return Page.INSTRUCTIONS
    return Page.TRIAL
