"""The database: one writer, many readers, acknowledgement only after commit.

Every write goes through one thread that takes what has queued up, runs each piece under its own savepoint, commits
them together and only then tells the callers (group commit). So a busy moment costs one fsync instead of fifty, no
two writers of ours ever wait for each other's lock, and nothing is acknowledged that a crash could lose: SQLite runs
in WAL mode with ``synchronous=FULL``. Reads run on their own connections and never wait for the writer.

The same class serves PostgreSQL by URL; there the single writer is only a convenience.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.pool import ConnectionPoolEntry

from trimtab.domain.errors import TrimtabError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 5.0
BATCH = 64


@dataclass
class _Job:
    run: Callable[[Connection], Any]
    result: Future[Any]


class Database:
    """Open with `Database(url)`, then `migrate()`. `close()` writes out what is queued.

    Raises:
        Unavailable: the file cannot be opened or is not a database.
    """

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = self._connect(write=True)
        self.reader = self._connect(write=False) if self.sqlite else self.engine
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="trimtab-read")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_loop, name="trimtab-write", daemon=True)
        self._writer.start()

    # ------------------------------------------------------------------ callers

    async def write(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, ...)` in a write transaction; returns after it is on disk."""
        future = self._submit(lambda connection: fn(connection, *args, **kwargs))
        # Shielded: a cancelled caller must not leave the writer with a future it cannot resolve.
        result: T = await asyncio.shield(asyncio.wrap_future(future))
        return result

    def write_sync(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`write` for code that is not async."""
        result: T = self._submit(lambda connection: fn(connection, *args, **kwargs)).result()
        return result

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, ...)` on a reader; it sees everything that was acknowledged before the call."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: self.read_sync(fn, *args, **kwargs))

    def read_sync(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with _typed(), self.reader.connect() as connection, connection.begin():
            return fn(connection, *args, **kwargs)

    def check(self) -> dict[str, Any]:
        """What `doctor` shows: where it is, whether it is sound, how large."""
        if not self.sqlite:
            self.read_sync(lambda c: c.execute(text("SELECT 1")))
            return {"url": self.url.render_as_string(hide_password=True), "ok": True}
        found = self.read_sync(lambda c: c.execute(text("PRAGMA quick_check")).scalar())
        size = os.path.getsize(self.url.database) if self.url.database else 0
        return {"url": str(self.url), "ok": found == "ok", "bytes": size, "quick_check": found}

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._jobs.put(None)
        self._writer.join(timeout=30)
        self._pool.shutdown(wait=True)
        self.reader.dispose()
        self.engine.dispose()

    # ------------------------------------------------------------------ the writer

    def _submit(self, run: Callable[[Connection], Any]) -> Future[Any]:
        if self._closed.is_set():
            raise Unavailable("The database is closed: Trimtab is shutting down. Start it again and retry.")
        job = _Job(run, Future())
        self._jobs.put(job)
        return job.result

    def _write_loop(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                batch.append(job)
            self._run(batch)
            if last:
                return

    def _run(self, batch: list[_Job]) -> None:
        done: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            with _typed(), self.engine.connect() as connection, connection.begin():
                for job in batch:
                    done.append((job, *self._one(connection, job, alone=len(batch) == 1)))
                if len(batch) == 1 and done[0][2] is not None:
                    raise done[0][2]
        except BaseException as error:  # the commit itself failed: nobody's write is on disk
            for job in batch:
                job.result.set_exception(error)
            return
        for job, value, failure in done:
            if failure is None:
                job.result.set_result(value)
            else:
                job.result.set_exception(failure)

    @staticmethod
    def _one(connection: Connection, job: _Job, *, alone: bool) -> tuple[Any, BaseException | None]:
        try:
            if alone:
                return job.run(connection), None
            with connection.begin_nested():
                return job.run(connection), None
        except exc.DBAPIError as error:
            return None, _translate(error)
        except Exception as error:
            return None, error

    # ------------------------------------------------------------------ connections

    def _connect(self, *, write: bool) -> Engine:
        if not self.sqlite:
            return create_engine(self.url, json_serializer=_dumps, json_deserializer=orjson.loads, pool_pre_ping=True)
        engine = create_engine(
            self.url,
            json_serializer=_dumps,
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
            # A transaction that will write takes the lock at once: a deferred one can fail with "database is locked"
            # in the middle, whatever the timeout.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", on_begin)
        return engine


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _translate(error: exc.DBAPIError) -> TrimtabError:
    reason = str(error.orig)
    if "locked" in reason or "busy" in reason:
        return Unavailable("Another program is holding the database. Close it and try again.", reason=reason)
    if "full" in reason:
        return Unavailable("The disk is full: nothing was saved. Free some space and try again.", reason=reason)
    return Unavailable(f"The database refused: {reason}. Run `trimtab doctor`.", reason=reason)


class _typed(contextlib.AbstractContextManager[None]):
    """Database errors leave as ours; ours pass through."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, exc.DBAPIError) and not isinstance(error, exc.IntegrityError):
            raise _translate(error) from error
