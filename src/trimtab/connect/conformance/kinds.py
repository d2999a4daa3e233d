"""The table of faults: each kind is one line of a check, each fault in it one way that a service misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..cassettes import Exchange
from . import faults
from .faults import Behave

PRIVATE = ("https://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "https://[::1]/", "//127.0.0.1/")
INSIDE = "inside.check.invalid"
"""A name that the check's resolver gives a private address."""


@dataclass(frozen=True)
class Fault:
    """One way to misbehave. `hopeless`: no proper answer can have come, so success would be made up."""

    name: str
    behave: Behave = faults.honest
    hopeless: bool = True
    setup: dict[str, Any] = field(default_factory=dict)
    in_body: bool = False
    """The status is as ever, and only the body is wrong: a write that was accepted was done all the same."""
    tokens: Behave = faults.honest
    """How the token endpoint behaves meanwhile."""
    only: Callable[[Exchange], bool] = lambda exchange: True
    """For which exchanges it makes sense."""


@dataclass(frozen=True)
class Kind:
    """A line: its id, what must hold, how it is tested, and the faults."""

    id: str
    must: str
    how: str
    faults: tuple[Fault, ...]


def has_json(exchange: Exchange) -> bool:
    return exchange.is_json and exchange.body[:1] in (b"{", b"[")


