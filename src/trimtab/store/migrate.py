"""Bring a database's tables up to date, with Alembic. A database from a newer Trimtab is refused, never changed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, exc

from trimtab.domain.errors import Unavailable

from .database import reason_of


def config_for(engine: Engine) -> Config:
    """Alembic's configuration for our migrations, on an engine that is already open."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing; does nothing on an up-to-date database.

    Raises:
        Unavailable: the database was written by a newer Trimtab, is out of reach, or does not let us in.
    """
    config = config_for(engine)
    script = ScriptDirectory.from_config(config)
    current = None
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current == script.get_current_head():
            return
        command.upgrade(config, "head")
    except exc.DBAPIError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise Unavailable(
            f"The database {shown} cannot be opened: {reason_of(error)}. {_mend(engine)}", reason=reason_of(error)
        ) from error
    except CommandError as error:
        raise Unavailable(
            f"This database was written by a newer Trimtab (revision {current}). Upgrade Trimtab, or choose another "
            "TRIMTAB_HOME."
        ) from error


def _mend(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return "Restore a backup of the file (docs/operations.md), or choose another TRIMTAB_HOME."
    return (
        "See that the server runs, that the database exists and that its user may create tables; or mend "
        "`database_url` (TRIMTAB_DATABASE_URL)."
    )
