"""What the machinery around a model costs: one turn with one tool call, at the first and at the hundredth turn.

    python benchmarks/overhead.py [--threads 8] [--json]

Every side gets the same scripted model (or the same two messages), the same tools and the same question. Sides take
turns within each round, so a busy machine slows all of them alike. **Alone** is what the two replies and the call take
with nothing around them; a side's overhead is what its turns take beyond that.

* **Trimtab**: `Trimtab.ask` as in production: SQLite with ``synchronous=FULL``, nothing shown, and nothing outside
  changed, before the question is on disk; every event logged, text streamed.
* **LangGraph**: ``langchain.agents.create_agent`` with ``AsyncSqliteSaver`` as it comes (WAL, durability "async"; it
  leaves ``synchronous`` as SQLite was built, mostly FULL, which the table says). Once streamed, which is the same work
  as ours, and once with ``ainvoke``, which is less. Its checkpoints can be resumed at any step.
* **Pydantic AI**: its agent with a ``FunctionModel``; it has no store, the history is kept in memory and passed on.

Nothing here reaches the network; tracing of the other frameworks is switched off.
"""

from __future__ import annotations

import os

os.environ |= {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "PYDANTIC_DISABLE_PLUGINS": "1"}

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import aiosqlite
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from trimtab.app import Trimtab
from trimtab.connect.toolbox import Toolbox
from trimtab.llm.scripted import ScriptedModel, call
from trimtab.settings import Settings
from trimtab.store import threads

TOOL = "calculator_calculate"
ARGUMENTS = {"expression": "15% of 80"}
QUESTION = "What is 15% of 80? Please use the calculator for it."
ANSWER = "15% of 80 is 12, as the calculator says."
USAGE = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
CHECKPOINT = "PRAGMA wal_checkpoint(RESTART)"
"""Moves all there is into the database's own file, so that it can be measured; the log's file is used again."""
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
LONG = 100
"""The late turn that is compared with the first."""
WINDOW = 5
"""Turns from `LONG` on that are timed in each long thread; the same number of new threads is begun beside them."""


@dataclass(frozen=True)
class Row:
    """One side's figures: medians in milliseconds, and bytes of database a turn over the first 99 turns of a thread.
    The overheads are what is left of the medians without that of `Alone`."""

    name: str
    persists: str
    turn_1_ms: float
    turn_100_ms: float
    overhead_1_ms: float | None
    overhead_100_ms: float | None
    bytes_a_turn: int | None


class Side(Protocol):
    name: str
    persists: str

    async def new_thread(self) -> Any: ...

    async def turn(self, thread: Any) -> str:
        """One whole turn; returns the answer's text."""
        ...

    async def size(self) -> int | None:
        """Bytes of database, with everything checkpointed."""
        ...


def scripted() -> ScriptedModel:
    """Calls the calculator, then answers; again and again."""
    steps = [call(TOOL, **ARGUMENTS), AIMessage(ANSWER)]
    return ScriptedModel([s.model_copy(update={"usage_metadata": USAGE}) for s in steps], cycle=True)


class Alone:
    """The model's two replies and the call of the tool, past everything that could stand around them."""

    name = "model and tool alone"
    persists = "nothing"

    def __init__(self, toolbox: Toolbox) -> None:
        tools = toolbox.tools()
        bound: Any = scripted().bind_tools(tools)
        self.model, self.shown = bound.bound, bound.kwargs
        self.tool: Any = next(tool for tool in tools if tool.name == TOOL)

    async def new_thread(self) -> None:
        return None

    async def turn(self, thread: None) -> str:
        question = [HumanMessage(QUESTION)]
        asked = [chunk.message.tool_calls async for chunk in self.model._astream(question, **self.shown)]
        await self.tool.outcome(asked[0][0]["args"])
        return "".join([chunk.text async for chunk in self.model._astream(question, **self.shown)])

    async def size(self) -> None:
        return None


class TrimtabSide:
    name = "Trimtab"
    persists = "messages, every event; synchronous=FULL"

    def __init__(self, app: Trimtab) -> None:
        self.app = app

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[TrimtabSide]:
        async with Trimtab.open(Settings.load(home=folder / "trimtab"), model=scripted(), retrieval=False) as app:
            yield cls(app)

    async def new_thread(self) -> str:
        return str((await self.app.database.write(threads.create, self.app.owner))["id"])

    async def turn(self, thread: str) -> str:
        text = ""
        async for event in self.app.ask(QUESTION, thread=thread):
            text = getattr(event, "text", text)
        return text

    async def size(self) -> int:
        with self.app.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.connection.cursor().execute(CHECKPOINT).fetchall()
        return (self.app.settings.home / "trimtab.db").stat().st_size


class LangGraphSide:
    name = "LangGraph + SQLite"

    def __init__(self, agent: Any, saver: AsyncSqliteSaver, path: Path, synchronous: str) -> None:
        self.agent, self.saver, self.path, self.count = agent, saver, path, 0
        self.persists = f"the whole state at every step; synchronous={synchronous}"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path, toolbox: Toolbox) -> AsyncIterator[Self]:
        path = folder / f"{cls.__name__}.db"
        async with aiosqlite.connect(path) as connection:
            saver = AsyncSqliteSaver(connection)
            await saver.setup()
            async with connection.execute("PRAGMA synchronous") as found:
                synchronous = SYNCHRONOUS[(await found.fetchone() or (2,))[0]]
            yield cls(create_agent(scripted(), toolbox.tools(), checkpointer=saver), saver, path, synchronous)

    async def new_thread(self) -> str:
        self.count += 1
        return f"thread {self.count}"

    async def turn(self, thread: str) -> str:
        text = ""
        async for message, _ in self.agent.astream(*_question(thread), stream_mode="messages"):
            if isinstance(message, AIMessageChunk):
                text += message.text
        return text

    async def size(self) -> int:
        async with self.saver.conn.execute(CHECKPOINT) as done:
            await done.fetchall()
        return self.path.stat().st_size


