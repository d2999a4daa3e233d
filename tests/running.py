"""A real Trimtab in a process of its own, as a person starts it, on loopback and in a folder that is thrown away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from services import LoopbackServices
from vouching import vouch_for_notes

NOTES = Path(__file__).parent / "connector_notes.py"
START_SECONDS = 90


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """`trimtab serve` (or `up`) as a child process.

    server = Running(home, models, services).start()
    server.client.get("/v1/threads")
    """

    def __init__(
        self,
        home: Path,
        models: Path,
        services: LoopbackServices | None = None,
        *,
        command: str = "serve",
        **settings: Any,
    ) -> None:
        self.home = home
        self.port, self.ui_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ui_url = f"http://127.0.0.1:{self.ui_port}"
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "models").exists():
            (home / "models").symlink_to(models, target_is_directory=True)
        self._settings = {"rate_per_minute": 100_000, **settings}
        if services is not None:
            overrides = {
                n: {"base_url": o.base_url, "allow_private": o.allow_private} for n, o in services.overrides.items()
            }
            self._settings |= {"connectors": overrides, "connector_files": [str(NOTES)]}
            vouch_for_notes(home)

    @property
    def environment(self) -> dict[str, str]:
        given = {f"TRIMTAB_{name.upper()}": _text(value) for name, value in self._settings.items()}
        return {
            **os.environ,
            **given,
            "TRIMTAB_HOME": str(self.home),
            "TRIMTAB_PORT": str(self.port),
            "TRIMTAB_UI_PORT": str(self.ui_port),
        }

    @property
    def key(self) -> str:
        return (self.home / "key").read_text().strip()

    @property
    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def start(self) -> Running:
        log = (self.home / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trimtab.cli.main", self.command], env=self.environment, stdout=log, stderr=log
        )
        log.close()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        assert self.process is not None
        last = ""
        for _ in range(START_SECONDS * 10):
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended by itself:\n{self.log}")
            try:
                response = httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False)
                last = response.text
                if response.status_code == 200 and (self.home / "key").exists() and self._ui_answers():
                    return
            except httpx.HTTPError as error:
                last = repr(error)
            time.sleep(0.1)
        raise AssertionError(f"not ready after {START_SECONDS} s: {last}\n{self.log}")

    def _ui_answers(self) -> bool:
        if self.command != "up":
            return True
        return httpx.get(f"{self.ui_url}/_stcore/health", timeout=2, trust_env=False).status_code == 200

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as an operator would; returns the exit code."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    # ------------------------------------------------------------------ what a client does

    def thread(self) -> str:
        with self.client as client:
            return str(checked(client.post("/v1/threads", json={}))["id"])

    def ask(self, text: str, thread: str | None = None, **fields: Any) -> dict[str, Any]:
        """Ask, wait for the end, and return the answer as `GET /v1/threads/{id}` shows it."""
        thread = thread or self.thread()
        with self.client as client:
            turn = checked(client.post(f"/v1/threads/{thread}/turns", json={"text": text, **fields}))
            for _ in self.events(turn["id"]):
                pass
            messages = checked(client.get(f"/v1/threads/{thread}"))["messages"]
            return next(m for m in messages if m["id"] == turn["answer_id"]) | {"thread_id": thread}

    def events(self, turn_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """A turn's events until it ends or waits for an approval."""
        request = {"params": {"turn": turn_id, "after": after}, "headers": {"Accept": "text/event-stream"}}
        with self.client as client, client.stream("GET", "/v1/events", **request) as response:  # type: ignore[arg-type]
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    yield {**event["event"], "seq": event["seq"]}
                    if event["event"]["type"] == "approval.needed":
                        return


def checked(response: httpx.Response) -> Any:
    assert response.status_code < 400, response.text
    return response.json() if response.content else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
