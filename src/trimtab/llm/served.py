"""A model made ready to be asked: the engine or the address behind it, its profile, and the way it calls tools.

`serve` decides between four sources by what the options name: a local file (engine), a name of the catalogue (engine),
an OpenAI-compatible server by its address, or a hosted provider by LangChain's ``provider:model``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from trimtab.domain.errors import EngineError, InvalidInput, ModelFileError
from trimtab.domain.model import Embedder, Profile, TokenCounter
from trimtab.domain.neutral import Neutraliser

from .catalogue import DEFAULT_CHAT
from .choice import Choice, EngineName, WantedEngine, choose
from .engine import Engine, EngineOptions, EngineState
from .hosted import hosted_model
from .openai_chat import OpenAIChat, broken
from .openai_wire import refused
from .openvino_graph import Precision
from .profile import profile_for
from .shelf import OnProgress, resolve_model, sha256_of
from .tokens import counter_for
from .weights import prepare, written_as

_log = logging.getLogger(__name__)

FORWARDED = frozenset(
    "messages prompt stream stream_options temperature top_p min_p top_k max_tokens max_completion_tokens stop seed n "
    "logprobs top_logprobs response_format presence_penalty frequency_penalty tools tool_choice parallel_tool_calls "
    "logit_bias".split()
)
"""Fields of a client's request that reach the server behind us. Grammars, slots and adapters are ours to choose."""


@dataclass(frozen=True)
class Form:
    """A model served otherwise than it would be unasked: chosen by measurement, so nothing else takes its place."""

    engine: EngineName
    weights: str
    """Of llama.cpp: f16, q8_0, q5_0, q4_0; of OpenVINO: f16, int8, int4."""
    kv_cache: str
    folder: Path
    """Where its files are, or are written."""
    source: Path | None = None
    """The model's file, where it is not the one that `model` names: a student's."""


@dataclass(frozen=True)
class ServingOptions:
    """Which model to serve and how. `model` is ``default``, a catalogue name, a path, or ``provider:model``."""

    models_dir: Path
    model: str = "default"
    log_path: Path | None = None
    base_url: str = ""
    api_key: SecretStr = SecretStr("")
    engine: WantedEngine = "auto"
    tools_mode: Literal["auto", "native", "guided", "none"] = "auto"
    as_shipped: bool = False
    form: Form | None = None
    context: int = 4096
    parallel: int = 4
    threads: int = 0
    batch: int = 256
    temperature: float | None = None
    max_tokens: int = 512
    max_prompt_chars: int = 64_000


class Spoken(NamedTuple):
    """One version of the served model, see `Served.voice`."""

    model: BaseChatModel
    """With help for tools."""
    bare: BaseChatModel
    profile: Profile


@dataclass(frozen=True)
class BaseWeights:
    """The file a served model was made from."""

    name: str
    path: Path
    sha256: str


