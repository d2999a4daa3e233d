"""The Plan page: what a deployment must do, whether this machine can, and which variant of the model does, measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import look, plan_changes, plan_choice, plan_form, plan_measure, session
from .markup import badge, draw, note, notice, tag
from .untrusted import plain

VIEWS = {"questions": "1 · Questions", "measure": "2 · Measure", "choose": "3 · Choose"}


def page() -> None:
    about = (
        "What must it do, and what may it use for that? Every variant of the model is measured, and the cheapest "
        "that does it is served."
    )
    draw(tag("div", tag("h2", "Plan"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    found = session.client().plan()
    _serving(found["serving"])
    if refusal := found["refusal"]:
        notice(refusal["message"], "Change the model in deployment.toml, or in the settings.", "bad")
        return
    if "plan-view" not in st.session_state:
        st.session_state["plan-view"] = "measure" if found["measuring"] else "questions"
    if wanted := st.session_state.pop("plan-go", None):
        st.session_state["plan-view"] = wanted
    view = st.segmented_control(
        "What to look at",
        list(VIEWS),
        format_func=VIEWS.__getitem__,
        key="plan-view",
        required=True,
        label_visibility="collapsed",
    )
    if view == "measure":
        plan_measure.draw_measuring(found)
    elif view == "choose":
        plan_choice.draw_choice(found)
    else:
        plan_form.draw_questions(found)
    plan_changes.show()


def _serving(serving: Mapping[str, Any]) -> None:
    """What answers now, how it came to that, and the way back."""
    last = serving["last"]
    with st.container(border=True, key="plan-serving"):
        if not serving["variant"]:
            draw(tag("div", badge("served elsewhere"), tag("strong", serving["model"]), cls="tt-card-head"))
            note("Its weights are not on this machine, so there is no variant of it to choose.")
            return
        how = f" {serving['parallel']} at once · {serving['context']} tokens each"
        draw(
            tag(
                "div",
                badge("serves", "ok"),
                tag("strong", serving["variant"]),
                tag("span", how, cls="tt-host"),
                cls="tt-card-head",
            )
        )
        if serving["leaving"]:
            note("The engine before still writes the answers it had begun; it is stopped after the last of them.")
        if last is None:
            note("As the settings say. No plan was applied here yet.")
            return
        done = "applied" if last["action"] == "apply" else "went back"
        why = f": {last['reason']}" if last["reason"] else "."
        note(f"{last['by']} {done} {look.ago(float(last['at']))}", why)
        back = str(last["before_variant"])
        st.button(
            f"Go back to {plain(back, 40)}",
            key="plan-undo",
            icon=":material/undo:",
            on_click=session.open_dialog,
            args=("plan-undo",),
            kwargs={"to": back},
        )
