"""The cache of embeddings that the router works from, with an embedder whose calls the test can see and hold up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from langchain_core.embeddings import Embeddings

from trimtab.llm.router import VectorCache


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
