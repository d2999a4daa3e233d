"""Adding an MCP server: say how it is reached, look at what it offers, say what only reads, add it.

What it says of itself is a stranger's word. A tool counts as writing unless the person says that it only reads, and
what is approved is what was shown: the look's hash goes along.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .connectors_mcp_tools import advice, draw_offered, facts
from .markup import badge, draw, note, notice, table, tag
from .untrusted import plain

WAYS = {"command": "A program on the server", "url": "An address"}
LOOK = "mcp-look"


def wizard() -> str:
    """Draw the step it is at. The new connector's name once it is added, else nothing."""
    about = "Programs and services that speak the Model Context Protocol become connectors. You approve each tool."
    draw(tag("div", tag("h2", "Add an MCP server"), tag("p", about), cls="tt-hero tt-below"))
    kept = st.session_state.get(LOOK)
    if kept is None:
        _choose()
        return ""
    return _decide(kept["reached"], kept["shown"])


# --- step 1: how it is reached


def _choose() -> None:
    draw(tag("div", badge("step 1 of 2"), "How is it reached? Nothing is added yet.", cls="tt-card-head"))
    way = st.segmented_control("It is", list(WAYS), default="command", required=True, format_func=WAYS.__getitem__,
                               key="mcp-way")  # fmt: skip
    with st.form("mcp"):
        name = st.text_input("Name in Trimtab", key="mcp-name", max_chars=31, placeholder="files",
                             help="Small letters, digits and underscores.").strip()  # fmt: skip
        try:
            reached, wrong = _command() if way == "command" else _address(), None
        except UiError as error:
            reached, wrong = {}, error
        sent = st.form_submit_button("Look at it", type="primary", key="mcp-look-at", icon=":material/search:")
    if not sent:
        return
    if wrong is None and not name:
        wrong = UiError("It needs a name.", "Its tools are then called, for example, files.read_file.")
    if wrong is None:
        wrong = _look({"name": name, **reached})
    if wrong is None:
        st.rerun()
    notice(wrong.message, wrong.advice, "bad")


def _command() -> dict[str, Any]:
    line = st.text_input("Command", key="mcp-command", max_chars=2000,
                         placeholder="npx -y @modelcontextprotocol/server-filesystem /home/ada/notes")  # fmt: skip
    note("It is run on the server exactly as written, without a shell, with all that Trimtab's own user may do.")
    with st.expander("Environment", icon=":material/tune:"):
        lines = st.text_area("Variables, one a line", key="mcp-env", height=90, placeholder="LEVEL=info\nTEAM_TOKEN")
        note("NAME=value is kept with the server. A name alone is looked up where secrets are kept, at each start.")
        cwd = st.text_input("Folder it runs in (optional)", key="mcp-cwd").strip()
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise UiError("The command's quotation marks do not match.", str(error)) from error
    if not argv:
        return {}
    env, secrets = {}, []
    for one in filter(None, map(str.strip, lines.splitlines())):
        variable, equals, value = one.partition("=")
        if equals:
            env[variable.strip()] = value
        else:
            secrets.append(one)
    return {"argv": argv, "env": env, "secrets": secrets, "cwd": cwd}


def _address() -> dict[str, Any]:
    url = st.text_input("Address", key="mcp-url", max_chars=2000, placeholder="https://mcp.example.org/mcp").strip()
    local = st.checkbox("It is on this machine or its own network", key="mcp-local",
                        help="Otherwise only https to public addresses.")  # fmt: skip
    with st.expander("Sign-in", icon=":material/key:"):
        lines = st.text_area(
            "Headers, one a line", key="mcp-headers", height=70, placeholder="Authorization=TEAM_TOKEN"
        )
        note("Header=NAME, where NAME is a variable or secret on the server. Its value never comes here.")
    headers = {}
    for one in filter(None, map(str.strip, lines.splitlines())):
        header, equals, variable = one.partition("=")
        if not equals:
            raise UiError(f"This is no header: {one[:60]}", "Write it like Authorization=TEAM_TOKEN.")
        headers[header.strip()] = variable.strip()
    return {"url": url, "headers": headers, "local": local} if url else {}


def _look(reached: dict[str, Any]) -> UiError | None:
    if not ({"argv", "url"} & reached.keys()):
        return UiError("There is no command or address yet.", "Give one above.")
    try:
        with st.spinner("Looking at it. A program that is fetched first may take a minute …"):
            shown = session.client().look_at_mcp(**reached)
    except UiError as error:
        return error
    st.session_state[LOOK] = {"reached": reached, "shown": shown}
    return None


# --- step 2: what it offers


def _decide(reached: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    draw(tag("div", badge("step 2 of 2"), "Which of its tools only read? Nothing is added yet.", cls="tt-card-head"))
    with st.container(border=True, key="mcp-preview"):
        draw(tag("div", tag("span", shown["name"], cls="tt-where"), cls="tt-card-head"))
        draw(table((), facts(shown)))
    reads = draw_offered(shown)
    with st.container(horizontal=True, gap="small"):
        add = st.button(plain(f"Add {shown['name']}"), key="mcp-add", type="primary", icon=":material/add:")
        st.button("Choose again", key="mcp-again", icon=":material/undo:", on_click=_again)
    if not add:
        return ""
    try:
        with st.spinner("Adding …"):
            session.client().add_mcp(**reached, seen=shown["sha256"], reads=reads)
    except UiError as error:
        notice(error.message, advice(error), "bad")
        return ""
    _again()
    session.tell(f"{shown['name']} is added. Try one of its tools below.", kind="ok")
    return str(shown["name"])


def _again() -> None:
    st.session_state.pop(LOOK, None)
