"""Events reach the log in order and are announced once they are in it, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from trimtab.domain import events as ev
from trimtab.domain.errors import Unavailable
from trimtab.orchestrator.event_writer import EventWriter, Written
from trimtab.orchestrator.hub import Hub

ROW = {"id": "trn_1", "thread_id": "thr_1", "owner_id": "usr_1"}


class Book:
    """A log that answers at once, refuses on demand, or when it is told to."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.refusals = 0
        self.held: asyncio.Event | None = None

    def append(self, turn: Mapping[str, Any], batch: Sequence[ev.Event]) -> asyncio.Future[Written]:
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        if self.refusals:
            self.refusals -= 1
            answer.set_exception(Unavailable("The disk is full."))
        elif self.held is not None:
            return asyncio.ensure_future(self._late(batch, self.held))
        else:
            answer.set_result(self._keep(batch))
        return answer

    async def _late(self, batch: Sequence[ev.Event], held: asyncio.Event) -> Written:
        await held.wait()
        return self._keep(batch)

    def _keep(self, batch: Sequence[ev.Event]) -> Written:
        before = len(self.kept)
        self.kept += [ev.to_wire(event) for event in batch]
        return list(enumerate(self.kept[before:], before + 1))


async def test_what_the_log_refused_is_offered_again_before_what_came_later() -> None:
    book, hub = Book(), Hub()
    writer = EventWriter(ROW, book, hub, ())
    with hub.watch("thr_1") as watcher:
        writer.put(ev.TurnStarted("model", "question"))
        await writer.flush()
        book.refusals = 1
        writer.put(ev.TextDelta("one"))
        with pytest.raises(Unavailable, match="disk is full"):
            await writer.flush()
        with pytest.raises(Unavailable, match="disk is full"):
            writer.put(ev.TextDelta("lost if nobody listens"))
        writer.add(ev.TextReplaced("two", "better"))
        await writer.flush()
        told = [watcher.queue.get_nowait() for _ in range(watcher.queue.qsize())]
    assert [wire["type"] for wire in book.kept] == ["turn.started", "text.delta", "text.replaced"]
    assert told == [(seq, "trn_1", wire) for seq, wire in enumerate(book.kept, 1)]


async def test_a_turn_that_is_stopped_while_it_writes_has_it_announced_all_the_same() -> None:
    book, hub = Book(), Hub()
    book.held = asyncio.Event()
    writer = EventWriter(ROW, book, hub, ())
    with hub.watch("trn_1") as watcher:
        writer.put(ev.TextDelta("half an ans"))
        flushing = asyncio.create_task(writer.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        writer.add(ev.TurnFailed(ev.TurnStatus.INTERRUPTED, "interrupted", "Stopped.", writer.text))
        book.held.set()
        await writer.flush()
        told = [watcher.queue.get_nowait()[2]["type"] for _ in range(watcher.queue.qsize())]
    assert told == ["text.delta", "turn.failed"]
