"""The process that steps the pipeline. Started by `openvino.py`, never by a person; it starts the front itself.

Its whole configuration, the key included, comes as one JSON line on standard input. Standard input stays open: when it
ends, the parent is gone and so are this process and the front. Standard output carries one line, ``{"ready": ...}`` or
``{"error": ...}``; whatever libraries print goes to standard error. No text of a request ever gets here, only ids.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import openvino_genai as genai

from ..openvino_adapters import with_adapters
from .lane import Ask, Lane, LaneOptions
from .link import WorkerLink
from .prefix import BLOCK

_GRACE_SECONDS = 1.5
"""The parent kills us after two."""
_STATE = re.compile(r'variable_shape="\?,(\d+),\?,(\d+)"')


def main() -> None:
    wires = os.dup(1)
    os.dup2(2, 1)  # whatever a native library prints must not be mistaken for our line
    with os.fdopen(wires, "w") as answer:
        config = json.loads(sys.stdin.readline())
        leaving = threading.Event()
        threading.Thread(target=_leave_with_parent, args=(leaving,), daemon=True).start()
        try:
            worker = Worker(config, leaving)
            answer.write(json.dumps({"ready": worker.wait_for_front()}) + "\n")
        except Exception as error:
            answer.write(json.dumps({"error": f"{type(error).__name__}: {_last_line(error)}"}) + "\n")
            answer.flush()
            os._exit(3)
        answer.flush()
    try:
        worker.run()
        worker.close()
    except (EOFError, BrokenPipeError):
        os._exit(4)  # the front has gone; the parent starts both again
    os._exit(0)  # the parent has gone


def _leave_with_parent(leaving: threading.Event) -> None:
    """When the parent has gone, or wants us to go: let answers that are nearly done finish, then leave."""
    sys.stdin.buffer.read()
    leaving.set()
    time.sleep(_GRACE_SECONDS)
    os._exit(0)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1][:300]


class Worker:
    """The pipeline's loop: take what was asked, step, say what came out."""

    def __init__(self, config: dict[str, Any], leaving: threading.Event) -> None:
        self._leaving = leaving
        self._folder = Path(config["folder"])
        ours, theirs = socket.socketpair()
        self._front = _start_front(theirs, config)
        self._link = WorkerLink(ours)
        self._options = LaneOptions(
            slots=config["slots"],
            slot_context=config["slot_context"],
            batch=max(BLOCK, config["batch"]),
            threads=config["threads"],
            kv_cache=config.get("kv_cache", ""),
            cache_blocks=max(8, config["cache_mib"] * (1 << 20) // (BLOCK * token_bytes(self._folder))),
        )
        self._end_ids = config["end_ids"]
        self._adapters = [Path(path) for path in config["adapters"]]
        self._lane = self._open(self._adapters)
        self._old: list[Lane] = []
        """Lanes with fewer adapters, which finish what they have begun."""
        self._coming: tuple[int, Future[Lane], list[Path]] | None = None
        self._wishes: deque[dict[str, Any]] = deque()
        self._builder = ThreadPoolExecutor(1, "adapter")

    def _open(self, adapters: list[Path]) -> Lane:
        named = {str(i): path for i, path in enumerate(adapters)}
        lane = Lane(with_adapters(self._folder, named, self._folder.parent), self._options, self._end_ids)
        lane.warm()
        return lane

    def wait_for_front(self) -> str:
        """The front's address once it serves.

        Raises:
            RuntimeError: it does not come up.
        """
        self._link.send({"ready": True})
        try:
            for message in self._link.receive(60.0):
                if "listening" in message:
                    return str(message["listening"])
        except EOFError:
            pass
        raise RuntimeError("the HTTP half of the engine did not start")

    def run(self) -> None:
        """Until the front has gone (EOFError), or the parent has and nothing is left to do."""
        threading.Thread(target=self._wake_to_leave, daemon=True).start()
        draining = False
        while self._busy() or not draining:
            if self._leaving.is_set() and not draining:
                draining = True
                self._link.send({"drain": True})
                continue
            for message in self._link.receive(0 if self._busy() else None):
                self._take(message)
            events = [event for lane in (*self._old, self._lane) if lane.busy for event in lane.step()]
            if events:
                self._link.send({"events": events})
            self._retire()
            self._build()

    def _busy(self) -> bool:
        return self._lane.busy or any(lane.busy for lane in self._old)

    def _wake_to_leave(self) -> None:
        self._leaving.wait()
        self._link.wake()

    def close(self) -> None:
        """Let the front say what it still has to say."""
        self._link.close()
        self._front.wait(1.0)

    def _take(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "add":
                settings = message["settings"]
                if message["grammar"]:
                    settings["structured_output_config"] = genai.StructuredOutputConfig(grammar=message["grammar"])
                self._lane.add(Ask(message["id"], message["ids"], settings, time.monotonic()))
            case "cancel":
                for lane in (*self._old, self._lane):
                    lane.cancel(message["id"])
            case "ping":
                self._link.send({"reply": message["id"], "stats": self._stats()})
            case "adapter":
                self._wishes.append(message)

    def _build(self) -> None:
        """Bring in the pipelines with more adapters, one at a time, each built beside the one that serves."""
        if self._coming is None and self._wishes:
            wish = self._wishes.popleft()
            adapters = [*self._adapters, Path(wish["path"])]
            coming = self._builder.submit(self._open, adapters)
            coming.add_done_callback(lambda _: self._link.wake())
            self._coming = wish["id"], coming, adapters
        if self._coming is None or not self._coming[1].done():
            return
        (number, built, adapters), self._coming = self._coming, None
        try:
            lane = built.result()
        except Exception as error:
            self._link.send({"reply": number, "error": _last_line(error)})
            return
        for ask in self._lane.give_up_waiting():
            lane.add(ask)
        self._old.append(self._lane)
        self._lane, self._adapters = lane, adapters
        self._link.send({"reply": number, "adapters": len(adapters)})

    def _retire(self) -> None:
        """Let go of lanes that have nothing left to do, and of what was written for them alone."""
        for lane in [lane for lane in self._old if not lane.busy]:
            self._old.remove(lane)
            if lane.folder != self._folder:
                shutil.rmtree(lane.folder, ignore_errors=True)

    def _stats(self) -> dict[str, float]:
        metrics = self._lane.pipe.get_metrics()
        lanes = (*self._old, self._lane)
        return {
            "waiting": sum(lane.waiting for lane in lanes),
            "running": sum(lane.running for lane in lanes),
            "kv_usage": metrics.cache_usage / 100,
            "kv_bytes": metrics.cache_size_in_bytes,
        }


def _start_front(connection: socket.socket, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    front = subprocess.Popen(
        [sys.executable, "-m", "trimtab.llm.openvino_server.front", str(connection.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
    )
    connection.close()
    assert front.stdin is not None
    front.stdin.write(json.dumps(config).encode() + b"\n")
    front.stdin.flush()
    return front


def token_bytes(folder: Path) -> int:
    """Bytes of cache that a token takes: 8-bit keys and values, with a scale and a zero a channel or a token."""
    states = _STATE.findall((folder / "openvino_model.xml").read_text("utf-8", "replace"))
    half = sum(int(heads) * (int(width) + 8 + int(width) * 5 // 4) for heads, width in states) // 2
    return half or 16384


if __name__ == "__main__":
    main()
