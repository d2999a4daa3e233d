"""How long a person waits, and what the prompt cache saves them: `python -m benchmarks.answering`.

Trimtab is opened in this process as it is for people (the default model, its engine, the library, the connectors), in a
folder of its own that holds a few invented pages. Every time is the turn's own, from its start to its last event:

- documents: a question that the pages answer, as the default model is asked it (the sentences around the best one);
- passages: four passages, about 600 tokens, before the question, pasted by the person; an answer of one paragraph.
  Cold: passages never seen. Warm: another question about the same passages. 24 tokens is the length of an answer that
  such a question needs; the model is not made to stop there;
- tool: a question that a built-in connector answers on this machine; the tool's own time is taken off. The calculator's
  value is taken by rule and the model not asked; the menu (a connector of this benchmark's) takes a list of objects,
  which the model must decode under its schema, and where what it decodes was not said, the turn ends with a question;
- thread: ten turns of plain talk.

Cached: tokens of prompts that were in the engine's cache, by the usage that the engine reports.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from trimtab.app import Ask, Trimtab
from trimtab.domain import events as ev
from trimtab.orchestrator.prompts import QUOTE
from trimtab.settings import Settings

from .engine_sides import MODELS

NAMES = (
    "Arden Brindle Corrow Dunmere Eskel Farrow Gannet Hollin Imber Jarrow Kessel Lorne Mallow Nevin Orrin Pell".split()
)
TALK = (
    "Hello! I am planning a week by the sea.",
    "What should I pack for rainy days?",
    "And for sunny ones?",
    "Which of these things are the heaviest?",
    "How could I make the bag lighter?",
    "Please write a short list of the five most important things.",
    "Why is the first one important?",
    "What could I forget most easily?",
    "Write one sentence to thank the friend who lends me the bag.",
    "Make it sound warmer.",
)
TOOLS = (
    "What is 15% of 80?",
    "What is 37 times 48?",
    "How much is 1250 divided by 8?",
    "What is the square root of 1764?",
    "What is 12.5 plus 19.75?",
)

MENU = '''
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from trimtab.connect import Connector, Effect, Result

connector = Connector(name="menu", version="1.0.0", description="What dishes cost.")


class Dish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dish: str
    count: int


@connector.tool(
    effect=Effect.READ,
    untrusted=False,
    examples=(
        "What do two pizzas cost?",
        "How much are three bowls of soup?",
        "What is the price of one salad and two coffees?",
        "What would four burgers cost?",
        "Tell me the price of a lasagne",
        "How much is one cake?",
    ),
)
async def price(dishes: Annotated[list[Dish], "What is ordered"]) -> Result:
    """Say what dishes cost."""
    total = sum(4 * dish.count for dish in dishes)
    return Result(text=f"{total} euros", data={"total": total}, answer=f"That costs {total} euros.")
'''
ORDERS = (
    "What do 2 pizzas cost?",
    "How much are 3 burgers and 1 salad?",
    "What is the price of 4 coffees?",
    "What would 2 soups and 2 cakes cost?",
    "How much is 1 lasagne?",
)


@dataclass(frozen=True)
class Row:
    """Medians of one kind of turn."""

    name: str
    seconds: float
    first_token: float
    prompt_tokens: float
    cached_tokens: float
    answer_tokens: float
    turns: int
    longest: float


@dataclass(frozen=True)
class Seen:
    finished: ev.TurnFinished
    seconds: float
    """Of the turn, without its tools."""
    tools: tuple[str, ...]


def page(number: int) -> tuple[str, str, str]:
    """An invented page about a place of its own: its text, a question it answers, and the answer."""
    dice = random.Random(number)
    name = f"{NAMES[number % len(NAMES)]} {'Point Bay Head Sound Reach Ness'.split()[number // len(NAMES) % 6]}"
    built, metres, keeper = dice.randint(1700, 1950), dice.randint(9, 88), dice.choice(NAMES)
    text = (
        f"The lighthouse of {name} was built in {built}, after {dice.randint(3, 30)} boats had been lost on the rocks "
        f"in a single winter. The tower of {name} is {metres} metres high and painted in {dice.randint(2, 9)} bands of "
        f"red and white. Its first keeper, Thomas {keeper}, lived there for {dice.randint(5, 40)} years with his "
        f"family and {dice.randint(2, 12)} goats, and wrote down the weather every evening. The lamp burned whale oil "
        f"until {built + dice.randint(20, 60)}, and gas after that. Visitors may climb its {metres * 5} steps on "
        "Sundays, when the sea is calm and the harbour master has given them the key."
    )
    return text, f"How high is the tower of {name}?", str(metres)


async def ask(app: Trimtab, question: str, how: Ask, thread: str | None = None) -> Seen:
    last: ev.Event | None = None
    tools: list[str] = []
    async for event in app.ask(question, thread=thread, how=how):
        last = event
        if isinstance(event, ev.ToolFinished) and event.status is ev.CallStatus.OK:
            tools.append(event.tool)
    assert isinstance(last, ev.TurnFinished), last
    return Seen(last, last.timing.total - last.timing.tools, tuple(tools))


def row(name: str, seen: Sequence[Seen]) -> Row:
    def middle(of: Callable[[Seen], float]) -> float:
        return statistics.median(map(of, seen))

    return Row(
        name=name,
        seconds=middle(lambda s: s.seconds),
        first_token=middle(lambda s: s.finished.timing.first_token or 0.0),
        prompt_tokens=middle(lambda s: s.finished.usage.prompt_tokens),
        cached_tokens=middle(lambda s: s.finished.usage.cached_tokens),
        answer_tokens=middle(lambda s: s.finished.usage.completion_tokens),
        turns=len(seen),
        longest=max(s.seconds for s in seen),
    )


async def documents(app: Trimtab, count: int) -> Iterable[Row]:
    """Questions over the library; then others about the same pages."""
    how = Ask(tools=False)
    cold = [await ask(app, page(n)[1], how) for n in range(count)]
    warm = [await ask(app, page(n)[1].replace("How high is", "How many metres high is"), how) for n in range(count)]
    return row("documents, new", cold), row("documents, asked before", warm)


async def pasted(app: Trimtab, count: int) -> Iterable[Row]:
    """About 600 tokens of passages in the message. The limits are those that a small model is asked with anyway."""
    how = Ask(documents="off", tools=False, sampling={"temperature": 0.0, "max_tokens": 64, "stop": ["\n"]})
    cold, warm = [], []
    for n in range(count):
        pages = [page(1000 + 4 * n + i) for i in range(4)]
        text = "\n\n".join(p[0] for p in pages)
        cold.append(await ask(app, QUOTE.format(text=text, question=pages[3][1]), how))
        warm.append(await ask(app, QUOTE.format(text=text, question=pages[2][1]), how))
    return row("600 tokens of passages, cold", cold), row("600 tokens of passages, warm prefix", warm)


async def tools(app: Trimtab, count: int) -> Iterable[Row]:
    await ask(app, "What is 2 plus 3?", Ask(documents="off"))
    seen = [await ask(app, TOOLS[n % len(TOOLS)], Ask(documents="off")) for n in range(count)]
    assert all(s.tools for s in seen), [s.finished.text for s in seen if not s.tools]
    await ask(app, "What do 5 teas cost?", Ask(documents="off"))
    decoded = [await ask(app, ORDERS[n % len(ORDERS)], Ask(documents="off")) for n in range(count)]
    called = sum(bool(s.tools) for s in decoded)
    return row("tool turn, value by rule", seen), row(f"tool turn, values decoded ({called} called)", decoded)


async def talk(app: Trimtab) -> list[Seen]:
    """One thread, turn after turn."""
    thread = await app.database.write(_new_thread, app.owner)
    how = Ask(documents="off", tools=False, sampling={"max_tokens": 64})
    return [await ask(app, words, how, thread) for words in TALK]


def _new_thread(connection: object, owner: str) -> str:
    from trimtab.store import threads

    return str(threads.create(connection, owner)["id"])  # type: ignore[arg-type]


async def measure(count: int, engine: str) -> tuple[list[Row], list[Seen]]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").symlink_to(MODELS)
        menu = home / "menu.py"
        menu.write_text(MENU)
        settings = Settings.load(home=home, engine=engine, connector_files=[menu])
        async with Trimtab.open(settings) as app:
            assert app.library is not None
            for n in range(count):
                name = f"{n}.md"
                await asyncio.to_thread(app.library.ingest_bytes, app.owner, name, page(n)[0].encode())
            await ask(app, "Say hello.", Ask(documents="off", tools=False, sampling={"max_tokens": 8}))
            rows = [*await documents(app, count), *await pasted(app, count), *await tools(app, count)]
            return rows, await talk(app)


def table(rows: Sequence[Row], thread: Sequence[Seen]) -> str:
    """As Markdown."""
    lines = [
        "| turn | seconds | longest | first token | prompt tokens | of them cached | answer tokens | turns |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        tokens = f"{r.prompt_tokens:.0f} | {r.cached_tokens:.0f} | {r.answer_tokens:.0f} | {r.turns}"
        lines.append(f"| {r.name} | {r.seconds:.2f} | {r.longest:.2f} | {r.first_token:.2f} | {tokens} |")
    used = [s.finished.usage for s in thread]
    asked, cached = sum(u.prompt_tokens for u in used), sum(u.cached_tokens for u in used)
    by_turn = " ".join(f"{u.cached_tokens}/{u.prompt_tokens}" for u in used)
    lines += ["", f"A thread of {len(thread)} turns: {cached} of {asked} prompt tokens cached ({cached / asked:.0%})."]
    lines.append(f"Turn by turn: {by_turn}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=9, help="of each kind")
    parser.add_argument("--engine", default="auto", choices=("auto", "openvino", "llamacpp"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores\n", flush=True)
    rows, thread = asyncio.run(measure(options.turns, options.engine))
    print(json.dumps([asdict(r) for r in rows], indent=2) if options.json else table(rows, thread))


if __name__ == "__main__":
    main()
