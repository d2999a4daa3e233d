"""A chat model that says what it was told to say. For tests and for measuring everything around a model.

    model = ScriptedModel(["Hello."])
    model = ScriptedModel([call("weather", place="Oslo"), "It is raining."])

Each request takes the next step. A step is a text, a whole `AIMessage` (tool calls included), an exception to raise,
or a `Say` when it needs a delay. `asked` records what the model was shown. Besides langchain-core it needs nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr

from trimtab.domain.model import AskedDirectly


@dataclass(frozen=True)
class Say:
    """One step of a script."""

    message: AIMessage | str = ""
    delay: float = 0.0
    """Seconds before each chunk."""
    error: Exception | None = None
    """Raised after the message was streamed; with an empty message, at once."""


@dataclass(frozen=True)
class Asked:
    """What the model was shown in one request."""

    messages: tuple[BaseMessage, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """In the OpenAI format."""
    options: dict[str, Any] = field(default_factory=dict)


Step = str | AIMessage | Exception | Say


def call(tool: str, call_id: str = "", **arguments: Any) -> AIMessage:
    """A message that calls one tool."""
    return AIMessage("", tool_calls=[tool_call(name=tool, args=arguments, id=call_id or f"call_{tool}")])


class ScriptedModel(AskedDirectly, BaseChatModel):
    """Replays its steps in order.

    Args of the constructor:
        steps: what to answer, one step a request.
        cycle: begin again after the last step instead of failing.
        chunk_chars: characters a streamed chunk has.

    Raises (when asked):
        IndexError: there are no steps left.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    steps: list[Any]
    cycle: bool = False
    chunk_chars: int = 8
    model_name: str = "scripted"
    _asked: list[Asked] = PrivateAttr(default_factory=list)

    def __init__(self, steps: Iterable[Step] = (), **fields: Any) -> None:
        super().__init__(steps=list(steps), **fields)

    @property
    def asked(self) -> list[Asked]:
        """Every request so far, oldest first."""
        return self._asked

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        shown = [convert_to_openai_tool(t) for t in tools]
        extra = {"tool_choice": tool_choice} if tool_choice is not None else {}
        return self.bind(tools=shown, **extra, **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        step = self._next(messages, stop, kwargs)
        time.sleep(step.delay)
        return _result(step, messages)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        step = self._next(messages, stop, kwargs)
        await asyncio.sleep(step.delay)
        return _result(step, messages)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        step = self._next(messages, stop, kwargs)
        for chunk in _chunks(step, messages, self.chunk_chars):
            time.sleep(step.delay)
            yield chunk
        if step.error is not None:
            raise step.error

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        step = self._next(messages, stop, kwargs)
        for chunk in _chunks(step, messages, self.chunk_chars):
            if step.delay:
                await asyncio.sleep(step.delay)
            yield chunk
        if step.error is not None:
            raise step.error

    def _next(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Say:
        index = len(self._asked)
        tools = tuple(options.pop("tools", ()))
        if stop:
            options["stop"] = stop
        self._asked.append(Asked(tuple(messages), tools, options))
        if index >= len(self.steps) and not self.cycle:
            raise IndexError(f"The script has {len(self.steps)} steps and was asked for number {index + 1}.")
        step = self.steps[index % len(self.steps)]
        if isinstance(step, Say):
            return step
        return Say(error=step) if isinstance(step, Exception) else Say(step)


def _result(step: Say, messages: Sequence[BaseMessage]) -> ChatResult:
    if step.error is not None:
        raise step.error
    message = _message(step)
    given = message.usage_metadata or _usage(messages, message)
    done = message.model_copy(update={"usage_metadata": given})
    return ChatResult(generations=[ChatGeneration(message=done)])


def _chunks(step: Say, messages: Sequence[BaseMessage], size: int) -> Iterator[ChatGenerationChunk]:
    message = _message(step)
    if step.error is not None and not message.text and not message.tool_calls:
        return
    text = message.text
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=message.id), text=piece)
    if message.tool_calls:
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=_call_chunks(message)))
    if step.error is None:
        last = AIMessageChunk(
            content="",
            usage_metadata=message.usage_metadata or _usage(messages, message),
            response_metadata={**_metadata(message), **message.response_metadata},
            additional_kwargs=message.additional_kwargs,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)


def _call_chunks(message: AIMessage) -> list[ToolCallChunk]:
    return [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=i)
        for i, c in enumerate(message.tool_calls)
    ]


def _message(step: Say) -> AIMessage:
    message = AIMessage(step.message) if isinstance(step.message, str) else step.message
    return message.model_copy(update={"response_metadata": {**_metadata(message), **message.response_metadata}})


def _metadata(message: AIMessage) -> dict[str, str]:
    return {"finish_reason": "tool_calls" if message.tool_calls else "stop", "model_name": "scripted"}


def _usage(messages: Sequence[BaseMessage], answer: AIMessage) -> UsageMetadata:
    """Words for tokens: plausible and cheap."""
    asked = sum(len(m.text.split()) for m in messages)
    said = len(answer.text.split()) + 8 * len(answer.tool_calls)
    return UsageMetadata(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
