"""What a server refuses, limits and lets go of, tried over HTTP on an app whose model follows a script."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from scripted_app import Desk, app_with
from trimtab.api import documents, guard
from trimtab.api.server import create_app
from trimtab.app import LOCAL_USER, Trimtab
from trimtab.connect import Connector, Effect
from trimtab.retrieval.library import Library
from trimtab.store import people
from trimtab.store.documents import SqlDocumentStore

JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=edge"}
PART = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nA.\r\n'


async def new_key(app: Trimtab, user: str = LOCAL_USER) -> str:
    return await app.database.write(people.create_key, user, "a test")


@asynccontextmanager
async def client_of(app: Trimtab, *, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app's whole HTTP side, without a socket between. It sees a response when it is complete."""
    headers = {"Authorization": f"Bearer {key or await new_key(app)}"}
    transport = httpx.ASGITransport(create_app(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=30
    ) as client:
        yield client


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
        began = time.monotonic()
        slow = await client.post("/v1/threads", content=in_pieces(b" ", 30, 0.1), headers=JSON)
    refused(slow, 408, "timeout")
    assert time.monotonic() - began < 2


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
            assert self.free.wait(20)
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
            async with asyncio.timeout(5):
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
        taken = [upload(client, f"{i}.txt", f"A heavy anchor, number {i}.") for i in range(3)]
        try:
            await asyncio.sleep(0.3)
            async with asyncio.timeout(5):
                late = await upload(client, "late.txt", "One too many.")
        finally:
            encoder.free.set()
        refused(late, 429, "too_many_requests")
        assert late.headers["Retry-After"] == "5"
        assert {r.status_code for r in await asyncio.gather(*taken)} == {201}
        assert (await upload(client, "late.txt", "One too many.")).status_code == 201


async def test_a_question_that_is_no_text_is_refused(tmp_path: Path) -> None:
    async with with_documents(tmp_path, HeldEncoder()) as (_, client):
        answer = await client.post("/v1/search", content=rb'{"question": "half \ud800"}', headers=JSON)
        refused(answer, 400, "invalid_input")
