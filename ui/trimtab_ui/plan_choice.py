"""What was measured, judged by the plan: the one that is chosen and why, the picture, and why not each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from . import look, session
from .markup import Safe, badge, draw, join, note, notice, table, tag

LOSSES = (
    (0.01, "#2a8f60", "up to 1 % worse"),
    (0.05, "#c8791f", "up to 5 % worse"),
    (1e9, "#b93a3a", "more than 5 % worse"),
)
"""Largest loss of quality, its colour by day and by night, and the same in words."""

ANSWERS = {"preferences": "As people prefer", "tools": "Right tool", "cited": "Cited right", "reward": "Reward"}


def draw_choice(found: Mapping[str, Any]) -> None:
    judged = session.client().measurements()
    rows = list(judged["rows"])
    if not rows:
        note("Nothing was measured for this plan yet. Measure first: it takes about a minute a variant.")
        st.button("Measure", key="plan-to-measure", type="primary", icon=":material/speed:", on_click=_to_measure)
        return
    by_key = {str(row["key"]): row for row in rows}
    if refusal := judged["refusal"]:
        _none(refusal, by_key.get(str(judged["nearest"])))
    else:
        _chosen(by_key[str(judged["chosen"])], found, judged["plan"])
    _picture(rows)
    figures(rows)
    _why_not(rows)


def _to_measure() -> None:
    st.session_state["plan-go"] = "measure"


# --- the choice


def _chosen(row: Mapping[str, Any], found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    with st.container(border=True, key="plan-chosen"):
        draw(
            tag(
                "div",
                badge("chosen", "ok"),
                tag("strong", row["variant"]),
                tag("span", f" {row['threads']} threads · batch {row['batch']}", cls="tt-host"),
                cls="tt-card-head",
            )
        )
        note("Of those that meet every target it takes the least memory.")
        draw(_kept(row, found["plan"], found["machine"]))
        if _is_served(row, found["serving"]):
            note("It is served.")
            return
        st.button(
            "Serve it",
            key="plan-apply",
            type="primary",
            icon=":material/publish:",
            on_click=session.open_dialog,
            args=("plan-apply",),
            kwargs={"variant": str(row["variant"]), "plan": dict(plan)},
        )


def _is_served(row: Mapping[str, Any], serving: Mapping[str, Any]) -> bool:
    now = {"variant": row["variant"], "threads": row["threads"], "batch": row["batch"], "parallel": row["slots"]}
    return serving["last"] is not None and all(serving.get(name) == value for name, value in now.items())


def _none(refusal: Mapping[str, Any], nearest: Mapping[str, Any] | None) -> None:
    with st.container(border=True, key="plan-none"):
        notice("No measured variant meets every target.", refusal["message"], "bad")
        if nearest:
            draw(tag("div", badge("nearest", "warn"), tag("strong", nearest["variant"]), cls="tt-card-head"))
            draw(tag("div", tag("ul", *(tag("li", miss["words"]) for miss in nearest["misses"])), cls="tt-text"))
        note("Change that target under Questions, allow more, or choose a smaller model.")


def _kept(row: Mapping[str, Any], plan: Mapping[str, Any], machine: Mapping[str, Any]) -> Safe:
    """Each target, and what was found."""
    targets, budget, quality = plan["targets"], plan["budget"], row["quality"]
    memory = budget["memory_mb"] * 1e6 or machine["memory"]
    lines = [
        ("First word, 95 of 100", f"{row['first_p95']:.2f} s", f"at most {targets['first_token_p95']:g} s"),
        ("Each answer", f"{row['tokens_per_second']:.1f} tokens/s", f"at least {targets['tokens_per_second']:g}"),
        ("Memory", _mb(row["memory"]), f"at most {_mb(memory)}"),
        ("Disk", _mb(row["disk"]), f"at most {budget['disk_mb']:,} MB" if budget["disk_mb"] else "what is free"),
        ("Loss", _loss(row), f"at most {plan['quality']['largest_loss']:.1%}" if quality else "not measured"),
    ]
    heads = ("", f"Found, with {row['users']} at once" if row["users"] > 1 else "Found", "Wanted")
    return table(heads, [(name, tag("strong", got), wanted) for name, got, wanted in lines])


# --- all rows


def figures(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table, in the order they came: the cheapest first."""
    heads = ("Variant", "First word p95", "Tokens/s each", "All", "Memory", "Disk", "Loss", "KL")
    told = [name for name in ANSWERS if any((row["answers"] or {}).get(name) for row in rows)]
    draw(table((*heads, *(ANSWERS[name] for name in told)), [(*_figures(row), *_answers(row, told)) for row in rows]))
    note("* nothing else is as fast, small and good. First word and speed with all users asking at once.")


def _figures(row: Mapping[str, Any]) -> tuple[object, ...]:
    marks = [badge("chosen", "ok")] if row["chosen"] else []
    marks += [badge("busy", "warn", "The machine had other work while this was measured.")] if row["busy"] else []
    star = "*" if row["on_front"] else ""
    how = f"{row['threads']} threads · batch {row['batch']} · {look.ago(float(row['at']))}"
    quality = row["quality"]
    return (
        join([tag("strong", f"{row['variant']}{star} "), *marks, tag("div", how, cls="tt-host")]),
        f"{row['first_p95']:.2f}\u00a0s",
        f"{row['tokens_per_second']:.1f}",
        f"{row['total']:.0f}",
        _mb(row["memory"]),
        _mb(row["disk"]),
        _loss(row),
        f"{quality['divergence'][0]:.4f}" if quality else "–",
    )


