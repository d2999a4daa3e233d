"""Deleting what one said, and training the versions it shaped again without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .markup import draw, note, notice, tag
from .untrusted import plain


def draw_forget() -> None:
    """Below what a person said: the way to be rid of all of it."""
    with st.expander("Delete everything I said", icon=":material/delete_forever:", key="forget"):
        note(
            "Your ratings, preferences and versions of answers, what others said about your conversations, and every "
            "dataset any of it is in. Your chats stay. This cannot be undone."
        )
        sure = st.checkbox("Delete it for good", key="forget-sure")
        st.button("Delete everything I said", key="forget-yes", icon=":material/delete:", disabled=not sure,
                  on_click=_forget)  # fmt: skip


def _forget() -> None:
    server = session.client()
    me = session.act(server.me)
    if me is None:
        return
    gone = session.act(server.forget, str(me["name"]))
    if gone is not None:
        st.session_state["forgotten"] = gone
        st.session_state["forget-sure"] = False


def draw_forgotten() -> None:
    """What is gone, and which versions had learnt from it: a model cannot unlearn."""
    gone: Mapping[str, Any] | None = st.session_state.get("forgotten")
    if gone is None:
        return
    notice(f"{gone['feedback']} judgements and {len(gone['datasets'])} datasets are deleted.", kind="ok")
    for version in gone["versions"]:
        with st.container(border=True, key=f"forgotten-{version['id']}"):
            draw(tag("p", "They had shaped ", tag("strong", version["name"]), ", which cannot unlearn them."))
            draw_retrain(version)


def draw_retrain(version: Mapping[str, Any]) -> None:
    st.button(
        plain(f"Train {version['name']} again without it", 80), key=f"retrain-{version['id']}",
        icon=":material/model_training:", on_click=_retrain, args=(str(version["id"]), str(version["name"])),
        help="Orders a training by the same recipe on what is left. It does not answer before you promote it.",
    )  # fmt: skip


def _retrain(version_id: str, name: str) -> None:
    if session.act(session.client().retrain, version_id) is not None:
        session.tell(f"A training by the recipe of {name} is ordered.", "The Align page follows it.", "ok")
