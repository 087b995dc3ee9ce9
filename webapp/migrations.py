"""The schema's history: numbered functions, each run once, in order, in one transaction.

A function here is never edited once it has run on a study: the next change is the next function.
"""

from collections.abc import Callable

from sqlalchemy import Connection, inspect, text

from webapp.errors import WebappError


def migrate(connection: Connection) -> int:
    """Bring the database to the newest schema and return its number; never drops data.

    Raises:
        WebappError: if the database was written by a newer version.
    """
    connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)"))
    version = schema_version(connection)
    if version > len(MIGRATIONS):
        raise WebappError(
            f"the database has schema {version}, this version knows {len(MIGRATIONS)}; "
            "run the newer version of Cytoverity that wrote it."
        )
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        migration(connection)
        connection.execute(text("INSERT INTO schema_version VALUES (:number)"), {"number": number})
    return len(MIGRATIONS)


def schema_version(connection: Connection) -> int:
    """How many migrations the database has seen; 0 if it holds no study."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    newest = connection.execute(text("SELECT MAX(version) FROM schema_version")).scalar()
    return int(newest or 0)


def _001_first_schema(connection: Connection) -> None:
    picture = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
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
        connection.execute(text(statement))


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_001_first_schema,)
