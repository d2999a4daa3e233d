"""Turns as background tasks that append to the event log; faces only read the log.

A click in the browser, a closed tab or a dropped connection touches nothing here. The log is handed in as a contract,
so this module knows no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import Conflict, TrimtabError, Unavailable
from trimtab.domain.model import Profile

from . import event_writer
from .event_writer import EventWriter, Written
from .hub import Hub, Logged, Watcher
from .state import Turn
from .turn import Orchestrator, cancelled

_log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 1.0, 5.0)
"""When the log refuses a turn's last event it is offered again after each of these."""
SHUTDOWN, DROPPED = "shutdown", "dropped"
"""Why a turn is cancelled, where it is not a person who stops it."""
LAST = (ev.TurnFinished.type, ev.TurnFailed.type)
POLL_SECONDS = 1.0
"""How often a watcher looks into the log unasked: another process may be the one that runs the turn."""


class Log(event_writer.Log, Protocol):
    """The event log, as far as running turns needs it."""

    async def events(self, turn_id: str, after: int = 0) -> Written: ...

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
        """Begin or go on with a turn whose row is stored, or is being: what the log is given comes after it.
        `orchestrator` where another than ours answers."""
        if row["id"] in self._tasks:
            return
        task = asyncio.create_task(
            self._run(dict(row), turn, orchestrator or self.orchestrator), name=f"turn {row['id']}"
        )
        self._tasks[row["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(row["id"], None))

    def drop(self, turn_id: str) -> None:
        """Stop a turn whose row could not be stored: there is nothing to log it under."""
        if task := self._tasks.get(turn_id):
            task.cancel(DROPPED)

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
            task.cancel(SHUTDOWN)
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=5)

    # ------------------------------------------------------------------ one turn

    async def _run(self, row: dict[str, Any], turn: Turn, orchestrator: Orchestrator) -> None:
        writer = EventWriter(row, self._log, self.hub, turn.so_far)
        try:
            async with asyncio.timeout(orchestrator.limits.deadline):
                await self._drive(row, turn, writer, orchestrator)
        except asyncio.CancelledError as reason:
            if reason.args == (DROPPED,):
                return
            await self._end(writer, _stopped(writer, orchestrator.profile, shutdown=reason.args == (SHUTDOWN,)))
        except TimeoutError:
            message = f"No answer within {orchestrator.limits.deadline:g} seconds. Ask again, or ask for less."
            await self._end(writer, _failed("deadline_exceeded", message, writer.text))
        except TrimtabError as error:
            await self._end(writer, _failed(error.code, error.message, writer.text))
        except Exception as error:
            _log.exception("turn %s failed", row["id"])
            message = f"Something went wrong inside Trimtab ({type(error).__name__}). The log has the details."
            await self._end(writer, _failed("internal_error", message, writer.text))

    async def _drive(self, row: dict[str, Any], turn: Turn, writer: EventWriter, orchestrator: Orchestrator) -> None:
        while True:
            async with contextlib.aclosing(orchestrator.run(turn)) as events:
                async for event in events:
                    writer.put(event)
            await writer.flush()
            if writer.finished or await self._log.wait_if_undecided(row):
                return
            so_far = [ev.from_wire(wire) for _, wire in await self._log.events(row["id"])]
            turn = replace(turn, so_far=so_far)
            writer.so_far = so_far  # the decision was logged by somebody else

    async def _end(self, writer: EventWriter, event: ev.Event) -> None:
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
                while logged := await _next(watcher, turn_id, after):
                    after = logged[0]
                    yield logged
                    if logged[2]["type"] in LAST:
                        return
                watcher.drain()


async def _next(watcher: Watcher, turn_id: str, after: int) -> Logged | None:
    """What the hub says next of a turn after `after`; None when it is quiet for a while or the watcher fell behind."""
    while not watcher.lagging:
        if watcher.queue.empty():
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    logged = await watcher.queue.get()
            except TimeoutError:
                return None
        else:
            logged = watcher.queue.get_nowait()
        if logged[1] == turn_id and logged[0] > after:
            return logged
    return None


def _stopped(writer: EventWriter, profile: Profile, *, shutdown: bool) -> ev.Event:
    if shutdown:
        message = "Trimtab was stopped while this was being answered. What it had is kept; ask again for the rest."
        return ev.TurnFailed(ev.TurnStatus.INTERRUPTED, "interrupted", message, writer.text)
    return cancelled(writer.text, profile)


def _failed(code: str, message: str, text: str) -> ev.TurnFailed:
    return ev.TurnFailed(ev.TurnStatus.FAILED, code, message, text)
