"""What the front answers instead of an answer, in the words that OpenAI's and llama.cpp's clients know."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that is not served. `kind` is the error's ``type`` on the wire."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.status, "message": self.message, "type": self.kind}}


def too_long(have: int, most: int, what: str) -> Refusal:
    message = f"the request has {have} {what}, more than the {most} that fit in the context; shorten it"
    return Refusal(400, message, "exceed_context_size_error")


def busy(waiting: int) -> Refusal:
    return Refusal(429, f"{waiting} requests are waiting already", "queue_full_error", retry_after=1)
