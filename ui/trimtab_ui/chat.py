"""The chat page.

A turn runs on the server. This page posts the question once (one idempotency key a submit) and then only looks: a
fragment asks for new events a few times a second and draws the growing answer. A click elsewhere, a reload, a second
tab or another page in mid-answer therefore lose nothing; whoever comes back finds `active_turn` and follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import answer, dialogs, more, session, threads
from .cards import draw_approval, summary
from .client import ApiError, Client, UiError
from .live import Live, calls
from .markup import draw, note, notice, tag
from .scroll import scroll_here
from .untrusted import to_html
from .welcome import draw_welcome

OFTEN = 0.25
"""Seconds between looks while the answer grows."""
SELDOM = 1.0
"""The same while it waits for a person; the card itself is drawn outside the fragment, so typing is not disturbed."""

LONGEST_QUESTION = 16_000
SHOWN = 30
"""Messages of a conversation that are drawn at first, and as many again with each click: each costs a moment, and all
are drawn anew with every question."""
ANSWERS = {1: "1 answer", 2: "Best of 2", 4: "Best of 4", 8: "Best of 8"}
DOCUMENTS = {"auto": "Docs if useful", "only": "Docs only", "off": "No docs"}


def page() -> None:
    server = session.client()
    current = session.current_thread()
    threads.sidebar(server, current)
    found = _read(server, current)
    active = (found or {}).get("active_turn")
    session.draw_told()
    _undelivered()
    if found is None or not found["messages"]:
        draw_welcome(server, submit)
    else:
        _conversation(found, bool(active))
    doing = _follow(str(active)) if active else "done"
    if found is not None and found["messages"]:
        _to_the_end(current, str(active or found["messages"][-1]["turn_id"]), doing)
    _composer(str(active or ""))
    dialogs.show()


def _read(server: Client, thread_id: str) -> dict[str, Any] | None:
    """The thread on screen; none when there is none, or no longer."""
    if not thread_id:
        return None
    try:
        return server.thread(thread_id)
    except ApiError as error:
        if error.status != 404:
            raise
        session.open_thread("")
        session.tell("This chat does not exist any more.", "It was deleted, or it belongs to another key.", "warn")
        return None


def _conversation(found: Mapping[str, Any], busy: bool) -> None:
    thread_id = str(found["thread"]["id"])
    for message in _shown(thread_id, found["messages"]):
        if message["role"] == "user":
            answer.draw_question(message)
        elif message["status"] not in ("running", "waiting"):
            answer.draw_answer(message, thread_id, busy)


def _shown(thread_id: str, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The latest messages, from a question on, under a button that brings more."""
    key = f"earlier-{thread_id}"
    hidden = max(0, len(messages) - more.shown(key, SHOWN))
    if hidden and messages[hidden]["role"] != "user":
        hidden -= 1
    if hidden:
        more.button("Earlier messages", key, SHOWN, ":material/expand_less:")
    return messages[hidden:]


def _to_the_end(thread_id: str, turn_id: str, doing: str) -> None:
    """Whoever opens a conversation is where it goes on, and sees a new question, however soon it was answered; then the
    end of the answer, unless they have gone elsewhere to read."""
    times, now = session.opened_anew(thread_id)
    mark = f"{times}-{turn_id}"
    scroll_here(f"{mark}-{doing}", jump=now, unless_away_since=f"{mark}-working" if doing == "done" else "")


# --- following an answer


def _live(turn_id: str) -> Live:
    """What this tab has seen of the turn; a tab that comes late starts from its first event."""
    kept = st.session_state.get("live")
    if not isinstance(kept, Live) or kept.turn_id != turn_id:
        kept = st.session_state["live"] = Live(turn_id)
    return kept


def _follow(turn_id: str) -> str:
    """Draw a turn that is under way: it is `working`, or `waiting` for a person."""
    live = _live(turn_id)
    live.take(session.client().events(turn_id, live.cursor))
    if live.ended:
        # It ended between reading the thread and reading its events: draw the final state instead.
        st.session_state.pop("live", None)
        st.rerun()
    waiting = bool(live.undecided)
    st.fragment(_watch, run_every=SELDOM if waiting else OFTEN)(turn_id, waiting)
    if waiting:
        _approvals(turn_id)
    return "waiting" if waiting else "working"


