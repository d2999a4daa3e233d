"""Which way of calling tools works with a small model: our question set, one row a strategy.

    python benchmarks/tool_calling.py [--split test|tune] [--models DIR] [--every N] [--strategies schema,native,...]

Questions are in `data/tool_questions.jsonl`, tools in `data/tool_sets.json`: six like the built-in connectors (with
example questions), sixteen of a stranger's (without), and 95 more that only distract. The tune split was used to fit
the router's weights and to find mistakes; the test split was not. Columns:

* selection: of the questions that need a tool, those where exactly the right tools were chosen;
* abstention: of the questions that need none, those where none was called and nothing was asked for;
* arguments: of the questions with a complete call, those where every call is right to the last value;
* asked: of the questions that lack a value, those where exactly these values were asked for;
* wrong: questions where something was called that should not have been, or with a wrong value.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from trimtab.domain.model import Embedder
from trimtab.llm.guided import ASKS, ROUTING, GuidedChatModel
from trimtab.llm.native import NativeToolModel
from trimtab.llm.router import Router, VectorCache
from trimtab.llm.toolspec import ToolSpec, spec_of

DATA = Path(__file__).parent / "data"
TODAY = dt.datetime(2026, 11, 23, 10, 0)
"""A Monday; the dates in the question set are told from it."""
STRATEGIES = ("schema", "native", "router", "guided", "guided, 117 tools")


@dataclass(frozen=True)
class Question:
    id: str
    kind: str
    """single, several, none, missing or followup."""
    tools: str
    text: str
    history: tuple[tuple[str, str], ...]
    calls: tuple[tuple[tuple[str, dict[str, list[Any]]], ...], ...]
    """Alternatives; each is the calls it takes, with the values that are right for each argument."""
    missing: frozenset[str]

    @property
    def wanted(self) -> list[set[str]]:
        """The sets of tools that are right."""
        return [{name for name, _ in calls} for calls in self.calls] or [{m.split(".")[0] for m in self.missing}]


@dataclass
class Outcome:
    """What a strategy did with a question."""

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    chosen: set[str] = field(default_factory=set)
    asked: str = ""
    seconds: float = 0.0


@dataclass
class Score:
    """Right and all, for each column."""

    selection: list[bool] = field(default_factory=list)
    abstention: list[bool] = field(default_factory=list)
    arguments: list[bool] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    @staticmethod
    def share(values: Sequence[bool]) -> float:
        return sum(values) / len(values) if values else float("nan")


def questions(split: str) -> list[Question]:
    """The questions of a split, ``"tune"`` or ``"test"``."""
    found = []
    for line in (DATA / "tool_questions.jsonl").read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        if raw["split"] != split:
            continue
        options = [raw["calls"], *raw.get("alternatives", [])] if raw["calls"] else []
        calls = tuple(tuple((c["tool"], c["arguments"]) for c in option) for option in options)
        history = tuple((who, words) for who, words in raw["history"])
        found.append(
            Question(raw["id"], raw["kind"], raw["tools"], raw["text"], history, calls, frozenset(raw["missing"]))
        )
    return found


def tool_sets() -> dict[str, tuple[ToolSpec, ...]]:
    """``builtin``, ``foreign``, and ``many``: all there are."""
    raw = json.loads((DATA / "tool_sets.json").read_text(encoding="utf-8"))
    sets = {name: tuple(spec_of({"type": "function", "function": t}) for t in tools) for name, tools in raw.items()}
    sets["many"] = sets["builtin"] + sets["foreign"] + sets.pop("distractors")
    return sets


Ask = Callable[[list[BaseMessage], Sequence[ToolSpec]], Awaitable[Outcome]]


async def run(ask: Ask, asked: Sequence[Question], sets: dict[str, tuple[ToolSpec, ...]], many: bool = False) -> Score:
    """Put every question to a strategy. A follow-up is asked after its first message, with what was answered."""
    score = Score()
    for question in asked:
        if many and question.kind == "none" and question.tools == "foreign":
            continue  # some of these need a tool that is only in the other set
        specs = sets["many" if many else question.tools]
        messages: list[BaseMessage] = []
        for who, words in question.history:
            if who == "user":
                messages.append(HumanMessage(words))
            else:
                messages.append(AIMessage((await ask(list(messages), specs)).asked or "How can I help?"))
        messages.append(HumanMessage(question.text))
        began = time.perf_counter()
        outcome = await ask(messages, specs)
        score.seconds.append(outcome.seconds or time.perf_counter() - began)
        judge(question, outcome, score)
    return score


def judge(question: Question, outcome: Outcome, score: Score) -> None:
    """Add one question to the score."""
    chosen = outcome.chosen or {name for name, _ in outcome.calls}
    right_calls = any(_same(outcome.calls, option) for option in question.calls)
    wrong = bool(outcome.calls) and not right_calls
    if question.kind == "none" or not (question.calls or question.missing):
        score.abstention.append(not chosen and not outcome.asked)
        good = score.abstention[-1]
    else:
        score.selection.append(chosen in question.wanted)
        good = score.selection[-1]
        if question.calls:
            score.arguments.append(right_calls)
            good = right_calls
        else:
            names = {m.split(".")[1].replace("_", " ") for m in question.missing}
            score.asked.append(not outcome.calls and all(f"the {n}" in outcome.asked for n in names))
            good = score.asked[-1]
    score.wrong += wrong
    if not good:
        did = outcome.calls or outcome.asked or sorted(chosen) or "nothing"
        score.mistakes.append(f"{question.id} {question.text!r}: {did}")


def _same(calls: Sequence[tuple[str, dict[str, Any]]], option: Sequence[tuple[str, dict[str, list[Any]]]]) -> bool:
    got = dict(calls)
    if len(got) != len(calls) or set(got) != {name for name, _ in option}:
        return False
    return all(
        set(got[name]) == set(wanted) and all(any(_plain(got[name][k]) == _plain(w) for w in wanted[k]) for k in wanted)
        for name, wanted in option
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower().strip().rstrip(".?!")
    return [_plain(v) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------- strategies


def by_schema(model: BaseChatModel) -> Ask:
    """The model alone: it is shown the tools and decodes {tool, arguments} under one schema."""

    async def ask(messages: list[BaseMessage], specs: Sequence[ToolSpec]) -> Outcome:
        lines = "\n".join(f"- {s.name}: {s.description}" for s in specs)
        nothing = {"type": "object", "properties": {"tool": {"const": "none"}}, "required": ["tool"]}
        options = [
            {
                "type": "object",
                "properties": {"tool": {"const": s.name}, "arguments": dict(s.parameters)},
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
            for s in specs
        ]
        schema = {"anyOf": [nothing, *options]}
        system = SystemMessage(f"Choose the tool for the message and fill in its arguments, or none.\nTools:\n{lines}")
        reply = await model.ainvoke(
            [system, *messages],
            response_format={"type": "json_schema", "json_schema": {"name": "call", "schema": schema}},
            temperature=0.0,
            max_tokens=128,
        )
        try:
            value = json.loads(reply.text)
        except ValueError:
            return Outcome()
        return Outcome() if value["tool"] == "none" else Outcome([(value["tool"], value["arguments"])])

    return ask


def by_native(model: BaseChatModel) -> Ask:
    """The model's own tool calls, read leniently."""

    async def ask(messages: list[BaseMessage], specs: Sequence[ToolSpec]) -> Outcome:
        bound = NativeToolModel(inner=model).bind_tools([s.as_openai() for s in specs])
        reply = await bound.ainvoke(messages, temperature=0.0, max_tokens=96)
        return Outcome([(c["name"], c["args"]) for c in reply.tool_calls])

    return ask


