"""Writing down the calls of tools that belong to no stored turn: by hand, for an MCP client, for an OpenAI client.

    audit = Audit(database)
    outcome = await audit.run(owner, "hand", info, arguments, lambda: toolbox.call(name, arguments))

Calls of stored turns are written with their events (`store.turns`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput
from trimtab.domain.tool import Effect, ToolInfo, ToolOutcome
from trimtab.store import audit
from trimtab.store.database import Database


class Audit:
    """The audit log of a database. `via` is one of `store.audit.VIA`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(
        self,
        owner: str,
        via: str,
        tool: ToolInfo,
        arguments: Mapping[str, Any],
        call: Callable[[], Awaitable[ToolOutcome]],
    ) -> ToolOutcome:
        """Run a call and write down how it ended; where it changes anything, also that it begins, and before it does.

        Raises what the call raises, and `Unavailable` when the log cannot be written: what changes anything has not
        run then.
        """
        call_id = ids.new("call")
        if tool.effect is not Effect.READ:
            await self._add(owner, via, tool, arguments, audit.BEGUN, 0.0, call_id)
        began, status = time.monotonic(), ev.CallStatus.CANCELLED
        try:
            outcome = await call()
            status = ev.CallStatus.OK
            return outcome
        except InvalidInput:
            status = ev.CallStatus.INVALID
            raise
        except Exception:
            status = ev.CallStatus.ERROR
            raise
        finally:
            row = self._add(owner, via, tool, arguments, status.value, time.monotonic() - began, call_id)
            await asyncio.shield(row)

    async def of_event(self, owner: str, via: str, turn: str, request: ev.ToolRequested, end: ev.ToolFinished) -> None:
        """Write down a call of a turn that is not stored."""
        await self._database.write(
            audit.add,
            owner=owner,
            via=via,
            connector=request.connector,
            tool=request.tool,
            arguments=request.arguments,
            effect=request.effect,
            status=end.status.value,
            seconds=end.seconds,
            turn=turn,
            call=request.call_id,
        )

    async def _add(
        self,
        owner: str,
        via: str,
        tool: ToolInfo,
        arguments: Mapping[str, Any],
        status: str,
        seconds: float,
        call_id: str,
    ) -> None:
        await self._database.write(
            audit.add,
            owner=owner,
            via=via,
            connector=tool.connector,
            tool=tool.name,
            arguments=arguments,
            effect=tool.effect.value,
            status=status,
            seconds=seconds,
            call=call_id,
        )
