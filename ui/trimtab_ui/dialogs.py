"""The windows over the page: rename, delete, edit an answer, compare two answers.

Which one is open is kept in the session and drawn on every run, so that an answer finishing underneath does not close
it. Closing it, by whatever way, forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from . import session
from .markup import draw, note, tag
from .untrusted import render_untrusted


def show() -> None:
    """Draw the one that is open, if any."""
    about = session.dialog()
    draw_it: Callable[[dict[str, Any]], None] | None = DIALOGS.get(str(about.get("name")))
    if draw_it is not None:
        draw_it(about)


def _done() -> None:
    session.close_dialog()
    st.rerun()


@st.dialog("Rename this chat", on_dismiss=session.close_dialog)
def _rename(about: dict[str, Any]) -> None:
    with st.form("rename", border=False):
        title = st.text_input("Title", value=about["title"], key="rename-title", max_chars=200)
        if st.form_submit_button("Save", type="primary", key="rename-save") and title.strip():
            session.act(session.client().rename, about["thread_id"], title.strip())
            _done()


@st.dialog("Delete this chat?", on_dismiss=session.close_dialog)
def _delete(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["title"])))
    st.text("Its questions, answers and your ratings of them are deleted for good.")
    with st.container(horizontal=True):
        if st.button("Delete for good", type="primary", key="delete-yes", icon=":material/delete:"):
            session.act(session.client().delete_thread, about["thread_id"])
            if session.current_thread() == about["thread_id"]:
                session.open_thread("")
            _done()
        if st.button("Keep it", key="delete-no"):
            _done()


@st.dialog("Delete this document?", on_dismiss=session.close_dialog)
def _delete_document(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["title"])))
    st.text("Its passages are deleted with it. Answers that cite it keep their quotes.")
    with st.container(horizontal=True):
        if st.button("Delete document", type="primary", key="document-delete-yes", icon=":material/delete:"):
            session.act(session.client().delete_document, about["document_id"])
            _done()
        if st.button("Keep it", key="document-delete-no"):
            _done()


@st.dialog("What should the answer have been?", width="large", on_dismiss=session.close_dialog)
def _edit(about: dict[str, Any]) -> None:
    message = about["message"]
    earlier: dict[str, Any] = next((f for f in message.get("feedback") or () if f.get("kind") == "edit"), {})
    note("Your version is kept beside the answer, and future versions of the model can learn from it.")
    with st.form("edit", border=False):
        start = str(earlier.get("text") or message.get("text", ""))
        text = st.text_area("Answer", value=start, key=f"edit-text-{message['id']}", height=260)
        reason = st.text_input("Why? (optional)", key=f"edit-reason-{message['id']}")
        if st.form_submit_button("Save", type="primary", key="edit-save") and text.strip():
            judgement = {"kind": "edit", "message_id": message["id"], "text": text}
            if reason.strip():
                judgement["reason"] = reason.strip()
            session.act(session.client().feedback, **judgement)
            _done()


@st.dialog("Which answer is better?", width="large", on_dismiss=session.close_dialog)
def _compare(about: dict[str, Any]) -> None:
    siblings, mine = list(about["siblings"]), str(about["message_id"])
    texts = answers(siblings)
    others = [s for s in siblings if s != mine]
    other = others[0]
    if len(others) > 1:
        names = {s: f"Answer {siblings.index(s) + 1}" for s in others}
        other = st.segmented_control(
            "Compare with", others, default=others[-1], format_func=names.__getitem__, key="compare-with", required=True
        )
    for column, one, rival in zip(st.columns(2), (mine, other), (other, mine), strict=True):
        with column, st.container(border=True, key=f"rival-{one}"):
            draw(tag("div", f"Answer {siblings.index(one) + 1}", cls="tt-where"))
            render_untrusted(texts.get(one) or "(empty)")
            if st.button("This one is better", key=f"prefer-{one}", icon=":material/thumb_up:"):
                session.act(session.client().feedback, kind="preference", chosen_id=one, rejected_id=rival)
                session.act(session.client().show, about["thread_id"], one)
                _done()


def answers(wanted: list[str]) -> dict[str, str]:
    """Texts of answers by their ids, also of those that are not on the shown path."""
    server = session.client()
    return {one: str(server.message(one)["text"]) for one in wanted}


DIALOGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "rename": _rename,
    "delete": _delete,
    "delete-document": _delete_document,
    "edit": _edit,
    "compare": _compare,
}
