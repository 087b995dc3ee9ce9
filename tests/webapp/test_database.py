import pytest
from sqlalchemy import create_engine, inspect, text

from webapp.database import Database
from webapp.errors import WebappError


def test_answers_are_on_disk_before_they_are_acknowledged(database):
    with database.write() as connection:
        if connection.dialect.name == "sqlite":
            facts = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
            for name, value in facts.items():
                assert connection.execute(text(f"PRAGMA {name}")).scalar() == value
        else:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                assert connection.execute(text(f"SHOW {name}")).scalar() == "on"


def test_what_fails_midway_leaves_nothing_behind(database):
    def fail_midway():
        with database.write() as connection:
            connection.execute(text("INSERT INTO researcher VALUES ('eva', 'a$b', 'now')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM researcher")).scalar() == 0


def test_a_database_that_was_made_is_opened(database_url):
    Database.create(database_url).close()
    Database.open(database_url).close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_under_all_its_names(postgresql_url, scheme):
    url = postgresql_url.replace("postgresql", scheme, 1)
    Database.create(url).close()
    Database.open(url).close()


def test_a_database_that_is_not_there_is_not_made_by_opening_it(tmp_path):
    with pytest.raises(WebappError, match="holds no study yet; make one with `python -m webapp"):
        Database.open(f"sqlite:///{tmp_path / 'none.sqlite3'}")
    assert not (tmp_path / "none.sqlite3").exists()


def test_an_empty_database_is_not_a_study(tmp_path):
    (tmp_path / "empty.sqlite3").touch()
    with pytest.raises(WebappError, match="holds no study yet"):
        Database.open(f"sqlite:///{tmp_path / 'empty.sqlite3'}")


def test_an_empty_postgresql_database_is_not_a_study(postgresql_url):
    with pytest.raises(WebappError, match="holds no study yet"):
        Database.open(postgresql_url)
    engine = create_engine(postgresql_url.replace("postgresql", "postgresql+psycopg"))
    assert inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("url", ["studies.sqlite3", "nosuch://x", ""])
def test_a_database_address_that_is_none_is_answered_with_two_examples(url):
    with pytest.raises(WebappError, match=r"sqlite:///studies.sqlite3, or like postgresql"):
        Database.create(url)


def test_a_database_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(WebappError, match=r"cannot be opened .* check the folder"):
        Database.create(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}")


@pytest.mark.parametrize("way", [Database.create, Database.open])
def test_a_server_that_does_not_run_is_said_in_one_line_without_the_password(way):
    with pytest.raises(WebappError, match=r"cannot be opened .* server runs") as refusal:
        way("postgresql://eva:secret@127.0.0.1:1/studies")
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
