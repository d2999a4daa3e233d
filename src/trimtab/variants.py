"""The variants of this installation's model: written once, started to be measured, and asked what they expect.

The measuring wing knows no engine and the engines know no measuring; here they meet.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from trimtab.deploy.campaign import Started
from trimtab.deploy.estimate import ModelFacts
from trimtab.deploy.quality import GIVEN, TEXTS, Position
from trimtab.deploy.speed import Endpoint
from trimtab.deploy.variant import KV, Candidate, Variant
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import EngineError, InvalidInput, ModelFileError
from trimtab.fixed_sets import EngineAsker, FixedSets
from trimtab.llm import architecture
from trimtab.llm.catalogue import DEFAULT_CHAT
from trimtab.llm.engine import EngineOptions
from trimtab.llm.gguf_header import GgufHeader, read_header
from trimtab.llm.openvino_graph import Precision, inputs_of
from trimtab.llm.served import is_hosted
from trimtab.llm.shelf import OnProgress, resolve_model, sha256_of
from trimtab.llm.supervised import SupervisedEngine
from trimtab.llm.tokens import VocabularyCounter
from trimtab.llm.weights import form_path, written_as
from trimtab.students import Students

if TYPE_CHECKING:
    from trimtab.llm.openvino_weights import Conversation

LIKELIEST = 500
"""Tokens of each prediction that are looked at: as many for every engine, or what is cut off would differ."""
SUM = ".sha256"
_PRECISION: dict[str, Precision] = {"f16": "f16", "int8": "int8", "int4": "int4"}
_TABLES = ("token_embd.weight", "output.weight")


def facts_of(header: GgufHeader, sha256: str) -> ModelFacts:
    """What a model's header says that decides how much it takes.

    Raises:
        ModelFileError: its sizes make no model that we can estimate.
    """
    try:
        shape = architecture.of_gguf(header)
    except ValueError as error:
        raise ModelFileError(f"{header.path} cannot be estimated: {error}. Choose another model.") from error
    sizes = {name: math.prod(place[0]) for name, place in header.places.items()}
    matrices = {name for name, place in header.places.items() if len(place[0]) > 1}
    table = sum(sizes[name] for name in matrices if name in _TABLES)
    return ModelFacts(
        name=header.name,
        sha256=sha256,
        layers=shape.layers,
        hidden=shape.hidden,
        inner=shape.inner,
        kv_heads=shape.kv_heads,
        head=shape.head,
        vocabulary=shape.vocabulary,
        context=shape.context,
        matrix_numbers=sum(sizes[name] for name in matrices) - table,
        table_numbers=table,
        vector_bytes=4 * sum(size for name, size in sizes.items() if name not in matrices),
        header_bytes=min(at for _, at in header.places.values()),
    )


class Variants:
    """One model's variants, in a folder of their own.

    Args:
        model: ``default``, a catalogue name or the path of a .gguf file.
        folder: where files are written.
        on_progress: hears how far writing has come.

    Raises:
        ModelFileError: the model is missing or damaged.
        InvalidInput: it is no model that is run on this machine.
    """

    def __init__(self, model: str, models_dir: Path, folder: Path, on_progress: OnProgress | None = None) -> None:
        if is_hosted(model):
            raise InvalidInput(f"{model} is hosted elsewhere; variants are made of models on this machine.")
        self.source = resolve_model(DEFAULT_CHAT if model == "default" else model, models_dir)
        self.header = read_header(self.source)
        self.facts = facts_of(self.header, sha256_of(self.source))
        self.folder = folder
        self.students = Students(folder.parent)
        self.sets = FixedSets(self.header, models_dir, folder.parent / "jobs")
        self._on_progress = on_progress
        self._ids: list[list[int]] | None = None

    def facts_of(self, variant: Variant) -> ModelFacts:
        """Raises NotFound when it is of a student that is not here."""
        if not variant.student:
            return self.facts
        made = self.students.get(variant.student)
        return facts_of(read_header(made.gguf), made.sha256)

    def _made_of(self, variant: Variant) -> tuple[Path, str]:
        """The file that its files are made of, and that one's hash."""
        if not variant.student:
            return self.source, self.facts.sha256
        made = self.students.get(variant.student)
        return made.gguf, made.sha256

    def path(self, variant: Variant) -> Path:
        """Its file or folder, whether it is there or not."""
        source, sha256 = self._made_of(variant)
        if variant.engine == "llamacpp":
            return form_path(source, sha256, self.folder, variant.weights)
        from trimtab.llm.openvino_weights import folder_of

        return folder_of(source, sha256, self.folder, _PRECISION[variant.weights])

    def is_written(self, variant: Variant) -> bool:
        return _sum_of(self.path(variant)).is_file()

    def prepare(self, variant: Variant) -> None:
        """Write it if it is not there, and see that it still is what was written.

        Raises:
            ModelFileError: the source is damaged, the disk is full, or what was written has changed since.
        """
        target = self.path(variant)
        kept = _sum_of(target)
        if kept.is_file() and target.exists():
            if _hash(target) != kept.read_text("ascii").strip():
                raise ModelFileError(
                    f"The variant {target} is damaged: it is not what was written. Delete it; it is written again."
                )
            return
        if variant.student:
            self.students.verified(variant.student)
        with self._writing(target):
            self._write(variant, target)

    @contextmanager
    def _writing(self, target: Path) -> Iterator[None]:
        """What is written inside is known by its hash afterwards."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
            replace_file(_sum_of(target), _hash(target))
        except OSError as error:
            raise ModelFileError(
                f"{target} cannot be written ({error.strerror}). Free some space and try again."
            ) from error

    def _write(self, variant: Variant, target: Path) -> None:
        if variant.engine == "llamacpp":
            written_as(self._made_of(variant)[0], self.folder, variant.weights, self._on_progress)
            return
        from trimtab.llm.openvino_weights import prepare_openvino

        source, _ = self._made_of(variant)
        precision = _PRECISION[variant.weights]
        prepare_openvino(source, self.folder, precision=precision, on_progress=self._on_progress)

    def calibrate(self, student: str, conversations: Sequence[Conversation]) -> Variant:
        """Write ``openvino/int4`` of a student, or of the model itself, fitted to what it reads in conversations, in
        the place of one that is there.

        Raises:
            InvalidInput: its weights come in few bits already, or there is no text.
            ModelFileError: the source is damaged, or the disk is full.
            NotFound: there is no such student.
        """
        from trimtab.llm.openvino_weights import calibrate_openvino

        one = Variant("openvino", "int4", KV["openvino"][0], student)
        source = self.students.verified(student).gguf if student else self.source
        with self._writing(self.path(one)):
            calibrate_openvino(source, self.folder, conversations, on_progress=self._on_progress)
        return one

    def could_be_fitted(self, variant: Variant) -> bool:
        """Whether it is there, rounded to the nearest, and `calibrate` would make it lose less."""
        if (variant.engine, variant.weights) != ("openvino", "int4") or not self.is_written(variant):
            return False
        from trimtab.llm.openvino_folder import read_card
        from trimtab.llm.openvino_weights import comes_whole

        return comes_whole(read_header(self._made_of(variant)[0])) and not read_card(self.path(variant)).fitted_to

    def disk(self, variant: Variant) -> int:
        """Bytes of its files."""
        path = self.path(variant)
        return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size

    def start(self, candidate: Candidate) -> AbstractAsyncContextManager[Started]:
        return self._started(candidate)

    @asynccontextmanager
    async def _started(self, candidate: Candidate) -> AsyncIterator[Started]:
        engine = self.engine(candidate)
        began = time.perf_counter()
        await engine.start()
        try:
            yield _Running(self, candidate, engine, time.perf_counter() - began)
        finally:
            await engine.stop()

    def engine(self, candidate: Candidate) -> SupervisedEngine:
        """The engine that serves a candidate, not started."""
        knobs, log = candidate.knobs, self.folder / "engine.log"
        options = EngineOptions(
            slots=knobs.slots,
            slot_context=knobs.context,
            threads=knobs.threads,
            batch=knobs.batch,
            kv_cache=candidate.variant.kv,
        )
        path = self.path(candidate.variant)
        if candidate.variant.engine == "llamacpp":
            from trimtab.llm.llamacpp import LlamaCppEngine

            return LlamaCppEngine(path, options, log, name=candidate.variant.name)
        from trimtab.llm.openvino import OpenVinoEngine

        return OpenVinoEngine(path, options, log, name=candidate.variant.name)

    @property
    def text_ids(self) -> list[list[int]]:
        """The fixed texts as this model's tokens."""
        if self._ids is None:
            count = VocabularyCounter(self.header)
            self._ids = [count.ids(text) for text in TEXTS]
        return self._ids

    def kept_reference(self) -> list[Position] | None:
        try:
            rows = json.loads(self._reference.read_text("utf-8"))
            return [Position(int(token), {int(i): float(p) for i, p in said.items()}) for token, said in rows]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise ModelFileError(f"{self._reference} is damaged ({error}). Delete it; it is made again.") from error

    def keep_reference(self, positions: Sequence[Position]) -> None:
        replace_file(self._reference, json.dumps([[p.token, p.expected] for p in positions]))

    @property
    def _reference(self) -> Path:
        texts = hashlib.sha256("\n".join(TEXTS).encode()).hexdigest()[:8]
        return self.folder / f"reference.{self.facts.sha256[:16]}.{texts}.json"


