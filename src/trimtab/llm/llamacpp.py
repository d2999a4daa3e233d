"""The llama.cpp engine: a supervised child process running the server that the `xllamacpp` wheel carries.

It reads any GGUF file, and uses a GPU when it was built for one. A new adapter needs a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trimtab.domain.errors import InvalidInput

from .engine import Capabilities
from .gguf_header import GgufHeader, read_header
from .supervised import SupervisedEngine


class LlamaCppEngine(SupervisedEngine):
    """One model served by llama.cpp.

    engine = LlamaCppEngine(Path("model.gguf"))
    await engine.start()
    OpenAIChat(base_url=engine.base_url, api_key=engine.key, model=engine.name)
    """

    kind: ClassVar[str] = "llamacpp"
    capabilities = Capabilities(
        adapters=True,
        adapter_scales=True,
        json_schema=True,
        grammar=True,
        logprobs=True,
        top_logprobs=True,
        cancel=True,
        prefix_cache=True,
        tokenize=True,
        tools=True,
    )
    program: ClassVar[str] = "trimtab.llm.child"
    maker: ClassVar[str] = "llama.cpp"
    _header: GgufHeader | None = None

    @property
    def header(self) -> GgufHeader:
        if self._header is None:
            self._header = read_header(self.model_path)
        return self._header

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.header.special_tokens

    @property
    def slot_context(self) -> int:
        trained = self.header.context_length
        return min(self.options.slot_context, trained) if trained else self.options.slot_context

    def adapters_body(self, active: Mapping[int, float]) -> dict[str, Any]:
        """What a request adds to its body so that exactly these adapters work on it, by id and scale.

        Every request to an engine with adapters must carry this, also one that wants none: when `lora` is missing,
        llama.cpp continues a cached prompt that another request's adapter had read
        (github.com/ggml-org/llama.cpp/issues/26207). With every scale named, no answer in 130 mixed ones was wrong.

        Raises:
            InvalidInput: there is no adapter of that id; llama.cpp itself would ignore it silently.
        """
        return super().adapters_body(active)

    async def add_adapter(self, path: Path) -> int:
        raise InvalidInput(
            f"llama.cpp reads adapters when it starts. Start an engine with {path.name} among `EngineOptions.adapters`."
        )

    def _prepare(self) -> None:
        _ = self.header

    def _config(self) -> dict[str, Any]:
        options = self.options
        return {
            "model": str(self.model_path),
            "name": self.name,
            "slots": options.slots,
            "slot_context": self.slot_context,
            "batch": options.batch,
            "threads": options.threads,
            "gpu_layers": options.gpu_layers,
            "kv_cache": options.kv_cache,
            "cache_mib": options.cache_mib,
            "adapters": [str(a) for a in options.adapters],
        }
