"""The unpacked default model is the model: for transformers, for llama.cpp with an adapter, for OpenVINO with one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_decoder
from paged import Paged
from trimtab.domain.errors import ModelFileError
from trimtab.llm.engine import EngineOptions
from trimtab.llm.gguf_header import read_header
from trimtab.llm.llamacpp import LlamaCppEngine
from trimtab.llm.lora import adapter_gguf
from trimtab.llm.openvino_adapters import tagged, with_adapters
from trimtab.llm.openvino_folder import read_card
from trimtab.llm.openvino_weights import prepare_openvino
from trimtab.llm.shelf import Progress
from trimtab.llm.tensors import open_tensors
from trimtab.llm.tokens import VocabularyCounter
from trimtab.llm.unpacked import safetensors_folder
from trimtab.llm.weights import prepare

pytestmark = pytest.mark.model
SUBJECTS = (
    "The harbour",
    "A bicycle",
    "My aunt",
    "The old clock",
    "Water",
    "A letter",
    "The ferry",
    "Rain",
    "Bread",
    "Ice",
)
VERBS = ("is known for", "was made of", "cannot be", "came back with", "needs")
PROMPTS = [f"{subject} {verb}" for subject in SUBJECTS for verb in VERBS]


@pytest.fixture(scope="module")
def q8(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(chat_model_path, tmp_path_factory.mktemp("q8"))


@pytest.fixture(scope="module")
def unpacked(q8: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return safetensors_folder(q8, tmp_path_factory.mktemp("unpacked") / "model")


@pytest.fixture(scope="module")
def adapter(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder.adapter(unpacked, tmp_path_factory.mktemp("adapter") / "peft", 1)


def ids_of(q8: Path, texts: list[str]) -> list[list[int]]:
    counter = VocabularyCounter(read_header(q8))
    return [counter.ids(text) for text in texts]


@pytest.mark.slow
def test_its_logits_are_those_of_transformers_own_reader(q8: Path, unpacked: Path) -> None:
    ids = torch.tensor([ids_of(q8, ["The harbour of Vellmouth was built in 1842 to shelter boats from the gales."])[0]])
    theirs = AutoModelForCausalLM.from_pretrained(q8.parent, gguf_file=q8.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(unpacked)
    assert ours.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)


def test_its_tokenizer_cuts_like_the_engine_and_pads_with_another_token_than_the_end(q8: Path, unpacked: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(unpacked)
    texts = ["In 1842, 15 boats\n came.", "Ünïcode \u4f60\u597d and\ttabs", *PROMPTS[:5]]
    assert [tokenizer(t).input_ids for t in texts] == ids_of(q8, texts)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False).endswith("Hi<|im_end|>\n")


def test_it_is_written_once_and_a_file_that_is_no_model_leaves_nothing(
    q8: Path, unpacked: Path, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    assert safetensors_folder(q8, unpacked, steps.append) == unpacked
    assert steps == []
    (tmp_path / "bad.gguf").write_bytes(q8.read_bytes()[:3_000_000])
    with pytest.raises(ModelFileError):
        safetensors_folder(tmp_path / "bad.gguf", tmp_path / "model")
    assert [f.name for f in tmp_path.iterdir()] == ["bad.gguf"]


def test_llama_cpp_says_with_the_adapter_what_peft_says(
    q8: Path, unpacked: Path, adapter: Path, tmp_path: Path
) -> None:
    file = tmp_path / "adapter.gguf"
    adapter_gguf(adapter, file, open_tensors(q8).architecture)
    asked = ids_of(q8, random.Random(3).sample(PROMPTS, 10))
    for scale, lora in ((0.0, None), (1.0, adapter)):
        expected = [rows[-1] for rows in tiny_decoder.logp(unpacked, asked, lora)]
        found = asyncio.run(llama_cpp(q8, file, scale, asked))
        away = [abs(logp - right[token]) for tops, right in zip(found, expected, strict=True) for token, logp in tops]
        assert np.mean(away) < 0.1
        assert np.max(away) < 0.6


async def llama_cpp(q8: Path, file: Path, scale: float, asked: list[list[int]]) -> list[list[tuple[int, float]]]:
    """The five likeliest next tokens of each prompt, with their log probabilities."""
    engine = LlamaCppEngine(q8, EngineOptions(slots=1, slot_context=512, adapters=(file,)))
    await engine.start()
    try:
        headers = {"Authorization": f"Bearer {engine.key.get_secret_value()}"}
        url = engine.base_url.removesuffix("/v1") + "/completion"
        async with httpx.AsyncClient(timeout=60, headers=headers) as client:
            found = []
            for ids in asked:
                body = {
                    "prompt": ids,
                    "n_predict": 1,
                    "n_probs": 5,
                    "temperature": 0,
                    "lora": [{"id": 0, "scale": scale}],
                }
                tops = (await client.post(url, json=body)).json()["completion_probabilities"][0]["top_logprobs"]
                found.append([(t["id"], t["logprob"]) for t in tops])
            return found
    finally:
        await engine.stop()


@pytest.mark.slow
def test_openvino_in_8_bits_says_with_the_adapter_what_peft_says_for_fifty_prompts(
    q8: Path, unpacked: Path, adapter: Path, tmp_path: Path
) -> None:
    folder = with_adapters(prepare_openvino(q8, tmp_path), {"a": adapter}, tmp_path)
    vocabulary = read_card(folder).vocabulary
    asked, paged, away = ids_of(q8, PROMPTS), Paged(folder), []
    for slot, lora in enumerate((None, adapter)):
        expected = tiny_decoder.logp(unpacked, asked, lora)
        found = paged.logp([tagged(ids, slot, vocabulary) for ids in asked])
        tops = [np.argsort(rows[-1])[-5:] for rows in expected]
        away.append(np.mean([np.abs(f[-1] - e[-1])[t] for f, e, t in zip(found, expected, tops, strict=True)]))
    assert away[0] < 0.15
    assert away[1] < 2 * away[0]
