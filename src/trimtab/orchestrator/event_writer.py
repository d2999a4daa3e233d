"""A turn's events on their way into the log: gathered, written in order, announced once they are on disk.

Text is gathered for a tenth of a second and all else (and the first text) for a few milliseconds: nobody sees that,
and a burst costs one commit. The turn does not wait meanwhile, and while one batch is being written the next gathers.
There is no task behind this: what a batch does when it is written is a callback, so a turn that is stopped while it
writes still has it announced.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from trimtab.domain import events as ev

from .hub import Hub

GATHER_SECONDS = 0.1
BURST_SECONDS = 0.005

Written = list[tuple[int, dict[str, Any]]]
"""``(seq, wire)`` of each event of a batch, as it is in the log."""


class Log(Protocol):
    """The event log, as far as writing to it goes. `turn` is the turn's row."""

    def append(self, turn: Mapping[str, Any], batch: Sequence[ev.Event]) -> Awaitable[Written]: ...


class EventWriter:
    """Of one turn, in its event loop. `so_far` are the events that the turn has in the log already."""

    def __init__(self, row: Mapping[str, Any], log: Log, hub: Hub, so_far: Sequence[ev.Event]) -> None:
        self.row = row
        self.finished = False
        self.text = ""
        self._log = log
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._pending: list[ev.Event] = []
        self._last_began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[Written] | None = None
        self._failure: BaseException | None = None
        self.so_far: Sequence[ev.Event] = ()
        """What the turn did with tools, for whoever has to close it."""
        for event in so_far:
            self._note(event)

    def put(self, event: ev.Event) -> None:
        """Take an event and have it written soon. Raises what the log said about an earlier one."""
        if self._failure is not None:
            raise self._failure
        self.add(event)
        text = isinstance(event, ev.TextDelta)
        if text and self._timer is not None:
            return  # whatever that is set for comes before this need be written
        when = self._loop.time() + BURST_SECONDS
        if text:
            when = max(when, self._last_began + GATHER_SECONDS)
        if self._timer is None or when < self._timer.when():
            self._stop_timer()
            self._timer = self._loop.call_at(when, self._begin)

    def add(self, event: ev.Event) -> None:
        """Take an event without asking for it to be written yet."""
        self._note(event)
        last = self._pending[-1] if self._pending else None
        if isinstance(event, ev.TextDelta) and isinstance(last, ev.TextDelta):
            self._pending[-1] = ev.TextDelta(last.text + event.text)
        else:
            self._pending.append(event)

    async def flush(self) -> None:
        """Everything taken so far is in the log when this returns. May be tried again after an error."""
        self._failure = None
        self._begin()
        while self._writing is not None:
            told: asyncio.Future[None] = self._loop.create_future()  # not the batch: that goes on when we are cancelled
            self._writing.add_done_callback(functools.partial(_tell, told))
            await told
        if self._failure is not None:
            raise self._failure

    def _begin(self) -> None:
        """Write what is pending, unless a batch is being written: what is pending then follows it."""
        self._stop_timer()
        if self._pending and self._writing is None and self._failure is None:
            batch, self._pending = self._pending, []
            self._last_began = self._loop.time()
            self._writing = asyncio.ensure_future(self._log.append(self.row, batch))
            self._writing.add_done_callback(functools.partial(self._written, batch))

    def _written(self, batch: list[ev.Event], writing: asyncio.Future[Written]) -> None:
        self._writing = None
        self._failure = writing.exception()
        if self._failure is not None:
            self._pending = batch + self._pending
            return
        topics = (self.row["id"], self.row["thread_id"], self.row["owner_id"])
        self._hub.publish(topics, *((seq, self.row["id"], wire) for seq, wire in writing.result()))
        self._begin()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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


def _tell(waiting: asyncio.Future[None], _done: object) -> None:
    if not waiting.done():
        waiting.set_result(None)
