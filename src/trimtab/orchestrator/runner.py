"""Turns as background tasks that append to the event log; faces only read the log.

A click in the browser, a closed tab or a dropped connection touches nothing here. Events are gathered before they
are logged, text for a tenth of a second and all else (and the first text) for a few milliseconds: nobody sees that,
and a burst costs one commit. The log is handed in as a contract, so this module knows no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import Conflict, TrimtabError, Unavailable
from trimtab.domain.model import Profile

from .hub import Hub, Logged, Watcher
from .turn import Orchestrator, Turn, cancelled

_log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1
BURST_SECONDS = 0.005
RETRY_SECONDS = (0.2, 1.0, 5.0)
"""When the log refuses a turn's last event it is offered again after each of these."""
LAST = (ev.TurnFinished.type, ev.TurnFailed.type)
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

    def turns(self) -> list[str]:
        """The ids of the turns that are running here."""
        return list(self._tasks)

    def under_way(self) -> set[asyncio.Task[None]]:
        """The turns that are running here: each is done when its last event is logged."""
        return set(self._tasks.values())

    def ensure_room(self) -> None:
        """Raises `Unavailable` when no further turn can be taken on now."""
        if self._closing:
            raise Unavailable("Trimtab is shutting down. Ask again when it is back.")
        if len(self._tasks) >= self._limit:
            raise Unavailable(f"{self._limit} turns are being answered already. Try again in a moment.")

    def start(self, row: Mapping[str, Any], turn: Turn, orchestrator: Orchestrator | None = None) -> None:
        """Begin or go on with a turn whose row is already stored; `orchestrator` where another than ours answers."""
        if row["id"] in self._tasks:
            return
        task = asyncio.create_task(
            self._run(dict(row), turn, orchestrator or self.orchestrator), name=f"turn {row['id']}"
        )
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

    async def _run(self, row: dict[str, Any], turn: Turn, orchestrator: Orchestrator) -> None:
        writer = _Writer(row, self._log, self.hub, turn.so_far)
        try:
            async with asyncio.timeout(orchestrator.limits.deadline):
                await self._drive(row, turn, writer, orchestrator)
        except asyncio.CancelledError as reason:
            await self._end(writer, _stopped(writer, orchestrator.profile, shutdown=reason.args == ("shutdown",)))
        except TimeoutError:
            message = f"No answer within {orchestrator.limits.deadline:g} seconds. Ask again, or ask for less."
            await self._end(writer, _failed("deadline_exceeded", message, writer.text))
        except TrimtabError as error:
            await self._end(writer, _failed(error.code, error.message, writer.text))
        except Exception as error:
            _log.exception("turn %s failed", row["id"])
            message = f"Something went wrong inside Trimtab ({type(error).__name__}). The log has the details."
            await self._end(writer, _failed("internal_error", message, writer.text))

    async def _drive(self, row: dict[str, Any], turn: Turn, writer: _Writer, orchestrator: Orchestrator) -> None:
        while True:
            async with contextlib.aclosing(orchestrator.run(turn)) as events:
                async for event in events:
                    await writer.put(event)
            await writer.flush()
            if writer.finished or await self._log.wait_if_undecided(row):
                return
            so_far = [ev.from_wire(wire) for _, wire in await self._log.events(row["id"])]
            turn = replace(turn, so_far=so_far)
            writer.so_far = so_far  # the decision was logged by somebody else

    async def _end(self, writer: _Writer, event: ev.Event) -> None:
        if not writer.finished:
            for begun in ev.left_open(writer.so_far):
                writer.add(begun)
            writer.add(event)
        for pause in RETRY_SECONDS:
            try:
                await writer.flush()
                return
            except Conflict as error:  # another process has closed it; asking again changes nothing
                _log.warning("turn %s is not ours any more: %s", writer.row["id"], error.message)
                return
            except TrimtabError:
                await asyncio.sleep(pause)
        try:
            await writer.flush()
        except TrimtabError:
            # The store is gone; the next start closes the turn from what the log has.
            _log.exception("could not log the end of turn %s", writer.row["id"])

    # ------------------------------------------------------------------ watching

    async def tail(self, turn_id: str, after: int = 0, *, watcher: Watcher | None = None) -> AsyncIterator[Logged]:
        """Events of one turn after `after`: those in the log, then each as it comes, to the turn's end.

        While the turn waits for an approval this goes on waiting: the caller has seen `approval.needed`, may leave,
        and may read on later. A `watcher` that watched before the turn began saves reading the log first.
        """
        with contextlib.ExitStack() as stack:
            behind = watcher is None
            watcher = watcher or stack.enter_context(self.hub.watch(turn_id))
            while True:
                watcher.lagging = False
                for seq, wire in await self._log.events(turn_id, after) if behind else ():
                    after = seq
                    yield seq, turn_id, wire
                    if wire["type"] in LAST:
                        return
                behind = True
                async for logged in _fresh(watcher, turn_id, after):
                    after = logged[0]
                    yield logged
                    if logged[2]["type"] in LAST:
                        return


