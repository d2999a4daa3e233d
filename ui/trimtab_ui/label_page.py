"""The Label page: one answer, or two side by side, and a person's word on it. Made for the keyboard.

The server says what to ask next. Which of two answers stands on which side is drawn by lot there, and nothing here
tells them apart. What was said goes to the server at once; Undo takes the last word back and shows its item again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import outcomes, session
from .client import UiError
from .markup import draw, note, tag
from .untrusted import plain, render_untrusted

VIEWS = {"rate": "Rate", "compare": "Compare", "given": "What you said"}
SKIPPED = 200
"""Skipped items that are remembered; older ones may be asked again."""
PAST = 6
"""Messages before the question that are shown."""


def page() -> None:
    about = "Your word on answers is what the model learns from. Which answers, and whether it may, is up to you."
    draw(tag("div", tag("h2", "Label"), tag("p", about), cls="tt-hero"))
    session.draw_told()
    choices = session.choices()
    view = st.segmented_control(
        "What to do", list(VIEWS), default="rate", format_func=VIEWS.__getitem__, key="label-view", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if view == "given":
        outcomes.draw_given()
        return
    label = _label(list(choices["labels"])) if view == "rate" else ""
    _ask(str(view), label, choices)


def _label(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    chosen = st.segmented_control(
        "Is the answer", labels, default=labels[0], format_func=plain, key="label-name", required=True
    )
    return str(chosen)


# --- one item


def _ask(view: str, label: str, choices: Mapping[str, Any]) -> None:
    found = _item(view, label)
    item, progress = found["item"], found["progress"]
    _progress(progress, label)
    if item is None:
        note("Nothing is left to ask you here. Chat, regenerate an answer to have two to compare, or import data.")
        _undo_button(view, label)
        return
    key = f"{view}-{label}-{item['id']}"
    _conversation(item["conversation"])
    if view == "rate":
        _rate(item, label, choices, key)
    else:
        _compare(item, key)
    _consent(choices)


def _item(view: str, label: str) -> dict[str, Any]:
    """What is asked now, kept until there is an answer: a rerun must not deal the sides anew."""
    kept = st.session_state.setdefault("label-items", {})
    if (view, label) not in kept:
        mode = "label" if view == "rate" else "compare"
        skipped = list(st.session_state.get("label-skipped", ()))
        kept[view, label] = session.client().next_to_label(mode, label or "helpful", skipped)
    found: dict[str, Any] = kept[view, label]
    return found


def _progress(progress: Mapping[str, Any], label: str) -> None:
    done, left = int(progress["done"]), int(progress["left"])
    if done or left:
        st.progress(done / (done + left), text=plain(f"{done} judged, {left} to go"))
    found = session.client().agreement().get(label or "preference")
    if found and found.get("coefficient") is not None:
        name = "Cohen's kappa" if found["name"] == "kappa" else "Krippendorff's alpha"
        note(
            f"People agree here: {name} {found['coefficient']:.2f}, {found['percent']:.0%} the same, over "
            f"{found['items']} judged by two or more."
        )


def _conversation(said: Sequence[Mapping[str, Any]]) -> None:
    with st.container(key="label-conversation"):
        if len(said) > PAST + 1:
            note(f"… {len(said) - PAST - 1} earlier messages")
        for message in said[-PAST - 1 :]:
            person = message["role"] == "user"
            with st.chat_message("user" if person else "assistant"):
                render_untrusted(str(message["text"]))


def _rate(item: Mapping[str, Any], label: str, choices: Mapping[str, Any], key: str) -> None:
    answer = item["answers"][0]
    with st.container(border=True, key="label-answer"):
        render_untrusted(str(answer["text"]))
    words = [str(reason["words"]) for reason in choices["reasons"]]
    reason = st.pills("If not, why?", words, format_func=plain, key=f"label-reason-{key}")
    with st.container(horizontal=True, gap="small", key="label-actions"):
        for text, value, shortcut, icon in (
            ("Yes", 1, "Y", ":material/thumb_up:"),
            ("No", 0, "N", ":material/thumb_down:"),
        ):
            said = {"kind": "thumb", "message_id": answer["id"], "value": value, "label": label}
            if value == 0 and reason:
                said["reason"] = reason
            st.button(plain(text), key=f"label-{text.lower()}", icon=icon, shortcut=shortcut, type="primary",
                      on_click=_said, args=("rate", label, said))  # fmt: skip
        _other_buttons("rate", label)
    _edit(item, label, key)


def _edit(item: Mapping[str, Any], label: str, key: str) -> None:
    answer = item["answers"][0]
    with st.expander("Write what it should have been", icon=":material/edit:", key=f"label-edit-{key}"):
        with st.form(f"label-edit-form-{key}", border=False):
            text = st.text_area("Answer", value=str(answer["text"]), key=f"label-text-{key}", height=180)
            sent = st.form_submit_button("Save", key="label-save")
        if sent and text.strip():
            _said("rate", label, {"kind": "edit", "message_id": answer["id"], "text": text}, stay=True)
            st.rerun()


def _compare(item: Mapping[str, Any], key: str) -> None:
    one, other = item["answers"]
    with st.container(key="label-pair"):
        for column, answer, name in zip(st.columns(2), (one, other), ("A", "B"), strict=True):
            with column, st.container(border=True, height="stretch", key=f"label-side-{name.lower()}"):
                draw(tag("div", name, cls="tt-where"))
                render_untrusted(str(answer["text"]))
    with st.container(horizontal=True, gap="small", key="label-actions"):
        for text, chosen, rejected, shortcut in (
            ("A is better", one, other, "A"),
            ("B is better", other, one, "B"),
        ):
            said = {"kind": "preference", "chosen_id": chosen["id"], "rejected_id": rejected["id"]}
            st.button(plain(text), key=f"label-{text[0].lower()}", shortcut=shortcut, type="primary",
                      on_click=_said, args=("compare", "", said))  # fmt: skip
        _other_buttons("compare", "")


def _other_buttons(view: str, label: str) -> None:
    st.button("Skip", key="label-skip", icon=":material/skip_next:", shortcut="S", on_click=_skip, args=(view, label))
    _undo_button(view, label)


def _undo_button(view: str, label: str) -> None:
    last = st.session_state.get("label-last")
    here = last is not None and last["at"] == (view, label)
    st.button("Undo", key="label-undo", icon=":material/undo:", shortcut="U", disabled=not here, on_click=_undo)


def _consent(choices: Mapping[str, Any]) -> None:
    # A default, not a value put into the session: a browser that missed the run which put it there would show "off".
    st.toggle("What I say here may train the model", value=bool(choices["consent"]), key="label-consent")


# --- what a person does


def _said(view: str, label: str, judgement: dict[str, Any], *, stay: bool = False) -> None:
    """Send it; then the next item, unless there is more to say about this one."""
    consent = bool(st.session_state.get("label-consent", session.choices()["consent"]))
    kept = session.act(session.client().feedback, **judgement, consent=consent)
    if kept is None:
        return
    if stay:
        session.tell("Your version is kept. The answer itself can still be rated.", kind="ok")
        return
    item = st.session_state["label-items"].pop((view, label), None)
    st.session_state["label-last"] = {"at": (view, label), "feedback": kept["id"], "item": item}


def _skip(view: str, label: str) -> None:
    item = st.session_state["label-items"].pop((view, label), None)
    if item is not None and item["item"] is not None:
        skipped = [*st.session_state.get("label-skipped", ()), item["item"]["id"]]
        st.session_state["label-skipped"] = skipped[-SKIPPED:]


def _undo() -> None:
    """The last word is taken back, and its item is asked again as it was."""
    last = st.session_state.pop("label-last", None)
    if last is None:
        return
    try:
        session.client().withdraw(last["feedback"])
    except UiError as error:
        session.tell(error.message, error.advice)
        return
    st.session_state["label-items"][last["at"]] = last["item"]
