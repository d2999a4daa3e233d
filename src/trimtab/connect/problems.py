"""What went wrong on the wire, in a sentence for a model and a person, and a word for machines (`reason`)."""

from __future__ import annotations

import httpx

from trimtab.domain.errors import ToolError

from . import retry as retrying
from .reply import Reply
from .transport import connect_problem


def status_problem(host: str, reply: Reply) -> ToolError:
    """For a status of 400 or above. The body is not repeated: it is the service's text, not ours."""
    wait = retrying.retry_after(reply.headers.get("retry-after"))
    reason = {401: "auth", 403: "auth", 429: "rate"}.get(reply.status, "status")
    return ToolError(f"{host} {_said(reply.status, wait)}", status=reply.status, reason=reason)


def _said(status: int, wait: float | None) -> str:
    told = {
        401: "refused the key. Check it in your settings",
        403: "refused access. The key may lack a permission",
        404: "has nothing under that address",
        429: "asks for fewer requests. Try again later",
    }
    if status == 429 and wait:
        return f"asks for fewer requests. Try again in {wait:.0f} seconds (status 429)."
    if status in told:
        return f"{told[status]} (status {status})."
    if status >= 500:
        return f"has a problem of its own (status {status}). Try again later."
    return f"did not accept the request (status {status})."


def transport_problem(host: str, error: httpx.HTTPError) -> ToolError:
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return ToolError(connect_problem(host, error), reason="unreachable")
    if isinstance(error, httpx.TimeoutException):
        return ToolError(f"{host} stopped answering. Try again later.", reason="unreachable")
    return ToolError(
        f"{host} broke off its answer or sent one that is not HTTP ({type(error).__name__}). Try again later.",
        reason="unreachable",
    )


def too_late(host: str, seconds: float) -> ToolError:
    return ToolError(f"{host} did not finish answering within {seconds:g} seconds.", reason="deadline")
