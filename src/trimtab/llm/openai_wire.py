"""The OpenAI protocol's words: LangChain messages to JSON, streamed lines to LangChain chunks, errors to ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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


class Decoder:
    """Server-sent lines in, chunks out. One a request."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.started = False
        self.done = False
        """The server said that it was finished."""
        self._finish: str | None = None
        self._timings: dict[str, Any] = {}

    def line(self, line: str) -> list[ChatGenerationChunk]:
        """The chunks that one line amounts to, often none.

        Raises:
            TrimtabError: the line reports an error (see `refused`), or is nothing that the protocol has.
        """
        if not line.startswith("data:"):
            return []
        data = line[5:].strip()
        if data == "[DONE]":
            self.done = True
            return [self._last()]
        event = self._parse(data)
        if event.get("error"):
            code = _get(event["error"], "code", 500)
            raise refused(code if isinstance(code, int) else 500, data.encode(), {}, self.model)
        self.started = True
        try:
            return list(self._event(event))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EngineRefused(
                f"{self.model!r} sent a line of a shape that the OpenAI protocol does not have. "
                "Is this an OpenAI-compatible server?"
            ) from error

    def _event(self, event: dict[str, Any]) -> Iterable[ChatGenerationChunk]:
        self._timings = event.get("timings") or self._timings
        if (usage := event.get("usage")) and not event.get("choices"):
            yield _chunk(usage_metadata=_usage(usage))
        for choice in event.get("choices") or ():
            if choice.get("index", 0) == 0:
                yield from self._choice(choice, event)

    def _parse(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise EngineRefused(f"{self.model!r} sent a line that is no JSON. Is this an OpenAI-compatible server?")
        return event

    def _choice(self, choice: dict[str, Any], event: dict[str, Any]) -> Iterable[ChatGenerationChunk]:
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
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
            yield _chunk(text, tool_call_chunks=calls, id=event.get("id"), **more)

    def _last(self) -> ChatGenerationChunk:
        metadata: dict[str, Any] = {"finish_reason": self._finish or "stop", "model_name": self.model}
        if self._timings:
            metadata["timings"] = self._timings  # llama.cpp's own measurement
        return _chunk(response_metadata=metadata, chunk_position="last")


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


def _chunk(text: str = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text, **fields), text=text)
