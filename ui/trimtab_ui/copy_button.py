"""A button that puts a text on the clipboard, in the browser, without asking the server anything.

The text arrives as data and is only ever handed to the clipboard; it is never put into the page.
"""

from __future__ import annotations

import streamlit as st

HTML = '<button type="button" class="copy" aria-label="Copy answer" title="Copy"><span>Copy</span></button>'
CSS = """
.copy { font: inherit; font-size: 0.875rem; height: 2.5rem; padding: 0 0.75rem; cursor: pointer; border-radius: 0.6rem;
  color: var(--st-text-color); background: transparent; border: 1px solid var(--st-border-color); white-space: nowrap; }
.copy:hover, .copy:focus-visible { border-color: var(--st-primary-color); }
"""
JS = """
export default function ({ parentElement, data }) {
  const button = parentElement.querySelector(".copy")
  const label = button.querySelector("span")
  button.onclick = async () => {
    let done = true
    try { await navigator.clipboard.writeText(data) }
    catch {
      const area = document.createElement("textarea")
      area.value = data
      document.body.append(area)
      area.select()
      done = document.execCommand("copy")
      area.remove()
    }
    label.textContent = done ? "Copied" : "Could not copy"
    setTimeout(() => { label.textContent = "Copy" }, 1500)
  }
}
"""

_button = st.components.v2.component("trimtab_copy", html=HTML, css=CSS, js=JS)


def copy_button(text: str, key: str) -> None:
    """Draw it; `text` is copied as it is."""
    _button(key=key, data=text, height="content", width="content")
