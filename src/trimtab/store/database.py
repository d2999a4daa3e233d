"""The database: one writer, many readers, acknowledgement only after commit.

Every write goes through one thread that takes what has queued up, runs each piece under its own savepoint, commits
them together and only then tells the callers (group commit). So a busy moment costs one fsync instead of fifty, no
two writers of ours ever wait for each other's lock, and nothing is acknowledged that a crash could lose: SQLite runs
in WAL mode with ``synchronous=FULL``. Reads run on their own connections and never wait for the writer.

The same class serves PostgreSQL by URL, for several processes at once. There each write transaction first takes one
advisory lock, so that it means what ``BEGIN IMMEDIATE`` means on SQLite: one writer at a time, over all processes.
Everything above may therefore look first and write then (is this thread answering? was this key used?), and events are
numbered in the order in which they are committed: who reads on "after n" misses nothing. Commits are grouped, so the
lock is taken once for what has queued up, and held for milliseconds. Reads see one moment, as on SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.pool import ConnectionPoolEntry

from trimtab.domain.errors import InvalidInput, MissingExtra, TrimtabError, Unavailable

from . import prepared
from .encoding import dumps

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 5.0
BATCH = 64
POSTGRESQL = "postgresql+psycopg"
CONNECT_SECONDS = 10
STUCK_SECONDS = 20
"""PostgreSQL ends a writer that stopped in the middle of a transaction for this long: the others wait for it."""

_ONE_WRITER = text(
    "SELECT set_config('lock_timeout', :wait, true), set_config('idle_in_transaction_session_timeout', :stuck, true),"
    " pg_advisory_xact_lock(:key)"
).bindparams(
    wait=f"{STUCK_SECONDS + 10}s",
    stuck=f"{STUCK_SECONDS}s",
    key=int.from_bytes(b"trimtab", "big"),  # any number that is always the same
)


_Outcome = tuple[Any, BaseException | None]
"""What a job returned, or why it failed."""


@dataclass
class _Job:
    run: Callable[[Connection], Any]
    tell: Callable[[_Outcome], object]
    """Told once, on the writer's thread, when it is on disk or has failed."""
    ahead: Callable[[Any], object] | None = None
    """Told what it returned before that, in the middle of the transaction."""

    def __call__(self, connection: Connection) -> Any:
        value = self.run(connection)
        if self.ahead is not None:
            self.ahead(value)
        return value


