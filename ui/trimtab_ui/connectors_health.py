"""How a connector has been doing since the server started, and its last calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import look, session
from .client import UiError
from .connectors_words import BREAKERS, REASONS, several
from .markup import Safe, badge, draw, join, note, table, tag

SHOWN = 20


def draw_health(connector: Mapping[str, Any]) -> None:
    """Figures since the server started. What works on the server itself has no service and no budget."""
    health, calls = connector.get("health") or {}, int(connector.get("calls") or 0)
    if not calls:
        note("Not asked yet since the server started.")
        return
    tiles = [
        _tile("Calls", calls, f"{int(connector.get('failures') or 0)} failed"),
        _tile("Errors", f"{float(health.get('error_rate') or 0):.0%}", "of the last 200 calls"),
        _tile("Speed", look.seconds(float(health["p95"])) if health.get("p95") else "–", "95 of 100 are faster"),
    ]
    if connector.get("hosts"):
        words, kind = BREAKERS.get(str(health.get("breaker", "closed")), (str(health.get("breaker")), ""))
        tiles = [_tile("Service", badge(words, kind)), *tiles, _budget(health)]
    draw(tag("div", *tiles, cls="tt-tiles"))
    if health.get("retries"):
        note(
            f"{several(int(health['requests']), 'request')} to the service, {int(health['retries'])} of them repeated."
        )


def _tile(name: str, value: object, more: str = "") -> Safe:
    return tag("div", tag("div", name, cls="tt-note"), tag("div", value, cls="tt-value"),
               tag("div", more, cls="tt-note"))  # fmt: skip


def _budget(health: Mapping[str, Any]) -> Safe:
    left, most, per = health.get("rate_left"), health.get("rate_limit"), float(health.get("rate_per") or 0)
    if left is None or not most:
        return _tile("Budget left", "–", "no limit declared")
    return _tile("Budget left", f"{left} of {most}", f"requests every {_span(per)}")


def _span(seconds: float) -> str:
    for length, word in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= length:
            count = seconds / length
            return word if count == 1 else f"{count:g} {word}s"
    return f"{seconds:g} seconds"


def draw_calls(connector: Mapping[str, Any]) -> None:
    """The newest first, and none of what was asked or answered: that is not kept here."""
    try:
        calls = session.client().connector_calls(str(connector["name"]), SHOWN)
    except UiError as error:
        note(error.message)
        return
    rows = [(float(call.get("at") or 0), _call(call)) for call in calls]
    told = {(call.get("tool"), call.get("message")) for call in calls}
    rows += [
        (float(error.get("at") or 0), (look.ago(float(error.get("at") or 0)), _name(error), _failed(error), "–"))
        for error in connector.get("last_errors") or ()
        if (error.get("tool"), error.get("message")) not in told
    ]
    if not rows:
        return
    st.subheader("Recent calls", anchor=False)
    newest = [row for _, row in sorted(rows, key=lambda one: one[0], reverse=True)][:SHOWN]
    draw(table(("When", "Tool", "How it ended", "Took"), newest))


def _call(call: Mapping[str, Any]) -> tuple[object, ...]:
    ended = [badge("done", "ok")] if call.get("ok") else [_failed(call)]
    if call.get("stale"):
        ended.append(badge("an older answer", "warn", "The service could not be asked."))
    elif call.get("cached"):
        ended.append(badge("kept answer", "", "The service was not asked: what it said before is still good."))
    return look.ago(float(call.get("at") or 0)), _name(call), join(ended), look.seconds(call.get("seconds"))


def _name(call: Mapping[str, Any]) -> Safe:
    name = str(call.get("tool", ""))
    return tag("span", name.partition(".")[2] or name, cls="tt-mono", title=name)


def _failed(call: Mapping[str, Any]) -> Safe:
    reason = str(call.get("reason") or "failed")
    return join([badge(REASONS.get(reason, reason), "bad"), tag("div", call.get("message", ""), cls="tt-note")])
