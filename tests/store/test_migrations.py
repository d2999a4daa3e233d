"""The tables a new database gets are those the code describes, and a newer database is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from trimtab.domain.errors import Unavailable
from trimtab.store import alignment, documents, schema
from trimtab.store.database import Database
from trimtab.store.migrate import config_for, migrate, newest


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield opened
    opened.close()


def test_the_migrations_make_what_the_code_describes(database: Database) -> None:
    migrate(database.engine)
    assert documents.documents.metadata is alignment.versions.metadata is schema.metadata
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_the_newest_migration_by_its_number_is_alembics_head(database: Database) -> None:
    assert ScriptDirectory.from_config(config_for(database.engine)).get_heads() == [newest()]


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


def test_feedback_from_before_labels_is_about_being_helpful_and_survives_both_ways(database: Database) -> None:
    config = config_for(database.engine)
    command.upgrade(config, "0001")
    given = "'f1', 'usr_1', 'm1', 'thumb', 1, 'clear', '', '', 'abc', 1.0, 1.0"
    before = [
        "INSERT INTO users VALUES ('usr_1', 'ada', 1.0)",
        "INSERT INTO threads (id, owner_id, title, created_at, updated_at) VALUES ('t1', 'usr_1', 'x', 1.0, 1.0)",
        "INSERT INTO messages (id, thread_id, role, text, text_digest, status, citations, usage, timing, lineage,"
        " created_at) VALUES ('m1', 't1', 'assistant', 'hi', 'abc', 'done', '[]', '{}', '{}', '{}', 1.0)",
        f"INSERT INTO feedback VALUES ({given})",
    ]
    with database.engine.begin() as connection:
        for statement in before:
            connection.execute(text(statement))
    command.upgrade(config, "head")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT reason, label, consent FROM feedback")).one() == ("clear", "helpful", 1)
    command.downgrade(config, "0001")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT id, reason, value FROM feedback")).one() == ("f1", "clear", 1)