def _watch(turn_id: str, waiting: bool) -> None:
    """The fragment: read what is new, draw it. Ends with one full run, which draws the finished answer."""
    live = _live(turn_id)
    trouble: UiError | None = None
    try:
        live.take(session.client().events(turn_id, live.cursor))
    except UiError as error:
        trouble = error
    if live.ended or bool(live.undecided) != waiting:
        if live.ended:
            st.session_state.pop("live", None)
        st.rerun()
    _draw_live(live)
    if trouble is not None:
        notice(trouble.message, "Still looking. Nothing is lost: the server keeps the answer.")


def _draw_live(live: Live) -> None:
    with st.chat_message("assistant", avatar=answer.AVATARS["assistant"]), st.container(key="live-answer"):
        if asked := calls(live.steps):
            draw(tag("div", summary(asked), cls="tt-note"))
        if live.text:
            draw(tag("div", to_html(live.text), cls="tt-live-text"))
        if doing := live.doing():
            draw(tag("div", tag("span", doing, cls="tt-live"), cls="tt-note"))


def _stop(turn_id: str) -> None:
    session.act(session.client().cancel, turn_id)


def _approvals(turn_id: str) -> None:
    for approval in session.client().approvals():
        if approval["turn_id"] == turn_id:
            draw_approval(approval)


# --- asking


def _composer(active: str) -> None:
    """Where one types. Stop stands here and not under the growing answer, so it keeps still while one aims at it."""
    with st.bottom:
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="composer"
        ):
            with st.container(horizontal=True, vertical_alignment="center", width="content"):
                st.segmented_control(
                    "Use my documents",
                    list(DOCUMENTS),
                    format_func=DOCUMENTS.__getitem__,
                    default="auto",
                    key="documents-mode",
                    required=True,
                    label_visibility="collapsed",
                )
                _several()
            if active:
                st.button(
                    "Stop", key="stop", icon=":material/stop_circle:", type="primary", on_click=_stop, args=(active,)
                )
        st.chat_input(
            "Answering … press Stop to interrupt" if active else "Ask something",
            key="ask",
            max_chars=LONGEST_QUESTION,
            disabled=bool(active),
            on_submit=_submitted,
        )


def _several() -> None:
    """How many answers are written, where a reward model was trained that can tell which is the best."""
    if not session.best_of().get("available"):
        return
    default = int(session.best_of().get("default") or 1)
    choices = sorted({*ANSWERS, default})
    st.selectbox(
        "Answers to write", choices, index=choices.index(default), key="best-of", label_visibility="collapsed",
        format_func=lambda n: ANSWERS.get(n, f"Best of {n}"), width=140,
        help="More than one: the reward model picks the best. You see it when all are written.",
    )  # fmt: skip


def _submitted() -> None:
    submit(str(st.session_state["ask"] or ""))


def submit(text: str) -> None:
    """A person pressed Enter, or chose an example. Runs once a click, before the page is drawn."""
    if not text.strip():
        return
    mode = st.session_state.get("documents-mode") or "auto"
    thread = session.current_thread()
    st.session_state["pending"] = {"text": text, "mode": mode, "thread": thread, "key": session.new_key()}
    st.session_state["pending"]["best_of"] = st.session_state.get("best-of")
    deliver()


def deliver() -> None:
    """Post what is pending. It stays pending, with its key, until the server confirmed it: never asked twice."""
    pending = st.session_state["pending"]
    server = session.client()
    try:
        if not pending["thread"]:
            pending["thread"] = server.new_thread(f"{pending['key']}-thread")["id"]
        server.ask(pending["thread"], pending["text"], pending["mode"], pending["key"], pending["best_of"])
    except UiError as error:
        session.tell(error.message, error.advice)
        return
    st.session_state.pop("pending", None)
    session.open_thread(pending["thread"])


def _undelivered() -> None:
    """The question that did not reach the server, with a way to send it again."""
    pending = st.session_state.get("pending")
    if not pending:
        return
    note("Not sent yet: ", plain_quote(pending["text"]))
    with st.container(horizontal=True):
        st.button("Send again", key="send-again", type="primary", icon=":material/send:", on_click=deliver)
        st.button("Discard", key="discard", on_click=_discard)


def _discard() -> None:
    st.session_state.pop("pending", None)


def plain_quote(text: str) -> str:
    return f"“{text[:200]}{'…' if len(text) > 200 else ''}”"
