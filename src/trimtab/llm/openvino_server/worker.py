"""The process that steps the pipeline. Started by `openvino.py`, never by a person; it starts the front itself.

Its whole configuration, the key included, comes as one JSON line on standard input. Standard input stays open: when it
ends, the parent is gone and so are this process and the front. Standard output carries one line, ``{"ready": ...}`` or
``{"error": ...}``; whatever libraries print goes to standard error. No text of a request ever gets here, only ids.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import openvino_genai as genai

from .lane import Ask, Lane, LaneOptions
from .link import WorkerLink
from .prefix import BLOCK

_STATE = re.compile(r'variable_shape="\?,(\d+),\?,(\d+)"')


def main() -> None:
    wires = os.dup(1)
    os.dup2(2, 1)  # whatever a native library prints must not be mistaken for our line
    with os.fdopen(wires, "w") as answer:
        config = json.loads(sys.stdin.readline())
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        try:
            worker = Worker(config)
            answer.write(json.dumps({"ready": worker.wait_for_front()}) + "\n")
        except Exception as error:
            answer.write(json.dumps({"error": f"{type(error).__name__}: {_last_line(error)}"}) + "\n")
            answer.flush()
            os._exit(3)
        answer.flush()
    try:
        worker.run()
    except EOFError:
        os._exit(4)  # the front has gone; the parent starts both again


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1][:300]


class Worker:
    """The pipeline's loop: take what was asked, step, say what came out."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._folder = Path(config["folder"])
        ours, theirs = socket.socketpair()
        self._front = _start_front(theirs, config)
        self._link = WorkerLink(ours)
        self._options = LaneOptions(
            slots=config["slots"],
            slot_context=config["slot_context"],
            batch=max(BLOCK, config["batch"]),
            threads=config["threads"],
            cache_blocks=max(8, config["cache_mib"] * (1 << 20) // (BLOCK * token_bytes(self._folder))),
        )
        self._base = Lane(self._folder, self._options, config["end_ids"])

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
        while True:
            for message in self._link.receive(0 if self._base.busy else None):
                self._take(message)
            if self._base.busy and (events := self._base.step()):
                self._link.send({"events": events})

    def _take(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "add":
                settings = message["settings"]
                if message["grammar"]:
                    settings["structured_output_config"] = genai.StructuredOutputConfig(grammar=message["grammar"])
                self._base.add(Ask(message["id"], message["ids"], settings, time.monotonic()))
            case "cancel":
                self._base.cancel(message["id"])
            case "ping":
                self._link.send({"reply": message["id"], "stats": self._stats()})

    def _stats(self) -> dict[str, float]:
        metrics = self._base.pipe.get_metrics()
        return {
            "waiting": self._base.waiting,
            "running": self._base.running,
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