class WholeLangGraphSide(LangGraphSide):
    """Not streamed."""

    name = "LangGraph + SQLite, not streamed"

    async def turn(self, thread: str) -> str:
        state = await self.agent.ainvoke(*_question(thread))
        return str(state["messages"][-1].text)


class PydanticSide:
    name = "Pydantic AI"
    persists = "nothing: history in memory"

    def __init__(self, toolbox: Toolbox) -> None:
        self.agent = Agent(FunctionModel(_pydantic_model), tools=[_pydantic_tool(toolbox, t) for t in toolbox.tools()])

    async def new_thread(self) -> list[ModelMessage]:
        return []

    async def turn(self, thread: list[ModelMessage]) -> str:
        result = await self.agent.run(QUESTION, message_history=thread)
        thread[:] = result.all_messages()
        return str(result.output)

    async def size(self) -> None:
        return None


def _question(thread: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"messages": [HumanMessage(QUESTION)]}, {"configurable": {"thread_id": thread}}


def _pydantic_model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
        return ModelResponse(parts=[TextPart(ANSWER)])
    return ModelResponse(parts=[ToolCallPart(TOOL, ARGUMENTS)])


def _pydantic_tool(toolbox: Toolbox, tool: Any) -> Tool[None]:
    async def run(**arguments: Any) -> str:
        return (await toolbox.call(tool.name, arguments)).text

    schema = tool.args_schema.model_json_schema()
    return Tool.from_schema(run, name=tool.name, description=tool.description, json_schema=schema)


async def _timed(side: Side, thread: Any) -> float:
    began = time.perf_counter()
    answer = await side.turn(thread)
    spent = time.perf_counter() - began
    if answer != ANSWER:
        raise RuntimeError(f"{side.name} answered {answer!r}: the turn did not do what is measured here.")
    return spent * 1000


async def _rounds(sides: Sequence[Side], long_threads: int) -> list[Row]:
    first: dict[str, list[float]] = {s.name: [] for s in sides}
    late: dict[str, list[float]] = {s.name: [] for s in sides}
    grown: dict[str, list[int]] = {s.name: [] for s in sides}
    for side in sides:  # warm-up: imports, caches, compiled statements
        thread = await side.new_thread()
        for _ in range(5):
            await _timed(side, thread)
    for _ in range(long_threads):
        gc.collect()
        long = {}
        for side in sides:
            long[side.name] = await side.new_thread()
            before = await side.size()
            for _ in range(LONG - 1):
                await side.turn(long[side.name])
            if before is not None:
                grown[side.name].append(((await side.size() or 0) - before) // (LONG - 1))
        for _ in range(WINDOW):
            for side in sides:
                new = await side.new_thread()
                first[side.name].append(await _timed(side, new))
                late[side.name].append(await _timed(side, long[side.name]))
    new = {name: statistics.median(times) for name, times in first.items()}
    old = {name: statistics.median(times) for name, times in late.items()}
    alone = statistics.median(first[Alone.name] + late[Alone.name])  # it has no thread to grow
    return [
        Row(
            name=s.name,
            persists=s.persists,
            turn_1_ms=round(new[s.name], 2),
            turn_100_ms=round(old[s.name], 2),
            overhead_1_ms=None if isinstance(s, Alone) else round(new[s.name] - alone, 2),
            overhead_100_ms=None if isinstance(s, Alone) else round(old[s.name] - alone, 2),
            bytes_a_turn=int(statistics.median(grown[s.name])) if grown[s.name] else None,
        )
        for s in sides
    ]


async def measure_async(long_threads: int = 8) -> list[Row]:
    """Run all sides in one process; `long_threads` threads of 104 turns each, and 5 new threads beside each."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-overhead-")))
        ours = await stack.enter_async_context(TrimtabSide.open(folder))
        graph = await stack.enter_async_context(LangGraphSide.open(folder, ours.app.toolbox))
        whole = await stack.enter_async_context(WholeLangGraphSide.open(folder, ours.app.toolbox))
        toolbox = ours.app.toolbox
        return await _rounds([ours, graph, whole, PydanticSide(toolbox), Alone(toolbox)], long_threads)


def measure(long_threads: int = 8) -> list[Row]:
    """`measure_async` for code that is not async."""
    return asyncio.run(measure_async(long_threads))


def table(rows: Sequence[Row]) -> str:
    """Markdown: milliseconds, how many times the first row's overhead, and kilobytes a turn."""
    ours = rows[0]
    lines = [
        "| | turn 1, ms | overhead | × | turn 100, ms | overhead | × | turn 100 / turn 1 | kB a turn | what it keeps |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        size = "-" if row.bytes_a_turn is None else f"{row.bytes_a_turn / 1000:.1f}"
        lines.append(
            f"| {row.name} | {row.turn_1_ms:.1f} | {_beside(row.overhead_1_ms, ours.overhead_1_ms)} "
            f"| {row.turn_100_ms:.1f} | {_beside(row.overhead_100_ms, ours.overhead_100_ms)} "
            f"| {row.turn_100_ms / row.turn_1_ms:.2f} | {size} | {row.persists} |"
        )
    return "\n".join(lines)


def _beside(overhead: float | None, ours: float | None) -> str:
    """An overhead in milliseconds, and how many times ours."""
    return f"{overhead:.1f} | {overhead / ours:.1f}" if overhead and ours else "- | -"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=8, help="long threads a side; more is steadier")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = measure(chosen.threads)
    print(json.dumps([asdict(row) for row in rows], indent=2) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
