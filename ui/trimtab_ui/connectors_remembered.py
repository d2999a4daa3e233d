"""Approvals that a person has remembered: what runs without being asked, until when, and asking again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import look, session
from .cards import code
from .connectors_words import several
from .markup import badge, draw, note, tag


def draw_remembered(connector: str = "") -> None:
    """Of one connector, or of all of them."""
    rows = [row for row in session.client().remembered() if not connector or row["connector"] == connector]
    if not rows:
        return
    panel = st.expander(f"Approvals remembered: {len(rows)}", icon=":material/how_to_reg:", key="remembered")
    with panel:
        note("These run without asking you, unless the chat has read something from outside before.")
        for row in rows:
            _row(row)


def _row(row: Mapping[str, Any]) -> None:
    marks = [look.effect_badge(str(row.get("effect", ""))), badge(look.remaining(float(row["expires_at"])))]
    if row.get("when_tainted"):
        marks.append(badge("even after outside content", "warn"))
    with st.container(border=True, key=f"remembered-{row['id']}"):
        draw(tag("div", tag("span", row["tool"], cls="tt-where"), *marks, cls="tt-card-head"))
        fixed, free = dict(row.get("fixed") or {}), [str(name) for name in row.get("free") or ()]
        if fixed:
            note("Only with:")
            draw(code(fixed))
        if free:
            note("Whatever these are: ", tag("span", ", ".join(free), cls="tt-mono"))
        if not fixed and not free:
            note("It takes no arguments.")
        note(f"Used {several(int(row.get('uses') or 0), 'time')}.")
        st.button("Ask me again", key=f"revoke-{row['id']}", icon=":material/undo:", on_click=_revoke,
                  args=(str(row["id"]),))  # fmt: skip


def _revoke(consent_id: str) -> None:
    if session.act(session.client().revoke_remembered, consent_id) is not None:
        session.tell("You will be asked again.", kind="ok")
