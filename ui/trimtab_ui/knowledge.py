"""The Knowledge page: add documents, see what became of each, try a search, delete."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import dialogs, look, session
from .answer import passage_row
from .client import UiError
from .markup import Safe, badge, draw, join, note, notice, table, tag
from .untrusted import plain

PAGE = 50
TYPES = ["md", "markdown", "txt", "rst", "html", "htm", "pdf", "docx", "csv", "tsv", "json", "yaml", "toml", "py", "js"]
TYPES += ["ts", "java", "go", "rs", "c", "h", "cpp", "hpp", "cs", "rb", "sh", "sql", "css", "xml", "ini", "cfg", "log"]


def page() -> None:
    draw(
        tag(
            "div",
            tag("h2", "Knowledge"),
            tag("p", "Documents that answers may quote. They stay on the server."),
            cls="tt-hero",
        )
    )
    session.draw_told()
    _upload()
    documents = session.client().documents()
    _listed(documents)
    if documents:
        _search()
    dialogs.show()


# --- adding


def _upload() -> None:
    with st.form("upload", clear_on_submit=True):
        files = st.file_uploader(
            "Files: Markdown, text, HTML, PDF, Word, CSV, source code",
            type=TYPES,
            accept_multiple_files=True,
            key="upload-files",
        )
        sent = st.form_submit_button("Add to knowledge", type="primary", key="upload-send", icon=":material/upload:")
    if sent and files:
        st.session_state["uploaded"] = _send(files)
    for result in st.session_state.get("uploaded", ()):
        _outcome(result)


def _send(files: Sequence[Any]) -> list[dict[str, Any]]:
    """One request a file, so that progress is real and a file too large costs only itself."""
    results: list[dict[str, Any]] = []
    bar = st.progress(0.0, text="Reading …")
    for number, file in enumerate(files):
        bar.progress(number / len(files), text=f"Reading file {number + 1} of {len(files)} …")
        try:
            results += session.client().upload([(file.name, file.getvalue(), file.type or "")])
        except UiError as error:
            results.append({"name": file.name, "status": "failed", "error": f"{error.message} {error.advice}".strip()})
    bar.empty()
    return results


def _outcome(result: Mapping[str, Any]) -> None:
    if error := result.get("error"):
        notice(tag("strong", result.get("name", "")), error if isinstance(error, str) else str(error), "bad")
    else:
        words = OUTCOMES.get(str(result.get("status")), str(result.get("status")))
        draw(tag("div", tag("strong", result.get("name", "")), " ", badge(words, "ok")))


OUTCOMES = {
    "added": "added",
    "new": "added",
    "ready": "added",
    "replaced": "replaced by the new version",
    "updated": "replaced by the new version",
    "unchanged": "already there, unchanged",
    "duplicate": "already there",
}


# --- what there is


def _listed(documents: Sequence[Mapping[str, Any]]) -> None:
    if not documents:
        note("No documents yet. Add some above, or run `trimtab ingest FOLDER` in a terminal.")
        return
    shown = list(documents)
    st.subheader(f"{len(documents)} document{'s' * (len(documents) != 1)}", anchor=False)
    if len(shown) > 10:
        wanted = st.text_input("Find a document by name", key="find-document").strip().casefold()
        shown = [d for d in shown if wanted in str(d.get("name", "")).casefold()]
    pages = max(1, -(-len(shown) // PAGE))
    number = 1
    if pages > 1:
        number = int(st.number_input(f"Page (of {pages})", 1, pages, key="documents-page"))
    with st.container(key="documents"):
        for document in shown[(number - 1) * PAGE : number * PAGE]:
            _row(document)


def _row(document: Mapping[str, Any]) -> None:
    key = str(document["id"])
    with (
        st.container(border=True, key=f"document-{key}"),
        st.container(horizontal=True, vertical_alignment="center", wrap=False),
    ):
        facts = [
            look.state_badge(str(document.get("status", ""))),
            f"{document.get('chunks', 0)} chunks · {look.size(int(document.get('size') or 0))} · ",
            f"{look.ago(float(document.get('updated_at') or 0))}",
        ]
        error = [tag("div", document["error"])] if document.get("error") else []
        draw(tag("div", tag("div", document["name"], cls="tt-where"), tag("div", *facts, *error, cls="tt-note")))
        st.button(
            "Delete",
            key=f"delete-document-{key}",
            icon=":material/delete:",
            type="tertiary",
            on_click=session.open_dialog,
            args=("delete-document",),
            kwargs={"document_id": key, "title": str(document["name"])},
        )


# --- trying a search


def _search() -> None:
    st.subheader("Try a search", anchor=False)
    with st.form("search", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        question = st.text_input("Question", key="search-question", placeholder="What would you ask?", max_chars=2000)
        st.form_submit_button("Search", key="search-send", icon=":material/search:")
    if not question.strip():
        return
    found = session.client().search(question.strip())
    passages, floor = found["passages"], float(found.get("floor") or 0)
    if not passages:
        note("Nothing found.")
        return
    above = sum(float(p.get("score", 0)) >= floor for p in passages)
    note(f"{above} of {len(passages)} are above the floor ({floor:.2f}) and could reach the model.")
    draw(table(("Where", "Likeness", "By meaning", "By words"), [passage_row(p) for p in passages]))
    with st.container(key="search-results"):
        for number, passage in enumerate(passages, 1):
            _passage(number, passage, floor, question)


def _passage(number: int, passage: Mapping[str, Any], floor: float, question: str) -> None:
    place, score, _, _ = passage_row(passage)
    enough = float(passage.get("score", 0)) >= floor
    span = passage.get("span") or {}
    with st.expander(f"{number}. {plain(place, 70)} · {score}", expanded=number == 1, key=f"passage-{number}"):
        marks = badge("above the floor", "ok") if enough else badge("below the floor", "warn")
        fused = (
            f"fused {float(passage.get('fused') or 0):.4f} · characters {span.get('start', '?')}–{span.get('end', '?')}"
        )
        draw(tag("div", marks, fused, cls="tt-note"))
        draw(tag("div", matching(str(passage.get("text", "")), question), cls="tt-passage"))


def matching(text: str, question: str) -> Safe:
    """`text` with the question's words (of three letters or more) marked."""
    words = {word for word in re.findall(r"\w+", question.casefold()) if len(word) > 2}
    parts = re.split(r"(\w+)", text)
    return join([tag("mark", part) if part.casefold() in words else part for part in parts])
