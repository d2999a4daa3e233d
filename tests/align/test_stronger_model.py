"""A stronger model by URL judges and revises: reached over HTTP, measured like any judge, its key never told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opinions import Coin

from trimtab.align.agreement import choose_forms
from trimtab.align.constitution import Constitution
from trimtab.align.judge import Judge
from trimtab.align.recipe import Stronger, checked
from trimtab.align.reviser import Reviser
from trimtab.align.revision import Draft
from trimtab.domain.errors import InvalidInput, Unavailable
from trimtab.domain.judgement import Judgement, Kind, Said
from trimtab.works.stronger import TRIES, stronger_writer

KEY = "sk-very-secret-1234"
KIND = Constitution.load()["kind"]


class Server(ThreadingHTTPServer):
    """Speaks OpenAI's protocol. It prefers the answer that says "please", and likes nothing else."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.busy = 0
        """Requests that are still turned away."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._send(401, {"error": {"message": f"wrong key {self.headers.get('Authorization')}"}})
        elif self.server.busy:
            self.server.busy -= 1
            self._send(429, {"error": {"message": "slow down"}})
        else:
            text = body["messages"][-1]["content"]
            self.server.asked.append(text)
            self._say(self._answer(text))

    def _answer(self, text: str) -> str:
        if "Answer A:" in text:
            return "A" if "please" in text.split("Answer A:")[1].split("Answer B:")[0] else "B"
        return "Run it under hot water, please." if "Reply with the new answer only" in text else "ready"

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta, reason in (({"role": "assistant", "content": text}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def wanted(server: Server, monkeypatch: pytest.MonkeyPatch) -> Stronger:
    monkeypatch.setenv("TRIMTAB_JUDGE_KEY", KEY)
    return Stronger(base_url=server.url, model="bigger", key_variable="TRIMTAB_JUDGE_KEY")


def test_it_is_measured_against_people_like_any_judge_and_used_where_it_agrees(
    server: Server, wanted: Stronger
) -> None:
    people = [
        Judgement(
            id=f"p{n}", kind=Kind.PREFERENCE, prompt=(Said("user", f"Question {n}?"),), completion=f"Yes please, {n}.",
            rejected=f"Figure {n} out yourself.", about={"contrast": "rude"},
        ) for n in range(28)
    ]  # fmt: skip
    judge = Judge(Coin(), external=stronger_writer(wanted))
    found = choose_forms([KIND], people, judge, most=28, least=10)[0]
    assert (found.form, found.usable) == ("external", True)
    assert found.confirmed.mean == 1.0
    told = found.to_json()
    assert told["by_form"]["external"]["mean"] == 1.0
    assert told["confirmed"]["n"] == 14
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert len([text for text in server.asked if "Answer A:" in text]) == 28 * 2, "in both orders"


def test_it_revises_where_the_policy_cannot(wanted: Stronger) -> None:
    reviser = Reviser({}, stronger=stronger_writer(wanted))
    revision = reviser([Draft((Said("user", "How do I open this jar?"),), "Figure it out.", KIND)])[0]
    assert revision is not None
    assert (revision.by, revision.text) == ("stronger", "Run it under hot water, please.")


def test_a_busy_moment_is_waited_out_and_not_for_ever(server: Server, wanted: Stronger) -> None:
    waited: list[float] = []
    server.busy = TRIES - 1
    assert stronger_writer(wanted, waited.append) is not None
    assert waited == [2.0, 4.0]
    server.busy = TRIES
    with pytest.raises(Unavailable, match=r"'bigger' at 127\.0\.0\.1:\d+, which the recipe names, did not answer"):
        stronger_writer(wanted, waited.append)


def test_one_that_cannot_be_reached_is_named_before_anything_long_begins(dead: str, wanted: Stronger) -> None:
    with pytest.raises(Unavailable, match="resume the job"):
        stronger_writer(wanted.model_copy(update={"base_url": dead}), lambda _: None)


@pytest.fixture
def dead() -> str:
    """Nobody listens there any more."""
    with Server() as gone:
        return gone.url


def test_a_wrong_key_is_said_at_once_and_no_key_is_ever_told(
    server: Server, wanted: Stronger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_JUDGE_KEY", "sk-another-5678")
    with pytest.raises(Unavailable) as caught:
        stronger_writer(wanted, lambda _: pytest.fail("the same again would not help"))
    assert "sk-another" not in caught.value.message
    monkeypatch.delenv("TRIMTAB_JUDGE_KEY")
    with pytest.raises(InvalidInput, match="TRIMTAB_JUDGE_KEY, which is not set"):
        stronger_writer(wanted)


def test_no_model_by_url_is_none() -> None:
    assert stronger_writer(Stronger()) is None


@pytest.mark.parametrize(
    ("stronger", "words"),
    [
        ({"base_url": "https://me:secret@judge.example/v1", "model": "m"}, "key_variable"),
        ({"base_url": "https://judge.example/v1?key=secret", "model": "m"}, "key_variable"),
        ({"base_url": "file:///etc/passwd", "model": "m"}, "http"),
        ({"base_url": "https://judge.example/v1"}, "go together"),
        ({"model": "m"}, "go together"),
        ({"base_url": "https://judge.example", "model": "m", "key_variable": "TRIMTAB_API_KEY"}, "key_variable"),
        ({"base_url": "https://judge.example", "model": "m", "key_variable": "AWS_SECRET_ACCESS_KEY"}, "key_variable"),
        ({"base_url": "https://judge.example", "model": "m", "key": "sk-1"}, "stronger.key"),
    ],
)
def test_a_recipe_has_no_place_for_a_key_nor_for_another_secrets_name(stronger: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        checked({"stronger": stronger})
