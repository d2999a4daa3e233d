"""One connector at work: its sign-in, its guards, its places, its history. What one does stays with it.

A call waits for a place (bulkhead), is given a client that knows what the connector and the tool declared, and ends by
its deadline, whatever the service does. Calls of other connectors share nothing with it but the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import httpx

from trimtab.domain.errors import ToolError, TrimtabError
from trimtab.domain.tool import CALL_ID, ToolOutcome

from .auth import Auth, secret_names
from .authorize import Desk
from .binding import run_tool
from .budget import Bulkhead
from .credentials import Credential, Fixed, Secrets
from .declare import Connector, Declaration
from .guards import Guards
from .health import CallRecord, Health, History
from .http import Declared, Http
from .oauth import Endpoint
from .options import ConnectOptions, Override
from .reach import Reach
from .setup import Setup, lacking
from .sign_in import SignIn
from .transport import PinnedTransport

MARGIN = 0.05
"""Seconds by which the client gives up before the call does, so that it is the one to say what it waited for."""


class Line:
    """Of one connector in one toolbox."""

    def __init__(self, connector: Connector, options: ConnectOptions) -> None:
        self.connector = connector
        self._options = options
        self._override = options.overrides.get(connector.name, Override())
        self.guards = Guards(rate=connector.rate, breaker=connector.breaker)
        self.bulkhead = Bulkhead(connector.name, connector.limits.concurrent, connector.limits.patience)
        self.history = History()
        auth: Auth | None = connector.auth
        self.sign_in = SignIn(
            connector.name, auth, secret=options.secret, keeper=options.keeper, endpoint=self._endpoint
        )

        self.desk = Desk(self.sign_in)

    async def call(self, declared: Declaration, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Run a tool with arguments that were checked.

        Raises:
            ToolError: it ran and failed, or `ToolBusy`: it did not run.
            InvalidInput: the function itself found an argument wrong.
        """
        began, at = time.monotonic(), time.time()
        secrets = Secrets()
        http: list[Http] = []
        error: BaseException | None = None
        try:
            return await self._placed(declared, arguments, secrets, http)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._remember(declared, http[0] if http else None, error, at, time.monotonic() - began)

    @property
    def health(self) -> Health:
        rate = self.connector.rate
        return Health(
            breaker=self.guards.circuits.state,
            error_rate=round(self.history.error_rate, 4),
            p95=round(self.history.p95, 4),
            running=self.bulkhead.running,
            rate_left=self.guards.rate.left,
            rate_limit=rate.calls if rate else None,
            rate_per=rate.per if rate else None,
            requests=self.guards.sent,
            retries=self.guards.retries.spent,
            recent=tuple(self.history.records),
        )

    @property
    def lacking(self) -> tuple[str, ...]:
        """The options that a person must set before it works."""
        return lacking(self.connector.options, self.given)

    @property
    def given(self) -> Mapping[str, str]:
        """The options that a person set."""
        return self._override.options

    async def aclose(self) -> None:
        await self.desk.aclose()
        await self.sign_in.aclose()

    async def _placed(
        self, declared: Declaration, arguments: Mapping[str, Any], secrets: Secrets, made: list[Http]
    ) -> ToolOutcome:
        until = asyncio.get_running_loop().time() + declared.timeout
        setup = self._setup(secrets, declared) if declared.setup_parameters else None
        async with self.bulkhead.place():
            if not declared.http_parameters:
                # It may hold the key all the same, and say it.
                await self.sign_in.account(secrets)
                return await run_tool(
                    declared, arguments, None, secrets, until=until, count=self._options.count, setup=setup
                )
            transport = self._transport(self.connector.limits.connect)
            try:
                http = await self._http(declared, transport, secrets, until - MARGIN)
                made.append(http)
                return await run_tool(
                    declared, arguments, http, secrets, until=until, count=self._options.count, setup=setup
                )
            finally:
                await transport.aclose()

    def _setup(self, secrets: Secrets, declared: Declaration) -> Setup:
        return Setup(
            self.connector.name,
            self.connector.options,
            self._override.options,
            secret=self._options.secret,
            secret_names=secret_names(self.connector.auth),
            secrets=secrets,
            call_key=_call_key(declared.dotted),
        )

    async def _http(
        self, declared: Declaration, transport: httpx.AsyncBaseTransport, secrets: Secrets, until: float
    ) -> Http:
        connector, override = self.connector, self._override
        account = await self.sign_in.account(secrets)
        credential: Any = await account.credential() if isinstance(account, Fixed) else account
        assert credential is None or isinstance(credential, Credential) or account is credential
        self._open_cache()
        return Http(
            Reach(connector.hosts, connector.plain_http, override.base_url, override.allow_private),
            limits=connector.limits,
            retry=connector.retry,
            transport=transport,
            credential=credential,
            user_agent=override.user_agent or f"{_agent()} ({connector.name} connector {connector.version})",
            guards=self.guards,
            declared=Declared(
                effect=declared.effect,
                read_by_post=declared.read_by_post,
                idempotency_header=connector.idempotency_header,
                pages=connector.pages,
                tool=declared.dotted,
            ),
            call_key=_call_key(declared.dotted),
            until=until,
        )

    def _open_cache(self) -> None:
        if self.connector.cache is not None and self.guards.cached is None:
            from .caching import Cached  # hishel: only where a connector caches

            self.guards.cached = Cached(self.connector.cache)

    def _transport(self, lookup_timeout: float) -> PinnedTransport:
        return PinnedTransport(
            allow_private=self._override.allow_private,
            resolver=self._options.resolver,
            ca_file=self._options.ca_file,
            lookup_timeout=lookup_timeout,
            inner=self._options.below() if self._options.below else None,
        )

    def _endpoint(self, declared_url: str) -> Endpoint:
        url = self._override.token_url or declared_url
        return Endpoint(url, lambda: self._transport(3.0), self._override.allow_private)

    def _remember(
        self, declared: Declaration, http: Http | None, error: BaseException | None, at: float, seconds: float
    ) -> None:
        replies = http.replies if http else []
        record = CallRecord(
            at=at,
            connector=self.connector.name,
            tool=declared.dotted,
            effect=declared.effect.value,
            ok=error is None,
            seconds=round(seconds, 4),
            reason=_reason(error),
            message=error.message[:500] if isinstance(error, TrimtabError) else "",
            requests=http.sent if http else 0,
            cached=bool(replies) and all(reply.from_cache for reply in replies),
            stale=any(reply.stale for reply in replies),
        )
        self.history.records.append(record)
        self._options.log(record)


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, ToolError):
        return str(error.detail.get("reason", "failed"))
    return error.code if isinstance(error, TrimtabError) else "stopped"


def _call_key(tool: str) -> str:
    """The same for the same call of a conversation, so that one run again after a crash is recognised."""
    call = CALL_ID.get()
    return hashlib.sha256(f"{tool}\n{call}".encode()).hexdigest()[:32] if call else uuid.uuid4().hex


@functools.cache
def _agent() -> str:
    return f"Trimtab/{version('trimtab')}"
