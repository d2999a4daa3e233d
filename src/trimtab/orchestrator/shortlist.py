"""Which of many tools a model is shown: those whose name, description or example questions are nearest to a message.

    shortlist = Shortlist(embedder)
    picked = shortlist.pick(tools, "What is the weather in Oslo, and note it down")
    picked.names

Two looks at each tool, as the document search has: by meaning (the cosine of the nearest of its texts) and by words
(BM25, by SQLite's FTS5 with Porter's stemmer). Of a message that asks for several things the longest is looked up by
itself as well, and is sure of some places. Without an embedder words alone decide.

It only chooses what is offered. Whether anything is called is the model's decision, and whether it runs is not decided
here at all. What a tool says of itself may be a stranger's text: the worst it can do is to be offered.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from langchain_core.tools import BaseTool

from trimtab.domain.events import Considered
from trimtab.domain.model import Embedder
from trimtab.domain.tool import METADATA_KEY, ToolInfo

Scores = npt.NDArray[np.float32]

MOST = 16
ENOUGH = 24
"""So many tools are all offered: choosing among few costs more than it saves."""
WORDS_WEIGHT = 0.35
"""What the best match by words is worth beside a cosine (see benchmarks/tool_choice.py)."""
CLAUSES = 1
"""Looked up by themselves, the longest first. Each is one more text to embed, which is most of what choosing costs; two
found no more tools than one."""
MOST_CHARS = 600
"""Of a longer message this much of its beginning and of its end is looked at."""
TEXT_CHARS = 600
EXAMPLES = 12
"""Examples of one tool that are read."""
NEAREST = 12
"""Tools that were not offered and are told about."""
_CUT = re.compile(
    r"(?<=[.?!;])\s+|\n+|,?\s+(?:and then|and also|then|and|also|plus|before|after)\s+|,\s+", re.IGNORECASE
)
_STOP = frozenset(
    (
        "a about an and any are as at be been but by can could did do does for from had has have how i if in into is "
        "it its me my no not of on or our please should so some that the their them then there these they this to was "
        "we were what when where which who why will with would you your"
    ).split()
)


@dataclass(frozen=True)
class Picked:
    """`names` are offered, best first."""

    names: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of those offered."""
    left_out: tuple[Considered, ...] = ()
    """The nearest of the others."""
    installed: int = 0


class Shortlist:
    """Safe to use from several threads. What was embedded is kept while the tools stay the same."""

    def __init__(self, embedder: Embedder | None, most: int = MOST, enough: int = ENOUGH) -> None:
        self.most = most
        self.enough = max(enough, most)
        self._embedder = embedder
        self._lock = threading.Lock()
        self._index: _Index | None = None

    def warm(self, tools: Sequence[BaseTool]) -> None:
        """Read the tools now (some milliseconds each), so that the first question does not wait for it."""
        if len(tools) > self.enough:
            self._indexed(tools)

    def pick(self, tools: Sequence[BaseTool], message: str) -> Picked:
        """The `most` tools nearest to a message; all of them where there are not more than `enough`. Blocks while it
        embeds."""
        if len(tools) <= self.enough:
            return Picked(tuple(tool.name for tool in tools), installed=len(tools))
        index = self._indexed(tools)
        scores = index.scores(_clauses(message))
        order = _fairly(scores, self.most)
        best = scores.max(axis=0)
        rest = [i for i in np.argsort(-best, kind="stable").tolist() if i not in set(order)][:NEAREST]
        place = f"{self.most} of {len(tools)} tools were offered; this one is farther from the question"
        return Picked(
            names=tuple(index.names[i] for i in order),
            scores={index.names[i]: round(float(best[i]), 4) for i in order},
            left_out=tuple(Considered(index.names[i], round(float(best[i]), 4), place) for i in rest),
            installed=len(tools),
        )

    def _indexed(self, tools: Sequence[BaseTool]) -> _Index:
        with self._lock:
            known = self._index
            if known is None or not known.same(tools):
                self._index = known = _Index(tools, self._embedder, known.vectors if known else {})
            return known


