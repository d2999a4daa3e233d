"""The Connectors page: what the assistant can reach, switched on and off, and tried by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import forms, look, session
from .cards import code, draw_sources
from .client import UiError
from .markup import badge, draw, note, notice, tag
from .untrusted import plain, to_html


def page() -> None:
    about = "Services the assistant may ask. Each one reaches the hosts it names, and no others."
    draw(tag("div", tag("h2", "Connectors"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    found = session.client().connectors()
    if not found:
        note("None is installed.")
    for connector in found:
        _card(connector)


def _card(connector: Mapping[str, Any]) -> None:
    name = str(connector["name"])
    with st.container(border=True, key=f"connector-{name}"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            draw(
                tag(
                    "div",
                    tag("span", name, cls="tt-where"),
                    tag("span", f" {connector.get('version', '')}", cls="tt-host"),
                )
            )
            key = f"toggle-{name}"
            st.session_state[key] = bool(connector.get("enabled"))
            st.toggle(f"Use {plain(name)}", key=key, on_change=_switch, args=(name,), label_visibility="collapsed")
        draw(tag("div", connector.get("description", "")))
        draw(tag("div", *_facts(connector), cls="tt-card-head"))
        if error := connector.get("error"):
            notice(error if isinstance(error, str) else str(error), kind="bad")
        _reach(connector)
        for tool in connector.get("tools") or ():
            _tool(name, tool, bool(connector.get("enabled")))
        _errors(connector)


def _switch(name: str) -> None:
    session.act(session.client().switch, name, bool(st.session_state[f"toggle-{name}"]))


def _facts(connector: Mapping[str, Any]) -> list[Any]:
    calls, failures = int(connector.get("calls") or 0), int(connector.get("failures") or 0)
    facts = [badge("on", "ok") if connector.get("enabled") else badge("off")]
    facts.append(badge(f"{calls} call{'s' * (calls != 1)}"))
    if failures:
        facts.append(badge(f"{failures} failed", "bad"))
    return facts


def _reach(connector: Mapping[str, Any]) -> None:
    hosts = ", ".join(map(str, connector.get("hosts") or ()))
    note("Reaches: ", tag("span", hosts, cls="tt-mono") if hosts else "nothing, it works on this machine")
    note("Sign-in: ", auth_words(connector.get("auth")))


def auth_words(auth: Any) -> str:
    """The state of a connector's credentials in words; the server never sends the credentials."""
    if not auth:
        return "not needed"
    if isinstance(auth, Mapping):
        return ", ".join(f"{name}: {value}" for name, value in auth.items() if value not in (None, ""))
    return ", ".join(map(str, auth)) if isinstance(auth, list | tuple) else str(auth)


def _tool(connector: str, tool: Mapping[str, Any], enabled: bool) -> None:
    name, effect = str(tool["name"]), str(tool.get("effect", ""))
    words = look.EFFECTS.get(effect, (effect, "", ""))[0]
    panel = st.expander(
        f"{plain(name)} · {plain(words)}", icon=":material/build:", key=f"tool-{name}", on_change="rerun"
    )
    if not panel.open:
        return
    with panel:
        draw(
            tag(
                "div",
                look.effect_badge(effect),
                badge("outside content") if tool.get("untrusted") else "",
                cls="tt-card-head",
            )
        )
        draw(tag("div", to_html(str(tool.get("description", "")))))
        for example in tool.get("examples") or ():
            note("“", example, "”")
        if enabled:
            _try(connector, tool)
        else:
            note("Switch the connector on to try it.")


def _try(connector: str, tool: Mapping[str, Any]) -> None:
    """A form from the tool's schema; what it returned stays until it is run again."""
    name, schema = str(tool["name"]), tool.get("schema") or {}
    with st.form(f"try-{name}", border=False):
        wrong: UiError | None = None
        arguments: dict[str, Any] = {}
        try:
            arguments = forms.fields(schema, f"try-{name}")
        except UiError as error:
            wrong = error
        sure = tool.get("effect") == "read"
        if not sure:
            sure = st.checkbox("Yes, really do this: it changes something outside.", key=f"confirm-{name}")
        sent = st.form_submit_button("Try it", key=f"run-{name}", icon=":material/play_arrow:")
    if sent:
        st.session_state[f"tried-{name}"] = wrong or _run(connector, tool, arguments, sure)
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
        with st.container(border=True):
            draw(tag("div", badge("done", "ok"), look.seconds(result.get("seconds")), cls="tt-note"))
            if result.get("answer"):
                draw(tag("p", tag("strong", result["answer"])))
            draw(tag("div", to_html(str(result.get("text", ""))), cls="tt-passage"))
            if result.get("data") is not None:
                draw(code(result["data"]))
            draw_sources(result.get("sources") or ())


def _errors(connector: Mapping[str, Any]) -> None:
    errors = list(connector.get("last_errors") or ())
    if not errors:
        return
    with st.expander(f"Last errors ({len(errors)})", icon=":material/error:", key=f"errors-{connector['name']}"):
        for error in errors:
            note(
                look.ago(float(error.get("at") or 0)),
                ", ",
                tag("span", error.get("tool", ""), cls="tt-mono"),
                ": ",
                error.get("message", ""),
            )
