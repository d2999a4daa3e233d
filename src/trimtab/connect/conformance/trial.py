"""One call of a tool against the check's server, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.domain.errors import TrimtabError
from trimtab.domain.tool import ToolOutcome

from ..cassettes import Exchange
from ..cassettes.playing import SignedIn, placeholder, without_network
from ..declare import Connector
from ..toolbox import ConnectOptions, Override, Toolbox
from .certificates import Certificates
from .faults import Asked, Behave, Routed, Site, honest, refusing, serving
from .watch import Watch, watching

STRAY = "failed inside its own code"
"""How the SDK names an exception that the connector's author did not think of."""


@dataclass
class Trial:
    """What one call did and how it ended: exactly one of `outcome`, `error` and `stray` is set."""

    seconds: float = 0.0
    outcome: ToolOutcome | None = None
    error: TrimtabError | None = None
    stray: str = ""
    """An exception that is none of Trimtab's."""
    asked: list[Asked] = field(default_factory=list)
    dialed: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    watch: Watch = field(default_factory=Watch)

    @property
    def message(self) -> str:
        return self.error.message if self.error else self.stray

    def typed(self) -> list[str]:
        """What keeps this from being a result that a model can read."""
        if self.outcome:
            return []
        if self.stray:
            return [f"It raised {self.stray}, which is no error of Trimtab's."]
        if STRAY in self.message:
            return [
                f"An exception escaped the connector: “{self.message[:200]}”. Read what came with reply.into(Shape), "
                "or raise a ToolError."
            ]
        if not self.message.strip() or len(self.message) > 1000:
            return [f"The error's message has {len(self.message)} characters; a model needs one sentence."]
        return []


async def attempt(
    connector: Connector,
    tool: str,
    arguments: Mapping[str, Any],
    exchanges: Sequence[Exchange],
    certificates: Certificates,
    behave: Behave = honest,
    *,
    kind: str = "good",
    tls: bool = True,
    refuse: bool = False,
    plain_too: bool = False,
    resolver: Any = without_network,
    any_answer: bool = False,
    options: Mapping[str, str] | None = None,
) -> Trial:
    """Call `tool` (``weather.forecast``) of a fresh toolbox, its service being a server that behaves like that."""
    key_header = (connector.idempotency_header or "Idempotency-Key").lower()
    trial, site = Trial(), Site(exchanges, any_answer=any_answer, key_header=key_header)
    async with contextlib.AsyncExitStack() as stack:
        if refuse:
            await stack.enter_async_context(refusing(site))
        else:
            context: ssl.SSLContext | None = certificates.servers[kind] if tls else None
            await stack.enter_async_context(serving(site, behave, context))
        plain = Site(exchanges)
        if plain_too:
            await stack.enter_async_context(serving(plain, honest, None))
        routed: list[Routed] = []

        def below() -> Routed:
            routed.append(Routed(site, certificates, tls=tls, plain=plain.port))
            return routed[-1]

        overrides = {connector.name: Override(options=options or {})}
        toolbox = Toolbox(
            ConnectOptions(resolver=resolver, below=below, secret=placeholder, keeper=SignedIn(), overrides=overrides)
        )
        toolbox.add(connector)
        stack.push_async_callback(toolbox.aclose)
        with watching({site.port, plain.port, 1}) as trial.watch:
            started = time.monotonic()
            try:
                trial.outcome = await toolbox.call(tool, arguments)
                json.dumps(trial.outcome.data)
            except TrimtabError as error:
                trial.error = error
            except Exception as error:
                trial.outcome, trial.stray = None, f"{type(error).__name__}: {str(error)[:200]}"
            except asyncio.CancelledError:
                trial.stray = "CancelledError"
            trial.seconds = time.monotonic() - started
        trial.asked, trial.sent = [*site.ask, *plain.ask], site.sent
        trial.dialed = [entry for transport in routed for entry in transport.dialed]
        for transport in routed:
            await transport.aclose()
    return trial
