"""What was said in a thread, up to a message: what a turn shows the model.

An answer that is final never changes, and neither does the path that leads to it. So the paths of the threads that
were used last are kept, and a turn reads only what is new: a long thread costs no more than a short one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from sqlalchemy import Connection

from . import threads

Line = tuple[tuple[str, str], ...]
"""``(role, text)``, oldest first."""

KEPT_LINES = 256
NEW = 4
"""Messages that are read one by one before the whole thread is read instead."""


class Histories:
    """Paths by the id of their last message. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._lock = threading.Lock()

    def line(self, connection: Connection, thread_id: str, head: str | None) -> Line:
        """The path to `head`, which is final, itself included. The caller has checked the owner."""
        at = head
        new: list[tuple[str, str]] = []
        while at is not None and len(new) < NEW:
            with self._lock:
                known = self._lines.pop(at, None)
            if known is not None:
                return self._keep(head, (*known, *reversed(new)))
            message = threads.said(connection, at)
            if message is None:
                break
            at, role, text = message
            new.append((role, text))
        if at is not None:
            new = threads.history(connection, thread_id, head)[::-1]
        return self._keep(head, tuple(reversed(new)))

    def _keep(self, head: str | None, line: Line) -> Line:
        if head is not None:
            with self._lock:
                self._lines[head] = line
                while len(self._lines) > KEPT_LINES:
                    self._lines.popitem(last=False)
        return line
