"""How one connector is signed in: which secrets it has, its tokens, and whether a person must do something.

A token is renewed once, however many calls want it: they wait for each other inside the process, and the keeper's lock
makes other processes wait, who then find the new one. What the server refuses to renew is remembered as "reconnect".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from pydantic import SecretStr

from trimtab.domain.errors import ToolError, TrimtabError

from .auth import ApiKey, Auth, Basic, Bearer, ClientCredentials, OAuth, secret_names
from .credentials import Account, Credential, Fixed, Secrets, fingerprint
from .oauth import Endpoint, Refused, Tokens, credentials_form, off_loop, refresh_form
from .vault import Keeper

GONE = frozenset({"invalid_grant", "invalid_token", "access_denied"})
"""What a token endpoint says when no repetition will help."""
PAUSE = 60.0
"""Seconds in which a token that the service refuses is renewed once."""


class SignIn:
    """Of one connector. `endpoint` makes the token endpoint for a URL."""

    def __init__(
        self,
        name: str,
        auth: Auth | None,
        *,
        secret: Callable[[str], SecretStr | None],
        keeper: Keeper,
        endpoint: Callable[[str], Endpoint],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.auth = auth
        self._secret = secret
        self._keeper = keeper
        self.endpoint = endpoint
        self._clock = clock
        self._tokens: Tokens | None = None
        self._renewal: asyncio.Task[Tokens] | None = None
        self._forced_at = float("-inf")

    @property
    def kept_as(self) -> str:
        """The name under which the tokens are kept."""
        return f"TRIMTAB_TOKENS_{self.name.upper()}"

    def state(self) -> str:
        """``"none"`` needed, ``"ready"``, ``"missing NAME"``, ``"not connected"``, ``"reconnect"``, ``"optional"``
        (works without, and none is there), or why the secrets cannot be read."""
        if self.auth is None:
            return "none"
        try:
            missing = [name for name in secret_names(self.auth) if self._secret(name) is None]
            if missing:
                return "optional" if getattr(self.auth, "optional", False) else f"missing {missing[0]}"
            if not isinstance(self.auth, OAuth):
                return "ready"
            tokens = self._kept()
        except TrimtabError as error:
            return f"unreadable: {error.message}"
        if tokens is None:
            return "not connected"
        return "reconnect" if tokens.reconnect else "ready"

    async def account(self, secrets: Secrets) -> Account | None:
        """Who the connector's requests are made for; what it uses is added to `secrets`.

        Raises:
            ToolError: a secret is missing or cannot be read, or a person must sign in.
        """
        auth = self.auth
        if auth is None:
            return None
        values = await off_loop(lambda: self._values(auth))
        if values is None:
            return None
        for name, value in zip(secret_names(auth), values, strict=True):
            if not (isinstance(auth, Basic) and name == auth.user_env):
                secrets.add(value)
        match auth:
            case ApiKey():
                return Fixed(Credential(auth.header, auth.query, auth.prefix + values[0]))
            case Bearer():
                return Fixed(Credential("Authorization", value=f"Bearer {values[0]}"))
            case Basic():
                pair = base64.b64encode(":".join(values).encode()).decode()
                secrets.add(pair)
                return Fixed(Credential("Authorization", value=f"Basic {pair}"))
            case ClientCredentials():
                return _TokenAccount(self, secrets, fingerprint("\n".join(values)))
            case OAuth():
                tokens = await off_loop(self._kept)
                if tokens is None or tokens.reconnect:
                    raise self._must_connect("signed in" if tokens is None else "signed in again")
                return _TokenAccount(self, secrets, fingerprint(tokens.account))

    def keep(self, tokens: Tokens) -> None:
        """After a sign-in."""
        self._tokens = tokens
        self._keeper.keep(self.kept_as, tokens.text())

    def forget(self) -> None:
        """Sign out: the tokens are gone from here. The service may still hold them valid until they end."""
        self._tokens = None
        self._keeper.forget(self.kept_as)

    def lookup(self, name: str) -> str:
        """A secret.

        Raises:
            ToolError: there is none of that name, or where it is kept cannot be read.
        """
        try:
            found = self._secret(name)
        except TrimtabError as error:
            raise ToolError(error.message, reason="auth") from None
        if found is None:
            raise ToolError(f"Connector {self.name!r} needs {name}. Set it, or turn the connector off.", reason="auth")
        return found.get_secret_value()

    def _values(self, auth: Auth) -> list[str] | None:
        """Its secrets; None where it can do without and has none."""
        if getattr(auth, "optional", False):
            with contextlib.suppress(ToolError):
                return [self.lookup(name) for name in secret_names(auth)]
            return None
        return [self.lookup(name) for name in secret_names(auth)]

    async def tokens(self, refused: str = "") -> Tokens:
        """Tokens that are good now. `refused` is an access token that the service did not take.

        Raises:
            ToolError: there are none, and no new ones can be had.
        """
        own = isinstance(self.auth, ClientCredentials)
        tokens = self._tokens if own else await off_loop(self._kept)
        if tokens and self._good(tokens, refused):
            return tokens
        if tokens and tokens.access == refused and self._clock() < self._forced_at + PAUSE:
            return tokens  # a service that refuses each new token is not helped by ever more of them
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.ensure_future(self._renewed(refused))
            self._renewal.add_done_callback(_heard)
        # Shielded: whoever stops waiting must not cost the others, nor us, a refresh token that is good for one use.
        return await asyncio.shield(self._renewal)

    async def aclose(self) -> None:
        """Wait for a renewal under way: it ends within its own deadline."""
        if self._renewal is not None and not self._renewal.done():
            await asyncio.wait([self._renewal])

    def _good(self, tokens: Tokens, refused: str) -> bool:
        return not tokens.reconnect and not tokens.due(self._clock()) and tokens.access != refused

    async def _fetched(self, auth: ClientCredentials) -> Tokens:
        client, secret = await off_loop(lambda: [self.lookup(name) for name in secret_names(auth)])
        form, basic = credentials_form(auth), None
        if auth.client_auth == "basic":
            basic = (client, secret)
        else:
            form |= {"client_id": client, "client_secret": secret}
        try:
            return await self.endpoint(auth.token_url).ask(form, basic)
        except Refused as error:
            raise ToolError(
                f"{error.host} refused to sign connector {self.name!r} in ({error.code}). Check "
                f"{auth.client_id_env} and {auth.client_secret_env}.",
                reason="auth",
            ) from None

    async def _renewed(self, refused: str) -> Tokens:
        auth = self.auth
        if refused:
            self._forced_at = self._clock()
        if isinstance(auth, ClientCredentials):
            self._tokens = await self._fetched(auth)
            return self._tokens
        assert isinstance(auth, OAuth)
        lock = self._keeper.locked(self.kept_as)
        await off_loop(lock.__enter__)
        try:
            tokens = await off_loop(self._kept)  # another process may have renewed it while we waited
            if tokens is None or tokens.reconnect:
                raise self._must_connect("signed in" if tokens is None else "signed in again")
            return tokens if self._good(tokens, refused) else await self._refreshed(auth, tokens)
        finally:
            await off_loop(lambda: lock.__exit__(None, None, None))

    async def _refreshed(self, auth: OAuth, tokens: Tokens) -> Tokens:
        if not tokens.refresh:
            await self._remember(replace(tokens, reconnect=True))
            raise self._must_connect("signed in again")
        client_id, basic = await off_loop(lambda: self.client(auth))
        try:
            fresh = await self.endpoint(auth.token_url).ask(refresh_form(auth, client_id, tokens.refresh), basic)
        except Refused as error:
            if error.code in GONE:
                await self._remember(replace(tokens, reconnect=True))
                raise self._must_connect("signed in again") from None
            raise ToolError(
                f"{error.host} did not renew the sign-in of connector {self.name!r} ({error.code}). Try again later.",
                reason="auth",
            ) from None
        # A server that does not rotate refresh tokens sends none: the old one stays good.
        kept = replace(fresh, refresh=fresh.refresh or tokens.refresh, account=tokens.account)
        await self._remember(kept)
        return kept

    def client(self, auth: OAuth) -> tuple[str, tuple[str, str] | None]:
        """Client id, and id with secret where the client has one."""
        client_id = auth.client_id or self.lookup(auth.client_id_env)
        return client_id, (client_id, self.lookup(auth.client_secret_env)) if auth.client_secret_env else None

    async def _remember(self, tokens: Tokens) -> None:
        await off_loop(lambda: self._keeper.keep(self.kept_as, tokens.text()))

    def _kept(self) -> Tokens | None:
        found: SecretStr | None = self._keeper(self.kept_as)
        return Tokens.of(found.get_secret_value()) if found else None

    def _must_connect(self, done: str) -> ToolError:
        return ToolError(
            f"Connector {self.name!r} must be {done}: run `trimtab connectors auth {self.name}`.", reason="auth"
        )


class _TokenAccount:
    """Requests with a token that is renewed when it ends or is refused."""

    def __init__(self, sign_in: SignIn, secrets: Secrets, identity: str) -> None:
        self._sign_in = sign_in
        self._secrets = secrets
        self.identity = identity

    async def credential(self) -> Credential | None:
        return self._of(await self._sign_in.tokens())

    async def renewed(self, refused: Credential) -> Credential | None:
        fresh = self._of(await self._sign_in.tokens(refused.value.removeprefix("Bearer ")))
        return fresh if fresh.value != refused.value else None

    def _of(self, tokens: Tokens) -> Credential:
        self._secrets.add(tokens.access)
        self._secrets.add(tokens.refresh)
        return Credential("Authorization", value=f"Bearer {tokens.access}")


def _heard(renewal: asyncio.Task[Tokens]) -> None:
    """Its error belongs to whoever waits, and is nobody's when all have left."""
    if not renewal.cancelled():
        renewal.exception()
