"""Models and tools of ours, asked past LangChain's bookkeeping while nobody listens to it.

Around every call LangChain makes run ids, metadata and a callback manager, and tells it about each chunk. That is for
tracers and callbacks; where there are none it is most of what a turn costs. So a model or tool that says it may be
asked directly is, unless a callback, a tracer, `verbose` or `debug` is set anywhere: on it, around us, or in the
environment. Everything else goes through `astream` and `ainvoke`, with the same result.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool

from trimtab.domain.model import AskedDirectly
from trimtab.domain.tool import RunDirectly


def listened() -> bool:
    """Whether a callback or tracer around us wants to hear of calls, as LangChain finds it out before each."""
    return bool(AsyncCallbackManager.configure(ensure_config()["callbacks"]).handlers)


def stream(
    model: Runnable[Any, Any], messages: Sequence[BaseMessage], options: Mapping[str, Any], *, listened: bool
) -> AsyncGenerator[Any, None]:
    """What `model.astream(messages, **options)` yields. Close it to stop the model early."""
    bare: Runnable[Any, Any] = model
    bound: Mapping[str, Any] = {}
    if isinstance(model, RunnableBinding) and not model.config and not model.config_factories:
        bare, bound = model.bound, model.kwargs
    if not listened and isinstance(bare, AskedDirectly) and isinstance(bare, BaseChatModel) and _plain(bare):
        return _chunks(bare, list(messages), {**bound, **options})
    through_langchain: Any = model.astream(messages, **options)
    return through_langchain  # type: ignore[no-any-return]


async def run(tool: BaseTool, call_id: str, arguments: Mapping[str, Any], *, listened: bool) -> Any:
    """A `ToolOutcome`, or what a stranger's tool gives for a tool call: mostly a `ToolMessage`."""
    if not listened and isinstance(tool, RunDirectly) and not tool.callbacks and not tool.verbose:
        return await tool.outcome(arguments)
    return await tool.ainvoke({"type": "tool_call", "id": call_id, "name": tool.name, "args": dict(arguments)})


def _plain(model: BaseChatModel) -> bool:
    """Whether `astream` would do nothing but pass on the model's chunks."""
    told = model.callbacks or model.verbose or model.rate_limiter
    return not told and not model.disable_streaming and model.output_version in (None, "v0")


async def _chunks(
    model: BaseChatModel, messages: list[BaseMessage], options: dict[str, Any]
) -> AsyncGenerator[AIMessageChunk, None]:
    source: Any = model._astream(messages, **options)
    async with contextlib.aclosing(source):
        async for chunk in source:
            message: AIMessageChunk = chunk.message
            if chunk.generation_info:
                message.response_metadata = {**chunk.generation_info, **message.response_metadata}
            yield message
