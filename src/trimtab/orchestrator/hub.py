"""Who is watching which turn. Events go to the log first; after the commit the hub tells those who wait.

A watcher that falls behind is not waited for: its queue is dropped and it reads on from the log.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Logged = tuple[int, str, dict[str, Any]]
"""``(seq, turn_id, event on the wire)``."""

QUEUE = 256


class Watcher:
    """A bounded queue of logged events; `lagging` means some were dropped and must be read from the log."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Logged] = asyncio.Queue(QUEUE)
        self.lagging = False

    def put(self, logged: Logged) -> None:
        try:
            self.queue.put_nowait(logged)
        except asyncio.QueueFull:
            self.lagging = True

    def drain(self) -> None:
        while not self.queue.empty():
            self.queue.get_nowait()
        self.lagging = False


class Hub:
    """Topics are turn ids, thread ids and owner ids."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[Watcher]] = defaultdict(set)

    @contextmanager
    def watch(self, topic: str) -> Iterator[Watcher]:
        watcher = Watcher()
        self._watchers[topic].add(watcher)
        try:
            yield watcher
        finally:
            self._watchers[topic].discard(watcher)
            if not self._watchers[topic]:
                del self._watchers[topic]

    def publish(self, topics: tuple[str, ...], *logged: Logged) -> None:
        for watcher in [watcher for topic in topics for watcher in self._watchers.get(topic, ())]:
            for one in logged:
                watcher.put(one)