class Database:
    """Open with `Database(url)`, then `migrate()`. `close()` writes out what is queued.

    `shared` says that other processes may work on it at the same time: PostgreSQL, not SQLite.

    Raises:
        InvalidInput: `url` is no URL, or of a database we do not know.
        MissingExtra: PostgreSQL's driver is not installed.
        Unavailable: the file cannot be opened or is not a database.
    """

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self.url = _known(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.shared = not self.sqlite
        if self.sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = self._connect(write=True)
        self.reader = self._connect(write=False)
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="trimtab-read")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._last = False
        self._writer = threading.Thread(target=self._write_loop, name="trimtab-write", daemon=True)
        self._writer.start()

    # ------------------------------------------------------------------ callers

    async def write(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, ...)` in a write transaction; returns after it is on disk."""
        return await self.submit(fn, *args, **kwargs)

    def submit(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """`write` without a task of its own: it is queued when this returns, and on disk when the future is done.

        Cancelling the future only stops the waiting. A callback on it runs even if nobody waits any more.
        """
        return self._submit(lambda connection: fn(connection, *args, **kwargs), None)

    def submit_ahead(
        self,
        ahead: Callable[[T], object],
        fn: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> asyncio.Future[T]:
        """`submit`, and `ahead` is called in the loop with what `fn` returned while that is being committed.

        What `ahead` begins is to be given up when the future fails: then nothing of it is on disk. It may write: that
        comes after the commit.
        """
        return self._submit(lambda connection: fn(connection, *args, **kwargs), ahead)

    def _submit(self, run: Callable[[Connection], T], ahead: Callable[[T], object] | None) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()  # the caller's, not the writer's

        def soon(call: Callable[..., object], *given: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody is waiting
                loop.call_soon_threadsafe(call, *given, context=context)

        told = functools.partial(soon, ahead) if ahead is not None else None
        try:
            self._enqueue(_Job(run, functools.partial(soon, _settle, result), told))
        except Unavailable as error:
            result.set_exception(error)
        return result

    def write_sync(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`write` for code that is not async."""
        result: Future[T] = Future()
        self._enqueue(_Job(lambda connection: fn(connection, *args, **kwargs), functools.partial(_settle, result)))
        return result.result()

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, ...)` on a reader; it sees everything that was acknowledged before the call."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: self.read_sync(fn, *args, **kwargs))

    def read_sync(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with typed(), self.reader.connect() as connection, connection.begin():
            return fn(connection, *args, **kwargs)

    def ping(self) -> dict[str, Any]:
        """Whether it answers, quickly."""
        self.read_sync(lambda c: c.execute(text("SELECT 1")))
        return {"ok": not self._closed}

    def check(self) -> dict[str, Any]:
        """What `doctor` shows: where it is, whether it is sound, how large."""
        if not self.sqlite:
            return {"url": self.url.render_as_string(hide_password=True), **self.ping()}
        found = self.read_sync(lambda c: c.execute(text("PRAGMA quick_check")).scalar())
        size = os.path.getsize(self.url.database) if self.url.database else 0
        return {"url": str(self.url), "ok": found == "ok", "bytes": size, "quick_check": found}

    def close(self) -> None:
        with self._door:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._writer.join(timeout=30)
        self._pool.shutdown(wait=True)
        self.reader.dispose()
        self.engine.dispose()

    # ------------------------------------------------------------------ the writer

    def _enqueue(self, job: _Job) -> None:
        with self._door:  # nothing may be queued behind the last batch
            if self._closed:
                raise Unavailable("The database is closed: Trimtab is shutting down. Start it again and retry.")
            self._jobs.put(job)

    def _write_loop(self) -> None:
        kept = contextlib.ExitStack()  # the writer's connection, for as long as nothing goes wrong with it
        connection: Connection | None = None
        while batch := self._next_batch():
            try:
                if connection is None:
                    with typed():
                        connection = kept.enter_context(self.engine.connect())
                outcomes = self._run(connection, batch)
                if self.shared:  # the pool asks a connection whether it is alive before it gives it out again
                    kept.close()
                    connection = None
            except BaseException as error:  # the commit itself failed: nobody's write is on disk
                failed = _translate(error) if isinstance(error, exc.DBAPIError) else error
                outcomes = [(None, failed)] * len(batch)
                with contextlib.suppress(Exception):
                    if connection is not None and not isinstance(error, exc.DataError):
                        connection.invalidate()  # whatever is wrong with it must not come back from the pool
                    kept.close()
                connection = None
            for job, outcome in zip(batch, outcomes, strict=True):
                job.tell(outcome)
        kept.close()

    def _next_batch(self) -> list[_Job]:
        """What has queued up, waiting for the first; empty when it is time to stop."""
        if self._last:
            return []
        job = self._jobs.get()
        batch: list[_Job] = []
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH or self._jobs.empty():  # only this thread takes from the queue
                return batch
            job = self._jobs.get()
        self._last = True
        return batch

    def _run(self, connection: Connection, batch: list[_Job]) -> list[_Outcome]:
        """All of a batch in one transaction, committed when this returns. A job that fails takes back only its own."""
        if len(batch) > 1:
            with self._transaction(connection):
                return [self._one(connection, job) for job in batch]
        try:
            with self._transaction(connection):
                return [(batch[0](connection), None)]
        except exc.DBAPIError:
            raise
        except Exception as error:  # the job's own refusal; its transaction was rolled back
            return [(None, error)]

    @contextlib.contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        if self.shared:
            with connection.begin():
                # First of all: what the transaction reads, it reads after the writer before it has committed.
                connection.execute(_ONE_WRITER)
                yield
            return
        # Begun and committed past SQLAlchemy, whose own bookkeeping costs as much as a few statements. It joins in when
        # a job uses it (see `on_begin`), and is told then.
        prepared.execute(connection, "BEGIN IMMEDIATE")
        try:
            yield
            prepared.execute(connection, "COMMIT")
        except BaseException:
            if connection.connection.in_transaction:  # SQLite has not rolled it back itself
                prepared.execute(connection, "ROLLBACK")
            raise
        finally:
            if connection.in_transaction():
                connection.rollback()  # nothing is left to roll back: this only ends SQLAlchemy's part

    def _one(self, connection: Connection, job: _Job) -> _Outcome:
        savepoint = connection.begin_nested()
        try:
            value = job(connection)
            savepoint.commit()
            return value, None
        except Exception as error:
            failure = _translate(error) if isinstance(error, exc.DBAPIError) else error
            if self.sqlite and not connection.connection.in_transaction:
                # A full disk or an I/O error makes SQLite roll back everything, what was written before included.
                raise failure from error
            savepoint.rollback()
            return None, failure

    # ------------------------------------------------------------------ connections

    def _connect(self, *, write: bool) -> Engine:
        if not self.sqlite:
            return self._connect_postgresql(write=write)
        engine = create_engine(
            self.url,
            json_serializer=dumps,
            json_deserializer=orjson.loads,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )

        def on_connect(raw: Any, _record: ConnectionPoolEntry) -> None:
            raw.isolation_level = None  # we say BEGIN ourselves, see below
            cursor = raw.cursor()
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
            if write:
                cursor.execute("PRAGMA journal_mode=WAL")
                cursor.execute("PRAGMA synchronous=FULL")
                cursor.execute("PRAGMA journal_size_limit=33554432")
            else:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        def on_begin(connection: Connection) -> None:
            if write and connection.connection.in_transaction:
                return  # the writer has begun it, see `_transaction`
            # A transaction that will write takes the lock at once: a deferred one can fail with "database is locked"
            # in the middle, whatever the timeout.
            prepared.execute(connection, "BEGIN IMMEDIATE" if write else "BEGIN")

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", on_begin)
        return engine

    def _connect_postgresql(self, *, write: bool) -> Engine:
        if not write:  # the same pool
            return self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        given = self.url.query
        wait = {} if "connect_timeout" in given else {"connect_timeout": CONNECT_SECONDS}
        try:
            return create_engine(
                self.url,
                json_serializer=dumps,
                json_deserializer=orjson.loads,
                pool_pre_ping=True,
                # Said, because the server's own default may be another: a writer that has waited for its turn must
                # see what was committed meanwhile.
                isolation_level="READ COMMITTED",
                connect_args=wait,
            )
        except ImportError as error:
            raise MissingExtra("A PostgreSQL database", "postgres") from error


def _settle(result: Future[Any] | asyncio.Future[Any], outcome: _Outcome) -> None:
    if result.done():  # whoever waited was cancelled
        return
    value, failure = outcome
    if failure is None:
        result.set_result(value)
    else:
        result.set_exception(failure)


def _known(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise InvalidInput(
            "`database_url` is no database URL. Write it like postgresql+psycopg://user:password@host/name; special "
            "characters in the password as %XX."
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername=POSTGRESQL)
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", POSTGRESQL):
        raise InvalidInput(
            f"Trimtab does not work on {parsed.drivername}. Leave `database_url` empty for SQLite, or begin it with "
            f"{POSTGRESQL}://."
        )
    return parsed


def reason_of(error: exc.DBAPIError) -> str:
    """What the database said, in one line without a full stop: it becomes part of a sentence."""
    return " ".join(str(error.orig).split()).rstrip(".?!")


def _translate(error: exc.DBAPIError) -> TrimtabError:
    if hasattr(error.orig, "sqlstate"):
        return _translate_postgresql(error)
    reason = str(error.orig)
    if "locked" in reason or "busy" in reason:
        return Unavailable("Another program is holding the database. Close it and try again.", reason=reason)
    if "full" in reason:
        return Unavailable("The disk is full: nothing was saved. Free some space and try again.", reason=reason)
    return Unavailable(f"The database refused: {reason}. Run `trimtab doctor`.", reason=reason)


def _translate_postgresql(error: exc.DBAPIError) -> TrimtabError:
    state = getattr(error.orig, "sqlstate", None) or ""
    reason = reason_of(error)
    if isinstance(error, exc.DataError):  # class 22, and what the driver itself refuses: too long, out of range, NUL
        return InvalidInput(f"The database cannot keep this: {reason}. Change the value.", reason=reason)
    if state == "55P03":
        return Unavailable(
            "Another Trimtab process is holding the database. Try again; if it stays so, look for one that hangs.",
            reason=reason,
        )
    if state == "53100":
        return Unavailable(
            "The database server's disk is full: nothing was saved. Free some space and try again.", reason=reason
        )
    if isinstance(error, exc.OperationalError) and (not state or state[:2] in ("08", "57", "53", "25")):
        return Unavailable(
            f"The database cannot be reached: {reason}. Nothing was lost that had been acknowledged. See that "
            "PostgreSQL runs and takes connections, then try again.",
            reason=reason,
        )
    return Unavailable(f"The database refused: {reason}. Run `trimtab doctor`.", reason=reason)


class typed(contextlib.AbstractContextManager[None]):
    """Database errors leave as ours; ours pass through."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, exc.DBAPIError) and not isinstance(error, exc.IntegrityError):
            raise _translate(error) from error
