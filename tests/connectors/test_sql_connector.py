"""A database of one's own, asked through the toolbox: it reads, and nothing makes it do more."""

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from postgresql import PASSWORD, PostgreSQL
from trimtab.connect import ConnectOptions, Override, Toolbox, ToolError
from trimtab_connectors import sql
from trimtab_connectors.one_select import NotOneSelect, one_select


def toolbox_for(secret: Any = lambda name: None, **options: str) -> Toolbox:
    toolbox = Toolbox(ConnectOptions(overrides={"sql": Override(options=options)}, secret=secret))
    toolbox.add(sql.connector)
    return toolbox


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "the harbour's #1.db"
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE ships(id INTEGER PRIMARY KEY, name TEXT, length REAL, plan BLOB);"
            "INSERT INTO ships VALUES (1, 'Adler', 62.5, x'00ff'), (2, 'Brise', 18, NULL);"
            "CREATE VIEW long AS SELECT name FROM ships WHERE length > 50;"
        )
    database.close()
    return path


@pytest.fixture
async def toolbox(file: Path) -> AsyncIterator[Toolbox]:
    made = toolbox_for(address=f"sqlite:///{str(file).replace('#', '%23')}", rows="3", seconds="1")
    yield made
    await made.aclose()


async def ask(toolbox: Toolbox, text: str) -> Any:
    return (await toolbox.call("sql.query", {"sql": text})).data


async def test_a_question_is_answered_with_rows_and_the_tables_are_told(toolbox: Toolbox) -> None:
    outcome = await toolbox.call("sql.query", {"sql": "select name, length from ships where length > 50;"})
    assert outcome.text == "name | length\nAdler | 62.5"
    assert outcome.answer == "1 row. The first: Adler, 62.5."
    one = await toolbox.call("sql.query", {"sql": "WITH a AS (SELECT 1 UNION SELECT 2) SELECT count(*) AS n FROM a"})
    assert one.answer == "n: 2."
    told = await toolbox.call("sql.tables", {})
    assert told.data == {
        "long": ["name TEXT"],
        "ships": ["id INTEGER", "name TEXT", "length REAL", "plan BLOB"],
    }
    assert (await ask(toolbox, "SELECT plan FROM ships WHERE id = 1"))["rows"] == [["(2 bytes)"]]
    assert (await toolbox.call("sql.query", {"sql": "SELECT 1 FROM ships WHERE id = 9"})).answer == "No rows fit."


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM ships",
        "UPDATE ships SET name = 'x'",
        "INSERT INTO ships(name) VALUES ('x')",
        "DROP TABLE ships",
        "SELECT 1; DROP TABLE ships",
        "SELECT 1; SELECT 2",
        "/* SELECT */ DELETE FROM ships",
        "WITH a AS (DELETE FROM ships RETURNING *) SELECT * FROM a",
        "CREATE TABLE x AS SELECT 1",
        "SELECT * INTO x FROM ships",
        "ATTACH DATABASE '/tmp/x.db' AS x",
        "PRAGMA writable_schema = 1",
        "VACUUM INTO '/tmp/x.db'",
        "REPLACE INTO ships VALUES (1, 'x', 1, NULL)",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT randomblob(1000000000)",
        "SELECT format('%.*c', 900000000, 'x')",
        "EXPLAIN SELECT 1",
        "BEGIN",
        "it is not SQL at all",
        "",
    ],
)
async def test_what_is_not_one_select_is_not_run(toolbox: Toolbox, file: Path, text: str) -> None:
    before = file.read_bytes()
    with pytest.raises(Exception, match=r"not run|did not answer|at least 6") as caught:
        await ask(toolbox, text)
    assert "failed inside" not in str(caught.value)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]


async def test_without_the_parser_the_database_itself_would_still_refuse(file: Path) -> None:
    """The second wall: what the check of the text might let through is refused by SQLite's authorizer."""
    where = sql.Place(f"sqlite:///{str(file).replace('#', '%23')}", 10, 1)
    for text in ("DELETE FROM ships", "ATTACH ':memory:' AS x", "PRAGMA table_info(ships)", "CREATE TEMP TABLE t(x)",
                 "SELECT printf('%.*c', 900000000, 'x')"):  # fmt: skip
        with pytest.raises(ToolError, match="did not answer"):
            sql._sqlite(where, text)


