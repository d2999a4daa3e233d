"""A training in pictures: its curves, what the policy says as it learns, and what the reward model is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from .align_seen import Seen
from .markup import Safe, badge, draw, join, note, table, tag
from .untrusted import render_untrusted
from .version_compare import side_by_side

SAMPLES = 4
MISTAKES = 5
HEIGHT = 230
COLOURS = ("#2b8286", "#c8791f", "#9a6fb0")
"""Of at most three lines; seen by day and by night."""

Series = Mapping[str, Sequence[tuple[int, Any]]]
"""Name to points; a point without a value is not drawn."""


def draw_curves(seen: Seen, recipe: Mapping[str, Any], *, live: bool) -> None:
    policy = seen.curves["policy"]
    if "data" in seen.said:
        rows = seen.said["data"].get("rows", {})
        note("Judgements: ", ", ".join(f"{count} {name}" for name, count in rows.items()), ".")
    if policy:
        _policy(policy, recipe)
    if seen.judged or "judges" in seen.said:
        _constitution(seen)
    if seen.curves["reward"]:
        with st.expander("The reward model", expanded=live and not policy, icon=":material/balance:",
                         key="align-reward"):  # fmt: skip
            _reward(seen.curves["reward"], seen.said.get("reward report"), "r")
    if seen.curves["judge"]:
        with st.expander("The judge of the result", icon=":material/gavel:", key="align-judge"):
            note("A second reward model, trained on other prompts. The policy never practises against it.")
            _reward(seen.curves["judge"], seen.said.get("judge report"), "j")


# --- the policy


def _policy(steps: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> None:
    last = steps[-1]
    draw(tag("div", tag("strong", f"Step {last['step']} of {last['steps']}"), *_figures(last), cls="tt-card-head"))
    if "kl_sequence" not in last:
        _plain(steps)
        return
    bounds = recipe.get("policy", {})
    first, final = int(steps[0]["step"]), int(last["step"])
    target, cap = bounds.get("kl_target"), bounds.get("kl_cap")
    left, right = st.columns(2)
    with left:
        _chart("Reward", {"in practice": _of(steps, "reward"), "held-out prompts": _of(steps, "held_out")},
               "The reward in practice and on held-out prompts, by step")  # fmt: skip
        _chart("Losses", {"policy": _of(steps, "policy_loss"), "value": _of(steps, "value_loss")},
               "Losses of policy and value head, by step")  # fmt: skip
    with right:
        _chart("KL: nats a completion from the reference",
               {"KL": _of(steps, "kl_sequence"), "target": [(first, target), (final, target)],
                "cap": [(first, cap), (final, cap)]}, "KL with its target and cap, by step")  # fmt: skip
        _chart("Length and variety, against the first step",
               {"tokens": _against_first(steps, "tokens"), "distinct word pairs": _against_first(steps, "distinct"),
                "entropy": _against_first(steps, "entropy")}, "Length and diversity, by step")  # fmt: skip
    _samples(last)


def _figures(step: Mapping[str, Any]) -> list[Safe]:
    """The last step's figures as small labels."""
    shown = {
        "reward": "reward", "held_out": "held-out", "kl_sequence": "KL", "kl_coefficient": "KL coefficient",
        "entropy": "entropy", "tokens": "tokens", "ended": "came to an end", "distinct": "distinct", "loss": "loss",
    }  # fmt: skip
    found = {words: step.get(key) for key, words in shown.items()}
    marks = [badge(f"{words} {value:.3g}") for words, value in found.items() if isinstance(value, int | float)]
    if step.get("stopped") == "rejected":
        marks.append(badge("over the KL cap: taken back", "warn", "The step went too far from the reference."))
    elif step.get("stopped"):
        marks.append(badge("ended early", "", f"The update stopped by itself: {step['stopped']}."))
    return marks


def _plain(steps: Sequence[Mapping[str, Any]]) -> None:
    """Of methods that report other figures: each that is a number, one chart for the loss."""
    _chart("Loss", {"loss": _of(steps, "loss")}, "The loss, by step")
    rest = {k: v for k, v in steps[-1].items() if isinstance(v, int | float) and k not in ("at", "step", "steps")}
    with st.expander("All figures of the last step", key="align-figures"):
        draw(table((), [(name, f"{value:.4g}") for name, value in rest.items()]))


def _samples(step: Mapping[str, Any]) -> None:
    samples = list(step.get("samples") or ())[:SAMPLES]
    if not samples:
        return
    with st.expander(f"What it said in step {int(step['step'])}", expanded=True, icon=":material/chat:",
                     key="align-samples"):  # fmt: skip
        for sample in samples:
            draw(tag("div", badge(f"{sample['reward']:+.2f}", "", "The reward."), tag("strong", sample["prompt"]),
                     cls="tt-card-head"))  # fmt: skip
            render_untrusted(str(sample["completion"]) or "(empty)")


