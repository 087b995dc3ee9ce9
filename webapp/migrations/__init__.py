"""The schema's history, kept by Alembic: a version that has run on a study is never edited."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from webapp.errors import WebappError


def is_initialised(connection: Connection) -> bool:
    """Whether the database was made by this part, in whatever version."""
    found = inspect(connection)
    return found.has_table("alembic_version") or found.has_table("schema_version")


def migrate(connection: Connection) -> None:
    """Bring the database to the newest schema; never drops data.

    Raises:
        WebappError: if the database was written by a newer version.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent))
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None and inspect(connection).has_table("schema_version"):
        command.stamp(config, "0001")  # made before Alembic kept the history
    elif current is not None and current not in {
        known.revision for known in script.walk_revisions()
    }:
        raise WebappError(
            f"the database has schema {current}, this version knows "
            f"{script.get_current_head()}; run the newer version of Cytoverity that wrote it."
        )
    command.upgrade(config, "head")