def by_router(embedder: Embedder) -> Ask:
    """The router, and nothing else: which tool."""
    vectors, routers = VectorCache(embedder), dict[int, Router]()

    async def ask(messages: list[BaseMessage], specs: Sequence[ToolSpec]) -> Outcome:
        router = routers.setdefault(id(specs), Router(specs, vectors))
        best = router.route(messages[-1].text).best
        return Outcome(chosen={best.name} if best else set())

    return ask


def guided(model: BaseChatModel, embedder: Embedder) -> Ask:
    """The whole of it, up to the decision: the words of an ordinary answer are not waited for."""
    whole = GuidedChatModel(inner=model, embedder=embedder, clock=lambda: TODAY)

    async def ask(messages: list[BaseMessage], specs: Sequence[ToolSpec]) -> Outcome:
        began = time.perf_counter()
        bound = whole.bind_tools([s.as_openai() for s in specs])
        async for chunk in bound.astream(messages):
            seconds = time.perf_counter() - began
            calls = [(c["name"], c["args"]) for c in chunk.tool_calls]
            chosen = set(chunk.response_metadata.get(ROUTING, {}).get("chosen", ()))
            return Outcome(calls, chosen, chunk.text if chunk.response_metadata.get(ASKS) else "", seconds)
        return Outcome()

    return ask


