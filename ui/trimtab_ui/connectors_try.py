"""A connector's tools: what each does and may change, and a form to try it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import forms, look, session
from .cards import code, draw_sources
from .client import UiError
from .markup import badge, draw, note, notice, tag
from .untrusted import plain, to_html

MANY = 12


def draw_tools(connector: Mapping[str, Any]) -> None:
    st.subheader("What it can do", anchor=False)
    tools = list(connector.get("tools") or ())
    if len(tools) > MANY:
        wanted = st.text_input("Find a tool", key=f"find-tool-{connector['name']}").strip().casefold()
        tools = [t for t in tools if wanted in f"{t['name']} {t.get('description', '')}".casefold()]
    with st.container(key="connector-tools", gap="xsmall"):
        for tool in tools:
            _tool(connector, tool)


def _tool(connector: Mapping[str, Any], tool: Mapping[str, Any]) -> None:
    name, effect = str(tool["name"]), str(tool.get("effect", ""))
    words = look.EFFECTS.get(effect, (effect, "", ""))[0]
    short = name.partition(".")[2] or name
    panel = st.expander(f"{plain(short)} · {plain(words)}", icon=ICONS.get(effect, ":material/build:"),
                        key=f"tool-{name}", on_change="rerun")  # fmt: skip
    if not panel.open:
        return
    with panel:
        outside = badge("outside content", "", "Its results are text from outside: data, never orders.")
        draw(tag("div", look.effect_badge(effect), outside if tool.get("untrusted") else "", cls="tt-card-head"))
        draw(to_html(str(tool.get("description", ""))))
        examples = [str(example) for example in tool.get("examples") or ()][:3]
        if examples:
            note("Asked for by: ", ", ".join(f"“{example}”" for example in examples))
        if not connector.get("enabled"):
            note("Switch the connector on to try it.")
        elif effect != "read" and (connector.get("badge") or {}).get("vouched") is False:
            note("It cannot be tried: without a current badge this connector may only read.")
        else:
            _try(str(connector["name"]), tool)


ICONS = {"read": ":material/search:", "write": ":material/edit:", "irreversible": ":material/warning:"}


def _try(connector: str, tool: Mapping[str, Any]) -> None:
    """A form from the tool's schema; what it returned stays until it is run again."""
    name, schema = str(tool["name"]), tool.get("schema") or {}
    with st.form(f"try-{name}"):
        draw(tag("div", "Try it", cls="tt-where"))
        wrong: UiError | None = None
        arguments: dict[str, Any] = {}
        try:
            arguments = forms.fields(schema, f"try-{name}")
        except UiError as error:
            wrong = error
        sure = tool.get("effect") == "read"
        if not sure:
            sure = st.checkbox("Yes, really do this: it changes something outside.", key=f"confirm-{name}")
        sent = st.form_submit_button("Run", key=f"run-{name}", icon=":material/play_arrow:")
    if sent:
        with st.spinner("Asking …"):
            st.session_state[f"tried-{name}"] = wrong or _run(connector, tool, arguments, sure)
        st.rerun()  # the figures above and the calls below know of it
    _shown(st.session_state.get(f"tried-{name}"))


def _run(connector: str, tool: Mapping[str, Any], arguments: dict[str, Any], sure: bool) -> Any:
    absent = forms.missing(tool.get("schema") or {}, arguments)
    if absent:
        return UiError(f"Still needed: {', '.join(absent)}.")
    if not sure:
        return UiError("Tick the box first.", "This tool changes something outside.")
    try:
        confirm = tool.get("effect") != "read"
        return session.client().call(connector, str(tool["name"]), arguments, confirm)
    except UiError as error:
        return error


def _shown(result: Any) -> None:
    if isinstance(result, UiError):
        notice(result.message, result.advice, "bad")
    elif result is not None:
        draw(tag("div", badge("done", "ok"), look.seconds(result.get("seconds")), cls="tt-note"))
        if result.get("answer"):
            draw(tag("p", tag("strong", result["answer"])))
        draw(tag("div", to_html(str(result.get("text", ""))), cls="tt-passage"))
        if result.get("data") is not None:
            draw(tag("div", "As data", cls="tt-note"))
            draw(code(result["data"]))
        draw_sources(result.get("sources") or ())
