"""A dataset: a folder of judgements, split by prompt, that never changes.

    <hash>/train.jsonl  validation.jsonl  test.jsonl   one judgement a line (see `rows.py`)
    <hash>/card.json  README.md                        what is in it, what was left out and why

The folder's name is the hash of its rows (with their split), so the same rows make the same dataset, and `load` tells
when a file was changed afterwards. People appear as ``person-1``, ``person-2``, … by the number of their judgements.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.domain.durable import sync
from trimtab.domain.errors import InvalidInput, NotFound
from trimtab.domain.judgement import Judgement, Kind, Source

from . import card as cards
from .rows import from_line, line_of, messages
from .splits import SPLITS, TRAIN, Shares, split

CARD, README = "card.json", "README.md"
BESIDE = ".new-"
"""Begins the name of a folder that is being written."""


@dataclass(frozen=True)
class Dataset:
    """`splits` holds the rows of ``train``, ``validation`` and ``test``."""

    id: str
    """SHA-256 of the canonical rows, hexadecimal."""
    folder: Path
    splits: Mapping[str, tuple[Judgement, ...]]
    card: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, name: str = TRAIN, kind: Kind | None = None, label: str | None = None) -> list[Judgement]:
        """Of one split; with `kind` only those, with `label` only 0/1 labels of that name."""
        found = self.splits[name]
        return [r for r in found if (kind is None or r.kind is kind) and (label is None or r.label == label)]

    def feedback_ids(self) -> list[str]:
        """The people's feedback that is in it, for a version's lineage."""
        return sorted(
            {row.about["feedback"] for rows in self.splits.values() for row in rows if "feedback" in row.about}
        )

    def preferences(self, name: str = TRAIN) -> list[dict[str, Any]]:
        """In TRL's conversational columns ``prompt``, ``chosen``, ``rejected``, and ``weight``."""
        return [
            {
                "prompt": messages(r.prompt),
                "chosen": _said(r.completion),
                "rejected": _said(r.rejected),
                "weight": r.weight,
            }
            for r in self.rows(name, Kind.PREFERENCE)
        ]

    def labels(self, name: str = TRAIN, label: str = "helpful") -> list[dict[str, Any]]:
        """In TRL's conversational columns ``prompt``, ``completion``, ``label`` (a bool), and ``weight``."""
        return [
            {
                "prompt": messages(r.prompt),
                "completion": _said(r.completion),
                "label": bool(r.value),
                "weight": r.weight,
            }
            for r in self.rows(name, Kind.LABEL, label)
        ]

    def demonstrations(self, name: str = TRAIN) -> list[dict[str, Any]]:
        """In TRL's conversational columns ``prompt``, ``completion``, and ``weight``."""
        return [
            {"prompt": messages(r.prompt), "completion": _said(r.completion), "weight": r.weight}
            for r in self.rows(name, Kind.DEMONSTRATION)
        ]


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write(
    rows: Sequence[Judgement], home: Path, *, shares: Shares = Shares(), about: Mapping[str, Any] | None = None
) -> Dataset:
    """Split `rows` and write them as a dataset under `home`; the one that is there already when they are the same.

    Args:
        about: what the card says beyond what the rows tell: what was left out, by which rules.

    Raises:
        InvalidInput: there are no rows.
    """
    if not rows:
        raise InvalidInput("There is nothing to write: curation left no feedback. `trimtab feedback curate` says why.")
    named = _without_names(rows)
    places = split(named, shares)
    splits = {
        name: tuple(sorted((r for r, place in zip(named, places, strict=True) if place == name), key=lambda r: r.id))
        for name in SPLITS
    }
    texts = {name: "".join(line_of(row) + "\n" for row in found) for name, found in splits.items()}
    digest = _digest(texts)
    folder = home / digest[:16]
    if (folder / CARD).exists():
        return load(folder)
    card = {
        "hash": digest,
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {f"{name}.jsonl": _sha(text) for name, text in texts.items()},
        "shares": {"validation": shares.validation, "test": shares.test},
        **cards.facts(splits),
        **(about or {}),
    }
    files = {f"{name}.jsonl": text for name, text in texts.items()}
    files |= {CARD: json.dumps(card, indent=2, ensure_ascii=False) + "\n", README: cards.as_markdown(card)}
    _put(folder, files)
    return Dataset(digest, folder, splits, card)


def load(folder: Path) -> Dataset:
    """A dataset as it was written.

    Raises:
        NotFound: there is none.
        InvalidInput: a file is missing or is not what was written.
    """
    if not (folder / CARD).is_file():
        raise NotFound(f"No dataset in {folder}. `trimtab feedback dataset` makes one.")
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        texts = {name: (folder / f"{name}.jsonl").read_bytes().decode("utf-8") for name in SPLITS}
        digest = str(card["hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"The dataset {folder} cannot be read: {error}. Make it again from the feedback.") from error
    if _digest(texts) != digest or folder.name != digest[:16]:
        raise InvalidInput(f"The dataset {folder} was changed after it was written. Delete it and make it again.")
    splits = {name: tuple(from_line(line) for line in text.split("\n") if line) for name, text in texts.items()}
    return Dataset(digest, folder, splits, card)


def datasets(home: Path) -> list[Path]:
    """The folders of the datasets under `home`, oldest first."""
    found = [path.parent for path in home.glob(f"*/{CARD}") if not path.parent.name.startswith(BESIDE)]
    return sorted(found, key=lambda folder: ((folder / CARD).stat().st_mtime, folder.name))


def remove_with(home: Path, feedback_ids: Iterable[str]) -> list[str]:
    """Delete the datasets that hold any of this feedback; returns their names. Damaged ones are deleted, too: what is
    in them cannot be told."""
    unwanted, gone = set(feedback_ids), []
    for left in home.glob(f"{BESIDE}*") if unwanted else ():  # by a process that died
        shutil.rmtree(left)
    for folder in datasets(home) if unwanted else ():
        try:
            hit = unwanted.intersection(load(folder).feedback_ids())
        except InvalidInput:
            hit = unwanted
        if hit:
            shutil.rmtree(folder)
            gone.append(folder.name)
    return gone


def _without_names(rows: Sequence[Judgement]) -> list[Judgement]:
    """People's ids replaced by numbers, most judgements first."""
    people = Counter(row.person for row in rows if row.person and row.source is Source.PERSON)
    order = sorted(people, key=lambda person: (-people[person], person))
    names = {person: f"person-{number}" for number, person in enumerate(order, 1)}
    return [replace(r, person=names[r.person]) if r.source is Source.PERSON and r.person else r for r in rows]


def _digest(texts: Mapping[str, str]) -> str:
    return _sha("".join(f"{name}\n{texts[name]}\n" for name in SPLITS))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _put(folder: Path, files: Mapping[str, str]) -> None:
    """The whole folder or nothing: written beside it, synced, then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=BESIDE, dir=folder.parent))
    try:
        for name, text in files.items():
            (beside / name).write_bytes(text.encode("utf-8"))
            sync(beside / name)
        sync(beside)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / CARD).exists():  # else another process wrote the same rows just now
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
