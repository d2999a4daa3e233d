"""Talking to Trimtab from the terminal: through the running server, or with the parts opened here when none runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import httpx

    from trimtab.app import Trimtab
    from trimtab.settings import Settings

END = ("turn.finished", "turn.failed")


class Talk(Protocol):
    """What `ask` and `chat` need. Events are on the wire's form."""

    async def new_thread(self) -> str: ...
    def ask(
        self, thread: str, text: str, documents: str, best_of: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]: ...
    async def decide(self, approval_id: str, decision: str) -> None: ...
    async def cancel(self) -> None: ...


@asynccontextmanager
async def talk(settings: Settings, *, other: Collection[str] = ()) -> AsyncIterator[Talk]:
    """The running server if there is one, else an installation opened for this command.

    Raises:
        InvalidInput: another model or engine (`other`) was asked for, but a running server would answer.
    """
    from trimtab.domain.errors import InvalidInput

    client = running_server(settings)
    if client is not None:
        async with client:
            if other:
                options = " and ".join(f"--{name}" for name in other)
                raise InvalidInput(f"A running server answers, with its own model. Stop it, or leave {options} out.")
            yield Remote(client)
        return
    from trimtab.app import Trimtab

    async with Trimtab.open(settings) as app:
        yield Local(app)


def running_server(settings: Settings) -> httpx.AsyncClient | None:
    """A client of the server these settings describe, or None when it is not up."""
    import httpx

    if not settings.key_path.exists():
        return None
    key = settings.key_path.read_text("utf-8").strip()
    with contextlib.suppress(httpx.HTTPError):
        if httpx.get(f"{settings.url}/healthz", timeout=1.0, trust_env=False).status_code == 200:
            return httpx.AsyncClient(
                base_url=settings.url,
                headers={"Authorization": f"Bearer {key}"},
                timeout=httpx.Timeout(60, read=None),
                trust_env=False,
            )
    return None


class Remote:
    """Over HTTP."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._turn = ""

    async def new_thread(self) -> str:
        return str((await self._send("POST", "/v1/threads", {}))["id"])

    async def ask(
        self, thread: str, text: str, documents: str, best_of: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        from trimtab.domain import ids
        from trimtab.domain.lines import lines_of

        body = {"text": text, "documents": documents, "best_of": best_of}
        turn = await self._send("POST", f"/v1/threads/{thread}/turns", body, key=ids.new("idk"))
        self._turn = turn["id"]
        request = self._client.stream(
            "GET", "/v1/events", params={"turn": turn["id"]}, headers={"Accept": "text/event-stream"}
        )
        async with request as response:
            async for line in lines_of(response.aiter_bytes()):
                if line.startswith("data:"):
                    event = json.loads(line[5:])["event"]
                    yield event | {"answer_id": turn["answer_id"]}
                    if event["type"] in END:
                        return

    async def decide(self, approval_id: str, decision: str) -> None:
        waiting = (await self._send("GET", "/v1/approvals"))["approvals"]
        digest = next((a["digest"] for a in waiting if a["id"] == approval_id), "")
        await self._send("POST", f"/v1/approvals/{approval_id}", {"decision": decision, "digest": digest})

    async def cancel(self) -> None:
        if self._turn:
            await self._send("POST", f"/v1/turns/{self._turn}/cancel")

    async def _send(self, method: str, path: str, body: Any = None, *, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return checked(await self._client.request(method, path, json=body, headers=headers))


def checked(response: httpx.Response) -> Any:
    """The JSON of a good answer.

    Raises:
        TrimtabError: the server's own message.
    """
    from trimtab.domain.errors import TrimtabError

    if response.status_code >= 400:
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"The server answered {response.status_code}."
        raise TrimtabError(message)
    return response.json() if response.content else None


class Local:
    """In this process."""

    def __init__(self, app: Trimtab) -> None:
        self._app = app
        self._turn = ""

    async def new_thread(self) -> str:
        from trimtab.store import threads

        return str((await self._app.database.write(threads.create, self._app.owner))["id"])

    async def ask(
        self, thread: str, text: str, documents: str, best_of: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        from trimtab.app import Ask

        how = Ask(documents=documents, best_of=best_of)
        turn = await self._app.post(self._app.owner, thread, text, how=how)
        self._turn = turn["id"]
        async for _, _, wire in self._app.follow(turn["id"]):
            yield wire | {"answer_id": turn["answer_id"]}

    async def decide(self, approval_id: str, decision: str) -> None:
        from trimtab.store import turns

        row = await self._app.database.read(turns.approval, self._app.owner, approval_id)
        await self._app.decide(self._app.owner, approval_id, decision, digest=row["digest"])

    async def cancel(self) -> None:
        if self._turn:
            await self._app.cancel(self._app.owner, self._turn)
