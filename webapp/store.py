"""What a reader's browser may do: each call one short transaction. Answers are only ever inserted.

Trials are answered in the order of their positions, so the answered ones are always the first ones
of the schedule, and how many they are says where the reader stands. Every call that writes locks
its reader's row first (SQLite: the database), so that two tabs cannot both be right.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, insert

from studies.allocation import Pools
from studies.protocol import Design, Protocol
from webapp import enrolment, queries
from webapp.blinding import BlindedTrial, Feedback
from webapp.database import Database, utc_now
from webapp.flow import Progress
from webapp.queries import Facts, consent, milestone, presentation, response, retraction

CLOCK_TOLERANCE_S = 1.0
"""How much longer than the server's own interval a reader's response time may be."""

LOADING_S = 5.0
"""How long after the end of its exposure a picture is still sent; the page ends it by itself."""

_Fact = (
    Annotated[int, Field(ge=-(2**53), le=2**53)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=200)]
)


class Answer(BaseModel):
    """What a browser sends: the judgement, and which showing of the picture it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    presentation_token: Annotated[str, Field(max_length=64)]
    response: Annotated[str, Field(max_length=64)]
    """real, generated; left, right (the real one of a pair); a class; a rating as a number."""
    confidence: Annotated[int, Field(ge=1, le=10)] | None
    """None for a rating, and for nothing else."""
    response_time_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    client: Annotated[dict[Annotated[str, Field(max_length=40)], _Fact], Field(max_length=24)] = {}
    """What the browser measured; `hidden_s` is how long the tab was not to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whoever holds a link."""

    participant_id: str
    study_id: str
    language: str
    link: Literal["valid", "expired", "revoked"]
    is_withdrawn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of an answer."""

    outcome: Literal["stored", "already stored", "refused"]
    feedback: Feedback | None = None
    """After a practice trial only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a reader stands in the schedule; before consent nowhere."""

    last: Facts | None = None
    """The trial that was answered last."""
    current: Facts | None = None
    following: Facts | None = None


def token_digest(token: str) -> str:
    """What is stored instead of a link's token."""
    return hashlib.sha256(token.encode()).hexdigest()


