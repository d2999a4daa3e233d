"""One connector, opened: what it may reach, how it is doing, its tools to try, its last calls, and taking it away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import (
    connectors_health,
    connectors_mcp_tools,
    connectors_openapi,
    connectors_options,
    connectors_remembered,
    connectors_sign_in,
    connectors_try,
    session,
)
from .connectors_words import CODE_KINDS, auth_words, badge_of, changes_something, reach_of, speaks_of, state_of
from .markup import draw, join, notice, table, tag
from .untrusted import plain


def draw_one(connector: Mapping[str, Any]) -> bool:
    """Draw it. True when it was taken away, so that there is nothing left to draw."""
    _head(connector)
    if connector.get("error"):
        notice(connector["error"], "Mend it where it is installed, then start Trimtab again.", "bad")
        return _origin(connector)
    connectors_options.draw_lacking(connector)
    _warnings(connector)
    connectors_sign_in.draw_sign_in(connector)
    draw(table((), _facts(connector)))
    connectors_options.draw_options(connector)
    connectors_health.draw_health(connector)
    connectors_try.draw_tools(connector)
    connectors_health.draw_calls(connector)
    connectors_remembered.draw_remembered(str(connector["name"]))
    return _origin(connector)


def draw_switch(connector: Mapping[str, Any], place: str) -> None:
    """On or off, at once and for later starts. `place` tells the same switch in two places apart."""
    name = str(connector["name"])
    key = f"toggle-{name}" if place == "list" else f"toggle-{place}-{name}"
    st.session_state[key] = bool(connector.get("enabled"))
    st.toggle(
        f"Use {plain(name)}", key=key, on_change=_switch, args=(name, key),
        label_visibility="collapsed" if place == "list" else "visible",
    )  # fmt: skip


def _switch(name: str, key: str) -> None:
    session.act(session.client().switch, name, bool(st.session_state[key]))


def _head(connector: Mapping[str, Any]) -> None:
    version = tag("span", f" {connector.get('version', '')}", cls="tt-host")
    draw(
        tag(
            "div",
            tag("h2", connector["name"], tag("small", version)),
            tag("p", connector.get("description", "")),
            cls="tt-hero tt-below",
        )
    )
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        draw(tag("div", state_of(connector), badge_of(connector), cls="tt-card-head"))
        if not connector.get("error"):
            draw_switch(connector, "one")


def _warnings(connector: Mapping[str, Any]) -> None:
    about = connector.get("badge") or {}
    if about and not about.get("vouched"):
        lost = "Its tools that change something will not run." if changes_something(connector) else "All its tools do."
        notice(
            join(["It may only read. ", about.get("reason", ""), " ", lost]),
            join(["Check it in a terminal on the server: ",
                  tag("code", f"trimtab connectors check {connector['name']}", cls="tt-mono")]),
            "warn" if changes_something(connector) else "info",
        )  # fmt: skip


def _facts(connector: Mapping[str, Any]) -> list[tuple[object, object]]:
    about = connector.get("badge") or {}
    facts: list[tuple[object, object]] = [
        ("Reaches", tag("span", reach_of(connector), cls="tt-mono" if connector.get("hosts") else ""))
    ]
    if speaks := speaks_of(connector):
        facts.append(("Speaks", speaks))
    facts.append(("Key or sign-in", auth_words(connector.get("auth"))))
    if about.get("reason") and about.get("vouched"):
        facts.append(("Badge", about["reason"]))
    if kind := CODE_KINDS.get(str(connector.get("kind", ""))):
        facts.append(("Comes from", kind))
    return facts


def _origin(connector: Mapping[str, Any]) -> bool:
    if connector.get("kind") == "mcp":
        return connectors_mcp_tools.draw_server(connector)
    if connector.get("kind") == "openapi":
        return connectors_openapi.draw_import(connector)
    return False
