"""The Connectors page: what the assistant can reach, in a list; one of them, opened; and two ways to add more.

What is open stands in the address (`?connector=weather`), so that a reload or a bookmark opens the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import connectors_mcp, connectors_one, connectors_openapi, connectors_remembered, session
from .connectors_words import badge_of, reach_of, several, state_of
from .markup import draw, note, tag
from .untrusted import plain

MANY = 12
"""More than this, and the list has a field to find one."""
OPEN = "connector"
NEW = "new"


def page() -> None:
    opened, new = st.query_params.get(OPEN, ""), st.query_params.get(NEW, "")
    if new in WIZARDS:
        _back()
        session.draw_told()
        if made := WIZARDS[new]():
            _open(made)
            st.rerun()
        return
    found = session.client().connectors()
    chosen = next((one for one in found if one["name"] == opened), None)
    if chosen is None:
        _list(found)
        return
    _back()
    session.draw_told()
    if connectors_one.draw_one(chosen):
        st.query_params.clear()
        st.rerun()


def _list(found: Sequence[Mapping[str, Any]]) -> None:
    about = (
        "Services the assistant may ask. Each reaches the hosts it names, and no others. "
        "Whatever changes something outside asks you first."
    )
    draw(tag("div", tag("h2", "Connectors"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    with st.container(horizontal=True, gap="small", key="connectors-add"):
        st.button("Import an API", key="new-openapi", icon=":material/api:", on_click=_new, args=("openapi",),
                  help="From its OpenAPI or Swagger document.")  # fmt: skip
        st.button("Add an MCP server", key="new-mcp", icon=":material/extension:", on_click=_new, args=("mcp",),
                  help="A program or an address that speaks the Model Context Protocol.")  # fmt: skip
    shown = list(found)
    if len(shown) > MANY:
        wanted = st.text_input("Find a connector", key="find-connector").strip().casefold()
        shown = [one for one in shown if wanted in _words(one)]
    if not shown:
        note("None is installed." if not found else "None fits.")
    with st.container(key="connectors"):
        for connector in shown:
            _row(connector)
    connectors_remembered.draw_remembered()


def _words(connector: Mapping[str, Any]) -> str:
    tools = " ".join(str(tool["name"]) for tool in connector.get("tools") or ())
    return f"{connector['name']} {connector.get('description', '')} {reach_of(connector)} {tools}".casefold()


def _row(connector: Mapping[str, Any]) -> None:
    name, broken = str(connector["name"]), bool(connector.get("error"))
    with (
        st.container(border=True, key=f"connector-{name}"),
        st.container(horizontal=True, vertical_alignment="center", wrap=False),
    ):
        about = connector.get("error") if broken else connector.get("description", "")
        facts = [several(len(connector.get("tools") or ()), "tool"), " · reaches ", reach_of(connector)]
        draw(
            tag(
                "div",
                tag("div", tag("span", name, cls="tt-where"), state_of(connector), badge_of(connector),
                    cls="tt-card-head"),
                tag("div", about, cls="tt-two-lines"),
                tag("div", *([] if broken else facts), cls="tt-note"),
            )
        )  # fmt: skip
        if not broken:
            connectors_one.draw_switch(connector, "list")
        st.button("Open", key=f"open-{name}", icon=":material/chevron_right:", icon_position="right",
                  type="tertiary", on_click=_open,
                  args=(name,), help=plain(f"What {name} does, and how it is doing"))  # fmt: skip


def _back() -> None:
    st.button("All connectors", key="connectors-back", icon=":material/arrow_back:", type="tertiary",
              on_click=st.query_params.clear)  # fmt: skip


def _open(name: str) -> None:
    st.query_params.clear()
    st.query_params[OPEN] = name


def _new(what: str) -> None:
    st.query_params.clear()
    st.query_params[NEW] = what


WIZARDS = {"openapi": connectors_openapi.wizard, "mcp": connectors_mcp.wizard}
