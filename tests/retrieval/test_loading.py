"""Files from strangers: what they are, what they say, and what they may not do."""

from __future__ import annotations

import io
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.domain.errors import DeadlineExceeded, InvalidInput, TooLarge, TrimtabError
from trimtab.retrieval.extracted import CODE, MARKDOWN, TABLE
from trimtab.retrieval.loading import Loader, LoadLimits, sniff
from trimtab.retrieval.sandbox import Sandbox, SandboxLimits


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    opened = Loader()
    yield opened
    opened.close()


def pdf(*pages: str) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out)
    for page in pages:
        canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def docx() -> bytes:
    import docx as library

    document = library.Document()
    document.add_heading("River", 1)
    document.add_paragraph("The Vell is long.")
    document.add_heading("Source", 2)
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "height", "900 m"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


def test_a_pdf_is_text_with_its_pages_as_titles(loader: Loader) -> None:
    found = loader.load("river.pdf", pdf("The Vell is long.", "It ends in the sea."))
    assert "The Vell is long." in found.text
    assert [t.text for t in found.titles] == ["Page 1", "Page 2"]
    assert found.text[found.titles[1].start :].startswith("It ends")
    assert found.mime == "application/pdf"


def test_a_docx_keeps_headings_and_tables(loader: Loader) -> None:
    found = loader.load("river.docx", docx())
    assert [(t.level, t.text) for t in found.titles] == [(1, "River"), (2, "Source")]
    assert "| height | 900 m |" in found.text


def test_html_is_what_a_reader_sees(loader: Loader) -> None:
    page = (
        "<html><head><title>T</title><style>x{}</style></head><body><nav>menu</nav><h1>The <b>Vell</b></h1>"
        "<p>Long\n  and   wide.</p><ul><li>one<li>two</ul><pre>a\n  b</pre><script>alert(1)</script>"
        "<table><tr><td>h</td><td>9</td></tr></table>tail &eacute;</body></html>"
    )
    found = loader.load("a.html", page.encode())
    assert [t.text for t in found.titles] == ["The Vell"]
    for expected in ("Long and wide.", "- one", "- two", "a\n  b", "| h| 9", "tail é"):
        assert expected in found.text
    for hidden in ("menu", "alert", "x{}"):
        assert hidden not in found.text


@pytest.mark.parametrize(
    ("name", "data", "kind", "text"),
    [
        ("a.md", b"# T\r\n\r\nx", MARKDOWN, "# T\n\nx"),
        ("a.csv", b"a,b\n1,2", TABLE, "a,b\n1,2"),
        ("a.py", b"x = 1", CODE, "x = 1"),
        ("Makefile", b"all:", CODE, "all:"),
        ("a.txt", "caf\xe9".encode("cp1252"), "prose", "café"),
        ("a.txt", "café".encode("utf-16"), "prose", "café"),
        ("a.txt", "\ufeffcafé".encode(), "prose", "café"),
    ],
)
def test_text_is_decoded_and_its_kind_known(loader: Loader, name: str, data: bytes, kind: str, text: str) -> None:
    found = loader.load(name, data)
    assert (found.kind, found.text) == (kind, text)


@pytest.mark.parametrize(
    ("name", "data", "mime"),
    [
        ("a.txt", b"%PDF-1.7 ...", "application/pdf"),
        ("a.pdf", b"plain words", "text/plain"),
        ("page", b"<!DOCTYPE html><p>x", "text/html"),
        ("a.txt", b"\x7fELF\x02\x01\x01\x00\x00\x00", None),
        ("a.docx", zipped(readme=b"x"), None),
    ],
)
def test_content_wins_over_the_name(name: str, data: bytes, mime: str | None) -> None:
    found = sniff(name, data)
    assert (found and found.mime) == mime


BOMBS = {
    "zip-ratio.docx": lambda: zipped(word__document=b"0" * 60_000_000),
    "many-entries.docx": lambda: zipped(**{f"word__{i}": b"x" for i in range(6000)}),
    "laughs.docx": lambda: zipped(
        **{
            "[Content_Types].xml": b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
            + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
            + b"]><x>&j;</x>",
            "word__document.xml": b"<x/>",
        }
    ),
    "truncated.docx": lambda: docx()[:2000],
    "cut.pdf": lambda: pdf("x")[:300],
    "loop.pdf": lambda: (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 1 0 R>>endobj\ntrailer<</Root 1 0 R/Prev 0>>\nstartxref\n9\n%%EOF"
    ),
    "images.pdf": lambda: pdf(""),
    "flate.pdf": lambda: _flate_bomb(),
    "blank.html": lambda: b"<html><body>  </body></html>",
    "blank.txt": lambda: b" \n ",
    "binary.bin": lambda: bytes(range(256)) * 10,
}


