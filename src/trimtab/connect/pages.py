"""Lists that a service gives out a page at a time.

pages=Pages("cursor", items="data", next="meta.next_cursor", param="cursor")
...
found = await http.items("/v1/ships", limit=50)
found.items, found.complete
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from trimtab.domain.errors import InvalidInput, ToolError

from .reply import Reply

Style = Literal["page", "offset", "cursor", "link", "next"]
_LINK = re.compile(r'<([^>]{1,4000})>\s*((?:;\s*[a-zA-Z*]+\s*=\s*(?:"[^"]{0,400}"|[^\s;,"]{1,400})\s*)*)')
_REL = re.compile(r'rel\s*=\s*"?([^";,]+)"?', re.I)


@dataclass(frozen=True)
class Pages:
    """How the pages of a service are asked for.

    `style` is ``"page"`` (a number counted from `start`), ``"offset"`` (how many to leave out), ``"cursor"`` (a value
    of the reply at `next`), ``"link"`` (a Link header, RFC 8288), or ``"next"`` (a URL in the reply at `next`).
    `items` and `next` are dotted paths into the JSON; an empty `items` means that the reply is the list. `param` is the
    query parameter for number, offset or cursor; `size_param` asks for `size` items a page. `most` pages are read.
    """

    style: Style
    items: str = ""
    next: str = ""
    param: str = ""
    start: int = 1
    size_param: str = ""
    size: int = 0
    most: int = 10

    def __post_init__(self) -> None:
        if self.style in ("page", "offset", "cursor") and not self.param:
            raise InvalidInput(f"Pages({self.style!r}) needs param: the query parameter that asks for the next page.")
        if self.style in ("cursor", "next") and not self.next:
            raise InvalidInput(f"Pages({self.style!r}) needs next: where the reply says what comes next.")
        if not 1 <= self.most <= 1000:
            raise InvalidInput("Pages: most is the number of pages that may be read, 1 to 1000.")


@dataclass(frozen=True)
class Listing:
    """What was read. `complete` is false when the service has more."""

    items: list[Any]
    complete: bool
    pages: int
    url: str
    """Of the first page."""


async def listing(
    style: Pages,
    ask: Callable[[Mapping[str, Any]], Awaitable[Reply]],
    follow: Callable[[str], Awaitable[Reply]],
    limit: int,
) -> Listing:
    """Read pages by `ask(parameters)`, or by `follow(url)` where the service gives addresses."""
    items: list[Any] = []
    params: dict[str, Any] = {style.size_param: style.size} if style.size_param and style.size else {}
    if style.style == "page":
        params[style.param] = style.start
    reply = await ask(params)
    first = reply.url
    seen: set[str] = set()
    for number in range(1, style.most + 1):
        body = reply.json()
        found = _items(body, style, reply)
        items += found
        coming = _coming(style, reply, body, found, items, number)
        if len(items) >= limit:
            return Listing(items[:limit], coming is None and len(items) <= limit, number, first)
        if coming is None:
            return Listing(items, True, number, first)
        if number == style.most or coming in seen:  # a service that names the same page again would never end
            break
        seen.add(coming)
        reply = await (follow(coming) if style.style in ("link", "next") else ask({**params, style.param: coming}))
    return Listing(items, False, number, first)


def _coming(style: Pages, reply: Reply, body: Any, found: list[Any], items: list[Any], number: int) -> str | None:
    """The next page's address, cursor, number or offset; None after the last."""
    match style.style:
        case "link":
            target = next_link(reply.headers.get("link", ""))
            return str(httpx.URL(reply.url).join(target)) if target else None
        case "next" | "cursor":
            value = _at(body, style.next)
            if value in (None, "", False):
                return None
            return str(httpx.URL(reply.url).join(str(value))) if style.style == "next" else str(value)
        case "page":
            return str(style.start + number) if _full(style, found) else None
        case "offset":
            return str(len(items)) if _full(style, found) else None


def _full(style: Pages, found: list[Any]) -> bool:
    """Whether another page may follow this one: it has as many items as were asked for, or at least some."""
    return len(found) >= style.size if style.size else bool(found)


def next_link(header: str) -> str:
    """The target of ``rel="next"`` in a Link header; empty when there is none."""
    for target, attributes in _LINK.findall(header[:16_000]):
        rel = _REL.search(attributes)
        if rel and "next" in rel[1].lower().split():
            return str(target)
    return ""


def _items(body: Any, style: Pages, reply: Reply) -> list[Any]:
    found = _at(body, style.items)
    if not isinstance(found, list):
        raise ToolError(
            f"{httpx.URL(reply.url).host} answered without a list"
            + (f" at {style.items!r}." if style.items else ".")
            + " The service may have changed.",
            reason="malformed",
        )
    return found


def _at(body: Any, path: str) -> Any:
    for step in path.split(".") if path else ():
        body = body.get(step) if isinstance(body, dict) else None
    return body
