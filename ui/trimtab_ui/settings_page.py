"""The Settings page: how it looks, and what one is connected to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .markup import Safe, badge, draw, table, tag


def page() -> None:
    draw(tag("div", tag("h2", "Settings"), tag("p", "How it looks, and what it runs on."), cls="tt-hero"))
    server = session.client()
    info = server.info()
    st.subheader("Appearance", anchor=False)
    now = "dark" if st.context.theme.type == "dark" else "light"
    draw(tag("p", f"Now {now}. It follows your system; the menu at the top right lets you choose."))
    st.subheader("Connection", anchor=False)
    draw(table(("", ""), [("Server", server.url), ("Key", session.key_hint()), ("You are", _me())]))
    st.subheader("About", anchor=False)
    draw(table(("", ""), [(words(name), value(found)) for name, found in info.items()]))
    st.subheader("Health", anchor=False)
    draw(_parts(server.ready()))


def _me() -> str:
    try:
        who = session.client().me()
    except UiError as error:
        return error.message
    return str(who.get("name") or who.get("id", ""))


def words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def value(found: Any) -> Safe | str:
    """A setting in words: nested ones as `name: value` lines."""
    if isinstance(found, Mapping):
        return tag("div", *(tag("div", f"{words(str(name))}: ", value(inner)) for name, inner in found.items()))
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list | tuple):
        return ", ".join(map(str, found)) or "none"
    return "–" if found in (None, "") else str(found)


def _parts(ready: Mapping[str, Any]) -> Safe:
    parts = (
        ready.get("parts") or ready.get("checks") or {k: v for k, v in ready.items() if k not in ("status", "ready")}
    )
    rows = []
    for name, found in parts.items():
        fine = found.get("ready", found.get("ok")) if isinstance(found, Mapping) else found in (True, "ok", "ready")
        about = (
            found.get("detail") or found.get("message") or found.get("state", "") if isinstance(found, Mapping) else ""
        )
        rows.append(
            (
                words(str(name)),
                badge("ready", "ok") if fine else badge("not ready", "bad"),
                value(about) if about else "",
            )
        )
    return table(("Part", "State", ""), rows)
