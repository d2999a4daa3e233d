"""Identifiers: a short prefix that says what it is, then a UUIDv7 (RFC 9562), so ids sort by creation time."""

from __future__ import annotations

import os
import time


def new(prefix: str) -> str:
    """A fresh id such as ``thr_019a...``: 48 bits of Unix milliseconds, then 74 random bits."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = (raw[6] & 0x0F) | 0x70
    raw[8] = (raw[8] & 0x3F) | 0x80
    return f"{prefix}_{raw.hex()}"
