"""What a person sets up for a connector (a folder, a server's name), what of it is set, and how to set the rest.

It is set on the server and not here: a folder or a server that anybody could name from a browser would be no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from .connectors_words import to_set_up
from .markup import Safe, badge, draw, join, note, notice, table, tag


def draw_lacking(connector: Mapping[str, Any]) -> None:
    """What must be set before it works, as commands to type."""
    if lacking := to_set_up(connector):
        notice(
            "It is not set up yet, so the assistant is not offered its tools.",
            "Run this in a terminal on the server, with your own values, and start Trimtab again:",
        )
        st.code("\n".join(_command(connector, one) for one in lacking), language="bash", wrap_lines=True)


def draw_options(connector: Mapping[str, Any]) -> None:
    """Each option with what it is for and whether it is set. Values stay on the server."""
    options = connector.get("options") or ()
    if not options:
        return
    st.subheader("Set up", anchor=False)
    draw(table((), [(_what(one), _state(one)) for one in options]))
    if not to_set_up(connector):
        note("Changed in a terminal on the server, for the next start: ",
             tag("span", _command(connector, options[0]), cls="tt-mono"))  # fmt: skip


def _command(connector: Mapping[str, Any], option: Mapping[str, Any]) -> str:
    return f"trimtab config set connectors.{connector['name']}.options.{option['name']} VALUE"


def _what(option: Mapping[str, Any]) -> Safe:
    """Two lines in one cell, so that a phone has room for the state beside them."""
    return join([tag("div", option["name"], cls="tt-mono"), tag("div", option.get("about", ""), cls="tt-note")])


def _state(option: Mapping[str, Any]) -> Safe:
    if option.get("set"):
        return badge("set", "ok")
    if option.get("required"):
        return badge("to be set", "warn")
    return badge(f"{option['default']} unless set") if option.get("default") else badge("optional")
