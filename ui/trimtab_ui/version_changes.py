"""Changing which version answers: promote, roll back, try one on a share of the conversations. Each asks first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from . import session
from .client import ApiError, UiError
from .markup import badge, draw, note, notice, tag


def draw_actions(version: Mapping[str, Any], serving: Mapping[str, Any]) -> None:
    """What can be done with this version now."""
    if version["serving"]:
        note("This version answers.")
        return
    with st.container(horizontal=True, key="models-actions"):
        about = {"version": str(version["id"]), "version_name": str(version["name"])}
        ready = version["status"] == "ready"
        st.button("Promote", key="promote", icon=":material/publish:", type="primary" if ready else "secondary",
                  on_click=_open, args=("promote",),
                  kwargs=about | {"ready": ready, "why": str(version["verdict_reason"])})  # fmt: skip
        if serving.get("canary_id") != version["id"]:
            st.button("Try on a share", key="canary", icon=":material/science:", on_click=_open,
                      args=("canary",), kwargs=about)  # fmt: skip


def _open(name: str, **about: Any) -> None:
    session.open_dialog(name, **about)


def show() -> None:
    """Draw the dialog that is open, if it is one of these."""
    about = session.dialog()
    draw_it: Callable[[dict[str, Any]], None] | None = DIALOGS.get(str(about.get("name")))
    if draw_it is not None:
        draw_it(about)


def end_canary() -> None:
    if session.act(session.client().canary, None, 0.0, "ended on the Models page") is not None:
        session.tell("The trial has ended. The serving version answers everybody.", kind="ok")


def done(told: str) -> None:
    """Close the dialog, and say what was done."""
    session.tell(told, kind="ok")
    session.close_dialog()
    st.rerun()


def explain(error: UiError) -> None:
    """Inside the dialog, so that nothing typed is lost."""
    if isinstance(error, ApiError) and error.status == 403:
        notice(error.message, "It changes what everybody gets. Ask whoever runs this, or start the UI on the machine "
               "where the server runs: trimtab ui.", "bad")  # fmt: skip
    else:
        notice(error.message, error.advice, "bad")


@st.dialog("Promote this version?", on_dismiss=session.close_dialog)
def _promote(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["version_name"]), " will answer everybody from the next question on."))
    st.text("Answers that are being written are finished by the version that began them. You can roll back at once.")
    anyway = False
    if not about["ready"]:
        draw(tag("p", badge("held by the gate", "bad"), about["why"] or "It has not been through the gate."))
        anyway = st.checkbox("Promote it anyway, against the gate", key="promote-anyway")
    reason = st.text_input("Why? (needed against the gate)" if not about["ready"] else "Why? (optional)",
                           key="promote-reason", max_chars=2000)  # fmt: skip
    with st.container(horizontal=True):
        yes = st.button("Promote", type="primary", key="promote-yes", icon=":material/publish:")
        if st.button("Leave it", key="promote-no"):
            session.close_dialog()
            st.rerun()
    if not yes:
        return
    if not about["ready"] and not (anyway and reason.strip()):
        notice("Against the gate it takes the tick and a reason; both stand in the history.")
        return
    try:
        with st.spinner("Loading it …"):
            session.client().promote(about["version"], reason.strip(), anyway=anyway)
    except UiError as error:
        explain(error)
        return
    done(f"{about['version_name']} answers from the next question on.")


@st.dialog("Roll back?", on_dismiss=session.close_dialog)
def _roll_back(about: dict[str, Any]) -> None:
    draw(tag("p", tag("strong", about["to"]), " will answer again, from the next question on."))
    reason = st.text_input("Why? (optional)", key="roll-back-reason", max_chars=2000)
    with st.container(horizontal=True):
        yes = st.button("Roll back", type="primary", key="roll-back-yes", icon=":material/undo:")
        if st.button("Leave it", key="roll-back-no"):
            session.close_dialog()
            st.rerun()
    if not yes:
        return
    try:
        session.client().roll_back(reason.strip())
    except UiError as error:
        explain(error)
        return
    done(f"{about['to']} answers again.")


@st.dialog("Try it on a share of the conversations?", on_dismiss=session.close_dialog)
def _canary(about: dict[str, Any]) -> None:
    draw(tag("p", "So many conversations are answered by ", tag("strong", about["version_name"]), ". A conversation "
             "keeps its version; ratings tell how people like it."))  # fmt: skip
    share = st.slider("Share, in percent", 1, 100, 10, key="canary-share")
    yes = st.button("Begin the trial", type="primary", key="canary-yes", icon=":material/science:")
    if not yes:
        return
    try:
        with st.spinner("Loading it …"):
            session.client().canary(about["version"], share / 100)
    except UiError as error:
        explain(error)
        return
    done(f"{about['version_name']} answers {share} % of the conversations.")


DIALOGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "promote": _promote,
    "roll-back": _roll_back,
    "canary": _canary,
}
