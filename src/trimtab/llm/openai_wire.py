"""The OpenAI protocol's words: LangChain messages to JSON, streamed lines to LangChain chunks, errors to ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from trimtab.domain.errors import EngineBusy, EngineRefused, TooLarge, TrimtabError

_TOO_LONG = {"exceed_context_size_error", "context_length_exceeded"}
"""What llama.cpp and OpenAI call a prompt that does not fit."""


def to_wire(messages: Sequence[BaseMessage], clean: Callable[[str], str]) -> list[dict[str, Any]]:
    """Messages as the protocol has them, each text passed through `clean`."""
    converted = convert_to_openai_messages(list(messages))
    assert isinstance(converted, list)
    return [_cleaned(m, clean) for m in converted]


def _cleaned(message: dict[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str):
        message["content"] = clean(content)
    elif isinstance(content, list):
        message["content"] = [{**p, "text": clean(p["text"])} if "text" in p else p for p in content]
    for call in message.get("tool_calls") or ():
        call["function"]["arguments"] = clean(call["function"]["arguments"])
    return message


@dataclass(slots=True)
class Piece:
    """What one line of a stream says, or several in a row."""

    text: str = ""
    calls: list[ToolCallChunk] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    """Of the `AIMessageChunk` that it becomes."""

    def chunk(self) -> ChatGenerationChunk:
        message = AIMessageChunk(content=self.text, tool_call_chunks=self.calls, **self.fields)
        return ChatGenerationChunk(message=message, text=self.text)

    def take(self, other: Piece) -> bool:
        """Add another one's text, and its tokens' probabilities. False if there is more to it than that."""
        if self.calls or other.calls or self.fields.get("id") != other.fields.get("id"):
            return False
        mine, others = _token_list(self.fields), _token_list(other.fields)
        if mine is None or others is None or bool(mine) != bool(others):
            return False
        mine += others
        self.text += other.text
        return True


def _token_list(fields: dict[str, Any]) -> list[Any] | None:
    """The probabilities in a piece; None if it has anything else besides its text."""
    if fields.keys() == {"id"}:
        return []
    if fields.keys() == {"id", "response_metadata"}:
        logprobs = fields["response_metadata"].get("logprobs")
        if isinstance(logprobs, dict) and logprobs.keys() == {"content"} and isinstance(logprobs["content"], list):
            return logprobs["content"]
    return None


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces of nothing but text joined: making a LangChain chunk of each costs more than reading it."""
    found: list[Piece] = []
    for piece in pieces:
        if not found or not found[-1].take(piece):
            found.append(piece)
    return found


class Decoder:
    """A stream of server-sent lines in, pieces out. One a request."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.started = False
        self.done = False
        """The server said that it was finished."""
        self._rest = b""
        self._finish: str | None = None
        self._timings: dict[str, Any] = {}

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What the bytes say, line by line; half a line waits for its other half. Nothing counts after the end.

        Raises:
            TrimtabError: a line reports an error (see `refused`), or is nothing that the protocol has.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                yield from self._line(line[5:].strip())

    def _line(self, data: bytes) -> Iterator[Piece]:
        if data == b"[DONE]":
            self.done = True
            yield self._last()
            return
        event = self._parse(data)
        if event.get("error"):
            code = _get(event["error"], "code", 500)
            raise refused(code if isinstance(code, int) else 500, data, {}, self.model)
        self.started = True
        try:
            yield from self._event(event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineRefused(
                f"{self.model!r} sent a line of a shape that the OpenAI protocol does not have. "
                "Is this an OpenAI-compatible server?"
            ) from error

    def _event(self, event: dict[str, Any]) -> Iterator[Piece]:
        self._timings = event.get("timings") or self._timings
        if (usage := event.get("usage")) and not event.get("choices"):
            yield Piece(fields={"usage_metadata": _usage(usage)})
        for choice in event.get("choices") or ():
            if choice.get("index", 0) == 0:
                yield from self._choice(choice, event)

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            event = orjson.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise EngineRefused(f"{self.model!r} sent a line that is no JSON. Is this an OpenAI-compatible server?")
        return event

    def _choice(self, choice: dict[str, Any], event: dict[str, Any]) -> Iterator[Piece]:
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content")
        calls = [_call(c) for c in delta.get("tool_calls") or ()]
        more: dict[str, Any] = {}
        if choice.get("logprobs"):
            more["response_metadata"] = {"logprobs": choice["logprobs"]}
        if reasoning := delta.get("reasoning_content"):
            more["additional_kwargs"] = {"reasoning_content": reasoning}
        if usage := event.get("usage"):
            more["usage_metadata"] = _usage(usage)
        if choice.get("finish_reason"):
            self._finish = choice["finish_reason"]
        if text or calls or more:
            yield Piece(text, calls, {"id": event.get("id"), **more})

    def _last(self) -> Piece:
        metadata: dict[str, Any] = {"finish_reason": self._finish or "stop", "model_name": self.model}
        if self._timings:
            metadata["timings"] = self._timings  # llama.cpp's own measurement
        return Piece(fields={"response_metadata": metadata, "chunk_position": "last"})


def refused(status: int, body: bytes, headers: Mapping[str, str], model: str) -> TrimtabError:
    """Our error for a server's answer of `status`. Its words are kept, shortened; they may quote the request."""
    try:
        error = json.loads(body).get("error", "")
        said = str(_get(error, "message", error))
    except (ValueError, AttributeError):
        error, said = {}, body.decode("utf-8", "replace")
    said = " ".join(said.split())[:300]
    if {_get(error, "type", ""), _get(error, "code", "")} & _TOO_LONG:
        return TooLarge(f"The conversation is too long for {model!r} ({said}). Shorten it.", model=model)
    if status in (429, 503):
        wait = headers.get("retry-after", "1")
        return EngineBusy(
            f"{model!r} is busy ({said}). Try again in {wait} s.", model=model, retry_after=_seconds(wait)
        )
    if status in (401, 403):
        return EngineRefused(
            f"{model!r} refused the key ({said}). Check the key of this server.", model=model, status=status
        )
    return EngineRefused(
        f"{model!r} answered with an error {status}: {said}. Change the request.", model=model, status=status
    )


def _seconds(text: str) -> float:
    try:
        return max(0.0, min(float(text), 3600.0))
    except ValueError:
        return 1.0


def _get(value: Any, name: str, default: Any) -> Any:
    return value.get(name, default) if isinstance(value, dict) else default


def _call(call: dict[str, Any]) -> ToolCallChunk:
    function = call.get("function") or {}
    return tool_call_chunk(
        name=function.get("name"), args=function.get("arguments"), id=call.get("id"), index=call.get("index", 0)
    )


def _usage(usage: dict[str, Any]) -> UsageMetadata:
    asked, said = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    cached = int(_get(usage.get("prompt_tokens_details"), "cached_tokens", 0) or 0)
    return UsageMetadata(
        input_tokens=asked,
        output_tokens=said,
        total_tokens=asked + said,
        input_token_details=InputTokenDetails(cache_read=cached),
    )
