"""Training a player: ordering it, and its learning curve while it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .markup import badge, draw, note, notice, table, tag
from .untrusted import plain

OFTEN = 0.7
"""Seconds between looks while it trains."""
OPPONENTS = {"self": "Itself", "mixture": "A mixture", "random": "Random", "perfect": "Perfect"}
ALGORITHMS = {"ppo": "PPO", "q": "Q-learning"}
GAMES = {20_480: "20,480 (an early one)", 102_400: "102,400", 600_000: "600,000 (until it passes)"}
BUSY = ("queued", "running")


def draw_train(training: Mapping[str, Any] | None, words: Sequence[Mapping[str, Any]]) -> None:
    _order()
    if training is not None:
        if training["job"] and training["status"] in (*BUSY, "paused"):
            st.fragment(_watch, run_every=OFTEN)(str(training["job"]))
        else:
            _ended(training)
    st.subheader("The same words, twice", anchor=False)
    note("What happens here to a player happens to the language model when it is aligned, by the same code.")
    rows = [(tag("strong", w["word"]), w["tictactoe"], w["language_model"]) for w in words]
    draw(table(("Word", "Tic-Tac-Toe", "Language model"), rows))


def _order() -> None:
    with st.form("learn-order", border=True):
        one, two = st.columns(2)
        with one:
            algorithm = st.selectbox("Algorithm", list(ALGORITHMS), format_func=ALGORITHMS.__getitem__, key="order-how")
            games = st.selectbox("Games, at most", list(GAMES), index=2, format_func=GAMES.__getitem__,
                                 key="order-games")  # fmt: skip
        with two:
            opponent = st.selectbox("It learns against", list(OPPONENTS), format_func=OPPONENTS.__getitem__,
                                    key="order-opponent")  # fmt: skip
            seed = st.number_input("Seed", 0, 2**31 - 1, value=0, step=1, key="order-seed")
        if st.form_submit_button("Train a player", key="order-start", type="primary", icon=":material/play_arrow:"):
            recipe = {"algorithm": algorithm, "opponent": opponent if algorithm == "ppo" else "self",
                      "games": int(games), "seed": int(seed)}  # fmt: skip
            _start(recipe)


def _start(recipe: dict[str, Any]) -> None:
    job = session.act(session.client().start_job, "tictactoe", recipe)
    if job is not None:
        st.session_state["learn-choose"] = job["id"]
    st.rerun()


def _watch(job_id: str) -> None:
    """The fragment: read what is new, draw the curve. Ends with one full run."""
    seen = st.session_state.get("learn-live")
    if seen is None or seen["job"] != job_id:
        seen = st.session_state["learn-live"] = {"job": job_id, "next": 0, "points": [], "status": ""}
    try:
        found = session.client().job_progress(job_id, seen["next"])
    except UiError as error:
        notice(error.message, "Still looking; the training goes on.")
        return
    seen["next"] = found["next"]
    for line in found["progress"]:
        if line["stage"] == "begin":  # an attempt that was cut off: it plays the same games again
            seen["points"] = []
        elif line["stage"] == "point":
            seen["points"].append(line)
    job = found["job"]
    if job["status"] not in (*BUSY, "paused"):
        st.session_state.pop("learn-live", None)
        st.rerun()
    _state(job)
    draw_curve(seen["points"])


def _state(job: Mapping[str, Any]) -> None:
    status = str(job["status"])
    kinds = {"running": "ok", "paused": "warn"}
    done = f"{int(job['done']):,} of at most {int(job['total']):,} games" if job["total"] else ""
    draw(tag("div", badge(status, kinds.get(status, "")), done, cls="tt-card-head"))
    if job["message"]:
        note(job["message"])
    elif status == "queued":
        note("One training at a time: it starts when those before it are done.")
    with st.container(horizontal=True, key="learn-job"):
        if status == "paused":
            _wish("Resume", "resume", job, ":material/play_arrow:")
        elif status == "running":
            _wish("Pause", "pause", job, ":material/pause:")
        _wish("Cancel", "cancel", job, ":material/stop_circle:")


def _wish(text: str, wish: str, job: Mapping[str, Any], icon: str) -> None:
    if st.button(plain(text), key=f"learn-{wish}", icon=icon):
        session.act(session.client().change_job, job["id"], wish)
        st.rerun()


def _ended(training: Mapping[str, Any]) -> None:
    points = list(training["checkpoints"])
    if training["status"] == "failed":
        notice("This training failed.", f"Its log: trimtab align logs {training['job']}", "bad")
    if points:
        draw_verdict(points[-1])
    draw_curve(points)


def draw_verdict(point: Mapping[str, Any]) -> None:
    """What the exam says about a checkpoint."""
    lines = int(point["lines_as_x"]) + int(point["lines_as_o"])
    lost = int(point["lost_as_x"]) + int(point["lost_as_o"])
    after, away = f"After {int(point['games']):,} games", int(point["given_away"])
    if lost:
        mark = badge("can be beaten", "warn")
        told = (
            f"{after} it loses {lost:,} of {lines:,} lines of play, {point['lost_to_random']:.1%} of games to chance."
        )
    elif away:
        mark = badge("never loses", "ok")
        told = f"{after} it loses none of {lines:,} lines of play. In {away} positions that its own play does not "
        told += "lead to it would give the game away."
    else:
        mark = badge("passed", "ok")
        told = f"{after} nobody can beat it: it loses none of the {lines:,} lines of play that are possible against "
        told += f"it, and gives away none of {int(point['not_lost']):,} positions."
    draw(tag("p", mark, told, cls="tt-note"))


def draw_curve(points: Sequence[Mapping[str, Any]]) -> None:
    if not points:
        note("The first point of the curve comes after the first 20,480 games.")
        return
    games = [int(p["games"]) for p in points]
    if len(points) > 1:
        st.line_chart(
            {"games": games,
             "lost as X": [100 * p["lost_as_x"] / max(1, p["lines_as_x"]) for p in points],
             "lost as O": [100 * p["lost_as_o"] / max(1, p["lines_as_o"]) for p in points],
             "given away": [100 * p["given_away"] / max(1, p["not_lost"]) for p in points]},
            x="games", y=["lost as X", "lost as O", "given away"], x_label="games played",
            y_label="%", height=300, color=["#2b8286", "#c8791f", "#9a6fb0"],
            alt="Learning curve: share of lines of play lost, falling",
        )  # fmt: skip
    rows = [
        (f"{int(p['games']):,}", f"{p['seconds']:.1f}", f"{p['lost_as_x']} / {p['lines_as_x']}",
         f"{p['lost_as_o']} / {p['lines_as_o']}", p["given_away"], f"{p['reward']:+.2f}", f"{p['entropy']:.2f}",
         f"{p['value_correlation']:.2f}")
        for p in points[-8:]
    ]  # fmt: skip
    head = ("Games", "Seconds", "Lost as X", "Lost as O", "Given away", "Reward", "Entropy", "Value")
    draw(table(head, rows))
    note(
        "Lost: lines of play against every possible opponent, proved by following them all. Given away: positions not ",
        "lost yet that its move would lose. Value: correlation of what it expects with the truth.",
    )
