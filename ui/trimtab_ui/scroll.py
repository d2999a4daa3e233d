"""Bring a new question into view, once. Streamlit only keeps the end in view for somebody who is already there."""

from __future__ import annotations

import streamlit as st

JS = """
const seen = new Set()
export default function ({ parentElement, data }) {
  if (seen.has(data)) return
  seen.add(data)
  const here = parentElement.host ?? parentElement
  setTimeout(() => here.scrollIntoView({ block: "end", behavior: "smooth" }), 60)
}
"""

_mark = st.components.v2.component("trimtab_scroll", js=JS)


def scroll_here(once_for: str) -> None:
    """Scroll to this place the first time this browser draws it for `once_for`."""
    _mark(key="scroll-here", data=once_for, height="content")
