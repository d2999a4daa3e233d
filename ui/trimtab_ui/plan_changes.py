"""Serving the chosen variant, and going back. Each asks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .markup import draw, tag
from .version_changes import done, explain


def show() -> None:
    """Draw the dialog that is open, if it is one of these."""
    about = session.dialog()
    draw_it: Callable[[dict[str, Any]], None] | None = DIALOGS.get(str(about.get("name")))
    if draw_it is not None:
        draw_it(about)


@st.dialog("Serve this variant?", on_dismiss=session.close_dialog)
def _apply(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["variant"]), " will answer everybody from the next question on."))
    st.text(
        "It is started beside what serves now, which finishes the answers it has begun. If it cannot be started, "
        "nothing changes. You can go back at any time."
    )
    reason = st.text_input("Why? (optional)", key="plan-apply-reason", max_chars=2000)
    if _decided("plan-apply", ":material/publish:"):
        _change(
            f"{about['variant']} answers from the next question on.",
            lambda: session.client().apply_plan(about["plan"], reason.strip()),
        )


@st.dialog("Go back?", on_dismiss=session.close_dialog)
def _undo(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["to"]), " will answer again, from the next question on."))
    reason = st.text_input("Why? (optional)", key="plan-undo-reason", max_chars=2000)
    if _decided("plan-undo", ":material/undo:"):
        _change(f"{about['to']} answers again.", lambda: session.client().undo_plan(reason.strip()))


def _decided(key: str, icon: str) -> bool:
    with st.container(horizontal=True):
        yes: bool = st.button(
            "Go back" if key == "plan-undo" else "Serve it", type="primary", key=f"{key}-yes", icon=icon
        )
        if st.button("Leave it", key=f"{key}-no"):
            session.close_dialog()
            st.rerun()
    return yes


def _change(told: str, work: Callable[[], Any]) -> None:
    try:
        with st.spinner("Starting it beside what serves now …"):
            work()
    except UiError as error:
        explain(error)
        return
    done(told)


DIALOGS: dict[str, Callable[[dict[str, Any]], None]] = {"plan-apply": _apply, "plan-undo": _undo}
