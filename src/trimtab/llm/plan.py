"""What a message asks for: calls that are ready, calls that lack a value, or nothing.

A message may ask two things. It is cut into clauses; where at least two of them, each by itself, call for different
tools, each gets its call. In every other case the message is taken as a whole, so that cutting cannot hurt it.

A conversation is folded from its earlier messages each time: when the assistant's last words are the question that
the message before them would have led to, the new message is first tried as the answer to it. Nothing is kept
between calls, so it works for a client that sends the whole conversation each time.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .arguments import Filling, fill, put
from .asking import question_for
from .router import Router, Routing
from .slots import Kind, Slot, slots_of
from .toolspec import ToolSpec
from .words import Likeness

MAX_CALLS = 4
_MAX_CHARS = 4000
"""A longer message is material to work on, not a request; its beginning is read."""
_MAX_TURNS = 4
_CUT = re.compile(
    r"(?<=[.?!;])\s+|,?\s+(?:and then|and also|then|and|also|plus)\s+|,\s+(?=then\b|also\b)", re.IGNORECASE
)
_ASKS = re.compile(
    r"^\W*(?:who|what|when|where|why|how|which|can|could|do|does|did|is|are|tell|explain|write)\b", re.IGNORECASE
)
_SURE = 0.6
_TALK = 0.62
"""Cosine with a line of ordinary talk above which a reply is talk, not a value."""


@dataclass(frozen=True)
class Turn:
    """What a person said, and what the assistant had said just before."""

    text: str
    before: str = ""


@dataclass(frozen=True)
class Step:
    """One call in the making. `text` is all that was said for it."""

    spec: ToolSpec
    text: str
    arguments: dict[str, Any]
    missing: tuple[Slot, ...] = ()
    open: tuple[Slot, ...] = ()
    """Values that only the model can phrase."""


@dataclass(frozen=True)
class Plan:
    """`steps` in the order they were asked for. `question` is what to ask when a step lacks something."""

    routing: Routing
    steps: tuple[Step, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def question(self) -> str:
        return " ".join(question_for(s.spec.name, s.missing) for s in self.steps if s.missing)

    def could_have_asked(self, words: str) -> bool:
        """Whether `words` is this plan's question, with or without the values left to the model."""
        full = " ".join(
            question_for(s.spec.name, lacking)
            for s in self.steps
            if (lacking := (*s.missing, *(o for o in s.open if o.required)))
        )
        said = " ".join(words.split())
        return bool(full) and said in (self.question, full)