async def test_rows_seconds_and_sizes_have_an_end(toolbox: Toolbox) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    some = await toolbox.call("sql.query", {"sql": f"{endless} SELECT i FROM n"})
    assert some.data["rows"] == [[1], [2], [3]]
    assert "more than 3 rows" in some.text
    began = time.process_time()
    with pytest.raises(ToolError, match="within 1 seconds") as caught:
        await ask(toolbox, f"{endless} SELECT max(i) FROM n")
    assert caught.value.detail["reason"] == "deadline"
    assert time.process_time() - began < 10
    with pytest.raises(ToolError, match="not run"):
        await ask(toolbox, "SELECT printf('%.*c', 900000000, 'x')")
    doubled = "WITH RECURSIVE x(s, i) AS (SELECT 'xxxxx', 0 UNION ALL SELECT s || s, i + 1 FROM x WHERE i < {}) "
    with pytest.raises(ToolError, match="did not answer"):
        await ask(toolbox, doubled.format(40) + "SELECT s FROM x ORDER BY i DESC LIMIT 1")
    long = (await ask(toolbox, doubled.format(10) + "SELECT s FROM x WHERE i = 10"))["rows"][0][0]
    assert long.endswith("(5120 characters)")
    assert len(long) < 1100


async def test_what_is_not_set_up_says_how(tmp_path: Path) -> None:
    for options, told in (
        ({}, r"config set connectors\.sql\.options\.address VALUE"),
        ({"address": "mysql://x/y"}, "must begin with sqlite"),
        ({"address": "postgresql://u:secret@h/db"}, "trimtab connectors auth sql"),
        ({"address": f"sqlite:///{tmp_path}/none.db"}, "There is no database 'none.db'"),
        ({"address": f"sqlite:///{tmp_path}/none.db", "rows": "many"}, "whole number from 1 to 1000"),
    ):
        toolbox = toolbox_for(**options)
        with pytest.raises(ToolError, match=told) as caught:
            await ask(toolbox, "SELECT 1")
        assert "secret@" not in caught.value.message
        assert bool(toolbox.tools()) is bool(options), "a model is offered only what is set up"
    assert not list(tmp_path.iterdir())


def test_what_is_run_is_written_anew_from_what_was_checked() -> None:
    assert one_select("select a /* ; drop table x */ from t -- x", "sqlite") == "SELECT a FROM t"
    for text in ("SELECT pg_read_file('/etc/passwd')", "SELECT pg_sleep(9)", "SELECT pg_catalog.pg_sleep(9)",
                 "SELECT query_to_xml('select 1', true, true, '')", "SELECT * FROM dblink('x', 'y') AS t(a int)",
                 "SELECT lo_export(1, '/tmp/x')", "SELECT set_config('a', 'b', false)", "SELECT * FROM t FOR UPDATE",
                 "COPY t TO '/tmp/x'", "SELECT nextval('s')", "SELECT $1", "CALL x()", "DO $$ BEGIN END $$",
                 "SELECT 1 WHERE " + "(" * 2000):  # fmt: skip
        with pytest.raises(NotOneSelect):
            one_select(text, "postgres")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSQL]:
    with PostgreSQL() as running:
        yield running


async def test_postgresql_is_read_in_a_transaction_that_cannot_write(cluster: PostgreSQL) -> None:
    url = cluster.database("harbour")
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("CREATE TABLE ships(id int, name text, arrived timestamptz)")
        database.execute("INSERT INTO ships VALUES (1, 'Adler', '2026-05-01T10:00Z'), (2, 'Brise', NULL)")
        database.execute(
            "CREATE FUNCTION upper_all(t text) RETURNS text LANGUAGE sql AS $$ DELETE FROM ships; SELECT t $$"
        )
    secrets = {"SQL_USER": "trimtab", "SQL_PASSWORD": PASSWORD}
    address = url.replace(f"trimtab:{PASSWORD}@", "")
    toolbox = toolbox_for(lambda name: SecretStr(secrets[name]), address=address, seconds="1", rows="2")
    outcome = await toolbox.call("sql.query", {"sql": "SELECT name FROM ships ORDER BY id"})
    assert outcome.data["rows"] == [["Adler"], ["Brise"]]
    assert (await toolbox.call("sql.tables", {})).data["ships"][1] == "name text"
    where = sql.Place(address, 2, 1, "trimtab", PASSWORD)
    for text in ("DELETE FROM ships", "SELECT upper_all('x')", "INSERT INTO ships VALUES (3) RETURNING id"):
        with pytest.raises(ToolError, match="did not answer"):
            sql._postgres(where, text)  # past the check of the text
    with pytest.raises(ToolError, match="within 1 seconds"):
        await ask(toolbox, "SELECT count(*) FROM generate_series(1, 1000000000)")
    with psycopg.connect(url) as database:
        assert database.execute("SELECT count(*) FROM ships").fetchone() == (2,)
    secrets["SQL_PASSWORD"] = "wrong-one-of-all"
    with pytest.raises(ToolError, match="does not accept the account") as caught:
        await ask(toolbox, "SELECT 1 AS one")
    assert "wrong-one" not in caught.value.message
    await toolbox.aclose()
