"""What is stored: one class for each table, as `migrations.py` makes it.

Instants are ISO 8601 text in UTC, which sorts by time and is the same in every database. Keys are
text too: `first-light-P03` is a participant, `first-light-P03-T012` a trial of theirs.
"""

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, UniqueConstraint
from sqlmodel import Field, SQLModel


class Study(SQLModel, table=True):
    """A frozen protocol."""

    study_id: str = Field(primary_key=True)
    protocol_hash: str
    protocol_json: str
    created_at: str


class Stimulus(SQLModel, table=True):
    """A picture and its truth. Only the picture is ever read while readers are at work."""

    study_id: str = Field(primary_key=True, foreign_key="study.study_id")
    stimulus_id: str = Field(primary_key=True)
    class_name: str
    is_synthetic: bool
    png: bytes


class Participant(SQLModel, table=True):
    """A reader under a code. The link's token is not kept, only its SHA-256."""

    __table_args__ = (
        UniqueConstraint("study_id", "participant_number"),
        CheckConstraint("participant_number >= 1"),
    )

    participant_id: str = Field(primary_key=True)
    study_id: str = Field(foreign_key="study.study_id")
    participant_number: int
    token_digest: str = Field(unique=True)
    link_expires_at: str


class Consent(SQLModel, table=True):
    """That a reader agreed, when, and to which words."""

    participant_id: str = Field(primary_key=True, foreign_key="participant.participant_id")
    consent_version: str
    text_digest: str
    consented_at: str


class Trial(SQLModel, table=True):
    """One place in a reader's schedule, which is stored whole at enrolment."""

    __table_args__ = (
        UniqueConstraint("participant_id", "trial_number"),
        ForeignKeyConstraint(
            ["study_id", "stimulus_id"], ["stimulus.study_id", "stimulus.stimulus_id"]
        ),
        CheckConstraint("trial_number >= 1"),
    )

    trial_id: str = Field(primary_key=True)
    participant_id: str = Field(foreign_key="participant.participant_id")
    study_id: str
    stimulus_id: str
    trial_number: int


class Presentation(SQLModel, table=True):
    """One showing of a trial; a reload is another one, under another image address."""

    token: str = Field(primary_key=True)
    trial_id: str = Field(foreign_key="trial.trial_id", index=True)
    presented_at: str


class Response(SQLModel, table=True):
    """The answer to a trial: inserted once, never changed. One row for each trial, by its key."""

    __table_args__ = (
        CheckConstraint("response IN ('real', 'generated')"),
        CheckConstraint("confidence BETWEEN 1 AND 10"),
        CheckConstraint("response_time_s >= 0"),
    )

    trial_id: str = Field(primary_key=True, foreign_key="trial.trial_id")
    presentation_token: str = Field(unique=True, foreign_key="presentation.token")
    response: str
    confidence: int
    response_time_s: float
    responded_at: str
