"""kill -9 at random, while people ask, rate and upload: what was acknowledged is there afterwards, once, and whole.

`TRIMTAB_KILLS` says how often (default 10). The seed is printed, so that a run can be repeated.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from running import Running
from services import LoopbackServices

pytestmark = [pytest.mark.slow, pytest.mark.model]
KILLS = int(os.environ.get("TRIMTAB_KILLS", "10"))
FINAL = {"done", "cancelled", "failed", "interrupted"}


@dataclass
class Acknowledged:
    """What the server said it had kept."""

    turns: dict[str, str] = field(default_factory=dict)
    """Turn id to its thread."""
    thumbs: dict[str, int] = field(default_factory=dict)
    """Message id to value."""
    documents: dict[str, str] = field(default_factory=dict)
    """Name to the text it has."""


class Load(threading.Thread):
    """One client that does one thing again and again, and repeats with the same key what was not acknowledged."""

    def __init__(self, server: Running, kept: Acknowledged, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.kept, self.random = server, kept, random.Random(seed)
        self.stopping = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.once()
            except (httpx.HTTPError, OSError):
                time.sleep(0.2)

    def once(self) -> None:
        raise NotImplementedError

    def send(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """The answer; None when there was none (the server died) and a retry is due."""
        with self.server.client as client:
            client.timeout = httpx.Timeout(20)
            response = client.request(method, path, **request)
        if response.status_code >= 500 and response.status_code != 503:
            self.errors.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
        return response if response.status_code < 400 else None


class Asks(Load):
    def once(self) -> None:
        made = self.send("POST", "/v1/threads", json={})
        if made is None:
            return
        thread = made.json()["id"]
        text = self.random.choice(["What is 12*7?", "Write a story about the sea.", "What's the weather in Oslo?"])
        key = {"Idempotency-Key": f"turn-{self.random.random()}"}
        for _ in range(200):
            if self.stopping.is_set():
                return
            try:
                done = self.send("POST", f"/v1/threads/{thread}/turns", json={"text": text}, headers=key)
            except (httpx.HTTPError, OSError):
                time.sleep(0.2)
                continue
            if done is not None:
                self.kept.turns[done.json()["id"]] = thread
                break
            time.sleep(0.2)
        time.sleep(self.random.uniform(0.05, 0.6))


class Rates(Load):
    def once(self) -> None:
        time.sleep(0.05)
        for turn in list(self.kept.turns)[-10:]:
            got = self.send("GET", f"/v1/turns/{turn}")
            if got is None or got.json()["status"] not in FINAL:
                continue
            message, value = got.json()["answer_id"], self.random.randint(0, 1)
            body = {"kind": "thumb", "message_id": message, "value": value}
            # Until it is acknowledged, either value may be the stored one.
            before = self.kept.thumbs.pop(message, None)
            done = self.send("POST", "/v1/feedback", json=body)
            if done is not None:
                self.kept.thumbs[message] = value
            elif before is not None:
                self.kept.thumbs[message] = before


class Uploads(Load):
    count = 0

    def once(self) -> None:
        self.count += 1
        name = f"note-{self.random.randint(0, 10**9)}.md"
        lines = [
            f"Fact {i} of {name}: the {i}th buoy lies {self.random.randint(1, 999)} metres from the pier."
            for i in range(40)
        ]
        text = "# Buoys\n\n" + "\n\n".join(lines) + "\n"
        done = self.send("POST", "/v1/documents", files={"file": (name, text)})
        if done is not None:
            (result,) = done.json()["documents"]
            if result["status"] == "added":
                self.kept.documents[name] = text
            else:
                self.errors.append(str(result))
        time.sleep(self.random.uniform(0.05, 0.4))


@pytest.mark.timeout(120 + 40 * KILLS)
def test_nothing_acknowledged_is_lost(tmp_path: Path, models_dir: Path) -> None:
    seed = int(os.environ.get("TRIMTAB_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}, {KILLS} kills")
    chance = random.Random(seed)
    kept = Acknowledged()
    figures = {"server": 0, "engine": 0, "ui": 0}
    with LoopbackServices() as services:
        server = Running(tmp_path / "home", models_dir, services, command="up", max_tokens=64).start()
        loads = [
            Asks(server, kept, seed),
            Asks(server, kept, seed + 1),
            Rates(server, kept, seed + 2),
            Uploads(server, kept, seed + 3),
        ]
        for load in loads:
            load.start()
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.3, 4.0))
                victim = chance.choices(list(figures), weights=[3, 1, 1])[0]
                figures[victim] += 1
                kill(server, victim)
                server.wait_until_ready()
                verify(server, kept)
        finally:
            for load in loads:
                load.stopping.set()
            for load in loads:
                load.join(60)
        settle(server, kept)
        verify(server, kept)
        assert [e for load in loads for e in load.errors] == []
        assert server.stop() == 0
        check_store(server.home)
    counts = f"{len(kept.turns)} turns, {len(kept.thumbs)} thumbs, {len(kept.documents)} documents"
    print(f"kills {figures}; acknowledged {counts}: all there")


def kill(server: Running, victim: str) -> None:
    assert server.process is not None
    if victim == "server":
        ui = child_of(server.process.pid, "streamlit")
        server.kill()
        check_store(server.home)
        if ui is not None:  # a power cut takes everything
            os.kill(ui, signal.SIGKILL)
        server.start()
        return
    pid = child_of(server.process.pid, {"engine": "trimtab.llm.", "ui": "streamlit"}[victim])
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def child_of(parent: int, words: str) -> int | None:
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines()[1:]:
        pid, ppid, arguments = line.split(None, 2)
        if int(ppid) == parent and words in arguments:
            return int(pid)
    return None


def check_store(home: Path) -> None:
    database = sqlite3.connect(home / "trimtab.db")
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        database.close()


def verify(server: Running, kept: Acknowledged) -> None:
    """Everything acknowledged is there, once."""
    turns, thumbs, documents = dict(kept.turns), dict(kept.thumbs), dict(kept.documents)
    with server.client as client:
        for turn, thread in list(turns.items())[-40:]:
            assert client.get(f"/v1/turns/{turn}").status_code == 200, f"turn {turn} is lost"
            messages = client.get(f"/v1/threads/{thread}").json()["messages"]
            assert [m["role"] for m in messages] == ["user", "assistant"], "asked twice, or half"
        # Values change while people go on rating; `settle` compares them when all is quiet.
        stored = {f["message_id"] for f in feedback(client)}
        assert set(thumbs) <= stored, "a thumb is lost"
        listed = {d["name"]: d for d in client.get("/v1/documents").json()["documents"]}
        for name, text in list(documents.items())[-20:]:
            assert name in listed, f"{name} is lost"
            got = client.get(f"/v1/documents/{listed[name]['id']}/text").json()["text"]
            assert got.split() == text.split(), f"{name} is not whole"
            assert listed[name]["chunks"] > 0


def feedback(client: httpx.Client) -> list[dict[str, Any]]:
    found, before = [], ""
    while before is not None:
        page = client.get("/v1/feedback", params={"before": before}).json()
        found += page["feedback"]
        before = page["next"]
    return found


def settle(server: Running, kept: Acknowledged) -> None:
    """Wait until no turn runs any more; each must come to an end."""
    with server.client as client:
        for turn in kept.turns:
            for _ in range(600):
                if client.get(f"/v1/turns/{turn}").json()["status"] in FINAL:
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"turn {turn} never ended")
        stored = {f["message_id"]: f["value"] for f in feedback(client)}
        assert {m: stored.get(m) for m in kept.thumbs} == kept.thumbs
