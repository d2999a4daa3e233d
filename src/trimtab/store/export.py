"""A thread as a Markdown file a person can keep."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any


def as_markdown(thread: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> str:
    """Title, then each message with who said it; answers with their sources and what produced them."""
    parts = [f"# {thread['title']}", f"*{_date(thread['created_at'])}*"]
    for message in messages:
        if message["role"] == "user":
            parts += ["## You", message["text"]]
            continue
        parts += ["## Trimtab", message["text"] or "*(no answer)*"]
        if message["status"] != "done":
            parts.append(f"*This answer is {message['status']}.*")
        parts += [_source(citation) for citation in message["citations"]]
        lineage = message["lineage"] or {}
        if lineage.get("model"):
            seconds = (message["timing"] or {}).get("total", 0)
            parts.append(f"*{lineage['model']}, {_date(message['created_at'])}, {seconds:.1f} s*")
    return "\n\n".join(parts) + "\n"


def file_name(title: str) -> str:
    """A safe name for the download: letters, digits and dashes."""
    return (re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()[:60] or "chat") + ".md"


def _source(citation: Mapping[str, Any]) -> str:
    title = " › ".join((citation["title"], *citation["heading"]))
    span = citation.get("span")
    where = citation.get("url") or (f"characters {span['start']}–{span['end']}" if span else "")
    return f"[{citation['number']}]: {title}{f' ({where})' if where else ''}"


def _date(stamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(stamp))
