"""Models and tools of ours, asked past LangChain's bookkeeping while nobody listens to it.

Around every call LangChain makes run ids, metadata and a callback manager, and tells it about each chunk. That is for
tracers and callbacks; where there are none it is most of what a turn costs. So a model or tool that says it may be
asked directly is, unless a callback, a tracer, `verbose` or `debug` is set anywhere: on it, around us, or in the
environment. Everything else goes through `astream` and `ainvoke`, with the same result.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool

from trimtab.domain.model import AskedDirectly
from trimtab.domain.tool import CALL_ID, RunDirectly


def listened() -> bool:
    """Whether a callback or tracer around us wants to hear of calls, as LangChain finds it out before each."""
    return bool(AsyncCallbackManager.configure(ensure_config()["callbacks"]).handlers)


def stream(
    model: Runnable[Any, Any], messages: Sequence[BaseMessage], options: Mapping[str, Any], *, listened: bool
) -> AsyncGenerator[Any, None]:
    """What `model.astream(messages, **options)` yields, for `message_of` to read. Close it to stop the model early."""
    bare: Runnable[Any, Any] = model
    bound: Mapping[str, Any] = {}
    if isinstance(model, RunnableBinding) and not model.config and not model.config_factories:
        bare, bound = model.bound, model.kwargs
    if not listened and isinstance(bare, AskedDirectly) and isinstance(bare, BaseChatModel) and _plain(bare):
        source: Any = bare._astream(list(messages), **{**bound, **options})
    else:
        source = model.astream(messages, **options)
    return source  # type: ignore[no-any-return]


def message_of(chunk: Any) -> AIMessageChunk:
    """A piece of a stream as a message, as `astream` makes it of one."""
    if isinstance(chunk, ChatGenerationChunk):
        if chunk.generation_info:
            chunk.message.response_metadata = {**chunk.generation_info, **chunk.message.response_metadata}
        chunk = chunk.message
    if isinstance(chunk, AIMessageChunk):
        return chunk
    # A model without streaming gives one whole message.
    return AIMessageChunk(**{**chunk.model_dump(exclude={"type"}), "type": "AIMessageChunk"})


async def run(tool: BaseTool, call_id: str, arguments: Mapping[str, Any], *, listened: bool) -> Any:
    """A `ToolOutcome`, or what a stranger's tool gives for a tool call: mostly a `ToolMessage`."""
    known = CALL_ID.set(call_id)
    try:
        if not listened and isinstance(tool, RunDirectly) and not tool.callbacks and not tool.verbose:
            return await tool.outcome(arguments)
        return await tool.ainvoke({"type": "tool_call", "id": call_id, "name": tool.name, "args": dict(arguments)})
    finally:
        CALL_ID.reset(known)


def _plain(model: BaseChatModel) -> bool:
    """Whether `astream` would do nothing but pass on the model's chunks."""
    told = model.callbacks or model.verbose or model.rate_limiter
    return not told and not model.disable_streaming and model.output_version in (None, "v0")
