import re
import sqlite3

import pytest
from sqlalchemy import UniqueConstraint, create_engine, inspect
from sqlalchemy.schema import CheckConstraint
from sqlmodel import SQLModel

from webapp import tables  # noqa: F401  (registers the tables)
from webapp.errors import WebappError
from webapp.migrations import MIGRATIONS, migrate
from webapp.store import Store


def described(inspector, table):
    """A table as plain values: columns, keys, uniques, and checks without their spacing."""
    return {
        "columns": {
            (column["name"], bool(column["nullable"])) for column in inspector.get_columns(table)
        },
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
        "indexes": {
            tuple(index["column_names"])
            for index in inspector.get_indexes(table)
            if not index["name"].startswith("sqlite_autoindex")
        },
    }


def test_the_migrated_schema_is_the_one_that_the_tables_declare(tmp_path):
    migrated = create_engine(f"sqlite:///{tmp_path / 'migrated.sqlite3'}")
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.sqlite3'}")
    with migrated.begin() as connection:
        migrate(connection)
    ours = [table for table in SQLModel.metadata.sorted_tables if table.name in _names()]
    SQLModel.metadata.create_all(declared, tables=ours)
    found = inspect(migrated)
    assert set(found.get_table_names()) == _names() | {"schema_version"}
    for table in _names():
        assert described(found, table) == described(inspect(declared), table), table
    assert any(isinstance(rule, CheckConstraint) for table in ours for rule in table.constraints)
    assert any(isinstance(rule, UniqueConstraint) for table in ours for rule in table.constraints)
    migrated.dispose()
    declared.dispose()


def _names():
    return {"study", "stimulus", "participant", "consent", "trial", "presentation", "response"}


def test_migrating_twice_changes_nothing(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'twice.sqlite3'}")
    for _ in range(2):
        with engine.begin() as connection:
            assert migrate(connection) == len(MIGRATIONS)
    with engine.connect() as connection:
        versions = connection.exec_driver_sql("SELECT version FROM schema_version").all()
    assert versions == [(number,) for number in range(1, len(MIGRATIONS) + 1)]
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_with_advice(tmp_path):
    url = f"sqlite:///{tmp_path / 'newer.sqlite3'}"
    Store.create(url).close()
    with sqlite3.connect(tmp_path / "newer.sqlite3") as connection:
        connection.execute("INSERT INTO schema_version VALUES (99)")
    connection.close()
    with pytest.raises(WebappError, match="run the newer version"):
        Store.open(url)
