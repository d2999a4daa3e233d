"""One version of the model: the gate's evidence, its card, where it comes from, and what people's words changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import forgetting, look, session
from .cards import code
from .client import UiError
from .markup import badge, draw, note, notice, table, tag
from .untrusted import plain, render_untrusted
from .version_compare import side_by_side

PARTS = {
    "evidence": "Evidence",
    "feedback": "What you said",
    "samples": "Before and after",
    "lineage": "Lineage",
    "card": "Card",
}
SHOWN = 20


def draw_detail(version_id: str, versions: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    part = st.segmented_control(
        "Part", list(PARTS), default="evidence", format_func=PARTS.__getitem__, key="models-part", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    version = session.client().version(version_id)
    if part == "card":
        render_untrusted(session.client().version_card(version_id))
    elif part == "samples":
        _samples(version)
    elif part == "feedback":
        _feedback(version, names)
    elif part == "lineage":
        _lineage(version, versions, names)
    else:
        _evidence(version)


# --- the gate


def _evidence(version: Mapping[str, Any]) -> None:
    evidence = version["evidence"] or {}
    if version["kind"] == "base":
        note("The model as it was installed. There is nothing to prove.")
        return
    if version.get("fell"):
        notice("It answered, and was rolled back by itself.", f"{version['fell']}.", "bad")
    if not evidence:
        note("It has not been through the gate.")
        return
    kinds = {"promote": "ok", "hold": "bad"}
    notice(f"{str(evidence.get('verdict', '')).replace('_', ' ').capitalize()}: {evidence.get('verdict_reason', '')}",
           kind=kinds.get(str(evidence.get("verdict")), "warn"))  # fmt: skip
    if checks := evidence.get("checks"):
        rows = [(c["name"], _passed(c), c["found"], c["wanted"]) for c in checks]
        draw(table(("Check", "", "Found", "Wanted"), rows))
    others = {k: v for k, v in evidence.items() if k not in ("verdict", "verdict_reason", "checks", "samples", "more")}
    if plain_values := [(k.replace("_", " "), v) for k, v in others.items() if isinstance(v, str | int | float)]:
        draw(table((), plain_values))
    if version["metrics"]:
        note(tag("strong", "Measured in training"))
        draw(table((), [(k, _value(v)) for k, v in version["metrics"].items()]))


def _passed(check: Mapping[str, Any]) -> Any:
    if check["passed"]:
        return badge("passed", "ok")
    return badge("failed", "bad") if check.get("needed", True) else badge("failed", "warn", "Does not hold it back.")


def _value(found: Any) -> Any:
    if isinstance(found, float):
        return f"{found:.4g}"
    return code(found) if isinstance(found, Mapping | list) else str(found)


# --- what changed


def _samples(version: Mapping[str, Any]) -> None:
    samples = list((version["evidence"] or {}).get("samples") or ())
    if not samples:
        note("No samples were kept with it. “Compare answers” asks two versions the same thing now.")
    for number, sample in enumerate(samples[:SHOWN]):
        with st.container(border=True, key=f"sample-{number}"):
            note(tag("strong", sample.get("prompt", "")))
            _pair(sample, number)


def _pair(sample: Mapping[str, Any], number: object) -> None:
    side_by_side([("Before", str(sample.get("before", ""))), ("After", str(sample.get("after", "")))], f"{number}")


def _feedback(version: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """What the person's own words were that this version learnt from, and what they changed."""
    found = session.client().version_feedback(str(version["id"]))
    mine, rows = list(found["feedback"]), int(found["rows"])
    shaped = sum(bool(said.get("shaped", True)) for said in mine)
    _deleted(version)
    if not rows:
        note("No feedback given here shaped this version.")
    else:
        others = rows - shaped
        note(f"{shaped} of your judgements shaped this version", f", and {others} of others or withdrawn since"
             if others else "", ".")  # fmt: skip
    samples = {str(s.get("prompt", "")).strip(): s for s in (version["evidence"] or {}).get("samples") or ()}
    for number, said in enumerate(mine[:SHOWN]):
        with st.container(border=True, key=f"shaped-{number}"):
            draw(tag("div", badge(_words(said)), tag("span", look.ago(float(said["updated_at"])), cls="tt-host"),
                     cls="tt-card-head"))  # fmt: skip
            note(tag("strong", said["question"] or ""))
            sample = samples.get(str(said["question"] or "").strip())
            if said.get("after"):
                _pair({"before": said["completion"], "after": said["after"]}, f"shaped-{number}")
            elif sample:
                _pair(sample, f"shaped-{number}")
            else:
                render_untrusted(str(said["completion"]))
                _ask_again(version, said, number, names)