TRUNCATIONS = (
    Fault("JSON cut in the middle", faults.changed(faults.truncated), only=has_json, in_body=True),
    Fault("an empty body", faults.changed(lambda body: b""), only=has_json, in_body=True),
)
WRONG_TYPES = (
    Fault(
        "a web page instead of JSON",
        faults.changed(lambda b: b"<html><body>Please sign in</body></html>", "text/html"),
        only=has_json,
        in_body=True,
    ),
    Fault("an image", faults.changed(lambda b: b"\x89PNG\r\n\x1a\n\x00\x00", "image/png"), in_body=True),
)
SCHEMAS = (
    Fault("every member renamed", faults.changed(faults.renamed), only=has_json, in_body=True),
    Fault("every value of another type", faults.changed(faults.retyped), only=has_json, in_body=True),
    Fault("an error document with status 200", faults.changed(faults.problem_document), only=has_json, in_body=True),
    Fault("null", faults.changed(lambda body: b"null"), only=has_json, in_body=True),
)
KINDS: tuple[Kind, ...] = (
    Kind(
        "FAULT-REFUSE",
        "survives a service that is not there",
        "connection refused",
        (Fault("the connection refused", setup={"refuse": True}),),
    ),
    Kind(
        "FAULT-RESET",
        "survives a connection that breaks",
        "RST before, in the head, in the body; an early end",
        (
            Fault("a reset before any byte", faults.reset_at(0.0)),
            Fault("a reset in the head", faults.reset_at(0.02)),
            Fault("a reset in the middle", faults.reset_at(0.6)),
            Fault("a reset before the last byte", faults.reset_at(1.0)),
            Fault("an end in the middle of the head", faults.half_close),
        ),
    ),
    Kind(
        "FAULT-BLACKHOLE",
        "ends in time when nothing answers",
        "accepted, then silence",
        (Fault("silence", faults.blackhole),),
    ),
    Kind(
        "FAULT-DRIP",
        "ends in time when bytes drip",
        "one byte each 50 ms, head or body",
        (
            Fault("a dripping head", faults.drip),
            Fault("a dripping body", faults.drip_body),
        ),
    ),
    Kind(
        "FAULT-LATENCY",
        "ends in time when answers are late",
        "a short delay, and one beyond the deadline",
        (
            Fault("a short delay", faults.late(0.05), hopeless=False),
            Fault("a delay beyond the deadline", faults.late(60.0)),
        ),
    ),
    Kind(
        "FAULT-429",
        "keeps to Retry-After and asks no more than it may",
        "429 that asks for an hour, for nothing, for 0 s",
        (
            Fault("429 and Retry-After: 3600", faults.status(429, ("retry-after", "3600"))),
            Fault("429 without a hint", faults.status(429)),
            Fault("429 once, Retry-After: 0", faults.first(1, 429, ("retry-after", "0")), hopeless=False),
        ),
    ),
    Kind(
        "FAULT-5XX",
        "survives a burst of server errors and repeats no write",
        "500 or 503 for ever; 503 once",
        (
            Fault("status 500", faults.status(500)),
            Fault("status 503", faults.status(503)),
            Fault("one status 503", faults.first(1, 503), hopeless=False),
        ),
    ),
    Kind(
        "FAULT-TRUNCATED",
        "does not take half an answer for a whole one",
        "JSON cut in the middle; an empty body",
        TRUNCATIONS,
    ),
    Kind("FAULT-TYPE", "does not read what it did not ask for", "another content type", WRONG_TYPES),
    Kind(
        "FAULT-LENGTH",
        "notices a wrong length",
        "more promised than sent; less promised than sent",
        (
            Fault("more promised than sent", faults.changed(lambda body: body, length=lambda n: n + 1000)),
            Fault("less promised than sent", faults.changed(lambda body: body, length=lambda n: n // 2), only=has_json),
        ),
    ),
    Kind(
        "FAULT-GZIP",
        "is not blown up by a compressed answer",
        "10 GB in 10 MB of gzip; damaged gzip",
        (
            Fault("a gzip bomb", faults.gzip_bomb),
            Fault("damaged gzip", faults.status(200, ("content-encoding", "gzip"), body=b"\x1f\x8b\x08\x00garbage")),
        ),
    ),
    Kind(
        "FAULT-HUGE",
        "stops reading at its limit",
        "a body of 10 GB; 100 MB of headers",
        (
            Fault("a body of 10 GB", faults.endless_body),
            Fault("endless headers", faults.huge_head),
        ),
    ),
    Kind(
        "FAULT-SSE",
        "ends in time when a stream never does",
        "server-sent events without end",
        (Fault("an endless event stream", faults.endless_events),),
    ),
    Kind(
        "FAULT-REDIRECT-PRIVATE",
        "follows no redirect into a private network",
        "redirects to private, loopback and metadata addresses, and to a name that means one",
        tuple(Fault(f"a redirect to {target}", faults.redirect(target)) for target in (*PRIVATE, f"https://{INSIDE}/")),
    ),
    Kind(
        "FAULT-REDIRECT-LOOP",
        "follows no redirect for ever",
        "each answer redirects to the same host",
        (Fault("a redirect loop", faults.loop),),
    ),
    Kind(
        "FAULT-TLS",
        "accepts no certificate that is not right",
        "unknown authority, another name, expired; no fall-back to http",
        tuple(
            Fault(f"a certificate: {kind}", setup={"kind": kind, "plain_too": True})
            for kind in ("unknown authority", "another name", "expired")
        ),
    ),
    Kind(
        "FAULT-HTTP",
        "survives what is not HTTP",
        "another protocol's greeting",
        (Fault("an SSH server", faults.no_http),),
    ),
    Kind(
        "FAULT-EXPIRED",
        "says when its key is no longer accepted",
        "401 to every request",
        (Fault("status 401", faults.status(401, ("www-authenticate", 'Bearer error="invalid_token"'))),),
    ),
    Kind(
        "FAULT-TOKEN",
        "renews a token that has run out, once",
        "401 for the old token, an answer for the new one",
        (Fault("an expired token", faults.stale_token, hopeless=False),),
    ),
    Kind(
        "FAULT-REFRESH",
        "ends when renewing does not help",
        "401 after a refresh; a token endpoint that refuses or fails",
        (
            Fault("401 to the new token as well", faults.status(401)),
            Fault(
                "the renewal refused", faults.status(401), tokens=faults.status(400, body=b'{"error": "invalid_grant"}')
            ),
            Fault("a token endpoint that is down", faults.status(401), tokens=faults.status(503)),
            Fault("a token endpoint that babbles", faults.status(401), tokens=faults.status(200, body=b"<html>")),
        ),
    ),
    Kind(
        "FAULT-SCHEMA",
        "notices that the service has changed",
        "members renamed, types changed, an error with 200, null",
        SCHEMAS,
    ),
)
