"""Playing against a checkpoint. The server judges the moves; this page keeps them, so a move can be taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .learn_board import SQUARES, board_of, expects, heat, percent, position
from .markup import note, notice
from .untrusted import plain

OPEN: Mapping[str, Any] = {"over": False, "winner": "", "row": ()}
"""How a game stands that goes on."""


def draw_play(checkpoint: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="learn-choices"):
        side = st.segmented_control(
            "You play", ["X", "O"], default="X", key="learn-side", required=True, help="X begins."
        )
        thinking = st.toggle("Show what it thinks", key="learn-thinking")
    game = _game(checkpoint, str(side))
    trouble = _reply(game)
    thought = _thought(game) if thinking and not game["over"] and trouble is None else None
    board, beside = st.columns([3, 4], gap="medium")
    with board, st.container(key="learn-board", gap=None):
        for at in (0, 3, 6):
            with st.container(horizontal=True, wrap=False, gap=None, key=f"learn-row-{at}"):
                for i in SQUARES[at : at + 3]:
                    _square(game, i, thought)
    with beside:
        _outcome(game, trouble)
        if thinking:
            _thoughts(game, thought)
        with st.container(horizontal=True, key="learn-actions"):
            mine = game["moves"][_first(game) :: 2]
            st.button("Undo", key="learn-undo", icon=":material/undo:", disabled=not mine, on_click=_undo, args=(game,))
            st.button("New game", key="learn-new", icon=":material/replay:", on_click=_forget)


def _game(checkpoint: str, side: str) -> dict[str, Any]:
    """The game on the table; another player or another side is another game."""
    kept = st.session_state.get("learn-game")
    if kept is None or (kept["checkpoint"], kept["side"]) != (checkpoint, side):
        kept = {"checkpoint": checkpoint, "side": side, "moves": [], "last": None, **OPEN}
        st.session_state["learn-game"] = kept
    found: dict[str, Any] = kept
    return found


def _first(game: Mapping[str, Any]) -> int:
    """The ply of the person's first move."""
    return 0 if game["side"] == "X" else 1


def _persons_turn(game: Mapping[str, Any]) -> bool:
    return len(game["moves"]) % 2 == _first(game)


def _reply(game: dict[str, Any]) -> UiError | None:
    """After a person's move: the player's, or the end."""
    if game["over"] or _persons_turn(game):
        return None
    try:
        answer = session.client().play(game["checkpoint"], board_of(game["moves"]))
    except UiError as error:
        return error
    if answer["position"] is not None:
        game["moves"].append(int(answer["position"]))
        game["last"] = answer["thought"]
    game |= {"over": answer["over"], "winner": answer["winner"], "row": tuple(answer["row"])}
    return None


def _thought(game: Mapping[str, Any]) -> dict[str, Any]:
    return session.client().think(game["checkpoint"], board_of(game["moves"]))


def _outcome(game: Mapping[str, Any], trouble: UiError | None) -> None:
    if trouble is not None:
        notice(trouble.message, "Undo your move, or choose another checkpoint.", "bad")
    elif not game["over"]:
        note(f"Your move: you are {game['side']}.")
    elif not game["winner"]:
        notice("A draw. Reward 0 for both.", kind="info")
    elif game["winner"] == game["side"]:
        notice("You win. The player's reward: -1.", "An early checkpoint can be beaten; one that passed cannot.", "ok")
    else:
        notice("The player wins: its reward is +1.", "Undo, and try another move.", "warn")


def _square(game: dict[str, Any], i: int, thought: Mapping[str, Any] | None) -> None:
    stone = board_of(game["moves"])[i]
    won = "-won" if i in game["row"] else ""
    if stone != ".":
        st.button(plain(stone), key=f"cell-{i}-stone-{stone.lower()}{won}", disabled=True)
        return
    label, warm = position(i), ""
    if thought is not None:
        chance = float(thought["probabilities"][i])
        label, warm = percent(chance), f"-h{heat(chance)}"
    st.button(
        plain(label), key=f"cell-{i}-free{warm}", disabled=game["over"] or not _persons_turn(game),
        on_click=_move, args=(game, i),
    )  # fmt: skip


def _thoughts(game: Mapping[str, Any], thought: Mapping[str, Any] | None) -> None:
    if (last := game["last"]) is not None:
        moves: list[int] = game["moves"]
        took = moves[-1] if len(moves) % 2 == _first(game) else moves[-2]  # its last move; the person's may follow it
        chance = percent(float(last["probabilities"][took]))
        note(f"It took position {position(took)}, to which its policy gave {chance}. The value it saw: ",
             f"{expects(last)}.")  # fmt: skip
    if thought is not None:
        note("The percentages are its policy in your place: where it would go. The value it sees for you: ",
             f"{expects(thought)}.")  # fmt: skip


def _move(game: dict[str, Any], i: int) -> None:
    if board_of(game["moves"])[i] == "." and _persons_turn(game) and not game["over"]:
        game["moves"].append(i)


def _undo(game: dict[str, Any]) -> None:
    """Back to before the person's last move."""
    while game["moves"]:
        game["moves"].pop()
        if _persons_turn(game):
            break
    game |= {**OPEN, "last": None}


def _forget() -> None:
    st.session_state.pop("learn-game", None)
