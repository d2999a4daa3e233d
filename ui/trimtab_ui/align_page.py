"""The Align page: what people said and what is written becomes the next version of the model, in plain sight."""

from __future__ import annotations

import streamlit as st

from . import align_form, align_watch, constitution_page, session
from .markup import draw, tag

VIEWS = {"new": "New training", "trainings": "Trainings", "constitution": "Constitution"}


def page() -> None:
    about = "Feedback and a written constitution train the next version of the model; a gate says whether it is better."
    draw(tag("div", tag("h2", "Align"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    if ordered := st.session_state.pop("align-ordered", None):
        st.session_state["align-view"], st.session_state["align-job"] = "trainings", ordered
    jobs = [job for job in session.client().jobs() if job["kind"] == "align"]
    if "align-view" not in st.session_state:
        st.session_state["align-view"] = "trainings" if any(j["status"] in align_watch.ALIVE for j in jobs) else "new"
    view = st.segmented_control(
        "What to do", list(VIEWS), format_func=VIEWS.__getitem__, key="align-view", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if view == "constitution":
        constitution_page.draw_constitution()
    elif view == "trainings":
        align_watch.draw_trainings(jobs)
    else:
        align_form.draw_form()
