"""A file's bytes to text: what it is (by content first, then by name), and who may read it.

Text formats are decoded here; PDF, DOCX and HTML are read by a child process (`sandbox`). Anything else is refused by
name rather than indexed as noise.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import PurePath

from trimtab.domain.errors import InvalidInput, TooLarge

from .extracted import CODE, MARKDOWN, PROSE, TABLE, Extracted, clean
from .sandbox import Sandbox


@dataclass(frozen=True)
class Format:
    mime: str
    kind: str = PROSE
    parser: str = ""
    """Name in `parsers.PARSERS`; ``""`` when the bytes are the text."""


PDF = Format("application/pdf", parser="pdf")
DOCX = Format("application/vnd.openxmlformats-officedocument.wordprocessingml.document", parser="docx")
HTML = Format("text/html", parser="html")
TEXT = Format("text/plain")

_CODE = (
    "py pyi js mjs cjs ts tsx jsx java kt kts scala go rs c h cc cpp cxx hpp hh cs swift m mm rb php pl pm lua "
    "r jl dart ex exs erl hs ml mli fs clj lisp el scm vim sh bash zsh fish ps1 bat sql proto graphql tf cmake "
    "gradle groovy nim zig v vue svelte css scss less toml yaml yml ini cfg conf json jsonl xml make mk "
    "dockerfile nix asm s"
).split()
FORMATS: dict[str, Format] = {
    **{name: Format("text/markdown", MARKDOWN) for name in ("md", "markdown", "mdx", "mkd")},
    **dict.fromkeys(("txt", "text", "rst", "org", "adoc", "tex", "log", ""), TEXT),
    **dict.fromkeys(("html", "htm", "xhtml"), HTML),
    **{name: Format(f"text/x-{name}", CODE) for name in _CODE},
    "csv": Format("text/csv", TABLE),
    "tsv": Format("text/tab-separated-values", TABLE),
    "pdf": PDF,
    "docx": DOCX,
}
_CODE_NAMES = {"makefile": "make", "dockerfile": "dockerfile", "justfile": "make", "cmakelists.txt": "cmake"}


@dataclass(frozen=True)
class LoadLimits:
    file: int = 50 * 2**20
    """Bytes of a file."""
    characters: int = 20_000_000
    """Of its text."""


def sniff(name: str, data: bytes) -> Format | None:
    """What the file is, or None when it is nothing we read. Content wins over the name."""
    head = data[:2048]
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith(b"PK\x03\x04"):
        return DOCX if b"word/" in data[:65536] or b"word/" in data[-65536:] else None
    if looks_binary(head):
        return None
    suffix = PurePath(name).suffix[1:].lower()
    found = FORMATS.get(_CODE_NAMES.get(PurePath(name).name.lower(), suffix))
    if found is None or not suffix:
        lowered = head.lstrip().lower()
        return HTML if lowered.startswith((b"<!doctype html", b"<html")) else (found or TEXT)
    # A text file that only calls itself a PDF or DOCX.
    return TEXT if found.parser in ("pdf", "docx") else found


def looks_binary(head: bytes) -> bool:
    """Whether these first bytes are no text in any encoding we decode."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    controls = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    return b"\x00" in head or controls > len(head) * 0.05


def decode(data: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or the Western single-byte encoding that never fails."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


class Loader:
    """Turns files into text. Safe to call from several threads."""

    def __init__(self, limits: LoadLimits = LoadLimits(), sandbox: Sandbox | None = None) -> None:
        self.limits = limits
        self._sandbox = sandbox or Sandbox()

    def load(self, name: str, data: bytes) -> Extracted:
        """Text, kind and titles of a file.

        Raises:
            InvalidInput: nothing we can read, or damaged, or without text.
            TooLarge: the file, its text, or the memory to read it.
            DeadlineExceeded: its parser needed too long.
        """
        if len(data) > self.limits.file:
            raise TooLarge(
                f"{name} has {len(data) // 2**20} MB; at most {self.limits.file // 2**20} are read. Split it."
            )
        found = sniff(name, data)
        if found is None:
            raise InvalidInput(
                f"{name} is not a format that can be read "
                "(Markdown, text, HTML, PDF, DOCX, CSV, source code). Convert it first."
            )
        document = (
            self._parsed(found, name, data) if found.parser else Extracted(clean(decode(data)), found.kind, found.mime)
        )
        if len(document.text) > self.limits.characters:
            raise TooLarge(f"{name} holds more than {self.limits.characters:,} characters of text. Split it.")
        if not document.text.strip():
            raise InvalidInput(f"{name} holds no text.")
        return document

    def close(self) -> None:
        self._sandbox.close()

    def _parsed(self, found: Format, name: str, data: bytes) -> Extracted:
        raw = self._sandbox.parse(found.parser, data, name)
        try:
            document = Extracted.from_wire({**raw, "mime": found.mime})
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{name} could not be read: its parser answered nonsense ({error}).") from error
        # Replaces character by character; the parser has already made newlines one.
        return Extracted(clean(document.text), document.kind, document.mime, document.titles)
