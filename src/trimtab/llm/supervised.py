"""What every engine that is a child process of ours needs: to be started, watched, started again, and ended.

A plain thread watches the child, so the engine belongs to no event loop and outlives any. The child dies with us: its
standard input is a pipe that the kernel closes when we go, however we go. Its whole configuration, the key included,
goes through that pipe, so no secret is in an argument list or an environment.

Not known here: conversations, tools, prompts. Their text passes between the adapter and the child only; the log holds
the child's own warnings and errors, never a request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from trimtab.domain.errors import EngineError, InvalidInput, ModelFileError

from .engine import Capabilities, EngineOptions, EngineState, EngineStatus

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")
_CALM_SECONDS = 60.0
"""A child that lived this long starts the back-off anew when it dies."""


class SupervisedEngine(ABC):
    """An engine in a child process. A kind of engine says which program that is and what it must be told."""

    kind: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    program: ClassVar[str]
    """The module that the child runs."""
    maker: ClassVar[str]
    """What the engine is called in messages."""

    def __init__(
        self, model_path: Path, options: EngineOptions | None = None, log_path: Path | None = None, *, name: str = ""
    ) -> None:
        self.model_path = model_path
        self.options = options or EngineOptions()
        self.name = name or model_path.stem
        self._log_path = log_path
        self._key = SecretStr(secrets.token_urlsafe(32))
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._state = EngineState.STOPPED
        self._crashes = 0
        self._last_error = ""
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._adapters: tuple[Path, ...] = self.options.adapters
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def key(self) -> SecretStr:
        return self._key

    @property
    @abstractmethod
    def special_tokens(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def slot_context(self) -> int:
        """Tokens one request may have: what was asked for, or what the model was trained for if that is less."""

    @abstractmethod
    def _prepare(self) -> None:
        """Refuse a damaged file before a process is spent on it, and make what the child needs.

        Raises:
            ModelFileError: says which file and what is wrong with it.
        """

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """What the child is told, besides its port and key."""

    def adapters_body(self, active: Mapping[int, float]) -> dict[str, Any]:
        """Fields a request adds so that exactly these adapters work on it, by id and scale.

        Raises:
            InvalidInput: there is no adapter of that id.
        """
        known = range(len(self._adapters))
        if unknown := [i for i in active if i not in known]:
            raise InvalidInput(
                f"The engine has {len(known)} adapters and none with id {unknown[0]}. Give it one with `add_adapter`."
            )
        return {"lora": [{"id": i, "scale": active.get(i, 0.0)} for i in known]} if known else {}

    @abstractmethod
    async def add_adapter(self, path: Path) -> int: ...

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def health(self) -> bool:
        return await asyncio.to_thread(self._healthy, 2.0)

    async def check(self) -> dict[str, Any]:
        status = self.status()
        return {"ok": status.state is EngineState.READY, "state": status.state.value, "crashes": status.crashes}

    def status(self) -> EngineStatus:
        child, state = self._child, self._state
        alive = child is not None and child.poll() is None
        if state is EngineState.READY and not alive:
            state = EngineState.RESTARTING  # it died this instant, and the watcher has not seen it yet
        return EngineStatus(
            state=state,
            pid=child.pid if child is not None and alive else None,
            crashes=self._crashes,
            last_error=self._last_error,
            model=self.name,
            slots=self.options.slots,
            slot_context=self.slot_context,
        )

    def _start(self) -> None:
        with self._lock:
            if self._watcher is not None:
                return
            self._prepare()
            self._stopping.clear()
            self._port = self._port or _free_port()
            self._state = EngineState.STARTING
            self._log = _Log(self._log_path, self._key.get_secret_value())
            try:
                self._spawn()
            except BaseException:
                self._state = EngineState.STOPPED
                self._log.close()
                raise
            self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
            self._watcher.start()

    def _stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self._watcher is not None:
                self._watcher.join()
                self._watcher = None
                self._log.close()
            self._state = EngineState.STOPPED

    def _spawn(self) -> None:
        """Start a child and wait until it serves."""
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(
            [sys.executable, "-m", self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self._log.follow(child)
        try:
            answer = self._configure(child)
        except BaseException:
            _end(child)
            raise
        if "error" in answer:
            _end(child)
            raise ModelFileError(
                f"{self.maker} cannot serve {self.model_path}: {answer['error']}. {self._log.last()} "
                "Check that it is a complete chat model in GGUF format."
            )
        self._child = child
        self._state = EngineState.READY

    def _configure(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        config = self._config() | {"port": self._port, "key": self._key.get_secret_value()}
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(config).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it died already; its exit code is reported below
        line = self._first_line(child)
        if not line:
            code = child.poll()
            raise EngineError(
                f"The engine for {self.model_path.name} did not start (exit code {code}). {self._log.last()} "
                "Run: trimtab doctor"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _first_line(self, child: subprocess.Popen[bytes]) -> bytes:
        assert child.stdout is not None
        deadline = time.monotonic() + self.options.start_seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            ready, _, _ = select.select([child.stdout], [], [], 0.1)
            if ready:
                return child.stdout.readline()
        return b""

    def _watch(self) -> None:
        """Until told to stop: see the child die or hang, and bring up another."""
        in_a_row = 0
        while not self._stopping.is_set():
            born = time.monotonic()
            reason = self._until_it_fails()
            if self._stopping.is_set():
                break
            in_a_row = 1 if time.monotonic() - born > _CALM_SECONDS else in_a_row + 1
            self._state = EngineState.RESTARTING
            self._crashes += 1
            self._last_error = reason
            self._log.write(f"engine failed: {reason}")
            pause = min(self.options.backoff_cap, self.options.backoff_seconds * 2 ** (in_a_row - 1))
            if self._stopping.wait(pause):
                break
            try:
                self._spawn()
            except (EngineError, ModelFileError, OSError) as error:
                self._last_error = str(error)
        if self._child is not None:
            _end(self._child)
            self._child = None

    def _until_it_fails(self) -> str:
        child, misses = self._child, 0
        if child is None or child.poll() is not None:
            return self._last_error or "it is not running"
        next_check = time.monotonic() + self.options.health_seconds
        while not self._stopping.wait(0.05):
            if (code := child.poll()) is not None:
                _end(child)
                return f"the child ended with code {code}"
            if time.monotonic() < next_check:
                continue
            next_check = time.monotonic() + self.options.health_seconds
            misses = 0 if self._healthy(5.0) else misses + 1
            if misses >= 3:
                _end(child)
                return "the child stopped answering"
        return ""

    def _healthy(self, seconds: float) -> bool:
        if self._child is None or self._child.poll() is not None:
            return False
        try:
            with httpx.Client(timeout=seconds, trust_env=False) as client:
                return client.get(f"http://127.0.0.1:{self._port}/health").status_code == 200
        except httpx.HTTPError:
            return False


class _Log:
    """The child's standard error in a rotating file, with the key struck out."""

    def __init__(self, path: Path | None, secret: str) -> None:
        self._secret = secret
        self._last = ""
        self._threads: list[threading.Thread] = []
        self._handler: logging.Handler = logging.NullHandler()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(path, maxBytes=1 << 20, backupCount=3, encoding="utf-8")
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def follow(self, child: subprocess.Popen[bytes]) -> None:
        thread = threading.Thread(target=self._drain, args=(child,), name="engine-log", daemon=True)
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        thread.start()

    def write(self, line: str) -> None:
        self._last = line.replace(self._secret, "***")[:2000]
        self._handler.handle(logging.LogRecord("engine", logging.INFO, "", 0, "%s", (self._last,), None))

    def last(self) -> str:
        """The last thing it said, as a sentence, or nothing."""
        return f"Its last words: {self._last!r}." if self._last else ""

    def close(self) -> None:
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._handler.close()

    def _drain(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        with child.stderr as stream:
            for raw in stream:
                if line := "".join(c for c in raw.decode("utf-8", "replace").strip() if c.isprintable()):
                    self.write(line)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child: closing its input asks it to leave, and it is killed if it has not within two seconds."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
    try:
        child.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _free_port() -> int:
    """A port that nobody has now. The child binds it a moment later; if someone was faster, starting fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
