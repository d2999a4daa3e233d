"""One reply of the model as it comes, piece by piece: its words, the calls it asks for, what it cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.tool import Effect

from .calls import Toolset, finished, info_of
from .shortlist import Picked

ASKS = "trimtab_asks"
"""Set in a message's `response_metadata` by a guided model that asks for a missing value instead of answering."""

TOLD = 24
"""Tools that a turn says it has looked at, and as many again of those that came next."""


class Reply:
    """Give it each piece with `take`; then read what it came to.

    Pieces are not joined as LangChain joins messages, which costs more than all the rest of a reply: only those that
    hold parts of calls are, and only where a call came in several.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.usage = ev.Usage()
        self.asks = False
        """It asks the person for a value instead of answering."""
        self._words: list[str] = []
        self._calling: list[AIMessageChunk] = []

    def take(self, piece: AIMessageChunk) -> str:
        """Take the next piece; returns its words."""
        words = piece.content if isinstance(piece.content, str) else str(piece.text)
        self._words.append(words)
        if piece.response_metadata:
            self.metadata |= {name: value for name, value in piece.response_metadata.items() if value is not None}
            self.asks = self.asks or bool(piece.response_metadata.get(ASKS))
        if piece.usage_metadata:
            self.usage += usage(piece)
        if piece.tool_call_chunks or piece.tool_calls or piece.invalid_tool_calls:
            self._calling.append(piece)
        return words

    @property
    def reason(self) -> str:
        """Why the model stopped."""
        return reason(self.metadata)

    def calls(self) -> tuple[list[ToolCall], list[InvalidToolCall]]:
        """The calls it asks for, and those that cannot be read. Ask once it has ended."""
        if not self._calling:
            return [], []
        first, *more = self._calling
        joined = first + more if more else first
        return joined.tool_calls, joined.invalid_tool_calls

    def message(self) -> AIMessage:
        """Its words as a message."""
        return AIMessage("".join(self._words), response_metadata=self.metadata)


def reason(metadata: Mapping[str, Any]) -> str:
    """Why the model stopped, from a message's `response_metadata`."""
    return str(metadata.get("finish_reason") or "stop")


def usage(message: AIMessage) -> ev.Usage:
    """The tokens it took."""
    told = message.usage_metadata
    if not told:
        return ev.Usage()
    cached = (told.get("input_token_details") or {}).get("cache_read", 0)
    return ev.Usage(told["input_tokens"], told["output_tokens"], cached or 0)


def requests(
    calls: Sequence[ToolCall],
    invalid: Sequence[InvalidToolCall],
    reasons: Mapping[str | None, str],
    toolset: Toolset,
    step: int,
) -> Iterator[ev.Event]:
    """The calls as events; those that cannot be read come with their result at once. `reasons`: what is wrong with
    them by id, where the model's adapter knows."""
    for call in calls:
        tool = toolset.tools.get(call["name"])
        info = info_of(tool) if tool else None
        yield ev.ToolRequested(
            call_id=ids.new("call"),
            tool=call["name"],
            connector=info.connector if info else "",
            arguments=call["args"],
            effect=str(info.effect if info else Effect.READ),
            step=step,
        )
    for broken in invalid:
        request = ev.ToolRequested(ids.new("call"), str(broken.get("name") or "?"), "", {}, Effect.READ, step)
        yield request
        # LangChain drops a broken call's own `error` when it joins chunks; the metadata survives.
        why = reasons.get(broken.get("id")) or broken.get("error") or "its arguments are not a JSON object"
        yield finished(request, ev.CallStatus.INVALID, f"The call could not be used: {why}")


def considered(
    called: Sequence[str],
    routing: Mapping[str, Any] | None,
    toolset: Toolset,
    strategy: str,
    picked: Picked | None,
    *,
    again: bool,
) -> ev.ToolsConsidered | None:
    """Which tools were looked at and which chosen; nothing when there were none. `routing` is what a guided model says
    of that. `again`: results of calls have been read before this reply, and only what is new is told."""
    chosen = tuple(routing["chosen"] if routing else called)
    if (again and not chosen) or not (routing or toolset.tools):
        return None
    if routing:
        offered = tuple(ev.Considered(o["name"], float(o["score"]), str(o["reason"])) for o in routing["offered"])
        shown = tuple(one for rank, one in enumerate(offered) if rank < TOLD or one.name in chosen)  # best first
        left = tuple(one for one in offered[TOLD : 2 * TOLD] if one.name not in chosen)
        return ev.ToolsConsidered("guided", shown, chosen, routing.get("threshold"), left, len(offered))
    scores = picked.scores if picked else {}
    told = tuple(_looked_at(name, scores.get(name, 1.0), name in chosen) for name in toolset.tools)
    left = tuple(one for one in picked.left_out if one.name not in toolset.tools) if picked else ()
    installed = picked.installed if picked else len(told)
    return ev.ToolsConsidered(strategy, told, chosen, None, left, installed)


@functools.lru_cache(1024)
def _looked_at(name: str, score: float, called: bool) -> ev.Considered:
    return ev.Considered(name, score, "called by the model" if called else "not called by the model")
