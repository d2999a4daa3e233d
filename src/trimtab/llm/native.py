"""Native tool calling, forgiving: a wrapper for a model that is shown the tools and calls them by itself.

    model = NativeToolModel(inner=OpenAIChat(...)).bind_tools(tools)

It does three things that a bare model does not:

* A call that was written as text (a code fence, a tag, Python's syntax) becomes a call, if its tool was offered. While
  streaming, text that may turn out to be one is held back; other text passes at once.
* Arguments are checked against the tool's schema. What does not fit is sent back with the error once.
* What still does not fit is reported in `invalid_tool_calls`, with the error, and is not in `tool_calls`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import add_usage
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict

from ..domain import ids
from ..domain.model import AskedDirectly
from .lenient import read_calls
from .toolspec import ToolSpec, specs_of

INVALID = "trimtab_invalid"
"""In `response_metadata`: id of a call in `invalid_tool_calls` -> what is wrong with it."""
_AGAIN = "That call cannot be used. {errors}\nWrite the corrected call again, and nothing else."
_MARKS = ("<tool_call", "<function", "<tool", "[tool_calls]", "```", "{", "[{", "[")


class NativeToolModel(AskedDirectly, BaseChatModel):
    """See the module's note. Without tools it is the inner model, unchanged."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return "trimtab-native"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """The model with these tools, in any form LangChain knows.

        Raises:
            InvalidInput: a tool cannot be read.
        """
        shown = [s.as_openai() for s in specs_of(tools)]
        return self.bind(tools=shown, tool_choice=tool_choice, **kwargs)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        specs, model, rest = self._ready(kwargs)
        if not specs:
            async for piece in model.astream(messages, stop=stop, **rest):
                yield ChatGenerationChunk(message=_chunk_of(piece))
            return
        whole: AIMessageChunk | None = None
        held = _Held({s.name for s in specs})
        async for piece in model.astream(messages, stop=stop, **rest):
            chunk = _chunk_of(piece)
            whole = chunk if whole is None else _sum(whole, chunk)
            if text := held.pass_on(chunk.text):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        review = _review(_message(whole), specs)
        if review.problems:
            second = await model.ainvoke([*messages, *review.asking_again()], stop=stop, **rest)
            review = review.mended(second, specs)
        if not review.from_text and held.text:
            yield ChatGenerationChunk(message=AIMessageChunk(content=held.text))
        yield ChatGenerationChunk(message=review.last_chunk())

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        specs, model, rest = self._ready(kwargs)
        review = _review(await model.ainvoke(messages, stop=stop, **rest), specs)
        if review.problems:
            second = await model.ainvoke([*messages, *review.asking_again()], stop=stop, **rest)
            review = review.mended(second, specs)
        return ChatResult(generations=[ChatGeneration(message=review.message())])

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        specs, model, rest = self._ready(kwargs)
        review = _review(model.invoke(messages, stop=stop, **rest), specs)
        if review.problems:
            second = model.invoke([*messages, *review.asking_again()], stop=stop, **rest)
            review = review.mended(second, specs)
        return ChatResult(generations=[ChatGeneration(message=review.message())])

    def _ready(self, kwargs: dict[str, Any]) -> tuple[tuple[ToolSpec, ...], Runnable[Any, Any], dict[str, Any]]:
        rest = dict(kwargs)
        specs = specs_of(rest.pop("tools", None) or ())
        choice = rest.pop("tool_choice", None)
        if not specs:
            return (), self.inner, rest
        more = {} if choice is None else {"tool_choice": choice}
        plain = [replace(s, examples=()).as_openai() for s in specs]
        return specs, self.inner.bind_tools(plain, **more), rest


@dataclass(frozen=True)
class _Review:
    """A model's message, sorted: calls that can run, and problems (a name, what was written, why not)."""

    said: AIMessage
    calls: tuple[ToolCall, ...] = ()
    problems: tuple[InvalidToolCall, ...] = ()
    from_text: bool = False
    prose: str = ""

    def asking_again(self) -> list[BaseMessage]:
        errors = " ".join(f"{p['name']}: {p['error']}." for p in self.problems)
        if self.from_text or not self.said.tool_calls:
            return [AIMessage(self.said.text), HumanMessage(_AGAIN.format(errors=errors))]
        wrong = {p["id"]: p["error"] for p in self.problems}
        answers = [
            ToolMessage(
                _AGAIN.format(errors=wrong[c["id"]]) if c["id"] in wrong else "Not run yet.",
                tool_call_id=c["id"] or "",
            )
            for c in self.said.tool_calls
        ]
        return [self.said, *answers]

    def mended(self, second: AIMessage, specs: Sequence[ToolSpec]) -> _Review:
        """This review with the calls of the second try in place of the broken ones."""
        again = _review(second, specs)
        names = {p["name"] for p in self.problems}
        fixed = tuple(c for c in again.calls if c["name"] in names)
        still = tuple(p for p in self.problems if p["name"] not in {c["name"] for c in fixed})
        usage = _usage(self.said, second)
        return replace(
            self,
            said=self.said.model_copy(update={"usage_metadata": usage}),
            calls=(*self.calls, *fixed),
            problems=still,
        )

    def message(self) -> AIMessage:
        if not self.calls and not self.problems:
            return self.said
        content = self.prose if self.from_text else self.said.content
        return self.said.model_copy(
            update={
                "content": content,
                "tool_calls": list(self.calls),
                "invalid_tool_calls": list(self.problems),
                "response_metadata": {
                    **self.said.response_metadata,
                    "finish_reason": "tool_calls",
                    **({INVALID: {p["id"]: p["error"] for p in self.problems}} if self.problems else {}),
                },
            }
        )

    def last_chunk(self) -> AIMessageChunk:
        """Calls, metadata and usage, without the text that was streamed.

        Adding chunks parses calls again, and would accept a broken one whose arguments are JSON. So a broken call
        travels with its arguments as one JSON string, which stays invalid, and its error in the metadata.
        """
        message = self.message()
        chunks = [
            tool_call_chunk(name=c["name"], args=json.dumps(c["args"], ensure_ascii=False), id=c["id"], index=i)
            for i, c in enumerate(self.calls)
        ]
        chunks += [
            tool_call_chunk(name=p["name"], args=json.dumps(p["args"]), id=p["id"], index=len(self.calls) + i)
            for i, p in enumerate(self.problems)
        ]
        return AIMessageChunk(
            content="",
            tool_call_chunks=chunks,
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
        )


