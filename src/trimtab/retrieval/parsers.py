"""Parsers of risky formats: PDF, DOCX, HTML. Run by `sandbox` in a process of its own, never in the server.

As a program this reads jobs from standard input and answers on standard output, one frame each:
8 bytes length, then JSON (a job's JSON is followed by the file's bytes, framed the same way). Limits of memory, files
and processor time are set before anything is parsed; the parent holds the clock.
"""

from __future__ import annotations

import io
import json
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_CHARACTERS = 20_000_000
MAX_PAGES = 5_000
MAX_UNZIPPED = 200 * 2**20
MAX_RATIO = 100


class Refused(Exception):
    """The file will not be read. The message is for the person who gave it to us."""


def parse_pdf(data: bytes) -> dict[str, Any]:
    """Text of each page under a title "Page n"."""
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Refused("The PDF is protected by a password. Save a copy without one.")
    if len(reader.pages) > MAX_PAGES:
        raise Refused(f"The PDF has more than {MAX_PAGES} pages. Split it.")
    out = _Writer()
    for number, page in enumerate(reader.pages, start=1):
        text = (page.extract_text() or "").strip()
        if text:
            out.title(1, f"Page {number}")
            # A word broken over a line's end is one word.
            out.write(re.sub(r"(\w)-\n(?=[a-z])", r"\1", text) + "\n\n")
    if not out.size:
        raise Refused("The PDF holds no text, only images. Run it through OCR first.")
    return out.result("prose")


def parse_docx(data: bytes) -> dict[str, Any]:
    """Paragraphs, headings and tables (one line a row, cells between bars) in order."""
    check_zip(data)
    import docx
    from docx.table import Table

    out = _Writer()
    for block in docx.Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                out.write("| " + " | ".join(" ".join(cell.text.split()) for cell in row.cells) + " |\n")
            out.write("\n")
            continue
        text = block.text.strip()
        style = (block.style.name or "") if block.style is not None else ""
        level = re.match(r"Heading (\d)$", style)
        if text and (level or style == "Title"):
            out.title(int(level.group(1)) if level else 1, " ".join(text.split()))
        if text:
            out.write(
                ("- " if style.startswith("List") else "") + text + "\n" + ("" if style.startswith("List") else "\n")
            )
    return out.result("prose")


def check_zip(data: bytes) -> None:
    """Refuse an archive that unpacks to far more than it is.

    Raises:
        Refused: too large, packed too tightly, or not an archive.
    """
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused(f"The file is not a sound DOCX archive ({error}).") from error
    total = sum(e.file_size for e in entries)
    if len(entries) > 5_000 or total > MAX_UNZIPPED:
        raise Refused(
            f"The archive would unpack to {total // 2**20} MB in {len(entries)} files; that is not a document."
        )
    if any(e.file_size > 2**20 and e.file_size > MAX_RATIO * max(1, e.compress_size) for e in entries):
        raise Refused(f"Part of the archive is packed more than {MAX_RATIO}:1, as decompression bombs are.")


_SKIP = frozenset(
    "script style noscript template svg math head iframe object embed form button select nav footer aside".split()
)
_BLOCK = frozenset(
    "p div section article main header h1 h2 h3 h4 h5 h6 ul ol li table tr pre blockquote dl dt dd br hr figure "
    "figcaption address details summary tbody thead caption".split()
)


def parse_html(data: bytes) -> dict[str, Any]:
    """What a reader sees: headings, paragraphs, list items, table rows, code. Scripts and navigation are left out."""
    from lxml import etree

    parser = etree.HTMLParser(
        no_network=True, remove_comments=True, remove_pis=True, huge_tree=False, encoding=_charset(data)
    )
    root = etree.fromstring(data, parser) if data.strip() else None
    if root is None:
        return _Writer().result("prose")
    body = root.find(".//main") if root.find(".//main") is not None else root.find("body")
    out = _HtmlWriter()
    title = root.findtext(".//title")
    out.walk(etree.iterwalk(body if body is not None else root, events=("start", "end")))
    return out.result("prose", (title or "").strip())


