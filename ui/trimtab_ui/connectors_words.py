"""How a connector is doing, in words: its badge, its state, what it reaches, how it signs in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Safe, badge, escape

BADGES = {
    "current": ("checked", "ok"),
    "release": ("built in", ""),
    "approved": ("approved by you", "ok"),
    "caller": ("not looked at", ""),
}
MISSING = "missing "
CODE_KINDS = {
    "python": "A package or file on the server",
    "openapi": "Imported from an API's own description",
    "mcp": "An MCP server",
}
BREAKERS = {
    "closed": ("answering", "ok"),
    "open": ("not answering, spared for a moment", "bad"),
    "half_open": ("being tried again", "warn"),
}

REASONS = {
    "busy": "too many at once",
    "rate": "budget used up",
    "circuit_open": "service spared",
    "unreachable": "not reached",
    "deadline": "too slow",
    "status": "service refused",
    "too_large": "answer too large",
    "malformed": "not understood",
    "not_permitted": "not permitted",
    "auth": "not signed in",
    "invalid_input": "bad arguments",
    "not_set_up": "not set up",
    "stopped": "stopped",
}


def badge_of(connector: Mapping[str, Any]) -> Safe:
    """Whether it was checked. Without a current badge its tools may only read."""
    about = connector.get("badge") or {}
    state, reason = str(about.get("state", "")), about.get("reason", "")
    if not state:
        return escape("")
    if not about.get("vouched"):
        return badge("read-only", "warn", reason)
    words, kind = BADGES.get(state, (state, ""))
    return badge(words, kind, reason)


def state_of(connector: Mapping[str, Any]) -> Safe:
    """The one thing a person should know first."""
    if connector.get("error"):
        return badge("broken", "bad", connector["error"])
    if not connector.get("enabled"):
        return badge("off")
    if to_set_up(connector):
        return badge("to set up", "warn", "The assistant is not offered its tools before.")
    auth = str(connector.get("auth") or "")
    if auth.startswith(MISSING):
        return badge("needs a key", "warn", f"{auth.removeprefix(MISSING)} is not set.")
    if auth in ("not connected", "reconnect"):
        return badge("sign in" if auth == "not connected" else "sign in again", "warn")
    if auth.startswith("unreadable"):
        return badge("key unreadable", "bad", auth)
    if str((connector.get("health") or {}).get("breaker", "closed")) == "open":
        return badge("not answering", "warn")
    return badge("on", "ok")


def reach_of(connector: Mapping[str, Any]) -> str:
    """The hosts it may ask."""
    hosts = [str(host) for host in connector.get("hosts") or ()]
    if "*" in hosts:
        return "any public host"
    if connector.get("speaks"):
        return f"the server that you set up, by {', '.join(map(str, connector['speaks']))}"
    if hosts:
        return ", ".join(hosts)
    return "its own program" if connector.get("kind") == "mcp" else "nothing: it works on the server itself"


def speaks_of(connector: Mapping[str, Any]) -> str:
    """Protocols besides HTTP. Its own code keeps the limits there; Trimtab's client keeps those of HTTP."""
    spoken = ", ".join(map(str, connector.get("speaks") or ()))
    return f"{spoken}: deadlines and retries are its own there" if spoken else ""


def auth_words(auth: object) -> str:
    """The state of its credentials; the server never sends the credentials."""
    state = str(auth or "none")
    if state.startswith(MISSING):
        return f"{state.removeprefix(MISSING)} is not set"
    known = {"none": "not needed", "ready": "ready", "optional": "works without; none is set"}
    known |= {"not connected": "nobody has signed in yet", "reconnect": "must be signed in again"}
    return known.get(state, state)


def to_set_up(connector: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The options it cannot work without and has not been given."""
    return [one for one in connector.get("options") or () if one.get("required") and not one.get("set")]


def changes_something(connector: Mapping[str, Any]) -> bool:
    """Whether any tool of it does more than read."""
    return any(tool.get("effect") != "read" for tool in connector.get("tools") or ())


def several(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"
