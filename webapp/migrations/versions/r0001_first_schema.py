"""The first schema: one design, one link for each reader, the schedule stored at creation."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of first light."""
    picture = "BYTEA" if op.get_bind().dialect.name == "postgresql" else "BLOB"
    for statement in (
        """CREATE TABLE study (
            study_id TEXT NOT NULL PRIMARY KEY,
            protocol_hash TEXT NOT NULL,
            protocol_json TEXT NOT NULL,
            created_at TEXT NOT NULL
        )""",
        f"""CREATE TABLE stimulus (
            study_id TEXT NOT NULL REFERENCES study (study_id),
            stimulus_id TEXT NOT NULL,
            class_name TEXT NOT NULL,
            is_synthetic BOOLEAN NOT NULL,
            png {picture} NOT NULL,
            PRIMARY KEY (study_id, stimulus_id)
        )""",
        """CREATE TABLE participant (
            participant_id TEXT NOT NULL PRIMARY KEY,
            study_id TEXT NOT NULL REFERENCES study (study_id),
            participant_number INTEGER NOT NULL CHECK (participant_number >= 1),
            token_digest TEXT NOT NULL UNIQUE,
            link_expires_at TEXT NOT NULL,
            UNIQUE (study_id, participant_number)
        )""",
        """CREATE TABLE consent (
            participant_id TEXT NOT NULL PRIMARY KEY REFERENCES participant (participant_id),
            consent_version TEXT NOT NULL,
            text_digest TEXT NOT NULL,
            consented_at TEXT NOT NULL
        )""",
        """CREATE TABLE trial (
            trial_id TEXT NOT NULL PRIMARY KEY,
            participant_id TEXT NOT NULL REFERENCES participant (participant_id),
            study_id TEXT NOT NULL,
            stimulus_id TEXT NOT NULL,
            trial_number INTEGER NOT NULL CHECK (trial_number >= 1),
            UNIQUE (participant_id, trial_number),
            FOREIGN KEY (study_id, stimulus_id) REFERENCES stimulus (study_id, stimulus_id)
        )""",
        """CREATE TABLE presentation (
            token TEXT NOT NULL PRIMARY KEY,
            trial_id TEXT NOT NULL REFERENCES trial (trial_id),
            presented_at TEXT NOT NULL
        )""",
        "CREATE INDEX ix_presentation_trial_id ON presentation (trial_id)",
        """CREATE TABLE response (
            trial_id TEXT NOT NULL PRIMARY KEY REFERENCES trial (trial_id),
            presentation_token TEXT NOT NULL UNIQUE REFERENCES presentation (token),
            response TEXT NOT NULL CHECK (response IN ('real', 'generated')),
            confidence INTEGER NOT NULL CHECK (confidence BETWEEN 1 AND 10),
            response_time_s DOUBLE PRECISION NOT NULL CHECK (response_time_s >= 0),
            responded_at TEXT NOT NULL
        )""",
    ):
        op.execute(statement)
