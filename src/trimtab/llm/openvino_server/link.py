"""Messages between the worker and the front: JSON, each led by its length in four bytes."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import Any

import orjson

_CHUNK = 1 << 18
_LARGEST = 1 << 28


def frame(message: Any) -> bytes:
    data = orjson.dumps(message)
    return len(data).to_bytes(4, "big") + data


class WorkerLink:
    """The worker's end. It never waits while there is work."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._woken, self._bell = os.pipe()

    def wake(self) -> None:
        """End a `receive` that waits. May be called by any thread."""
        os.write(self._bell, b".")

    def close(self) -> None:
        self._connection.close()

    def send(self, message: Any) -> None:
        self._connection.sendall(frame(message))

    def receive(self, seconds: float | None) -> list[dict[str, Any]]:
        """The messages that are here, after waiting for at most so long for one, or for `wake`.

        Raises:
            EOFError: the front has gone.
        """
        found = self._parse()
        if found:
            return found
        here = self._connection.fileno()
        while ready := select.select([here, self._woken], [], [], seconds)[0]:
            if self._woken in ready:
                os.read(self._woken, 64)
                seconds = 0
            if here not in ready:
                continue
            data = self._connection.recv(_CHUNK)
            if not data:
                raise EOFError
            self._buffer += data
            seconds = 0
            if len(data) < _CHUNK:
                break
        return self._parse()

    def _parse(self) -> list[dict[str, Any]]:
        found, at, buffer = [], 0, self._buffer
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if len(buffer) - at - 4 < size:
                break
            found.append(orjson.loads(memoryview(buffer)[at + 4 : at + 4 + size]))
            at += 4 + size
        del buffer[:at]
        return found


class FrontLink:
    """The front's end, on its event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, connection: socket.socket) -> FrontLink:
        return cls(*await asyncio.open_connection(sock=connection, limit=_LARGEST))

    def send(self, message: Any) -> None:
        self._writer.write(frame(message))

    async def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: the worker has gone.
        """
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        return orjson.loads(await self._reader.readexactly(size))
