"""Retrieval beside the plain pipelines of LangChain and LlamaIndex: `python benchmarks/retrieval.py`.

The corpus is the Python language reference that every CPython carries (`pydoc_data.topics`, about 465 kB). Compared:

- **Trimtab**: `Library.ingest` of a folder, as shipped: walking, reading, hashing, chunks by structure without overlap,
  the int8 encoder, SQLite (committed), Chroma and FTS5.
- **LangChain**: `RecursiveCharacterTextSplitter(1000, 200)` and `Chroma.from_documents` on disk.
- **LlamaIndex**: `SentenceSplitter(256 tokens, 20)` (its default of 1024 would be cut off by the model) and
  `VectorStoreIndex` with its own store in memory.

Both plain pipelines get the same all-MiniLM-L6-v2 in fp32 through one small embeddings class: batches of 32 in the
order given, padded to the longest. The fp32 graph is ours, on OpenVINO with two threads: faster than what a person
would usually have (torch or ONNX Runtime), so the comparison does not favour us. Each pipeline runs in a process of its
own; loading libraries and the model is not counted. CPU-seconds are user + system of all threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pydoc_data.topics
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
sys.path.insert(0, str(Path(__file__).parent))

from retrieval_questions import QUESTIONS, UNANSWERABLE

REPOSITORY = Path(__file__).parent.parent
TOPICS: dict[str, str] = pydoc_data.topics.topics
Search = Callable[[str, int], list[str]]
"""Question and k to the texts of chunks, best first."""


def model_folder() -> Path:
    """The default embedding model, fetched when it is not here."""
    from trimtab.llm import catalogue, fetch, shelf

    folder = Path(os.environ.get("TRIMTAB_TEST_MODELS") or REPOSITORY / ".trimtab" / "models")
    entry = catalogue.entry(catalogue.DEFAULT_EMBEDDING)
    fetch.pull(entry, folder, hub="")
    return shelf.path(entry, folder)


def encoder(precision: str = "int8") -> Any:
    from trimtab.retrieval.embedding import EmbeddingOptions, MiniLmEmbeddings

    return MiniLmEmbeddings(model_folder(), EmbeddingOptions(precision=precision))


def plain_embeddings() -> Any:
    """What a person would write around the model: no sorting, one batch after the other."""
    import numpy as np
    import openvino
    from langchain_core.embeddings import Embeddings

    from trimtab.retrieval.embedding import load_tokenizer
    from trimtab.retrieval.encoder import read_encoder

    folder = model_folder()
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    # OpenVINO would compute in bfloat16 where it can; a plain fp32 pipeline does not.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(read_encoder(folder, "fp32"), "CPU", settings)

    class PlainMiniLM(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            out: list[list[float]] = []
            for start in range(0, len(texts), 32):
                batch = tokenizer.encode_batch(texts[start : start + 32])
                ids = np.array([e.ids for e in batch], dtype=np.int32)
                mask = np.array([e.attention_mask for e in batch], dtype=np.int32)
                out += model({"input_ids": ids, "mask": mask})[0].tolist()
            return out

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    embeddings = PlainMiniLM()
    embeddings.embed_query("warm up")
    return embeddings


def corpus_folder(folder: Path, files: int | None = None) -> Path:
    """The reference as one file a topic, or as `files` files of about equal length."""
    folder.mkdir(parents=True)
    if files is None:
        for name, text in TOPICS.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        return folder
    whole = "\n".join(TOPICS[name] for name in sorted(TOPICS))
    size = len(whole) // files + 1
    for i in range(files):
        path = folder / f"part{i // 50:02d}" / f"{i:04d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"Part {i}\n{whole[i * size : (i + 1) * size]}", encoding="utf-8")
    return folder


def open_library(folder: Path, embedder: Any) -> Any:
    from sqlalchemy import create_engine

    from trimtab.retrieval.library import Library
    from trimtab.store.documents import SqlDocumentStore
    from trimtab.store.schema import metadata

    engine = create_engine(f"sqlite:///{folder / 'bench.db'}")
    metadata.create_all(engine)
    return Library(SqlDocumentStore(engine), embedder, folder / "index")


# One pipeline, in a process of its own


def run_trimtab(folder: Path) -> dict[str, Any]:
    embedder = encoder()
    embedder.encode(["warm up"])
    library = open_library(folder, embedder)
    source = corpus_folder(folder / "corpus")
    result = _measured(lambda: sum(e.chunks for e in library.ingest([source], "bench")))
    result |= _queries(lambda q, k: [p.text for p in library.search(q, "bench", k, floor=-1)])
    library.close()
    return result


def run_langchain(folder: Path) -> dict[str, Any]:
    from langchain_chroma import Chroma
    from langchain_core.documents import Document
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    embeddings = plain_embeddings()
    documents = [Document(text, metadata={"source": name}) for name, text in TOPICS.items()]
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    kept: list[Any] = []

    def ingest() -> int:
        pieces = splitter.split_documents(documents)
        kept.append(Chroma.from_documents(pieces, embeddings, persist_directory=str(folder / "chroma")))
        return len(pieces)

    result = _measured(ingest)
    return result | _queries(lambda q, k: [d.page_content for d in kept[0].similarity_search(q, k=k)])


def run_llamaindex(folder: Path) -> dict[str, Any]:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.node_parser import SentenceSplitter

    embeddings = plain_embeddings()

    class Wrapped(BaseEmbedding):  # type: ignore[misc]
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return embeddings.embed_documents(texts)

        def _get_text_embedding(self, text: str) -> list[float]:
            return embeddings.embed_query(text)

        def _get_query_embedding(self, query: str) -> list[float]:
            return embeddings.embed_query(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return embeddings.embed_query(query)

    count = encoder_tokenizer()
    model = Wrapped(embed_batch_size=32)
    splitter = SentenceSplitter(chunk_size=256, chunk_overlap=20, tokenizer=count)
    kept: list[Any] = []

    def ingest() -> int:
        nodes = splitter.get_nodes_from_documents([Document(text=t, id_=n) for n, t in TOPICS.items()])
        kept.append(VectorStoreIndex(nodes, embed_model=model))
        return len(nodes)

    result = _measured(ingest)
    return result | _queries(lambda q, k: [n.text for n in kept[0].as_retriever(similarity_top_k=k).retrieve(q)])


def encoder_tokenizer() -> Callable[[str], list[int]]:
    from trimtab.retrieval.embedding import load_tokenizer

    tokenizer = load_tokenizer(model_folder() / "tokenizer.json")
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


PIPELINES = {"trimtab": run_trimtab, "langchain": run_langchain, "llamaindex": run_llamaindex}


def _measured(ingest: Callable[[], int]) -> dict[str, Any]:
    start_cpu, start = time.process_time(), time.perf_counter()
    chunks = ingest()
    cpu, wall = time.process_time() - start_cpu, time.perf_counter() - start
    size = sum(len(t.encode()) for t in TOPICS.values()) / 1000
    return {"chunks": chunks, "cpu": cpu, "wall": wall, "kb_per_cpu": size / cpu, "chunks_per_s": chunks / wall}


def _queries(search: Search) -> dict[str, Any]:
    seconds, scores = [], []
    for question, phrases in QUESTIONS:
        begin = time.perf_counter()
        found = search(question, 10)
        seconds.append(time.perf_counter() - begin)
        everything = [_plain(p) for p in phrases]
        scores.append(ndcg([any(p in _plain(text) for p in everything) for text in found], _copies(everything)))
    return {
        "p95_ms": statistics.quantiles(seconds, n=20)[-1] * 1000,
        "ndcg": statistics.fmean(scores),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _plain(text: str) -> str:
    return " ".join(text.split())


def _copies(phrases: list[str]) -> int:
    """How often the reference holds the answer: some topics repeat others."""
    return sum(_plain(text).count(p) for text in TOPICS.values() for p in phrases)


def ndcg(relevant: list[bool], total: int, k: int = 10) -> float:
    """Binary nDCG@k; `total` is how many relevant chunks there are at least."""
    gain = sum(1 / math.log2(i + 2) for i, hit in enumerate(relevant[:k]) if hit)
    ideal = sum(1 / math.log2(i + 2) for i in range(min(k, max(total, sum(relevant)))))
    return gain / ideal if ideal else 0.0


# int8 beside fp32, on the very same chunks


def quality(folder: Path) -> list[tuple[str, float, float]]:
    """(precision, nDCG@10 of vectors alone, nDCG@10 fused). Vectors alone are ranked exactly, without an index."""
    import numpy as np

    rows = []
    for precision in ("fp32", "int8"):
        embedder = encoder(precision)
        (folder / precision).mkdir()
        library = open_library(folder / precision, embedder)
        list(library.ingest([corpus_folder(folder / precision / "corpus")], "bench"))
        fused = _queries(lambda q, k, library=library: [p.text for p in library.search(q, "bench", k, floor=-1)])[
            "ndcg"
        ]  # type: ignore[misc]
        pairs = [(c.embedding, text) for _, c, text in library._store.chunks_by_id(sorted(library._store.chunk_ids()))]
        matrix = np.frombuffer(b"".join(blob for blob, _ in pairs), dtype="<f4").reshape(len(pairs), -1)

        def nearest(q: str, k: int, m: Any = matrix, e: Any = embedder, p: Any = pairs) -> list[str]:
            return [p[i][1] for i in np.argsort(-(m @ e.encode([q])[0]), kind="stable")[:k]]

        rows.append((precision, _queries(nearest)["ndcg"], fused))
        if precision == "int8":
            _floors(library)
        library.close()
        embedder.close()
    return rows


def _floors(library: Any) -> None:
    """Best cosine of questions with and without an answer: chosen on even ones, tested on odd ones."""
    best = {
        kind: [max((p.score for p in library.search(q, "bench", 8, floor=-1)), default=-1.0) for q in questions]
        for kind, questions in (("yes", [q for q, _ in QUESTIONS]), ("no", UNANSWERABLE))
    }
    sentence = {
        kind: [library.best_sentences(q, library.search(q, "bench", 4, floor=-1), 1)[0].score for q in questions]
        for kind, questions in (("yes", [q for q, _ in QUESTIONS]), ("no", UNANSWERABLE))
    }
    for name, scores in (("passage", best), ("sentence", sentence)):
        yes, no = scores["yes"], scores["no"]

        def accuracy(floor: float, part: int, yes: list[float] = yes, no: list[float] = no) -> float:
            return (
                statistics.fmean(s >= floor for s in yes[part::2]) + statistics.fmean(s < floor for s in no[part::2])
            ) / 2

        floor = max((f / 100 for f in range(10, 80)), key=lambda f: accuracy(f, 0))
        deciles = lambda values: " ".join(f"{x:.2f}" for x in statistics.quantiles(values, n=10))  # noqa: E731
        print(f"best {name}, answerable:   deciles {deciles(yes)}")
        print(f"best {name}, unanswerable: deciles {deciles(no)}, highest {max(no):.2f}")
        print(f"floor chosen on one half: {floor:.2f}; right on the other half: {accuracy(floor, 1):.2f}")


def again(folder: Path) -> tuple[float, float]:
    """Seconds of a first and a second ingest of 1,000 files."""
    library = open_library(folder, encoder())
    source = corpus_folder(folder / "corpus", files=1000)
    times = []
    for expected in ("added", "unchanged"):
        begin = time.perf_counter()
        seen = [e.status for e in library.ingest([source], "bench", sync=True)]
        times.append(time.perf_counter() - begin)
        if len(seen) != 1000 or set(seen) != {expected}:
            raise SystemExit(f"expected 1000 files {expected}, got {set(seen)}")
    library.close()
    return times[0], times[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--one", choices=sorted(PIPELINES), help="run one pipeline and print JSON")
    parser.add_argument("--part", choices=["pipelines", "quality", "again"], help="run one part")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        if arguments.one:
            print(json.dumps(PIPELINES[arguments.one](folder)))
            return
        known = sum(_copies([_plain(p) for p in phrases]) > 0 for _, phrases in QUESTIONS)
        print(f"{len(QUESTIONS)} labelled questions, {known} of them answered by this Python's reference\n")
        if arguments.part in (None, "pipelines"):
            _pipelines()
        if arguments.part in (None, "quality"):
            (folder / "quality").mkdir()
            rows = quality(folder / "quality")
            print("\n| encoder | nDCG@10 vectors alone | nDCG@10 hybrid |\n|---|---|---|")
            for precision, vectors, fused in rows:
                print(f"| {precision} | {vectors:.4f} | {fused:.4f} |")
        if arguments.part in (None, "again"):
            (folder / "again").mkdir()
            first, second = again(folder / "again")
            print(f"\n1,000 files: first ingest {first:.1f} s, second (unchanged) {second:.2f} s")


def _pipelines() -> None:
    rows: dict[str, dict[str, Any]] = {}
    for pipeline in PIPELINES:
        command = [sys.executable, __file__, "--one", pipeline]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise SystemExit(f"{pipeline} failed:\n{done.stderr[-3000:]}")
        rows[pipeline] = json.loads(done.stdout.strip().splitlines()[-1])
    print("| pipeline | KB / CPU-s | chunks | chunks / s | wall s | query p95 ms | nDCG@10 | RSS MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, r in rows.items():
        print(
            f"| {name} | {r['kb_per_cpu']:.1f} | {r['chunks']} | {r['chunks_per_s']:.0f} | {r['wall']:.1f} | "
            f"{r['p95_ms']:.1f} | {r['ndcg']:.3f} | {r['rss_mb']:.0f} |"
        )
    best = max(r["kb_per_cpu"] for n, r in rows.items() if n != "trimtab")
    ratio = rows["trimtab"]["kb_per_cpu"] / best
    print(f"\ntext per CPU-second beside the faster plain pipeline: {ratio:.2f} times (goal: 3)\n")


if __name__ == "__main__":
    main()