def _review(message: AIMessage, specs: Sequence[ToolSpec]) -> _Review:
    """Sort the native calls of a message or, where there are none, those written in its text."""
    table = {s.name: s for s in specs}
    calls: list[ToolCall] = []
    problems: list[InvalidToolCall] = list(_reasoned(message.invalid_tool_calls))
    if not table:
        return _Review(message, tuple(message.tool_calls), tuple(message.invalid_tool_calls))
    if message.tool_calls or problems:
        for call in message.tool_calls:
            _sort(table, call["name"], call["args"], call["id"] or ids.new("call"), calls, problems)
        return _Review(message, tuple(calls), tuple(problems))
    reading = read_calls(message.text, table)
    if not reading.found:
        return _Review(message)
    for read in reading.calls:
        _sort(table, read.name, read.arguments, ids.new("call"), calls, problems)
    problems += [invalid_tool_call(name=b.name, args=b.raw, id=ids.new("call"), error=b.reason) for b in reading.broken]
    return _Review(message, tuple(calls), tuple(problems), from_text=True, prose=reading.prose)


def _sort(
    table: dict[str, ToolSpec],
    name: str,
    arguments: Any,
    call_id: str,
    calls: list[ToolCall],
    problems: list[InvalidToolCall],
) -> None:
    spec = table.get(name)
    fault = spec.problem(arguments) if spec else f"there is no tool named '{name[:100]}'"
    if fault:
        written = json.dumps(arguments, ensure_ascii=False, default=str)[:2000]
        problems.append(invalid_tool_call(name=name, args=written, id=call_id, error=fault[:500]))
    else:
        calls.append(tool_call(name=name, args=arguments, id=call_id))


def _reasoned(broken: Sequence[InvalidToolCall]) -> list[InvalidToolCall]:
    reason = "the arguments are not a JSON object"
    return [
        invalid_tool_call(name=b["name"], args=b["args"], id=b["id"] or ids.new("call"), error=b["error"] or reason)
        for b in broken
    ]


class _Held:
    """Text that may be the beginning of a call, while it may be."""

    def __init__(self, offered: Collection[str]) -> None:
        self.text = ""
        self._offered = offered
        self._begun = False

    def pass_on(self, piece: str) -> str:
        """What of the text so far can be shown now."""
        self.text += piece
        at = self._begin()
        shown, self.text = self.text[:at], self.text[at:]
        self._begun = self._begun or bool(shown.strip())
        return shown

    def _begin(self) -> int:
        """Where what may be a call begins; the end of the text when nothing may."""
        low = self.text.lower()
        if not self._begun:
            start = len(low) - len(low.lstrip())
            if self._maybe(low[start:]):
                return 0
        places = [m.start() for m in re.finditer(r"```|<|\[tool", low)]
        places += [len(low) - n for n in range(1, 3) if low.endswith("`" * n)]
        return next((p for p in sorted(places) if self._maybe(low[p:])), len(self.text))

    def _maybe(self, text: str) -> bool:
        if text.startswith("```"):
            body = re.match(r"```[ \t]*([\w+-]*)[ \t]*(?:\r?\n\s*(.?)|$)", text, re.DOTALL)
            if body is None:
                return False
            called = any(n.lower().startswith(text.split("\n", 1)[-1].lstrip()[: len(n)]) for n in self._offered)
            return body.group(2) in (None, "", "{", "[", "<") or called
        if any(text.startswith(m) or m.startswith(text) for m in _MARKS if m not in ("{", "[", "[{")):
            return True
        if self._begun or not text:
            return not text and not self._begun
        return text[0] in "{[" or any((name.lower() + "(").startswith(text[: len(name) + 1]) for name in self._offered)


def _usage(first: AIMessage, second: AIMessage) -> Any:
    return add_usage(first.usage_metadata, second.usage_metadata)


def _chunk_of(piece: Any) -> AIMessageChunk:
    if isinstance(piece, AIMessageChunk):
        return piece
    calls = [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"], default=str), id=c["id"], index=i)
        for i, c in enumerate(piece.tool_calls)
    ]
    return AIMessageChunk(
        content=piece.content,
        tool_call_chunks=calls,
        response_metadata=piece.response_metadata,
        usage_metadata=piece.usage_metadata,
    )


def _sum(whole: AIMessageChunk, chunk: AIMessageChunk) -> AIMessageChunk:
    joined = whole + chunk
    assert isinstance(joined, AIMessageChunk)
    return joined


def _message(whole: AIMessageChunk | None) -> AIMessage:
    if whole is None:
        return AIMessage("")
    return AIMessage(
        content=whole.content,
        additional_kwargs=whole.additional_kwargs,
        response_metadata=whole.response_metadata,
        tool_calls=whole.tool_calls,
        invalid_tool_calls=whole.invalid_tool_calls,
        usage_metadata=whole.usage_metadata,
        id=whole.id,
    )
