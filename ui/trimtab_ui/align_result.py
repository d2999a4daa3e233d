"""What an alignment came to: the gate's verdict, its checks, and answers before and after side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import models_page
from .markup import badge, draw, note, notice, table, tag
from .version_compare import side_by_side

VERDICTS = {
    "promote": ("It is better. It can be promoted.", "ok"),
    "hold": ("Held: it is not shown to be better.", "bad"),
    "not_enough": ("It is too early to tell.", "warn"),
}
SHOWN = 6


def draw_result(job: Mapping[str, Any]) -> None:
    evidence = job["result"].get("evidence") or {}
    words, kind = VERDICTS.get(str(evidence.get("verdict")), ("It is done.", "info"))
    reason = str(evidence.get("verdict_reason", ""))
    notice(words, reason[:1].upper() + reason[1:], kind)
    with st.container(border=True, key="align-result"):
        note("It made the version ", tag("strong", job["name"]), ". Promoting it, comparing answers and going back are "
             "on the Models page; until then nothing changes for whoever chats.")  # fmt: skip
        if st.button("Go to Models", key="align-to-models", type="primary", icon=":material/deployed_code:"):
            _to_models(str(job["result"].get("version", "")))
    if checks := evidence.get("checks"):
        rows = [(c["name"], _passed(c), c["found"], c["wanted"]) for c in checks]
        draw(table(("Check", "", "Found", "Wanted"), rows))
    if samples := list(evidence.get("samples") or ())[:SHOWN]:
        st.subheader("Before and after", anchor=False)
        for number, sample in enumerate(samples):
            with st.container(border=True, key=f"align-sample-{number}"):
                note(tag("strong", sample["prompt"]))
                side_by_side([("Before", str(sample["before"])), ("After", str(sample["after"]))], f"align-{number}")


def _passed(check: Mapping[str, Any]) -> Any:
    if check["passed"]:
        return badge("passed", "ok")
    return badge("failed", "bad") if check.get("needed", True) else badge("failed", "warn", "Does not hold it back.")


def _to_models(version: str) -> None:
    st.session_state["models-chosen"] = version
    st.session_state["models-view"] = "version"
    st.switch_page(st.Page(models_page.page, title="Models", url_path="models"))
