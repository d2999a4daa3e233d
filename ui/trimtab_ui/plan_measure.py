"""Measuring: ordered here, worked on in the background, one at a time; seen as it goes, and ended at any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import session
from .align_watch import left
from .client import UiError
from .markup import badge, draw, note, notice, table, tag
from .plan_choice import figures

OFTEN = 1.5
ALIVE = ("queued", "running", "paused")
QUESTIONS = {
    "synthetic": "Made up, about 200 tokens each",
    "last:20": "From the last 20 conversations held here",
}
SHOWN = 12


def draw_measuring(found: Mapping[str, Any]) -> None:
    if found["measuring"]:
        st.session_state["plan-job"] = str(found["measuring"]["id"])
        st.fragment(_watch, run_every=OFTEN)(str(found["measuring"]["id"]))
        return
    _ended()
    _order(found)
    rows = session.client().measurements()["rows"]
    if rows:
        draw(tag("div", tag("h3", "Measured for this plan"), cls="tt-part"))
        figures(rows)


def _order(found: Mapping[str, Any]) -> None:
    targets = found["plan"]["targets"]
    with st.container(border=True, key="plan-order"):
        note(
            f"Each variant is started and asked by {int(targets['users'])} at once, with "
            f"{int(targets['context'])} tokens each; what was measured before is not measured again. About a minute "
            "a variant, at low priority: who is being answered meanwhile makes the figures worse, and such rows say so."
        )
        left_side, right_side = st.columns(2)
        with left_side:
            workload = st.selectbox(
                "Questions", list(QUESTIONS), format_func=QUESTIONS.__getitem__, key="plan-workload"
            )
        with right_side:
            minutes = st.number_input("Minutes at most", 0.5, 1440.0, 15.0, step=5.0, key="plan-minutes")
        settings = st.checkbox("Try other settings of the best variants, too", value=True, key="plan-settings")
        again = st.checkbox("Measure again what was measured before", key="plan-again")
        ordered = st.button("Measure", key="plan-measure", type="primary", icon=":material/speed:")
    if ordered:
        asked = {"workload": str(workload), "minutes": minutes, "settings": settings, "again": again}
        session.act(session.client().measure_plan, **asked)
        st.rerun()


def _ended() -> None:
    """What became of the measurement that was watched here."""
    job_id = st.session_state.pop("plan-job", None)
    if job_id is None:
        return
    try:
        found = session.client().job_progress(job_id, 0)
    except UiError as error:
        notice(error.message, error.advice)
        return
    job = found["job"]
    if job["status"] == "done":
        count = int(job["result"].get("measured", 0)) + int(job["result"].get("before", 0))
        notice(f"Measured: {count} rows.", "Now choose.", "ok")
    elif job["status"] == "cancelled":
        notice("Ended. What was measured until then is kept.", "Measure again to go on from there.", "info")
    else:
        notice("The measurement failed.", job["message"] or "Its log says how.", "bad")
    _left_out(found["progress"])


def _watch(job_id: str) -> None:
    try:
        found = session.client().job_progress(job_id, 0)
    except UiError as error:
        notice(error.message, "Still looking; the measurement goes on.")
        return
    job, lines = found["job"], list(found["progress"])
    if job["status"] not in ALIVE:
        st.rerun()
    with st.container(border=True, key="plan-progress"):
        eta = f"{left(job['eta'])} left" if job["eta"] is not None else ""
        draw(
            tag(
                "div",
                badge(job["status"], "ok" if job["status"] == "running" else "warn"),
                tag("strong", "Measuring"),
                tag("span", eta, cls="tt-host"),
                cls="tt-card-head",
            )
        )
        st.progress(min(1.0, job["done"] / job["total"]) if job["total"] else 0.0)
        note(
            job["message"]
            or (
                "One job at a time: it starts when those before it are done."
                if job["status"] == "queued"
                else "Starting …"
            )
        )
        if st.button("Cancel", key="plan-cancel", icon=":material/stop_circle:"):
            session.act(session.client().change_job, job_id, "cancel")
            st.rerun()
    _so_far(lines)
    _left_out(lines)


def _so_far(lines: Sequence[Mapping[str, Any]]) -> None:
    keys = {str(line["key"]) for line in lines if line["stage"] == "measured"}
    if not keys:
        return
    try:
        rows = [row for row in session.client().measurements()["rows"] if row["key"] in keys]
    except UiError:
        return
    figures(rows)


def _left_out(lines: Sequence[Mapping[str, Any]]) -> None:
    reasons = [(line["variant"], line["reason"]) for line in lines if line["stage"] == "left out"]
    if reasons:
        with st.expander(f"Left out: {len(reasons)}", icon=":material/block:", key="plan-left-out"):
            draw(table(("Variant", "Why"), reasons[-SHOWN:]))
