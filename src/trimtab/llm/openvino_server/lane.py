"""One pipeline and the requests on it.

Prompts are read in pieces of our own, each a whole number of cache blocks, as requests for one token that nobody wants;
the next piece finds the last one in the cache. The pipeline can cut a prompt itself, but cuts it in the middle of a
block, gives the half-read block the name of the whole one, and offers it to the next request with that beginning: after
a cancellation that request read uninitialised memory (seen in 2026.4.1: NaN logits). Its own limit is therefore set so
high that it never cuts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from .prefix import BLOCK, PrefixBook, chain

NEVER_CUT = 1 << 22


@dataclass
class Ask:
    """One answer to make."""

    id: int
    ids: list[int]
    settings: dict[str, Any]
    """Fields of GenAI's `GenerationConfig`."""
    asked_at: float
    marks: list[int] = field(default_factory=list)
    cached: int = -1
    """Tokens of the prompt that were in the cache when reading began."""
    handle: Any = None
    said: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LaneOptions:
    slots: int
    slot_context: int
    batch: int
    threads: int
    cache_blocks: int
    kv_cache: str = ""
    """Precision of keys and values; empty is the plugin's own (u8)."""


class Lane:
    """A pipeline over one converted model."""

    def __init__(self, folder: Path, options: LaneOptions, end_ids: Sequence[int]) -> None:
        self.folder = folder
        self.options = options
        self._end_ids = end_ids
        own = options.slots * -(-options.slot_context // BLOCK)
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.max_num_batched_tokens = NEVER_CUT
        scheduler.max_num_seqs = NEVER_CUT
        # Enough for every slot at its longest: the pipeline never has to take a block away from a running request.
        scheduler.num_kv_blocks = own + options.slots + options.cache_blocks
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": options.threads}
        if options.kv_cache:
            properties["KV_CACHE_PRECISION"] = options.kv_cache
        self.pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
        self._waiting: deque[Ask] = deque()
        self._reading: list[Ask] = []
        self._running: dict[int, Ask] = {}
        self._pieces: list[tuple[Any, list[int]]] = []
        self._book = PrefixBook(options.cache_blocks)
        self._number = 0
        self.cached_total = 0

    def warm(self) -> None:
        """Do once what the first request, and the first with a grammar, would otherwise wait for (0.4 CPU-seconds)."""
        shape = genai.StructuredOutputConfig(grammar='root ::= "a"')
        handle = self._submit([self._end_ids[0]], max_new_tokens=1, structured_output_config=shape)
        while handle.get_status() == genai.GenerationStatus.RUNNING:
            self.pipe.step()

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._reading or self._running or self._pieces)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._running)

    def add(self, ask: Ask) -> None:
        ask.marks = chain(ask.ids)
        self._waiting.append(ask)

    def give_up_waiting(self) -> list[Ask]:
        """The requests that have not been begun, for another lane."""
        given, self._waiting = list(self._waiting), deque()
        return given

    def cancel(self, number: int) -> None:
        """Forget a request; unknown ones have just ended."""
        for place in (self._waiting, self._reading):
            for ask in place:
                if ask.id == number:
                    place.remove(ask)
                    return
        ask_running = self._running.pop(number, None)
        if ask_running is not None:
            ask_running.handle.cancel()
            self._learn(ask_running)

    def step(self) -> list[list[Any]]:
        """Read one batch of prompt and write one token for each request: ``[id, tokens, logprobs, end, cached, ms]``.

        `end` is 0 (goes on), 1 (stop) or 2 (length). `cached` and `ms` (since it was asked) are -1 but for the first.
        """
        self._admit()
        self._read_on()
        if self.pipe.has_non_finished_requests():
            self.pipe.step()
        self._pieces = [p for p in self._pieces if not self._finished(*p)]
        return [event for ask in list(self._running.values()) if (event := self._collect(ask))]

    def _admit(self) -> None:
        while self._waiting and self.running < self.options.slots:
            self._reading.append(self._waiting.popleft())

    def _read_on(self) -> None:
        budget = self.options.batch
        begun: set[int] = set()
        for ask in [] if self._pieces else list(self._reading):
            blocks = self._book.known(ask.marks)
            known = blocks * BLOCK
            following = ask.marks[blocks] if blocks < len(ask.marks) else None
            if following in begun:
                continue  # another request reads the same text in this very step: wait and find it in the cache
            if ask.cached < 0:
                ask.cached = min(known, len(ask.ids) - 1)
            if len(ask.ids) - known <= budget:
                self._run(ask)
                budget -= max(1, len(ask.ids) - known)
            elif (end := blocks + budget // BLOCK) > blocks:
                self._read_piece(ask, end)
                budget -= (end - blocks) * BLOCK
            if following is not None:
                begun.add(following)
            if budget <= 0:
                return

    def _run(self, ask: Ask) -> None:
        ask.handle = self._submit(ask.ids, **ask.settings)
        self._reading.remove(ask)
        self._running[ask.id] = ask
        self.cached_total += ask.cached

    def _read_piece(self, ask: Ask, blocks: int) -> None:
        handle = self._submit(ask.ids[: blocks * BLOCK], max_new_tokens=1)
        self._pieces.append((handle, ask.marks[:blocks]))

    def _submit(self, ids: list[int], **settings: Any) -> Any:
        config = genai.GenerationConfig(**settings)
        # The pipeline's own end of text is not relied on: it has been seen unset (-1), and then it refuses the request.
        config.eos_token_id = self._end_ids[0]
        config.stop_token_ids = set(self._end_ids)
        self._number += 1
        return self.pipe.add_request(self._number, _tensor(ids), config)

    def _finished(self, handle: Any, marks: list[int]) -> bool:
        if handle.get_status() == genai.GenerationStatus.RUNNING:
            return False
        self._book.learn(marks)
        return True

    def _collect(self, ask: Ask) -> list[Any] | None:
        tokens: list[int] = []
        logprobs: list[float] = []
        end = 0
        while ask.handle.can_read():
            for output in ask.handle.read().values():
                tokens += output.generated_ids
                logprobs += output.generated_log_probs
                end = end or int(output.finish_reason.value)
        status = ask.handle.get_status()
        if status not in (genai.GenerationStatus.RUNNING, genai.GenerationStatus.FINISHED):
            end = 2  # the pipeline gave it up for want of memory
        first = not ask.said and bool(tokens)
        if first:
            self._book.learn(ask.marks)
        ask.said += tokens
        if end:
            del self._running[ask.id]
            self._learn(ask)
        if not tokens and not end:
            return None
        waited = (time.monotonic() - ask.asked_at) * 1000 if first else -1
        return [ask.id, tokens, logprobs, end, ask.cached if first else -1, waited]

    def _learn(self, ask: Ask) -> None:
        """A thread's next prompt begins with this one and its answer. The last token was never read."""
        if ask.said:
            self._book.learn(chain(ask.ids + ask.said[:-1]))


def _tensor(ids: Sequence[int]) -> Any:
    return openvino.Tensor(np.array([ids], dtype=np.int64))
