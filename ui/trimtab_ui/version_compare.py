"""The same question to two versions of the model, their answers side by side. Nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .markup import draw, note, notice, tag
from .untrusted import plain, render_untrusted


def draw_compare(versions: Sequence[Mapping[str, Any]], serving: Mapping[str, Any]) -> None:
    if len(versions) < 2:
        note("There is only one version. Train another to compare.")
        return
    names = {str(v["id"]): str(v["name"]) for v in versions}
    known, now = list(names), str(serving.get("version_id") or "")
    other = next(one for one in reversed(known) if one != now)
    with st.form("compare-form", border=False):
        left, right = st.columns(2)
        with left:
            one = st.selectbox("One", known, index=known.index(now) if now in known else 0,
                               format_func=lambda v: names[v][:100], key="compare-one")  # fmt: skip
        with right:
            two = st.selectbox("The other", known, index=known.index(other),
                               format_func=lambda v: names[v][:100], key="compare-two")  # fmt: skip
        prompt = st.text_area("Ask both", key="compare-prompt", max_chars=8000, height=80)
        sent = st.form_submit_button("Ask", key="compare-ask", type="primary", icon=":material/compare_arrows:")
    if sent and prompt.strip():
        _ask(prompt, list(dict.fromkeys([str(one), str(two)])))
    if (said := st.session_state.get("compared")) is not None:
        note(tag("strong", said["prompt"]))
        side_by_side([(str(a["name"]), str(a["text"])) for a in said["answers"]], "compared")
        note("The bare model: no documents, no tools. Nothing of this is kept.")


def _ask(prompt: str, versions: list[str]) -> None:
    try:
        with st.spinner("Asking both …"):
            answers = session.client().compare(prompt, versions)
    except UiError as error:
        notice(error.message, error.advice, "bad")
        return
    st.session_state["compared"] = {"prompt": prompt, "answers": answers}


def side_by_side(answers: Sequence[tuple[str, str]], key: str) -> None:
    """Names and texts, a column each; one below the other on a narrow screen."""
    for number, (column, (name, text)) in enumerate(zip(st.columns(len(answers)), answers, strict=True)):
        with column, st.container(border=True, height="stretch", key=f"side-{plain(key)}-{number}"):
            draw(tag("div", name, cls="tt-where"))
            render_untrusted(text or "(empty)")
