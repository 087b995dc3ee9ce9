"""The only value about a trial that a participant's browser may receive."""

from dataclasses import dataclass

from studies.protocol import Design


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindedTrial:
    """A trial without its answer: there is no field in which the answer could leak."""

    design: Design
    presentation_token: str
    """Random, made anew each time the trial is shown, so that a repeat cannot be recognised."""
    next_presentation_token: str | None
    """Of the trial after it, whose pictures may be fetched ahead; None where a page is between."""

    trial_number: int
    """Among the trials of its kind: practice is counted by itself."""
    n_trials: int
    is_practice: bool
    block_number: int
    exposure_s: float | None
    """What is left of the time for which the picture is shown; 0: it is over."""
    can_undo: bool
    """The answer before this one may be taken back."""

    @property
    def image_urls(self) -> tuple[str, ...]:
        """Made from the token alone; a file name such as `synthetic_07.png` would tell."""
        return image_urls(self.presentation_token, self.design)

    @property
    def next_image_urls(self) -> tuple[str, ...]:
        """To fetch while the reader looks at this one; of the same block, so of the same design."""
        token = self.next_presentation_token
        return () if token is None else image_urls(token, self.design)


def image_urls(presentation_token: str, design: Design) -> tuple[str, ...]:
    """The address of the picture, or of the left and the right one of a pair."""
    if design == "pair":
        return (f"/image/{presentation_token}/left", f"/image/{presentation_token}/right")
    return (f"/image/{presentation_token}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a reader is told after a practice trial, and after no other."""

    was_right: bool
    truth: str
    """In the words of the answer: real, generated, left, right, or a class."""