class Planner:
    """Plans for one set of tools on one day."""

    def __init__(self, router: Router, likeness: Likeness, today: dt.date) -> None:
        self._router, self._likeness, self._today = router, likeness, today
        self._specs = {s.name: s for s in router.specs}

    def conversation(self, turns: Sequence[Turn], *, named: str = "", must: bool = False) -> Plan:
        """The plan after the last of `turns`.

        Args:
            named: this tool, whatever the message says.
            must: some tool, whatever the message says.
        """
        plan: Plan | None = None
        for turn in turns[-_MAX_TURNS:]:
            resumed = self._resume(plan, turn) if plan and plan.could_have_asked(turn.before) else None
            plan = resumed or self.fresh(turn.text, named=named, must=must)
        return plan or Plan(self._router.route(""))

    def fresh(self, text: str, *, named: str = "", must: bool = False) -> Plan:
        """The plan for one message by itself."""
        text = text[:_MAX_CHARS]
        routing = self._router.route(text)
        if named:
            return Plan(routing, (self._step(self._specs[named], text),))
        several = self._several(text)
        if several:
            return Plan(routing, several)
        step = self._accepted(routing, text)
        if step is not None:
            return Plan(routing, (step,))
        part = self._one_part(text)
        if part is not None:
            return Plan(part, (self._step(self._chosen(part, text), text),))
        if must and routing.routes:
            talk = routing.ordinary > max(
                _TALK, routing.routes[0].likeness + 0.2
            )  # "Good morning" is no place, whoever must be called
            step = self._step(self._chosen(routing, text), "" if talk else text)
            return Plan(routing, (replace(step, text=text),))
        return Plan(routing)

    def _accepted(self, routing: Routing, text: str) -> Step | None:
        """The call of the best tool, if its score and what the message has for it are enough together.

        A sum in the message speaks for the calculator; "What is a square root?" has none, and is no request.
        """
        if not routing.routes:
            return None
        step = self._step(self._chosen(routing, text), text)
        score = next(r.score for r in routing.routes if r.name == step.spec.name)
        return step if score + _evidence(step) >= routing.threshold else None

    def _chosen(self, routing: Routing, text: str) -> ToolSpec:
        """The best tool; of two that fit equally well, the one whose values the message has."""
        first = self._specs[routing.routes[0].name]
        if len(routing.routes) < 2 or routing.routes[1].score < routing.routes[0].score - 0.1:
            return first
        second = self._specs[routing.routes[1].name]
        lacking = [len(self._step(s, text).missing) for s in (first, second)]
        return second if lacking[1] < lacking[0] and routing.routes[1].score >= routing.threshold else first

    def _step(self, spec: ToolSpec, text: str) -> Step:
        return _step(spec, text, fill(spec, text, self._today, likeness=self._likeness))

    def _several(self, text: str) -> tuple[Step, ...]:
        """Steps of the clauses, if at least two clauses call for different tools; else nothing."""
        clauses = _clauses(text)
        if len(clauses) < 2:
            return ()
        groups: list[tuple[str, str]] = []  # tool name, words
        for clause in clauses:
            step = self._accepted(self._router.route(clause), clause)
            if step is not None and (not groups or groups[-1][0] != step.spec.name):
                groups.append((step.spec.name, clause))
            elif groups:
                groups[-1] = (groups[-1][0], f"{groups[-1][1]}, {clause}")
        if len(groups) < 2 or len({name for name, _ in groups}) < len(groups):
            return ()
        steps = []
        for name, words in groups[:MAX_CALLS]:
            step = self._step(self._specs[name], words)
            if step.missing:  # "... in Lima, and will it rain there?"
                whole = self._step(self._specs[name], text)
                step = whole if not whole.missing else step
            steps.append(step)
        return tuple(steps) if sum(not s.missing for s in steps) else ()

    def _one_part(self, text: str) -> Routing | None:
        """The routing of one sentence that is surely a request, in a message that as a whole is not."""
        parts = [p for p in re.split(r"(?<=[.?!;,])\s+", text) if len(p.split()) > 2]
        if len(parts) < 2:
            return None
        best = max((self._router.route(p) for p in parts[:8]), key=lambda r: r.routes[0].score if r.routes else 0.0)
        return best if best.best and best.best.score >= max(_SURE, best.threshold) else None

    def _resume(self, plan: Plan, turn: Turn) -> Plan | None:
        """`plan` with the values of `turn`, or None when it is not an answer to its question."""
        routing = self._router.route(turn.text)
        names = {s.spec.name for s in plan.steps}
        best = routing.best
        if routing.ordinary > _TALK or (best and best.name not in names and best.score >= _SURE):
            return None
        asks = any(_ASKS.match(part) for part in re.split(r"[,.!;?]\s+", turn.text))
        if asks and (turn.text.rstrip().endswith("?") or len(turn.text.split()) > 3):
            return None
        text = turn.text[:_MAX_CHARS]
        steps, gained = [], False
        for step in plan.steps:
            wanted = [*step.missing, *step.open]
            more = self._answer(step, wanted, text)
            gained = gained or bool(more.arguments)
            steps.append(_joined(step, more, text))
        return replace(plan, routing=plan.routing, steps=tuple(steps)) if gained else None

    def _answer(self, step: Step, wanted: Sequence[Slot], text: str) -> Filling:
        """A bare answer may leave its value unannounced only when one value is wanted."""
        if not wanted:
            return Filling()
        alone = len(wanted) == 1
        found = fill(step.spec, text, self._today, likeness=self._likeness, only=wanted, answering=alone)
        if not found.arguments and not alone:
            first = fill(step.spec, text, self._today, likeness=self._likeness, only=wanted[:1], answering=True)
            found = Filling(first.arguments, [*first.missing, *wanted[1:]], first.open)
        return found


_TYPED = frozenset({Kind.URL, Kind.EMAIL, Kind.EXPRESSION, Kind.NUMBER, Kind.DATE, Kind.CHOICE})


def _evidence(step: Step) -> float:
    """What is added to a tool's score for the values that the message has for it (found on the tune split)."""
    if step.missing:
        return -0.2
    needed = {s.kind for s in slots_of(step.spec) if s.required}
    return 0.15 if needed & _TYPED else 0.05 if needed else 0.0


def _step(spec: ToolSpec, text: str, filling: Filling) -> Step:
    step = Step(spec, text, filling.arguments, tuple(filling.missing), tuple(filling.open))
    return settled(step)


def _joined(step: Step, more: Filling, text: str) -> Step:
    arguments = _copied(step.arguments)
    for slot in [*step.missing, *step.open]:
        value = _at(more.arguments, slot.path)
        if value is not None:
            put(arguments, slot.path, value)
    missing = tuple(s for s in step.missing if _at(arguments, s.path) is None)
    return settled(replace(step, text=f"{step.text}\n{text}", arguments=arguments, missing=missing))


def settled(step: Step) -> Step:
    """`step` after one repair: a value that its schema refuses is left out, and asked for when it is required."""
    if step.missing or step.open or not step.spec.problem(step.arguments):
        return step
    slots = slots_of(step.spec)
    for slot in slots:
        if slot.required or _at(step.arguments, slot.path) is None:
            continue
        fewer = _without(step.arguments, slot.path)
        if not step.spec.problem(fewer):
            return replace(step, arguments=fewer)
    lacking = tuple(s for s in slots if s.required and _at(step.arguments, s.path) is None)
    blamed = tuple(
        s for s in slots if s.required and step.spec.problem(step.arguments).startswith(".".join(s.path) + ":")
    )
    return replace(step, missing=lacking or blamed or tuple(s for s in slots if s.required) or tuple(slots[:1]))


def _at(arguments: Any, path: Sequence[str]) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, dict) else None
    return arguments


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def _without(arguments: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    fewer: dict[str, Any] = _copied(arguments)
    node = fewer
    for name in path[:-1]:
        node = node[name]
    node.pop(path[-1], None)
    return fewer


def _clauses(text: str) -> list[str]:
    return [c for c in (part.strip(" ,;") for part in _CUT.split(text)) if c][:12]
