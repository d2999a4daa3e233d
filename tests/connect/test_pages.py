"""Lists that come a page at a time, in every style that services have, and from services that never end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from trimtab.connect import Http, InvalidInput, Pages, ToolError
from trimtab.connect.http import Declared
from trimtab.connect.pages import next_link
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from wire import Sink, response, serving

ALL = list(range(25))


@asynccontextmanager
async def service(
    style: Pages, answer: Callable[[Sink, dict[str, str]], tuple[Any, dict[str, str]]]
) -> AsyncIterator[tuple[Http, Sink]]:
    """`answer` is given the query and says the body and the headers."""

    async def behave(head: bytes, writer: asyncio.StreamWriter) -> None:
        target = head.split(b" ")[1].decode()
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        body, headers = answer(sink, query)
        writer.write(response(200, json.dumps(body).encode(), **headers))

    async with serving(behave) as sink:
        reach = Reach(("api.example.org",), base_url=sink.url, allow_private=True)
        yield Http(reach, transport=PinnedTransport(allow_private=True), declared=Declared(pages=style)), sink


def by_offset(sink: Sink, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start = int(query.get("offset", 0))
    return ALL[start : start + 10], {}


def by_page(sink: Sink, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start, size = (int(query["page"]) - 1) * int(query["n"]), int(query["n"])
    return {"data": {"rows": ALL[start : start + size]}}, {}


def by_cursor(sink: Sink, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start = int(query.get("after", 0))
    return {"rows": ALL[start : start + 10], "meta": {"next": start + 10 if start + 10 < len(ALL) else None}}, {}


def by_next(sink: Sink, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start = int(query.get("from", 0))
    return {"rows": ALL[start : start + 10], "next": f"/rows?from={start + 10}" if start < 20 else ""}, {}


def by_link(sink: Sink, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    start = int(query.get("from", 0))
    link = f'<{sink.url}/rows?from=0>; rel="first", <{sink.url}/rows?from={start + 10}>; rel="next"'
    return ALL[start : start + 10], {"link": link} if start < 20 else {}


STYLES = [
    (Pages("offset", param="offset", size=10), by_offset),
    (Pages("page", param="page", items="data.rows", size_param="n", size=10), by_page),
    (Pages("cursor", param="after", items="rows", next="meta.next"), by_cursor),
    (Pages("next", items="rows", next="next"), by_next),
    (Pages("link"), by_link),
]


@pytest.mark.parametrize(("style", "answer"), STYLES, ids=lambda value: getattr(value, "style", ""))
async def test_every_style_is_read_to_its_end_or_to_what_was_asked_for(style: Pages, answer: Any) -> None:
    async with service(style, answer) as (http, sink):
        whole = await http.items("/rows", limit=100, params={"q": "x"})
        assert (whole.items, whole.complete, whole.pages) == (ALL, True, 3)
        assert sum(b"q=x" in head for head in sink.heads) == (1 if style.style in ("next", "link") else 3)
        some = await http.items("/rows", limit=12)
        assert (some.items, some.complete, some.pages) == (ALL[:12], False, 2)


async def test_a_list_without_end_ends() -> None:
    endless = Pages("cursor", param="after", items="rows", next="next", most=4)
    async with service(endless, lambda sink, query: ({"rows": [1], "next": len(sink.heads)}, {})) as (http, sink):
        found = await http.items("/rows", limit=1000)
    assert (found.items, found.complete, len(sink.heads)) == ([1] * 4, False, 4)
    async with service(endless, lambda sink, query: ({"rows": [1], "next": "same"}, {})) as (http, sink):
        found = await http.items("/rows", limit=1000)
    assert (found.complete, len(sink.heads)) == (False, 2)


async def test_a_next_page_elsewhere_is_not_asked_for() -> None:
    async with serving(lambda head, writer: asyncio.sleep(0)) as other:
        away = {"rows": [1], "next": f"{other.url}/rows"}
        async with service(Pages("next", items="rows", next="next"), lambda sink, query: (away, {})) as (http, _):
            with pytest.raises(ToolError, match="not a host this connector has declared"):
                await http.items("/rows")
        assert other.heads == []


async def test_an_answer_without_the_list_says_where_it_should_be() -> None:
    async with service(Pages("cursor", param="a", items="data.rows", next="n"), by_cursor) as (http, _):
        with pytest.raises(ToolError, match=r"without a list at 'data\.rows'"):
            await http.items("/rows")


def test_a_link_header_is_read_as_services_write_it() -> None:
    assert next_link('<https://a.example/?p=2>; rel="next"') == "https://a.example/?p=2"
    assert next_link('<https://a.example/?a=1,2>; title="x, y"; rel=next') == "https://a.example/?a=1,2"
    assert next_link('<https://a.example/>; rel="prev next"') == "https://a.example/"
    assert next_link('<https://a.example/>; rel="nextish"') == ""
    assert next_link("rubbish") == ""


def test_mistakes_in_a_declaration_are_named() -> None:
    for wrong, said in (
        (lambda: Pages("page"), "needs param"),
        (lambda: Pages("cursor", param="a"), "needs next"),
        (lambda: Pages("link", most=0), "1 to 1000"),
    ):
        with pytest.raises(InvalidInput, match=said):
            wrong()
