"""Measurements, kept as they come: a line of JSON each, on disk before the next begins.

A measurement holds for the same model, settings, questions, number of users and machine; the last of several counts. A
process that was killed while writing leaves half a line, which is skipped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.domain.errors import Unavailable

from .answers import Answers
from .interval import Interval
from .quality import Quality
from .speed import Speed
from .variant import Candidate, candidate

FILE = "measurements.jsonl"
FORMAT = 3


@dataclass(frozen=True)
class Measured:
    """One candidate, measured. Sizes in bytes, times in seconds."""

    key: str
    candidate: Candidate
    model_sha256: str
    workload: str
    workload_digest: str
    machine: str
    alone: Speed
    together: Speed
    memory: int
    """Peak of its processes; 0 where the system does not say."""
    disk: int
    start_seconds: float
    quality: Quality | None
    """None where it cannot be had: a remote server gives no probabilities."""
    estimated_memory: int
    estimated_disk: int
    load_before: float
    """Processors' worth of work that others did just before it began; more than 0.5 is told as a busy machine."""
    seconds: float
    """That measuring took."""
    at: float
    """Seconds since 1970."""
    command: str
    answers: Answers | None = None
    """What its answers are worth; None where none were asked."""


def key_of(model_sha256: str, one: Candidate, workload_digest: str, users: int, machine: str) -> str:
    """The name under which a measurement is found again."""
    told = repr((FORMAT, model_sha256, one.plain(), workload_digest, users, machine))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Results:
    """The measurements in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def add(self, row: Measured) -> None:
        """Keep it. When this returns it is on disk.

        Raises:
            Unavailable: it cannot be written; the disk may be full.
        """
        line = json.dumps(_finite(asdict(row)), allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and not _ends_whole(file):
                    file.write(b"\n")  # what a killed process left must not swallow this line
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(
                f"The measurement cannot be kept in {self.path} ({error.strerror}). Free some space and run it again: "
                "what was measured before is not measured twice."
            ) from error

    def all(self) -> dict[str, Measured]:
        """By key; the last of each. Lines that cannot be read are left out."""
        return {row.key: row for row in self._rows()}

    def _rows(self) -> Iterator[Measured]:
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                yield _measured(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue


def _ends_whole(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _finite(value: Any) -> Any:
    """JSON knows no infinity: a text stands for it."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _measured(values: dict[str, Any]) -> Measured:
    quality = values["quality"]
    return Measured(
        **values
        | {
            "candidate": candidate(values["candidate"]),
            "alone": _speed(values["alone"]),
            "together": _speed(values["together"]),
            "answers": _answers(values.get("answers")),
            "quality": quality and Quality(**{k: _number(v) for k, v in quality.items()}),
        }
    )


def _answers(values: dict[str, Any] | None) -> Answers | None:
    if values is None:
        return None
    counts = values["asked"]
    return Answers(**{name: _number(value) for name, value in values.items() if name != "asked"}, asked=counts)


def _speed(values: dict[str, Any]) -> Speed:
    return Speed(**{name: _number(value) for name, value in values.items()})


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        return Interval(**{name: float(v) for name, v in value.items()})
    return float(value) if isinstance(value, str) else value
