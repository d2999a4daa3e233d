"""The tables a new database gets are those the code describes, and a newer database is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from trimtab.domain.errors import Unavailable
from trimtab.store import documents, schema
from trimtab.store.database import Database
from trimtab.store.migrate import config_for, migrate


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield opened
    opened.close()


def test_the_migrations_make_what_the_code_describes(database: Database) -> None:
    migrate(database.engine)
    assert documents.documents.metadata is schema.metadata
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.engine)
    database.write_sync(lambda c: c.execute(text("INSERT INTO users VALUES ('usr_1', 'ada', 1.0)")).rowcount)
    migrate(database.engine)
    assert database.read_sync(lambda c: c.execute(text("SELECT name FROM users")).scalar_one()) == "ada"


def test_the_migrations_can_be_undone(database: Database) -> None:
    migrate(database.engine)
    command.downgrade(config_for(database.engine), "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version", "sqlite_sequence"}


def test_a_database_from_a_newer_trimtab_is_refused_and_not_touched(database: Database) -> None:
    migrate(database.engine)
    database.write_sync(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")).rowcount)
    before = database.read_sync(lambda c: c.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all())
    with pytest.raises(Unavailable, match="newer Trimtab"):
        migrate(database.engine)
    assert database.read_sync(lambda c: c.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all()) == before
