"""The work bench: one connector, its cassettes, and a thread to run its tools in that may be given up.

A connector under test may block the thread, swallow being cancelled, or never return. So tools run in a thread of
their own with an event loop; whoever waits for it waits no longer than the deadline allows, says so, and takes a new
thread. The old one is left to itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..cassettes import Tape
from ..declare import Connector, Declaration
from .certificates import Certificates

T = TypeVar("T")

SLACK = 0.5
"""Seconds that a call may take beyond its deadline."""


class Stuck(Exception):
    """The work did not end in time, not even when it was cancelled."""


@dataclass(frozen=True)
class Pace:
    """Deadlines for faulty cases, in seconds: the declared ones would take minutes."""

    request: float = 0.4
    tool: float = 0.8

    def quick(self, connector: Connector) -> Connector:
        """The same connector in a hurry. What it declares beyond times (hosts, effects, sizes) stays."""
        hurried = copy(connector)
        hurried.limits = replace(
            connector.limits, connect=self.request * 0.75, read=self.request * 0.75, total=self.request
        )
        hurried.retry = replace(connector.retry, base=0.01, cap=0.03)
        hurried.tools = {name: replace(tool, timeout=self.tool) for name, tool in connector.tools.items()}
        return hurried


@dataclass
class Bench:
    """What every requirement is given."""

    connector: Connector
    tapes: list[Tape]
    certificates: Certificates
    scratch: Path
    pace: Pace = Pace()
    examples: int = 100
    """Argument sets a tool is fuzzed with."""
    rounds: int = 1
    """How often each fault is injected."""
    seed: int = 1
    figures: dict[str, int] = field(default_factory=dict)
    _worker: _Worker | None = None
    _pulse: _Pulse | None = None

    def count(self, what: str, by: int = 1) -> None:
        self.figures[what] = self.figures.get(what, 0) + by

    def tools(self) -> list[Declaration]:
        return [tool for _, tool in sorted(self.connector.tools.items())]

    def tapes_for(self, tool: Declaration) -> list[Tape]:
        return [tape for tape in self.tapes if tape.tool == tool.dotted]

    def good_tapes(self) -> list[Tape]:
        """Those that end in a result and ask a service: what faults are injected into."""
        known = {tool.dotted for tool in self.tools()}
        return [tape for tape in self.tapes if tape.exchanges and not tape.error and tape.tool in known]

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
        """Run it in the bench's thread.

        Raises:
            Stuck: it did not end within `seconds`.
        """
        if self._worker is None:
            self._worker = _Worker()
        try:
            return self._worker.run(work, seconds, self.starved)
        except Stuck:
            self._worker = None
            raise

    def starved(self) -> float:
        """Seconds, since the bench was set up, in which this process wanted to run and was not let."""
        if self._pulse is None:
            self._pulse = _Pulse()
        return self._pulse.late

    def close(self) -> None:
        if self._worker:
            self._worker.stop()
            self._worker = None
        if self._pulse:
            self._pulse.stop()
            self._pulse = None


class _Pulse:
    """A thread that only wakes up: when it is late, the machine is busy with others, and no connector is to blame.

    A connector that blocks its thread does not make this one late; Python lets them take turns.
    """

    BEAT = 0.02

    def __init__(self) -> None:
        self.late = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="trimtab-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=2.0)

    def _beat(self) -> None:
        while True:
            before = time.monotonic()
            if self._over.wait(self.BEAT):
                return
            self.late += max(0.0, time.monotonic() - before - 2 * self.BEAT)


class _Worker:
    """A daemon thread with an event loop. Daemon: a connector that never returns must not keep the program."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Coroutine[Any, Any, Any]], Future[Any]] | None]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="trimtab-bench", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float, starved: Callable[[], float]) -> T:
        done: Future[T] = Future()
        began, before = time.monotonic(), starved()
        self._work.put((work, done))
        while not done.done():
            left = began + seconds + (starved() - before) - time.monotonic()
            if left <= 0:
                self._work.put(None)  # should it ever come back
                raise Stuck(f"it did not end within {seconds:g} seconds, not even when it was cancelled")
            wait([done], timeout=min(left, 0.5))
        return done.result()

    def stop(self) -> None:
        self._work.put(None)
        self._thread.join(timeout=2.0)

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            while (item := self._work.get()) is not None:
                work, done = item
                try:
                    done.set_result(runner.run(work(), context=contextvars.copy_context()))
                except BaseException as error:
                    done.set_exception(error)