def _answers(row: Mapping[str, Any], names: Sequence[str]) -> list[object]:
    """What its answers to fixed questions are worth, each with its interval in the title."""
    found: list[object] = []
    for name in names:
        measured = (row["answers"] or {}).get(name)
        if measured is None:
            found.append("–")
            continue
        value, low, high = measured
        words = f"{value:+.2f}" if name == "reward" else f"{value:.0%}"
        bounds = f"{low:+.2f} to {high:+.2f}" if name == "reward" else f"{low:.0%} to {high:.0%}"
        found.append(tag("span", words, title=f"95 of 100: {bounds}"))
    return found


def _why_not(rows: Sequence[Mapping[str, Any]]) -> None:
    others = [row for row in rows if not row["chosen"]]
    if not others:
        return
    with st.expander("Why not the others", expanded=True, icon=":material/help:", key="plan-why-not"):
        found = [
            (
                join(
                    [
                        tag("strong", row["variant"]),
                        tag("div", f"{row['threads']} threads · batch {row['batch']}", cls="tt-host"),
                    ]
                ),
                row["why_not"] or "–",
            )
            for row in others
        ]
        draw(table(("Variant", "Why not"), found))
    with st.expander("Measure a row again", icon=":material/terminal:", key="plan-commands"):
        draw(table(("Variant", "In a terminal"), [(row["variant"], tag("code", row["command"])) for row in rows]))


def _loss(row: Mapping[str, Any]) -> str:
    if not row["quality"]:
        return "–"
    value, low, high = row["quality"]["loss"]
    return f"{value:+.1%}" if high - low < 0.0005 else f"{value:+.1%} [{low:+.1%}, {high:+.1%}]"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}\u00a0MB"


# --- the picture


def _picture(rows: Sequence[Mapping[str, Any]]) -> None:
    """Speed to the right, memory upwards, quality as colour; filled is what nothing beats, ringed what is chosen."""
    draw(tag("div", tag("strong", "Speed, memory and quality"), cls="tt-note"))
    st.vega_lite_chart(
        spec=spec(rows),
        height=380,
        width="stretch",
        key="plan-picture",
        alt="Each variant by tokens a second of all users and memory, coloured by its loss of quality",
    )
    note(
        "To the right is faster, further down is smaller. Filled: nothing else is as fast, small and good. "
        "The ring: chosen."
    )


def spec(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The picture as Vega-Lite; its texts are names of variants and figures."""
    middle = sum(row["total"] for row in rows) / len(rows)
    values = [_point(row, middle) for row in rows]
    x = {
        "field": "speed",
        "type": "quantitative",
        "title": "tokens a second, all users",
        "scale": {"zero": False, "padding": 30},
    }
    y = {"field": "memory", "type": "quantitative", "title": "MB of memory", "scale": {"zero": False, "padding": 30}}
    words = [words for _, _, words in LOSSES]
    there = [w for w in words if any(point["quality"] == w for point in values)]
    colours = [colour for _, colour, w in LOSSES if w in there]
    colour = {
        "field": "quality",
        "type": "nominal",
        "title": None,
        "scale": {"domain": there, "range": colours},
        "legend": {"orient": "top", "columns": 2},
    }
    told = [
        {"field": name, "title": title}
        for name, title in (
            ("name", "variant"),
            ("speed", "tokens/s"),
            ("memory", "MB"),
            ("first", "first word p95"),
            ("loss", "loss"),
        )
    ]
    front, chosen = {"filter": "datum.front"}, {"filter": "datum.chosen"}
    return {
        "data": {"values": values},
        "layer": [
            {
                "transform": [chosen],
                "mark": {"type": "point", "size": 420, "strokeWidth": 2.5, "color": "#2b8286"},
                "encoding": {"x": x, "y": y},
            },
            {
                "transform": [{"filter": "!datum.front"}],
                "mark": {"type": "point", "size": 90, "strokeWidth": 2},
                "encoding": {"x": x, "y": y, "color": colour, "tooltip": told},
            },
            {
                "transform": [front],
                "mark": {"type": "circle", "size": 130, "opacity": 1},
                "encoding": {"x": x, "y": y, "color": colour, "tooltip": told},
            },
            *(_names(x, y, side) for side in ("left", "right")),
        ],
    }


def _names(x: Mapping[str, Any], y: Mapping[str, Any], side: str) -> dict[str, Any]:
    """What is far to the right is named on its left: there is room."""
    mark = {"type": "text", "align": side, "dx": 12 if side == "left" else -12, "dy": -10, "color": "#7d8f92"}
    return {
        "transform": [{"filter": f"datum.named == '{side}'"}],
        "mark": {**mark, "fontSize": 12},
        "encoding": {"x": x, "y": y, "text": {"field": "name"}},
    }


def _point(row: Mapping[str, Any], middle: float) -> dict[str, Any]:
    side = "left" if row["total"] <= middle else "right"
    lost = row["quality"]["loss"][0] if row["quality"] else 0.0
    return {
        "name": row["variant"],
        "speed": round(row["total"], 1),
        "memory": round(row["memory"] / 1e6),
        "quality": next(words for most, _, words in LOSSES if lost <= most),
        "loss": f"{lost:+.1%}",
        "first": f"{row['first_p95']:.2f} s",
        "front": bool(row["on_front"]),
        "chosen": bool(row["chosen"]),
        "named": side if row["on_front"] or row["chosen"] else "",
    }
