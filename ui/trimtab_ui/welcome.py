"""The empty chat: what this is, a few questions to try, and how to add documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from .client import Client, UiError
from .markup import draw, tag
from .untrusted import plain

EXAMPLES = 4


def draw_welcome(server: Client, submit: Callable[[str], None]) -> None:
    draw(
        tag(
            "div",
            tag("h2", "What would you like to know?"),
            tag(
                "p",
                "Answers come with their sources. Tools look things up; anything that changes something asks first.",
            ),
            cls="tt-hero",
        )
    )
    try:
        asked, documents = examples(server.connectors()), server.documents()
    except UiError:
        return
    with st.container(key="examples"):
        for number, question in enumerate(asked):
            st.button(
                plain(question, 120),
                key=f"example-{number}",
                icon=":material/north_east:",
                on_click=submit,
                args=(question,),
                width="stretch",
            )
    ready = [d for d in documents if d.get("status") not in ("failed", "error")]
    if ready:
        count = f"{len(ready)} document{'s' * (len(ready) != 1)}"
        draw(tag("p", f"Your {count} can be asked about, too.", cls="tt-note"))
    else:
        draw(tag("p", "Add documents on the Knowledge page, and answers will quote them.", cls="tt-note"))


def examples(connectors: Sequence[dict[str, Any]], count: int = EXAMPLES) -> list[str]:
    """One question a connector that is on, then second ones, until there are `count`."""
    on = [c for c in connectors if c.get("enabled") and not c.get("error")]
    rows = [[str(e) for tool in c.get("tools", ()) for e in tool.get("examples", ())] for c in on]
    found: list[str] = []
    for depth in range(max((len(row) for row in rows), default=0)):
        found += [row[depth] for row in rows if depth < len(row)]
    return list(dict.fromkeys(found))[:count]
