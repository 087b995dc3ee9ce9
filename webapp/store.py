"""The only module with a database session. Responses are inserted, never updated.

Every writing call is one transaction that is on disk before the call returns, so an answer that
was acknowledged survives the death of the process and of the machine.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Engine, create_engine, event, func
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError
from sqlmodel import Session, col, select

from studies.protocol import Protocol
from studies.responses import Response as ResponseRow
from studies.stimuli import Stimulus
from webapp import tables
from webapp.blinding import BlindedTrial
from webapp.errors import WebappError
from webapp.flow import Progress
from webapp.migrations import migrate, schema_version

CLOCK_TOLERANCE_S = 1.0
"""How much longer than the server's own interval a reader's response time may be."""


class Answer(BaseModel):
    """What a browser sends: the judgement, and which showing of the picture it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    presentation_token: str = Field(max_length=64)
    response: Literal["real", "generated"]
    confidence: int = Field(ge=1, le=10)
    response_time_s: float = Field(ge=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whoever holds a valid token."""

    participant_id: str
    study_id: str
    has_expired: bool


def utc_now() -> datetime:
    """The present moment, with its zone."""
    return datetime.now(UTC)


def token_digest(token: str) -> str:
    """What is stored instead of a link's token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Store:
    """A study database: SQLite in one file, or PostgreSQL."""

    def __init__(self, engine: Engine, *, now: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        # Taking the write lock first: SQLite refuses at once, without waiting, a transaction
        # that read before another one wrote and then wants to write itself.
        self._writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        self._now = now

    @classmethod
    def create(cls, database_url: str) -> "Store":
        """Open a database, making it or bringing its schema up to date where needed."""
        engine = _engine(database_url)
        with _said_in_one_line(engine), engine.begin() as connection:
            migrate(connection)
        return cls(engine)

    @classmethod
    def open(cls, database_url: str) -> "Store":
        """Open a database that holds studies already.

        Raises:
            WebappError: if it holds none, or was written by a newer version.
        """
        engine = _engine(database_url)
        path = engine.url.database
        is_file = engine.dialect.name == "sqlite" and path is not None and path != ":memory:"
        if is_file and not Path(str(path)).exists():
            raise _not_initialised(engine)
        with _said_in_one_line(engine), engine.begin() as connection:
            if schema_version(connection) == 0:
                raise _not_initialised(engine)
            migrate(connection)
        return cls(engine)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # A study is made

    def add_study(
        self,
        protocol: Protocol,
        pictures: Sequence[tuple[Stimulus, bytes]],
        schedules: Sequence[Sequence[str]],
        *,
        valid_days: int,
    ) -> dict[str, str]:
        """Enrol one participant for each schedule (stimulus ids in order of showing).

        Returns:
            The token of each participant's link by participant id; only now, for the database
            keeps digests.

        Raises:
            WebappError: if there is a study under this id already.
        """
        now = self._now()
        tokens: dict[str, str] = {}
        with Session(self._writer) as session:
            self._refuse_second(session, protocol)
            session.add(
                tables.Study(
                    study_id=protocol.study_id,
                    protocol_hash=protocol.protocol_hash,
                    protocol_json=protocol.model_dump_json(),
                    created_at=now.isoformat(),
                )
            )
            session.flush()
            for stimulus, png in pictures:
                session.add(
                    tables.Stimulus(
                        study_id=protocol.study_id,
                        stimulus_id=stimulus.stimulus_id,
                        class_name=stimulus.class_name,
                        is_synthetic=stimulus.is_synthetic,
                        png=png,
                    )
                )
            for number in range(1, len(schedules) + 1):
                participant_id = f"{protocol.study_id}-P{number:02d}"
                tokens[participant_id] = secrets.token_urlsafe(32)
                session.add(
                    tables.Participant(
                        participant_id=participant_id,
                        study_id=protocol.study_id,
                        participant_number=number,
                        token_digest=token_digest(tokens[participant_id]),
                        link_expires_at=(now + timedelta(days=valid_days)).isoformat(),
                    )
                )
            session.flush()
            for number, schedule in enumerate(schedules, 1):
                participant_id = f"{protocol.study_id}-P{number:02d}"
                for trial_number, stimulus_id in enumerate(schedule, 1):
                    session.add(
                        tables.Trial(
                            trial_id=f"{participant_id}-T{trial_number:03d}",
                            participant_id=participant_id,
                            study_id=protocol.study_id,
                            stimulus_id=stimulus_id,
                            trial_number=trial_number,
                        )
                    )
            session.commit()
        return tokens

    def refuse_second(self, protocol: Protocol) -> None:
        """Refuse a protocol whose study id is taken."""
        with Session(self._engine) as session:
            self._refuse_second(session, protocol)

    @staticmethod
    def _refuse_second(session: Session, protocol: Protocol) -> None:
        existing = session.get(tables.Study, protocol.study_id)
        if existing is None:
            return
        if existing.protocol_hash == protocol.protocol_hash:
            raise WebappError(
                f"study {protocol.study_id!r} was created already; its links were written then "
                "and only their digests are kept. Use those links, or give the new study another "
                "study_id."
            )
        raise WebappError(
            f"study {protocol.study_id!r} runs under protocol {existing.protocol_hash[:12]}… but "
            f"this file is {protocol.protocol_hash[:12]}…; a frozen protocol cannot be replaced: "
            "give the changed one another study_id."
        )

    # A reader takes it

    def find_reader(self, token: str) -> Reader | None:
        """Who holds this token, or None."""
        with Session(self._engine) as session:
            found = session.exec(
                select(tables.Participant).where(
                    tables.Participant.token_digest == token_digest(token)
                )
            ).first()
        if found is None:
            return None
        return Reader(
            participant_id=found.participant_id,
            study_id=found.study_id,
            has_expired=datetime.fromisoformat(found.link_expires_at) <= self._now(),
        )

    def protocol(self, study_id: str) -> Protocol:
        """The frozen protocol of a study."""
        with Session(self._engine) as session:
            found = session.get_one(tables.Study, study_id)
        return Protocol.model_validate_json(found.protocol_json)

    def progress(self, participant_id: str) -> Progress:
        """How far a reader is."""
        with Session(self._engine) as session:
            return _progress(session, participant_id)

    def record_consent(self, participant_id: str, protocol: Protocol) -> None:
        """Store that a reader agreed to the protocol's consent text; the first time counts."""
        with Session(self._writer) as session:
            if session.get(tables.Consent, participant_id) is None:
                session.add(
                    tables.Consent(
                        participant_id=participant_id,
                        consent_version=protocol.consent_version,
                        text_digest=hashlib.sha256(protocol.consent_text.encode()).hexdigest(),
                        consented_at=self._now().isoformat(),
                    )
                )
                session.commit()

    def present_next(self, participant_id: str) -> BlindedTrial | None:
        """Show the reader's next unanswered trial under a fresh token; None if all are answered."""
        with Session(self._writer) as session:
            trial = _current_trial(session, participant_id)
            if trial is None:
                return None
            token = secrets.token_urlsafe(24)
            session.add(
                tables.Presentation(
                    token=token, trial_id=trial.trial_id, presented_at=self._now().isoformat()
                )
            )
            blinded = BlindedTrial(
                presentation_token=token,
                trial_number=trial.trial_number,
                n_trials=_progress(session, participant_id).n_trials,
            )
            session.commit()
        return blinded

    def image(self, participant_id: str, presentation_token: str) -> bytes | None:
        """The picture shown under a token; None unless it is this reader's and still to judge."""
        with Session(self._engine) as session:
            trial = _current_trial(session, participant_id)
            presentation = session.get(tables.Presentation, presentation_token)
            if trial is None or presentation is None or presentation.trial_id != trial.trial_id:
                return None
            return session.exec(
                select(tables.Stimulus.png).where(
                    tables.Stimulus.study_id == trial.study_id,
                    tables.Stimulus.stimulus_id == trial.stimulus_id,
                )
            ).one()

    def record_response(
        self, participant_id: str, answer: Answer, *, confidence_points: int
    ) -> Literal["stored", "already stored", "refused"]:
        """Store an answer once, however often it arrives.

        Which trial it belongs to is looked up here. Refused is an answer to a picture that was
        not shown to this reader, a confidence beyond the scale, or a time longer than passed.
        """
        now = self._now()
        with Session(self._writer) as session:
            shown = session.exec(
                select(tables.Presentation, tables.Trial)
                .join(tables.Trial, col(tables.Presentation.trial_id) == col(tables.Trial.trial_id))
                .where(
                    tables.Presentation.token == answer.presentation_token,
                    tables.Trial.participant_id == participant_id,
                )
            ).first()
            if shown is None or answer.confidence > confidence_points:
                return "refused"
            presentation, trial = shown
            if session.get(tables.Response, trial.trial_id) is not None:
                return "already stored"
            passed_s = (now - datetime.fromisoformat(presentation.presented_at)).total_seconds()
            if answer.response_time_s > passed_s + CLOCK_TOLERANCE_S:
                return "refused"
            session.add(
                tables.Response(
                    trial_id=trial.trial_id,
                    presentation_token=presentation.token,
                    response=answer.response,
                    confidence=answer.confidence,
                    response_time_s=answer.response_time_s,
                    responded_at=now.isoformat(),
                )
            )
            try:
                session.commit()
            except IntegrityError:  # PostgreSQL: the same click, twice at the same moment
                return "already stored"
        return "stored"

    # An analyst exports it

    def study_ids(self) -> list[str]:
        """All studies of the database."""
        with Session(self._engine) as session:
            return list(session.exec(select(tables.Study.study_id).order_by("study_id")))

    def responses(self, study_id: str) -> Iterator[ResponseRow]:
        """All answers of a study, with their truth, by participant and trial."""
        with Session(self._engine) as session:
            study = session.get_one(tables.Study, study_id)
            stimuli = select(
                tables.Stimulus.stimulus_id,
                tables.Stimulus.class_name,
                tables.Stimulus.is_synthetic,
            ).where(tables.Stimulus.study_id == study_id)
            truths = {found: (name, truth) for found, name, truth in session.exec(stimuli)}
            answered = (
                select(tables.Trial, tables.Response, tables.Presentation)
                .join(tables.Response, col(tables.Response.trial_id) == col(tables.Trial.trial_id))
                .join(
                    tables.Presentation,
                    col(tables.Presentation.token) == col(tables.Response.presentation_token),
                )
                .join(
                    tables.Participant,
                    col(tables.Participant.participant_id) == col(tables.Trial.participant_id),
                )
                .where(tables.Trial.study_id == study_id)
                .order_by(
                    col(tables.Participant.participant_number), col(tables.Trial.trial_number)
                )
            )
            for trial, response, presentation in session.exec(answered):
                class_name, is_synthetic = truths[trial.stimulus_id]
                yield ResponseRow.model_validate(
                    {
                        "study_id": study_id,
                        "protocol_hash": study.protocol_hash,
                        "participant_id": trial.participant_id,
                        "trial_id": trial.trial_id,
                        "trial_number": trial.trial_number,
                        "stimulus_id": trial.stimulus_id,
                        "class_name": class_name,
                        "is_synthetic": is_synthetic,
                        "response": response.response,
                        "confidence": response.confidence,
                        "response_time_s": response.response_time_s,
                        "presented_at": presentation.presented_at,
                        "responded_at": response.responded_at,
                    }
                )


def _current_trial(session: Session, participant_id: str) -> tables.Trial | None:
    return session.exec(
        select(tables.Trial)
        .outerjoin(tables.Response, col(tables.Response.trial_id) == col(tables.Trial.trial_id))
        .where(
            tables.Trial.participant_id == participant_id,
            col(tables.Response.trial_id).is_(None),
        )
        .order_by(col(tables.Trial.trial_number))
        .limit(1)
    ).first()


def _progress(session: Session, participant_id: str) -> Progress:
    trials = select(tables.Trial.trial_id).where(tables.Trial.participant_id == participant_id)
    n_trials = session.exec(
        select(func.count())
        .select_from(tables.Trial)
        .where(tables.Trial.participant_id == participant_id)
    ).one()
    n_answered = session.exec(
        select(func.count())
        .select_from(tables.Response)
        .where(col(tables.Response.trial_id).in_(trials))
    ).one()
    shown = session.exec(
        select(tables.Presentation.token)
        .where(col(tables.Presentation.trial_id).in_(trials))
        .limit(1)
    ).first()
    return Progress(
        has_consented=session.get(tables.Consent, participant_id) is not None,
        has_begun=shown is not None,
        n_trials=n_trials,
        n_answered=n_answered,
    )


def _engine(database_url: str) -> Engine:
    try:
        url = make_url(database_url)
        options: Mapping[str, Any] = {}
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            options = {"pool_size": 10, "max_overflow": 40}
        engine = create_engine(url, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError):
        raise WebappError(
            "the database URL cannot be used; write it like sqlite:///studies.sqlite3, or like "
            "postgresql+psycopg://reader@localhost/studies with `psycopg` installed."
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = (
        None  # the driver shall not begin transactions; `_begin_sqlite` does
    )
    for pragma in (
        "busy_timeout = 10000",
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit is on disk before the reader hears of it
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _without_password(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _not_initialised(engine: Engine) -> WebappError:
    return WebappError(
        f"{_without_password(engine)} holds no study yet; make one with "
        "`python -m webapp create --protocol protocol.toml --stimuli FOLDER --database URL "
        "--links links.txt`."
    )


@contextmanager
def _said_in_one_line(engine: Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise WebappError(
            f"{_without_password(engine)} cannot be opened ({reason}); check the folder, the "
            "rights, and that the database server runs."
        ) from None
