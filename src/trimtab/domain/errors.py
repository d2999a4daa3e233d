"""Every error Trimtab raises on purpose. One base; each message says what happened, to what, and what to do next.

TrimtabError
├── InvalidInput        400  the request itself is wrong
├── Unauthenticated     401  no key, or one we do not know
├── Forbidden           403  the key is known, the thing belongs to someone else
├── NotFound            404
├── Conflict            409  it was already decided, or has changed since
│   ├── ImpossibleBudget     nothing that was asked for fits on the machine; `detail` has the numbers
│   └── UnreachableTarget    no measured variant meets a target; `detail` says which and by how much
├── TooLarge            413
├── TooManyRequests     429  `retry_after` says when to come back
├── Unavailable         503  something we depend on is down
│   ├── MissingExtra         a Python extra is not installed; names its pip command
│   ├── EngineError          the model's engine
│   │   ├── EngineDied       it crashed while it was working on this request
│   │   ├── EngineBusy       its queue is full
│   │   └── EngineRefused    it answered with an error
│   └── ModelFileError       a weights file is missing, damaged or not what its hash says
├── DeadlineExceeded    504
└── ToolError           goes back to the model as a result, never up to the person as a failure
    └── ToolBusy             429  too many calls at once, no rate budget left, or the service is being spared
"""

from __future__ import annotations

from typing import Any, ClassVar


class TrimtabError(Exception):
    """Base of all. `code` is stable and machine-readable; `detail` is extra, JSON-safe context."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class InvalidInput(TrimtabError):
    code, status = "invalid_input", 400


class Unauthenticated(TrimtabError):
    code, status = "unauthenticated", 401


class Forbidden(TrimtabError):
    code, status = "forbidden", 403


class NotFound(TrimtabError):
    code, status = "not_found", 404


class Conflict(TrimtabError):
    code, status = "conflict", 409


class ImpossibleBudget(Conflict):
    code = "impossible_budget"


class UnreachableTarget(Conflict):
    code = "unreachable_target"


class TooLarge(TrimtabError):
    code, status = "too_large", 413


class TooManyRequests(TrimtabError):
    code, status = "too_many_requests", 429

    def __init__(self, message: str, *, retry_after: float = 1.0, **detail: Any) -> None:
        super().__init__(message, retry_after=retry_after, **detail)
        self.retry_after = retry_after


class Unavailable(TrimtabError):
    code, status = "unavailable", 503


class MissingExtra(Unavailable):
    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an extra that is not installed. In a checkout run: .venv/bin/pip install -e '.[{extra}]' "
            f"-c constraints.txt, elsewhere: pip install 'trimtab[{extra}]'",
            extra=extra,
        )


class EngineError(Unavailable):
    code = "engine_error"


class EngineDied(EngineError):
    code = "engine_died"


class EngineBusy(EngineError):
    code, status = "engine_busy", 429


class EngineRefused(EngineError):
    code, status = "engine_refused", 502


class ModelFileError(Unavailable):
    code = "model_file"


class DeadlineExceeded(TrimtabError):
    code, status = "deadline_exceeded", 504


class ToolError(TrimtabError):
    """A tool could not do what was asked. The message is written for the model and shown on the tool's card."""

    code, status = "tool_error", 502


class ToolBusy(ToolError):
    """Nothing was sent: the connector is at its own limit, or its service is known to be down. `retry_after` is in
    seconds."""

    code, status = "tool_busy", 429

    def __init__(self, message: str, *, retry_after: float = 1.0, **detail: Any) -> None:
        super().__init__(message, retry_after=round(retry_after, 3), **detail)
        self.retry_after = retry_after
