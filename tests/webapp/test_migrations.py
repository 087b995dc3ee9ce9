import re
import secrets
from contextlib import contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from studies.stimuli import read_stimuli
from tests.webapp.studies_at_hand import Clock, protocol, take
from webapp.database import Database
from webapp.errors import WebappError
from webapp.flow import Page, page_of
from webapp.registry import Registry
from webapp.store import ReaderStore, token_digest

FIRST_LIGHT = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    """CREATE TABLE study (
        study_id TEXT NOT NULL PRIMARY KEY,
        protocol_hash TEXT NOT NULL,
        protocol_json TEXT NOT NULL,
        created_at TEXT NOT NULL
    )""",
    """CREATE TABLE stimulus (
        study_id TEXT NOT NULL REFERENCES study (study_id),
        stimulus_id TEXT NOT NULL,
        class_name TEXT NOT NULL,
        is_synthetic BOOLEAN NOT NULL,
        png BLOB NOT NULL,
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
)
"""The statements of the first version, as studies were made with them."""

LATER = "2030-01-01T00:00:00+00:00"


def at(second):
    return f"2026-01-31T09:00:{second:02d}+00:00"


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request, tmp_path):
    """Makes an empty place."""
    if request.param == "postgresql":
        return request.getfixturevalue("new_postgresql")
    return lambda: f"sqlite:///{tmp_path / secrets.token_hex(4)}.sqlite3"


@pytest.fixture
def first_light(new_url, stimuli):
    """A database of the first version: one reader answered twice, one agreed, one did nothing."""
    url, chosen = new_url(), read_stimuli(stimuli)
    plan = protocol("old", n_participants=3)
    with connected(url) as connection:

        def insert(table, *values):
            names = [f"v{number}" for number in range(len(values))]
            statement = f"INSERT INTO {table} VALUES ({', '.join(f':{name}' for name in names)})"
            connection.execute(text(statement), dict(zip(names, values, strict=True)))

        picture = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
        for statement in FIRST_LIGHT:
            connection.execute(text(statement.replace("BLOB", picture)))
        insert("schema_version", 1)
        insert("study", "old", plan.protocol_hash, plan.model_dump_json(), at(0))
        for one in chosen:
            png = (stimuli / one.file).read_bytes()
            insert("stimulus", "old", one.stimulus_id, one.class_name, one.is_synthetic, png)
        for number in (1, 2, 3):
            who = f"old-P{number:02d}"
            insert("participant", who, "old", number, token_digest(f"token {number}"), LATER)
            for place, one in enumerate(chosen, 1):
                insert("trial", f"{who}-T{place:03d}", who, "old", one.stimulus_id, place)
        for number in (1, 2):
            insert("consent", f"old-P{number:02d}", "1", "ab" * 32, at(1))
        for place, given in enumerate(("real", "generated"), 1):
            trial_id, token = f"old-P01-T{place:03d}", f"shown {place}"
            insert("presentation", token, trial_id, at(10 * place))
            insert("response", trial_id, token, given, place, 1.5, at(10 * place + 3))
    return url


@contextmanager
def connected(url):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def described(connection):
    """Keys and checks of all tables, which Alembic's own comparison leaves out."""
    inspector = inspect(connection)
    return {
        table: {
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": {
                (tuple(key["constrained_columns"]), key["referred_table"])
                for key in inspector.get_foreign_keys(table)
            },
            "unique": {
                tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(table)
            },
            "checks": {
                re.sub(r"[\s()]", "", check["sqltext"])
                for check in inspector.get_check_constraints(table)
            },
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


@pytest.mark.parametrize("origin", ["nothing", "first light"])
def test_the_migrated_schema_is_the_one_that_the_tables_declare(new_url, origin, request):
    url = request.getfixturevalue("first_light") if origin == "first light" else new_url()
    Database.create(url).close()
    with connected(url) as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, SQLModel.metadata) == []
        migrated = described(connection)
    with connected(new_url()) as connection:
        SQLModel.metadata.create_all(connection)
        declared = described(connection)
    assert migrated == declared
    assert sum(len(table["checks"]) for table in declared.values()) == 8
    assert sum(len(table["unique"]) for table in declared.values()) == 3


def test_a_study_of_the_first_version_goes_on_where_it_stopped(first_light):
    clock = Clock()
    database = Database.open(first_light)
    store = ReaderStore(database, clock)
    reader = store.find_reader("token 1")
    assert (reader.participant_id, reader.link, reader.is_withdrawn) == ("old-P01", "valid", False)
    progress = store.progress("old-P01")
    assert page_of(progress) is Page.TRIAL
    assert (progress.n_answered, progress.n_trials) == (2, 12)
    assert page_of(store.progress("old-P02")) is Page.INSTRUCTIONS
    assert page_of(store.progress("old-P03")) is Page.CONSENT
    trial, recorded = take(store, "old-P01", clock, n=1)[0]
    assert (trial.trial_number, recorded.outcome) == (3, "stored")
    store.record_consent("old-P03", "en")
    assert store.present("old-P03").trial_number == 1
    assert len(take(store, "old-P03", clock)) == 12, "the schedule of its creation"
    database.close()


def test_all_answers_of_the_first_version_are_kept_as_they_were(first_light, stimuli):
    clock = Clock()
    database = Database.open(first_light)
    registry = Registry(database, clock)
    assert registry.verify("old") == []
    assert [(one.kind, one.at) for one in registry.events("old")] == [("migrated", at(0))]
    registry.close("old")
    registry.unblind("old", "all have answered")
    rows = list(registry.responses("old", design="authenticity"))
    assert [
        (row.trial_id, row.response, row.confidence, row.response_time_s, row.presented_at)
        for row in rows
    ] == [
        ("old-P01-T001", "real", 1, 1.5, at(10)),
        ("old-P01-T002", "generated", 2, 1.5, at(20)),
    ]
    assert [row.responded_at for row in rows] == [at(13), at(23)]
    truths = {one.stimulus_id: one.is_synthetic for one in read_stimuli(stimuli)}
    assert all(row.is_synthetic is truths[row.stimulus_id] for row in rows)
    assert registry.verify("old") == []
    database.close()


def test_opening_again_changes_nothing(first_light):
    Database.open(first_light).close()
    with connected(first_light) as connection:
        before = connection.execute(text("SELECT * FROM response ORDER BY trial_id")).all()
    Database.open(first_light).close()
    with connected(first_light) as connection:
        assert connection.execute(text("SELECT * FROM response ORDER BY trial_id")).all() == before
        versions = connection.execute(text("SELECT version_num FROM alembic_version")).all()
    assert versions == [("0002",)]


def test_a_migration_that_fails_leaves_the_database_as_it_was(first_light):
    with connected(first_light) as connection:
        connection.execute(text("CREATE TABLE event (study_id TEXT)"))  # in the way of 0002
    with pytest.raises((DBAPIError, WebappError), match="event"):
        Database.open(first_light)
    with connected(first_light) as connection:
        assert connection.execute(text("SELECT count(*) FROM response")).scalar() == 2
        assert connection.execute(text("SELECT version FROM schema_version")).scalar() == 1
        assert not inspect(connection).has_table("old_study")


@pytest.mark.parametrize("way", [Database.create, Database.open])
def test_a_database_of_a_newer_version_is_refused_with_advice(new_url, way):
    url = new_url()
    Database.create(url).close()
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    with pytest.raises(WebappError, match="schema 0099, this version knows 0002; run the newer"):
        way(url)
