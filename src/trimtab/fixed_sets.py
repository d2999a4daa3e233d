"""The fixed sets by which a served variant's answers are measured, and who asks them.

The measuring wing knows no engine, no orchestrator and no reward model; here they meet.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from trimtab.align import bundled, gate_questions
from trimtab.align.jobs import Jobs
from trimtab.align.writer import as_message
from trimtab.domain.errors import ModelFileError, NotFound, TrimtabError
from trimtab.domain.judgement import Judgement, Kind, Said
from trimtab.llm import catalogue, shelf
from trimtab.llm.choice import Choice
from trimtab.llm.engine import Engine
from trimtab.llm.gguf_header import GgufHeader
from trimtab.llm.openvino_folder import TOKENIZER, card_of, full_tokenizer
from trimtab.llm.openvino_server.prompt import Prompter
from trimtab.llm.served import BaseWeights, Served, ServingOptions, Spoken, served_on
from trimtab.llm.tensors import open_tensors
from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.reward import reward_of
from trimtab.works import turns

if TYPE_CHECKING:
    from trimtab.scoring import Bench

AT_ONCE = 4
LONGEST = 40
"""Words of an answer in a pair: a token costs an engine a request, so short pairs are chosen."""
SAMPLING: dict[str, Any] = {"temperature": 0.0, "max_tokens": 48}


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt as token ids, the one that people found better first."""

    prompt: list[int]
    better: list[int]
    worse: list[int]


Likely = Callable[[Sequence[tuple[list[int], list[int]]]], Awaitable[list[float]]]
"""Of each prompt and answer, the answer's mean log-probability a token."""


class FixedSets:
    """One for a campaign: what all variants are asked, made ready when it is first needed.

    Args:
        header: of the model's file; students have the same vocabulary and template.
    """

    def __init__(self, header: GgufHeader, models_dir: Path, jobs_dir: Path) -> None:
        self._header, self._models_dir, self._jobs_dir = header, models_dir, jobs_dir
        self.tools = gate_questions.tool_questions()
        self.cited = gate_questions.cited_questions()

    @cached_property
    def embedder(self) -> MiniLmEmbeddings | None:
        """For routing and for passages; None when the embedding model is not here."""
        try:
            return MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), self._models_dir))
        except ModelFileError:
            return None

    @cached_property
    def search(self) -> turns.FixedPassages:
        assert self.embedder is not None
        return turns.FixedPassages(self.embedder, {one.title: one.passage for one in self.cited})

    @cached_property
    def pairs(self) -> list[Pair]:
        """Short ones of the bundled test split, one a prompt."""
        chosen: dict[tuple[Said, ...], Judgement] = {}
        for row in bundled.load_bundled("test"):
            longest = max(len(row.completion.split()), len(row.rejected.split()))
            if row.kind is Kind.PREFERENCE and longest <= LONGEST:
                chosen.setdefault(row.prompt, row)
        prompter = self._prompter()
        return [
            Pair(
                prompter.chat([{"role": one.role, "content": one.content} for one in row.prompt], {}),
                prompter.tokenize(row.completion, special=False, parse=False),
                prompter.tokenize(row.rejected, special=False, parse=False),
            )
            for row in sorted(chosen.values(), key=lambda row: _place(row.prompt))
        ]

    @cached_property
    def prompts(self) -> list[tuple[Said, ...]]:
        """Bundled test prompts, in an order of their own."""
        return sorted((one.prompt for one in bundled.prompts("test")), key=_place)

    @cached_property
    def bench(self) -> Bench | None:
        """The reward model that was trained here last; None when there is none."""
        if any(find_spec(name) is None for name in ("torch", "transformers", "trl")):
            return None
        try:
            job = reward_of(Jobs(self._jobs_dir))
        except NotFound:
            return None
        from trimtab.scoring import Bench

        try:
            return Bench(job.folder)
        except TrimtabError:
            return None

    def _prompter(self) -> Prompter:
        shape = open_tensors(self._header.path).architecture
        card = card_of(self._header, shape, sha256="", converter=0, precision="")
        with tempfile.TemporaryDirectory(prefix="trimtab-sets-") as folder:
            full_tokenizer(self._header).save(str(Path(folder) / TOKENIZER))
            return Prompter(Path(folder), card)


class EngineAsker:
    """Asks one engine that serves the fixed sets.

    Args:
        weights: the GGUF file that the served form was made of.
    """

    def __init__(self, sets: FixedSets, engine: Engine, weights: Path, likely: Likely) -> None:
        self._sets, self._likely = sets, likely
        embedder = sets.embedder
        options = ServingOptions(
            models_dir=weights.parent, tools_mode="auto" if embedder else "none", api_key=SecretStr("")
        )
        base = BaseWeights(weights.stem, weights, "")
        self._served: Served = served_on(engine, Choice("llamacpp", "it is measured"), base, weights, options, embedder)
        self._spoken = Spoken(self._served.model, self._served.bare, self._served.profile)

    async def ask(self, name: str, first: int, count: int) -> list[float]:
        """See `answers.Asker`."""
        sets, last = self._sets, first + count
        if name == "preferences":
            return await self._preferred(sets.pairs[first:last])
        if name == "reward":
            return await self._rewarded(sets.prompts[first:last]) if sets.bench else []
        if sets.embedder is None:
            return []
        if name == "tools":
            right = await turns.tool_turns(self._served, self._spoken, sets.tools[first:last])
        else:
            right = await turns.cited_turns(self._served, self._spoken, sets.cited[first:last], sets.search)
        return [float(one) for one in right]

    async def aclose(self) -> None:
        """Let go of its connections. The engine goes on."""
        await self._spoken.bare.aclose()  # type: ignore[attr-defined]

    async def _preferred(self, pairs: Sequence[Pair]) -> list[float]:
        asked = [(pair.prompt, answer) for pair in pairs for answer in (pair.better, pair.worse)]
        found = await self._likely(asked)
        return [float(better > worse) for better, worse in zip(found[::2], found[1::2], strict=True)]

    async def _rewarded(self, prompts: Sequence[tuple[Said, ...]]) -> list[float]:
        room = asyncio.Semaphore(AT_ONCE)

        async def answered(prompt: tuple[Said, ...]) -> str:
            async with room:
                return str(
                    (await self._spoken.bare.ainvoke([as_message(one) for one in prompt], **SAMPLING)).text
                ).strip()

        texts = await asyncio.gather(*map(answered, prompts))
        bench = self._sets.bench
        assert bench is not None
        return [
            (await asyncio.to_thread(bench.scores, prompt, [text]))[0]
            for prompt, text in zip(prompts, texts, strict=True)
        ]


def _place(prompt: Sequence[Said]) -> int:
    """A number that a prompt keeps: an order that has nothing to do with the order of the file."""
    return zlib.crc32(json.dumps([(one.role, one.content) for one in prompt]).encode())
