"""Trainings of the language model: the list, and the chosen one while it goes on and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import align_curves, align_result, look, session
from .align_seen import Seen
from .client import UiError
from .markup import Safe, badge, draw, note, notice, table, tag
from .untrusted import plain

OFTEN = 1.5
"""Seconds between looks while it trains."""
ALIVE = ("queued", "running", "paused")
STATES = {"done": "ok", "running": "ok", "paused": "warn", "failed": "bad", "cancelled": "warn"}
SHOWN = 30


def draw_trainings(jobs: Sequence[Mapping[str, Any]]) -> None:
    if not jobs:
        note("The model has not been trained here yet. Begin with “New training”.")
        return
    known = {str(job["id"]): job for job in jobs}
    if st.session_state.get("align-job") not in known:
        st.session_state["align-job"] = next((i for i, j in known.items() if j["status"] in ALIVE), next(iter(known)))
    chosen = str(st.selectbox("Training", list(known), format_func=lambda one: _title(known[one]), key="align-job"))
    if known[chosen]["status"] in ALIVE:
        st.fragment(_watch, run_every=OFTEN)(chosen)
    else:
        _look(chosen)
    if len(jobs) > 1:
        with st.expander("All trainings", icon=":material/list:", key="align-list"):
            draw(table(("Training", "Method", "When", "State", "Left"), [_row(job) for job in jobs[:SHOWN]]))


def _title(job: Mapping[str, Any]) -> str:
    """In one line, without Markdown: drop-downs show plain text."""
    parts = [str(job["name"])[:60] or job["id"], str(job["method"]).upper(), look.ago(float(job["created_at"]))]
    return " · ".join(parts if job["status"] in ALIVE else [*parts, job["status"]])


def _row(job: Mapping[str, Any]) -> tuple[object, ...]:
    done = f" {100 * job['done'] // job['total']}%" if job["status"] == "running" and job["total"] else ""
    state = badge(f"{job['status']}{done}", STATES.get(str(job["status"]), ""))
    return (tag("strong", job["name"] or job["id"]), job["method"].upper(), look.ago(float(job["created_at"])), state,
            left(job["eta"]) or "–")  # fmt: skip


def left(eta: float | None) -> str:
    """Seconds that are left, roughly, in words."""
    if eta is None:
        return ""
    if eta < 90:
        return f"about {max(10, 10 * round(eta / 10))} seconds"
    return f"about {round(eta / 60)} minutes" if eta < 5400 else f"about {eta / 3600:.1f} hours"


# --- one of them


def _read(job_id: str) -> tuple[Seen, Mapping[str, Any]]:
    """What is new since the last look, added to what was seen before."""
    seen = st.session_state.get("align-seen")
    if not isinstance(seen, Seen) or seen.job != job_id:
        seen = st.session_state["align-seen"] = Seen(job_id)
    found = session.client().job_progress(job_id, seen.next)
    seen.take(found["progress"], found["next"])
    return seen, found["job"]


def _watch(job_id: str) -> None:
    """The fragment. When the job has ended: one full run, which draws the verdict."""
    try:
        seen, job = _read(job_id)
    except UiError as error:
        notice(error.message, "Still looking; the training goes on.")
        return
    if job["status"] not in ALIVE:
        st.rerun()
    _state(job, seen)
    align_curves.draw_curves(seen, _recipe(job_id), live=True)
    _log(job_id)


def _look(job_id: str) -> None:
    seen, job = _read(job_id)
    _state(job, seen)
    if job["status"] == "done":
        align_result.draw_result(job)
    align_curves.draw_curves(seen, _recipe(job_id), live=False)
    _log(job_id)


def _recipe(job_id: str) -> dict[str, Any]:
    """What was ordered; it never changes."""
    kept: dict[str, Any] = st.session_state.setdefault("align-recipes", {})
    if job_id not in kept:
        kept[job_id] = session.client().job(job_id)["recipe"].get("recipe", {})
    found: dict[str, Any] = kept[job_id]
    return found


def _state(job: Mapping[str, Any], seen: Seen) -> None:
    status = str(job["status"])
    with st.container(border=True, key="align-state"):
        draw(tag("div", badge(status, STATES.get(status, "")), tag("strong", job["name"]), _doing(job, seen),
                 cls="tt-card-head"))  # fmt: skip
        if status in ALIVE and job["total"]:
            st.progress(min(1.0, job["done"] / job["total"]))
        if status == "failed":
            notice("This training failed.", job["message"] or "Its log says how.", "bad")
        elif job["message"]:
            note(job["message"])
        elif status == "queued":
            note("One training at a time: it starts when those before it are done.")
        _wishes(job, status)


def _doing(job: Mapping[str, Any], seen: Seen) -> Safe:
    parts = [seen.doing] if job["status"] == "running" else []
    if job["eta"] is not None:
        parts.append(f"{left(job['eta'])} left")
    return tag("span", " · ".join(part for part in parts if part), cls="tt-host")


def _wishes(job: Mapping[str, Any], status: str) -> None:
    with st.container(horizontal=True, key="align-wishes"):
        if status in ("running", "queued"):
            _wish("Pause", "pause", job, ":material/pause:")
        if status in ("paused", "failed", "cancelled"):
            _wish("Resume", "resume", job, ":material/play_arrow:")
        if status in ALIVE:
            _wish("Cancel", "cancel", job, ":material/stop_circle:")


def _wish(text: str, wish: str, job: Mapping[str, Any], icon: str) -> None:
    if st.button(plain(text), key=f"align-{wish}", icon=icon):
        changed = session.act(session.client().change_job, job["id"], wish)
        if changed is not None and changed["status"] == "running":
            session.tell("It will, at its next checkpoint.", "Nothing that was learnt until then is lost.", "info")
        st.rerun()


def _log(job_id: str) -> None:
    """Read when it is asked for: it is long, and only for who runs this."""
    if not st.toggle("Show the log", key="align-log"):
        return
    try:
        st.code(session.client().job_log(job_id)[-8000:] or "(empty)", language=None, height=300)
    except UiError as error:
        notice(error.message, error.advice)
