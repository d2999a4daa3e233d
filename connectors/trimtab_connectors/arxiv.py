"""arXiv: finding papers and reading their abstracts, by its Atom API. https://info.arxiv.org/help/api/user-manual.html

Its terms ask for one request every three seconds; the abstracts are free, the papers have licences of their own. Thank
you to arXiv for use of its open access interoperability.
"""

import asyncio
import re
from typing import Annotated, Literal

from pydantic import Field

from trimtab.connect import Cache, Connector, Effect, Http, Rate, Reply, Result, Source, ToolError
from trimtab_connectors.xml_feed import Entry, Feed, NotAFeed, parse, shortened

connector = Connector(
    name="arxiv",
    version="1.0.0",
    description="Finds scientific papers on arXiv and reads their abstracts.",
    hosts=("export.arxiv.org",),
    rate=Rate(calls=1, per=3, patience=7),
    cache=Cache(lifetime=86400, stale_if_error=7 * 86400),
)

ID = re.compile(r"^(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})(v\d{1,3})?$")
IN_LINK = re.compile(r"arxiv\.org/(?:abs|pdf|html)/([^\s?#]+?)(?:\.pdf)?$")
TOTAL = "{http://a9.com/-/spec/opensearch/1.1/}totalResults"
EXTRA = "{http://arxiv.org/schemas/atom}"


@connector.tool(
    effect=Effect.READ,
    timeout=30.0,
    examples=(
        "Find papers on arXiv about graph neural networks",
        "Search arXiv for quantum error correction",
        "What are the newest arXiv papers on speculative decoding?",
        "Which papers did Yoshua Bengio publish on arXiv?",
        "Look for preprints on protein folding",
        "Are there recent preprints about retrieval augmented generation?",
        "Find scientific papers about dark matter detection",
    ),
)
async def search(
    query: Annotated[str, Field(min_length=2, max_length=200), "What to search for, e.g. graph neural networks"],
    http: Http,
    author: Annotated[str, Field(max_length=100), "Only papers of this author"] = "",
    limit: Annotated[int, Field(ge=1, le=25), "How many papers"] = 5,
    order: Annotated[Literal["relevance", "newest"], "Which come first"] = "relevance",
) -> Result:
    """Search arXiv for scientific papers (preprints) on a subject or by an author, with their abstracts."""
    parts = [f"all:{word}" for word in words(query)] + [f"au:{word}" for word in words(author)]
    if not parts:
        raise ToolError(f"{query!r} has no word to search for. Use letters or numbers.")
    params = {
        "search_query": " AND ".join(parts),
        "start": 0,
        "max_results": limit,
        "sortBy": "submittedDate" if order == "newest" else "relevance",
        "sortOrder": "descending",
    }
    feed = await read(await http.get("/api/query", params=params))
    total = (feed.root.findtext(TOTAL) or "").strip() if feed.root is not None else ""
    if not feed.entries:
        said = f"arXiv has no paper that fits {query!r}."
        return Result(text=said, answer=said)
    head = f"{total} papers fit; the first {len(feed.entries)}:" if total.isdigit() else "Papers:"
    return Result(
        text="\n\n".join([head, *(described(entry, 600) for entry in feed.entries)]),
        data=[row(entry) for entry in feed.entries],
        sources=[Source(f"{entry.title} (arXiv)", page(entry)) for entry in feed.entries],
        answer="arXiv has: " + "; ".join(entry.title for entry in feed.entries[:5]) + ".",
    )


@connector.tool(
    effect=Effect.READ,
    timeout=30.0,
    examples=(
        "What is arXiv paper 1706.03762 about?",
        "Read the abstract of arXiv:2203.02155",
        "Who wrote arXiv 1412.6980?",
        "Summarise https://arxiv.org/abs/2005.14165",
        "When was arXiv paper 2106.09685 published?",
        "Give me the abstract of hep-th/9901001",
    ),
)
async def paper(
    id: Annotated[str, Field(min_length=5, max_length=100), "The paper's arXiv number or address: 1706.03762"],
    http: Http,
) -> Result:
    """Get one arXiv paper by its number or address: title, authors, date and abstract."""
    number = numbered(id)
    feed = await read(await http.get("/api/query", params={"id_list": number, "max_results": 1}, ok=(400, 404)))
    if not feed.entries or feed.entries[0].title == "Error":
        raise ToolError(f"arXiv has no paper {number}. Check the number, or search by words.")
    entry = feed.entries[0]
    by = f"{', '.join(entry.authors[:3])}{' and others' if len(entry.authors) > 3 else ''}"
    return Result(
        text=described(entry, 5000),
        data=row(entry),
        sources=[Source(f"{entry.title} (arXiv)", page(entry))],
        answer=f"“{entry.title}” by {by}" + (f", {entry.at:%Y-%m-%d}" if entry.at else "") + f": {opening(entry)}",
    )


async def read(reply: Reply) -> Feed:
    """Raises `ToolError` for what is no feed, or no paper in it has a title and a number."""
    try:
        feed = await asyncio.to_thread(parse, reply.content)
    except NotAFeed as error:
        raise ToolError(f"arXiv answered with something that is not its feed: {error}. Try again later.") from None
    if any(not entry.title or not entry.id for entry in feed.entries):
        raise ToolError("arXiv answered in a shape that is not understood. The service may have changed.")
    return feed


def numbered(text: str) -> str:
    """Raises `ToolError`: there is no arXiv number in it."""
    found = IN_LINK.search(text.strip())
    number = found[1] if found else re.sub(r"^arxiv:\s*", "", text.strip(), flags=re.I)
    if not ID.match(number):
        raise ToolError(f"{text[:60]!r} is not an arXiv number. It looks like 1706.03762 or hep-th/9901001.")
    return number


def words(text: str) -> list[str]:
    """Without the signs that arXiv's query language gives a meaning."""
    return [word for word in re.findall(r"\w[\w'-]*", text) if word not in ("AND", "OR", "ANDNOT")][:15]


def page(entry: Entry) -> str:
    number = entry.id.rpartition("/abs/")[2]
    return f"https://arxiv.org/abs/{number}" if ID.match(number) else "https://arxiv.org/"


def described(entry: Entry, most: int) -> str:
    by = ", ".join(entry.authors[:8]) + (" and others" if len(entry.authors) > 8 else "")
    at = f", {entry.at:%Y-%m-%d}" if entry.at else ""
    return f"{entry.title}\n{by}{at}, {page(entry)}\n{shortened(entry.summary, most)}"


def row(entry: Entry) -> dict[str, object]:
    place = (entry.element.findtext(f"{EXTRA}journal_ref") or "").strip() if entry.element is not None else ""
    return {
        "title": entry.title,
        "authors": entry.authors,
        "published": entry.at,
        "url": page(entry),
        "journal": place[:300],
        "abstract": entry.summary[:4000],
    }


def opening(entry: Entry) -> str:
    """The abstract's first two sentences."""
    return " ".join(re.split(r"(?<=[.!?])\s+(?=[A-Z])", entry.summary)[:2])
