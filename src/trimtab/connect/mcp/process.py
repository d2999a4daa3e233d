"""A server's process, and its standard streams as the SDK's transport.

The SDK has a transport of its own; this one knows limits. A line has a largest size, what the server writes to its
error stream is kept only by its end, its environment is given and not inherited, and it leads a process group that is
ended as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage

from trimtab.domain.errors import Unavailable

from ..result import clean

MAX_LINE = 4_000_000
"""Bytes of one message. A server that sends a longer one is stopped."""
KEPT_ERROR_OUTPUT = 4_000
LOOK = 0.02
GRACE = 2.0
"""Seconds to end by itself when its input closes, then again after being told to."""


class Process:
    """A running server. Start it with `Process.start`; `stop` ends it with all it has started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = bytearray()
        self.fault = ""
        """Why reading from it was given up, when it was."""
        self.ended = asyncio.Event()
        """Set when it sends no more."""

    @classmethod
    async def start(cls, argv: tuple[str, ...], env: Mapping[str, str], cwd: str) -> Process:
        """Run a program.

        Raises:
            Unavailable: it cannot be run.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(env), cwd=cwd or None, start_new_session=True,
                limit=MAX_LINE,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise Unavailable(
                f"{argv[0]!r} could not be started: {reason}. Is it installed, and in the PATH?"
            ) from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """The end of what it wrote to its error stream, in one line."""
        text = clean(self._said.decode("utf-8", "replace"))[0]
        return " ".join(text.split())[-250:]

    async def read(self, into: Any) -> None:
        """Pass on its messages until it ends or sends what no message may be."""
        assert self._process.stdout is not None
        try:
            async with into:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while line := await self._line(self._process.stdout):
                        if line.strip():
                            await into.send(_message(line))
        finally:
            self.ended.set()

    async def _line(self, stream: asyncio.StreamReader) -> bytes:
        try:
            return await stream.readline()
        except ValueError:
            self.fault = f"it sent a message of more than {MAX_LINE:,} bytes"
        except OSError as error:
            self.fault = f"its output could not be read ({error.strerror})"
        return b""

    async def write(self, messages: Any, broken: Any) -> None:
        """Send it messages; when it takes no more, close `broken`, so that nobody waits for an answer."""
        assert self._process.stdin is not None
        try:
            async with messages:
                async for message in messages:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    self._process.stdin.write(text.encode() + b"\n")
                    await self._process.stdin.drain()
        except (OSError, anyio.ClosedResourceError):
            await broken.aclose()

    async def listen(self) -> None:
        """Keep the end of what it writes to its error stream, so that its pipe never fills."""
        assert self._process.stderr is not None
        while piece := await self._process.stderr.read(65_536):
            self._said += piece
            del self._said[:-KEPT_ERROR_OUTPUT]

    async def stop(self) -> None:
        """End it: close its input, then tell its process group, then kill it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for order in (None, signal.SIGTERM):
            if order is not None:
                self._signal(order)
            if await self._exited():
                break
        self._signal(signal.SIGKILL)  # whatever of its group is left, also when it has ended by itself
        await self._exited()
        # A grandchild outside the group may hold the pipes open; ours are closed all the same.
        self._process._transport.close()  # type: ignore[attr-defined]

    async def _exited(self) -> bool:
        """Not `wait()`: that also waits for the pipes, which a program that the server has started may hold open."""
        for _ in range(int(GRACE / LOOK)):
            if self._process.returncode is not None:
                return True
            await asyncio.sleep(LOOK)
        return False

    def _signal(self, order: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, order)


@asynccontextmanager
async def streams(process: Process) -> AsyncIterator[Any]:
    """The process as an SDK transport: its messages, and where ours go. It is ended on the way out."""
    into, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, messages = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(process.read, into)
        group.start_soon(process.write, messages, into)
        group.start_soon(process.listen)
        try:
            yield read, write
        finally:
            read.close()
            write.close()
            with anyio.CancelScope(shield=True):
                await process.stop()
            group.cancel_scope.cancel()
    for stream in (into, read, write, messages):
        await stream.aclose()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