@dataclass(frozen=True)
class _Running:
    variants: Variants
    candidate: Candidate
    engine: SupervisedEngine = field(repr=False)
    start_seconds: float

    @property
    def endpoint(self) -> Endpoint:
        key = self.engine.key.get_secret_value()
        return Endpoint(self.engine.base_url, self.engine.name, key, {"cache_prompt": True})

    @property
    def disk(self) -> int:
        return self.variants.disk(self.candidate.variant)

    def peak_memory(self) -> int:
        pid = self.engine.status().pid
        return sum(_peak(child) for child in _with_children(pid)) if pid else 0

    async def positions(self) -> list[Position]:
        texts = self.variants.text_ids
        if self.candidate.variant.engine == "llamacpp":
            found = await asyncio.gather(*(_asked(self.endpoint, ids) for ids in texts))
            return [position for text in found for position in text]
        folder, kv = self.variants.path(self.candidate.variant), self.candidate.variant.kv
        return await asyncio.to_thread(_computed, folder, kv, texts, self.candidate.knobs.threads)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[EngineAsker]:
        weights, _ = self.variants._made_of(self.candidate.variant)
        asker = EngineAsker(self.variants.sets, self.engine, weights, self._likely)
        try:
            yield asker
        finally:
            await asker.aclose()

    async def _likely(self, asked: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """The mean log-probability a token of each answer after its prompt."""
        if self.candidate.variant.engine == "llamacpp":
            found = []
            for prompt, answer in asked:  # one at a time: each token's request finds the prompt in its slot
                positions = await _asked(self.endpoint, [*prompt, *answer], len(prompt))
                found.append(-sum(one.nats for one in positions) / max(1, len(positions)))
            return found
        folder, threads = self.variants.path(self.candidate.variant), self.candidate.knobs.threads
        return await asyncio.to_thread(_scored, folder, self.candidate.variant.kv, asked, threads)


async def _asked(endpoint: Endpoint, ids: list[int], given: int = GIVEN) -> list[Position]:
    """llama.cpp's own predictions of each token after its predecessors, the `given` first ones left out."""
    url = endpoint.base_url.removesuffix("/v1") + "/completion"
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    found = []
    async with httpx.AsyncClient(timeout=120, headers=headers, trust_env=False) as client:
        for at in range(given, len(ids)):
            body = {"prompt": ids[:at], "n_predict": 1, "n_probs": LIKELIEST, "temperature": 0, "cache_prompt": True}
            try:
                answer = (await client.post(url, json=body)).json()
                tops = answer["completion_probabilities"][0]["top_logprobs"]
                found.append(Position(ids[at], {int(t["id"]): float(t["logprob"]) for t in tops}))
            except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                raise EngineError(f"{endpoint.model} tells no probabilities ({error}). Measure it again.") from error
    return found


def _computed(folder: Path, kv: str, texts: list[list[int]], threads: int) -> list[Position]:
    """OpenVINO's, by the same graph, a token at a time, so that each looks at what is remembered in that precision."""
    import numpy as np
    import openvino as ov

    properties: dict[str, Any] = {"KV_CACHE_PRECISION": kv, "INFERENCE_NUM_THREADS": threads}
    try:
        request = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", properties).create_infer_request()
        found = []
        for ids in texts:
            request.reset_state()
            for at, token in enumerate(ids[:-1]):
                logits = request.infer(inputs_of([token], at))["logits"][0, -1].astype(np.float64)
                if at + 1 >= GIVEN:
                    found.append(_position(logits - np.logaddexp.reduce(logits), ids[at + 1]))
        return found
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compute {folder.name} with {kv} memory: {error}") from error


def _scored(folder: Path, kv: str, asked: Sequence[tuple[list[int], list[int]]], threads: int) -> list[float]:
    """The mean log-probability a token of each answer after its prompt, by OpenVINO, a text in one go."""
    import numpy as np
    import openvino as ov

    properties: dict[str, Any] = {"KV_CACHE_PRECISION": kv, "INFERENCE_NUM_THREADS": threads}
    try:
        request = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", properties).create_infer_request()
        found = []
        for prompt, answer in asked:
            request.reset_state()
            logits = request.infer(inputs_of([*prompt, *answer]))["logits"][0, len(prompt) - 1 : -1].astype(np.float64)
            logs = logits[np.arange(len(answer)), answer] - np.logaddexp.reduce(logits, -1)
            found.append(float(logs.mean()) if len(answer) else 0.0)
        return found
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compute {folder.name} with {kv} memory: {error}") from error


def _position(logs: Any, token: int) -> Position:
    import numpy as np

    likeliest = np.argpartition(logs, -LIKELIEST)[-LIKELIEST:] if logs.size > LIKELIEST else np.arange(logs.size)
    return Position(token, {int(i): float(logs[i]) for i in likeliest})


def _sum_of(target: Path) -> Path:
    return target.with_name(target.name + SUM)


def _hash(target: Path) -> str:
    return sha256_of(target / "openvino_model.bin" if target.is_dir() else target)


def _peak(pid: int) -> int:
    """The most memory that a process had (Linux); 0 elsewhere."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _with_children(pid: int) -> list[int]:
    """A process and all below it (Linux)."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found
