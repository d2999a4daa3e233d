"""Statements of every turn, run on the driver's own cursor.

SQLAlchemy takes 20 µs and more to run a statement that SQLite runs in 3, and a turn needs a dozen. Here a statement is
written with SQLAlchemy as everywhere else, turned into the driver's SQL once, and from then on given to the driver,
inside the transaction of the connection. What this leaves out: rows come back as plain tuples, JSON in them unread, and
``in_`` takes no list. All other statements stay with SQLAlchemy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Dialect, Insert, Select, Table, Update, exc
from sqlalchemy.sql.compiler import SQLCompiler

Statement = Select[Any] | Insert | Update
Values = Mapping[str, Any]
Row = tuple[Any, ...]


def rows(connection: Connection, statement: Statement, values: Values) -> list[Row]:
    """What a statement selects or returns."""
    found: list[Row] = _execute(connection, statement, values).fetchall()
    return found


def first(connection: Connection, statement: Statement, values: Values) -> Row | None:
    """The first row of that, if there is one."""
    found: Row | None = _execute(connection, statement, values).fetchone()
    return found


def run(connection: Connection, statement: Statement, values: Values) -> None:
    """Run a statement that returns nothing."""
    _execute(connection, statement, values)


def run_each(connection: Connection, statement: Statement, many: Sequence[Values]) -> None:
    """The same for each of `many`, which all have the same names."""
    ready = _ready(statement, connection.dialect, tuple(many[0]))
    arguments = [ready.arguments(values) for values in many]
    try:
        connection.connection.cursor().executemany(ready.sql, arguments)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, ready.sql, error) from error


def numbers_of_each(connection: Connection, table: Table, many: Sequence[Values]) -> list[int]:
    """Insert `many` rows into a table whose key counts up by itself; returns their numbers, in their order."""
    number = table.autoincrement_column
    assert number is not None
    if connection.dialect.name == "sqlite":
        run_each(connection, _insert(table), many)
        # One writer, one transaction: AUTOINCREMENT has numbered them without a gap.
        last = int(execute(connection, "SELECT last_insert_rowid()").fetchone()[0])
        return list(range(last - len(many) + 1, last + 1))
    ready = _ready(_insert(table, number), connection.dialect, tuple(many[0]))
    arguments = [ready.arguments(values) for values in many]
    try:
        cursor: Any = connection.connection.cursor()
        cursor.executemany(ready.sql, arguments, returning=True)  # psycopg sends them all at once
        found = [int(cursor.fetchone()[0])]
        while cursor.nextset():
            found.append(int(cursor.fetchone()[0]))
        return found
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, ready.sql, error) from error


@functools.cache
def _insert(table: Table, returning: Column[Any] | None = None) -> Insert:
    return table.insert() if returning is None else table.insert().returning(returning)


def execute(connection: Connection, sql: str, arguments: Any = ()) -> Any:
    """Run the driver's own SQL; returns the cursor."""
    try:
        cursor: Any = connection.connection.cursor()
        return cursor.execute(sql, arguments)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, sql, error) from error


def _execute(connection: Connection, statement: Statement, values: Values) -> Any:
    ready = _ready(statement, connection.dialect, tuple(values))
    return execute(connection, ready.sql, ready.arguments(values))


def _as_sqlalchemy(connection: Connection, sql: str, error: Exception) -> BaseException:
    """The driver's error as the class that SQLAlchemy gives it, which is what callers know."""
    driver = connection.dialect.loaded_dbapi.Error
    return exc.DBAPIError.instance(sql, None, error, driver, hide_parameters=True, dialect=connection.dialect)


class _Ready:
    """A statement as one driver wants it, for values of certain names."""

    def __init__(self, statement: Statement, dialect: Dialect, names: tuple[str, ...]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=names)
        assert isinstance(compiled, SQLCompiler)
        assert not compiled.post_compile_params, "a list for `in_` is not supported here"
        self.sql = compiled.string
        self._order = compiled.positiontup  # None where the driver takes names
        self._constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        converters = (
            (name, bind.type.dialect_impl(dialect).bind_processor(dialect)) for name, bind in compiled.binds.items()
        )
        self._converters = [(name, convert) for name, convert in converters if convert is not None]

    def arguments(self, values: Values) -> Any:
        given = values
        if self._constants or self._converters:
            given = {**self._constants, **values}
            for name, convert in self._converters:
                given[name] = convert(given[name])
        return given if self._order is None else [given[name] for name in self._order]


@functools.lru_cache(128)
def _ready(statement: Statement, dialect: Dialect, names: tuple[str, ...]) -> _Ready:
    return _Ready(statement, dialect, names)
