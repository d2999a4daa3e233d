"""The Learn page: reinforcement learning where it can be watched, played against, and proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import look, session
from .client import ApiError
from .learn_play import draw_play
from .learn_train import ALGORITHMS, OPPONENTS, draw_train, draw_verdict
from .learn_watch import draw_watch
from .markup import draw, note, tag
from .untrusted import plain

VIEWS = {"play": "Play", "watch": "Watch", "train": "Train"}

STATES = {"queued": "begins soon", "running": "in training", "paused": "paused", "failed": "failed",
          "cancelled": "cancelled"}  # fmt: skip


def page() -> None:
    about = "A player learns Tic-Tac-Toe from nothing but results, by the code that aligns the language model."
    draw(tag("div", tag("h2", "Learn"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    try:
        _page()
    except ApiError as error:
        if error.code != "missing_extra":
            raise
        _without(error)


def _page() -> None:
    server = session.client()
    trainings, words = server.trainings(), _words()
    ready = [t for t in trainings if t["checkpoints"]]
    view = st.segmented_control(
        "What to do", list(VIEWS), default="play" if ready else "train", format_func=VIEWS.__getitem__,
        key="learn-view", required=True, label_visibility="collapsed",
    )  # fmt: skip
    if not trainings:
        note("No player has been trained yet. The first takes about ten seconds.")
    training = _training(trainings, ready)
    if view == "train":
        draw_train(training, words)
        return
    if training is None or not training["checkpoints"]:
        note("It has no checkpoint yet. Look at Train, or choose another training.")
        return
    checkpoint = _checkpoint(training)
    if view == "play":
        draw_play(str(checkpoint["id"]))
    else:
        draw_watch(str(checkpoint["id"]), words)


def _words() -> list[dict[str, Any]]:
    if "learn-words" not in st.session_state:
        st.session_state["learn-words"] = session.client().words()
    found: list[dict[str, Any]] = st.session_state["learn-words"]
    return found


def _training(trainings: Sequence[Mapping[str, Any]], ready: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The training that is looked at: one just ordered, what the person chose, or the latest with a player in it."""
    if not trainings:
        return None
    known = {str(t["id"]): t for t in trainings}
    chosen = st.session_state.pop("learn-choose", None)
    if chosen in known:
        st.session_state["learn-training"] = chosen
    elif st.session_state.get("learn-training") not in known:
        st.session_state["learn-training"] = str((ready or trainings)[0]["id"])
    if len(known) > 1:
        st.selectbox("Training", list(known), format_func=lambda one: title(known[one]), key="learn-training")
    else:
        note(title(next(iter(known.values()))))
    return known[str(st.session_state["learn-training"])]


def title(training: Mapping[str, Any]) -> str:
    """A training in one line, without Markdown: drop-downs show plain text."""
    recipe = training["recipe"]
    parts = [ALGORITHMS.get(str(recipe.get("algorithm")), str(training["id"])[:60])]
    if "seed" in recipe:
        parts.append(f"seed {recipe['seed']}")
    if recipe.get("algorithm") == "ppo" and "opponent" in recipe:
        parts.append(f"against {OPPONENTS.get(str(recipe['opponent']), '?').lower()}")
    parts.append(
        f"{len(training['checkpoints'])} checkpoints" if training["status"] == "done" else STATES[training["status"]]
    )
    return " · ".join([*parts, look.ago(float(training["at"]))])


def _checkpoint(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which stage of it; the last one unless the person goes back."""
    found: dict[str, Mapping[str, Any]] = {str(c["id"]): c for c in training["checkpoints"]}
    names = list(found)
    chosen = names[-1]
    if len(names) > 1:
        chosen = st.select_slider(
            "How much it had played", names, value=names[-1], key=f"learn-checkpoint-{training['id']}",
            format_func=lambda one: f"{int(found[one]['games']):,} games",
        )  # fmt: skip
    draw_verdict(found[chosen])
    return found[chosen]


def _without(error: ApiError) -> None:
    draw(tag("div", tag("p", tag("strong", "The classroom is not installed")), tag("p", plain(error.message, 300))))
    st.text("Run this where the server runs, then start the server again:")
    st.code("pip install 'trimtab[align]'", language="bash")
