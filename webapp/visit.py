"""What a reader's browser may ask for, and the page it gets in reply.

Each call is safe to repeat: the browser sends it again until a reply comes, and a call that no
longer fits the page on which the reader stands changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webapp.flow import Page, Progress, milestone_of_break, page_of
from webapp.pages import Frame
from webapp.store import Answer, Reader, ReaderStore

CALLS = frozenset(
    {"show", "answer", "undo", "language"}
    | {"consent", "background", "calibration", "instructions", "block", "break"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A page by name, and as HTML. After practice `feedback`, which goes into the open page."""

    page: str
    html: str


class Background(BaseModel):
    """Who reads."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["haematologist", "pathologist", "physician", "laboratory", "student", "other"]
    years: Annotated[int, Field(ge=0, le=70)]
    """Of experience with blood smears."""
    colour_vision: Literal["normal", "deficient", "unknown"]
    display: Literal["monitor", "laptop", "tablet", "phone"]


class Calibration(BaseModel):
    """What a reader sees of the test fields, and what the browser says about the screen."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    dark: Annotated[int, Field(ge=0, le=4)]
    """Squares seen, of the 4 that are 6, 10, 14 and 18 of 255 grey levels above black."""
    light: Annotated[int, Field(ge=0, le=4)]
    number: Annotated[str, Field(max_length=8)] = ""
    """Read from the middle of the zoom chart; 384 is right."""
    zoom_max: float = 1.0
    screen_width: int = 0
    screen_height: int = 0
    view_width: int = 0
    view_height: int = 0
    pixel_ratio: float = 0.0
    """Device pixels in one of the page's."""
    gamut: Annotated[str, Field(max_length=10)] = ""


class Undo(BaseModel):
    """On which trial the reader pressed undo: repeated, it must not take back a second answer."""

    trial_number: int


class Visits:
    """All readers' visits to one database."""

    def __init__(self, store: ReaderStore) -> None:
        self._store = store
        self._frames: dict[tuple[int, str], Frame] = {}

    def do(self, reader: Reader, name: str, detail: Mapping[str, Any]) -> Reply:
        """Carry out one of `CALLS` and give the page on which the reader goes on."""
        store, participant_id = self._store, reader.participant_id
        frame = self._frame(reader)
        try:
            match name:
                case "show":
                    pass
                case "answer":
                    recorded = store.record_response(participant_id, Answer.model_validate(detail))
                    if recorded.feedback is not None:
                        return Reply(page="feedback", html=frame.feedback(recorded.feedback))
                    if recorded.outcome == "refused":
                        return self._page(reader, frame, is_refused=True)
                case "undo":
                    pressed_on = Undo.model_validate(detail).trial_number
                    if store.progress(participant_id).n_answered == pressed_on - 1:
                        store.undo(participant_id)
                case "language":
                    if detail.get("language") in frame.protocol.languages:
                        reader = replace(reader, language=detail["language"])
                        store.set_language(participant_id, reader.language)
                        frame = self._frame(reader)
                case _:
                    progress = store.progress(participant_id)
                    if page_of(progress) == name:
                        self._leave(reader, frame, progress, detail)
        except ValidationError:
            return self._page(reader, frame, is_refused=True)
        return self._page(reader, frame)

    def _leave(
        self, reader: Reader, frame: Frame, progress: Progress, detail: Mapping[str, Any]
    ) -> None:
        store, participant_id = self._store, reader.participant_id
        match page_of(progress):
            case Page.CONSENT:
                store.record_consent(participant_id, frame.language)
            case Page.BACKGROUND:
                given = Background.model_validate(detail).model_dump()
                store.pass_milestone(participant_id, "background", given)
            case Page.CALIBRATION:
                given = Calibration.model_validate(detail).model_dump()
                store.pass_milestone(participant_id, "calibration", given)
            case Page.INSTRUCTIONS:
                store.pass_milestone(participant_id, "instructions")
            case Page.BLOCK:
                store.pass_milestone(participant_id, f"block-{progress.next_block}")
            case Page.BREAK:
                store.pass_milestone(participant_id, str(milestone_of_break(progress)))

    def _page(self, reader: Reader, frame: Frame, *, is_refused: bool = False) -> Reply:
        """The page on which this reader stands; a trial is presented anew each time."""
        store, participant_id, t = self._store, reader.participant_id, frame.t
        progress = store.progress(participant_id)
        here = page_of(progress)
        match here:
            case Page.CLOSED:
                html = frame.closed()
            case Page.CONSENT:
                html = frame.consent()
            case Page.BACKGROUND:
                html = frame.background(t["background"]["incomplete"] if is_refused else "")
            case Page.CALIBRATION:
                html = frame.calibration(t["calibration"]["incomplete"] if is_refused else "")
            case Page.INSTRUCTIONS:
                html = frame.instructions()
            case Page.BLOCK:
                html = frame.block(progress.next_block or 1)
            case Page.BREAK:
                html = frame.pause(progress.n_answered, progress.n_trials)
            case Page.FINISH:
                discloses = frame.protocol.conduct.disclosure == "score"
                score = store.score(participant_id) if discloses else None
                html = frame.finish(progress.n_trials, score)
            case Page.TRIAL:
                trial = store.present(participant_id)
                if trial is None:  # answered in another tab since, or the study was closed
                    return self._page(reader, frame)
                classes = store.classes(reader.study_id) if trial.design == "classification" else ()
                notice = t["trial"]["not_stored"] if is_refused else ""
                html = frame.trial(trial, classes, notice=notice)
        return Reply(page=here.value, html=html)

    def _frame(self, reader: Reader) -> Frame:
        protocol = self._store.protocol(reader.study_id)
        languages = protocol.languages
        language = reader.language if reader.language in languages else languages[0]
        key = (id(protocol), language)  # the store gives the same object until it is amended
        if key not in self._frames:
            self._frames[key] = Frame(protocol, language)
        return self._frames[key]
