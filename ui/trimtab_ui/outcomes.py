"""What a person said, and what becomes of it: does it train the model, and if not, which rule says so and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import forgetting, look, more, session
from .markup import Safe, badge, draw, note, tag
from .untrusted import plain, render_untrusted

CULPRITS = {
    "retrieval": ("put down to the documents", "Does not train the model: it was given the wrong text."),
    "tool": ("put down to a tool", "Does not train the model: a connector failed or was wrong."),
}
CULPRIT_WORDS = {"retrieval": "It was the documents", "tool": "It was the tool"}
SHOWN = 50
"""Judgements at first, and as many again with each click."""
MOST = 1000


def draw_given() -> None:
    shown = min(more.shown("outcomes-more", SHOWN), MOST)
    found = session.client().outcomes(limit=shown)
    curates = bool(found["curates"])
    everybody = curates and st.toggle("Everybody's", key="outcomes-everybody")
    if everybody:
        found = session.client().outcomes(everybody=True, limit=shown)
    counts = found["counts"]
    forgetting.draw_forgotten()
    if not counts["given"]:
        note("Nothing yet. Rate an answer here or in the chat.")
        return
    note(f"{sum(counts['trains'].values())} of {counts['given']} would train the next version of the model.")
    for number, row in enumerate(found["feedback"]):
        _one(row, number, curates)
    if counts["given"] > shown and shown < MOST:
        more.button("Show more", "outcomes-more", SHOWN)
    forgetting.draw_forget()


def _one(row: Mapping[str, Any], number: int, curates: bool) -> None:
    with st.container(border=True, key=f"given-{number}"):
        draw(tag("div", *_marks(row), tag("span", f" {look.ago(float(row['at']))}", cls="tt-host"), cls="tt-card-head"))
        note(tag("strong", row["question"]))
        render_untrusted(str(row["completion"]))
        if row["why"]:
            note(row["why"][:1].upper() + row["why"][1:], ".")
        if row.get("reason"):
            note("Reason: ", row["reason"])
        if row.get("blame_reason"):
            note("Blame: ", row["blame_reason"], ".")
        if row.get("replayable"):
            _replay(row, number)
        _actions(row, number, curates)


def _marks(row: Mapping[str, Any]) -> list[Safe]:
    said = {"label": f"{row['label']}: {'yes' if row['value'] else 'no'}", "preference": "preferred"}
    marks = [badge(said.get(row["kind"], "your version"))]
    if row["blame"] in CULPRITS:
        words, why = CULPRITS[row["blame"]]
        marks.append(badge(words, "warn", why))
    marks.append(badge("trains", "ok") if row["trains"] else badge(f"left out: {row['rule']}", "warn"))
    return marks


def _actions(row: Mapping[str, Any], number: int, curates: bool) -> None:
    with st.container(horizontal=True, gap="small"):
        if row["decision"] is not None and curates:
            _button("Undo the decision", f"undecide-{number}", _decide, row["id"], "undo")
        elif row["trains"]:
            _button("Leave out", f"leave-{number}", _decide, row["id"], "exclude")
        elif curates and row["rule"] not in ("consent", "not ours"):
            _button("Let in", f"let-{number}", _decide, row["id"], "include")
        if not row["consent"]:
            _button("Allow training", f"allow-{number}", _consent, row["id"], True)
        elif row["trains"]:
            _button("Do not train with it", f"refuse-{number}", _consent, row["id"], False)


def _replay(row: Mapping[str, Any], number: int) -> None:
    """The question again, with the text it should have been answered from."""
    with (
        st.expander("Was it the model, or what it was given?", icon=":material/replay:", key=f"replay-{number}"),
        st.form(f"replay-form-{number}"),
    ):
        context = st.text_area("The right text", key=f"replay-text-{number}", height=120, max_chars=6000,
                               placeholder="Leave it empty to search the documents again.")  # fmt: skip
        if st.form_submit_button("Ask again with it", key=f"replay-yes-{number}"):
            with st.spinner("Asking three times …"):
                found = session.act(session.client().replay, row["id"], context)
            if found is not None:
                session.tell(
                    f"{CULPRIT_WORDS.get(str(found['blame']), 'It was the model')}: {found['why']}.", kind="ok"
                )
            st.rerun()


def _button(text: str, key: str, work: Any, *args: Any) -> None:
    st.button(plain(text), key=key, on_click=work, args=args)


def _decide(feedback_id: str, decision: str) -> None:
    session.act(session.client().decide_feedback, feedback_id, decision)


def _consent(feedback_id: str, consent: bool) -> None:
    session.act(session.client().set_consent, feedback_id, consent)
