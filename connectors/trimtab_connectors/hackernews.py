"""Hacker News: the front page, stories by words, and what is said about one. By Algolia's search API, without a key.

https://hn.algolia.com/api
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from trimtab.connect import Cache, Connector, Effect, Http, Rate, Result, Source, ToolError
from trimtab_connectors.xml_feed import plain, shortened

connector = Connector(
    name="hackernews",
    version="1.0.0",
    description="Stories and discussions of Hacker News.",
    hosts=("hn.algolia.com",),
    rate=Rate(calls=120, per=60),
    cache=Cache(lifetime=120, stale_if_error=3600),
)

Limit = Annotated[int, Field(ge=1, le=30), "How many stories"]


class Story(BaseModel):
    """A hit. `url` is missing for a question or a text."""

    objectID: str = Field(pattern=r"^\d{1,12}$")
    title: str
    url: str | None = None
    author: str = ""
    points: int | None = None
    num_comments: int | None = None
    created_at_i: int = 0

    @property
    def page(self) -> str:
        return f"https://news.ycombinator.com/item?id={self.objectID}"

    @property
    def line(self) -> str:
        told = f"{self.points or 0} points, {self.num_comments or 0} comments"
        day = f", {datetime.fromtimestamp(self.created_at_i, UTC):%Y-%m-%d}" if 0 < self.created_at_i < 1e11 else ""
        return f"{self.title} ({told}{day}) {self.url or self.page} [id {self.objectID}]"


class Stories(BaseModel):
    hits: list[Story]


class Comment(BaseModel):
    """A comment, or the story itself: what was deleted has no author and no text."""

    id: int
    author: str | None = None
    text: str | None = None
    children: list["Comment"] = []


class Discussion(Comment):
    title: str | None = None
    url: str | None = None
    points: int | None = None
    type: str = "story"


@connector.tool(
    effect=Effect.READ,
    examples=(
        "What is on the front page of Hacker News?",
        "Show me the top stories on Hacker News",
        "What's trending on HN right now?",
        "Give me today's Hacker News headlines",
        "What are people discussing on Hacker News?",
        "List the 5 top Hacker News posts",
    ),
)
async def front_page(http: Http, limit: Limit = 10) -> Result:
    """List the stories on Hacker News' front page now."""
    found = await stories({"tags": "front_page", "hitsPerPage": limit}, http)
    return told("On Hacker News' front page", found[:limit])


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Search Hacker News for SQLite",
        "What does Hacker News say about Rust compile times?",
        "Find HN stories about remote work",
        "Newest Hacker News posts on home automation",
        "Was there a Hacker News thread about Postgres 17?",
        "Look on HN for discussions of mechanical keyboards",
    ),
)
async def search(
    query: Annotated[str, Field(min_length=1, max_length=200), "What to search for, e.g. SQLite"],
    http: Http,
    limit: Limit = 10,
    order: Annotated[Literal["relevance", "newest"], "Which come first"] = "relevance",
) -> Result:
    """Search the stories of Hacker News."""
    params = {"query": query, "tags": "story", "hitsPerPage": limit}
    found = await stories(params, http, newest=order == "newest")
    return told(f"Hacker News on {query!r}", found[:limit])


@connector.tool(
    effect=Effect.READ,
    examples=(
        "What do people say in Hacker News item 8863?",
        "Read the comments of HN story 121003",
        "Summarise the discussion https://news.ycombinator.com/item?id=8863",
        "What are the main comments on Hacker News thread 2921983?",
        "Show the HN discussion with id 192327",
        "What was the reaction to Hacker News post 8863?",
    ),
)
async def discussion(
    item: Annotated[str, Field(min_length=1, max_length=100), "The story's number or address, e.g. 8863"],
    http: Http,
    limit: Annotated[int, Field(ge=1, le=50), "How many comments"] = 15,
) -> Result:
    """Read a Hacker News story and the first comments on it."""
    number = numbered(item)
    reply = await http.get("/api/v1/items/{id}", path={"id": number}, ok=(404,))
    if reply.status == 404:
        raise ToolError(f"Hacker News has no item {number}. Check the number, or search by words.")
    found = reply.into(Discussion)
    said = [comment for comment in found.children if comment.text and comment.author]
    lines = [f"{comment.author}: {shortened(plain(comment.text or ''), 600)}" for comment in said[:limit]]
    title = found.title or shortened(plain(found.text or ""), 80)
    if not title:
        raise ToolError(f"Hacker News' item {number} was deleted: there is nothing to read.")
    page = f"https://news.ycombinator.com/item?id={number}"
    head = f"{title} ({found.points or 0} points) {found.url or ''}".rstrip()
    more = [f"({len(said) - limit} more comments are not shown)"] if len(said) > limit else []
    own = [plain(found.text)] if found.text and found.title else []
    first = f" The first: {shortened(lines[0], 300)}" if lines else ""
    return Result(
        text="\n".join([head, *own, *(lines or ["Nobody has commented yet."]), *more]),
        data={"id": number, "title": title, "url": found.url, "points": found.points, "comments": lines},
        sources=[Source(f"{title} (Hacker News)", page)],
        answer=f"“{title}” has {len(said)} comment threads.{first}",
    )


async def stories(params: dict[str, object], http: Http, *, newest: bool = False) -> list[Story]:
    reply = await http.get("/api/v1/search_by_date" if newest else "/api/v1/search", params=params)
    return reply.into(Stories).hits


def told(head: str, found: list[Story]) -> Result:
    if not found:
        return Result(text=f"{head}: nothing was found.", answer=f"{head}: nothing was found.")
    return Result(
        text="\n".join([f"{head}:", *(story.line for story in found)]),
        data=[{**story.model_dump(), "page": story.page} for story in found],
        sources=[Source(f"{story.title} (Hacker News)", story.page) for story in found],
        answer=f"{head}: " + "; ".join(story.title for story in found[:5]) + ".",
    )


def numbered(text: str) -> str:
    found = re.fullmatch(r"(?:https?://news\.ycombinator\.com/item\?id=)?(\d{1,12})", text.strip())
    if not found:
        raise ToolError(f"{text[:60]!r} is not a Hacker News item. Give its number, e.g. 8863.")
    return found[1]
