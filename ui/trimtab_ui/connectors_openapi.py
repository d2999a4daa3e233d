"""Importing an API from its OpenAPI document: choose the document, look at what it would make, add it.

Nothing is kept before the last step, and what is added is the very document that was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import look, session
from .client import ApiError, UiError
from .connectors_words import several
from .markup import Safe, badge, draw, join, note, notice, table, tag
from .untrusted import host_of, plain

SOURCES = {"file": "A file", "url": "An address", "text": "Paste it"}
OFFERS = {"auto": "By number", "each": "Each one", "search": "Through a search"}
LOOK = "openapi-look"
LISTED = 200


def wizard() -> str:
    """Draw the step it is at. The new connector's name once it is added, else nothing."""
    about = "A service that describes itself in OpenAPI 3 or Swagger 2 becomes a connector, without a line of code."
    draw(tag("div", tag("h2", "Import an API"), tag("p", about), cls="tt-hero tt-below"))
    kept = st.session_state.get(LOOK)
    if kept is None:
        _choose()
        return ""
    return _decide(kept["wanted"], kept["shown"])


# --- step 1: which document


def _choose() -> None:
    draw(tag("div", badge("step 1 of 2"), "Which document? Nothing is added yet.", cls="tt-card-head"))
    source = st.segmented_control("Where the document is", list(SOURCES), default="file", required=True,
                                  format_func=SOURCES.__getitem__, key="openapi-source")  # fmt: skip
    with st.form("openapi"):
        wanted = _document(str(source))
        wanted["name"] = st.text_input(
            "Name in Trimtab (optional)", key="openapi-name", max_chars=31, placeholder="petstore",
            help="Small letters, digits and underscores. Left empty, the document's title gives it.",
        ).strip()  # fmt: skip
        with st.expander("More choices", icon=":material/tune:"):
            wanted |= _choices()
        sent = st.form_submit_button("Look at it", type="primary", key="openapi-look-at", icon=":material/search:")
    if not sent:
        return
    if not (wanted.get("document") or wanted.get("url")):
        notice("There is no document yet.", f"Give one above: {SOURCES[str(source)].lower()}.")
        return
    try:
        with st.spinner("Reading the document …"):
            shown = session.client().preview_openapi(**wanted)
    except UiError as error:
        _explain(error)
        return
    st.session_state[LOOK] = {"wanted": wanted, "shown": shown}
    st.rerun()


def _document(source: str) -> dict[str, Any]:
    if source == "url":
        url = st.text_input("Address of the document", key="openapi-url", max_chars=2000,
                            placeholder="https://example.org/openapi.json")  # fmt: skip
        return {"url": url.strip()}
    if source == "text":
        text = st.text_area("The document, JSON or YAML", key="openapi-text", height=220)
        return {"document": text.strip(), "source": "pasted"}
    file = st.file_uploader("The document, JSON or YAML", type=["json", "yaml", "yml"], key="openapi-file")
    if file is None:
        return {}
    return {"document": file.getvalue().decode("utf-8", "replace"), "source": file.name}


def _choices() -> dict[str, Any]:
    include = st.text_input(
        "Only these operations", key="openapi-include", placeholder="pets, orders/*",
        help="Tags, or ids of operations with * for any part, with commas between. Empty takes all.",
    )  # fmt: skip
    base_url = st.text_input(
        "Ask this address instead of the document's", key="openapi-base", placeholder="https://api.example.org/v1",
    )  # fmt: skip
    security = st.text_input(
        "Security scheme", key="openapi-security",
        help="One of the names in the document; none sends no key. Empty takes what most operations accept.",
    )  # fmt: skip
    offer = st.selectbox(
        "How the model is offered them", list(OFFERS), format_func=OFFERS.__getitem__, key="openapi-offer",
        help="By number: up to 24 operations are tools of their own, more are found through a search.",
    )  # fmt: skip
    return {
        "include": [part.strip() for part in include.split(",") if part.strip()],
        "base_url": base_url.strip(),
        "security": security.strip(),
        "offer": str(offer),
    }


# --- step 2: what it would make