def _flate_bomb() -> bytes:
    """Packed twice, as PDF filters allow: 1.2 GB from a few kilobytes."""
    stage = zlib.compressobj(9)
    inner = b"".join(stage.compress(b"\x20" * 1_000_000) for _ in range(1200)) + stage.flush()
    packed = zlib.compress(inner, 9)
    body = b"%PDF-1.4\n"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/MediaBox[0 0 9 9]>>",
        b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n" % len(packed) + packed + b"\nendstream",
    ]
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj" % number + content + b"endobj\n"
    start = len(body)
    body += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets)
    return body + b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_is_refused_by_name_within_limits_and_the_next_file_is_read(loader: Loader, name: str) -> None:
    data = BOMBS[name]()
    begin = time.monotonic()
    with pytest.raises(TrimtabError, match=name.replace(".", r"\.")):
        loader.load(name, data)
    assert time.monotonic() - begin < 40
    assert "long" in loader.load("ok.html", b"<p>The Vell is long.</p>").text


def test_deeply_nested_html_and_a_million_columns_end_within_limits(loader: Loader) -> None:
    deep = b"<div>" * 100_000 + b"deep words" + b"</div>" * 100_000
    try:
        found = loader.load("deep.html", deep)
    except TrimtabError:
        pass
    else:
        assert len(found.text) < 1_000_000
    wide = loader.load("wide.csv", b",".join(b"c%d" % i for i in range(1_000_000)))
    assert len(wide.text) == 7_888_889


def test_xml_entities_reach_neither_files_nor_the_network(loader: Loader, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP-SECRET-CONTENT")
    page = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><html><body><p>seen &x; end</p></body></html>'
    assert "TOP-SECRET" not in loader.load("x.html", page.encode()).text
    with zipfile.ZipFile(io.BytesIO(docx())) as good:
        parts = {name: good.read(name) for name in good.namelist()}
    body = parts["word/document.xml"].replace(b"The Vell is long.", b"seen &x; end")
    entity = f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{secret}">]>'.encode()
    parts["word/document.xml"] = body.replace(b"?>", b"?>" + entity, 1)
    try:
        text = loader.load("x.docx", zipped(**parts)).text
    except InvalidInput:
        text = ""
    assert "TOP-SECRET" not in text


def test_sizes_are_limited() -> None:
    small = Loader(LoadLimits(file=100, characters=10))
    with pytest.raises(TooLarge, match=r"big\.txt"):
        small.load("big.txt", b"x" * 101)
    with pytest.raises(TooLarge, match="more than 10 characters"):
        small.load("long.txt", b"x" * 50)
    small.close()


def test_a_parser_that_hangs_or_burns_is_ended() -> None:
    # A page whose text takes long, with limits so small that it is over them.
    heavy = b"<p>" + b"<b>x</b>" * 1_500_000
    for limits, expected in (
        (SandboxLimits(cpu=0, wall=60), DeadlineExceeded),
        (SandboxLimits(wall=0.05), DeadlineExceeded),
        (SandboxLimits(memory=150 * 2**20), (TooLarge, InvalidInput)),
    ):
        sandbox = Sandbox(limits)
        with pytest.raises(expected, match=r"heavy\.html"):
            sandbox.parse("html", heavy, "heavy.html")
        sandbox.close()


def test_one_child_reads_many_files(loader: Loader) -> None:
    loader.load("a.html", b"<p>one</p>")
    child = loader._sandbox._child
    for i in range(50):
        loader.load(f"{i}.html", b"<p>x</p>")
    assert loader._sandbox._child is child


def test_the_parser_process_sees_none_of_our_environment(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_TEST_SECRET", "hush")
    sandbox = Sandbox()
    sandbox.parse("html", b"<p>x</p>", "x.html")
    assert sandbox._child is not None
    environment = Path(f"/proc/{sandbox._child.pid}/environ").read_bytes()
    assert b"hush" not in environment
    sandbox.close()
