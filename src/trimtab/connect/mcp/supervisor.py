"""A server that is there when it is needed: started at the first call, again after it died, not too often."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from trimtab.domain.errors import Conflict, ToolError, TrimtabError, Unavailable

from ..result import Result
from .book import Approved, Server
from .ways import Ways

if TYPE_CHECKING:
    from .link import Link

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
AT_ONCE = 8
"""Calls that one server works on; more wait, within their own deadline."""
UNANSWERED = 3
"""Calls in a row without an answer after which a server is given up on and started anew."""

Answer = TypeVar("Answer")


class Supervised:
    """One server. Calls may come from any task; `close` ends it."""

    def __init__(self, server: Server, ways: Ways) -> None:
        self.server = server
        self._ways = ways
        self._link: Link | None = None
        self._starting: asyncio.Task[Link] | None = None
        self._room = asyncio.Semaphore(AT_ONCE)
        self._failures = 0
        self._not_before = 0.0
        self._last_failure = ""
        self._unanswered = 0
        self._closed = False

    @property
    def running(self) -> bool:
        return self._link is not None and self._link.alive

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link and self._link.alive else None

    async def call(self, pinned: Approved, dotted: str, arguments: Mapping[str, Any]) -> Result:
        """Call a tool, provided that it is still what was approved.

        Raises:
            Conflict: the server describes it differently now.
            ToolError: it failed, or the server did.
            Unavailable: the server does not start.
        """

        from . import content

        async def ask(link: Link) -> Result:
            await self._still(link, pinned, dotted)
            return content.result(await link.call(pinned.definition.name, arguments), dotted)

        return await self.use(ask)

    async def use(self, ask: Callable[[Link], Awaitable[Answer]]) -> Answer:
        """Do something with a live connection; once more when the server had only forgotten our session."""
        async with self._room:
            for last in (False, True):
                link = await self._connected()
                try:
                    answer = await ask(link)
                except ConnectionResetError:
                    await self._give_up(link)
                    if last:
                        raise ToolError(f"MCP server {self.server.name!r} forgets our session at once.") from None
                except asyncio.CancelledError:
                    self._unanswered += 1
                    if self._unanswered >= UNANSWERED:
                        self._unanswered = 0
                        self._abandon(link)
                    raise
                else:
                    self._unanswered = 0
                    return answer
        raise AssertionError("the second try returns or raises")

    async def close(self) -> None:
        """End the server; nothing starts it again."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    async def _still(self, link: Link, pinned: Approved, dotted: str) -> None:
        """Look at each call: a server may describe a tool one way to be approved, and another way afterwards."""
        name = pinned.definition.name
        now = next((found for found in await link.definitions() if found.name == name), None)
        if now is None:
            raise ToolError(f"MCP server {self.server.name!r} has no tool {name!r} any more. {dotted} was not called.")
        if now.sha256 != pinned.definition.sha256:
            raise Conflict(
                f"{dotted} was not called: MCP server {self.server.name!r} describes it differently than when it was "
                f"approved. See what changed and decide: trimtab connectors mcp approve {self.server.name}",
                server=self.server.name,
                tool=name,
                approved=pinned.definition.sha256,
                now=now.sha256,
            )

    async def _connected(self) -> Link:
        if self._link is not None and self._link.alive:
            return self._link
        if self._closed:
            raise Unavailable(
                f"MCP server {self.server.name!r} was stopped: Trimtab is shutting down, or it was removed."
            )
        if self._starting is None or self._starting.done():
            if (wait := self._not_before - time.monotonic()) > 0:
                raise Unavailable(f"{self._last_failure} It is tried again in {wait:.0f} seconds.", retry_after=wait)
            self._starting = self._in_background(self._start())
        # Shielded: who asked first may give up, and the others want it all the same.
        return await asyncio.shield(self._starting)

    async def _start(self) -> Link:
        old, self._link = self._link, None
        if old is not None:
            await old.close()
        try:
            from .link import Link

            link = await Link.open(self.server, self._ways)
        except TrimtabError as error:
            self._failures += 1
            self._last_failure = error.message
            pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
            self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
            raise
        self._failures, self._unanswered = 0, 0
        self._link = link
        return link

    async def _give_up(self, link: Link) -> None:
        if self._link is link:
            self._link = None
        await link.close()

    def _abandon(self, link: Link) -> None:
        """The same without waiting: whoever was cancelled must not be held up."""
        if self._link is link:
            self._link = None
        self._starting = self._in_background(self._restart(link))

    def _in_background(self, work: Coroutine[Any, Any, Link]) -> asyncio.Task[Link]:
        task = asyncio.create_task(work, name=f"start mcp server {self.server.name}")
        # Whoever waits for it hears of a failure; it may be that nobody does any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _restart(self, link: Link) -> Link:
        await link.close()
        return await self._start()
