"""What an MCP server offers, for a person to read and approve; and a server that was added: changes, removing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import ApiError, UiError
from .markup import badge, draw, join, note, notice, table, tag
from .untrusted import plain, to_html

RESOURCES = "resources"
CHANGES = {"new": ("new", "warn"), "changed": ("changed", "warn")}


def advice(error: UiError) -> str:
    """What to do about a refusal: most often the server offers something else than what was shown."""
    return "Look at it again." if isinstance(error, ApiError) and error.status == 409 else error.advice


def facts(server: Mapping[str, Any]) -> list[tuple[object, object]]:
    found: list[tuple[object, object]] = [("It says it is", server.get("says") or "nothing")]
    if server.get("argv"):
        parts = join([tag("code", part, cls="tt-mono") for part in server["argv"]], " ")
        found.append(("Runs", tag("div", parts, cls="tt-text")))
    else:
        found.append(("Asks", tag("span", server.get("url", ""), cls="tt-mono")))
    if server.get("protocol"):
        found.append(("Speaks MCP", server["protocol"]))
    return found


def draw_offered(shown: Mapping[str, Any]) -> list[str]:
    """Each tool as the server describes it, with a box for what the person says of it. Names of those that read."""
    sha, hinted = str(shown["sha256"]), set(map(str, shown.get("hinted") or ()))
    note("What you do not tick counts as writing: each call of it waits for your approval.")
    known = {str(tool["name"]) for tool in shown.get("tools") or () if tool.get("effect") == "read"}
    if hinted := hinted - known:
        st.button(f"Believe the server: {len(hinted)} of these only read", key="mcp-believe", type="tertiary",
                  icon=":material/done_all:", on_click=_believe, args=(sha, sorted(hinted)))  # fmt: skip
    reads: list[str] = []
    with st.container(key="mcp-tools", gap="xsmall"):
        for tool in shown.get("tools") or ():
            if _tool(tool, sha):
                reads.append(str(tool["name"]))
        if shown.get("has_resources"):
            with st.container(border=True):
                draw(tag("div", "resources", cls="tt-where"))
                note("What it has on offer is listed, and read by its address.")
                if st.checkbox("Only reads", key=f"mcp-reads-{sha}-{RESOURCES}"):
                    reads.append(RESOURCES)
    _aside(shown)
    return reads


def _believe(sha: str, names: list[str]) -> None:
    for name in names:
        st.session_state[f"mcp-reads-{sha}-{name}"] = True


def _tool(tool: Mapping[str, Any], sha: str) -> bool:
    hints = tool.get("hints") or {}
    marks = []
    if tool.get("change") in CHANGES and tool.get("was"):
        marks.append(badge(*CHANGES[str(tool["change"])]))
    if hints.get("destroys"):
        marks.append(badge("it says: destroys", "bad"))
    elif hints.get("only_reads"):
        marks.append(badge("it says: only reads"))
    with st.container(border=True, key=f"mcp-tool-{tool['name']}"):
        draw(tag("div", tag("span", tool["called"], cls="tt-where"), *marks, cls="tt-card-head"))
        if tool.get("was"):
            note("Was: ", tag("del", tool["was"]))
        draw(to_html(str(tool.get("description", ""))))
        arguments = ", ".join(map(str, (tool.get("schema") or {}).get("properties") or {}))
        note("Takes: ", tag("span", arguments, cls="tt-mono") if arguments else "nothing")
        return st.checkbox("Only reads", key=f"mcp-reads-{sha}-{tool['name']}", value=tool.get("effect") == "read")


def _aside(shown: Mapping[str, Any]) -> None:
    refused = shown.get("refused") or {}
    if refused:
        notice(f"{len(refused)} of its tools cannot be used.", kind="warn")
        draw(table(("Tool", "Why"), [(tag("span", name, cls="tt-mono"), why) for name, why in refused.items()]))
    if shown.get("gone"):
        note("No longer there: ", ", ".join(map(str, shown["gone"])))


# --- a server that is there


def draw_server(connector: Mapping[str, Any]) -> bool:
    """How it is reached, what it offers by now, and taking it away. True when it is gone."""
    name = str(connector["name"])
    found = next((one for one in session.client().mcp_servers() if one["name"] == name), None)
    if found is None:
        return False
    with st.expander("The MCP server", icon=":material/extension:", key=f"mcp-server-{name}", on_change="rerun"):
        draw(table((), [*facts(found), ("Now", "running" if found.get("running") else "starts when it is asked")]))
        _changes(name)
        return _remove(name)


def _changes(name: str) -> None:
    """The model reads what was approved. A tool that the server describes differently by now is refused until then."""
    key = f"mcp-again-{name}"
    if st.button("Look for changes", key=f"mcp-changes-{name}", icon=":material/sync:"):
        try:
            with st.spinner("Looking at it …"):
                st.session_state[key] = session.client().look_again_at_mcp(name)
        except UiError as error:
            notice(error.message, error.advice, "bad")
    shown = st.session_state.get(key)
    if shown is None:
        return
    if shown.get("unchanged"):
        notice("It offers what you approved.", kind="ok")
        return
    notice("It describes itself differently by now.", "Read it again before you approve it.")
    reads = draw_offered(shown)
    if st.button("Approve what is shown", key=f"mcp-approve-{name}", type="primary", icon=":material/check:"):
        try:
            session.client().approve_mcp(name, shown["sha256"], reads)
        except UiError as error:
            notice(error.message, advice(error), "bad")
            return
        st.session_state.pop(key, None)
        session.tell(f"What {name} offers now is approved.", kind="ok")
        st.rerun()


def _remove(name: str) -> bool:
    sure = st.checkbox(f"Remove {plain(name)} and forget what you approved", key=f"mcp-sure-{name}")
    if st.button("Remove", key=f"mcp-remove-{name}", icon=":material/delete:", disabled=not sure):
        try:
            session.client().remove_mcp(name)
        except UiError as error:
            notice(error.message, error.advice, "bad")
            return False
        session.tell(f"{name} is removed.", kind="ok")
        return True
    return False
