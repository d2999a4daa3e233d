"""Reading RSS and Atom, written by anybody: entities, depth, size and number are limited, and nothing is fetched.

A document that declares entities is refused (defusedxml), for what they expand to has no bound. The parser below keeps
no document deeper or larger than a feed can need. Texts come out without their HTML.
"""

import html
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

MAX_DEPTH = 64
MAX_ELEMENTS = 50_000
MAX_ENTRIES = 200
MAX_TEXT = 20_000
ATOM = "{http://www.w3.org/2005/Atom}"
DROPPED = re.compile(r"<(script|style|template)\b.{0,100000}?</\1\s*>", re.S | re.I)
INLINE = re.compile(r"</?(?:a|abbr|b|code|em|i|mark|small|span|strong|sub|sup|u)(?:\s[^<>]{0,2000})?>", re.I)
TAG = re.compile(r"<[^<>]{0,2000}>")


class NotAFeed(ValueError):
    """The document cannot be read as a feed; the message says why."""


@dataclass(frozen=True)
class Entry:
    """One item. Texts are plain; `at` is UTC, None when the feed does not say or says it illegibly."""

    title: str
    link: str = ""
    summary: str = ""
    at: datetime | None = None
    authors: tuple[str, ...] = ()
    id: str = ""
    element: Element | None = field(default=None, compare=False, repr=False)
    """Where it stands in the document, for extensions."""


@dataclass(frozen=True)
class Feed:
    title: str
    entries: tuple[Entry, ...]
    more: bool = False
    """There were more entries than are kept."""
    root: Element | None = field(default=None, compare=False, repr=False)


class _Bounded:
    """A tree builder that gives up where no feed would still be going on."""

    def __init__(self) -> None:
        self._tree = TreeBuilder()
        self._depth = self._count = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise NotAFeed(f"its elements are nested more than {MAX_DEPTH} deep")
        if self._count > MAX_ELEMENTS:
            raise NotAFeed(f"it has more than {MAX_ELEMENTS:,} elements")
        self._tree.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._tree.end(tag)

    def data(self, text: str) -> None:
        self._tree.data(text)

    def close(self) -> Element:
        return self._tree.close()


def parse(document: bytes, charset: str = "") -> Feed:
    """A feed in RSS 0.9 to 2.0 or Atom 1.0. `charset` is what the server says; it wins over the document's own.

    Raises:
        NotAFeed: it is none, or one that nobody should read.
    """
    root = tree(document, charset)
    if root.tag == f"{ATOM}feed":
        return _atom(root)
    if root.tag == "rss" or _local(root) == "RDF":
        return _rss(root)
    raise NotAFeed(f"it is XML, but <{_local(root)[:40]}> is neither RSS nor Atom")


def tree(document: bytes, charset: str = "") -> Element:
    """Raises `NotAFeed`."""
    parser = DefusedXMLParser(target=_Bounded(), encoding=charset or None, forbid_dtd=False, forbid_entities=True)
    try:
        parser.feed(document)
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise NotAFeed("it declares entities or refers to other documents, which feeds need not") from error
    except (ParseError, LookupError, ValueError, AssertionError) as error:
        if isinstance(error, NotAFeed):
            raise
        raise NotAFeed(f"it is not well-formed XML ({str(error)[:80]})") from error
    return root


def _rss(root: Element) -> Feed:
    channel = next((part for part in root if _local(part) == "channel"), None)
    if channel is None:
        raise NotAFeed("it has no channel")
    items = [part for part in (*channel, *root) if _local(part) == "item"]
    entries = []
    for item in items[:MAX_ENTRIES]:
        told = _texts(item)
        link = told.get("link") or (told.get("guid", "") if told.get("guid", "").startswith("http") else "")
        entries.append(
            Entry(
                title=plain(told.get("title", "")),
                link=link.strip(),
                summary=plain(told.get("description") or told.get("encoded", "")),
                at=when(told.get("pubDate") or told.get("date", "")),
                authors=tuple(filter(None, [plain(told.get("creator") or told.get("author", ""))])),
                id=told.get("guid", "") or link,
                element=item,
            )
        )
    return Feed(plain(_texts(channel).get("title", "")), tuple(entries), len(items) > MAX_ENTRIES, root)


def _atom(root: Element) -> Feed:
    items = root.findall(f"{ATOM}entry")
    entries = []
    for item in items[:MAX_ENTRIES]:
        told = _texts(item)
        names = [_content(name) for name in item.findall(f"{ATOM}author/{ATOM}name")]
        entries.append(
            Entry(
                title=plain(told.get("title", "")),
                link=_link(item),
                summary=plain(told.get("summary") or told.get("content", "")),
                at=when(told.get("published") or told.get("updated", "")),
                authors=tuple(plain(name) for name in names if name.strip())[:50],
                id=told.get("id", "").strip(),
                element=item,
            )
        )
    return Feed(plain(_texts(root).get("title", "")), tuple(entries), len(items) > MAX_ENTRIES, root)


def _link(item: Element) -> str:
    links = item.findall(f"{ATOM}link")
    best = next((link for link in links if link.get("rel", "alternate") == "alternate"), None)
    return (best.get("href") or "").strip() if best is not None else ""


def _texts(item: Element) -> dict[str, str]:
    """Each child's text by its name without a namespace; the first of a name counts, a plain name before others."""
    found: dict[str, str] = {}
    for child in sorted(item, key=lambda part: part.tag.startswith("{") and not part.tag.startswith(ATOM)):
        found.setdefault(_local(child), _content(child))
    return found


def _content(element: Element) -> str:
    return "".join(element.itertext())[:MAX_TEXT]


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def plain(text: str) -> str:
    """Without markup, and with white space made single."""
    text = without_tags(DROPPED.sub(" ", text))
    return " ".join(html.unescape(without_tags(DROPPED.sub(" ", html.unescape(text)))).split())


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def without_tags(text: str) -> str:
    return TAG.sub(" ", INLINE.sub("", text))


def when(text: str) -> datetime | None:
    """A date as RSS (RFC 822) or Atom (RFC 3339) writes it."""
    text = text.strip()[:60]
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
