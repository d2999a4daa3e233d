"""The OpenVINO engine: OpenVINO GenAI's continuous batching behind a thin OpenAI server of ours, in a child process.

On x86 processors without an accelerator it was measured to read prompts 3.3 times as fast as the prebuilt llama.cpp,
and to serve 16 requests at once at 2.4 times the speed (docs/performance.md). A GGUF file is converted once, when the
engine starts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx

from trimtab.domain.errors import EngineError, InvalidInput, ModelFileError

from .engine import Capabilities, EngineOptions
from .openvino_folder import CARD, ModelCard, read_card
from .openvino_graph import Precision
from .openvino_weights import prepare_openvino
from .shelf import OnProgress
from .supervised import SupervisedEngine


class OpenVinoEngine(SupervisedEngine):
    """One model served by OpenVINO GenAI.

        engine = OpenVinoEngine(Path("model.gguf"))
        await engine.start()
        OpenAIChat(base_url=engine.base_url, api_key=engine.key, model=engine.name)

    Args:
        model_path: a GGUF file, or a folder that `prepare_openvino` made.
        cache_dir: where converted models are kept; beside the file when not given.
        precision: of the converted weights.
        on_progress: hears how far a conversion has come.
    """

    kind: ClassVar[str] = "openvino"
    capabilities = Capabilities(
        adapters=True,
        hot_adapters=True,
        json_schema=True,
        grammar=True,
        logprobs=True,
        cancel=True,
        prefix_cache=True,
        tokenize=True,
        literal_text=True,
        metrics=True,
    )
    program: ClassVar[str] = "trimtab.llm.openvino_server.worker"
    maker: ClassVar[str] = "OpenVINO"
    special_tokens: tuple[str, ...] = ()

    def __init__(
        self,
        model_path: Path,
        options: EngineOptions | None = None,
        log_path: Path | None = None,
        *,
        name: str = "",
        cache_dir: Path | None = None,
        precision: Precision = "int8",
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__(model_path, options, log_path, name=name)
        self._cache_dir = cache_dir or model_path.parent / "prepared"
        self._precision = precision
        self._on_progress = on_progress
        self._folder = model_path
        self._card: ModelCard | None = None

    @property
    def card(self) -> ModelCard:
        """What the converted model says of itself. Converts it if that has not been done."""
        if self._card is None:
            self._prepare()
        assert self._card is not None
        return self._card

    @property
    def slot_context(self) -> int:
        trained = self.card.context_length
        return min(self.options.slot_context, trained) if trained else self.options.slot_context

    def _prepare(self) -> None:
        if not (self.model_path / CARD).is_file():
            try:
                self._folder = prepare_openvino(
                    self.model_path, self._cache_dir, precision=self._precision, on_progress=self._on_progress
                )
            except OSError as error:
                raise ModelFileError(
                    f"{self.model_path} cannot be converted into {self._cache_dir} ({error.strerror}). "
                    "Free some space there, or mend the folder."
                ) from error
        self._card = read_card(self._folder)

    def _config(self) -> dict[str, Any]:
        options = self.options
        return {
            "folder": str(self._folder),
            "name": self.name,
            "slots": options.slots,
            "slot_context": self.slot_context,
            "batch": options.batch,
            "threads": options.threads,
            "cache_mib": options.cache_mib,
            "kv_cache": options.kv_cache,
            "queue": options.queue,
            "end_ids": list(self.card.end_ids),
            "adapters": [str(path) for path in self._adapters],
        }

    def adapters_body(self, active: Mapping[int, float]) -> dict[str, Any]:
        chosen = {i: scale for i, scale in active.items() if scale}
        if len(chosen) > 1 or not set(chosen.values()) <= {1.0}:
            raise InvalidInput("The openvino engine applies one adapter to a request, as it was trained (scale 1).")
        return super().adapters_body(active)

    async def add_adapter(self, path: Path) -> int:
        body = {"path": await asyncio.to_thread(os.path.abspath, path)}
        headers = {"Authorization": f"Bearer {self.key.get_secret_value()}"}
        root = self.base_url.removesuffix("/v1")
        try:
            async with httpx.AsyncClient(timeout=330.0, trust_env=False) as client:
                answer = await client.post(root + "/lora-adapters", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise EngineError(
                f"The engine cannot be reached to read {path.name}; it may be restarting. Try again in a few seconds."
            ) from error
        if answer.status_code == 400:
            raise InvalidInput(f"The engine refuses the adapter {path}: {answer.json()['error']['message']}")
        if answer.status_code != 200:
            raise EngineError(f"The engine did not read {path.name} ({answer.status_code}). Try again.")
        self._adapters = (*self._adapters, path)  # a restarted child reads it again
        return len(self._adapters) - 1
