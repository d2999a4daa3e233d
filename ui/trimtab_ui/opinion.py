"""What a person can say about an answer: a thumb, a reason, an edit, "this one rather than that"; or ask for another.

These judgements are what the model is aligned with later, so each goes to the server at once and the page shows what
the server has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .copy_button import copy_button
from .markup import note
from .untrusted import plain


def draw_actions(message: Mapping[str, Any], thread_id: str, busy: bool) -> None:
    """The row under an answer."""
    key, siblings = str(message["id"]), list(message.get("siblings") or ())
    broken = message.get("status") in ("failed", "interrupted", "cancelled")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"actions-{key}"):
        _thumbs(message)
        if message.get("text"):
            copy_button(str(message["text"]), f"copy-{key}")
        label = "Try again" if broken else "Regenerate"
        if st.button(label, key=f"again-{key}", icon=":material/refresh:", disabled=busy):
            again(key)
        if st.button("Edit", key=f"edit-{key}", icon=":material/edit:", disabled=busy):
            session.open_dialog("edit", message=dict(message))
            st.rerun()
        if len(siblings) > 1:
            _switcher(key, siblings, thread_id, busy)
    _reason(message)


def again(message_id: str) -> None:
    """Another answer beside this one. One key a click: a repeated delivery makes one answer."""
    session.act(session.client().regenerate, message_id, session.new_key())
    st.rerun()


def _thumb_of(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    mine = st.session_state.get(f"given-{message['id']}", _UNSET)
    if mine is not _UNSET:
        return mine  # type: ignore[no-any-return]
    return next((f for f in message.get("feedback") or () if f.get("kind") == "thumb"), None)


_UNSET = object()


def _thumbs(message: Mapping[str, Any]) -> None:
    given, key = _thumb_of(message), f"thumb-{message['id']}"
    if key not in st.session_state and given is not None:
        st.session_state[key] = given["value"]
    st.feedback("thumbs", key=key, on_change=_rate, args=(dict(message),))


def _rate(message: Mapping[str, Any]) -> None:
    value, before = st.session_state[f"thumb-{message['id']}"], _thumb_of(message)
    if value is None:
        if before is not None:
            session.act(session.client().withdraw, before["id"])
        st.session_state[f"given-{message['id']}"] = None
        return
    kept = session.act(session.client().feedback, kind="thumb", message_id=message["id"], value=int(value))
    if kept is not None:
        st.session_state[f"given-{message['id']}"] = kept


def _reason(message: Mapping[str, Any]) -> None:
    """What was said before; after a thumb: why, if one likes to say."""
    if any(f.get("kind") == "preference" for f in message.get("feedback") or ()):
        note("You preferred this answer.")
    given = _thumb_of(message)
    if given is None:
        return
    key = str(message["id"])
    if given.get("reason"):
        note("Your reason: ", given["reason"])
        if not given["value"] and _culprit(str(given["reason"])) != "model":
            note("This is put down to the documents or a tool, and does not train the model.")
        return
    with st.form(f"why-{key}", border=False, clear_on_submit=True):
        reason = _choice(key) if not given["value"] else ""
        with st.container(horizontal=True):
            asked = "What was good about it?" if given["value"] else "What was wrong with it?"
            more = st.text_input("Reason", key=f"reason-{key}", placeholder=asked, label_visibility="collapsed")
            sent = st.form_submit_button("Send", key=f"send-reason-{key}")
    reason = ": ".join(part for part in (reason, more.strip()) if part)
    if sent and reason:
        judgement = {"kind": "thumb", "message_id": key, "value": int(given["value"]), "reason": reason}
        kept = session.act(session.client().feedback, **judgement)
        if kept is not None:
            st.session_state[f"given-{key}"] = kept
        st.rerun(scope="fragment")


def _choice(key: str) -> str:
    """One of the server's reasons for a thumb down, or nothing."""
    words = [str(reason["words"]) for reason in session.choices()["reasons"]]
    return str(st.pills("What was wrong?", words, format_func=plain, key=f"why-{key}-choice") or "")


def _culprit(reason: str) -> str:
    """What a reason that begins with one of the offered ones is put down to."""
    known = session.choices()["reasons"]
    return next((str(one["blame"]) for one in known if reason.startswith(str(one["words"]))), "model")


def _switcher(key: str, siblings: list[str], thread_id: str, busy: bool) -> None:
    """‹ 2/3 ›: walk through the answers to the same question."""
    at = siblings.index(key) if key in siblings else 0
    if st.button("Previous answer", key=f"previous-{key}", icon=":material/chevron_left:", disabled=busy or at == 0):
        _show(thread_id, siblings[at - 1])
    st.text(f"{at + 1}/{len(siblings)}", width="content")
    end = at + 1 == len(siblings)
    if st.button("Next answer", key=f"next-{key}", icon=":material/chevron_right:", disabled=busy or end):
        _show(thread_id, siblings[at + 1])
    if st.button("Compare", key=f"compare-{key}", icon=":material/compare:", disabled=busy):
        session.open_dialog("compare", thread_id=thread_id, message_id=key, siblings=siblings)
        st.rerun()


def _show(thread_id: str, message_id: str) -> None:
    session.act(session.client().show, thread_id, message_id)
    st.rerun()