async def _fresh(watcher: Watcher, turn_id: str, after: int) -> AsyncIterator[Logged]:
    """What the hub says of a turn after `after`, until it is quiet for a while or the watcher fell behind."""
    while not watcher.lagging:
        if watcher.queue.empty():
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    logged = await watcher.queue.get()
            except TimeoutError:
                return
        else:
            logged = watcher.queue.get_nowait()
        if logged[1] == turn_id and logged[0] > after:
            after = logged[0]
            yield logged
    watcher.drain()


class _Writer:
    """Gathers a turn's events and logs them in order, one batch at a time; tells the hub after each commit.

    `put` does not wait for the log: the model goes on meanwhile. An error of the log is raised by the next `put` or
    `flush`.
    """

    def __init__(self, row: dict[str, Any], log: Log, hub: Hub, so_far: Sequence[ev.Event]) -> None:
        self.row = row
        self.finished = False
        self.text = ""
        self._log = log
        self._hub = hub
        self._pending: list[ev.Event] = []
        self._last_began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self.so_far: Sequence[ev.Event] = ()
        """What the turn did with tools, for whoever has to close it."""
        for event in so_far:
            self._note(event)

    async def put(self, event: ev.Event) -> None:
        if self._flushing is not None and self._flushing.done():
            self._flushing.result()
        self.add(event)
        loop = asyncio.get_running_loop()
        when = loop.time() + BURST_SECONDS
        if isinstance(event, ev.TextDelta):
            when = max(when, self._last_began + GATHER_SECONDS)
        if self._timer is None or when < self._timer.when():
            self._stop_timer()
            self._timer = loop.call_at(when, self._begin)

    async def flush(self) -> None:
        """Everything put so far is in the log when this returns. May be tried again after an error."""
        self._stop_timer()
        if self._flushing is not None:
            await self._written(self._flushing)
        if self._pending:
            self._flushing = asyncio.create_task(self._flush())
            await self._written(self._flushing)

    async def _written(self, flushing: asyncio.Task[None]) -> None:
        """Shielded: a turn that is stopped while it writes must still announce what was written, and in order."""
        try:
            await asyncio.shield(flushing)
        finally:
            if flushing.done():
                self._flushing = None

    def _begin(self) -> None:
        self._timer = None
        if self._flushing is None or (self._flushing.done() and self._flushing.exception() is None):
            self._last_began = asyncio.get_running_loop().time()
            self._flushing = asyncio.create_task(self._flush())
        # Otherwise it is writing now, and takes what is pending when it has done with that.

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _flush(self) -> None:
        topics = (self.row["id"], self.row["thread_id"], self.row["owner_id"])
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                logged = await self._log.append(self.row, batch)
            except TrimtabError:
                self._pending = batch + self._pending
                raise
            for seq, wire in logged:
                self._hub.publish(topics, (seq, self.row["id"], wire))

    def add(self, event: ev.Event) -> None:
        """Take an event without asking for it to be written yet."""
        self._note(event)
        last = self._pending[-1] if self._pending else None
        if isinstance(event, ev.TextDelta) and isinstance(last, ev.TextDelta):
            self._pending[-1] = ev.TextDelta(last.text + event.text)
        else:
            self._pending.append(event)

    def _note(self, event: ev.Event) -> None:
        match event:
            case ev.TextDelta():
                self.text += event.text
            case ev.TextReplaced():
                self.text = event.text
            case ev.ToolRequested() | ev.ApprovalDecided() | ev.ToolFinished():
                self.so_far = (*self.so_far, event)
            case ev.TurnFinished() | ev.TurnFailed():
                self.finished = True


def _stopped(writer: _Writer, profile: Profile, *, shutdown: bool) -> ev.Event:
    if shutdown:
        message = "Trimtab was stopped while this was being answered. What it had is kept; ask again for the rest."
        return ev.TurnFailed(ev.TurnStatus.INTERRUPTED, "interrupted", message, writer.text)
    return cancelled(writer.text, profile)


def _failed(code: str, message: str, text: str) -> ev.TurnFailed:
    return ev.TurnFailed(ev.TurnStatus.FAILED, code, message, text)
