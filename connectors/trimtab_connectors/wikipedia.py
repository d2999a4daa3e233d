"""Wikipedia: finding articles and reading their introductions.

Search is MediaWiki's Action API, introductions come from the REST API's page summary. Texts are CC BY-SA 4.0, which
asks for the link that each result carries.
"""

import html
import re
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, Field

from trimtab.connect import Cache, Connector, Effect, Http, Result, Source, ToolError

connector = Connector(
    name="wikipedia",
    version="1.0.0",
    description="Looks things up in Wikipedia (texts CC BY-SA 4.0).",
    hosts=("*.wikipedia.org",),
    cache=Cache(lifetime=3600, stale_if_error=7 * 86400),
)

LICENSE = "Wikipedia, CC BY-SA 4.0"
Language = Annotated[str, Field(pattern="^[a-z]{2,3}$"), "Language code of the Wikipedia to ask, e.g. en, de, fr"]


class Hit(BaseModel):
    title: str
    snippet: str = ""


class Hits(BaseModel):
    search: list[Hit] = []


class SearchReply(BaseModel):
    query: Hits


class Page(BaseModel):
    page: str


class Urls(BaseModel):
    desktop: Page


class Summary(BaseModel):
    type: str = "standard"
    title: str
    extract: str = ""
    description: str = ""
    timestamp: str = ""
    content_urls: Urls | None = None


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Search Wikipedia for the history of paper",
        "Find Wikipedia articles about volcanoes in Iceland",
        "Which Wikipedia articles mention the Antikythera mechanism?",
        "Look for articles on bridges in Prague",
        "Search Wikipedia for painters of the Dutch Golden Age",
        "What does Wikipedia have about solar sails?",
    ),
)
async def search(
    query: Annotated[str, Field(min_length=1, max_length=200), "What to search for, e.g. history of paper"],
    http: Http,
    limit: Annotated[int, Field(ge=1, le=10), "How many articles"] = 5,
    language: Language = "en",
) -> Result:
    """Search Wikipedia and list the articles that fit, each with the sentence that matched."""
    hits = await find(query, limit, language, http)
    if not hits:
        return Result(
            text=f"Wikipedia has no article for {query!r}.", answer=f"Wikipedia has no article for {query!r}."
        )
    rows = [{"title": hit.title, "snippet": plain(hit.snippet), "url": link(hit.title, language)} for hit in hits]
    return Result(
        text="\n".join(f"{row['title']}: {row['snippet']}" for row in rows),
        data=rows,
        sources=[source(row["title"], row["url"]) for row in rows],
        answer="Wikipedia has: " + "; ".join(row["title"] for row in rows) + ".",
    )


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Who was Ada Lovelace?",
        "What is photosynthesis?",
        "Tell me about the Eiffel Tower",
        "Who invented the telephone according to Wikipedia?",
        "What does Wikipedia say about black holes?",
        "Where is Lake Titicaca?",
        "Give me a summary of the French Revolution",
        "What is the capital of Mongolia?",
        "When was the Battle of Hastings?",
    ),
)
async def summary(
    title: Annotated[str, Field(min_length=1, max_length=200), "The subject, best as an article's title: Ada Lovelace"],
    http: Http,
    language: Language = "en",
) -> Result:
    """Get the introduction of a Wikipedia article: who or what a person, place, thing, event or idea is."""
    found = await introduction(title, language, http)
    nearest = ""
    if found is None:
        hits = await find(title, 1, language, http)
        found = await introduction(hits[0].title, language, http) if hits else None
        nearest = f"(no article {title!r}; the nearest is this one)\n"
    if found is None:
        raise ToolError(f"Wikipedia has no article on {title!r}. Try other words, or search first.")
    url = found.content_urls.desktop.page if found.content_urls else link(found.title, language)
    if found.type == "disambiguation":
        answer = f"{found.title} can mean several things; say which one is meant."
    else:
        answer = sentences(found.extract, 2) or f"Wikipedia's article {found.title} has no introduction."
    return Result(
        text=f"{nearest}{found.title}: {found.extract}",
        data={"title": found.title, "description": found.description, "extract": found.extract, "url": url},
        sources=[source(found.title, url)],
        answer=answer,
    )


async def find(query: str, limit: int, language: str, http: Http) -> list[Hit]:
    reply = await http.get(
        "https://{language}.wikipedia.org/w/api.php",
        path={"language": language},
        params={
            "action": "query",
            "list": "search",
            "srsearch": query,
            "srlimit": limit,
            "format": "json",
            "formatversion": 2,
        },
    )
    return reply.into(SearchReply).query.search


async def introduction(title: str, language: str, http: Http) -> Summary | None:
    """None when there is no such article."""
    reply = await http.get(
        "https://{language}.wikipedia.org/api/rest_v1/page/summary/{title}",
        path={"language": language, "title": title.strip().replace(" ", "_")},
        ok=(404,),
    )
    return None if reply.status == 404 else reply.into(Summary)


def plain(snippet: str) -> str:
    """A search snippet without its HTML."""
    return html.unescape(re.sub(r"<[^<>]{0,200}>", "", snippet)).strip()


def sentences(text: str, count: int) -> str:
    """The first sentences. A full stop after a single capital is an initial, not an end."""
    parts = re.split(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[A-Z0-9“\"'(])", text.strip())
    return " ".join(parts[:count])


def link(title: str, language: str) -> str:
    return f"https://{language}.wikipedia.org/wiki/{quote(title.replace(' ', '_'), safe=':()_,')}"


def source(title: str, url: str) -> Source:
    return Source(f"{title} ({LICENSE})", url, datetime.now(UTC).isoformat(timespec="seconds"))
