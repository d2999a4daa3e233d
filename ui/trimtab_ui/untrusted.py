"""The one way for text from outside (a model, a tool, a document, a title, a server's error) onto the page.

Streamlit's own Markdown fetches remote images without a click, also in labels, and turns bare addresses into links. So
untrusted Markdown is parsed here and only its shape is kept: headings, lists, emphasis, code, quotes, tables. Images
are dropped, a link becomes its text and the host it led to, raw HTML is shown as the characters it is. `plain` is for
the places where Streamlit insists on Markdown: labels of buttons, expanders and fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from .characters import clean, hidden
from .markup import Safe, draw, escape, join, tag

LONGEST = 200_000
"""Characters of one text that are drawn; the rest is announced, not shown."""

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_SHAPES = {
    "paragraph": "p",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "blockquote": "blockquote",
    "table": "table",
    "thead": "thead",
    "tbody": "tbody",
    "tr": "tr",
    "th": "th",
    "td": "td",
    "em": "em",
    "strong": "strong",
    "s": "del",
}
_MARK = re.compile(r"\[(\d{1,3})\]")


def render_untrusted(text: str, cites: Mapping[int, str] | None = None) -> None:
    """Draw untrusted Markdown. `cites`: citation numbers that become marks, with the titles they stand for."""
    draw(to_html(text, cites))


def to_html(text: str, cites: Mapping[int, str] | None = None) -> Safe:
    """Untrusted Markdown as HTML without a single address in it that a browser would fetch or follow."""
    shown = text[:LONGEST]
    parts: list[object] = [_blocks(_PARSER.parse(clean(shown)), cites or {})]
    if len(text) > LONGEST:
        parts.append(tag("p", f"… and {len(text) - LONGEST:,} more characters.", cls="tt-note"))
    if removed := hidden(shown):
        parts.append(tag("p", f"{removed} hidden character{'s' * (removed > 1)} removed.", cls="tt-note"))
    return tag("div", *parts, cls="tt-text")


def host_of(address: str) -> str:
    """The host an address leads to, or its scheme when it has none (``javascript``, ``data``)."""
    try:
        parts = urlsplit(address.strip())
        return clean(parts.hostname or parts.scheme or "")[:120]
    except ValueError:
        return "unreadable address"


def _blocks(tokens: Sequence[Token], cites: Mapping[int, str]) -> Safe:
    return _close(iter(tokens), "", cites)


def _close(tokens: Iterator[Token], until: str, cites: Mapping[int, str]) -> Safe:
    """Everything up to the token that closes `until`."""
    parts: list[Safe] = []
    for token in tokens:
        if until and token.type == until:
            break
        if token.type.endswith("_open"):
            inner = _close(tokens, token.type.removesuffix("_open") + "_close", cites)
            parts.append(_element(token, inner))
        else:
            parts.append(_leaf(token, cites))
    return join(parts)


def _element(token: Token, inner: Safe) -> Safe:
    name = token.type.removesuffix("_open")
    if name == "link":
        address = str(token.attrs.get("href", ""))
        host = host_of(address)
        return join([inner, tag("span", f" ({host})", cls="tt-host", title=address[:500])]) if host else inner
    if name == "heading":
        return tag(f"h{min(int(token.tag[1]) + 2, 6)}", inner)
    if name == "paragraph" and token.hidden:
        return inner
    if name == "table":
        return tag("div", tag("table", inner), cls="tt-scroll")
    if name == "ordered_list":
        return tag("ol", inner, start=_start(token))
    return tag(_SHAPES[name], inner) if name in _SHAPES else inner


def _leaf(token: Token, cites: Mapping[int, str]) -> Safe:
    if token.type == "inline":
        return _blocks(token.children or [], cites)
    if token.type == "text":
        return _text(token.content, cites)
    if token.type == "code_inline":
        return tag("code", token.content)
    if token.type in ("fence", "code_block"):
        return tag("pre", tag("code", token.content))
    if token.type == "image":
        return tag("span", f"[image removed{': ' + token.content if token.content else ''}]", cls="tt-host")
    if token.type in ("softbreak", "hardbreak"):
        return tag("br")
    if token.type == "hr":
        return tag("hr")
    return escape(token.content)


def _text(content: str, cites: Mapping[int, str]) -> Safe:
    parts: list[object] = []
    at = 0
    for found in _MARK.finditer(content):
        number = int(found[1])
        if number in cites:
            parts += [content[at : found.start()], tag("sup", number, cls="tt-cite", title=cites[number])]
            at = found.end()
    return join([*parts, content[at:]])


def _start(token: Token) -> int | None:
    given = str(token.attrs.get("start", ""))
    return int(given) if given.isdigit() and len(given) < 10 else None


_JOIN = "\u2060"
# No more than needed: screen readers are told the label with its backslashes.
_MARKS = re.compile(
    r"([\\`*\[\]<>#$~|]|!(?=\[)|&(?=[#\w])|(?<!\w)_|_(?!\w)|^[-+=](?=\s|[-+=]|$)|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s))"
)
# What Streamlit turns into something after the escapes are gone: :shortcode:, :red[..], scheme://, www., a@b, -> and >=
_AFTERWARDS = re.compile(
    r"(:)(?=[\w+/-]+[:\[])|(:)(?=//|material)|(www)(?=\.)|(@)(?=\w)|(mailto:|xmpp:)|([<>~-])(?=[-=>])", re.IGNORECASE
)


def plain(text: object, limit: int = 90) -> str:
    """One line of text for a label: Streamlit shows these characters and does nothing else with them."""
    line = " ".join(clean(str(text)).split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    apart = _AFTERWARDS.sub(lambda found: found[0] + _JOIN, line)
    return _MARKS.sub(r"\\\1", apart)
