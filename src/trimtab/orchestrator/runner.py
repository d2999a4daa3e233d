"""Turns as background tasks that append to the event log; faces only read the log.

A click in the browser, a closed tab or a dropped connection touches nothing here. Text deltas are gathered for a
tenth of a second before they are logged, the first one at once. The log is handed in as a contract, so this module
knows no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import TrimtabError, Unavailable

from .hub import Hub, Logged
from .turn import Orchestrator, Turn, cancelled

_log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1
POLL_SECONDS = 1.0
"""How often a watcher looks into the log unasked: another process may be the one that runs the turn."""


class Log(Protocol):
    """The event log, as far as running turns needs it. `turn` is the turn's row."""

    async def append(self, turn: Mapping[str, Any], batch: Sequence[ev.Event]) -> list[tuple[int, dict[str, Any]]]: ...

    async def events(self, turn_id: str, after: int = 0) -> list[tuple[int, dict[str, Any]]]: ...

    async def wait_if_undecided(self, turn: Mapping[str, Any]) -> bool:
        """Mark the turn as waiting unless a decision has come in that lets it go on; whether it waits."""
        ...


class Runner:
    """Owns the running turns of this process. `id` marks their rows, so that a later process knows whose they were."""

    def __init__(self, orchestrator: Orchestrator, log: Log, hub: Hub, *, limit: int = 64) -> None:
        self.id = ids.new("run")
        self.orchestrator = orchestrator
        self.hub = hub
        self._log = log
        self._limit = limit
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    @property
    def running(self) -> int:
        return len(self._tasks)

    def ensure_room(self) -> None:
        """Raises `Unavailable` when no further turn can be taken on now."""
        if self._closing:
            raise Unavailable("Trimtab is shutting down. Ask again when it is back.")
        if len(self._tasks) >= self._limit:
            raise Unavailable(f"{self._limit} turns are being answered already. Try again in a moment.")

    def start(self, row: Mapping[str, Any], turn: Turn) -> None:
        """Begin or go on with a turn whose row is already stored."""
        if row["id"] in self._tasks:
            return
        task = asyncio.create_task(self._run(dict(row), turn), name=f"turn {row['id']}")
        self._tasks[row["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(row["id"], None))

    async def cancel(self, turn_id: str) -> bool:
        """Stop a running turn and wait until its last event is logged; False when it was not running here."""
        task = self._tasks.get(turn_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        return True

    async def close(self, grace: float = 10.0) -> None:
        """Let running turns finish for `grace` seconds, then interrupt them."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=grace)
        for task in list(self._tasks.values()):
            task.cancel("shutdown")
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=5)

    # ------------------------------------------------------------------ one turn

    async def _run(self, row: dict[str, Any], turn: Turn) -> None:
        writer = _Writer(row, self._log, self.hub, turn.so_far)
        try:
            async with asyncio.timeout(self.orchestrator.limits.deadline):
                await self._drive(row, turn, writer)
        except asyncio.CancelledError as reason:
            await self._end(writer, self._stopped(writer, shutdown=reason.args == ("shutdown",)))
        except TimeoutError:
            message = f"No answer within {self.orchestrator.limits.deadline:g} seconds. Ask again, or ask for less."
            await self._end(writer, _failed("deadline_exceeded", message, writer.text))
        except TrimtabError as error:
            await self._end(writer, _failed(error.code, error.message, writer.text))
        except Exception as error:
            _log.exception("turn %s failed", row["id"])
            message = f"Something went wrong inside Trimtab ({type(error).__name__}). The log has the details."
            await self._end(writer, _failed("internal_error", message, writer.text))

    async def _drive(self, row: dict[str, Any], turn: Turn, writer: _Writer) -> None:
        while True:
            async with contextlib.aclosing(self.orchestrator.run(turn)) as events:
                async for event in events:
                    await writer.put(event)
            await writer.flush()
            if writer.finished or await self._log.wait_if_undecided(row):
                return
            so_far = [ev.from_wire(wire) for _, wire in await self._log.events(row["id"])]
            turn = Turn(**{**turn.__dict__, "so_far": so_far})
            writer = _Writer(row, self._log, self.hub, so_far)

    def _stopped(self, writer: _Writer, *, shutdown: bool) -> ev.Event:
        if shutdown:
            message = "Trimtab was stopped while this was being answered. What it had is kept; ask again for the rest."
            return ev.TurnFailed(ev.TurnStatus.INTERRUPTED, "interrupted", message, writer.text)
        return cancelled(writer.text, self.orchestrator.profile)

    async def _end(self, writer: _Writer, event: ev.Event) -> None:
        if writer.finished:
            return
        try:
            await writer.put(event)
            await writer.flush()
        except TrimtabError:
            # The store is gone too; the next start closes the turn from what the log has.
            _log.exception("could not log the end of turn %s", writer.row["id"])

    # ------------------------------------------------------------------ watching

    async def tail(self, turn_id: str, after: int = 0) -> AsyncIterator[Logged]:
        """Events of one turn after `after`: those in the log, then each as it comes, to the turn's end.

        Also ends when the turn comes to wait for an approval *and* nobody decides: the caller sees `approval.needed`
        and may read on later.
        """
        with self.hub.watch(turn_id) as watcher:
            while True:
                for seq, wire in await self._log.events(turn_id, after):
                    after = seq
                    yield seq, turn_id, wire
                    if wire["type"] in (ev.TurnFinished.type, ev.TurnFailed.type):
                        return
                watcher.lagging = False
                async for logged in _fresh(watcher, after):
                    after = logged[0]
                    yield logged
                    if logged[2]["type"] in (ev.TurnFinished.type, ev.TurnFailed.type):
                        return


async def _fresh(watcher: Any, after: int) -> AsyncIterator[Logged]:
    """What the hub says after `after`, until it is quiet for a while or the watcher fell behind."""
    while not watcher.lagging:
        try:
            logged = await asyncio.wait_for(watcher.queue.get(), POLL_SECONDS)
        except TimeoutError:
            return
        if logged[0] > after:
            after = logged[0]
            yield logged
    watcher.drain()


class _Writer:
    """Gathers a turn's events and logs them in order; tells the hub after each commit."""

    def __init__(self, row: dict[str, Any], log: Log, hub: Hub, so_far: Sequence[ev.Event]) -> None:
        self.row = row
        self.finished = False
        self.text = ""
        self._log = log
        self._hub = hub
        self._pending: list[ev.Event] = []
        self._gathered_since = 0.0
        self._flushing: asyncio.Task[None] | None = None
        for event in so_far:
            self._note(event)

    async def put(self, event: ev.Event) -> None:
        self._note(event)
        self._add(event)
        now = time.monotonic()
        if isinstance(event, ev.TextDelta) and now - self._gathered_since < GATHER_SECONDS:
            return
        self._gathered_since = now
        if self._flushing is None or self._flushing.done():
            # Not awaited: the model goes on while the log is written. Order is kept, one flush at a time.
            self._raise_if_failed()
            self._flushing = asyncio.create_task(self._flush())

    async def flush(self) -> None:
        """Everything put so far is in the log when this returns."""
        if self._flushing is not None:
            await self._flushing
            self._flushing = None
        await self._flush()

    def _raise_if_failed(self) -> None:
        if self._flushing is not None and self._flushing.done():
            self._flushing.result()

    async def _flush(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            for seq, wire in await self._log.append(self.row, batch):
                self._hub.publish(
                    (self.row["id"], self.row["thread_id"], self.row["owner_id"]), (seq, self.row["id"], wire)
                )

    def _note(self, event: ev.Event) -> None:
        match event:
            case ev.TextDelta():
                self.text += event.text
            case ev.TextReplaced():
                self.text = event.text
            case ev.TurnFinished() | ev.TurnFailed():
                self.finished = True

    def _add(self, event: ev.Event) -> None:
        last = self._pending[-1] if self._pending else None
        if isinstance(event, ev.TextDelta) and isinstance(last, ev.TextDelta):
            self._pending[-1] = ev.TextDelta(last.text + event.text)
        else:
            self._pending.append(event)


def _failed(code: str, message: str, text: str) -> ev.TurnFailed:
    return ev.TurnFailed(ev.TurnStatus.FAILED, code, message, text)
