"""Where requests wait for their tokens: the front's side of the worker."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Any

from .link import FrontLink
from .metrics import Metrics
from .refusal import Refusal, busy


@dataclass(frozen=True)
class Step:
    """What one step of the pipeline brought for one answer."""

    tokens: list[int]
    logprobs: list[float]
    end: str
    """``stop``, ``length``, or nothing while it goes on."""
    cached: int
    """Tokens of the prompt that were in the cache; -1 but with the first tokens."""

    def and_then(self, later: Step) -> Step:
        return Step(self.tokens + later.tokens, self.logprobs + later.logprobs, later.end, self.cached)


@dataclass
class Answer:
    """One answer in the making."""

    id: int
    prompt_tokens: int
    steps: asyncio.Queue[Step | Refusal] = field(default_factory=asyncio.Queue)
    first_at: float = 0.0
    tokens: int = 0
    ended: bool = False

    async def next(self) -> Step:
        """What has come since: one step, or several as one when the client takes them slower than they are made.

        Raises:
            Refusal: the worker refuses the request.
        """
        step = await self.steps.get()
        while isinstance(step, Step) and not step.end and not self.steps.empty():
            more = self.steps.get_nowait()
            step = step.and_then(more) if isinstance(more, Step) else more
        if isinstance(step, Refusal):
            raise step
        return step


_ENDS = ("", "stop", "length", "tool_calls")


class Desk:
    """Hands requests to the worker and its tokens to whoever waits for them."""

    def __init__(self, link: FrontLink, metrics: Metrics, *, slots: int, queue: int, adapters: int) -> None:
        self.metrics = metrics
        self._link = link
        self._most = slots + queue
        self._slots = slots
        self._answers: dict[int, Answer] = {}
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.draining = False
        self.adapters = adapters
        """How many adapters the pipeline has; their ids begin at 0."""

    @property
    def active(self) -> int:
        return len(self._answers)

    def room_for(self, count: int) -> None:
        """Raises:
        Refusal: the queue is full, or the engine is about to stop.
        """
        if self.draining:
            raise Refusal(503, "the engine is stopping", "unavailable_error", retry_after=2)
        if len(self._answers) + count > self._most:
            raise busy(max(0, len(self._answers) - self._slots))

    def ask(self, ids: list[int], settings: dict[str, Any], grammar: str) -> Answer:
        self._number += 1
        answer = Answer(self._number, len(ids))
        self._answers[answer.id] = answer
        self.metrics.requests += 1
        message = {"op": "add", "id": answer.id, "ids": ids, "settings": settings, "grammar": grammar}
        self._link.send(message)
        return answer

    def leave(self, answer: Answer) -> None:
        """Nobody waits for this answer any more. Cancels it if it has not ended."""
        if self._answers.pop(answer.id, None) is None:
            return
        if not answer.ended:
            self._link.send({"op": "cancel", "id": answer.id})
        if answer.first_at:
            self.metrics.wrote(answer.tokens, time.monotonic() - answer.first_at)

    async def call(self, op: str, seconds: float, **fields: Any) -> dict[str, Any]:
        """Ask the worker something and wait for its reply.

        Raises:
            TimeoutError: it did not answer in time.
        """
        self._number += 1
        number = self._number
        self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            self._link.send({"op": op, "id": number, **fields})
            return await asyncio.wait_for(self._replies[number], seconds)
        finally:
            del self._replies[number]

    async def listen(self) -> None:
        """Until the worker has gone; then so is this process, and the parent starts both again."""
        try:
            while True:
                message = await self._link.receive()
                for event in message.get("events", ()):
                    self._deliver(event)
                self.adapters = message.get("adapters", self.adapters)
                if (reply := self._replies.get(message.get("reply", 0))) and not reply.done():
                    reply.set_result(message)
                if message.get("drain"):
                    self.draining = True
        except (EOFError, ConnectionError):
            if self.draining:
                await asyncio.sleep(0.2)  # the last words of the last answers are on their way
            os._exit(5)

    def _deliver(self, event: list[Any]) -> None:
        number, tokens, logprobs, end, cached, waited = event
        answer = self._answers.get(number)
        if answer is None:
            return
        if isinstance(end, str):  # the worker refuses it
            answer.ended = True
            answer.steps.put_nowait(Refusal(400, end))
            return
        if cached >= 0:
            answer.first_at = time.monotonic()
            self.metrics.first_token(waited / 1000, answer.prompt_tokens, cached)
        answer.tokens += len(tokens)
        answer.ended = end > 0
        answer.steps.put_nowait(Step(tokens, logprobs, _ENDS[end], cached))
