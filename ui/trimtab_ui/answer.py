"""Drawing one answer: what it did, what it says, what it rests on, and what a person can say about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import look, opinion, session
from .cards import draw_calls
from .client import UiError
from .live import calls, last
from .markup import Safe, badge, draw, escape, join, note, notice, table, tag
from .untrusted import host_of, plain, render_untrusted

AROUND = 280
"""Characters shown before and after a cited sentence."""

AVATARS = {"user": ":material/person:", "assistant": ":material/sailing:"}


def draw_question(message: Mapping[str, Any]) -> None:
    with st.chat_message("user", avatar=AVATARS["user"]), st.container(key=f"question-{message['id']}"):
        render_untrusted(str(message.get("text", "")))


@st.fragment
def draw_answer(message: Mapping[str, Any], thread_id: str, busy: bool) -> None:
    """One finished answer. A fragment: opening its sources or rating it redraws only this one."""
    key = str(message["id"])
    with st.chat_message("assistant", avatar=AVATARS["assistant"]), st.container(key=f"answer-{key}"):
        session.draw_told()
        steps = message.get("steps") or []
        draw_calls(calls(steps), key)
        cites = cite_titles(message)
        if message.get("text"):
            render_untrusted(str(message["text"]), cites)
        _ended(message, steps)
        _doubts(message, steps)
        _unsourced(message, steps)
        _edited(message)
        _sources(message)
        _how(message, steps)
        opinion.draw_actions(message, thread_id, busy)


def cite_titles(message: Mapping[str, Any]) -> dict[int, str]:
    return {int(c["number"]): where(c) for c in message.get("citations") or ()}


def where(citation: Mapping[str, Any]) -> str:
    """A citation's place in words: file › heading › heading, or the title of what a tool read."""
    return " › ".join(str(part) for part in (citation.get("title", ""), *(citation.get("heading") or ())) if part)


def _ended(message: Mapping[str, Any], steps: list[dict[str, Any]]) -> None:
    """Why there is no more of it, when it did not end by itself."""
    status = message.get("status")
    had = "What it had is kept above." if message.get("text") else "It had not written anything yet."
    if status == "cancelled":
        notice("You stopped this answer.", had)
    elif status == "interrupted":
        notice("The server stopped in the middle of this answer.", f"{had} Use “Try again” for a new one.")
    elif status == "failed":
        failure = last(steps, "turn.failed") or {}
        notice(failure.get("message") or "This answer failed.", f"{had} Use “Try again” for a new one.", "bad")


def _doubts(message: Mapping[str, Any], steps: list[dict[str, Any]]) -> None:
    if found := message.get("unsupported"):
        words = [badge(word, "warn") for word in found]
        draw(tag("div", "Not found in the sources: ", *words, cls="tt-note"))
    if replaced := last(steps, "text.replaced"):
        note(replaced.get("reason", ""))


def _unsourced(message: Mapping[str, Any], steps: list[dict[str, Any]]) -> None:
    """Said on an answer that rests on nothing but the model: no passage, no tool."""
    rests = message.get("citations") or calls(steps) or message.get("status") != "done"
    asked = last(steps, "turn.finished") or {}
    if message.get("text") and not rests and asked.get("usage", {}).get("completion_tokens"):
        note("The model's own words, not checked against any source.")


def _edited(message: Mapping[str, Any]) -> None:
    edit = next((f for f in message.get("feedback") or () if f.get("kind") == "edit"), None)
    if edit:
        with st.expander("Your edited version", icon=":material/edit_note:", key=f"edited-{message['id']}"):
            render_untrusted(str(edit.get("text", "")))


# --- sources


def _sources(message: Mapping[str, Any]) -> None:
    cited = message.get("citations") or []
    if not cited:
        return
    names = list(dict.fromkeys(plain(c.get("title", ""), 40) for c in cited))
    label = f"Sources ({len(cited)}): {', '.join(names[:3])}" + (" …" if len(names) > 3 else "")
    panel = st.expander(label, icon=":material/bookmark:", key=f"sources-{message['id']}", on_change="rerun")
    if panel.open:
        with panel:
            for citation in cited:
                _citation(citation)


def _citation(citation: Mapping[str, Any]) -> None:
    number = tag("span", citation["number"], cls="tt-cite")
    head: list[object] = [number, " ", where(citation)]
    if address := str(citation.get("url") or ""):
        head.append(tag("span", f" ({host_of(address)})", cls="tt-host"))
    draw(tag("div", *head, cls="tt-where"))
    if address:
        draw(tag("div", address, cls="tt-note tt-mono"))
    if citation.get("quote"):
        draw(tag("div", _quoted(citation), cls="tt-passage"))


def _quoted(citation: Mapping[str, Any]) -> Safe:
    """The cited sentence where it stands; only the sentence, when its surroundings cannot be read any more."""
    span, document = citation.get("span"), citation.get("document_id")
    quote = tag("mark", citation.get("quote", ""))
    if not (span and document):
        return quote
    try:
        return around(str(document), int(span["start"]), int(span["end"]))
    except UiError as error:
        return join([quote, tag("div", error.message, cls="tt-note")])


def around(document_id: str, start: int, end: int) -> Safe:
    """The text around [start, end) of a document, with that span marked."""
    found = session.client().document_text(document_id, max(0, start - AROUND), end + AROUND)
    return marked(str(found["text"]), start - int(found["start"]), end - int(found["start"]), found)


