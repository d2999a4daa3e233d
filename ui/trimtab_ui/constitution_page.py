"""The constitution: reading it, amending it with faults shown in place, its history, and how well it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import look, session
from .align_curves import draw_judges
from .client import ApiError
from .markup import badge, draw, note, notice, table, tag
from .untrusted import plain

PARTS = {"principles": "Principles", "edit": "Edit", "history": "History"}
AROUND = 3
"""Lines shown on either side of a fault."""


def draw_constitution() -> None:
    part = st.segmented_control(
        "Part", list(PARTS), default="principles", format_func=PARTS.__getitem__, key="constitution-part",
        required=True, label_visibility="collapsed",
    )  # fmt: skip
    if part == "history":
        _history()
        return
    try:
        found = session.client().constitution()
    except ApiError as error:
        notice(error.message, error.advice or "Restore another version from the history.", "bad")
        return
    if part == "edit":
        _edit(found)
    else:
        _principles(found)


def _standing(found: Mapping[str, Any]) -> None:
    origin = badge("came with Trimtab") if found["bundled"] else badge("your own", "ok")
    draw(tag("div", tag("strong", found["name"]), origin, tag("span", found["version"], cls="tt-mono"),
             cls="tt-card-head"))  # fmt: skip


def _principles(found: Mapping[str, Any]) -> None:
    _standing(found)
    judges = session.client().judges()
    by_principle = {str(one["principle"]): one for one in judges["agreement"]} if judges else {}
    rows = [
        (tag("div", tag("strong", p["title"]), tag("div", p["id"], cls="tt-mono")), p["text"],
         _judged(by_principle.get(str(p["id"]))))
        for p in found["principles"]
    ]  # fmt: skip
    draw(table(("Principle", "A good answer", "Its judge"), rows))
    if judges is None:
        note("How well the model judges by each is measured when a training learns from the constitution.")
        return
    when = look.ago(float(judges["at"]))
    with st.expander("How the judge was measured", icon=":material/fact_check:", key="constitution-judges"):
        note("By the training ", tag("strong", judges["name"]), f", {when}, against what people said about the same "
             "answers. A principle whose judge is no better than chance is not used.")  # fmt: skip
        draw_judges(judges["agreement"])
    if judges["version"] != found["version"]:
        notice("The judges were measured on another version of the constitution.",
               "The next training that learns from it measures them again.", "info")  # fmt: skip


def _judged(one: Mapping[str, Any] | None) -> Any:
    if one is None:
        return badge("not measured")
    return badge(one["form"], "ok", one["why"]) if one["usable"] else badge("not used", "warn", one["why"])


# --- amending


def _edit(found: Mapping[str, Any]) -> None:
    """The draft remembers which version it was begun from, and what was refused outlives a visit to another page."""
    draft = st.session_state.get("constitution-draft")
    if draft is None or ("fault" not in draft and draft["after"] != found["version"]):
        draft = _begun(found)
    _standing(found)
    if draft["after"] != found["version"]:
        notice("Another version is in force since you began.", "Your text is kept below. Copy what you need, then "
               "start again from the one in force.")  # fmt: skip
    with st.form("constitution-form", border=False):
        text = st.text_area(
            "The constitution, as YAML", value=draft["text"], height=520, key=f"constitution-text-{draft['number']}"
        )
        what = st.text_input("What did you change, and why?", max_chars=500, key=f"constitution-note-{draft['number']}")
        saved = st.form_submit_button("Put in force", key="constitution-save", type="primary", icon=":material/save:")
    if (fault := draft.get("fault")) and not saved:
        _fault(fault, draft["text"])
    st.button("Start again from the one in force", key="constitution-discard", icon=":material/restart_alt:",
              on_click=_discard)  # fmt: skip
    if saved and text == found["text"]:
        note("This is the text that is in force. Nothing was changed.")
    elif saved:
        _save(draft, str(text or ""), str(what or ""))


def _begun(found: Mapping[str, Any]) -> dict[str, Any]:
    """A fresh draft, with fields of its own: a browser keeps what was typed into the old ones."""
    number = st.session_state["constitution-drafts"] = st.session_state.get("constitution-drafts", 0) + 1
    draft = {"after": found["version"], "text": found["text"], "number": number}
    st.session_state["constitution-draft"] = draft
    return draft


def _discard() -> None:
    st.session_state.pop("constitution-draft", None)


def _save(draft: dict[str, Any], text: str, what: str) -> None:
    draft["text"] = text
    draft.pop("fault", None)
    try:
        kept = session.client().amend_constitution(text, draft["after"], what)
    except ApiError as error:
        draft["fault"] = {"message": error.message, "line": error.detail.get("line"), "code": error.code}
        st.rerun()
    _discard()
    session.tell(f"{kept['name']} {kept['version']} is in force.", "The next training learns from it.", "ok")
    st.rerun()


def _fault(fault: Mapping[str, Any], text: str) -> None:
    line = fault["line"]
    notice(fault["message"], "" if fault["code"] == "conflict" else "Nothing was saved.", "bad")
    if not isinstance(line, int):
        return
    lines = text.splitlines()
    first = max(1, line - AROUND)
    shown = [
        tag("div", tag("mark", f"{number:>4}  {lines[number - 1]}") if number == line
            else f"{number:>4}  {lines[number - 1]}")
        for number in range(first, min(len(lines), line + AROUND) + 1)
    ]  # fmt: skip
    draw(tag("pre", *shown, cls="tt-fault"))


# --- history


def _history() -> None:
    found = session.client().constitution_history()
    lines = list(found["history"])
    if not lines:
        note("It was never changed: the one that comes with Trimtab is in force.")
        return
    names = {found["bundled"]: "came with Trimtab"}
    rows = [
        (look.ago(float(line["at"])), tag("span", line["version"], cls="tt-mono"), names.get(line["version"], ""),
         line["by"], line["note"] or "–")
        for line in lines
    ]  # fmt: skip
    draw(table(("When", "Version", "", "Who", "Why"), rows))
    known = list(dict.fromkeys([*(str(line["version"]) for line in lines), str(found["bundled"])]))
    chosen = str(st.selectbox("Version", known, key="constitution-chosen",
                              format_func=lambda one: f"{one} {names.get(one, '')}".strip()))  # fmt: skip
    try:
        text = session.client().constitution_version(chosen)["text"]
    except ApiError as error:
        notice(error.message, error.advice, "bad")
        return
    if chosen == lines[0]["version"]:
        note("This one is in force.")
    else:
        st.button(plain(f"Put {chosen} in force again"), key="constitution-restore", icon=":material/history:",
                  on_click=_restore, args=(chosen,))  # fmt: skip
    st.code(text, language="yaml", height=420)


def _restore(version: str) -> None:
    kept = session.act(session.client().restore_constitution, version)
    if kept is not None:
        _discard()
        session.tell(f"{kept['name']} {kept['version']} is in force again.", kind="ok")
