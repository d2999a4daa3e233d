"""The data set that ships: prompts, demonstrations, preferences, 0/1 labels and probes, written by the project.

A newcomer has no feedback yet; with this they can run the whole loop and see a model change. The files are JSONL in
TRL's conversational columns, so they open without Trimtab too. How they were written, by which guide, and what they
are not good for is in ``data/README.md``; `card_table` is the part of it that is counted, and a test holds it to
the files.

A prompt belongs to one split, and everything said about it stays there. Nothing here may train on ``test``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said, Source

DATA = Path(__file__).parent / "data"
SPLITS = ("train", "validation", "test")
AREAS = ("helpful", "harmless", "on-topic")
MODEL = "smollm2-135m-instruct"
"""Whose samples were judged."""
_ROWS = {
    "demonstrations": Kind.DEMONSTRATION,
    "preferences_written": Kind.PREFERENCE,
    "preferences_edited": Kind.PREFERENCE,
    "preferences_sampled": Kind.PREFERENCE,
    "labels": Kind.LABEL,
}


@dataclass(frozen=True)
class BundledPrompt:
    id: str
    prompt: tuple[Said, ...]
    area: str
    """One of `AREAS`."""
    expected: str
    """``answer``, ``decline`` (harmful), or ``redirect`` (off the topic that the system message gives)."""
    lookalike: bool
    """Sounds harmful and is not: must be answered."""
    split: str
    group: str
    """Prompts that are near one another share it, and so a split."""


@dataclass(frozen=True)
class Probe:
    """A question the gate asks a version. None of them is in any training split."""

    id: str
    prompt: tuple[Said, ...]
    expected: str
    """``decline``, ``answer``, or ``disagree`` (sycophancy: the person states something wrong)."""
    correct: str = ""
    """Sycophancy: what is right, in words an answer that does not give in would use."""


@dataclass(frozen=True)
class Probes:
    harmful: tuple[Probe, ...]
    """Must be declined."""
    lookalikes: tuple[Probe, ...]
    """Must not be declined."""
    sycophancy: tuple[Probe, ...]
    """Must not be agreed with."""
    plain_text: str
    """Prose for perplexity; paragraphs are separated by an empty line."""

    def first(self, count: int) -> Probes:
        """So many of each set; 0 is all."""
        most = count or None
        return replace(
            self, harmful=self.harmful[:most], lookalikes=self.lookalikes[:most], sycophancy=self.sycophancy[:most]
        )


def load_bundled(split: str | None = None) -> list[Judgement]:
    """Every judgement of the data set, or of one split (``train``, ``validation``, ``test``).

    `about` says ``split``, ``prompt_id``, ``area``, ``origin`` (``written``, ``edited`` or ``sampled``) and, for a
    preference, the ``contrast``. Preferences between samples are the default model's own text.

    Raises:
        InvalidInput: no such split, or a damaged file, with the line at fault.
    """
    _check_split(split)
    return [
        _judgement(row, kind)
        for name, kind in _ROWS.items()
        for row in _rows(f"{name}.jsonl")
        if split in (None, row["split"])
    ]


def prompts(split: str | None = None, area: str | None = None) -> list[BundledPrompt]:
    """The prompts, in the order of the file.

    Raises:
        InvalidInput: no such split or area, or a damaged file.
    """
    _check_split(split)
    if area is not None and area not in AREAS:
        raise InvalidInput(f"The bundled data has no area {area!r}. Areas: {', '.join(AREAS)}.")
    return [
        BundledPrompt(
            id=row["id"],
            prompt=_said(row["prompt"]),
            area=row["area"],
            expected=row["expected"],
            lookalike=row["lookalike"],
            split=row["split"],
            group=row["group"],
        )
        for row in _rows("prompts.jsonl")
        if split in (None, row["split"]) and area in (None, row["area"])
    ]


def probes() -> Probes:
    """What the gate asks. Kept apart from the data that trains, also in wording.

    Raises:
        InvalidInput: a damaged file.
    """
    return Probes(
        harmful=_probes("probes_harmful.jsonl"),
        lookalikes=_probes("probes_lookalikes.jsonl"),
        sycophancy=_probes("probes_sycophancy.jsonl"),
        plain_text=(DATA / "plain_text.txt").read_text("utf-8"),
    )


def content_hash() -> str:
    """SHA-256 over the names and bytes of all data files: changes when any of them does. The card is not included."""
    digest = hashlib.sha256()
    for path in sorted((*DATA.glob("*.jsonl"), *DATA.glob("*.txt"))):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def card_table() -> str:
    """The counted part of the card, as Markdown: rows by file and split, and the content hash."""
    lines = ["| file | train | validation | test | all |", "|---|---|---|---|---|"]
    for name in ("prompts", *_ROWS):
        counts = Counter(str(row["split"]) for row in _rows(f"{name}.jsonl"))
        cells = " | ".join(str(counts[split]) for split in SPLITS)
        lines.append(f"| `{name}.jsonl` | {cells} | {counts.total()} |")
    for path in sorted(DATA.glob("probes_*.jsonl")):
        lines.append(f"| `{path.name}` | - | - | - | {sum(1 for _ in _rows(path.name))} |")
    return "\n".join([*lines, "", f"Content hash (SHA-256): `{content_hash()}`"])


def _check_split(split: str | None) -> None:
    if split is not None and split not in SPLITS:
        raise InvalidInput(f"The bundled data has no split {split!r}. Splits: {', '.join(SPLITS)}.")


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InvalidInput(
                    f"Line {number} of the bundled {name} is not JSON ({error}). Install Trimtab again."
                ) from error


def _said(messages: list[Mapping[str, str]]) -> tuple[Said, ...]:
    return tuple(Said(message["role"], message["content"]) for message in messages)


def _judgement(row: Mapping[str, Any], kind: Kind) -> Judgement:
    preference = kind is Kind.PREFERENCE
    sampled = row["origin"] == "sampled"
    return Judgement(
        id=f"bundled-{row['id']}",
        kind=kind,
        prompt=_said(row["prompt"]),
        completion=row["chosen" if preference else "completion"][0]["content"],
        rejected=row["rejected"][0]["content"] if preference else "",
        value=int(row["label"]) if kind is Kind.LABEL else None,
        label=row.get("name", "helpful"),
        source=Source.BUNDLED,
        version=MODEL if sampled else "",
        ours=sampled,
        about={key: row[key] for key in ("split", "prompt_id", "area", "origin", "contrast") if key in row},
    )


def _probes(name: str) -> tuple[Probe, ...]:
    return tuple(Probe(row["id"], _said(row["prompt"]), row["expected"], row.get("correct", "")) for row in _rows(name))


if __name__ == "__main__":
    print(card_table())
