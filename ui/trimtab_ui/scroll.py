"""Bring the end of a conversation into view, once: Streamlit keeps it there only for somebody who was there already."""

from __future__ import annotations

import streamlit as st

NEAR = 300
"""Pixels from the end within which somebody is taken to be reading there."""
JS = """
const seen = new Set()
export default function ({ parentElement, data }) {
  if (seen.has(data.once)) return
  seen.add(data.once)
  const here = parentElement.host ?? parentElement
  const page = document.querySelector("[data-testid='stMain']")
  const composer = document.querySelector("[data-testid='stBottom']")  // it lies over the end of the page
  const away = page ? page.scrollHeight - page.clientHeight - page.scrollTop : 0
  if (seen.has(data.unless_away_since) && away > data.near) return
  here.style.scrollMarginBottom = `${composer?.offsetHeight ?? 0}px`
  setTimeout(() => here.scrollIntoView({ block: "end", behavior: data.jump ? "instant" : "smooth" }), 60)
}
"""

_mark = st.components.v2.component("trimtab_scroll", js=JS)


def scroll_here(once: str, *, jump: bool, unless_away_since: str = "") -> None:
    """Scroll to this place the first time this browser draws it for `once`; at once with `jump`. Where it has scrolled
    here for `unless_away_since` before, somebody who has scrolled away since is left alone."""
    data = {"once": once, "jump": jump, "unless_away_since": unless_away_since, "near": NEAR}
    _mark(key="scroll-here", data=data, height="content")
