"""Watching one game of a checkpoint, step by step, with the words of reinforcement learning beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import session
from .learn_board import draw_board, expects, percent, position
from .markup import Safe, draw, note, table, tag

OPPONENTS = {"random": "Random", "perfect": "Perfect", "self": "Itself"}


def draw_watch(checkpoint: str, words: Sequence[Mapping[str, Any]]) -> None:
    asked = _asked(checkpoint)
    played = st.session_state.get("learn-rollout")
    if played is None or played["asked"] != asked:
        played = {"asked": asked, "rollout": session.client().rollout(**asked)}
        st.session_state["learn-rollout"] = played
        st.session_state["learn-step"] = 0
    rollout = played["rollout"]
    step = _step(len(rollout["moves"]))
    left, right = st.columns([2, 3], gap="large")
    with left:
        _board(rollout, step)
    with right:
        draw(table(("Word", "Here, now", "Language model"), _rows(rollout, step, words)))


def _asked(checkpoint: str) -> dict[str, Any]:
    with st.container(horizontal=True, vertical_alignment="bottom", key="learn-watch-choices"):
        opponent = st.segmented_control(
            "Against", list(OPPONENTS), format_func=OPPONENTS.__getitem__, default="random", key="learn-opponent",
            required=True,
        )  # fmt: skip
        side = st.segmented_control("It plays", ["X", "O"], default="X", key="learn-watch-side", required=True)
        greedy = st.toggle(
            "Always its likeliest move", key="learn-greedy", help="Otherwise it draws from its probabilities."
        )
        st.button("Another game", key="learn-again", icon=":material/casino:", on_click=_again)
    seed = int(st.session_state.get("learn-seed", 0))
    return {"checkpoint": checkpoint, "opponent": opponent, "side": side, "seed": seed, "greedy": greedy}


def _again() -> None:
    st.session_state["learn-seed"] = int(st.session_state.get("learn-seed", 0)) + 1


def _step(last: int) -> int:
    with st.container(horizontal=True, vertical_alignment="bottom", wrap=False, key="learn-steps"):
        st.button("Previous step", key="previous-step", icon=":material/chevron_left:", on_click=_go, args=(-1, last))
        step = st.slider("Step", 0, last, key="learn-step")
        st.button("Next step", key="next-step", icon=":material/chevron_right:", on_click=_go, args=(1, last))
    return int(step)


def _go(by: int, last: int) -> None:
    st.session_state["learn-step"] = min(last, max(0, int(st.session_state.get("learn-step", 0)) + by))


def _board(rollout: Mapping[str, Any], step: int) -> None:
    moves = rollout["moves"]
    if step == len(moves):
        won = {1: "It won: the reward is +1.", 0: "A draw: the reward is 0.", -1: "It lost: the reward is -1."}
        draw(draw_board(str(rollout["board"])))
        draw(tag("p", tag("strong", won[round(float(rollout["reward"]))])))
        return
    move = moves[step]
    thought, taken = move["thought"], int(move["position"])
    draw(draw_board(str(thought["board"]), thought["probabilities"], taken))
    who = "The player" if move["by"] == "agent" else "The environment (the opponent)"
    chance = percent(float(thought["probabilities"][taken]))
    note(f"{who}, {thought['mover']}, takes position {position(taken)}: it had {chance}.")


def _rows(
    rollout: Mapping[str, Any], step: int, words: Sequence[Mapping[str, Any]]
) -> list[tuple[object, object, object]]:
    now = _now(rollout, step)
    return [(tag("strong", w["word"]), now.get(w["word"]) or w["tictactoe"], w["language_model"]) for w in words]


def _now(rollout: Mapping[str, Any], step: int) -> dict[str, Safe | str]:
    """What each word stands for at this step; words that are missing mean what they always mean."""
    moves = rollout["moves"]
    found: dict[str, Safe | str] = {
        "agent, policy": f"the player, as {rollout['side']}",
        "rollout, playout": f"this game, step {step} of {len(moves)}",
    }
    if step == len(moves):
        over = {"state": _text(rollout["board"]), "action": "none: it is over", "action space": "empty"}
        return {**found, **over, "reward": f"{float(rollout['reward']):+.0f}", "value": "nothing more to expect"}
    move = moves[step]
    thought, mine = move["thought"], move["by"] == "agent"
    taken = f"position {position(int(move['position']))}"
    found["state"] = _text(thought["board"])
    found["action"] = taken if mine else f"none: the environment answers with {taken}"
    found["action space"] = "positions " + ", ".join(position(i) for i in thought["free"])
    found["reward"] = f"{float(move['reward']):+.0f} for this step" if move["reward"] else "0: the game goes on"
    if mine:
        found["value"] = f"it expects {expects(thought)}"
    return found


def _text(board: object) -> Safe:
    return tag("span", board, cls="tt-mono")
