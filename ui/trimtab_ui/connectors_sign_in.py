"""Signing a connector in: with a key that is set on the server, or in a browser at the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .connectors_words import MISSING
from .markup import draw, note, notice, tag
from .untrusted import host_of, plain

OFTEN = 2.0
"""Seconds between looks while somebody signs in."""


def draw_sign_in(connector: Mapping[str, Any]) -> None:
    name, auth = str(connector["name"]), str(connector.get("auth") or "none")
    if connector.get("sign_in") == "browser" and not auth.startswith((MISSING, "unreadable")):
        _browser(name, auth)
    elif auth.startswith(MISSING):
        notice(
            tag("span", "It needs ", tag("code", auth.removeprefix(MISSING), cls="tt-mono"), ", which is not set."),
            "Set it in the server's environment, or run this in a terminal there:",
        )
        st.code(f"trimtab connectors auth {name}", language="bash")
    elif auth.startswith("unreadable"):
        notice(auth.removeprefix("unreadable: "), kind="bad")


def _browser(name: str, auth: str) -> None:
    url = st.session_state.get(f"sign-in-{name}", "")
    with st.container(border=True, key="connector-sign-in"):
        if auth == "ready":
            note("You are signed in.")
        elif auth == "reconnect":
            notice("The service does not accept the sign-in any more.", "Sign in again.")
        else:
            notice("Nobody has signed in yet, so it cannot be asked.", kind="info")
        with st.container(horizontal=True, gap="small"):
            st.button("Connect" if auth == "not connected" else "Reconnect", key="sign-in-begin",
                      icon=":material/login:", type="secondary" if auth == "ready" else "primary",
                      on_click=_begin, args=(name,))  # fmt: skip
            if auth != "not connected":
                st.button("Forget", key="sign-in-forget", icon=":material/logout:", on_click=_forget, args=(name,),
                          help="Deletes what is kept here. The service may honour it until it ends.")  # fmt: skip
        if url:
            _waiting(name, url)


def _begin(name: str) -> None:
    url = session.act(session.client().begin_sign_in, name)
    if url is not None:
        st.session_state[f"sign-in-{name}"] = url


def _forget(name: str) -> None:
    st.session_state.pop(f"sign-in-{name}", None)
    session.act(session.client().forget_sign_in, name)


def _waiting(name: str, url: str) -> None:
    """The way to the service, for as long as the answer is waited for."""
    if not url.startswith("https://"):
        notice("The service's address is not an https address, so it is not opened.", kind="bad")
        return
    draw(tag("p", "Sign in at ", tag("strong", host_of(url)), " in a browser on the server's machine."))
    st.link_button(plain(f"Open {host_of(url)}"), url, icon=":material/open_in_new:", type="primary")
    st.fragment(_watch, run_every=OFTEN)(name)


def _watch(name: str) -> None:
    try:
        state = session.client().sign_in(name)
    except UiError as error:
        notice(error.message, "Still looking.")
        return
    if state.get("waiting"):
        note("Waiting for you. It is good for five minutes.")
        return
    st.session_state.pop(f"sign-in-{name}", None)
    if state.get("problem"):
        session.tell(str(state["problem"]), "Nothing has changed. Try again when you like.")
    else:
        session.tell("Signed in.", kind="ok")
    st.rerun()
