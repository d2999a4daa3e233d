"""Bring a database's tables up to date, with Alembic. A database from a newer Trimtab is refused, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, exc, inspect, text

from trimtab.domain.errors import Unavailable

from .database import reason_of

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def config_for(engine: Engine) -> Config:
    """Alembic's configuration for our migrations, on an engine that is already open."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing; does nothing on an up-to-date database.

    Raises:
        Unavailable: the database was written by a newer Trimtab, is out of reach, or does not let us in.
    """
    current = None
    try:
        current = _revision(engine)
        if current == newest():
            return  # nearly always, and without Alembic, whose import takes longer than many a command
        _upgrade(engine, current)
    except exc.DBAPIError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise Unavailable(
            f"The database {shown} cannot be opened: {reason_of(error)}. {_mend(engine)}", reason=reason_of(error)
        ) from error


def newest() -> str:
    """The revision that this Trimtab's tables have: our migrations are numbered, and none branches off."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _revision(engine: Engine) -> str | None:
    """What the database says of itself; None when it is new."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def _upgrade(engine: Engine, current: str | None) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(config_for(engine), "head")
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
