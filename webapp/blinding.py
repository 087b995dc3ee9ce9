"""The only value about a trial that a participant's browser may receive."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindedTrial:
    """A trial without its answer: there is no field in which the answer could leak."""

    presentation_token: str
    """Random, made anew each time the trial is shown, so that a repeat cannot be recognised."""

    trial_number: int
    n_trials: int

    @property
    def image_url(self) -> str:
        """Made from the token alone; a file name such as `synthetic_07.png` would tell."""
        return f"/image/{self.presentation_token}"