class _Index:
    """One set of tools, embedded and indexed by words."""

    def __init__(self, tools: Sequence[BaseTool], embedder: Embedder | None, known: Mapping[str, Scores]) -> None:
        self._tools = tuple(tools)
        self._embedder = embedder
        self.names = [tool.name for tool in tools]
        texts = [_texts(tool) for tool in tools]
        self._owner = np.array([i for i, some in enumerate(texts) for _ in some], dtype=np.int64)
        flat = [text for some in texts for text in some]
        self.vectors = _embedded(embedder, flat, known) if embedder else {}
        self._matrix = np.stack([self.vectors[text] for text in flat]) if self.vectors else None
        self._lock = threading.Lock()
        self._words = _keyword_table(tools, texts)

    def same(self, tools: Sequence[BaseTool]) -> bool:
        return len(tools) == len(self._tools) and all(a is b for a, b in zip(tools, self._tools, strict=True))

    def scores(self, clauses: Sequence[str]) -> Scores:
        """One row a clause, one column a tool."""
        found = WORDS_WEIGHT * np.stack([self._by_words(clause) for clause in clauses])
        if self._matrix is not None and self._embedder is not None:
            asked = np.asarray(self._embedder.embed_documents(list(clauses)), dtype=np.float32)
            nearness = asked @ self._matrix.T
            best = np.full((len(clauses), len(self.names)), -1.0, dtype=np.float32)
            for row, values in zip(best, nearness, strict=True):
                np.maximum.at(row, self._owner, values)
            found = found + best
        return found.astype(np.float32)

    def _by_words(self, clause: str) -> Scores:
        """BM25 of each tool, 1 for the best."""
        out = np.zeros(len(self.names), dtype=np.float32)
        words = list(dict.fromkeys(re.findall(r"\w+", clause.lower())))
        telling = [word for word in words if word not in _STOP][:48]
        if telling:
            match = " OR ".join(f'"{word}"' for word in telling)  # quoted: nothing that is typed is FTS5's syntax
            with self._lock:
                rows = self._words.execute(
                    "select rowid, -bm25(tools, 3.0, 1.0, 1.5) from tools where tools match ?", (match,)
                ).fetchall()
            top = max((score for _, score in rows), default=0.0)
            for number, score in rows:
                out[number] = score / top if top > 0 else 0.0
        return out


def _texts(tool: BaseTool) -> list[str]:
    """What is compared with a message: the tool's description with its name, and its example questions."""
    info = (tool.metadata or {}).get(METADATA_KEY)
    examples = info.examples[:EXAMPLES] if isinstance(info, ToolInfo) else ()
    return [f"{_spaced(tool.name)}: {tool.description}"[:TEXT_CHARS], *(text[:TEXT_CHARS] for text in examples)]


def _keyword_table(tools: Sequence[BaseTool], texts: Sequence[Sequence[str]]) -> sqlite3.Connection:
    table = sqlite3.connect(":memory:", check_same_thread=False)
    table.execute(
        "create virtual table tools using fts5 (name, description, examples, "
        'tokenize = "porter unicode61 remove_diacritics 2")'
    )
    rows = [
        (number, _spaced(tool.name), tool.description[:TEXT_CHARS], " ".join(some[1:]))
        for number, (tool, some) in enumerate(zip(tools, texts, strict=True))
    ]
    table.executemany("insert into tools (rowid, name, description, examples) values (?, ?, ?, ?)", rows)
    return table


def _embedded(embedder: Embedder, texts: Sequence[str], known: Mapping[str, Scores]) -> dict[str, Scores]:
    found = {text: known[text] for text in texts if text in known}
    fresh = [text for text in dict.fromkeys(texts) if text not in found]
    if fresh:
        made = np.asarray(embedder.embed_documents(fresh), dtype=np.float32)
        made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)
        found.update(zip(fresh, made, strict=True))
    return found


def _clauses(message: str) -> list[str]:
    """The message, and what it consists of where it asks for several things."""
    text = " ".join(message.split()) or "?"
    whole = text if len(text) <= 2 * MOST_CHARS else f"{text[:MOST_CHARS]} {text[-MOST_CHARS:]}"
    parts = [part.strip() for part in _CUT.split(whole) if part and len(part.split()) > 2]
    if len(parts) < 2:
        return [whole]
    longest = sorted(parts, key=len, reverse=True)[:CLAUSES]
    return [whole, *longest]


def _fairly(scores: Scores, most: int) -> list[int]:
    """The best columns: half of the places by the whole message, the other half by the rows in turn."""
    orders = [np.argsort(-row, kind="stable").tolist() for row in scores]
    chosen = dict.fromkeys(orders[0][: most // 2])
    for rank in range(len(orders[0])):
        for order in orders:
            if len(chosen) < most:
                chosen.setdefault(order[rank])
    return list(chosen)


def _spaced(name: str) -> str:
    """``notes_listAll`` as words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name).lower()
