"""The faster weights say what the shipped ones say."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from trimtab.domain.errors import ModelFileError
from trimtab.llm.gguf_header import read_header
from trimtab.llm.shelf import Progress
from trimtab.llm.weights import SERVED, prepare, rewrite

Q4_1, Q8_0 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF with one Q4_1 matrix, one F32 vector and a few values. Too small to be a model, whole as a file."""
    file = tmp_path_factory.mktemp("small") / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("Small")
    writer.add_uint32("llama.context_length", 128)
    writer.add_array("tokenizer.ggml.tokens", ["<|x|>", "a", "Ġb"])
    writer.add_array("tokenizer.ggml.token_type", [3, 1, 1])
    matrix = np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_up.weight", gguf.quants.quantize(matrix, Q4_1), raw_dtype=Q4_1)
    writer.add_tensor("output_norm.weight", np.arange(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_slow_file_is_written_again_once_and_then_found(small: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    first = prepare(small, tmp_path / "cache", steps.append)
    assert first.name.startswith("small.Q8_0.")
    assert steps[-1].done == steps[-1].total
    steps.clear()
    assert prepare(small, tmp_path / "cache", steps.append) == first
    assert steps == []
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [first.name]


def test_only_the_slow_matrices_change_and_they_change_little(small: Path, tmp_path: Path) -> None:
    before = {t.name: t for t in gguf.GGUFReader(small).tensors}
    after = {t.name: t for t in gguf.GGUFReader(prepare(small, tmp_path)).tensors}
    assert list(before) == list(after)
    np.testing.assert_array_equal(before["output_norm.weight"].data, after["output_norm.weight"].data)
    slow, fast = before["blk.0.ffn_up.weight"], after["blk.0.ffn_up.weight"]
    assert fast.tensor_type == Q8_0
    assert list(fast.shape) == list(slow.shape)
    was, now = gguf.quants.dequantize(slow.data, Q4_1), gguf.quants.dequantize(fast.data, Q8_0)
    assert np.abs(was - now).max() < np.abs(was).max() / 127


def test_every_value_of_the_header_is_kept(small: Path, tmp_path: Path) -> None:
    before, after = read_header(small).values, read_header(prepare(small, tmp_path)).values
    assert {k: v for k, v in after.items() if k != "general.file_type"} == before
    assert read_header(prepare(small, tmp_path)).special_tokens == ("<|x|>",)


def test_changed_bytes_get_a_file_of_their_own(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "small.gguf"
    rewrite(small, other, "F16")
    assert prepare(other, tmp_path / "cache") == other, "nothing in it is slow"
    changed = bytearray(small.read_bytes())
    changed[-600] ^= 1
    other.write_bytes(changed)
    assert prepare(small, tmp_path / "cache") != prepare(other, tmp_path / "cache")


def test_a_rewrite_that_cannot_be_written_leaves_nothing(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be written"):
        rewrite(small, tmp_path / "no" / "such" / "folder.gguf", SERVED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 3, 20, 60, 200, 4000])
def test_a_file_cut_anywhere_is_refused(small: Path, tmp_path: Path, cut: int) -> None:
    bad = tmp_path / "cut.gguf"
    bad.write_bytes(small.read_bytes()[:cut])
    with pytest.raises(ModelFileError, match=r"cut\.gguf"):
        prepare(bad, tmp_path / "cache")


def test_no_single_wrong_byte_of_the_header_is_more_than_an_error(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    bad = tmp_path / "bad.gguf"
    for position in range(700):
        for value in (0x00, 0x7F, 0xFF):
            bad.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            with contextlib.suppress(ModelFileError):
                read_header(bad)


@pytest.mark.model
def test_the_default_model_is_served_from_its_faster_equal(chat_model_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / chat_model_path.name
    shutil.copy(chat_model_path, copy)
    faster = prepare(copy, tmp_path / "cache")
    header = read_header(faster)
    assert int(Q4_1) not in header.tensor_types.values()
    assert header.special_tokens == read_header(copy).special_tokens
    assert header.chat_template == read_header(copy).chat_template
