"""HTML that can be drawn: only what this module and `untrusted` built, with every piece of text escaped.

`Safe` marks such a string. `tag` escapes each child that is not already `Safe`; `draw` refuses anything else. So text
from outside can end up inside an element, never become one. There is no Markdown on this way, hence no images, links,
`$formulas$`, `:icons:` or `:red[colours]` that a text could smuggle in. Streamlit cleans the result once more in the
browser. `draw` is the only use of `st.html` in the app.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

import streamlit as st

from .characters import clean

TAGS = frozenset(
    "b blockquote br code dd del div dl dt em h2 h3 h4 h5 h6 hr i li mark ol p pre section small span strong sub sup "
    "table tbody td th thead tr ul".split()
)
VOID = frozenset({"br", "hr"})


class Safe(str):
    """HTML built here. Never wrap text of unknown origin in it: use `escape`."""

    __slots__ = ()


def escape(text: object) -> Safe:
    """Text as HTML that shows exactly that text, less invisible characters."""
    return Safe(html.escape(clean(str(text)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Safe:
    return Safe(escape(between).join(part if isinstance(part, Safe) else escape(part) for part in parts))


def tag(name: str, *children: object, cls: str = "", title: object = "", start: int | None = None) -> Safe:
    """One element. `cls` is ours; `title` may be anybody's."""
    if name not in TAGS:
        raise ValueError(f"'{name}' is not an element the UI draws. Add it to TAGS if it cannot fetch or run anything.")
    attributes = f' class="{escape(cls)}"' if cls else ""
    attributes += f' title="{escape(title)}"' if title else ""
    attributes += f' start="{int(start)}"' if start is not None else ""
    if name in VOID:
        return Safe(f"<{name}{attributes}>")
    return Safe(f"<{name}{attributes}>{join(children)}</{name}>")


def draw(body: Safe) -> None:
    """Put it on the page."""
    if not isinstance(body, Safe):
        raise TypeError("draw() takes Safe HTML only. Use escape(), tag() or untrusted.render_untrusted().")
    if body:
        st.html(body)


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> Safe:
    """A small table; scrolls sideways inside itself on a narrow screen. Without `head`, rows only."""
    names = [tag("th", cell) for cell in head]
    top = tag("thead", tag("tr", *names)) if names else Safe()
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", top, body), cls="tt-scroll")


def badge(text: object, kind: str = "", title: object = "") -> Safe:
    """A small label. `kind` is ``ok``, ``warn``, ``bad`` or nothing."""
    return tag("span", text, cls=f"tt-badge tt-{kind}" if kind else "tt-badge", title=title)


def notice(message: object, advice: object = "", kind: str = "warn") -> None:
    """A framed message that may quote anything: a server's error, a file's name."""
    more = [tag("div", advice, cls="tt-advice")] if advice else []
    draw(tag("div", tag("div", message), *more, cls=f"tt-notice tt-{kind}"))


def note(*parts: object) -> None:
    """One quiet line."""
    draw(tag("div", *parts, cls="tt-note"))
