"""The default embedding model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.retrieval.embedding import EmbeddingOptions, OnnxEmbeddings

pytestmark = pytest.mark.model

TEXTS = [
    "",
    "A cat.",
    "The river Vell is 212 kilometres long. " * 3,
    "def f(x):\n    return x + 1",
    "日本語の文章です。",
    "long " * 900,
]


def test_int8_vectors_are_close_to_fp32_ones(embedder: OnnxEmbeddings, model_folder: Path, tmp_path: Path) -> None:
    full = OnnxEmbeddings(model_folder, tmp_path, EmbeddingOptions(precision="fp32"))
    cosines = (embedder.encode(TEXTS[1:]) * full.encode(TEXTS[1:])).sum(axis=1)
    full.close()
    assert cosines.min() > 0.985
    assert cosines.mean() > 0.993
    assert full.fingerprint != embedder.fingerprint


def test_vectors_have_length_one_and_the_order_of_the_texts(
    embedder: OnnxEmbeddings, model_folder: Path, tmp_path: Path
) -> None:
    full = OnnxEmbeddings(model_folder, tmp_path, EmbeddingOptions(precision="fp32"))
    # In fp32 padding and neighbours change nothing; in int8 they move a vector a little (see the module's docstring).
    for model, least in ((full, 0.99999), (embedder, 0.98)):
        together = model.encode(TEXTS)
        assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        for text, vector in list(zip(TEXTS, together, strict=True))[1:]:
            assert float(model.encode([text])[0] @ vector) > least
    full.close()
    assert embedder.encode([]).shape == (0, 384)


def test_similar_sentences_are_near(embedder: OnnxEmbeddings) -> None:
    a, b, c = embedder.embed_documents(["How long is the river?", "What is the river's length?", "Bake the bread."])
    assert np.dot(a, b) > 0.8 > 0.3 > np.dot(a, c)
    assert np.allclose(embedder.embed_query("How long is the river?"), a, atol=0.05)


def test_a_damaged_or_missing_model_is_named(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="trimtab models pull"):
        OnnxEmbeddings(tmp_path / "nowhere", tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    with (broken / "model.safetensors").open("rb+") as file:
        file.truncate(5_000_000)
    with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be read"):
        OnnxEmbeddings(broken, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("encoder-*"))


def test_a_damaged_prepared_file_says_delete_it(model_folder: Path, embedder: OnnxEmbeddings, tmp_path: Path) -> None:
    (tmp_path / f"encoder-int8-{embedder.fingerprint}.onnx").write_bytes(b"half")
    with pytest.raises(ModelFileError, match="Delete it; it is made again"):
        OnnxEmbeddings(model_folder, tmp_path)


def test_a_closed_model_says_so(model_folder: Path, tmp_path: Path, embedder: OnnxEmbeddings) -> None:
    opened = OnnxEmbeddings(model_folder, tmp_path)
    opened.close()
    with pytest.raises(InvalidInput, match="closed"):
        opened.encode(["x"])
