"""One browser tab's state, and the connection to the server.

Everything a person typed or saw lives in `st.session_state`, which belongs to that tab alone. The only thing shared
between tabs is the connection pool, and that holds no content. `act` is how a button calls the server: a refusal
becomes a message on the next run instead of a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import streamlit as st

from .client import Client, UiError
from .markup import notice

DEFAULT_URL = "http://127.0.0.1:8765"


@st.cache_resource(show_spinner=False, max_entries=4)
def _connect(url: str, key: str) -> Client:
    return Client(url, key)


def client() -> Client:
    """The server this UI was started for: `--api` on the command line, else `TRIMTAB_URL`; key from `TRIMTAB_KEY`."""
    return _connect(server_url(), os.environ.get("TRIMTAB_KEY", ""))


def server_url() -> str:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--api", default=os.environ.get("TRIMTAB_URL") or DEFAULT_URL)
    return str(parser.parse_known_args(sys.argv[1:])[0].api)


def key_hint() -> str:
    """Enough of the key to recognise it, not to use it."""
    key = os.environ.get("TRIMTAB_KEY", "")
    return f"…{key[-4:]}" if len(key) >= 12 else ("set" if key else "none")


def new_key() -> str:
    """An idempotency key: one for each thing a person does, kept until the server confirmed it."""
    return uuid4().hex


def choices() -> dict[str, Any]:
    """What can be said about answers here; asked of the server once a session."""
    if "choices" not in st.session_state:
        st.session_state["choices"] = client().choices()
    found: dict[str, Any] = st.session_state["choices"]
    return found


BEST_OF_SECONDS = 30.0


def best_of() -> dict[str, Any]:
    """Whether the best of several answers can be given here, and of how many it is when nobody says: ``{"available",
    "default", "why"}``. Asked of the server now and then: a reward model may be trained meanwhile."""
    kept: dict[str, Any] = st.session_state.setdefault("best-of-known", {"at": -BEST_OF_SECONDS, "found": {}})
    if time.monotonic() - kept["at"] >= BEST_OF_SECONDS:
        kept["at"], kept["found"] = time.monotonic(), dict(client().info().get("best_of") or {})
    found: dict[str, Any] = kept["found"]
    return found


NAMES_SECONDS = 60.0


def version_name(version_id: str) -> str:
    """What people call a version of the model; its id when the server does not know it or cannot be asked."""
    kept: dict[str, Any] = st.session_state.setdefault("version-names", {"at": -NAMES_SECONDS, "names": {}})
    if version_id and version_id not in kept["names"] and time.monotonic() - kept["at"] >= NAMES_SECONDS:
        kept["at"] = time.monotonic()
        try:
            kept["names"] = {str(v["id"]): str(v["name"]) for v in client().versions()["versions"]}
        except UiError:
            return version_id
    return str(kept["names"].get(version_id, version_id))


# --- the thread on screen: in the address, so that a reload or a second tab opens the same one


def current_thread() -> str:
    """The address decides; after a visit to another page, which drops it, what was open before."""
    given = st.query_params.get("thread", "")
    if given:
        st.session_state["thread"] = given
    elif kept := st.session_state.get("thread", ""):
        st.query_params["thread"] = kept
    return str(st.session_state.get("thread", ""))


def arrive(page: str) -> None:
    """Count it when somebody comes to a page from another."""
    at, times = st.session_state.get("visit", ("", 0))
    if at != page:
        st.session_state["visit"] = page, times + 1


def opened_anew(thread_id: str) -> tuple[int, bool]:
    """How often a thread was opened in this tab, or come back to from another page; whether it is just now."""
    here = st.session_state.get("visit"), thread_id
    at, times = st.session_state.get("opened", (None, 0))
    if at != here:
        st.session_state["opened"] = here, times + 1
    return st.session_state["opened"][1], at != here


def open_thread(thread_id: str) -> None:
    st.session_state["thread"] = thread_id
    if thread_id:
        st.query_params["thread"] = thread_id
    else:
        st.query_params.clear()


# --- messages that outlive a rerun


def tell(message: str, advice: str = "", kind: str = "bad") -> None:
    st.session_state["told"] = (message, advice, kind)


def draw_told() -> None:
    if told := st.session_state.pop("told", None):
        message, advice, kind = told
        notice(message, advice, kind)


def act(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the server for a person's click. None, and a message on the page, when it refused."""
    try:
        return work(*args, **kwargs)
    except UiError as error:
        tell(error.message, error.advice)
        return None


# --- dialogs: which one is open survives a rerun, so an answer that ends does not close what somebody is typing in


def open_dialog(name: str, **about: Any) -> None:
    st.session_state["dialog"] = {"name": name, **about}


def close_dialog() -> None:
    st.session_state.pop("dialog", None)


def dialog() -> dict[str, Any]:
    found: dict[str, Any] = st.session_state.get("dialog", {})
    return found
