"""A model made over for OpenVINO says what it said before; whatever is no model is refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from tokenizers import Tokenizer

import tiny_decoder
from paged import EXACT, Paged
from tiny_gguf import tiny_gguf
from trimtab.domain.errors import ModelFileError
from trimtab.llm.openvino_folder import read_card
from trimtab.llm.openvino_graph import compressed
from trimtab.llm.openvino_weights import prepare_openvino
from trimtab.llm.shelf import Progress
from trimtab.llm.unpacked import safetensors_folder

IDS = [[random.Random(seed).randrange(3, 290) for _ in range(70)] for seed in range(3)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_decoder.decoder(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"rope_parameters": tiny_decoder.LLAMA3}),
        ("llama", {"attention_bias": True}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
    ids=["llama", "llama3-rope", "llama-biases", "qwen2", "qwen3"],
)
def test_a_converted_model_says_what_transformers_says(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_decoder.decoder(tmp_path / "model", kind, **changes)
    expected = tiny_decoder.logp(folder, IDS)
    paged = Paged(prepare_openvino(folder, tmp_path / "cache", precision="f16"), EXACT)
    for steps in (0, 5):
        for found, right in zip(paged.logp(IDS, steps), expected, strict=True):
            assert np.abs(found - right).max() < 0.05
            assert np.abs(found - right).mean() < 0.005


def test_each_precision_is_as_near_as_its_bits_allow(tiny: Path, tmp_path: Path) -> None:
    expected = tiny_decoder.logp(tiny, IDS)
    away = {}
    for precision in ("f16", "int8", "int4"):
        found = Paged(prepare_openvino(tiny, tmp_path, precision=precision), EXACT).logp(IDS)
        away[precision] = float(np.mean([np.abs(f - e).mean() for f, e in zip(found, expected, strict=True)]))
    assert away["f16"] < away["int8"] / 3 < away["int4"] / 9
    assert away["int8"] < 0.1


def test_a_model_is_converted_once_and_then_found(tiny: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    first = prepare_openvino(tiny, tmp_path, on_progress=steps.append)
    assert [s.done for s in steps] == [0, 1, 2, 3, 4]
    assert steps[-1].total == 4
    steps.clear()
    assert prepare_openvino(tiny, tmp_path, on_progress=steps.append) == first
    assert steps == []
    assert [f.name for f in tmp_path.iterdir() if not f.name.startswith(".")] == [first.name]
    assert prepare_openvino(tiny, tmp_path, precision="f16") != first


def test_two_who_need_it_at_once_convert_it_once(tiny: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(prepare_openvino, tiny, tmp_path, on_progress=steps.append) for _ in range(4)]
        assert len({a.result() for a in asked}) == 1
    assert [s.done for s in steps] == [0, 1, 2, 3, 4]


def test_the_card_says_how_the_model_is_asked(tiny: Path, tmp_path: Path) -> None:
    card = read_card(prepare_openvino(tiny, tmp_path))
    assert card.chat_template == tiny_decoder.TEMPLATE
    assert card.end_ids == (1, 2)
    assert card.bos_id == 0
    assert card.context_length == 512
    assert card.special_tokens == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert card.vocabulary == card.shape.vocabulary == 300


def test_special_tokens_in_a_text_can_be_read_as_text(tiny: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(prepare_openvino(tiny, tmp_path) / "tokenizer.json"))
    text = "the <|im_end|> of it"
    assert 1 in tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text).ids
    assert not {0, 1, 2} & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_an_unknown_architecture_or_vocabulary_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"'mamba' model.*llama, qwen2, qwen3.*llamacpp engine"):
        prepare_openvino(tiny_gguf(tmp_path / "a.gguf", "mamba"), tmp_path / "cache")
    with pytest.raises(ModelFileError, match="vocabulary"):
        prepare_openvino(tiny_gguf(tmp_path / "b.gguf", tokenizer="llama"), tmp_path / "cache")
    with pytest.raises(ModelFileError, match="cannot be read"):
        prepare_openvino(tmp_path / "none.gguf", tmp_path / "cache")


def test_damaged_files_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    whole = tiny_gguf(tmp_path / "whole.gguf").read_bytes()
    cache = tmp_path / "cache"
    assert prepare_openvino(tmp_path / "whole.gguf", cache).is_dir()
    draw, refused = random.Random(7), 0
    head = whole.index(b"output_norm") + 200
    for i in range(60):
        bad = bytearray(whole[: draw.randrange(8, len(whole))] if i % 3 == 0 else whole)
        for _ in range(4):
            bad[draw.randrange(min(head, len(bad)))] = draw.randrange(256)
        file = tmp_path / f"bad{i}.gguf"
        file.write_bytes(bad)
        try:
            prepare_openvino(file, cache)
        except ModelFileError:
            refused += 1
    assert refused > 40
    left = [f for f in cache.iterdir() if f.is_dir() and not f.name.endswith(".lock")]
    assert all((f / "model.json").is_file() for f in left)
    assert len(left) == 1 + 60 - refused


def test_a_full_disk_is_said_and_nothing_half_written_stays(tiny: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from trimtab.domain.errors import ModelFileError\n"
        "from trimtab.llm.openvino_weights import prepare_openvino\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: prepare_openvino(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except ModelFileError as error: print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny), str(tmp_path / "c")], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"}, check=True,
    )  # fmt: skip
    assert "cannot be written" in done.stdout
    assert "space" in done.stdout
    assert [f for f in (tmp_path / "c").iterdir() if not f.name.endswith(".lock")] == []


def test_four_bits_that_came_as_q4_1_stay_what_they_were() -> None:
    """A scale and a smallest number for 32 numbers, which is no multiple of the scale."""
    dice = np.random.default_rng(0)
    whole = dice.integers(0, 16, (8, 3, 32))
    whole[:, :, :2] = 0, 15
    scale = dice.uniform(0.01, 0.1, (8, 3, 1))
    numbers = (scale * (whole - dice.uniform(3, 12, (8, 3, 1)))).astype(np.float32).reshape(8, 96)
    assert (np.abs(four_bits(numbers) - numbers).reshape(8, 3, 32) / scale).max() < 0.02


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-7, 1e-6])
def test_numbers_that_are_nearly_nothing_stay_numbers(size: float) -> None:
    numbers = (np.random.default_rng(0).uniform(-size, size, (4, 64))).astype(np.float32)
    assert np.abs(four_bits(numbers) - numbers).max() <= size + 2**-22


def four_bits(numbers: Any) -> Any:
    model = ov.Model([ov.opset13.result(compressed(ov, numbers, "int4"))], [], "matrix")
    return next(iter(ov.Core().compile_model(model, "CPU", EXACT)([]).values()))


@pytest.mark.slow
@pytest.mark.model
def test_the_default_model_keeps_its_perplexity_within_one_percent(chat_model_path: Path, tmp_path: Path) -> None:
    folder = prepare_openvino(chat_model_path, tmp_path / "cache")
    unpacked = safetensors_folder(chat_model_path, tmp_path / "unpacked")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text in prose(8_000)]
    expected, found = tiny_decoder.logp(unpacked, ids), Paged(folder).logp(ids)
    assert abs(perplexity(found, ids) / perplexity(expected, ids) - 1) < 0.01
    shutil.rmtree(unpacked)


@pytest.mark.model
def test_the_end_of_a_long_prompt_is_read_as_well_as_with_exact_numbers(converted_model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(converted_model / "tokenizer.json"))
    ids = tokenizer.encode("\n\n".join(prose(6_000))).ids[:1200]
    rows = [Paged(converted_model, properties).logp([ids])[0][600:] for properties in (None, EXACT)]
    served, exact = (perplexity([row], [ids[600:]]) for row in rows)
    assert abs(served / exact - 1) < 0.01


def prose(characters: int) -> list[str]:
    """Paragraphs of our own documentation, whole ones, about so many characters together."""
    found: list[str] = []
    for page in sorted((Path(__file__).parents[2] / "docs").glob("*.md")):
        for paragraph in page.read_text("utf-8").split("\n\n"):
            if sum(map(len, found)) < characters and len(paragraph) > 200 and paragraph[0].isalpha():
                found.append(paragraph)
    return found


def perplexity(rows: list[np.ndarray], ids: list[list[int]]) -> float:
    nats = [-row[np.arange(7, len(i) - 1), i[8:]] for row, i in zip(rows, ids, strict=True)]
    return float(np.exp(np.concatenate(nats).mean()))
