"""A schema narrowed to what a message says: its own words, its own numbers, no more items than it can name.

A small model that decodes freely writes lists without end, of things that nobody said. What was not said is thrown away
afterwards (`support.py`), so it need not be written in the first place.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from .dates import find_dates, find_times
from .quantities import find_numbers
from .wording import STOP, Token, stem, tokens

WORDS = 8
"""Of one value, at most."""
OPTIONS = 300
"""Of one place, at most: with more the values stay shorter, and with too many one may be anything."""
ITEMS = 12
INVENTED = 40
"""Characters of a text that the message does not say: it will be thrown away, so it need not be long."""
_SCALARS = frozenset({"string", "integer", "number", "null"})
_QUOTED = re.compile(r"[\"“]([^\"“”]{1,200})[\"”]")
_BETWEEN = re.compile(r",|;|\band\b|\bplus\b|\n", re.IGNORECASE)


@dataclass(frozen=True)
class _Said:
    """What a message offers."""

    texts: tuple[str, ...]
    numbers: tuple[float, ...]
    items: int
    wordings: tuple[str, ...]
    """The texts in which no number stands, and the dates."""


def narrowed(schema: Mapping[str, Any], text: str, today: dt.date, about: str = "") -> dict[str, Any]:
    """`schema` with the values that `text` says as the only choices. Where it says none that fit, any value is left.

    Words that are in `about` too (what the tool says of itself) ask for the tool and are no values.
    """
    numbers = find_numbers(text)
    dates = [when.iso for when in [*find_dates(text, today), *find_times(text)]]
    items = min(max(len(numbers), 1 + len(_BETWEEN.findall(text))), ITEMS)
    values = dict.fromkeys(number.value for number in numbers)
    known = {stem(word.text) for word in tokens(about)}
    spans = [one for one in _spans(text) if not known.issuperset(stem(word.text) for word in tokens(one))]
    first = [*dates, *_QUOTED.findall(text)]
    texts = tuple(dict.fromkeys([*first, *spans]))
    wordings = tuple(dict.fromkeys([*first, *(one for one in spans if not find_numbers(one))]))
    found: dict[str, Any] = _narrowed(schema, _Said(texts, tuple(values), items, wordings))
    return found


def _narrowed(schema: Any, said: _Said) -> Any:
    if not isinstance(schema, Mapping):  # true or false
        return schema
    out = dict(schema)
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list):
            out[name] = [_narrowed(one, said) for one in schema[name]]
    if isinstance(properties := schema.get("properties"), Mapping):
        kinds = [one.get("type") for one in properties.values() if isinstance(one, Mapping)]
        # "3 burgers": the number has a place of its own.
        inside = replace(said, texts=said.wordings) if "integer" in kinds or "number" in kinds else said
        out["properties"] = {name: _narrowed(one, inside) for name, one in properties.items()}
    if isinstance(items := schema.get("items"), Mapping):
        out["items"] = _narrowed(items, said)
        out["maxItems"] = max(min(said.items, schema.get("maxItems", ITEMS)), schema.get("minItems", 0))
    if choices := _choices(schema, said):
        out["enum"] = choices
    elif schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern", "format"}:
        out["maxLength"] = min(schema.get("maxLength", INVENTED), max(INVENTED, schema.get("minLength", 0)))
    return out


def _choices(schema: Mapping[str, Any], said: _Said) -> list[Any]:
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not _SCALARS.issuperset(kinds) or schema.keys() & {"enum", "const", "$ref"}:
        return []
    try:
        fits = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).is_valid
        found = [value for value in (*said.texts, *said.numbers) if fits(value)]
    except SchemaError:
        return []
    return [*found, *([None] if "null" in kinds else [])] if found else []


def _spans(text: str) -> list[str]:
    """Runs of up to `WORDS` words between which nothing but a space stands, that neither begin nor end with a word that
    says nothing; fewer words where there would be too many runs."""
    words = tokens(text)
    for most in range(WORDS, 0, -1):
        found = list(dict.fromkeys(_runs(text, words, most)))
        if len(found) <= OPTIONS:
            return found
    return []


def _runs(text: str, words: list[Token], most: int) -> Iterator[str]:
    for first, one in enumerate(words):
        last = one
        for word in words[first : first + most]:
            if not word.word or not one.word or text[last.end : word.start].strip(" "):
                break
            last = word
            if one.low not in STOP and word.low not in STOP:
                yield text[one.start : word.end]
