"""A dataset's card: what is in it, what was left out and why, for whoever trains on it or asks about it later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.domain.judgement import Judgement, Kind, Source

PEOPLE_SHOWN = 20


def facts(splits: Mapping[str, Sequence[Judgement]]) -> dict[str, Any]:
    """What the rows tell: counts by split, kind and source, label balance, share of each person."""
    rows = [row for found in splits.values() for row in found]
    people = Counter(row.person for row in rows if row.source is Source.PERSON and row.person)
    return {
        "rows": len(rows),
        "prompts": len({row.prompt for row in rows}),
        "splits": {name: len(found) for name, found in splits.items()},
        "kinds": dict(sorted(Counter(str(row.kind) for row in rows).items())),
        "sources": dict(sorted(Counter(str(row.source) for row in rows).items())),
        "labels": _balance(rows),
        "versions": dict(sorted(Counter(row.version for row in rows if row.version).items())),
        "people": len(people),
        "person_shares": {name: round(count / len(rows), 4) for name, count in people.most_common(PEOPLE_SHOWN)},
    }


def _balance(rows: Sequence[Judgement]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.kind is Kind.LABEL:
            found.setdefault(row.label, {"0": 0, "1": 0})[str(int(bool(row.value)))] += 1
    return dict(sorted(found.items()))


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    parts = [
        f"# Dataset {card['hash'][:16]}",
        f"{card['rows']} judgements of {card['prompts']} prompts by {card['people']} people, made {card['made_at']}. "
        f"Hash of the rows: `{card['hash']}`.",
        _table("split", card["splits"]),
        _table("kind", card["kinds"]),
        _table("source", card["sources"]),
    ]
    if card["labels"]:
        parts.append(_rows(("label", "0", "1"), [(n, b["0"], b["1"]) for n, b in card["labels"].items()]))
    if card["person_shares"]:
        shares = [(name, f"{share:.1%}") for name, share in card["person_shares"].items()]
        parts.append(_rows(("person", "share"), shares))
    if card.get("dropped"):
        parts += ["## Left out", _table("rule", card["dropped"])]
    if card.get("scrubbed"):
        parts += ["## Personal data replaced", _table("what", card["scrubbed"])]
    if card.get("rules"):
        parts += ["## Rules", _table("rule", card["rules"])]
    parts.append(
        "No prompt of one split is like a prompt of another. Near-duplicates, threads and continuations stay together."
    )
    return "\n\n".join(parts) + "\n"


def _table(name: str, counts: Mapping[str, Any]) -> str:
    return _rows((name, "value" if name == "rule" else "rows"), list(counts.items()))


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
