"""The last calls of all connectors in a file, one JSON object a line, so that they outlive the process that made them.

    log = CallLog(home / "logs" / "connectors.jsonl")
    options = ConnectOptions(log=log)
    log.last(20, connector="weather")

It says which tool was called, when, how long it took and how it ended: neither arguments nor results, which belong to
whoever asked. At most two files of 2 MB are kept.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from .health import CallRecord

MAX_BYTES = 2_000_000
FIELDS = frozenset(field.name for field in fields(CallRecord))
_AS_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class CallLog:
    """Appends without a lock: a line is one write, which the system does not mix with another's."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._older = path.with_name(f"{path.name}.1")
        self._max = max_bytes

    def __call__(self, record: CallRecord) -> None:
        """Write one down. A disk that is full costs the line, not the call."""
        line = _AS_JSON.encode(vars(record)).encode("utf-8", "replace") + b"\n"
        try:
            handle = self._open()
            try:
                os.write(handle, line)
                full = os.fstat(handle).st_size >= self._max
            finally:
                os.close(handle)
            if full:
                os.replace(self.path, self._older)
        except OSError:
            return

    def _open(self) -> int:
        try:
            return os.open(self.path, _APPEND, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, _APPEND, 0o600)

    def last(self, count: int, connector: str = "") -> list[CallRecord]:
        """The newest `count` records, oldest first; of one connector, where it is named."""
        found = (record for record in self._records() if not connector or record.connector == connector)
        return list(deque(found, maxlen=count))

    def _records(self) -> Iterator[CallRecord]:
        for path in (self._older, self.path):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines:
                try:
                    told = json.loads(line)
                    yield CallRecord(**{name: value for name, value in told.items() if name in FIELDS})
                except (ValueError, TypeError, AttributeError):
                    continue  # cut off by a crash