# --- reward models


def _reward(steps: Sequence[Mapping[str, Any]], report: Mapping[str, Any] | None, key: str) -> None:
    _chart("Loss, and share of the batch it has right",
           {"loss": _of(steps, "loss"), "right": _of(steps, "accuracy")}, "Loss and accuracy by step")  # fmt: skip
    if report:
        draw_report(report, key)


def draw_report(report: Mapping[str, Any], key: str) -> None:
    """What held-out judgements say about a reward model."""
    rows = [
        ("Held-out judgements", report["rows"]),
        ("It agrees with", _share(report["accuracy"])),
        ("… of preferences", _share(report["preference_accuracy"])),
        ("… of 0/1 labels", _share(report["label_accuracy"])),
        ("… where the shorter is better", _share(report["accuracy_shorter_better"])),
        ("… where the longer is better", _share(report["accuracy_longer_better"])),
        ("Score and length correlate by", f"{report['length_correlation']:+.2f} (near 1: it pays for length)"),
        ("How far off its confidence is", f"{report['calibration_error']:.2f} at the mean"),
    ]
    draw(table((), [row for row in rows if row[1]]))
    bins = [b for b in report["bins"] if b["rows"]]
    if len(bins) > 1:
        found = [(round(100 * b["confidence"]), 100 * b["accuracy"]) for b in bins]
        even = [(x, x) for x, _ in found]
        _chart("Calibration: how sure it is, and how often it is right",
               {"right, %": found, "as it should be": even}, "Calibration curve", x="sure, %")  # fmt: skip
    mistakes = list(report.get("mistakes") or ())[:MISTAKES]
    if mistakes and st.toggle("What it is most wrong about", key=f"align-mistakes-{key}"):
        for number, wrong in enumerate(mistakes):
            note(tag("strong", wrong["prompt"]), f" It was wrong by {abs(wrong['margin']):.1f} nats.")
            side_by_side([("People say: better", str(wrong["better"])), ("Worse", str(wrong["worse"] or "–"))],
                         f"wrong-{key}-{number}")  # fmt: skip


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


# --- the constitution


def _constitution(seen: Seen) -> None:
    with st.expander("The constitution's judge", icon=":material/menu_book:", key="align-judges"):
        if said := seen.said.get("judges"):
            draw_judges(said["agreement"])
        if seen.judged:
            made = [(one["principle"], one["form"], one["split"], one["rows"]) for one in seen.judged.values()]
            draw(table(("Principle", "Judged by", "Split", "Preferences made"), made))


def draw_judges(agreement: Sequence[Mapping[str, Any]]) -> None:
    """Which principles have a judge worth listening to."""
    rows = [
        (tag("strong", one["principle"]), badge(one["form"], "ok") if one["usable"] else badge("not used", "warn"),
         one["why"])
        for one in agreement
    ]  # fmt: skip
    draw(table(("Principle", "Judged by", "Why"), rows))


# --- drawing


def _of(steps: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, Any]]:
    return [(int(step["step"]), step.get(name)) for step in steps]


def _against_first(steps: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, Any]]:
    """In times of what it was at the first step: figures of different sizes on one scale."""
    first = steps[0].get(name)
    return [(at, value / first if value is not None else None) for at, value in _of(steps, name)] if first else []


def _chart(name: str, series: Series, alt: str, x: str = "step") -> None:
    """Lines over steps. Where a line has no point its last one holds; one step is no line: then the chart waits."""
    lines = {line: {at: value for at, value in few if value is not None} for line, few in series.items()}
    lines = {line: points for line, points in lines.items() if points}
    steps = sorted({at for points in lines.values() for at in points})
    draw(tag("div", tag("strong", name), cls="tt-note"))
    if len(steps) < 2:
        said = [f"{line}: {next(iter(points.values())):.3g}. " for line, points in lines.items()]
        note(join(said) or "Nothing yet.")
        return
    data = {x: steps, **{line: _held(points, steps) for line, points in lines.items()}}
    st.line_chart(data, x=x, y=list(lines), color=list(COLOURS[: len(lines)]), x_label=x, y_label="",
                  height=HEIGHT, alt=alt)  # fmt: skip


def _held(points: Mapping[int, float], steps: Sequence[int]) -> list[float | None]:
    found: list[float | None] = []
    for at in steps:
        found.append(points.get(at, found[-1] if found else None))
    return found