class ReaderStore:
    """The readers' side of a study database."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now
        self._protocols: dict[str, Protocol] = {}
        self._pools: dict[str, Pools] = {}
        self._n_answered: dict[str, int] = {}
        """Where each reader stood when last looked: a guess, which the database confirms."""

    # Who, and what study

    def find_reader(self, token: str) -> Reader | None:
        """Who holds this token, or None."""
        with self._database.read() as connection:
            found = connection.execute(queries.LINK, {"digest": token_digest(token)}).first()
        if found is None:
            return None
        has_expired = datetime.fromisoformat(found.expires_at) <= self._now()
        return Reader(
            participant_id=found.participant_id,
            study_id=found.study_id,
            language=found.language,
            link="revoked" if found.revoked_at else "expired" if has_expired else "valid",
            is_withdrawn=bool(found.withdrawn_at),
        )

    def protocol(self, study_id: str) -> Protocol:
        """The protocol that is in force."""
        with self._database.read() as connection:
            found = connection.execute(queries.PROTOCOL_HASH, {"study_id": study_id}).scalar_one()
            return self._protocol(connection, study_id, found)

    def classes(self, study_id: str) -> tuple[str, ...]:
        """The classes of the study's stimuli, in alphabetical order."""
        with self._database.read() as connection:
            return self._classes(connection, study_id)

    def progress(self, participant_id: str) -> Progress:
        """Where a reader stands."""
        them = {"participant_id": participant_id}
        with self._database.read() as connection:
            reader = connection.execute(queries.READER, them).one()
            milestones = frozenset(connection.execute(queries.MILESTONES, them).scalars())
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            place = self._place(connection, participant_id)
            n_answered = _n_numbered(connection, participant_id, place)
        block = place.current.block_number if place.current is not None else None
        introductions = protocol.words(reader.language).introductions
        return Progress(
            is_open=reader.state == "open",
            has_consented=reader.consented_at is not None,
            asks_background=protocol.conduct.background,
            asks_calibration=protocol.conduct.calibration,
            milestones=milestones,
            n_trials=protocol.n_shown,
            n_answered=n_answered,
            next_block=block,
            has_introduction=block is not None
            and (len(protocol.rounds) > 1 or bool(introductions[block - 1])),
            break_every=protocol.conduct.break_every,
        )

    # On the way to the trials

    def record_consent(self, participant_id: str, language: str) -> None:
        """Store that a reader agreed to the words in this language, and give out the schedule.

        The first time counts. Nothing happens when the study is not open or the reader withdrew.
        """
        with self._database.write() as connection:
            reader = enrolment.lock_study_of(connection, participant_id)
            if reader.consented_at or reader.state != "open" or reader.withdrawn_at:
                return
            now = self._now()
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            words = protocol.words(language).consent_text or ""
            connection.execute(
                insert(consent),
                {
                    "participant_id": participant_id,
                    "consent_version": protocol.consent_version,
                    "text_digest": hashlib.sha256(words.encode()).hexdigest(),
                    "consented_at": now.isoformat(),
                    "language": language,
                },
            )
            if reader.arm is None:  # a reader of the first schema has a schedule from the start
                stimuli = self._stimuli(connection, reader.study_id)
                enrolment.enrol(connection, protocol, stimuli, reader, now=now)
            spoken = {"who": participant_id, "new_language": language}
            connection.execute(queries.SET_LANGUAGE, spoken)

    def set_language(self, participant_id: str, language: str) -> None:
        """Remember in which language a reader goes on."""
        with self._database.write() as connection:
            values = {"who": participant_id, "new_language": language}
            connection.execute(queries.SET_LANGUAGE, values)

    def pass_milestone(
        self, participant_id: str, name: str, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Store that a reader left a page behind, with what was given there; the first counts."""
        them = {"participant_id": participant_id}
        with self._database.write() as connection:
            _locked(connection, participant_id)
            if name not in connection.execute(queries.MILESTONES, them).scalars():
                given = {"name": name, "detail_json": json.dumps(detail or {})}
                at = self._now().isoformat()
                connection.execute(insert(milestone), them | given | {"at": at})

    # Trials

    def present(self, participant_id: str) -> BlindedTrial | None:
        """Show the next unanswered trial under a fresh token, and give out the next one's token.

        None if there is nothing to judge: all is answered, the study is not open, or the reader
        has not agreed or withdrew.
        """
        them = {"participant_id": participant_id}
        with self._database.write() as connection:
            reader = _locked(connection, participant_id)
            place = self._place(connection, participant_id)
            trial, following = place.current, place.following
            if trial is None or not _may_answer(reader):
                return None
            now = self._now()
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            block = protocol.rounds[trial.block_number - 1]
            if following is not None and _comes_a_page(protocol, trial, following):
                following = None
            trial_ids = [one.trial_id for one in (trial, following) if one is not None]
            showings = connection.execute(queries.SHOWINGS, {"trial_ids": trial_ids}).all()
            first_shown = [one.presented_at for one in showings if one.presented_at]
            ahead = {one.trial_id: one.token for one in showings if not one.presented_at}
            made: list[dict[str, str]] = []
            token = ahead.get(trial.trial_id)
            if token is None:
                token = _showing(made, trial, now, presented_at=now.isoformat())
            else:
                connection.execute(queries.PRESENT, {"given": token, "at": now.isoformat()})
            next_token = None
            if following is not None:
                next_token = ahead.get(following.trial_id) or _showing(made, following, now)
            if made:
                connection.execute(insert(presentation), made)
            number, n_trials = trial.trial_number, protocol.n_shown
            if trial.kind == "practice":
                here = {"block_number": trial.block_number, "position": trial.position}
                number = connection.execute(queries.PRACTICE_NUMBER, them | here).scalar_one()
                n_trials = block.n_practice
        exposure_s = block.exposure_s
        if exposure_s is not None and first_shown:
            exposure_s = max(0.0, exposure_s - _seconds(min(first_shown), now))
        return BlindedTrial(
            design=trial.design,
            presentation_token=token,
            next_presentation_token=next_token,
            trial_number=number,
            n_trials=n_trials,
            is_practice=trial.kind == "practice",
            block_number=trial.block_number,
            exposure_s=exposure_s,
            can_undo=_can_undo(protocol, place),
        )

    def image(
        self, participant_id: str, presentation_token: str, side: Literal["left", "right"] | None
    ) -> bytes | None:
        """The picture under a token, of a pair the one on a side.

        None unless it is this reader's trial, the present one or the one given out ahead, and the
        time for which it is shown is not over.
        """
        with self._database.read() as connection:
            found = connection.execute(
                queries.PICTURE[side],
                {"token": presentation_token, "participant_id": participant_id},
            ).first()
            if (
                found is None
                or not _may_answer(found)
                or (side is None) == (found.design == "pair")
            ):
                return None
            protocol = self._protocol(connection, found.study_id, found.protocol_hash)
        exposure_s = protocol.rounds[found.block_number - 1].exposure_s
        is_over = (
            exposure_s is not None
            and found.first_shown_at
            and _seconds(found.first_shown_at, self._now()) > exposure_s + LOADING_S
        )
        return None if is_over else found.png

    def record_response(self, participant_id: str, answer: Answer) -> Recorded:
        """Store an answer once, however often it arrives.

        Which trial it belongs to is looked up here. Refused is an answer to a picture that was
        not shown to this reader or is not the present one's, an answer or a confidence that the
        design does not have, a time longer than passed, and any answer when the study is not open.
        """
        now = self._now()
        with self._database.write() as connection:
            reader = _locked(connection, participant_id)
            shown = connection.execute(
                queries.SHOWN,
                {"token": answer.presentation_token, "participant_id": participant_id},
            ).first()
            if shown is None:
                return Recorded(outcome="refused")
            if shown.is_used or shown.is_answered:
                return Recorded(
                    outcome="already stored", feedback=self._feedback(connection, shown)
                )
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            if (
                not _may_answer(reader)
                or not shown.presented_at
                or not shown.is_next
                or answer.response_time_s > _seconds(shown.presented_at, now) + CLOCK_TOLERANCE_S
                or not self._is_possible(connection, answer, protocol, shown)
            ):
                return Recorded(outcome="refused")
            connection.execute(
                insert(response),
                {
                    "trial_id": shown.trial_id,
                    "revision": shown.n_given + 1,
                    "presentation_token": answer.presentation_token,
                    "response": answer.response,
                    "confidence": answer.confidence,
                    "response_time_s": answer.response_time_s,
                    "responded_at": now.isoformat(),
                    "client_json": json.dumps(answer.client),
                },
            )
            feedback = self._feedback(connection, shown)
            self._n_answered[participant_id] = shown.position
        return Recorded(outcome="stored", feedback=feedback)

    def undo(self, participant_id: str) -> bool:
        """Take back the answer before the present trial, where the protocol allows it.

        Once for each trial, and only within its block: what is said before a block must not
        change an answer that was given without knowing it.
        """
        with self._database.write() as connection:
            reader = _locked(connection, participant_id)
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            place = self._place(connection, participant_id)
            if place.last is None or not _may_answer(reader) or not _can_undo(protocol, place):
                return False
            taken_back = {"trial_id": place.last.trial_id, "revision": 1}
            connection.execute(
                insert(retraction), taken_back | {"retracted_at": self._now().isoformat()}
            )
        return True

    def score(self, participant_id: str) -> tuple[int, int]:
        """How many of the first showings a reader got right, of how many with a truth to find.

        For the last page only, and only if the protocol discloses it: of a reader who has not
        finished, and where nothing is disclosed, no judgement counts.
        """
        with self._database.read() as connection:
            reader = connection.execute(queries.READER, {"participant_id": participant_id}).one()
            protocol = self._protocol(connection, reader.study_id, reader.protocol_hash)
            is_finished = self._place(connection, participant_id).current is None
            if protocol.conduct.disclosure != "score" or not is_finished:
                return 0, 0
            judged = connection.execute(queries.JUDGED, {"participant_id": participant_id}).all()
        n_right = sum(
            given == truth_of(design, is_synthetic, "") for given, design, is_synthetic in judged
        )
        return n_right, len(judged)

    # Behind them

    def _protocol(self, connection: Connection, study_id: str, protocol_hash: str) -> Protocol:
        if protocol_hash not in self._protocols:
            stored = connection.execute(queries.PROTOCOL_JSON, {"study_id": study_id}).scalar_one()
            found = Protocol.model_validate_json(stored)
            self._protocols[found.protocol_hash] = found  # its own: it may be amended meanwhile
            return found
        return self._protocols[protocol_hash]

    def _stimuli(self, connection: Connection, study_id: str) -> Pools:
        if study_id not in self._pools:
            self._pools[study_id] = enrolment.pools(connection, study_id)
        return self._pools[study_id]

    def _classes(self, connection: Connection, study_id: str) -> tuple[str, ...]:
        shown = self._stimuli(connection, study_id).main
        return tuple(sorted({stimulus.class_name for stimulus in shown}))

    def _place(self, connection: Connection, participant_id: str) -> _Place:
        guess = self._n_answered.get(participant_id)
        while True:
            if guess is None:
                guess = connection.execute(
                    queries.N_ANSWERED, {"participant_id": participant_id}
                ).scalar_one()
            values = {"participant_id": participant_id, "first": guess, "last": guess + 2}
            rows = connection.execute(queries.PLACE, values)
            around = {row.position - guess: row for row in rows}
            last, current = around.get(0), around.get(1)
            is_behind = current is not None and current.is_answered
            is_ahead = guess > 0 and (last is None or not last.is_answered)
            if not is_behind and not is_ahead:
                self._n_answered[participant_id] = guess
                return _Place(last=last, current=current, following=around.get(2))
            guess = None

    def _is_possible(
        self, connection: Connection, answer: Answer, protocol: Protocol, shown: Facts
    ) -> bool:
        block = protocol.rounds[shown.block_number - 1]
        if shown.design == "quality":
            ratings = {str(points) for points in range(1, block.rating_points + 1)}
            return answer.response in ratings and answer.confidence is None
        if answer.confidence is None or answer.confidence > protocol.confidence_points:
            return False
        match shown.design:
            case "authenticity":
                return answer.response in ("real", "generated")
            case "pair":
                return answer.response in ("left", "right")
        return answer.response in self._classes(connection, shown.study_id)

    def _feedback(self, connection: Connection, shown: Facts) -> Feedback | None:
        """After practice, of the answer that is stored, whatever was sent since."""
        if shown.kind != "practice" or shown.design == "quality":
            return None
        given, is_synthetic, class_name = connection.execute(
            queries.FEEDBACK, {"trial_id": shown.trial_id}
        ).one()
        truth = truth_of(shown.design, is_synthetic, class_name)
        return Feedback(was_right=given == truth, truth=truth)


def truth_of(design: Design, is_synthetic: bool, class_name: str) -> str:
    """The right answer to a trial, in the words of the answer; empty for a rating.

    Args:
        is_synthetic: of a pair, whether the left one is.
    """
    match design:
        case "authenticity":
            return "generated" if is_synthetic else "real"
        case "pair":
            return "right" if is_synthetic else "left"
        case "classification":
            return class_name
    return ""


def _n_numbered(connection: Connection, participant_id: str, place: _Place) -> int:
    """Answered trials, without practice."""
    if place.last is None or place.last.trial_number is not None:
        return place.last.trial_number if place.last is not None else 0
    values = {"participant_id": participant_id, "position": place.last.position}
    return connection.execute(queries.N_NUMBERED, values).scalar_one()


def _locked(connection: Connection, participant_id: str) -> Facts:
    """The facts about a reader, whom no other transaction serves until this one is over."""
    return connection.execute(queries.LOCKED_READER, {"participant_id": participant_id}).one()


def _may_answer(reader: Facts) -> bool:
    return bool(reader.state == "open" and reader.consented_at and not reader.withdrawn_at)


def _comes_a_page(protocol: Protocol, trial: Facts, following: Facts) -> bool:
    every = protocol.conduct.break_every
    is_break = every is not None and trial.trial_number and trial.trial_number % every == 0
    return bool(is_break or following.block_number != trial.block_number)


def _can_undo(protocol: Protocol, place: _Place) -> bool:
    last, current = place.last, place.current
    if last is None or current is None or not protocol.conduct.undo:
        return False
    is_same_block = last.block_number == current.block_number
    is_first_time = not last.n_retracted and not current.n_retracted
    return last.kind != "practice" and is_same_block and is_first_time


def _showing(
    made: list[dict[str, str]], trial: Facts, now: datetime, presented_at: str = ""
) -> str:
    token = secrets.token_urlsafe(24)
    made.append(
        {
            "token": token,
            "trial_id": trial.trial_id,
            "made_at": now.isoformat(),
            "presented_at": presented_at,
        }
    )
    return token


def _seconds(earlier: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(earlier)) / timedelta(seconds=1)
