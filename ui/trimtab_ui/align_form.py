"""Ordering an alignment: what to learn from, how, for how long, and the rest for whoever wants to turn it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from . import session
from .client import ApiError
from .markup import draw, note, notice, table, tag
from .untrusted import plain

METHODS = {
    "ppo": "PPO: practice against a reward model",
    "grpo": "GRPO: groups of answers, without a value head (TRL)",
    "rloo": "RLOO: leave one out (TRL)",
    "dpo": "DPO: straight from preferences (TRL)",
    "kto": "KTO: straight from 0/1 labels (TRL)",
    "sft": "SFT: copies what people wrote",
}
BUDGETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "demo": {"policy": {"steps": 12, "learning_rate": 0.0014}},
    "full": {},
    "try": {
        "data": {"prompts": 24, "judge_pairs": 8},
        "reward": {"rows": 32},
        "policy": {"steps": 2, "rollouts": 8, "max_tokens": 16},
        "gate": {"test_prompts": 6, "test_rows": 10, "parity_prompts": 3, "probes": False},
    },
}
BUDGET_NAMES = {
    "demo": "As in the worked example: some minutes",
    "full": "As long as it takes: nothing is cut short",
    "try": "Only to see it run: too short to learn anything",
}
ADVANCED: Mapping[str, Mapping[str, str]] = {
    "policy": {
        "kl_target": "KL target", "kl_cap": "KL cap", "learning_rate": "Learning rate",
        "rollouts": "Completions a step", "max_tokens": "Tokens a completion",
    },
    "rewards": {
        "reward_model": "Weight of the reward model", "length": "Weight against length",
        "length_limit": "Words before that counts",
    },
    "data": {"human_weight": "Weight of people's say", "ai_weight": "Weight of the constitution's say",
             "prompts": "Training prompts, at most"},
    "reward": {"rows": "Reward model: judgements, at most"},
    "gate": {"test_prompts": "Gate: prompts", "test_rows": "Gate: judgements"},
}  # fmt: skip
FEW = 270
"""Judgements that the gate asks for when the reward model is right in 85 of 100 held-out ones; 340 at 80 of 100."""


def draw_form() -> None:
    recipe = _recipe()
    given = _given()
    usable = sum(given["trains"].values())
    _feedback(given, usable)
    budget = st.selectbox("How long", list(BUDGETS), format_func=BUDGET_NAMES.__getitem__, key="align-budget")
    with st.form("align-form", border=True):
        wanted = _main(recipe, str(budget), usable)
        with st.expander("Advanced", icon=":material/tune:", key="align-advanced"):
            for section, names in ADVANCED.items():
                _section(recipe, section, names, str(budget), wanted)
        ordered = st.form_submit_button("Train", key="align-start", type="primary", icon=":material/play_arrow:")
    if ordered:
        _order(wanted, given)


def _recipe() -> dict[str, Any]:
    if "align-recipe" not in st.session_state:
        st.session_state["align-recipe"] = session.client().align_recipe()
    found: dict[str, Any] = st.session_state["align-recipe"]
    return found


# --- how much feedback there is


def _given() -> dict[str, Any]:
    """How much was said here and what becomes of it: everybody's for who curates, else one's own."""
    client = session.client()
    try:
        counts: dict[str, Any] = client.outcomes(everybody=True, limit=1)["counts"]
    except ApiError as error:
        if error.status != 403:
            raise
        counts = client.outcomes(limit=1)["counts"]
    return counts


def _feedback(given: Mapping[str, Any], usable: int) -> None:
    if not given["given"]:
        note("Nobody has rated an answer here yet. The data that comes with Trimtab shows how aligning works; "
             "rate answers in the chat or on the Label page to align to your own.")  # fmt: skip
        return
    told = ", ".join(f"{count} {KINDS.get(kind, kind)}" for kind, count in given["trains"].items())
    note(tag("strong", f"{usable} of {given['given']} judgements given here would train"),
         f": {told}." if told else ".")  # fmt: skip
    if left := sorted(given["left_out"].items(), key=lambda one: -one[1]):
        with st.expander("What curation leaves out", icon=":material/filter_alt:", key="align-left-out"):
            draw(table(("Rule", "Judgements"), left))
            note("The Label page shows each with its reason; who curates may let it in.")
    if usable < FEW:
        notice(f"{usable} judgements are too few to prove anything.",
               f"The gate asks for about {FEW}, and for more where people's taste is hard to tell; it says how many. "
               "Rate more, or let the data that comes with Trimtab join in.", "info")  # fmt: skip


KINDS = {"label": "0/1 labels", "preference": "preferences", "demonstration": "demonstrations"}


# --- the form


def _main(recipe: Mapping[str, Any], budget: str, usable: int) -> dict[str, Any]:
    st.text("Learn from")
    data = {
        "bundled": st.checkbox("The data that comes with Trimtab", value=True, key="align-bundled"),
        "feedback": st.checkbox(plain(f"What people said here ({usable})"), value=usable > 0, key="align-feedback"),
        "constitution": st.checkbox("The constitution", key="align-constitution",
                                    help="The model's own judgement under its principles (RLAIF)."),
        "labels_only": st.checkbox("Of all that only the 0/1 labels", key="align-labels-only"),
    }  # fmt: skip
    left, right = st.columns(2)
    with left:
        method = st.selectbox("Method", list(METHODS), format_func=METHODS.__getitem__, key="align-method")
        name = st.text_input("Name of the version", value=recipe["defaults"]["name"], max_chars=80, key="align-name")
    with right:
        steps = _number(recipe, "policy", "steps", "Steps", budget)
        seed = st.number_input("Seed", 0, 2**31 - 1, value=0, step=1, key="align-seed")
    wanted: dict[str, Any] = {"name": name.strip(), "method": method, "seed": int(seed)}
    for section, few in BUDGETS[budget].items():
        wanted[section] = dict(few)
    wanted.setdefault("data", {}).update(data)
    wanted.setdefault("policy", {})["steps"] = steps
    return wanted


def _section(
    recipe: Mapping[str, Any], section: str, names: Mapping[str, str], budget: str, wanted: dict[str, Any]
) -> None:
    for start in range(0, len(names), 3):
        few = list(names.items())[start : start + 3]
        for column, (name, label) in zip(st.columns(3), few, strict=False):
            with column:
                wanted.setdefault(section, {})[name] = _number(recipe, section, name, label, budget)


def _number(recipe: Mapping[str, Any], section: str, name: str, label: str, budget: str) -> float | int:
    """A number within what the schema allows; the budget chooses where it begins."""
    about = recipe["schema"]["$defs"][section.capitalize()]["properties"][name]
    value = BUDGETS[budget].get(section, {}).get(name, recipe["defaults"][section][name])
    kind = int if about["type"] == "integer" else float
    least = about.get("minimum", 0)
    small = kind is float and value < 0.01
    found = st.number_input(
        plain(label), kind(least), kind(about["maximum"]), value=kind(value), key=f"align-{section}-{name}-{budget}",
        step=1 if kind is int else (0.0001 if small else 0.5), format=None if kind is int else "%.4f" if small
        else "%.2f", help=plain(" ".join(str(about.get("description", "")).split()), 200) or None,
    )  # fmt: skip
    return kind(found)


def _order(wanted: dict[str, Any], given: Mapping[str, Any]) -> None:
    if fault := too_little(wanted["data"], given["trains"]):
        notice(fault, "Choose more to learn from.", "bad")
        return
    job = session.act(session.client().start_job, "align", wanted)
    if job is not None:
        st.session_state["align-ordered"] = job["id"]
    st.rerun()


def too_little(data: Mapping[str, Any], trains: Mapping[str, int]) -> str:
    """Why a training could not even begin; empty when it can. `trains` says how many of each kind could be learnt."""
    if not any(data[source] for source in ("bundled", "feedback", "constitution")):
        return "There is nothing to learn from."
    if data["bundled"]:
        return ""
    if not (trains.get("label") if data["labels_only"] else sum(trains.values())):
        what = "0/1 labels" if data["labels_only"] else "judgements"
        return f"There are no {what} of people's here to learn from, and what is learnt has to be tried on some."
    if not data["feedback"]:
        return "The constitution's judge is measured against people's, so some of those have to be there as well."
    return ""
