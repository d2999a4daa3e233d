"""The sidebar of the chat: every conversation, newest first; search, new, rename, delete, export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import more, session
from .client import Client
from .markup import note
from .untrusted import plain

SHOWN = 40
"""Conversations at first, and as many again with each click."""


def sidebar(server: Client, current: str) -> None:
    with st.sidebar:
        st.button(
            "New chat",
            key="new-chat",
            icon=":material/add_comment:",
            type="primary",
            width="stretch",
            on_click=session.open_thread,
            args=("",),
        )
        query = st.text_input(
            "Search chats", key="search-chats", placeholder="Search chats", label_visibility="collapsed", max_chars=200
        )
        found, left = server.threads(query.strip(), more.shown("older-chats", SHOWN))
        for thread in found:
            _row(thread, current)
        if not found:
            note("Nothing found." if query.strip() else "No chats yet.")
        elif left:
            more.button("Older chats", "older-chats", SHOWN)


def _row(thread: Mapping[str, Any], current: str) -> None:
    here = thread["id"] == current
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", wrap=False):
        st.button(
            plain(thread["title"], 60) or "Untitled",
            key=f"thread-{thread['id']}",
            type="secondary" if here else "tertiary",
            width="stretch",
            on_click=session.open_thread,
            args=(thread["id"],),
        )
        if here:
            _menu(thread)


def _menu(thread: Mapping[str, Any]) -> None:
    thread_id, title = str(thread["id"]), str(thread["title"])
    menu = f"menu-{thread_id}"
    with st.popover("More", icon=":material/more_horiz:", type="tertiary", key=menu, on_change="rerun"):
        st.button(
            "Rename",
            key=f"rename-{thread_id}",
            icon=":material/edit:",
            type="tertiary",
            on_click=_open,
            args=("rename", menu),
            kwargs={"thread_id": thread_id, "title": title},
        )
        st.download_button(
            "Export as Markdown",
            data=lambda: session.client().export(thread_id),
            file_name=file_name(title),
            mime="text/markdown",
            key=f"export-{thread_id}",
            icon=":material/download:",
            type="tertiary",
            on_click="ignore",
        )
        st.button(
            "Delete",
            key=f"delete-{thread_id}",
            icon=":material/delete:",
            type="tertiary",
            on_click=_open,
            args=("delete", menu),
            kwargs={"thread_id": thread_id, "title": title},
        )


def _open(name: str, menu: str, **about: Any) -> None:
    """A dialog, and the menu it was chosen from out of its way."""
    st.session_state[menu] = False
    session.open_dialog(name, **about)


def file_name(title: str) -> str:
    """A title as a file's name: letters, digits, spaces and dashes; never empty."""
    kept = "".join(c if c.isalnum() or c in " -_" else " " for c in title)
    return (" ".join(kept.split())[:60] or "chat") + ".md"
