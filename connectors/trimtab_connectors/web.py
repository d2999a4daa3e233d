"""Reading one page of the public web as clean text.

Only addresses on the public internet are opened (the transport sees to it), only pages and plain text are read, and
what they say is untrusted: it may inform an answer, it cannot ask for anything.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import trafilatura
from pydantic import Field

from trimtab.connect import Connector, Effect, Http, Limits, Reply, Result, Source, ToolError

connector = Connector(
    name="web",
    version="1.0.0",
    description="Reads a page of the public web as plain text.",
    hosts=("*",),
    plain_http=True,
    limits=Limits(max_bytes=2_000_000),
)

PAGES = frozenset({"text/html", "application/xhtml+xml"})
TEXTS = frozenset({"text/plain", "text/markdown", "text/csv", "application/json"})


@connector.tool(
    effect=Effect.READ,
    timeout=25.0,
    examples=(
        "Read https://example.org/article and summarise it",
        "What does the page https://example.com say?",
        "Open https://www.example.net/news and tell me the main points",
        "Summarise this link: https://blog.example.org/post",
        "What is on http://example.org?",
        "Fetch the web page www.example.com/about",
    ),
)
async def read(
    url: Annotated[str, Field(min_length=4, max_length=2000), "The page's address, e.g. https://example.org/article"],
    http: Http,
) -> Result:
    """Read a web page at a given address (URL) and return its text."""
    reply = await http.open(url if "://" in url else f"https://{url}")
    if reply.content_type in PAGES or (not reply.content_type and b"<html" in reply.content[:2000].lower()):
        # Parsing is computing; in a thread, other turns go on meanwhile.
        title, text = await asyncio.to_thread(extracted, reply)
    elif reply.content_type in TEXTS:
        title, text = "", reply.text
    else:
        kind = reply.content_type or "of an unknown kind"
        raise ToolError(f"{reply.url} is {kind}, not a page or a text, so it was not read.")
    if not text.strip():
        raise ToolError(f"{reply.url} has no readable text. It may be drawn by a script, which is not run here.")
    title = title or reply.url
    opening = " ".join(text.split())
    return Result(
        text=f"{title}\n\n{text}",
        data={"url": reply.url, "title": title, "characters": len(text)},
        sources=[Source(title, reply.url, datetime.now(UTC).isoformat(timespec="seconds"))],
        answer=f"{title}: {opening[:300]}{'…' if len(opening) > 300 else ''}",
    )


def extracted(reply: Reply) -> tuple[str, str]:
    """Title and main text of a page; ``("", "")`` when there is none to be found."""
    # At worst (2 MB of nothing but tiny paragraphs or table rows) this takes 4 to 7 seconds; usual pages well under 1.
    found = trafilatura.bare_extraction(reply.text, url=reply.url, with_metadata=True, include_comments=False)
    if found is None:
        return "", ""
    plain = found.as_dict() if hasattr(found, "as_dict") else found
    return str(plain.get("title") or ""), str(plain.get("text") or "")