def marked(text: str, start: int, end: int, found: Mapping[str, Any]) -> Safe:
    """`text` with [start, end) marked, and an ellipsis where the document goes on."""
    start, end = max(0, start), max(0, end)
    before = "… " if int(found.get("start", 0)) > 0 else ""
    after = " …" if int(found.get("end", 0)) < int(found.get("length", 0)) else ""
    return join([before, escape(text[:start]), tag("mark", text[start:end]), escape(text[end:]), after])


# --- how it was answered


def _how(message: Mapping[str, Any], steps: list[dict[str, Any]]) -> None:
    timing, lineage = message.get("timing") or {}, message.get("lineage") or {}
    version = str(lineage.get("version") or "")
    model = session.version_name(version) if version else lineage.get("model") or ""
    took = look.seconds(timing["total"]) if timing.get("total") else ""
    compared = last(steps, "answers.compared") or {}
    of = f"best of {len(compared['scores'])}" if compared.get("scores") else ""
    label = " · ".join(part for part in ("How this was answered", plain(model, 40), of, took) if part)
    panel = st.expander(label, icon=":material/explore:", key=f"how-{message['id']}", on_change="rerun")
    if panel.open:
        with panel:
            _compared(last(steps, "answers.compared"))
            _tools_considered(last(steps, "tools.considered"))
            _passages_considered(last(steps, "passages.found"))
            _made_by(lineage, timing, message.get("usage") or {})


def _compared(event: Mapping[str, Any] | None) -> None:
    """Which of several answers this is."""
    if event is None:
        return
    if event.get("trouble"):
        note("Several answers were written and could not be compared, so this is the first. ", event["trouble"])
        return
    scores = [float(score) for score in event.get("scores") or ()]
    draw(tag("p", tag("strong", f"Best of {len(scores)}"), " answers, by the reward model of ",
             tag("strong", event.get("by", "")), " (0 is the base model's average answer)."))  # fmt: skip
    rows = [(f"{score:+.2f}", badge("this one", "ok") if number == event.get("chosen") else "")
            for number, score in enumerate(scores)]  # fmt: skip
    draw(table(("Score", ""), rows))


def _tools_considered(event: Mapping[str, Any] | None) -> None:
    if event is None:
        note("No tool was considered.")
        return
    chosen = ", ".join(map(str, event.get("chosen") or ())) or "none"
    how = "the model saw them all" if event.get("strategy") == "native" else "chosen by likeness to the question"
    limit = f", threshold {event['threshold']:.2f}" if event.get("threshold") is not None else ""
    draw(tag("p", tag("strong", "Tools"), f" ({how}{limit}). Chosen: ", tag("strong", chosen)))
    rows = [(o.get("name", ""), f"{o.get('score', 0):.2f}", o.get("reason", "")) for o in event.get("offered") or ()]
    if rows:
        draw(table(("Tool", "Score", "Why"), rows))


def _passages_considered(event: Mapping[str, Any] | None) -> None:
    if event is None:
        note("Documents were not searched.")
        return
    used = "were given to the model" if event.get("used") else "were not used: none is above the floor"
    floor = f"{event.get('floor', 0):.2f}"
    took = look.seconds(event.get("seconds"))
    draw(tag("p", tag("strong", "Passages"), f" {used} (floor {floor}, searched in {took})."))
    if passages := event.get("passages"):
        draw(table(("Where", "Likeness", "By meaning", "By words"), [passage_row(p) for p in passages]))


def passage_row(passage: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Where, likeness, rank by meaning, rank (and score) by words."""
    place = " › ".join(map(str, (passage.get("name", ""), *(passage.get("heading") or ()))))
    words, score = passage.get("keyword_rank"), passage.get("keyword_score")
    by_words = "–" if words is None else f"#{words}" + (f" ({score:.1f})" if score is not None else "")
    meaning = passage.get("vector_rank")
    return place, f"{passage.get('score', 0):.2f}", "–" if meaning is None else f"#{meaning}", by_words


def _version(version_id: str) -> Safe | str:
    """Its name, and its id where that is something else. The Models page has the rest."""
    name = session.version_name(version_id)
    return join([name, tag("span", f" ({version_id})", cls="tt-host tt-mono")]) if name != version_id else name


def _made_by(lineage: Mapping[str, Any], timing: Mapping[str, Any], usage: Mapping[str, Any]) -> None:
    connectors = ", ".join(f"{name} {version}" for name, version in (lineage.get("connectors") or {}).items())
    tokens = f"{usage.get('prompt_tokens', 0)} read ({usage.get('cached_tokens', 0)} from cache), "
    tokens += f"{usage.get('completion_tokens', 0)} written"
    rows = [
        ("Model", lineage.get("model")),
        ("Version", _version(str(lineage.get("version") or ""))),
        ("Adapter", lineage.get("adapter")),
        ("Prompt", lineage.get("prompt_version")),
        ("Connectors", connectors),
        ("Time", f"{look.seconds(timing.get('total'))}, first words after {look.seconds(timing.get('first_token'))}"),
        ("Of that", ", ".join(f"{part} {look.seconds(timing.get(part))}" for part in ("retrieval", "model", "tools"))),
        ("Tokens", tokens),
    ]
    draw(table((), [row for row in rows if row[1]]))
