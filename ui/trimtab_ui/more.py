"""Long lists: so many rows at first, and as many again with each click. `key` names the list in this tab."""

from __future__ import annotations

import streamlit as st

from .untrusted import plain


def shown(key: str, step: int) -> int:
    """How many rows are wanted by now."""
    return int(st.session_state.get(f"{key}-shown", step))


def button(label: str, key: str, step: int, icon: str = ":material/expand_more:") -> None:
    """For the next `step` rows; draw it where there are more than `shown` says."""
    st.button(plain(label), key=key, icon=icon, type="tertiary", on_click=_more, args=(key, step))


def _more(key: str, step: int) -> None:
    st.session_state[f"{key}-shown"] = shown(key, step) + step
