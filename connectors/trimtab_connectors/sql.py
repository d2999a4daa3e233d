"""A database of one's own, read-only by construction: SQLite and PostgreSQL.

A text is run when it is exactly one SELECT (`one_select`), and the database is told the same in its own way: SQLite is
opened read-only with an authorizer that permits reading alone, PostgreSQL in a read-only transaction through a cursor,
which takes nothing but a SELECT. Rows, sizes and seconds are limited by the database, not by good will.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field

from trimtab.connect import Basic, Connector, Effect, Option, Result, Setup, Source, ToolError

connector = Connector(
    name="sql",
    version="1.0.0",
    description="Answers from a database of yours, SQLite or PostgreSQL; it only reads.",
    auth=Basic(user_env="SQL_USER", password_env="SQL_PASSWORD", optional=True),  # noqa: S106
    options={
        "address": Option("The database: sqlite:////path/to/file.db or postgresql://host/name?sslmode=verify-full."),
        "rows": Option("How many rows a query gives at most.", required=False, default="100"),
        "seconds": Option("How long a query may take.", required=False, default="10"),
    },
    speaks=("PostgreSQL",),
)

MAX_CELL = 1000
MAX_TABLES = 200
READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
BLOCKED = frozenset({"load_extension", "printf", "format"})
"""The last two take minutes for one long text, and no handler is asked meanwhile."""
POSTGRES_TABLES = """
    SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
    ORDER BY table_schema, table_name, ordinal_position LIMIT 5000
