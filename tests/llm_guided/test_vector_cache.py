"""The cache of embeddings that the router works from, with an embedder whose calls the test can see and hold up."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from trimtab.llm.guided import GuidedChatModel
from trimtab.llm.kept_vectors import KeptVectors
from trimtab.llm.router import VectorCache
from trimtab.llm.scripted import ScriptedModel
from trimtab.llm.toolspec import ToolSpec


class Letters(Embeddings):
    """Embeds a text by how often it has each letter; `meanwhile` runs once, in the middle of the next call."""

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.meanwhile: Callable[[], object] | None = None

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        self.embedded += texts
        todo, self.meanwhile = self.meanwhile, None
        if todo is not None:
            todo()
        return [[float(text.count(chr(97 + i))) for i in range(26)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_a_text_that_another_thread_makes_go_meanwhile_is_still_answered() -> None:
    embedder = Letters()
    cache = VectorCache(embedder, size=2)
    before = cache.of(["boat"])

    def crowd_out() -> None:
        other = threading.Thread(target=cache.of, args=(["harbour", "anchor", "sail"],))
        other.start()
        other.join(timeout=10)

    embedder.meanwhile = crowd_out
    rows = cache.of(["boat", "rudder"])
    assert np.array_equal(rows[0], before[0])
    assert rows.shape == (2, 26)


def test_what_is_used_again_and_again_stays() -> None:
    embedder = Letters()
    cache = VectorCache(embedder, size=3)
    cache.of(["tool"])
    for message in ("one", "two", "three", "four", "five"):
        cache.of(["tool", message])
    assert embedder.embedded.count("tool") == 1
    cache.of(["one"])
    assert embedder.embedded.count("one") == 2


WATER = ToolSpec("garden_water", "Water the garden.", examples=("Water the roses", "The beds are dry"))


def test_a_second_start_embeds_no_tool_again_and_routes_alike(tmp_path: Path) -> None:
    kept = tmp_path / "prepared" / "vectors.npz"
    first, second = Letters(), Letters()
    models = [GuidedChatModel(inner=ScriptedModel(["Well."]), embedder=e, kept=kept) for e in (first, second)]
    models[0].warm([WATER.as_openai()])
    models[0].bind_tools([WATER.as_openai()]).invoke("A word that nobody else may read")
    models[1].warm([WATER.as_openai()])
    assert first.embedded
    assert second.embedded == []
    routers = [next(iter(model._routers.values())) for model in models]
    assert routers[0].threshold == routers[1].threshold
    with np.load(kept, allow_pickle=False) as held:
        assert held["keys"].size == 32 * len(held["rows"])
        assert hashlib.sha256(b"A word that nobody else may read").digest() not in held["keys"].tobytes()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_file_of_vectors_costs_time_only(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / "vectors.npz"
    kept.write_bytes(content)
    embedder = Letters()
    vectors = KeptVectors(embedder, kept)
    row = vectors.embed_query("rudder")
    vectors.save()
    assert embedder.embedded == ["rudder"]
    assert KeptVectors(Letters(), kept).embed_query("rudder") == row
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


def test_vectors_that_are_no_numbers_are_not_believed(tmp_path: Path) -> None:
    kept = tmp_path / "vectors.npz"
    vectors = KeptVectors(Letters(), kept)
    vectors.embed_query("rudder")
    vectors.save()
    with np.load(kept) as held:
        keys, rows = held["keys"], held["rows"]
    np.savez(kept, keys=keys, rows=rows * np.float32("nan"))
    embedder = Letters()
    KeptVectors(embedder, kept).embed_query("rudder")
    assert embedder.embedded == ["rudder"]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    vectors = KeptVectors(Letters(), tmp_path / "file" / "vectors.npz")
    vectors.embed_query("rudder")
    vectors.save()
    assert (tmp_path / "file").read_text() == "in the way"
