"""The Models page: which versions of the model there are, which one answers, why, and changing that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import look, session, version_changes, version_compare, version_detail
from .markup import Safe, badge, draw, escape, join, note, notice, table, tag
from .untrusted import plain

VERDICTS = {"promote": ("passed", "ok"), "hold": ("held", "bad"), "not_enough": ("not enough feedback", "warn")}
ACTIONS = {
    "promote": "promoted",
    "rollback": "rolled back to",
    "auto-rollback": "rolled back by itself to",
    "canary": "share of the conversations",
}
VIEWS = {"version": "A version", "compare": "Compare answers", "history": "History"}


def page() -> None:
    about = "A version is the model as it was installed plus what was learnt from feedback. One of them answers."
    draw(tag("div", tag("h2", "Models"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    found = session.client().versions()
    versions, serving = list(found["versions"]), dict(found["serving"])
    if found["fault"]:
        notice(found["fault"], "Promote another version, or import this one again.", "bad")
    if not versions:
        _served_elsewhere()
        return
    names = {str(v["id"]): str(v["name"]) for v in versions}
    _answering(serving, names)
    draw(table(("Version", "Made", "How", "Verdict", "Feedback", "Measured"), [_row(v, names) for v in versions]))
    if len(versions) == 1:
        _how_one_comes_to_be()
    view = st.segmented_control(
        "What to look at", list(VIEWS), default="version", format_func=VIEWS.__getitem__, key="models-view",
        required=True, label_visibility="collapsed",
    )  # fmt: skip
    if view == "version":
        _one(versions, serving, names)
    elif view == "compare":
        version_compare.draw_compare(versions, serving)
    else:
        _history(names)
    version_changes.show()


def _served_elsewhere() -> None:
    notice(
        "This model is served elsewhere, so it has no versions here.",
        "Versions are made of a model whose weights are on this machine, such as the default one.", "info",
    )  # fmt: skip


def _how_one_comes_to_be() -> None:
    steps = (
        "Rate answers in the chat or on the Label page.",
        "Train: the Align page, or in a terminal: trimtab align run.",
        "The gate compares what was learnt with the version that answers, and says whether it is better.",
        "Promote it here. Going back takes a second.",
    )
    draw(tag("div", tag("p", tag("strong", "There is only the model as it was installed. How a version comes to be:")),
             tag("ol", *(tag("li", step) for step in steps)), cls="tt-text"))  # fmt: skip


def _answering(serving: Mapping[str, Any], names: Mapping[str, str]) -> None:
    now = names.get(str(serving.get("version_id")), "?")
    before, canary = serving.get("previous_id"), serving.get("canary_id")
    since = look.ago(float(serving.get("changed_at") or 0))
    with st.container(border=True, key="models-serving"):
        draw(tag("div", badge("answers", "ok"), tag("strong", now), tag("span", f" since {since}", cls="tt-host"),
                 cls="tt-card-head"))  # fmt: skip
        if canary:
            share = float(serving.get("canary_share") or 0)
            note(f"{share:.0%} of the conversations are answered by ", tag("strong", names.get(str(canary), "?")), ".")
        if before:
            back = names.get(str(before), "?")
            note("Before it answered ", tag("strong", back), ", which stays loaded.")
        with st.container(horizontal=True):
            if before:
                st.button(f"Roll back to {plain(back, 40)}", key="roll-back", icon=":material/undo:",
                          on_click=session.open_dialog, args=("roll-back",), kwargs={"to": back})  # fmt: skip
            if canary:
                st.button("End the trial", key="end-canary", icon=":material/block:",
                          on_click=version_changes.end_canary)  # fmt: skip


def verdict_badge(version: Mapping[str, Any]) -> Safe:
    if version["kind"] == "base":
        return badge("as installed")
    if version.get("fell"):
        return badge("rolled back by itself", "bad", f"{version['fell']}.")
    words, kind = VERDICTS.get(str(version["verdict"]), ("not judged", ""))
    return badge(words, kind, version["verdict_reason"])


def _row(version: Mapping[str, Any], names: Mapping[str, str]) -> tuple[object, ...]:
    mark = [" ", badge("answers", "ok")] if version["serving"] else []
    how, parent = str(version["method"]) or "–", names.get(str(version["parent_id"]), "")
    if parent and parent != version["base"]:
        how += f", from {parent}"
    base = [] if version["kind"] == "base" else [tag("div", f"on {version['base']}", cls="tt-host")]
    made = look.ago(float(version["created_at"]))
    name = join([tag("strong", version["name"]), *mark, *base])
    return name, made, how, verdict_badge(version), version["rows"] or "–", measured(version["metrics"])


def measured(metrics: Mapping[str, Any], most: int = 3) -> Safe:
    """The first few figures of a training."""
    plainly = [(k, v) for k, v in metrics.items() if isinstance(v, int | float | str) and not isinstance(v, bool)]
    return join([tag("div", f"{name}: {figure(value)}") for name, value in plainly[:most]]) or escape("–")


def figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _one(versions: Sequence[Mapping[str, Any]], serving: Mapping[str, Any], names: Mapping[str, str]) -> None:
    known = {str(v["id"]): v for v in versions}
    if st.session_state.get("models-chosen") not in known:
        st.session_state["models-chosen"] = list(known)[-1]
    chosen = str(st.selectbox("Version", list(reversed(known)), format_func=lambda one: names[one][:100],
                              key="models-chosen"))  # fmt: skip
    version_changes.draw_actions(known[chosen], serving)
    version_detail.draw_detail(chosen, versions, names)


def _history(names: Mapping[str, str]) -> None:
    rows = []
    for line in session.client().version_history():
        name = names.get(str(line["version_id"]), str(line["version_id"]) or "nobody")
        what = join([ACTIONS.get(str(line["action"]), str(line["action"])), " ", tag("strong", name)])
        if line["action"] == "canary":
            share = float((line["evidence"] or {}).get("share") or 0)
            what = join([f"{share:.0%} of the conversations to ", tag("strong", name)])
            what = what if line["version_id"] else escape("ended the trial")
        rows.append((look.ago(float(line["at"])), what, line["by"], line["reason"] or "–"))
    draw(table(("When", "What", "Who", "Why"), rows))