def _charset(data: bytes) -> str | None:
    if data[:3] == b"\xef\xbb\xbf":
        return "utf-8"
    if b"charset" in data[:2048].lower():
        return None  # the parser reads the declaration
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.titles: list[tuple[int, int, str]] = []
        self.size = 0

    def write(self, text: str) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.parts.append(text)
        self.size += len(text)
        if self.size > MAX_CHARACTERS:
            raise Refused(f"The file holds more than {MAX_CHARACTERS:,} characters of text. Split it.")

    def title(self, level: int, text: str) -> None:
        if len(self.titles) < 100_000:
            self.titles.append((self.size, level, text[:300]))

    def result(self, kind: str, title: str = "") -> dict[str, Any]:
        return {"text": "".join(self.parts), "kind": kind, "titles": self.titles, "title": title}


class _HtmlWriter(_Writer):
    def __init__(self) -> None:
        super().__init__()
        self._skip = self._pre = 0
        self._heading: tuple[int, int, int] | None = None  # level, index into parts, position
        self._at_start = True

    def walk(self, events: Any) -> None:
        for event, node in events:
            tag = node.tag if isinstance(node.tag, str) else ""
            if event == "start":
                self._open(tag)
                self._text(node.text)
            else:
                self._close(tag)
                self._text(node.tail)

    def _open(self, tag: str) -> None:
        self._skip += tag in _SKIP
        if self._skip:
            return
        if tag in _BLOCK:
            self._break(2 if tag in ("p", "pre", "table", "ul", "ol", "blockquote") or re.match(r"h[1-6]$", tag) else 1)
        self._pre += tag == "pre"
        if tag == "li":
            self.write("- ")
        elif tag in ("td", "th"):
            self.write("| ")
        elif re.match(r"h[1-6]$", tag):
            self._heading = (int(tag[1]), len(self.parts), self.size)

    def _close(self, tag: str) -> None:
        if tag in _SKIP:
            self._skip -= 1
            return
        if self._skip:
            return
        if re.match(r"h[1-6]$", tag) and self._heading:
            level, index, position = self._heading
            text = " ".join("".join(self.parts[index:]).split())
            if text:
                self.titles.append((position, level, text[:300]))
            self._heading = None
        self._pre -= tag == "pre"
        if tag in _BLOCK:
            self._break(2 if tag in ("p", "pre", "table", "ul", "ol", "blockquote") or re.match(r"h[1-6]$", tag) else 1)

    def _text(self, text: str | None) -> None:
        if not text or self._skip:
            return
        if not self._pre:
            text = re.sub(r"\s+", " ", text)
            if self._at_start:
                text = text.lstrip()
        if text:
            self.write(text)
            self._at_start = text.endswith((" ", "\n"))

    def _break(self, lines: int) -> None:
        if self.size:
            tail = "".join(self.parts[-3:])
            missing = lines - (len(tail) - len(tail.rstrip("\n")))
            if missing > 0:
                self.write("\n" * missing)
        self._at_start = True


PARSERS: dict[str, Callable[[bytes], dict[str, Any]]] = {"pdf": parse_pdf, "docx": parse_docx, "html": parse_html}


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    (length,) = struct.unpack("<Q", head)
    return stream.read(length)


def answer(job: dict[str, Any], data: bytes) -> dict[str, Any]:
    """The result of one job, or `{"error": ...}`."""
    try:
        return PARSERS[job["parser"]](data)
    except Refused as error:
        return {"error": str(error), "kind": "refused"}
    except (MemoryError, RecursionError):
        return {"error": "Reading it needs more memory than a parser is given.", "kind": "limits", "restart": True}
    except Exception as error:  # every way in which a parser can fail on a hostile file
        return {
            "error": f"It is damaged or not what its name says ({type(error).__name__}: {str(error)[:200]}).",
            "kind": "damaged",
        }


def main() -> None:
    """Serve jobs until standard input ends. Arguments: bytes of memory, seconds of processor time a job."""
    import resource

    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a parser that prints must not break the protocol
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    while (header := _read(jobs)) is not None:
        data = _read(jobs)
        if data is None:
            return
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = usage.ru_utime + usage.ru_stime
        # Only the soft limit moves: reaching it kills this process, and the parent starts another.
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds + 1, resource.RLIM_INFINITY))
        try:
            result = json.dumps(answer(json.loads(header), data)).encode()
        except MemoryError:
            result = (
                b'{"error": "Reading it needs more memory than a parser is given.", "kind": "limits", "restart": true}'
            )
        answers.write(struct.pack("<Q", len(result)) + result)
        answers.flush()


if __name__ == "__main__":
    main()