def _deleted(version: Mapping[str, Any]) -> None:
    """A version that learnt from what somebody deleted since, and the way to one that did not."""
    gone = int(version.get("rows_deleted") or 0)
    if gone:
        notice(f"{gone} of the judgements this version learnt from were deleted since.", "A model cannot unlearn.")
        forgetting.draw_retrain(version)


def _words(said: Mapping[str, Any]) -> str:
    if said["kind"] == "thumb":
        return f"{said['label']}: {'yes' if said['value'] else 'no'}"
    return "preferred" if said["kind"] == "preference" else "your version"


def _ask_again(version: Mapping[str, Any], said: Mapping[str, Any], number: int, names: Mapping[str, str]) -> None:
    """The same question to the version before and to this one, now."""
    parent = str(version["parent_id"] or "")
    before = parent if parent in names else next((one for one, name in names.items() if name == version["base"]), "")
    kept = st.session_state.setdefault("asked-again", {})
    key = (version["id"], said["id"])
    if before and st.button(
        "What does it say now?", key=f"again-{number}", icon=":material/compare_arrows:",
        help=f"Asks {plain(names[before], 40)} and {plain(version['name'], 40)} the same question.",
    ):  # fmt: skip
        try:
            kept[key] = session.client().compare(str(said["question"]), [before, str(version["id"])])
        except UiError as error:
            notice(error.message, error.advice, "bad")
    if key in kept:
        side_by_side([(str(a["name"]), str(a["text"])) for a in kept[key]], f"again-{number}")


# --- where it comes from


def _lineage(version: Mapping[str, Any], versions: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    manifest = version["manifest"]
    line = manifest.get("lineage") or {}
    parent = str(version["parent_id"] or "")
    children = [str(v["name"]) for v in versions if v["parent_id"] == version["id"]]
    datasets = [tag("div", name, " ", tag("span", str(digest)[:16] + "…", cls="tt-mono"))
                for name, digest in (line.get("datasets") or {}).items()]  # fmt: skip
    rows = [
        ("Base", manifest.get("base", "")),
        ("Trained from", names.get(parent, parent) or "the base"),
        ("Method", line.get("method", "")),
        ("Data sets", tag("div", *datasets) if datasets else ""),
        ("Judgements", line.get("rows") or ""),
        ("Job", line.get("job", "")),
        ("Seed", line.get("seed", "") if line.get("method") else ""),
        ("Reward model", str(line.get("reward_model", ""))[:16]),
        ("Trimtab", line.get("code", "")),
        ("Trained further", ", ".join(children)),
        ("Id", tag("span", version["id"], cls="tt-mono")),
    ]
    draw(table((), [row for row in rows if row[1]]))
    if recipe := line.get("recipe"):
        with st.expander("Recipe", icon=":material/receipt_long:", key="models-recipe"):
            draw(code(recipe))
    if parent in names and version["kind"] != "base":
        differs = session.client().version_diff(parent, str(version["id"]))["differs"]
        with st.expander("What differs from the version before", icon=":material/difference:", key="models-diff"):
            shown = [(name, _short(old), _short(new)) for name, (old, new) in differs.items()]
            draw(table(("What", plain(names[parent], 40), plain(version["name"], 40)), shown))


def _short(found: Any) -> str:
    text = "–" if found is None else str(found)
    return text if len(text) <= 60 else f"{text[:59]}…"
