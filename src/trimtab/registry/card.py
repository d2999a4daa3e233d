"""A version's model card, in Markdown: what it is, whose judgement is in it, how it was measured."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from .manifest import Manifest


def card(manifest: Manifest, evidence: Mapping[str, Any] | None = None) -> str:
    """The card as it stands; `evidence` is what the gate found."""
    line = manifest.lineage
    made = dt.datetime.fromtimestamp(manifest.created_at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"# {manifest.name}",
        f"`{manifest.id}` · made {made} · base `{manifest.base}` (sha256 `{manifest.base_sha256[:16]}…`)",
        _section("Where it comes from", _origin(manifest)),
        _section("Measured in training", _table(manifest.metrics)),
    ]
    if evidence:
        parts.append(_section("Evidence for promotion", _table(evidence)))
    if line.recipe:
        parts.append(_section("Recipe", f"```json\n{json.dumps(line.recipe, indent=2, sort_keys=True)}\n```"))
    files = "\n".join(f"- `{path}` {held.size} bytes, sha256 `{held.sha256}`" for path, held in manifest.files.items())
    parts.append(_section("Files", files or "None: the base as it is."))
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(manifest: Manifest) -> str:
    line = manifest.lineage
    facts = {
        "method": line.method,
        "trained from": line.parent,
        "judgements that shaped it": line.rows or "",
        "data sets": ", ".join(f"{name} `{digest[:16]}…`" for name, digest in line.datasets.items()),
        "reward model": f"`{line.reward_model[:16]}…`" if line.reward_model else "",
        "seed": line.seed if line.method else "",
        "Trimtab": line.code,
        "job": line.job,
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value != "") or "The base as it is."


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(values: Mapping[str, Any]) -> str:
    rows = [(name, _shown(value)) for name, value in values.items() if not isinstance(value, Mapping | list)]
    if not rows:
        return ""
    return "\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