"""


@dataclass(frozen=True)
class Table:
    """Rows, and whether there were more of them."""

    columns: list[str]
    rows: list[list[Any]]
    more: bool = False


@dataclass(frozen=True)
class Place:
    """Which database, and what a query may cost."""

    address: str
    rows: int
    seconds: int
    user: str = ""
    password: str = ""

    @property
    def dialect(self) -> str:
        return "sqlite" if self.address.startswith("sqlite:") else "postgres"

    @property
    def name(self) -> str:
        """For people: nothing of it is secret."""
        parts = urlsplit(self.address)
        return Path(unquote(parts.path)).name or (parts.hostname or "database")


@connector.tool(
    effect=Effect.READ,
    timeout=40.0,
    examples=(
        "Run SELECT count(*) FROM orders",
        "Query the database: SELECT name FROM ships WHERE length > 100",
        "What does SELECT max(price) FROM products give?",
        "Execute the SQL select avg(age) from people",
        "SELECT city, count(*) FROM customers GROUP BY city",
        "Select all rows of the table harbours in the database",
    ),
)
async def query(
    sql: Annotated[str, Field(min_length=6, max_length=4000), "One SELECT, e.g. SELECT name FROM ships LIMIT 5"],
    setup: Setup,
) -> Result:
    """Read from the database with one SQL SELECT and return the rows. Nothing can be changed."""
    where = await asyncio.to_thread(place, setup)
    found = await asyncio.to_thread(ask, where, sql)
    sources = [Source(where.name)]
    if not found.rows:
        return Result(text="The query gives no rows.", data=[], sources=sources, answer="No rows fit.")
    more = f"\n(more than {len(found.rows)} rows; the rest is not shown)" if found.more else ""
    single = f"{found.columns[0]}: {found.rows[0][0]}" if len(found.rows) == len(found.columns) == 1 else ""
    count = f"{'More than ' if found.more else ''}{len(found.rows)} row{'s' if len(found.rows) > 1 else ''}"
    return Result(
        text=drawn(found) + more,
        data={"columns": found.columns, "rows": found.rows, "more": found.more},
        sources=sources,
        answer=f"{single or f'{count}. The first: ' + ', '.join(map(str, found.rows[0]))}.",
    )


@connector.tool(
    effect=Effect.READ,
    timeout=40.0,
    examples=(
        "Which tables are in the database?",
        "Show the database's schema",
        "What columns does the table orders have?",
        "List the tables and their columns",
        "What is stored in our database?",
        "Describe the tables of the SQL database",
    ),
)
async def tables(setup: Setup) -> Result:
    """List the tables of the database with their columns and types, to know what a query can ask for."""
    where = await asyncio.to_thread(place, setup)
    found = await asyncio.to_thread(schema, where)
    sources = [Source(where.name)]
    if not found:
        return Result(text="The database has no tables.", sources=sources, answer="It has no tables.")
    shown = dict(list(found.items())[:MAX_TABLES])
    lines = [f"{table}({', '.join(columns)})" for table, columns in shown.items()]
    more = [f"({len(found) - len(shown)} more tables are not shown)"] if len(found) > len(shown) else []
    return Result(
        text="\n".join([*lines, *more]),
        data=shown,
        sources=sources,
        answer=f"The database has {len(found)} tables: {', '.join(list(found)[:12])}.",
    )


def place(setup: Setup) -> Place:
    """Raises `ToolError`: it is not set up, or not rightly."""
    address = setup.need("address")
    parts = urlsplit(address)
    if parts.scheme not in ("sqlite", "postgresql", "postgres"):
        raise ToolError(
            "Connector 'sql': `address` must begin with sqlite:/// or postgresql://. Correct it in your settings.",
            reason="not_set_up",
        )
    if parts.password:
        raise ToolError(
            "Connector 'sql': `address` holds a password, which settings are no place for. Take it out and run: "
            "trimtab connectors auth sql",
            reason="not_set_up",
        )
    user, password = setup.secret("SQL_USER"), setup.secret("SQL_PASSWORD")
    return Place(address, setup.number("rows", 1, 1000), setup.number("seconds", 1, 30), user, password)


def ask(where: Place, text: str) -> Table:
    """Run one SELECT.

    Raises:
        ToolError: it is none, or the database does not answer it in time.
    """
    from trimtab_connectors.one_select import NotOneSelect, one_select  # sqlglot: only where a query is asked

    try:
        checked = one_select(text, where.dialect)
    except NotOneSelect as error:
        raise ToolError(f"The query was not run: {error}.", reason="not_permitted") from None
    run = _sqlite if where.dialect == "sqlite" else _postgres
    return run(where, checked)


def schema(where: Place) -> dict[str, list[str]]:
    """Columns with their types, by table."""
    found: dict[str, list[str]] = {}
    if where.dialect == "sqlite":
        with _opened(where, guarded=False) as database:
            listed = database.execute(
                "SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c "
                "WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY m.name, c.cid"
            )
            for table, column, kind in listed.fetchmany(5000):
                found.setdefault(_cell(table), []).append(f"{_cell(column)} {_cell(kind)}".strip())
        return found
    for schema_name, table, column, kind in _postgres(where, POSTGRES_TABLES, most=5000).rows:
        name = table if schema_name == "public" else f"{schema_name}.{table}"
        found.setdefault(name, []).append(f"{column} {kind}")
    return found


# ---------------------------------------------------------------------- SQLite


def _sqlite(where: Place, statement: str) -> Table:
    with _opened(where, guarded=True) as database:
        cursor = database.execute(statement)
        rows = cursor.fetchmany(where.rows + 1)
        columns = [column[0] for column in cursor.description or ()]
    return _table(columns, rows, where.rows)


@contextlib.contextmanager
def _opened(where: Place, *, guarded: bool) -> Iterator[sqlite3.Connection]:
    """Read-only, with limits. `guarded` also refuses everything but reading."""
    path = Path("/" + unquote(urlsplit(where.address).path).lstrip("/"))
    if not path.is_file():
        raise ToolError(
            f"There is no database {path.name!r} where the settings say. Correct `address` of the connector 'sql'.",
            reason="not_set_up",
        )
    end = time.monotonic() + where.seconds
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2.0)) as database:
            database.text_factory = lambda raw: raw.decode("utf-8", "replace")
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5_000_000)
            database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            database.set_progress_handler(lambda: time.monotonic() > end, 5000)
            if guarded:
                database.set_authorizer(_permitted)
            yield database
    except sqlite3.Error as error:
        if time.monotonic() > end:
            raise _late(where) from None
        raise ToolError(f"The database did not answer: {str(error)[:200]}.", reason="failed") from None


def _permitted(action: int, first: str | None, second: str | None, database: str | None, by: str | None) -> int:
    if action in READING and not (action == sqlite3.SQLITE_FUNCTION and second in BLOCKED):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


# ---------------------------------------------------------------------- PostgreSQL


def _postgres(where: Place, statement: str, most: int = 0) -> Table:
    try:
        import psycopg
    except ImportError:
        raise ToolError("PostgreSQL needs a driver: pip install 'trimtab[postgres]'", reason="not_set_up") from None
    most = most or where.rows
    account = {name: value for name, value in (("user", where.user), ("password", where.password)) if value}
    limits = f"-c default_transaction_read_only=on -c statement_timeout={where.seconds * 1000} -c lock_timeout=2000"
    try:
        with psycopg.connect(where.address, connect_timeout=5, options=limits, **account) as database:  # type: ignore[arg-type]
            database.read_only = True
            # A cursor of the server's gives out a few rows at a time, and is declared for a SELECT alone.
            with database.cursor(name="trimtab") as cursor:
                cursor.itersize = 200
                cursor.execute(statement.encode())
                rows = cursor.fetchmany(most + 1)
                columns = [column.name for column in cursor.description or ()]
            database.rollback()
    except psycopg.errors.QueryCanceled:
        raise _late(where) from None
    except psycopg.OperationalError:
        raise ToolError(
            f"The database {where.name!r} could not be reached, or does not accept the account. Check `address`, "
            "SQL_USER and SQL_PASSWORD.",
            reason="unreachable",
        ) from None
    except psycopg.Error as error:
        said = error.diag.message_primary or type(error).__name__
        raise ToolError(f"The database did not answer: {said[:200]}.", reason="failed") from None
    return _table(columns, rows, most)


# ---------------------------------------------------------------------- rows


def _table(columns: list[str], rows: list[Any], most: int) -> Table:
    return Table(columns, [[_cell(value) for value in row] for row in rows[:most]], len(rows) > most)


def _cell(value: Any) -> Any:
    """As JSON can have it, and not too long."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    if isinstance(value, bytes | memoryview):
        return f"({len(value)} bytes)"
    text = str(value)
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}… ({len(text)} characters)"


def drawn(table: Table) -> str:
    """Columns and rows, one a line, with bars between."""
    plain: Callable[[Any], str] = lambda value: "" if value is None else " ".join(str(value).split())  # noqa: E731
    return "\n".join(" | ".join(map(plain, row)) for row in [table.columns, *table.rows])


def _late(where: Place) -> ToolError:
    return ToolError(
        f"The query did not finish within {where.seconds} seconds and was stopped. Ask for less.", reason="deadline"
    )