class Served:
    """What `serve` made. `model` is what the orchestrator asks; `bare` is the same without help for tools."""

    def __init__(
        self,
        bare: BaseChatModel,
        profile: Profile,
        count: TokenCounter,
        *,
        embedder: Embedder | None,
        engine: Engine | None = None,
        engine_reason: str = "",
        base: BaseWeights | None = None,
    ) -> None:
        self.bare = bare
        self.profile = profile
        self.count = count
        self.engine = engine
        self.engine_reason = engine_reason
        """Why this engine and not the other, in words."""
        self.base = base
        """The weights, where they are on this machine: what adapters fit."""
        self.model = with_tools(bare, profile, embedder)
        self._embedder = embedder
        self._beside: dict[str, Engine] = {}
        """Engines that run beside the first one because it cannot take an adapter while it serves."""
        self._adapters: dict[str, int] = {}
        """Of each version whose adapter the first engine has: its id there."""

    def engine_status(self) -> dict[str, Any] | None:
        """The local engine for `doctor` and `/readyz`; None when there is none."""
        if self.engine is None:
            return None
        status = self.engine.status()
        return {
            "ok": status.state is EngineState.READY,
            "state": status.state.value,
            "engine": self.engine.kind,
            "reason": self.engine_reason,
            "model": status.model,
            "restarts": status.crashes,
            "slots": status.slots,
            "context": status.slot_context,
            "last_error": status.last_error,
        }

    async def voice(self, version: str, adapter: Path | None, adapter_gguf: Path | None = None) -> Spoken:
        """The model as it speaks with an adapter, ready to be asked while others go on asking it without.

        Args:
            version: what lineage is to say.
            adapter: a PEFT folder; None for the model as it was installed.
            adapter_gguf: the same for an engine that wants a GGUF file.

        Raises:
            InvalidInput: this model takes no adapters, or not this one.
            EngineError: the engine cannot be reached or started.
        """
        if self.engine is None or not isinstance(self.bare, OpenAIChat):
            raise InvalidInput("This model is served elsewhere; adapters work with a model that runs on this machine.")
        engine, body = self.engine, {}
        if adapter is not None and engine.capabilities.hot_adapters:
            if version not in self._adapters:
                self._adapters[version] = await engine.add_adapter(adapter)
            body = engine.adapters_body({self._adapters[version]: 1.0})
        elif adapter is not None:
            engine = await self._engine_beside(version, engine, adapter_gguf)
            body = engine.adapters_body({0: 1.0})
        elif engine.capabilities.hot_adapters:
            body = engine.adapters_body({})
        changed = {"base_url": engine.base_url, "api_key": engine.key, "extra_body": {**self.bare.extra_body, **body}}
        profile = replace(self.profile, version=version)
        bare = self.bare.model_copy(update=changed)
        return Spoken(with_tools(bare, profile, self._embedder), bare, profile)

    @property
    def beside(self) -> frozenset[str]:
        """The versions for which an engine of their own runs."""
        return frozenset(self._beside)

    async def release(self, version: str) -> None:
        """Stop the engine that ran for one version only, if there was one. An adapter that the first engine took in
        stays there."""
        if (engine := self._beside.pop(version, None)) is not None:
            await engine.stop()

    async def _engine_beside(self, version: str, first: Engine, adapter: Path | None) -> Engine:
        """llama.cpp reads adapters when it starts: another one is started, and the first goes on serving."""
        from .llamacpp import LlamaCppEngine

        if not isinstance(first, LlamaCppEngine) or adapter is None:
            raise InvalidInput(f"Version {version} has no adapter in GGUF format, which this engine needs.")
        if version not in self._beside:
            engine = LlamaCppEngine(
                first.model_path, replace(first.options, adapters=(adapter,)), None, name=first.name
            )
            await engine.start()
            self._beside[version] = engine
        return self._beside[version]

    @property
    def forwards(self) -> bool:
        """Whether requests can be handed on as they are: there is a server that speaks the protocol."""
        return isinstance(self.bare, OpenAIChat)

    @asynccontextmanager
    async def forward(
        self, path: str, body: Mapping[str, Any], version: BaseChatModel | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Hand a client's request to the server behind us and give its answer unread. `version` is the bare model of
        the version that is to answer.

        Only `FORWARDED` fields go through, and special tokens in the client's text are broken up.

        Raises:
            EngineError and its kinds, as `OpenAIChat` does.
        """
        chat = version or self.bare
        assert isinstance(chat, OpenAIChat)
        sent = {name: value for name, value in body.items() if name in FORWARDED and value is not None}
        if "max_completion_tokens" in sent:
            sent["max_tokens"] = sent.pop("max_completion_tokens")
        defaults: dict[str, Any] = {"max_tokens": self.profile.sampling.max_tokens, "model": chat.model}
        clean = Neutraliser(chat.special_tokens)
        answering = False
        try:
            async with chat.http().stream(
                "POST", chat.url(path), json=_cleaned(defaults | sent, clean) | chat.extra_body, headers=chat.headers()
            ) as response:
                if response.status_code >= 400:
                    raise refused(response.status_code, await response.aread(), response.headers, chat.model)
                answering = True
                yield response
        except httpx.HTTPError as error:
            raise broken(error, chat.model, answering=answering) from error

    async def aclose(self) -> None:
        if isinstance(self.bare, OpenAIChat):
            await self.bare.aclose()
        for version in list(self._beside):
            await self.release(version)
        if self.engine is not None:
            await self.engine.stop()


def _cleaned(value: Any, clean: Neutraliser) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(v, clean) for v in value]
    if isinstance(value, dict):
        return {key: _cleaned(v, clean) for key, v in value.items()}
    return value


def with_tools(bare: BaseChatModel, profile: Profile, embedder: Embedder | None) -> BaseChatModel:
    """The model with the help it needs to call tools.

    Raises:
        InvalidInput: guidance was asked for, but there is no embedding model to route by.
    """
    if profile.tools == "guided":
        if embedder is None:
            raise InvalidInput(
                "Guided tool calls need the embedding model. Open Trimtab with retrieval, or set tools_mode."
            )
        from .guided import GuidedChatModel

        return GuidedChatModel(inner=bare, embedder=embedder, kept=getattr(embedder, "kept", None))
    if profile.tools == "native":
        from .native import NativeToolModel

        return NativeToolModel(inner=bare)
    return bare


async def serve(
    options: ServingOptions, embedder: Embedder | None = None, on_progress: OnProgress | None = None
) -> Served:
    """Start or reach the model that `options` name. `on_progress` hears of weights that are being converted.

    Raises:
        ModelFileError: its file is missing or damaged; says how to fetch it.
        EngineError: the engine does not come up.
        InvalidInput: the options do not name a model.
    """
    if options.base_url:
        return _remote(options, embedder)
    name = DEFAULT_CHAT if options.model == "default" else options.model
    if is_hosted(name):
        profile = _tuned(profile_for(name, slot_context=options.context), options)
        return Served(hosted_model(name, profile.sampling), profile, counter_for(None), embedder=embedder)
    return await _local(name, options, embedder, on_progress)


def _remote(options: ServingOptions, embedder: Embedder | None) -> Served:
    if options.model == "default":
        raise InvalidInput("With `base_url` the model needs its name there: set `model` to what that server calls it.")
    found = profile_for(options.model, slot_context=options.context, base_url=options.base_url)
    profile = _tuned(found, options)
    chat = OpenAIChat(
        base_url=options.base_url,
        api_key=options.api_key if options.api_key.get_secret_value() else None,
        model=options.model,
        sampling=profile.sampling,
        max_chars=options.max_prompt_chars * 4,
    )
    return Served(chat, profile, counter_for(None), embedder=embedder)


async def _local(
    name: str, options: ServingOptions, embedder: Embedder | None, on_progress: OnProgress | None
) -> Served:
    student = options.form.source if options.form else None
    shipped = student if student else await asyncio.to_thread(resolve_model, name, options.models_dir)
    choice = await asyncio.to_thread(engine_for, shipped, options)
    if choice.engine == "openvino":
        try:
            return await _served_by(choice, shipped, options, embedder, on_progress)
        except (EngineError, ModelFileError) as error:
            if not choice.fallback:
                raise
            _log.warning("the openvino engine cannot serve %s (%s); llama.cpp takes over", shipped.name, error)
            choice = Choice("llamacpp", f"openvino could not: {error}")
    return await _served_by(choice, shipped, options, embedder, on_progress)


def prepare_weights(options: ServingOptions, on_progress: OnProgress | None = None) -> None:
    """Write ahead what `serve` would otherwise write at the first start. Does nothing for a model that is not here.

    Raises:
        ModelFileError: the model's file is damaged, or the disk is full.
    """
    if options.base_url or is_hosted(options.model):
        return
    student = options.form.source if options.form else None
    shipped = student or resolve_model(
        DEFAULT_CHAT if options.model == "default" else options.model, options.models_dir
    )
    choice = engine_for(shipped, options)
    prepared = options.form.folder if options.form else options.models_dir / "prepared"
    if choice.engine == "openvino":
        from .openvino_weights import prepare_openvino

        try:
            prepare_openvino(shipped, prepared, precision=_precision(options), on_progress=on_progress)
            return
        except ModelFileError:
            if not choice.fallback:
                raise
    if options.form:
        written_as(shipped, prepared, options.form.weights, on_progress)
    elif not options.as_shipped:
        prepare(shipped, prepared, on_progress)


def _precision(options: ServingOptions) -> Precision:
    known: dict[str, Precision] = {"f16": "f16", "int8": "int8", "int4": "int4"}
    return known[options.form.weights] if options.form else "int8"


def is_hosted(name: str) -> bool:
    """Whether a model's name is LangChain's ``provider:model``."""
    return ":" in name and "/" not in name and not name.endswith(".gguf")


def engine_for(shipped: Path, options: ServingOptions) -> Choice:
    """The engine that would serve this file, and why.

    Raises:
        InvalidInput: the engine asked for cannot.
        ModelFileError: the file cannot be read.
    """
    if options.form:
        chosen = choose(shipped, options.form.engine)
        return Choice(chosen.engine, "the setting `variant` says so")
    if options.as_shipped and options.engine == "auto":
        return Choice("llamacpp", "the setting `weights` asks for the file as it was shipped; openvino converts it")
    tools = profile_for(shipped).tools if options.tools_mode == "auto" else options.tools_mode
    return choose(shipped, options.engine, native_tools=tools == "native")


async def _served_by(
    choice: Choice, shipped: Path, options: ServingOptions, embedder: Embedder | None, on_progress: OnProgress | None
) -> Served:
    kv_cache = options.form.kv_cache if options.form else ""
    engine_options = EngineOptions(
        slots=options.parallel, slot_context=options.context, batch=options.batch, kv_cache=kv_cache
    )
    if options.threads:
        engine_options = replace(engine_options, threads=options.threads)
    prepared = options.form.folder if options.form else options.models_dir / "prepared"
    weights = shipped
    engine: Engine
    if choice.engine == "openvino":
        from .openvino import OpenVinoEngine

        engine = OpenVinoEngine(
            shipped,
            engine_options,
            options.log_path,
            name=shipped.stem,
            cache_dir=prepared,
            precision=_precision(options),
            on_progress=on_progress,
        )
    else:
        from .llamacpp import LlamaCppEngine

        if options.form:
            weights = await asyncio.to_thread(written_as, shipped, prepared, options.form.weights, on_progress)
        elif not options.as_shipped:
            weights = await asyncio.to_thread(prepare, shipped, prepared, on_progress)
        engine = LlamaCppEngine(weights, engine_options, options.log_path, name=shipped.stem)
    await engine.start()
    try:
        base = BaseWeights(shipped.stem, shipped, await asyncio.to_thread(sha256_of, shipped))
        return served_on(engine, choice, base, weights, options, embedder)
    except BaseException:
        await engine.stop()
        raise


def served_on(
    engine: Engine, choice: Choice, base: BaseWeights, weights: Path, options: ServingOptions, embedder: Embedder | None
) -> Served:
    """A running engine, made ready to be asked. `weights` is the GGUF file that says how."""
    found = profile_for(weights, slot_context=engine.slot_context, name=base.name)
    profile = _tuned(replace(found, version=found.version or "base"), options)
    chat = OpenAIChat(
        base_url=engine.base_url,
        api_key=engine.key,
        model=engine.name,
        sampling=profile.sampling,
        extra_sampling=True,
        extra_body={"cache_prompt": True},
        special_tokens=engine.special_tokens,
        max_chars=options.max_prompt_chars * 4,
    )
    return Served(
        chat,
        profile,
        counter_for(weights),
        embedder=embedder,
        engine=engine,
        engine_reason=choice.reason,
        base=base,
    )


def _tuned(profile: Profile, options: ServingOptions) -> Profile:
    """What a person set wins over what suits the model."""
    sampling = replace(profile.sampling, max_tokens=options.max_tokens)
    if options.temperature is not None:
        sampling = replace(sampling, temperature=options.temperature)
    tools = profile.tools if options.tools_mode == "auto" else options.tools_mode
    return replace(profile, sampling=sampling, tools=tools, base_url=options.base_url or profile.base_url)
