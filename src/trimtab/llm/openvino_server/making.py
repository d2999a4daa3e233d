"""From a checked request to its answer: prompt, tokens, text, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ..openvino_adapters import tagged
from .body import Wanted, wanted
from .desk import Answer, Desk, Step
from .prompt import Prompter
from .refusal import Refusal, too_long
from .replies import Shape, Usage
from .text import Vocabulary, Writer

_CHARS_A_TOKEN = 64
"""More characters than this for each token of context are refused before they are tokenised."""
_SMALL = 20_000
"""Characters that are tokenised at once; more go to a thread, so that other streams do not wait."""


class Making:
    """Begins answers."""

    def __init__(
        self, config: dict[str, Any], desk: Desk, prompter: Prompter, vocabulary: Vocabulary, width: int
    ) -> None:
        self._context = int(config["slot_context"])
        self._model = str(config["name"])
        self._desk = desk
        self._prompter = prompter
        self._vocabulary = vocabulary
        self._vocabulary_size = width
        self.most_chars = self._context * _CHARS_A_TOKEN

    async def begin(self, body: dict[str, Any], *, chat: bool) -> Request:
        """Check a request, make its prompt and hand it to the worker.

        Raises:
            Refusal: it cannot be served; says why.
        """
        want = wanted(body, chat=chat)
        self._desk.room_for(want.count)
        size = sum(_chars(body.get(name)) for name in (("messages", "tools") if chat else ("prompt",)))
        if size > self.most_chars:
            raise too_long(size, self.most_chars, "characters")
        make = self._chat if chat else self._plain
        ids = make(body) if size <= _SMALL else await asyncio.to_thread(make, body)
        if not ids:
            raise Refusal(400, "the prompt is empty")
        if len(ids) >= self._context:
            raise too_long(len(ids), self._context - 1, "tokens")
        self._desk.room_for(want.count)
        ids = tagged(ids, self._slot(want), self._vocabulary_size)
        left = self._context - len(ids)
        limit = left if want.max_tokens is None else min(want.max_tokens, left)
        self._desk.room_for(want.count)
        answers = [self._desk.ask(ids, _settings(want, limit, i), want.grammar) for i in range(want.count)]
        return Request(self._desk, want, answers, Shape(self._model, chat, self._vocabulary), Usage(len(ids)))

    def _slot(self, want: Wanted) -> int:
        if want.adapter is None:
            return 0
        if want.adapter >= self._desk.adapters:
            raise Refusal(400, f"there are {self._desk.adapters} adapters and none with the id {want.adapter}")
        if want.settings["repetition_penalty"] != 1.0:
            raise Refusal(400, "this engine has no repetition penalty for requests with an adapter; leave it out")
        return want.adapter + 1

    def _chat(self, body: dict[str, Any]) -> list[int]:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refusal(400, "`messages` must be a list of at least one message")
        tools = body.get("tools") or None
        if tools is not None and not (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)):
            raise Refusal(400, "`tools` must be a list of objects")
        return self._prompter.chat(messages, {"tools": tools})

    def _plain(self, body: dict[str, Any]) -> list[int]:
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return self._prompter.text(prompt)
        whole = isinstance(prompt, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt)
        if not whole or not all(0 <= i < self._vocabulary.size for i in prompt or ()):
            raise Refusal(400, "`prompt` must be a text or a list of token ids")
        return list(prompt or ())


def _settings(want: Wanted, limit: int, index: int) -> dict[str, Any]:
    settings = {**want.settings, "max_new_tokens": limit, "rng_seed": want.seed + index}
    return settings | {"logprobs": 1} if want.logprobs else settings


def _chars(value: Any) -> int:
    """Characters in all texts of a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_chars, value))
    if isinstance(value, dict):
        return sum(len(k) + _chars(v) for k, v in value.items())
    return 1


@dataclass(frozen=True)
class Piece:
    """What one step added to one answer."""

    index: int
    text: str
    tokens: list[int]
    values: list[float]
    end: str


@dataclass
class Request:
    """One request's answers in the making."""

    desk: Desk
    want: Wanted
    answers: list[Answer]
    shape: Shape
    usage: Usage

    def close(self) -> None:
        """Nobody waits any more: what has not ended is cancelled."""
        for answer in self.answers:
            self.desk.leave(answer)

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as the events of a stream."""
        opened: set[int] = set()
        async with aclosing(self._all()) as source:
            async for piece in source:
                if piece.index not in opened:
                    opened.add(piece.index)
                    if first := self.shape.first(piece.index):
                        yield first
                if piece.text or piece.end or self.want.logprobs:
                    logprobs = self.shape.logprobs(piece.tokens, piece.values) if self.want.logprobs else None
                    yield self.shape.piece(piece.index, piece.text, logprobs, piece.end or None)
        if self.want.usage_in_stream:
            yield self.shape.closing(self.usage)

    async def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        found: list[list[Piece]] = [[] for _ in range(self.want.count)]
        async with aclosing(self._all()) as source:
            async for piece in source:
                found[piece.index].append(piece)
        return self.shape.whole([self._choice(i, pieces) for i, pieces in enumerate(found)], self.usage)

    def _choice(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        logprobs = None
        if self.want.logprobs:
            tokens, values = [t for p in pieces for t in p.tokens], [v for p in pieces for v in p.values]
            logprobs = self.shape.logprobs(tokens, values)
        return self.shape.choice(index, "".join(p.text for p in pieces), logprobs, pieces[-1].end)

    def _all(self) -> AsyncGenerator[Piece, None]:
        return self._one(0) if self.want.count == 1 else self._several()

    async def _several(self) -> AsyncGenerator[Piece, None]:
        """All answers' pieces as they come."""
        arrived: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

        async def follow(index: int) -> None:
            try:
                async with aclosing(self._one(index)) as source:
                    async for piece in source:
                        arrived.put_nowait(piece)
            except Refusal as refusal:
                arrived.put_nowait(refusal)

        tasks = [asyncio.create_task(follow(i)) for i in range(self.want.count)]
        left = len(tasks)
        try:
            while left:
                piece = await arrived.get()
                if isinstance(piece, BaseException):
                    raise piece
                left -= bool(piece.end)
                yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, index: int) -> AsyncGenerator[Piece, None]:
        answer = self.answers[index]
        writer = Writer(self.shape.vocabulary, self.want.stops)
        try:
            while True:
                step = await answer.next()
                if step.cached >= 0 and index == 0:
                    self.usage.cached = step.cached
                piece = self._write(index, step, writer)
                self.usage.answer += len(piece.tokens)
                yield piece
                if piece.end:
                    return
        finally:
            self.desk.leave(answer)

    def _write(self, index: int, step: Step, writer: Writer) -> Piece:
        kept = [i for i, t in enumerate(step.tokens) if t not in self.shape.vocabulary.ends]
        tokens = [step.tokens[i] for i in kept]
        values = [step.logprobs[i] for i in kept] if self.want.logprobs else []
        text = writer.write(tokens, last=bool(step.end))
        return Piece(index, text, tokens, values, "stop" if writer.stopped else step.end)
