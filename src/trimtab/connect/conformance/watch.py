"""Seeing what a connector does behind its client's back: sockets, look-ups, processes, files it writes.

Python tells audit hooks of these. Ours looks only where a check is running (a context variable says so, which tasks
and `asyncio.to_thread` inherit), writes down what it sees, and refuses connections and processes. It is a witness
against mistakes and shortcuts, no sandbox: code that wants to get round an audit hook can.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

PROCESSES = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"})
CHANGES = frozenset({"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"})


@dataclass
class Watch:
    """`ports` of loopback may be connected to: the check's own servers."""

    ports: set[int] = field(default_factory=set)
    reached: list[str] = field(default_factory=list)
    """Connections and look-ups that did not go through the client."""
    started: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            self._connection(args[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self.reached.append(f"a look-up of {args[0]}")
            raise PermissionError("a name was looked up outside the connector's client")
        elif event in PROCESSES:
            self.started.append(f"{event}: {str(args[0])[:80]}")
            raise PermissionError("a process was started while the connector was checked")
        elif event in CHANGES:
            self.written.append(f"{event} {args[0]}")
        elif event == "open" and _writes(args):
            self.written.append(str(args[0]))

    def _connection(self, address: Any) -> None:
        if not isinstance(address, tuple) or (address[0] in ("127.0.0.1", "::1") and address[1] in self.ports):
            return
        self.reached.append(f"a connection to {address[0]}:{address[1]}")
        raise PermissionError("a connection was opened outside the connector's client")


def _writes(args: tuple[Any, ...]) -> bool:
    path, mode, flags = (*args, None, None)[:3]
    if isinstance(path, int) or "__pycache__" in str(path) or str(path) == os.devnull:
        return False
    if isinstance(mode, str):
        return any(char in mode for char in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


_current: ContextVar[Watch | None] = ContextVar("trimtab_conformance_watch", default=None)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if (watch := _current.get()) is not None:
        watch.see(event, args)


@functools.cache
def _installed() -> bool:
    sys.addaudithook(_hook)  # for the life of the process: Python has no way to take one away
    return True


@contextmanager
def watching(ports: set[int] | None = None) -> Iterator[Watch]:
    """What the code inside does is seen."""
    _installed()
    watch = Watch(ports=ports or set())
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """The check's own doings inside."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
