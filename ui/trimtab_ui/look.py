"""What every page shares: page set-up, the stylesheet, the words for sizes, times and states."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from .markup import Safe, badge

ASSETS = Path(__file__).parent / "assets"
ICON = ASSETS / "icon.svg"
STYLE = ASSETS / "look.css"

EFFECTS: Mapping[str, tuple[str, str, str]] = {
    "read": ("only reads", "ok", "Looks something up. Runs without asking."),
    "write": ("writes", "warn", "Changes something outside. Asks you first."),
    "irreversible": ("cannot be undone", "bad", "Changes something for good. Asks you first."),
}
STATES: Mapping[str, tuple[str, str]] = {
    "ok": ("done", "ok"),
    "done": ("done", "ok"),
    "ready": ("ready", "ok"),
    "error": ("failed", "bad"),
    "failed": ("failed", "bad"),
    "invalid": ("bad arguments", "bad"),
    "rejected": ("you said no", "warn"),
    "cancelled": ("stopped", "warn"),
    "interrupted": ("interrupted", "warn"),
    "waiting": ("waiting for you", "warn"),
    "running": ("running", ""),
}


def set_up() -> None:
    """First call of every run."""
    st.set_page_config(
        page_title="Trimtab",
        page_icon=str(ICON),
        layout="centered",
        initial_sidebar_state="auto",
        menu_items={"About": "Trimtab: a small surface that steers a big rudder."},
    )
    st.html(STYLE)
    night = st.context.theme.type == "dark"
    st.logo(str(ASSETS / ("wordmark-dark.svg" if night else "wordmark-light.svg")), icon_image=str(ICON), size="large")


def effect_badge(effect: str) -> Safe:
    text, kind, why = EFFECTS.get(effect, (effect, "warn", "Unknown effect: treated as one that changes something."))
    return badge(text, kind, why)


def state_badge(state: str) -> Safe:
    text, kind = STATES.get(state, (state, ""))
    return badge(text, kind)


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s"


def size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KB", "MB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"


def ago(then: float) -> str:
    """How long ago, roughly."""
    gone = max(0.0, time.time() - then)
    for limit, unit, length in ((90, "second", 1), (5400, "minute", 60), (129600, "hour", 3600)):
        if gone < limit:
            count = max(1, round(gone / length))
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return f"{round(gone / 86400)} days ago"


def remaining(until: float) -> str:
    left = until - time.time()
    if left <= 0:
        return "expired"
    if left < 90:
        return f"{round(left)} seconds left"
    return f"{round(left / 60)} minutes left" if left < 5400 else f"{round(left / 3600)} hours left"
