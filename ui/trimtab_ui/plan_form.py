"""The three sets of questions in plain words, and whether this machine can hold the answers, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import session
from .client import UiError
from .markup import Safe, badge, draw, note, notice, table, tag
from .untrusted import plain

FACES = {
    "web": "Web pages (this UI)",
    "api": "OpenAI-compatible API",
    "mcp": "MCP: other assistants use it",
    "python": "Embedded in Python",
    "terminal": "Terminal",
}
WAYS = {
    "none": "not at all: nothing is needed",
    "key": "by a key",
    "bearer": "by a bearer token",
    "basic": "by user and password",
    "client-credentials": "by client credentials",
    "oauth": "by signing in (OAuth)",
}


def draw_questions(found: Mapping[str, Any]) -> None:
    plan, machine = dict(found["plan"]), found["machine"]
    note(
        "This machine: ",
        tag("strong", machine["name"]),
        f", {machine['disk'] / 1e9:.0f} GB of disk free. The model: ",
        tag("strong", machine["model"]),
        ".",
    )
    wanted = {
        "model": plan["model"],
        "remote": plan["remote"],
        "targets": _targets(plan["targets"]),
        **_means(plan["budget"], plan["quality"], machine),
        "resources": _resources(plan["resources"]),
        "interface": _interface(plan["interface"]),
        "chosen": plan["chosen"],
    }
    changed = {k: v for k, v in wanted.items() if k != "chosen"} != {k: plan[k] for k in wanted if k != "chosen"}
    possible = _check(wanted)
    with st.container(horizontal=True, key="plan-save-row"):
        saved = st.button(
            "Keep the plan",
            key="plan-save",
            type="primary" if changed else "secondary",
            icon=":material/save:",
            disabled=not changed and found["kept"],
        )
        if possible and found["kept"] and not changed:
            st.button(
                "Go on: measure",
                key="plan-to-measure",
                type="primary",
                icon=":material/arrow_forward:",
                on_click=_go,
                args=("measure",),
            )
    if saved and session.act(session.client().keep_plan, wanted) is not None:
        session.tell("The plan is kept. Next: measure what this machine really does.", kind="ok")
        st.rerun()
    elif saved:
        st.rerun()


def _go(view: str) -> None:
    st.session_state["plan-go"] = view


# --- the questions


def _targets(now: Mapping[str, Any]) -> dict[str, Any]:
    with st.container(border=True, key="plan-fast"):
        draw(tag("div", tag("h3", "How fast?"), cls="tt-part"))
        left, right = st.columns(2)
        with left:
            users = st.number_input("People who ask at the same time", 1, 64, int(now["users"]), key="plan-users")
            first = st.number_input(
                "Seconds until the first word",
                0.01,
                3600.0,
                float(now["first_token_p95"]),
                step=0.5,
                key="plan-first",
                help="For 95 of 100 questions.",
            )
        with right:
            context = st.number_input(
                "Tokens of a conversation",
                512,
                131_072,
                int(now["context"]),
                step=512,
                key="plan-context",
                help="With its documents and the answer. 750 words are about 1000 tokens.",
            )
            rate = st.number_input(
                "Tokens a second of each answer",
                0.0,
                100_000.0,
                float(now["tokens_per_second"]),
                step=1.0,
                key="plan-rate",
                help="People read about 5 a second.",
            )
    return {"first_token_p95": first, "tokens_per_second": rate, "users": int(users), "context": int(context)}


def _means(budget: Mapping[str, Any], quality: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    with st.container(border=True, key="plan-means"):
        draw(tag("div", tag("h3", "With what, and at what loss?"), cls="tt-part"))
        left, right = st.columns(2)
        with left:
            cores = st.number_input(
                "Processor cores",
                0,
                4096,
                int(budget["cores"]),
                key="plan-cores",
                help=f"0 is all: {int(machine['cores'])}.",
            )
            memory = st.number_input(
                "MB of memory for the model",
                0,
                100_000_000,
                int(budget["memory_mb"]),
                step=100,
                key="plan-memory",
                help="0 is all there is.",
            )
            disk = st.number_input(
                "MB of disk for the model",
                0,
                1_000_000_000,
                int(budget["disk_mb"]),
                step=100,
                key="plan-disk",
                help="0 is all that is free.",
            )
        with right:
            loss = st.number_input(
                "Percent that it may predict text worse",
                0.0,
                1000.0,
                round(100 * float(quality["largest_loss"]), 4),
                step=0.5,
                key="plan-loss",
                help="Than the whole, unquantized model; measured on a fixed text.",
            )
            money = st.number_input(
                "Most that a million tokens may cost",
                0.0,
                1_000_000.0,
                float(budget["money_per_million"]),
                step=0.5,
                key="plan-money",
                help="Of a hosted model. 0: nothing hosted.",
            )
            needed = st.checkbox(
                "It must run on an accelerator",
                budget["accelerator"] == "required",
                key="plan-accelerator",
                help="Where there is none it then refuses to start, instead of being slow.",
            )
    return {
        "budget": {
            "cores": int(cores),
            "memory_mb": int(memory),
            "disk_mb": int(disk),
            "accelerator": "required" if needed else "none",
            "money_per_million": money,
        },
        "quality": {"largest_loss": round(loss / 100, 6)},
    }


def _resources(now: Mapping[str, Any]) -> dict[str, Any]:
    client = session.client()
    servers = [str(one["name"]) for one in client.mcp_servers()]
    connectors = [str(one["name"]) for one in client.connectors() if one["name"] not in servers]
    with st.container(border=True, key="plan-reach"):
        draw(tag("div", tag("h3", "What does it reach?"), cls="tt-part"))
        note("Nothing named: whatever is switched on. Named: these only, and it does not start without them.")
        collections = st.text_input(
            "Collections of documents, separated by commas", ", ".join(now["collections"]), key="plan-collections"
        )
        return {
            "collections": [name.strip() for name in collections.split(",") if name.strip()],
            "connectors": _named("Connectors", connectors, now["connectors"], "plan-connectors"),
            "mcp_servers": _named("MCP servers", servers, now["mcp_servers"], "plan-servers"),
        }


def _named(label: str, known: Sequence[str], now: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, str]]:
    ways = {str(one["name"]): str(one["authentication"]) for one in now}
    names = st.multiselect(plain(label), [*known, *(name for name in ways if name not in known)], list(ways), key=key)
    found = []
    for name in names:
        way = st.selectbox(
            f"How {plain(name, 40)} knows us",
            list(WAYS),
            list(WAYS).index(ways.get(name, "none")),
            format_func=WAYS.__getitem__,
            key=f"{key}-{name}",
        )
        found.append({"name": name, "authentication": str(way)})
    return found


def _interface(now: Mapping[str, Any]) -> dict[str, Any]:
    with st.container(border=True, key="plan-use"):
        draw(tag("div", tag("h3", "How is it used?"), cls="tt-part"))
        faces = st.pills(
            "Ways to use it",
            list(FACES),
            selection_mode="multi",
            default=list(now["faces"]),
            format_func=FACES.__getitem__,
            key="plan-faces",
            label_visibility="collapsed",
        )
    return {"faces": [face for face in FACES if face in faces]}


# --- whether this machine can


def _check(wanted: Mapping[str, Any]) -> bool:
    with st.container(border=True, key="plan-check"):
        draw(tag("div", tag("h3", "Can this machine hold it?"), cls="tt-part"))
        try:
            found = session.client().check_plan(wanted)
        except UiError as error:
            notice(error.message, error.advice, "bad")
            return False
        fits = found["fits"]
        good = [one for one in fits if not one["obstacles"]]
        if refusal := found["refusal"]:
            notice("No.", refusal["message"], "bad")
        else:
            least = min(good, key=lambda one: one["memory"])
            notice(
                f"Yes: {len(good)} of {len(fits)} variants have room.",
                f"The smallest, {least['variant']}, takes {_mb(least['memory'])} of memory and "
                f"{_mb(least['disk'])} of disk. Whether one is fast enough is measured next.",
                "ok",
            )
        with st.expander("Each variant", icon=":material/memory:", key="plan-fits"):
            draw(table(("Variant", "Memory", "Disk", "", "From"), [_fit(one) for one in fits]))
        return not found["refusal"]


def _fit(one: Mapping[str, Any]) -> tuple[object, ...]:
    fits: Safe = badge("fits", "ok") if not one["obstacles"] else badge("no room", "bad")
    why = [tag("div", words, cls="tt-host") for words in one["obstacles"]]
    basis, _, parts = str(one["basis"]).partition(": ")
    return (
        tag("strong", one["variant"]),
        _mb(one["memory"]),
        _mb(one["disk"]),
        tag("div", fits, *why),
        tag("span", basis, title=parts),
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}\u00a0MB"
