"""A person signs in: a browser at the service, and a receiver on this machine for what it sends back.

OAuth 2.1 for a native application (RFC 8252): the redirect goes to 127.0.0.1 on a port of ours that lives for this one
sign-in. `state` ties the answer to the question, PKCE (S256) ties the code to us, and `iss` (RFC 9207) ties it to the
server that was asked. A wrong `state` does not end the sign-in: another page on this machine must not be able to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import html
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from trimtab.domain.errors import DeadlineExceeded, InvalidInput, ToolError, TrimtabError, Unavailable

from .auth import OAuth
from .oauth import Refused, code_form
from .sign_in import SignIn

PATH = "/callback"
MAX_HEAD = 16_384
HEAD_SECONDS = 5.0


@dataclass(frozen=True)
class Question:
    """One sign-in under way. `url` is for the person's browser."""

    url: str
    state: str
    verifier: str
    redirect: str
    answer: asyncio.Future[dict[str, str]]


@contextlib.asynccontextmanager
async def asking(sign_in: SignIn) -> AsyncIterator[Question]:
    """Listen for the answer and make the question; the port is closed at the end.

    Raises:
        InvalidInput: the connector does not sign in this way.
        Unavailable: the declared port is taken.
    """
    auth = sign_in.auth
    if not isinstance(auth, OAuth):
        raise InvalidInput(f"Connector {sign_in.name!r} has no sign-in of its own in a browser.")
    answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    receiver = _Receiver(state, answer)
    try:
        server = await asyncio.start_server(receiver.handle, "127.0.0.1", auth.redirect_port, limit=MAX_HEAD)
    except OSError as error:
        raise Unavailable(
            f"Port {auth.redirect_port} for the answer is taken ({error.strerror}). Close what uses it and try again."
        ) from None
    port = server.sockets[0].getsockname()[1]
    redirect = f"http://127.0.0.1:{port}{PATH}"
    try:
        client_id, _ = await asyncio.to_thread(sign_in.client, auth)
        yield Question(_address(auth, client_id, state, verifier, redirect), state, verifier, redirect, answer)
    finally:
        server.close()
        await receiver.aclose()
        answer.cancel()


async def answered(sign_in: SignIn, question: Question, seconds: float = 300.0) -> None:
    """Wait for the person, exchange the code, and keep the tokens.

    Raises:
        DeadlineExceeded: nobody answered in time.
        ToolError: the person or the server refused, or the answer is not from the server that was asked.
    """
    auth = sign_in.auth
    assert isinstance(auth, OAuth)
    try:
        async with asyncio.timeout(seconds):
            said = await asyncio.shield(question.answer)
    except TimeoutError:
        raise DeadlineExceeded(f"Nobody signed in within {seconds:.0f} seconds. Run the command again.") from None
    _check_issuer(auth, said)
    if "error" in said or "code" not in said:
        raise ToolError(
            f"Connector {sign_in.name!r} was not signed in: {said.get('error', 'no code')[:60]}.", reason="auth"
        )
    client_id, basic = await asyncio.to_thread(sign_in.client, auth)
    form = code_form(auth, client_id, code=said["code"], verifier=question.verifier, redirect=question.redirect)
    try:
        tokens = await sign_in.endpoint(auth.token_url).ask(form, basic)
    except Refused as error:
        raise ToolError(f"{error.host} did not accept the sign-in ({error.code}). Try again.", reason="auth") from None
    await asyncio.to_thread(sign_in.keep, tokens)


class Desk:
    """The one sign-in of a connector that may be under way, for a face that cannot wait for it."""

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in
        self._waiting: asyncio.Task[None] | None = None
        self.problem = ""
        """Why the last one failed; empty while one is under way and after one that went well."""

    @property
    def busy(self) -> bool:
        return self._waiting is not None and not self._waiting.done()

    async def begin(self, seconds: float = 300.0) -> str:
        """Ask anew, forgetting a question that nobody answered. Returns the address for the person's browser.

        Raises:
            InvalidInput, Unavailable, ToolError: as `asking`.
        """
        await self.aclose()
        self.problem = ""
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting = asyncio.create_task(self._whole(url, seconds), name=f"sign in {self._sign_in.name}")
        return await url

    async def _whole(self, url: asyncio.Future[str], seconds: float) -> None:
        try:
            async with asking(self._sign_in) as question:
                url.set_result(question.url)
                await answered(self._sign_in, question, seconds)
        except TrimtabError as error:
            if not url.done():
                url.set_exception(error)
            else:
                self.problem = error.message

    async def aclose(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)


def _address(auth: OAuth, client_id: str, state: str, verifier: str, redirect: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    if auth.scopes:
        query["scope"] = " ".join(auth.scopes)
    if auth.resource:
        query["resource"] = auth.resource
    joint = "&" if urlsplit(auth.authorize_url).query else "?"
    return f"{auth.authorize_url}{joint}{urlencode(query)}"


def _check_issuer(auth: OAuth, said: dict[str, str]) -> None:
    """A wrong `iss` is another server's answer, errors included (RFC 9207)."""
    issuer = said.get("iss", "")
    if (auth.issuer and issuer and issuer != auth.issuer) or (auth.issuer_required and not issuer):
        raise ToolError("The answer is not from the server that was asked. Nobody was signed in.", reason="auth")


class _Receiver:
    """Takes one answer with the right `state`. Everything it says back is its own words."""

    def __init__(self, state: str, answer: asyncio.Future[dict[str, str]]) -> None:
        self._state = state
        self._answer = answer
        self._open: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, said = self._taken(head.split(b"\r\n", 1)[0])
                writer.write(_page(status, said))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever this was, it was not the browser's redirect
        finally:
            writer.close()
            self._open.discard(task)

    async def aclose(self) -> None:
        """Let a page that is being sent arrive; it has seconds at most."""
        if self._open:
            await asyncio.wait(self._open)

    def _taken(self, line: bytes) -> tuple[str, str]:
        parts = line.decode("ascii", "replace").split(" ")
        target = urlsplit(parts[1]) if len(parts) == 3 else urlsplit("")
        if len(parts) != 3 or parts[0] != "GET" or target.path != PATH:
            return "404 Not Found", "There is nothing here."
        try:
            fields = parse_qs(target.query, max_num_fields=30)
        except ValueError:
            return "400 Bad Request", "That is too long. Nobody was signed in."
        if any(len(values) > 1 for values in fields.values()):
            return "400 Bad Request", "A parameter came twice. Nobody was signed in."
        said = {name: values[0] for name, values in fields.items()}
        if not hmac.compare_digest(said.get("state", "").encode(), self._state.encode()):
            return "400 Bad Request", "This answer belongs to no sign-in of ours. Nobody was signed in."
        if not self._answer.done():
            self._answer.set_result(said)
        return "200 OK", "You can close this page and go back to Trimtab."


def _page(status: str, said: str) -> bytes:
    body = f"<!doctype html><meta charset=utf-8><title>Trimtab</title><p>{html.escape(said)}</p>".encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
        "content-security-policy: default-src 'none'\r\n\r\n"
    )
    return head.encode() + body
