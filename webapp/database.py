"""Where studies are kept: SQLite in one file, or PostgreSQL.

A transaction that writes is on disk before its `with` is left, so what was acknowledged survives
the death of the process and of the machine.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from webapp.errors import WebappError
from webapp.migrations import is_initialised, migrate


def utc_now() -> datetime:
    """The present moment, with its zone."""
    return datetime.now(UTC)


class Database:
    """A place for studies whose schema is the newest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Taking the write lock first: SQLite refuses at once, without waiting, a transaction
        # that read before another one wrote and then wants to write itself.
        self._writer = engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        # Without a transaction PostgreSQL is asked once, not thrice, for what one query knows.
        is_sqlite = engine.dialect.name == "sqlite"
        self._reader = (
            engine if is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        )

    @classmethod
    def create(cls, database_url: str) -> "Database":
        """Open a database, making it or bringing its schema up to date where needed.

        Args:
            database_url: `sqlite:///studies.sqlite3`, or `postgresql://user@host/name`.
        """
        database = cls(_engine(database_url))
        with _closed_on_failure(database._engine), database._writer.begin() as connection:
            migrate(connection)
        return database

    @classmethod
    def open(cls, database_url: str) -> "Database":
        """Open a database that was made already; an older one is brought up to date.

        Raises:
            WebappError: if it is not there, holds no study, or was written by a newer version.
        """
        engine = _engine(database_url)
        path = engine.url.database
        is_file = engine.dialect.name == "sqlite" and path is not None and path != ":memory:"
        if is_file and not Path(str(path)).exists():
            raise _not_initialised(engine)
        with _closed_on_failure(engine), engine.connect() as connection:
            if not is_initialised(connection):
                raise _not_initialised(engine)
        engine.dispose()
        return cls.create(database_url)

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return _without_password(self._engine)

    def read(self) -> Connection:
        """A connection for queries; close it, best by `with`."""
        return self._reader.connect()

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction, on SQLite the only one at its time; on disk when `with` is left."""
        return self._writer.begin()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _engine(database_url: str) -> Engine:
    try:
        url = _with_driver(make_url(database_url))
        options: dict[str, Any] = {}
        if url.database not in (None, "", ":memory:"):
            # None beyond the pool: PostgreSQL takes longer to open one than to answer.
            options = {"pool_size": 20, "max_overflow": 0}
        engine = create_engine(url, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError):
        raise WebappError(
            "the database URL cannot be used; write it like sqlite:///studies.sqlite3, or like "
            "postgresql://reader@localhost/studies with `psycopg` installed."
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _with_driver(url: URL) -> URL:
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


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
        "`python -m webapp create --protocol protocol.toml --stimuli FOLDER --database URL`."
    )


@contextmanager
def _closed_on_failure(engine: Engine) -> Iterator[None]:
    """Leaves no connection behind, and says in one line that a database cannot be reached."""
    try:
        yield
    except OperationalError as error:
        engine.dispose()
        reason = str(error.orig).strip().splitlines()[0]
        raise WebappError(
            f"{_without_password(engine)} cannot be opened ({reason}); check the folder, the "
            "rights, and that the database server runs."
        ) from None
    except BaseException:
        engine.dispose()
        raise
