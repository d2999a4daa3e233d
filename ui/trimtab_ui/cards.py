"""Cards: what a tool was asked and answered, and what waits for a person's yes.

A card shows everything it knows as text; nothing a tool returned can become more than that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import forms, look, session
from .client import UiError
from .live import Call
from .markup import Safe, badge, draw, join, note, notice, tag
from .untrusted import host_of, plain, to_html


def draw_calls(calls: Sequence[Call], key: str) -> None:
    for call in calls:
        draw_call(call, f"{key}-{call.call_id}")


def draw_call(call: Call, key: str) -> None:
    """One tool call, closed; opens to arguments and result."""
    text, _ = look.STATES.get(call.state, (call.state, ""))
    icon = ":material/hourglass_top:" if call.finished is None else ICONS.get(call.state, ":material/build:")
    took = look.seconds(call.finished.get("seconds")) if call.finished else ""
    label = " · ".join(part for part in (plain(call.tool), plain(text), took) if part)
    with st.expander(label, icon=icon, key=f"call-{key}"):
        draw(_head(call))
        draw(tag("div", "Arguments", cls="tt-note"))
        draw(code(call.arguments))
        if call.finished is not None:
            _result(call.finished)


ICONS = {
    "ok": ":material/task_alt:",
    "error": ":material/error:",
    "invalid": ":material/rule:",
    "rejected": ":material/block:",
    "cancelled": ":material/stop_circle:",
}


def _head(call: Call) -> Safe:
    effect = str(call.requested.get("effect") or (call.approval or {}).get("effect") or "")
    marks = [look.state_badge(call.state)]
    if effect:
        marks.append(look.effect_badge(effect))
    if call.finished is not None and call.finished.get("untrusted"):
        marks.append(
            badge("outside content", "", "Text from outside. The assistant treats it as data, never as orders.")
        )
    if call.decided is not None:
        marks.append(badge(f"decided: {call.decided.get('decision', '')}"))
    return tag(
        "div", tag("span", "Connector ", tag("strong", call.requested.get("connector", ""))), *marks, cls="tt-card-head"
    )


def _result(finished: Mapping[str, Any]) -> None:
    draw(tag("div", "Result", cls="tt-note"))
    draw(tag("div", to_html(str(finished.get("text", "")) or "(nothing)"), cls="tt-passage"))
    if finished.get("data") is not None:
        with st.container(height="content"):
            draw(tag("div", "As data", cls="tt-note"))
            draw(code(finished["data"]))
    draw_sources(finished.get("sources") or ())


def draw_sources(sources: Sequence[Mapping[str, Any]]) -> None:
    """Where outside data came from: title, host, address as text."""
    for source in sources:
        address = str(source.get("url", ""))
        parts = [tag("span", source.get("title") or address)]
        if address:
            parts.append(tag("span", f" ({host_of(address)}) ", cls="tt-host"))
            parts.append(tag("span", address, cls="tt-host tt-mono"))
        if source.get("retrieved_at"):
            parts.append(tag("span", f", read {source['retrieved_at']}", cls="tt-host"))
        draw(tag("div", "Source: ", *parts, cls="tt-note"))


def code(value: Any) -> Safe:
    """A value as indented JSON, or a string as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return tag("pre", tag("code", text[:20_000]), cls="tt-pre")


# --- approvals


def draw_approval(approval: Mapping[str, Any]) -> None:
    """Ask before something with an effect happens. What is approved is bound to what is shown (its digest)."""
    approval_id = str(approval["id"])
    with st.container(border=True, key=f"approval-{approval_id}"):
        head = tag("strong", "May I do this?")
        about = [
            look.effect_badge(str(approval.get("effect", ""))),
            badge(look.remaining(float(approval["expires_at"]))),
        ]
        what = tag("span", approval.get("tool", ""), cls="tt-mono")
        draw(tag("div", head, *about, cls="tt-card-head"))
        draw(tag("p", what, " of connector ", tag("strong", approval.get("connector", ""))))
        if approval.get("reason"):
            draw(tag("p", "Why you are asked: ", approval["reason"], cls="tt-note"))
        with st.form(f"approve-{approval_id}", border=False):
            arguments, wrong = _arguments(approval)
            remember = _remember(approval)
            with st.container(horizontal=True):
                yes = st.form_submit_button(
                    "Approve", type="primary", key=f"yes-{approval_id}", icon=":material/check:"
                )
                no = st.form_submit_button("Reject", key=f"no-{approval_id}", icon=":material/block:")
        if wrong is not None:
            notice(wrong.message, wrong.advice)
        elif yes:
            _decide(approval, "approve", arguments, remember)
        if no:
            _decide(approval, "reject", None)


def _remember(approval: Mapping[str, Any]) -> dict[str, Any] | None:
    """Whether a yes is remembered, and which arguments may be anything then. What cannot be undone: none of them."""
    key, names = str(approval["id"]), list(approval.get("arguments") or {})
    free: Sequence[str] = ()
    with st.expander("Remember my answer", icon=":material/how_to_reg:", key=f"remembering-{key}"):
        keep = st.checkbox("If I approve it, do not ask again for this, for 30 days", key=f"remember-{key}")
        if names and approval.get("effect") == "write":
            free = st.multiselect(
                "Whatever these say", names, key=f"remember-free-{key}", placeholder="Exactly what is above",
                format_func=forms._option, help="The others stay as they are above.",
            )  # fmt: skip
        note("You are asked all the same once the chat has read something from outside.")
    return {"free": list(free)} if keep else None


def _arguments(approval: Mapping[str, Any]) -> tuple[dict[str, Any], UiError | None]:
    """The arguments in editable fields: by the tool's schema, else by what the values are."""
    given = dict(approval.get("arguments") or {})
    schema = _schema(str(approval.get("connector", "")), str(approval.get("tool", ""))) or _guess(given)
    key = f"argument-{approval['id']}"
    try:
        return {**given, **forms.fields(schema, key, given)}, None
    except UiError as error:
        return given, error


def _schema(connector: str, tool: str) -> Mapping[str, Any] | None:
    try:
        found = session.client().connectors()
    except UiError:
        return None
    tools = [t for c in found if c.get("name") == connector for t in c.get("tools", ())]
    return next((t.get("schema") for t in tools if t.get("name") == tool), None)


def _guess(given: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"properties": {name: {"type": kinds.get(type(value), "object")} for name, value in given.items()}}


def _decide(
    approval: Mapping[str, Any],
    decision: str,
    arguments: dict[str, Any] | None,
    remember: dict[str, Any] | None = None,
) -> None:
    edited = arguments if arguments != approval.get("arguments") else None
    session.act(session.client().decide, approval["id"], decision, approval["digest"], edited, remember)
    st.rerun()


def summary(calls: Sequence[Call]) -> Safe:
    """The calls of a turn in one line of badges, for the answer that is still being written."""
    return join([tag("span", call.tool, " ", look.state_badge(call.state)) for call in calls], " ")
