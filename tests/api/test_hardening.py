"""What a server refuses, limits and lets go of, tried over HTTP on an app whose model follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.outputs import ChatGenerationChunk
from pydantic import Field
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from api.clients import client_of, new_key
from running import free_port
from scripted_app import Desk, app_with
from trimtab.api import access, documents, guard, turns
from trimtab.api.server import create_app
from trimtab.api.serving import checked_socket, serving
from trimtab.app import Trimtab
from trimtab.connect import Connector, Effect
from trimtab.connect.toolbox import Toolbox
from trimtab.llm.scripted import Say, ScriptedModel
from trimtab.retrieval.library import Library
from trimtab.settings import Settings
from trimtab.store import people
from trimtab.store.documents import SqlDocumentStore

JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=edge"}
PART = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nA.\r\n'


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return error


# ---------------------------------------------------------------------- tools run by hand


@pytest.mark.parametrize("name", ["desk.stamp", "desk_stamp"])
async def test_a_tool_of_another_connector_is_not_run_through_a_harmless_one(tmp_path: Path, name: str) -> None:
    desk, calm = Desk(), Connector(name="calm", version="1.0.0", description="Reads only.")

    @calm.tool(effect=Effect.READ)
    async def breathe() -> str:
        """Breathe in and out."""
        return "In. Out."

    async with app_with([], tmp_path, desk=desk) as app, client_of(app) as client:
        app.toolbox.add(calm)
        asked = {"tool": name, "arguments": {"text": "x"}}
        refused(await client.post("/v1/connectors/calm/call", json=asked), 404, "not_found")
        refused(await client.post("/v1/connectors/calm/call", json=asked | {"confirm": True}), 404, "not_found")
        assert desk.ran == []
        assert (await client.post("/v1/connectors/calm/call", json={"tool": "breathe"})).status_code == 200


@pytest.mark.parametrize("name", ["stamp", "desk.stamp", "desk_stamp"])
async def test_a_tool_with_an_effect_needs_a_confirmation_by_each_of_its_names(tmp_path: Path, name: str) -> None:
    desk = Desk()
    async with app_with([], tmp_path, desk=desk) as app, client_of(app) as client:
        asked = {"tool": name, "arguments": {"text": "paid"}}
        refused(await client.post("/v1/connectors/desk/call", json=asked), 403, "forbidden")
        assert desk.ran == []
        done = await client.post("/v1/connectors/desk/call", json=asked | {"confirm": True})
        assert done.status_code == 200, done.text
        assert desk.ran == ["stamp paid"]


# ---------------------------------------------------------------------- bodies


async def in_pieces(piece: bytes, count: int, pause: float = 0.0, *, sent: list[int] | None = None) -> Any:
    """A chunked body: without a declared length, one piece after another."""
    for number in range(count):
        if sent is not None:
            sent.append(number)
        await asyncio.sleep(pause)
        yield piece


async def test_a_body_that_drips_has_one_deadline_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.4)
    async with app_with([], tmp_path) as app, client_of(app) as client:
        slow = await client.post("/v1/threads", content=in_pieces(b" ", 30, 0.1), headers=JSON)
    refused(slow, 408, "timeout")


async def test_an_upload_that_drips_has_a_deadline_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "UPLOAD_SECONDS", 0.4)
    async with app_with([], tmp_path) as app, client_of(app) as client:
        slow = await client.post("/v1/documents", content=in_pieces(PART, 30, 0.1), headers=MULTIPART)
    refused(slow, 408, "timeout")


@pytest.mark.parametrize("path", ["/v1/threads", "/v1/documents"])
async def test_a_body_too_large_without_a_declared_length_is_told_so(tmp_path: Path, path: str) -> None:
    headers = MULTIPART if path == "/v1/documents" else JSON
    async with app_with([], tmp_path, max_upload_mb=1) as app, client_of(app) as client:
        large = await client.post(path, content=in_pieces(PART + b"x" * 100_000, 30), headers=headers)
    assert "1,000,000 bytes" in refused(large, 413, "too_large")["message"]


async def test_an_upload_without_a_valid_key_is_refused_before_a_byte_of_it_is_read(tmp_path: Path) -> None:
    sent: list[int] = []
    async with app_with([], tmp_path) as app, client_of(app, key="tt_somebody_elses_old_key") as client:
        answer = await client.post("/v1/documents", content=in_pieces(PART, 5, sent=sent), headers=MULTIPART)
    refused(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert sent == []


# ---------------------------------------------------------------------- taking documents in


class HeldEncoder:
    """Embeds by letters; texts with the word "heavy" only once `free` is set."""

    fingerprint = "letters1"

    def __init__(self) -> None:
        self.free = threading.Event()
        self.tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        self.tokenizer.pre_tokenizer = Whitespace()

    def encode(self, texts: Sequence[str]) -> Any:
        if any("heavy" in text for text in texts):
            assert self.free.wait(120)
        rows = np.array([[1.0 + text.count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@asynccontextmanager
async def with_documents(home: Path, encoder: HeldEncoder) -> AsyncIterator[tuple[Trimtab, httpx.AsyncClient]]:
    async with app_with([], home) as app:
        store = SqlDocumentStore(app.database.engine, app.database.reader)
        with Library(store, encoder, app.settings.index_dir) as library:
            app.library = library
            async with client_of(app) as client:
                yield app, client


def upload(client: httpx.AsyncClient, name: str, text: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/v1/documents", files={"file": (name, text)}))


async def test_searches_and_health_do_not_wait_behind_uploads(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    async with with_documents(tmp_path, encoder) as (_, client):
        assert (await upload(client, "light.txt", "A light boat.")).status_code == 201
        heavy = [upload(client, f"{i}.txt", f"A heavy anchor, number {i}.") for i in range(14)]
        try:
            await asyncio.sleep(0.3)
            async with asyncio.timeout(60):
                assert (await client.get("/readyz")).status_code == 200
                found = await client.post("/v1/search", json={"question": "boat"})
            assert found.json()["passages"][0]["text"] == "A light boat."
        finally:
            encoder.free.set()
        assert {r.json()["documents"][0]["status"] for r in await asyncio.gather(*heavy)} == {"added"}


async def test_more_uploads_than_may_wait_are_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_WAITING", 1)
    encoder = HeldEncoder()
    async with with_documents(tmp_path, encoder) as (_, client):
        sent = [upload(client, f"{i}.txt", f"A heavy anchor, number {i}.") for i in range(4)]
        try:
            answered, taken = await asyncio.wait(sent, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        finally:
            encoder.free.set()
        (late,) = [task.result() for task in answered]
        refused(late, 429, "too_many_requests")
        assert late.headers["Retry-After"] == "5"
        assert [r.status_code for r in await asyncio.gather(*taken)] == [201, 201, 201]
        assert (await upload(client, "late.txt", "One too many.")).status_code == 201


async def test_a_server_that_stops_takes_nothing_more_in(tmp_path: Path) -> None:
    async with with_documents(tmp_path, HeldEncoder()) as (app, _):
        web = create_app(app)
        async with web.router.lifespan_context(web):
            pass
        headers = {"Authorization": f"Bearer {await new_key(app)}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://localhost") as client:
            late = await client.post("/v1/documents", files={"file": ("late.txt", "Late.")}, headers=headers)
        refused(late, 503, "unavailable")


# ---------------------------------------------------------------------- answers over the OpenAI half


class Watched(ScriptedModel):
    """Notes when it begins and when it stops, as an engine would be told to."""

    began: asyncio.Event = Field(default_factory=asyncio.Event)
    stopped: asyncio.Event = Field(default_factory=asyncio.Event)

    async def _astream(self, *given: Any, **options: Any) -> AsyncIterator[ChatGenerationChunk]:
        self.began.set()
        try:
            async for chunk in super()._astream(*given, **options):
                yield chunk
        finally:
            self.stopped.set()


@asynccontextmanager
async def server_of(
    home: Path, model: ScriptedModel, **settings: Any
) -> AsyncIterator[tuple[Trimtab, httpx.AsyncClient]]:
    """The app behind a real socket, with a client that sees a stream as it comes."""
    loaded = Settings.load(home=home, port=free_port(), **settings)
    async with Trimtab.open(loaded, model=model, toolbox=Toolbox(), retrieval=False) as app:
        headers = {"Authorization": f"Bearer {await new_key(app)}"}
        with contextlib.closing(checked_socket(loaded)) as listening:
            async with (
                httpx.AsyncClient(base_url=loaded.url, headers=headers, timeout=10, trust_env=False) as client,
                serving(app, listening),
            ):
                yield app, client


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "trimtab", "messages": [{"role": "user", "content": "Tell me of the sea."}], **fields}


@pytest.mark.parametrize("model", ["trimtab", "given model"])
async def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path, model: str) -> None:
    async with app_with([Say("The sea is wide. " * 20, delay=0.1)], tmp_path) as app, client_of(app) as client:
        app.settings = app.settings.model_copy(update={"turn_seconds": 0.5})
        answer = await client.post("/v1/chat/completions", json=asking(model=model))
        assert "0.5 seconds" in refused(answer, 504, "deadline_exceeded")["message"]


async def test_a_stream_that_takes_too_long_ends_with_the_reason(tmp_path: Path) -> None:
    async with app_with([Say("The sea is wide. " * 200, delay=0.1)] * 3, tmp_path) as app, client_of(app) as client:
        for seconds in (1.0, 4.0, 16.0):  # on a busy machine the first word itself may come too late to be sent
            app.settings = app.settings.model_copy(update={"turn_seconds": seconds})
            answer = await client.post("/v1/chat/completions", json=asking(stream=True))
            if answer.status_code == 200:
                break
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert answer.status_code == 200
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]).startswith("The sea")
    assert events[-1]["error"]["code"] == "deadline_exceeded"


async def test_a_client_that_leaves_before_the_first_word_stops_the_model(tmp_path: Path) -> None:
    model = Watched([Say("Too late.", delay=60)])
    async with server_of(tmp_path, model) as (_, client):
        waiting = asyncio.create_task(client.post("/v1/chat/completions", json=asking(stream=True), timeout=60))
        await asyncio.wait_for(model.began.wait(), 30)
        waiting.cancel()
        await asyncio.wait_for(model.stopped.wait(), 30)


async def test_a_client_that_leaves_in_the_middle_stops_the_model(tmp_path: Path) -> None:
    model = Watched([Say("The sea is wide. " * 200, delay=0.1)])
    async with server_of(tmp_path, model) as (_, client):
        async with client.stream("POST", "/v1/chat/completions", json=asking(stream=True)) as response:
            async for line in response.aiter_lines():
                if "content" in line:
                    break
        await asyncio.wait_for(model.stopped.wait(), 30)


async def test_a_server_that_stops_takes_no_more_questions(tmp_path: Path) -> None:
    async with app_with(["Never said."], tmp_path) as app, client_of(app) as client:
        await app.runner.close()
        refused(await client.post("/v1/chat/completions", json=asking()), 503, "unavailable")


@pytest.mark.parametrize("field", ["content", "role", "user", "model"])
async def test_half_a_character_in_a_request_is_the_clients_fault(tmp_path: Path, field: str) -> None:
    said = {"role": "user", "content": "Hello."}
    body = asking(messages=[said | {field: "\ud83d"}]) if field in said else asking() | {field: "\ud83d"}
    async with app_with(["Hello."], tmp_path) as app, client_of(app) as client:
        answer = await client.post("/v1/chat/completions", content=json.dumps(body), headers=JSON)
        refused(answer, *((404, "not_found") if field == "model" else (400, "invalid_input")))


async def test_half_a_character_is_not_embedded(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app, client_of(app) as client:
        app.embedder = DeterministicFakeEmbedding(size=4)
        answer = await client.post("/v1/embeddings", content=json.dumps({"input": ["boat", "\ud83d"]}), headers=JSON)
        refused(answer, 400, "invalid_input")


# ---------------------------------------------------------------------- streams of events


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look more often whether they may go on."""
    monkeypatch.setattr(turns, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(access, "KEY_CACHE_SECONDS", 0.2)


def watching(client: httpx.AsyncClient, thread: str) -> Any:
    return client.stream("GET", "/v1/events", params={"thread": thread}, headers={"Accept": "text/event-stream"})


async def ended(response: httpx.Response) -> None:
    async with asyncio.timeout(60):
        async for _ in response.aiter_bytes():
            pass


async def new_thread(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/threads", json={})).json()["id"])


@pytest.mark.usefixtures("impatient")
async def test_a_stream_ends_soon_after_its_key_was_revoked(tmp_path: Path) -> None:
    async with server_of(tmp_path, ScriptedModel([])) as (app, client):
        thread = await new_thread(client)
        async with watching(client, thread) as response:
            assert response.status_code == 200
            (key,) = await app.database.read(people.list_keys)
            await app.database.write(people.revoke_key, key["id"])
            await ended(response)


@pytest.mark.usefixtures("impatient")
async def test_a_busy_stream_ends_soon_after_its_key_was_revoked(tmp_path: Path) -> None:
    model = Watched([Say("The sea is wide. " * 500, delay=0.05)])
    async with server_of(tmp_path, model) as (app, client):
        thread = await new_thread(client)
        await client.post(f"/v1/threads/{thread}/turns", json={"text": "Tell me of the sea."})
        async with watching(client, thread) as response:
            (key,) = await app.database.read(people.list_keys)
            await app.database.write(people.revoke_key, key["id"])
            await ended(response)
            assert not model.stopped.is_set()
        (turn_id,) = app.runner.turns()
        await app.runner.cancel(turn_id)


@pytest.mark.usefixtures("impatient")
async def test_a_stream_ends_soon_after_its_thread_was_deleted(tmp_path: Path) -> None:
    async with server_of(tmp_path, ScriptedModel([])) as (_, client):
        thread = await new_thread(client)
        async with watching(client, thread) as response:
            assert (await client.delete(f"/v1/threads/{thread}")).status_code == 204
            await ended(response)


@pytest.mark.usefixtures("impatient")
async def test_a_key_may_have_only_so_many_streams_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_STREAMS", 2)
    async with server_of(tmp_path, ScriptedModel([]), concurrent=1) as (_, client):
        thread = await new_thread(client)
        async with watching(client, thread), watching(client, thread) as second:
            async with watching(client, thread) as third:
                await third.aread()
                refused(third, 429, "too_many_requests")
            assert second.status_code == 200
        for _ in range(50):  # the server hears of the closed connections a moment later
            async with watching(client, thread) as again:
                if again.status_code == 200:
                    return
            await asyncio.sleep(0.1)
        pytest.fail("the streams that were closed are still counted")
