"""One chat model for every server that speaks the OpenAI protocol: our engine, vLLM, Ollama, llama-server, hosted APIs.

Address, key and model name are all it takes. It is written on httpx rather than on langchain-openai because, measured
on one machine with a server that answers at once, the latter costs 141-190 microseconds of CPU a streamed chunk and
1.2 s of import, this 24 microseconds and 0.7 s (nearly all of it langchain-core's); and because a turn needs the
connection to end the moment its task is cancelled, which is what frees the engine's slot.

A request that fails is never repeated here: whoever asked knows whether it may be.
"""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import httpx
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from trimtab.domain.errors import DeadlineExceeded, EngineDied, EngineError, InvalidInput, TrimtabError
from trimtab.domain.model import AskedDirectly, Sampling
from trimtab.domain.neutral import Neutraliser

from .loopback import LoopbackTransport
from .openai_wire import Decoder, Piece, merged, refused, to_wire

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class OpenAIChat(AskedDirectly, BaseChatModel):
    """A LangChain chat model over ``POST {base_url}/chat/completions``.

        model = OpenAIChat(base_url="http://127.0.0.1:8000/v1", api_key="...", model="qwen3")
        async for chunk in model.astream("Hello"): ...

    Options of a single call (`bind` them, or pass them to `ainvoke`): `tools`, `tool_choice`, `response_format`,
    `seed`, `max_tokens`, `temperature`, `logprobs`, `top_logprobs`, and `extra_body` for what only this server knows
    (`lora`, `cache_prompt`, `grammar`).

    Raises (when asked):
        EngineDied: the connection broke while it was answering.
        EngineBusy: its queue is full (429, or 503 with a wait).
        EngineRefused: it answered with an error.
        EngineError: it cannot be reached.
        InvalidInput: the messages are longer than `max_chars`.
        TooLarge: they do not fit the model's context.
        DeadlineExceeded: it was silent for `timeout` seconds.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    base_url: str | Callable[[], str]
    """Up to and including ``/v1``; a callable is asked anew for each request."""
    model: str
    api_key: SecretStr | None = None
    sampling: Sampling = Field(default_factory=Sampling)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    extra_sampling: bool = False
    """Whether the server knows `min_p`, `top_k` and `repeat_penalty`, which OpenAI's own protocol lacks."""
    special_tokens: tuple[str, ...] = ()
    """Broken wherever they occur in a message, see `neutral`."""
    max_chars: int = 262_144
    """Longer requests are refused here: tokenising a huge one would block a local engine for seconds."""
    timeout: float = 300.0
    """Seconds of silence. A long prompt on a slow machine is silent for a while."""
    _clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = PrivateAttr(
        default_factory=weakref.WeakKeyDictionary
    )

    @property
    def _llm_type(self) -> str:
        return "trimtab-openai"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | dict[str, Any] | None = None, **kwargs: Any
    ) -> Runnable[Any, Any]:
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(t) for t in tools], **kwargs)

    async def aclose(self) -> None:
        """Close connections that are kept open."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._said(messages, stop, kwargs)) as source:
            async for pieces in source:
                for piece in merged(pieces):
                    yield piece.chunk()

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        async with aclosing(self._said(messages, stop, kwargs)) as source:
            pieces = merged([piece async for arrived in source for piece in arrived])
        whole = pieces[0].chunk().message
        assert isinstance(whole, AIMessageChunk)
        for piece in pieces[1:]:
            whole += piece.chunk().message
        return ChatResult(generations=[ChatGeneration(message=message_chunk_to_message(whole))])

    async def _said(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]
    ) -> AsyncGenerator[list[Piece], None]:
        """The answer, as much at a time as has arrived: one piece a token, more when this machine is busy."""
        body = self._body(messages, stop, options)
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        decoder = Decoder(self.model)
        try:
            async with self.http().stream(
                "POST", self.url("/chat/completions"), json=body, headers=self.headers()
            ) as response:
                if response.status_code >= 400:
                    raise refused(response.status_code, await response.aread(), response.headers, self.model)
                async for data in response.aiter_bytes():
                    pieces: list[Piece] = []
                    fault: TrimtabError | None = None
                    try:
                        pieces.extend(decoder.feed(data))
                    except TrimtabError as error:  # what came before it in the same bytes was said
                        fault = error
                    if pieces:
                        yield pieces
                    if fault is not None:
                        raise fault
                    if decoder.done:
                        break
        except httpx.HTTPError as error:
            raise broken(error, self.model, answering=decoder.started) from error
        if not decoder.done:
            raise EngineDied(f"{self.model!r} stopped in the middle of its answer. Ask again.", model=self.model)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        """For synchronous callers: the same on a loop of its own, in a thread so that a running loop is no obstacle."""
        outcome: list[ChatResult | BaseException] = []

        def run() -> None:
            try:
                outcome.append(asyncio.run(self._once(messages, stop, kwargs)))
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, name="openai-chat")
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    async def _once(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> ChatResult:
        try:
            return await self._agenerate(messages, stop, **kwargs)
        finally:
            await self.aclose()

    def _body(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
        wire = to_wire(messages, Neutraliser(self.special_tokens))
        size = sum(len(json.dumps(m, ensure_ascii=False)) for m in wire)
        if size > self.max_chars:
            raise InvalidInput(
                f"The request has {size} characters and {self.model!r} takes {self.max_chars}. Shorten it.", size=size
            )
        body: dict[str, Any] = {"model": self.model, "messages": wire, **_sampling(self.sampling, self.extra_sampling)}
        body |= self.extra_body
        if stop:
            body["stop"] = list(stop)
        extra = options.pop("extra_body", None) or {}
        body |= {name: value for name, value in options.items() if value is not None}
        return body | extra

    def url(self, path: str) -> str:
        base = self.base_url() if callable(self.base_url) else self.base_url
        return base.rstrip("/") + path

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key.get_secret_value()}"} if self.api_key else {}

    def http(self) -> httpx.AsyncClient:
        """One client an event loop. Plain http keeps no idle connections: opening one on loopback costs a fraction of
        a millisecond, and an idle one would be stale after the engine's next restart."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            address = httpx.URL(self.url(""))
            plain = address.scheme == "http"
            client = httpx.AsyncClient(
                timeout=httpx.Timeout(self.timeout, connect=5.0),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0 if plain else 20),
                trust_env=not plain,
                verify=not plain,
                transport=LoopbackTransport() if plain and address.host in _LOOPBACK else None,
            )
            self._clients[loop] = client
        return client


def broken(error: httpx.HTTPError, model: str, *, answering: bool) -> TrimtabError:
    """Our error for a connection that failed."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return EngineError(
            f"{model!r} cannot be reached; it may be restarting. Try again in a few seconds.", model=model
        )
    if isinstance(error, httpx.TimeoutException):
        return DeadlineExceeded(f"{model!r} was silent for too long. Ask for less, or try again later.", model=model)
    when = "in the middle of its answer" if answering else "before it answered"
    return EngineDied(f"The connection to {model!r} broke {when}. Ask again in a few seconds.", model=model)


def _sampling(sampling: Sampling, extra: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    names = ("top_p", "seed", "min_p", "top_k", "repeat_penalty") if extra else ("top_p", "seed")
    body |= {name: value for name in names if (value := getattr(sampling, name)) is not None}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body