def table(scores: dict[str, Score]) -> str:
    """As Markdown."""
    rows = [
        "| strategy | selection | abstention | arguments | asked | wrong calls | p50 ms | p95 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, s in scores.items():
        cells = [
            f"{sum(v)}/{len(v)}"
            if v and not (name == "router" and v is not s.selection and v is not s.abstention)
            else "-"
            for v in (s.selection, s.abstention, s.arguments, s.asked)
        ]
        times = sorted(x * 1000 for x in s.seconds)
        p95 = times[int(0.95 * (len(times) - 1))]
        wrong = "-" if name == "router" else f"{s.wrong}/{len(times)}"
        rows.append(f"| {name} | {' | '.join(cells)} | {wrong} | {statistics.median(times):.0f} | {p95:.0f} |")
    return "\n".join(rows)


async def measure(models: Path, split: str, every: int, wanted: Sequence[str], verbose: bool) -> dict[str, Score]:
    from trimtab.llm import catalogue, shelf
    from trimtab.llm.llamacpp import LlamaCppEngine
    from trimtab.llm.openai_chat import OpenAIChat
    from trimtab.retrieval.embedding import MiniLmEmbeddings

    embedder = MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models))
    engine = LlamaCppEngine(shelf.resolve_model(catalogue.DEFAULT_CHAT, models))
    await engine.start()
    scores: dict[str, Score] = {}
    try:
        model = OpenAIChat(base_url=lambda: engine.base_url, api_key=engine.key, model="local")
        asks = {
            "schema": by_schema(model),
            "native": by_native(model),
            "router": by_router(embedder),
            "guided": guided(model, embedder),
            "guided, 117 tools": guided(model, embedder),
        }
        sets, asked = tool_sets(), questions(split)
        for name in wanted:
            some = asked[::every] if name in ("schema", "native") else asked
            scores[name] = await run(asks[name], some, sets, many=name.startswith("guided,"))
            if verbose:
                print(f"\n{name}", *scores[name].mistakes, sep="\n  ")
        await model.aclose()
    finally:
        await engine.stop()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="test", choices=("test", "tune"))
    parser.add_argument("--models", type=Path, default=Path(".trimtab/models"))
    parser.add_argument("--every", type=int, default=3, help="of the slow strategies, every Nth question")
    parser.add_argument("--strategies", default=";".join(STRATEGIES), help="separated by semicolons")
    parser.add_argument("--verbose", action="store_true", help="print each mistake")
    args = parser.parse_args()
    scores = asyncio.run(measure(args.models, args.split, args.every, args.strategies.split(";"), args.verbose))
    print(table(scores))


if __name__ == "__main__":
    main()
