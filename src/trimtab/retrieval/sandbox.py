"""A child process that reads files from strangers, with limits the operating system holds.

One child serves many files, so a thousand of them do not pay a thousand starts; a child that dies, hangs or runs out
of memory costs its own file a typed error and is replaced. What it answers is checked like any other input.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trimtab.domain.errors import DeadlineExceeded, InvalidInput, TooLarge, Unavailable

from . import parsers


@dataclass(frozen=True)
class SandboxLimits:
    memory: int = 512 * 2**20
    """Bytes of address space."""
    cpu: int = 10
    """Seconds of processor time a file."""
    wall: float = 30.0
    """Seconds by the clock a file."""
    answer: int = 128 * 2**20
    """Bytes of a child's answer."""
    files: int = 500
    """Files a child reads before it is replaced, so that a leak stays small."""


class Sandbox:
    """Runs `parsers` in a child. Safe to call from several threads; they take turns."""

    def __init__(self, limits: SandboxLimits = SandboxLimits()) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._served = 0

    def parse(self, parser: str, data: bytes, name: str) -> dict[str, Any]:
        """What `parsers.PARSERS[parser]` makes of `data`.

        Raises:
            InvalidInput: the file is damaged, protected, or holds no text.
            TooLarge: it needed more memory than a parser is given.
            DeadlineExceeded: it needed more time.
            Unavailable: no child could be started.
        """
        with self._lock:
            try:
                raw = self._ask(parser, data, name)
                answer = json.loads(raw)
                if not isinstance(answer, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                self._stop()
                raise InvalidInput(f"{name} could not be read: its parser answered nonsense ({error}).") from error
            except BaseException:
                self._stop()
                raise
            if answer.get("restart") or self._served >= self.limits.files:
                self._stop()
        if "error" in answer:
            kind = TooLarge if answer.get("kind") == "limits" else InvalidInput
            raise kind(f"{name} could not be read. {answer['error']}")
        return answer

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, parser: str, data: bytes, name: str) -> bytes:
        child = self._child or self._start()
        self._served += 1
        deadline = time.monotonic() + self.limits.wall
        header = json.dumps({"parser": parser}).encode()
        message = struct.pack("<Q", len(header)) + header + struct.pack("<Q", len(data)) + data
        try:
            _send(child.stdin, message, deadline)
            (length,) = struct.unpack("<Q", _receive(child.stdout, 8, deadline))
            if length > self.limits.answer:
                raise TooLarge(f"{name} could not be read: it unpacks to more than {self.limits.answer // 2**20} MB.")
            return _receive(child.stdout, length, deadline)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{name} could not be read in {self.limits.wall:.0f} s. Split or simplify it."
            ) from error
        except (EOFError, BrokenPipeError) as error:
            raise self._died(child, name) from error

    def _died(self, child: subprocess.Popen[bytes], name: str) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
        if child.returncode == -signal.SIGXCPU:
            return DeadlineExceeded(
                f"{name} could not be read in {self.limits.cpu} s of processor time. Split or simplify it."
            )
        return InvalidInput(f"{name} could not be read: its parser crashed on it (exit status {child.returncode}).")

    def _start(self) -> subprocess.Popen[bytes]:
        # By path and isolated: neither the server's environment nor its working directory reaches the child.
        script = str(Path(parsers.__file__).resolve())
        command = [sys.executable, "-I", script, str(self.limits.memory), str(self.limits.cpu)]
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(
                f"No parser process could be started ({error}). Free memory or processes, and retry."
            ) from error
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._served = 0
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _wait(pipe: IO[bytes], event: int, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError


def _send(pipe: IO[bytes] | None, message: bytes, deadline: float) -> None:
    assert pipe is not None
    view = memoryview(message)
    while view:
        _wait(pipe, selectors.EVENT_WRITE, deadline)
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(pipe.fileno(), view[: 1 << 20]) :]


def _receive(pipe: IO[bytes] | None, length: int, deadline: float) -> bytes:
    assert pipe is not None
    parts: list[bytes] = []
    while length > 0:
        _wait(pipe, selectors.EVENT_READ, deadline)
        part = os.read(pipe.fileno(), min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
