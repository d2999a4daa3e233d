"""The database of an installation, opened with its tables brought up to date."""

from __future__ import annotations

from trimtab.settings import Settings
from trimtab.store import people
from trimtab.store.database import Database
from trimtab.store.migrate import migrate

LOCAL_USER = "local"


def open_database(settings: Settings) -> Database:
    """The database with its tables brought up to date."""
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.home.chmod(0o700)
    database = Database(settings.database)
    try:
        migrate(database.engine)
    except BaseException:
        database.close()
        raise
    return database


def own_database(settings: Settings) -> tuple[Database, str]:
    """The database and this machine's user."""
    database = open_database(settings)
    return database, database.write_sync(people.ensure_user, LOCAL_USER)
