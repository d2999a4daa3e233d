"""News of a site by its RSS or Atom feed. Any public feed may be read; what it says is untrusted."""

import asyncio
from typing import Annotated

from pydantic import Field

from trimtab.connect import Cache, Connector, Effect, Http, Limits, Result, Source, ToolError
from trimtab_connectors.xml_feed import Entry, Feed, NotAFeed, parse, shortened

connector = Connector(
    name="feeds",
    version="1.0.0",
    description="Reads the newest entries of a site's RSS or Atom feed.",
    hosts=("*",),
    plain_http=True,
    limits=Limits(max_bytes=5_000_000),
    cache=Cache(lifetime=300, stale_if_error=86400),
)

XML = frozenset({"", "text/xml", "application/xml", "text/plain", "application/octet-stream"})


@connector.tool(
    effect=Effect.READ,
    timeout=25.0,
    examples=(
        "What is new on https://example.org/feed.xml?",
        "Read the RSS feed https://blog.example.com/rss",
        "Show the latest entries of https://news.example.net/atom.xml",
        "What are the headlines of the feed at https://example.com/index.xml?",
        "Anything about bridges in the feed https://city.example.org/rss.xml?",
        "Summarise the newest posts of https://example.org/blog/feed",
    ),
)
async def latest(
    url: Annotated[str, Field(min_length=4, max_length=2000), "The feed's address: https://example.org/feed.xml"],
    http: Http,
    limit: Annotated[int, Field(ge=1, le=50), "How many entries"] = 10,
    about: Annotated[str, Field(max_length=100), "Only entries with this word in the title or the text"] = "",
) -> Result:
    """Read an RSS or Atom feed at a given address (URL) and list its newest entries."""
    reply = await http.open(url if "://" in url else f"https://{url}")
    if reply.content_type not in XML and not reply.content_type.endswith("+xml"):
        kind = reply.content_type
        raise ToolError(f"{reply.url} is {kind}, not a feed. Look for the site's RSS or Atom address.")
    try:
        # Parsing is computing; in a thread, other turns go on meanwhile.
        feed = await asyncio.to_thread(parse, reply.content, reply.charset)
    except NotAFeed as error:
        raise ToolError(f"{reply.url} was not read as a feed: {error}.") from None
    chosen = newest(feed, about)
    shown = chosen[:limit]
    title = feed.title or reply.url
    if not shown:
        said = f"{title} has no entry" + (f" about {about!r}." if about else ".")
        return Result(text=said, answer=said, sources=[Source(title, reply.url)])
    more = f"\n({len(chosen) - len(shown)} older entries are not shown)" if len(chosen) > len(shown) else ""
    return Result(
        text=f"{title}\n" + "\n".join(line(entry) for entry in shown) + more,
        data=[row(entry) for entry in shown],
        sources=[Source(title, reply.url), *(Source(e.title or e.link, e.link) for e in shown[:5] if safe(e.link))],
        answer=f"{title}: " + "; ".join(entry.title or entry.summary[:80] for entry in shown[:5]) + ".",
    )


def newest(feed: Feed, about: str) -> list[Entry]:
    """The fitting entries, the newest first; those without a date keep their order behind."""
    word = about.casefold()
    fitting = [entry for entry in feed.entries if word in f"{entry.title} {entry.summary}".casefold()]
    return sorted(fitting, key=lambda entry: -entry.at.timestamp() if entry.at else 0.0)


def line(entry: Entry) -> str:
    at = f"{entry.at:%Y-%m-%d %H:%M} " if entry.at else ""
    summary = shortened(entry.summary, 300)
    return f"{at}{entry.title}: {summary}" if summary and entry.title else f"{at}{entry.title or summary}"


def row(entry: Entry) -> dict[str, object]:
    link = entry.link if safe(entry.link) else ""
    return {
        "title": entry.title,
        "url": link,
        "at": entry.at,
        "authors": entry.authors,
        "summary": entry.summary[:1000],
    }


def safe(link: str) -> bool:
    """Whether it can be given to a person to click: a web address, no script."""
    return link.startswith(("https://", "http://")) and len(link) < 2000
