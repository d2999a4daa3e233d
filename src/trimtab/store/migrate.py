"""Bring a database's tables up to date, with Alembic. A database from a newer Trimtab is refused, never changed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine

from trimtab.domain.errors import Unavailable


def config_for(engine: Engine) -> Config:
    """Alembic's configuration for our migrations, on an engine that is already open."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing; does nothing on an up-to-date database.

    Raises:
        Unavailable: the database was written by a newer Trimtab.
    """
    config = config_for(engine)
    script = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable(
            f"This database was written by a newer Trimtab (revision {current}). Upgrade Trimtab, or choose another "
            "TRIMTAB_HOME."
        ) from error
