"""A judgement as one line of JSON, and back. The line is canonical: equal judgements give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from typing import Any

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Blame, Judgement, Kind, Said, Source

_KINDS: Mapping[str, type[StrEnum]] = {"kind": Kind, "source": Source, "blame": Blame}


def line_of(row: Judgement) -> str:
    """Without a line end; keys sorted."""
    return json.dumps(as_dict(row), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def as_dict(row: Judgement) -> dict[str, Any]:
    return {
        **{field.name: getattr(row, field.name) for field in fields(row)},
        "prompt": messages(row.prompt),
        "about": dict(row.about),
    }


def messages(prompt: Sequence[Said]) -> list[dict[str, str]]:
    """In the form that chat templates and TRL take."""
    return [{"role": said.role, "content": said.content} for said in prompt]


def from_line(line: str) -> Judgement:
    """Inverse of `line_of`.

    Raises:
        InvalidInput: it is not such a line.
    """
    try:
        given = json.loads(line)
        known = {field.name: given[field.name] for field in fields(Judgement)}
        known |= {name: kind(given[name]) for name, kind in _KINDS.items()}
        known["prompt"] = tuple(Said(said["role"], said["content"]) for said in given["prompt"])
        return Judgement(**known)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"This is no judgement: {error!r}. Was the file changed by hand?") from error
