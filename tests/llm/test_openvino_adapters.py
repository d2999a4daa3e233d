"""Each request gets its own adapter, whoever shares its batch and whatever the prefix cache holds."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
import pytest
from safetensors.numpy import load_file, save_file

import tiny_decoder
from paged import EXACT, Paged
from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.llm.lora import adapter_gguf, adapter_peft, read_adapter
from trimtab.llm.openvino_adapters import slot_of, tagged, with_adapters
from trimtab.llm.openvino_folder import read_card
from trimtab.llm.openvino_weights import prepare_openvino
from trimtab.llm.tensors import open_tensors

VOCABULARY = 300


def prompts(count: int, length: int = 40) -> list[list[int]]:
    return [[random.Random(seed).randrange(3, 290) for _ in range(length)] for seed in range(count)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder.decoder(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of different ranks and on different matrices."""
    home = tmp_path_factory.mktemp("adapters")
    return {
        "polite": tiny_decoder.adapter(base, home / "polite", 1),
        "short": tiny_decoder.adapter(base, home / "short", 2, rank=4, targets=("q_proj", "v_proj"), use_rslora=True),
    }


@pytest.fixture(scope="module")
def served(base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    return with_adapters(prepare_openvino(base, cache, precision="f16"), adapters, cache)


def test_fifty_prompts_say_with_each_adapter_what_peft_says(
    base: Path, adapters: dict[str, Path], served: Path
) -> None:
    asked = prompts(50, 24)
    paged, noise = Paged(served, EXACT), {}
    for slot, path in enumerate([None, *adapters.values()]):
        expected = tiny_decoder.logp(base, asked, path)
        found = paged.logp([tagged(ids, slot, VOCABULARY) for ids in asked], steps=6)
        noise[slot] = max(float(np.abs(f - e).max()) for f, e in zip(found, expected, strict=True))
        if slot:
            bare = tiny_decoder.logp(base, asked[:1])[0]
            assert np.abs(expected[0] - bare).max() > 1  # the adapter is not a whisper
    assert max(noise.values()) < 0.1
    assert max(noise[1], noise[2]) < 3 * noise[0]


def test_requests_of_a_mixed_batch_get_the_numbers_of_their_solo_runs(served: Path) -> None:
    paged = Paged(served)
    batch = [tagged(ids, n % 3, VOCABULARY) for n, ids in enumerate(prompts(6))]
    for ids, together in zip(batch, paged.logp(batch, steps=4), strict=True):
        alone = paged.logp([ids], steps=4)[0]
        assert np.abs(alone - together).max() < 1e-3


class Pipeline:
    """GenAI's own scheduler, with a prefix cache and prompts cut in chunks."""

    def __init__(self, folder: Path, properties: dict[str, object], remember: bool = True) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching, scheduler.num_kv_blocks = remember, 256
        scheduler.dynamic_split_fuse, scheduler.max_num_batched_tokens = True, 64
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)

    def ask(self, requests: list[list[int]], adapters: openvino_genai.AdapterConfig | None = None) -> list[list[float]]:
        """Log probabilities of the next 8 tokens of each, greedy, all at once."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.ignore_eos, config.logprobs = 8, False, True, 1
        if adapters is not None:
            config.adapters = adapters
        handles = [
            self._pipeline.add_request(n, openvino.Tensor(np.array([ids], np.int64)), config)
            for n, ids in enumerate(requests)
        ]
        for _ in range(1000):
            if not self._pipeline.has_non_finished_requests():
                break
            self._pipeline.step()
        found = [handle.read_all()[0] for handle in handles]
        return [[*map(float, f.generated_ids), *f.generated_log_probs] for f in found]


def test_a_prompt_cached_under_one_adapter_is_not_used_under_another(served: Path) -> None:
    ids = prompts(1, 150)[0]
    mine = [tagged(ids, slot, VOCABULARY) for slot in (0, 1, 2)]
    alone = [Pipeline(served, EXACT).ask([request])[0] for request in mine]
    assert len({tuple(a) for a in alone}) == 3
    shared = Pipeline(served, EXACT)
    for order in ([0, 1, 2], [2, 0, 1, 1], [1, 1, 0, 2, 2, 0]):
        for slot, found in zip(order, shared.ask([mine[s] for s in order]), strict=True):
            assert found == pytest.approx(alone[slot], abs=1e-3)


def test_grammars_work_under_an_adapter(served: Path) -> None:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 64
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(served), scheduler, "CPU", {})
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = 60
    schema = {"type": "object", "properties": {"n": {"enum": ["a", "b"]}}, "required": ["n"]}
    config.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=json.dumps(schema))
    ids = np.array([tagged(prompts(1)[0], 1, VOCABULARY)], np.int64)
    result = pipeline.generate([openvino.Tensor(ids)], [config])[0]
    text = pipeline.get_tokenizer().decode(list(result.m_generation_ids[0]))
    assert json.loads(text)["n"] in ("a", "b")


def test_why_genai_does_not_choose_the_adapter(base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    """What the design rests on: when this fails, GenAI has learnt per-request adapters."""
    folder = prepare_openvino(base, tmp_path, precision="f16")
    theirs = openvino_genai.Adapter(str(adapters["polite"] / "adapter_model.safetensors"))
    on, off = openvino_genai.AdapterConfig(theirs, 2.0), openvino_genai.AdapterConfig()
    pipeline = Pipeline(folder, {**EXACT, "adapters": on})
    ids, plain = prompts(1, 150)[0], Pipeline(folder, EXACT)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.adapters = 1, on
    other = openvino_genai.GenerationConfig()
    other.max_new_tokens, other.adapters = 1, off
    tensors = [openvino.Tensor(np.array([ids], np.int64))] * 2
    with pytest.raises(RuntimeError, match="must be the same for all requests"):
        pipeline._pipeline.generate(tensors, [config, other])
    # `add_request` does not look at the request's adapters, with nothing remembered either:
    forgetful = Pipeline(folder, {**EXACT, "adapters": on}, remember=False)
    assert forgetful.ask([ids], on) == forgetful.ask([ids], off)
    # and what was computed under one adapter is used under another:
    pipeline._pipeline.generate(tensors[:1], [config])
    pipeline._pipeline.generate(tensors[:1], [other])
    fresh = prompts(2, 150)[1]
    assert pipeline.ask([fresh])[0] == pytest.approx(plain.ask([fresh])[0], abs=1e-3)
    assert pipeline.ask([ids])[0] != pytest.approx(plain.ask([ids])[0], abs=1e-3)


def test_a_new_adapter_joins_and_the_names_say_the_slots(base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    folder = prepare_openvino(base, tmp_path)
    assert with_adapters(folder, {}, tmp_path) == folder
    one = with_adapters(folder, {"polite": adapters["polite"]}, tmp_path)
    two = with_adapters(folder, adapters, tmp_path)
    assert one != two
    assert with_adapters(folder, adapters, tmp_path) == two
    card = read_card(two)
    assert [slot_of(card, name) for name in (None, "polite", "short")] == [0, 1, 2]
    with pytest.raises(InvalidInput, match=r"no adapter 'rude'.*polite, short"):
        slot_of(card, "rude")
    asked = prompts(1)[0]
    alone, among = (Paged(f).logp([tagged(asked, 1, VOCABULARY)])[0] for f in (one, two))
    assert np.abs(alone - among).max() < 0.2


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_peft_to_gguf_and_back_is_the_same_adapter(kind: str, tmp_path: Path) -> None:
    base = tiny_decoder.decoder(tmp_path / "base", kind)
    shape = open_tensors(base).architecture
    peft = tiny_decoder.adapter(base, tmp_path / "peft", 3, use_rslora=True)
    adapter_gguf(peft, tmp_path / "adapter.gguf", shape)
    adapter_peft(tmp_path / "adapter.gguf", tmp_path / "again", shape)
    first, again = read_adapter(peft, shape), read_adapter(tmp_path / "again", shape)
    assert again.scale == pytest.approx(first.scale)
    assert set(again.matrices) == set(first.matrices)
    for module, (a, b) in first.matrices.items():
        np.testing.assert_array_equal(again.matrices[module][0], a)
        np.testing.assert_array_equal(again.matrices[module][1], b)
    ids = prompts(2)
    for one, other in zip(
        tiny_decoder.logp(base, ids, peft), tiny_decoder.logp(base, ids, tmp_path / "again"), strict=True
    ):
        assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "biases"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "rank is 0"),
        ({"lora_alpha": float("nan")}, "no finite scale"),
    ],
)
def test_an_adapter_that_is_more_than_two_matrices_is_refused(
    base: Path, adapters: dict[str, Path], tmp_path: Path, change: dict[str, object], says: str
) -> None:
    copy = shutil.copytree(adapters["polite"], tmp_path / "copy")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelFileError, match=says):
        read_adapter(copy, open_tensors(base).architecture)


def test_an_adapter_for_another_model_or_with_strange_numbers_is_refused(
    base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    shape = open_tensors(base).architecture
    file = adapters["polite"] / "adapter_model.safetensors"
    whole = load_file(file)
    first = sorted(whole)[0]
    spoiled = {
        "not finite": whole | {first: np.full_like(whole[first], np.nan)},
        "another size": whole | {first: np.zeros((8, 999), np.float32)},
        "no LoRA matrix": whole | {"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)},
        "has no": {k.replace("layers.1.", "layers.9."): v for k, v in whole.items()},
        "cannot be used": {k: v for k, v in whole.items() if k != first},
    }
    for number, (says, tensors) in enumerate(spoiled.items()):
        copy = shutil.copytree(adapters["polite"], tmp_path / str(number))
        save_file(tensors, copy / "adapter_model.safetensors")
        with pytest.raises(ModelFileError, match=says):
            read_adapter(copy, shape)


def test_damaged_adapter_files_are_refused(base: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    shape = open_tensors(base).architecture
    copy = shutil.copytree(adapters["polite"], tmp_path / "copy")
    gguf_file = tmp_path / "adapter.gguf"
    adapter_gguf(copy, gguf_file, shape)
    for file, source in ((copy / "adapter_model.safetensors", copy), (gguf_file, gguf_file)):
        whole, draw = file.read_bytes(), random.Random(5)
        refused = 0
        for _ in range(100):
            bad = bytearray(whole[: draw.randrange(len(whole))])
            for _ in range(3):
                if bad:
                    bad[draw.randrange(min(len(bad), 2000))] = draw.randrange(256)
            file.write_bytes(bad)
            with pytest.raises(ModelFileError):
                read_adapter(source, shape)
            refused += 1
        assert refused == 100
