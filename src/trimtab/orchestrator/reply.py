"""One reply of the model as it comes, piece by piece: its words, the calls it asks for, what it cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from langchain_core.messages import AIMessage, AIMessageChunk

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
    """Give it each piece with `take`; then read `message`.

    Most pieces are a few words and nothing else. Those are only told on: joining them as LangChain does costs more than
    all the rest of a reply, and nobody reads the text again, except where several answers are compared (`whole`).
    """

    def __init__(self) -> None:
        self.asks = False
        """It asks the person for a value instead of answering."""
        self._words: list[str] = []
        self._more: list[AIMessageChunk] = []

    def take(self, piece: AIMessageChunk) -> str:
        """Take the next piece; returns its words."""
        words = piece.content if isinstance(piece.content, str) else str(piece.text)
        self._words.append(words)
        if not _only_words(piece):
            self._more.append(piece)
            self.asks = self.asks or bool(piece.response_metadata.get(ASKS))
        return words

    @functools.cached_property
    def message(self) -> AIMessageChunk:
        """All of it but the words, once it has ended."""
        if not self._more:
            return AIMessageChunk(content="")
        return self._more[0] + self._more[1:] if len(self._more) > 1 else self._more[0]

    def whole(self) -> AIMessageChunk:
        """`message` with the words."""
        return self.message.model_copy(update={"content": "".join(self._words)})

    @property
    def calls_tools(self) -> bool:
        return bool(self.message.tool_calls or self.message.invalid_tool_calls)


def _only_words(piece: AIMessageChunk) -> bool:
    return not (
        piece.tool_call_chunks
        or piece.response_metadata
        or piece.usage_metadata
        or piece.chunk_position
        or piece.tool_calls
        or piece.invalid_tool_calls
    )


def reason(message: AIMessage) -> str:
    """Why the model stopped."""
    return str(message.response_metadata.get("finish_reason") or "stop")


def usage(message: AIMessage) -> ev.Usage:
    """The tokens it took."""
    told = message.usage_metadata
    if not told:
        return ev.Usage()
    cached = (told.get("input_token_details") or {}).get("cache_read", 0)
    return ev.Usage(told["input_tokens"], told["output_tokens"], cached or 0)


def requests(message: AIMessageChunk, toolset: Toolset, step: int) -> Iterator[ev.Event]:
    """The calls it asks for; those that cannot be read come with their result at once."""
    for call in message.tool_calls:
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
    for broken in message.invalid_tool_calls:
        request = ev.ToolRequested(ids.new("call"), str(broken.get("name") or "?"), "", {}, Effect.READ, step)
        yield request
        # LangChain drops a broken call's own `error` when it joins chunks; the metadata survives.
        reasons = message.response_metadata.get("trimtab_invalid") or {}
        why = reasons.get(broken.get("id")) or broken.get("error") or "its arguments are not a JSON object"
        yield finished(request, ev.CallStatus.INVALID, f"The call could not be used: {why}")


def considered(
    message: AIMessage, toolset: Toolset, strategy: str, picked: Picked | None, *, again: bool
) -> ev.ToolsConsidered | None:
    """Which tools were looked at and which chosen; nothing when there were none. `again`: results of calls have been
    read before this reply, and only what is new is told."""
    routing = message.response_metadata.get("trimtab_routing")
    chosen = tuple(routing["chosen"]) if routing else tuple(c["name"] for c in message.tool_calls)
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