def _decide(wanted: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    draw(tag("div", badge("step 2 of 2"), "Is this what you want? Nothing is added yet.", cls="tt-card-head"))
    with st.container(border=True, key="openapi-preview"):
        draw(tag("div", tag("span", shown["name"], cls="tt-where"), badge(f"version {shown['version']}"),
                 cls="tt-card-head"))  # fmt: skip
        note(shown.get("title", ""))
        draw(table((), _facts(shown)))
        draw_left_out(shown)
    tools = [str(tool).partition(".")[2] for tool in shown.get("tools") or ()]
    with st.expander(f"{len(tools)} tools", icon=":material/build:", key="openapi-tools"):
        draw(tag("div", ", ".join(tools[:LISTED]), cls="tt-mono"))
    with st.container(horizontal=True, gap="small"):
        add = st.button(plain(f"Add {shown['name']}"), key="openapi-add", type="primary", icon=":material/add:")
        st.button("Choose again", key="openapi-again", icon=":material/undo:", on_click=_again)
    return _add(wanted, shown) if add else ""


def _facts(shown: Mapping[str, Any]) -> list[tuple[object, object]]:
    effects = shown.get("effects") or {}
    marks = [
        join([look.effect_badge(effect), f"{effects[effect]}  "]) for effect in look.EFFECTS if effects.get(effect)
    ]
    hosts = ", ".join(map(str, shown.get("hosts") or ()))
    secrets = [str(name) for name in shown.get("secrets") or ()]
    facts: list[tuple[object, object]] = [
        ("Reaches", tag("span", hosts, cls="tt-mono")),
        ("Operations", tag("span", f"{shown.get('operations', 0)}: ", join(marks))),
    ]
    if shown.get("searched"):
        facts.append(("Offered", "through a search: too many to show a model at once"))
    if secrets:
        needs = join([tag("code", name, cls="tt-mono") for name in secrets], ", ")
        facts.append(("Key", tag("span", "needs ", needs, "; you can set it afterwards")))
    elif shown.get("security_scheme"):
        facts.append(("Sign-in", "in the browser; you can do it afterwards"))
    else:
        facts.append(("Key", "none"))
    return facts


def _add(wanted: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    try:
        with st.spinner("Adding …"):
            made = session.client().import_openapi(
                **{**wanted, "name": shown["name"]}, seen=str(shown.get("document", ""))
            )
    except UiError as error:
        _explain(error)
        return ""
    _again()
    session.tell(f"{made['name']} is added. Try one of its tools below.", kind="ok")
    return str(made["name"])


def _again() -> None:
    st.session_state.pop(LOOK, None)


def _explain(error: UiError) -> None:
    advice = error.advice
    if isinstance(error, ApiError):
        if error.status == 409:
            advice = "Choose again, with another name."
        elif error.detail.get("pointer"):
            advice = f"Look at {error.detail['pointer']} in the document."
    notice(error.message, advice, "bad")


def draw_left_out(shown: Mapping[str, Any]) -> None:
    """What of the document cannot be used, where it stands and why; the rest loads."""
    count = int(shown.get("left_out_count") or 0)
    if not count:
        return
    notice(f"{several(count, 'operation')} cannot be used and will be left out. The others work.", kind="warn")
    with st.expander(f"Left out: {int(count)}", icon=":material/rule:", key=f"openapi-left-{plain(shown['name'])}"):
        draw(table(("What", "Why", "Where in the document"), _left(shown.get("left_out") or ())))


def _left(rows: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [(row.get("what", ""), row.get("why", ""), _pointer(row)) for row in rows[:LISTED]]


def _pointer(row: Mapping[str, Any]) -> Safe:
    return tag("span", row.get("pointer", ""), cls="tt-mono")


# --- an import that is there


def draw_import(connector: Mapping[str, Any]) -> bool:
    """Where it came from, and taking it away. True when it is gone."""
    name = str(connector["name"])
    found = next((one for one in session.client().openapi_imports() if one["name"] == name), None)
    if found is None:
        return False
    with st.expander("The import", icon=":material/api:", key=f"openapi-import-{name}"):
        source = str((found.get("choices") or {}).get("source") or "a document")
        when = str(found.get("imported_at") or "")[:10]
        note("From ", tag("strong", host_of(source) if "://" in source else source), f", {when}. " if when else ". ",
             several(int(found.get("operations") or 0), "operation"), ".")  # fmt: skip
        draw_left_out(found)
        return _remove(name)


def _remove(name: str) -> bool:
    sure = st.checkbox(f"Remove {plain(name)} and forget its document", key=f"openapi-sure-{name}")
    if st.button("Remove", key=f"openapi-remove-{name}", icon=":material/delete:", disabled=not sure):
        try:
            session.client().remove_import(name)
        except UiError as error:
            notice(error.message, error.advice, "bad")
            return False
        session.tell(f"{name} is removed.", kind="ok")
        return True
    return False
