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
    draw(table((), [("Server", server.url), ("Key", session.key_hint()), ("You are", _me())]))
    st.subheader("About", anchor=False)
    draw(table((), [(words(name), value(found)) for name, found in info.items() if name != "parts"]))
    st.subheader("Health", anchor=False)
    draw(_parts(info.get("parts") or server.ready().get("parts") or {}))


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


def _parts(parts: Mapping[str, Mapping[str, Any]]) -> Safe:
    """Each part of the server: does it work, and what else it says about itself."""
    rows = []
    for name, found in parts.items():
        fine = badge("ready", "ok") if found.get("ok") else badge("not ready", "bad")
        about = {key: inner for key, inner in found.items() if key != "ok"}
        rows.append((words(name), fine, value(about) if about else ""))
    return table((), rows)
