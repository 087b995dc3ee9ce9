"""What is stored: one class for each table, as `migrations/` makes it.

Instants are ISO 8601 text in UTC, which sorts by time and is the same in every database. Keys are
text too: `first-light-P03` is a participant, `first-light-P03-T012` a trial of theirs.
"""

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, UniqueConstraint
from sqlmodel import Field, SQLModel


class Study(SQLModel, table=True):
    """A study and the protocol that is in force. What happened to it is in `Event`."""

    study_id: str = Field(primary_key=True)
    protocol_hash: str
    protocol_json: str
    created_at: str
    state: str = "draft"
    """draft, audited, frozen, open, closed, unblinded or reported."""
    frozen_hash: str = ""
    """Of protocol, stimuli, allocation and analysis plan together; empty until frozen."""
    audit_json: str = ""
    """The blinding audit's report; empty until audited."""


class Event(SQLModel, table=True):
    """Something that was done to a study: never changed, chained by hashes."""

    study_id: str = Field(primary_key=True, foreign_key="study.study_id")
    number: int = Field(primary_key=True)
    """From 1, without a gap."""
    at: str
    actor: str
    kind: str
    detail_json: str
    previous_hash: str
    event_hash: str


class Stimulus(SQLModel, table=True):
    """A picture and its truth. Only the picture is ever read while readers are at work."""

    __table_args__ = (CheckConstraint("pool IN ('main', 'practice', 'attention')"),)

    study_id: str = Field(primary_key=True, foreign_key="study.study_id")
    stimulus_id: str = Field(primary_key=True)
    class_name: str
    is_synthetic: bool
    png: bytes
    pool: str = "main"
    source_digest: str = ""
    generator_digest: str = ""
    seed: int | None = None


class Participant(SQLModel, table=True):
    """A reader under a code."""

    __table_args__ = (
        UniqueConstraint("study_id", "participant_number"),
        CheckConstraint("participant_number >= 1"),
    )

    participant_id: str = Field(primary_key=True)
    study_id: str = Field(foreign_key="study.study_id")
    participant_number: int
    label: str = ""
    """What the researcher calls the reader; never exported."""
    language: str = "en"
    arm: int | None = None
    """Which order of the blocks; given at consent, together with the whole schedule."""
    is_bot: bool = False
    """Scripted readers of a dry run do not count for the balance and are not exported."""
    withdrawn_at: str = ""


class Link(SQLModel, table=True):
    """A personal link. Its token is not kept, only the SHA-256; a reissue adds another."""

    token_digest: str = Field(primary_key=True)
    participant_id: str = Field(foreign_key="participant.participant_id", index=True)
    issued_at: str
    expires_at: str
    revoked_at: str = ""


class Consent(SQLModel, table=True):
    """That a reader agreed, when, and to which words."""

    participant_id: str = Field(primary_key=True, foreign_key="participant.participant_id")
    consent_version: str
    text_digest: str
    consented_at: str
    language: str = "en"


class Milestone(SQLModel, table=True):
    """A page that a reader has left behind, with what was given there.

    `background` and `calibration` hold their answers, `instructions`, `block-2` and `break-40`
    nothing. The first time counts.
    """

    participant_id: str = Field(primary_key=True, foreign_key="participant.participant_id")
    name: str = Field(primary_key=True)
    at: str
    detail_json: str = "{}"


class Trial(SQLModel, table=True):
    """One place in a reader's schedule, which is stored whole at enrolment."""

    __table_args__ = (
        UniqueConstraint("participant_id", "position"),
        ForeignKeyConstraint(
            ["study_id", "stimulus_id"], ["stimulus.study_id", "stimulus.stimulus_id"]
        ),
        ForeignKeyConstraint(
            ["study_id", "second_stimulus_id"], ["stimulus.study_id", "stimulus.stimulus_id"]
        ),
        CheckConstraint("position >= 1"),
        CheckConstraint("kind IN ('main', 'repeat', 'attention', 'practice')"),
        CheckConstraint("design IN ('authenticity', 'pair', 'classification', 'quality')"),
    )

    trial_id: str = Field(primary_key=True)
    participant_id: str = Field(foreign_key="participant.participant_id")
    study_id: str
    position: int
    """From 1, over the whole study, practice too."""
    trial_number: int | None
    """From 1, without practice; None for practice."""
    block_number: int = 1
    """As the protocol numbers its blocks, from 1, whatever the order in which they are shown."""
    design: str = "authenticity"
    kind: str = "main"
    stimulus_id: str
    """Of a pair: the left one."""
    second_stimulus_id: str | None = None
    repeats_position: int | None = None
    """Of a repeat: where the same was shown first."""


class Presentation(SQLModel, table=True):
    """One showing of a trial; a reload is another one, under other image addresses."""

    token: str = Field(primary_key=True)
    trial_id: str = Field(foreign_key="trial.trial_id", index=True)
    made_at: str
    """When the token was given out; the next trial's is given out ahead, for preloading."""
    presented_at: str = ""
    """When the page with it was sent; empty while it is only being preloaded."""


class Response(SQLModel, table=True):
    """An answer to a trial: inserted once, never changed. Taken back, the next one is a new row."""

    __table_args__ = (
        CheckConstraint("confidence BETWEEN 1 AND 10"),
        CheckConstraint("response_time_s >= 0"),
        CheckConstraint("revision >= 1"),
    )

    trial_id: str = Field(primary_key=True, foreign_key="trial.trial_id")
    revision: int = Field(primary_key=True, default=1)
    presentation_token: str = Field(unique=True, foreign_key="presentation.token")
    response: str
    """real, generated; left, right (the real one of a pair); a class; a rating as a number."""
    confidence: int | None
    """None where only a rating is asked."""
    response_time_s: float
    responded_at: str
    client_json: str = "{}"
    """What the browser measured: seconds the tab was hidden, screen, zoom."""


class Retraction(SQLModel, table=True):
    """An answer that its reader took back; both stay stored."""

    __table_args__ = (
        ForeignKeyConstraint(["trial_id", "revision"], ["response.trial_id", "response.revision"]),
    )

    trial_id: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    retracted_at: str


class Researcher(SQLModel, table=True):
    """Who may log in to the admin app."""

    name: str = Field(primary_key=True)
    password_scrypt: str
    """`salt$hash`, hex."""
    created_at: str
