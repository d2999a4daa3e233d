"""The default embedding model."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.retrieval.embedding import EmbeddingOptions, MiniLmEmbeddings

pytestmark = pytest.mark.model

TEXTS = [
    "",
    "A cat.",
    "The river Vell is 212 kilometres long. " * 3,
    "def f(x):\n    return x + 1",
    "日本語の文章です。",
    "long " * 900,
]


@pytest.fixture(scope="module")
def full(model_folder: Path) -> Iterator[MiniLmEmbeddings]:
    opened = MiniLmEmbeddings(model_folder, EmbeddingOptions(precision="fp32"))
    yield opened
    opened.close()


def test_int8_vectors_are_close_to_fp32_ones(embedder: MiniLmEmbeddings, full: MiniLmEmbeddings) -> None:
    cosines = (embedder.encode(TEXTS[1:]) * full.encode(TEXTS[1:])).sum(axis=1)
    assert cosines.min() > 0.99
    assert full.fingerprint != embedder.fingerprint


def test_vectors_have_length_one_and_the_order_of_the_texts(embedder: MiniLmEmbeddings, full: MiniLmEmbeddings) -> None:
    # Padding and neighbours change nothing but roundings.
    for model, least in ((full, 0.99999), (embedder, 0.999)):
        together = model.encode(TEXTS)
        assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=2e-3)
        for text, vector in zip(TEXTS, together, strict=True):
            assert float(model.encode([text])[0] @ vector) > least
    assert embedder.encode([]).shape == (0, 384)


def test_similar_sentences_are_near(embedder: MiniLmEmbeddings) -> None:
    a, b, c = embedder.embed_documents(["How long is the river?", "What is the river's length?", "Bake the bread."])
    assert np.dot(a, b) > 0.8 > 0.3 > np.dot(a, c)
    assert np.allclose(embedder.embed_query("How long is the river?"), a, atol=0.01)


def test_several_threads_get_the_vectors_of_their_own_texts(embedder: MiniLmEmbeddings) -> None:
    texts = [f"Sentence number {i} speaks of {'rivers and ' * (i % 9)}bread." for i in range(60)]
    expected = embedder.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: embedder.encode([text])[0], texts))
    assert (np.stack(rows) * expected).sum(axis=1).min() > 0.999


def test_a_damaged_or_missing_model_is_named(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="trimtab models pull"):
        MiniLmEmbeddings(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    with (broken / "model.safetensors").open("rb+") as file:
        file.truncate(5_000_000)
    with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be read"):
        MiniLmEmbeddings(broken)


def test_weights_that_do_not_fit_their_description_are_named(model_folder: Path, tmp_path: Path) -> None:
    for key, value in (("num_hidden_layers", 9), ("hidden_size", 100), ("num_attention_heads", 0)):
        other = tmp_path / key
        shutil.copytree(model_folder, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ModelFileError, match="trimtab models pull"):
            MiniLmEmbeddings(other)


OLD_PROCESSOR = """
import sys
from pathlib import Path
from trimtab.retrieval.embedding import MiniLmEmbeddings

print(" ".join(str(x) for x in MiniLmEmbeddings(Path(sys.argv[1])).encode(["How long is the river?"])[0]))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the setting is for x86 processors")
def test_a_processor_without_8_bit_kernels_still_embeds(model_folder: Path, full: MiniLmEmbeddings) -> None:
    """oneDNN, which computes for OpenVINO, is told to know no more than AVX2."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_PROCESSOR, str(model_folder)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    vector = np.array(done.stdout.split(), dtype=np.float32)
    assert float(vector @ full.encode(["How long is the river?"])[0]) > 0.99


def test_a_closed_model_says_so(model_folder: Path) -> None:
    opened = MiniLmEmbeddings(model_folder)
    opened.close()
    with pytest.raises(InvalidInput, match="closed"):
        opened.encode(["x"])
