"""What the pages learn from a server that is there, says no, is slow or is gone."""

from __future__ import annotations

import socket

import httpx
import pytest

from trimtab_ui.client import ApiError, Client, KeyRefused, ServerDown, ServerSlow, UiError
from ui.standin import Standin, problem


def test_a_server_that_is_not_there_is_said_to_be_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerDown, match=f"No Trimtab server answers at http://127.0.0.1:{port}"):
        Client(f"http://127.0.0.1:{port}", "k").info()


def test_a_slow_server_is_told_apart_from_a_dead_one() -> None:
    server = Standin()
    server.refuse["GET /v1/info"] = httpx.ReadTimeout("slow")
    with pytest.raises(ServerSlow, match="too long"):
        server.client().info()


def test_the_servers_own_words_reach_the_person() -> None:
    server = Standin()
    with pytest.raises(ApiError, match="No thread thr_gone") as caught:
        server.client().thread("thr_gone")
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_a_refused_key_says_how_to_get_the_right_one() -> None:
    server = Standin()
    server.refuse["GET /v1/info"] = problem(401, "unauthenticated", "No such key.")
    with pytest.raises(KeyRefused) as caught:
        server.client().info()
    assert "TRIMTAB_KEY" in caught.value.advice


def test_too_many_requests_says_when_to_come_back() -> None:
    server = Standin()
    busy = problem(429, "too_many_requests", "Slow down.")
    busy.headers["retry-after"] = "7"
    server.refuse["GET /v1/info"] = busy
    with pytest.raises(ApiError) as caught:
        server.client().info()
    assert caught.value.advice == "Try again in 7 seconds."


@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"[]", b'"x"'])
def test_something_else_at_the_address_is_noticed(body: bytes) -> None:
    server = Standin()
    server.refuse["GET /v1/info"] = httpx.Response(200, content=body)
    with pytest.raises(UiError, match="not like a Trimtab server"):
        server.client().info()


def test_an_error_without_an_explanation_still_has_words() -> None:
    server = Standin()
    server.refuse["GET /v1/info"] = httpx.Response(502, content=b"bad gateway")
    with pytest.raises(ApiError, match="answered 502"):
        server.client().info()


def test_the_key_is_sent_as_a_bearer_and_a_write_with_its_idempotency_key() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"id": "trn_1"})

    Client("http://s.test", "abc", transport=httpx.MockTransport(answer)).ask("thr_1", "hi", "auto", "once")
    assert seen[0].headers["authorization"] == "Bearer abc"
    assert seen[0].headers["idempotency-key"] == "once"
