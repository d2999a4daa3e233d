"""Feedback in the formats others use: read from a file line by line, and written.

| name | a line |
|---|---|
| ``trl-preference`` | ``{"prompt", "chosen", "rejected"}`` |
| ``trl-label`` | ``{"prompt", "completion", "label"}``, ``label`` true or false |
| ``trl-demonstration`` | ``{"prompt", "completion"}`` |
| ``hh`` | ``{"chosen", "rejected"}``, each a whole transcript: ``"\\n\\nHuman: …\\n\\nAssistant: …"`` |

The first three are TRL's columns (huggingface.co/docs/trl/dataset_formats), the last is that of Anthropic's HH-RLHF.
`prompt` is text or a list of ``{"role", "content"}``; the answers are text or a list with one assistant message. A
preference may leave `prompt` out when `chosen` and `rejected` are lists of messages with a common beginning. What TRL
has no column for is read and written beside it: `label_name` (default ``helpful``).

A line that cannot be read is reported with its number and the reason; the others load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said, Source

from .rows import messages

FORMATS = ("trl-preference", "trl-label", "trl-demonstration", "hh")
LONGEST_LINE = 2_000_000
ROLES = ("system", "user", "assistant", "tool")
_SPEAKER = re.compile(r"\n\n(Human|Assistant):(?: |$|(?=\n))")


@dataclass(frozen=True)
class Bad:
    """A line that was not read (`line` counts from 1), or a row that was not written (`line` is 0, `row` its id)."""

    line: int
    reason: str
    row: str = ""


# ---------------------------------------------------------------------- reading


def read(
    lines: Iterable[str], file: str = "", *, label: str = "helpful", source: Source = Source.IMPORT
) -> Iterator[Judgement | Bad]:
    """Judgements from JSONL, in whichever of the formats each line is; in the file's order.

    Args:
        file: what to call the file in `about`.
        label: of a 0/1 label that does not name its own.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(line, file, number, label, source)
        except InvalidInput as error:
            yield Bad(number, error.message)


def _row(line: str, file: str, number: int, label: str, source: Source) -> Judgement:
    given = _object(line)
    columns = set(given)
    if {"prompt", "completion"} <= columns:
        fields = _of_completion(given, label)
    elif {"chosen", "rejected"} <= columns:
        fields = _of_pair(given)
    else:
        raise InvalidInput(
            "it has neither chosen and rejected nor prompt and completion; its columns are "
            + (", ".join(sorted(map(str, columns)))[:200] or "none")
        )
    about = {"file": file, "line": str(number), "imported": source.value, "origin": source.value}
    return Judgement(id=f"{file}:{number}", source=source, ours=False, about=about, **fields)


def _object(line: str) -> Mapping[str, Any]:
    if len(line) > LONGEST_LINE:
        raise InvalidInput(f"it has {len(line)} characters; the most is {LONGEST_LINE}")
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"it is not JSON: {str(error)[:200]}") from None
    if not isinstance(given, dict):
        raise InvalidInput("it is JSON, but no object")
    return given


def _of_completion(given: Mapping[str, Any], label: str) -> dict[str, Any]:
    fields = {"prompt": _prompt(given["prompt"]), "completion": _answer(given["completion"], "completion")}
    value = given.get("label")
    if value is None:
        return {**fields, "kind": Kind.DEMONSTRATION}
    if value not in (0, 1):  # True and False are, too
        raise InvalidInput(f"label is {str(value)[:40]!r}; it has to be true or false")
    name = given.get("label_name", label)
    if not isinstance(name, str) or not 0 < len(name) <= 40:
        raise InvalidInput("label_name has to be a name of at most 40 characters")
    return {**fields, "kind": Kind.LABEL, "value": int(value), "label": name}


def _of_pair(given: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = given["chosen"], given["rejected"]
    if "prompt" in given:
        prompt = _prompt(given["prompt"])
        better, worse = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    else:
        one = _talk(chosen) if isinstance(chosen, str) else _said(chosen, "chosen")
        other = _talk(rejected) if isinstance(rejected, str) else _said(rejected, "rejected")
        prompt, better, worse = _apart(one, other)
    if better == worse:
        raise InvalidInput("chosen and rejected are the same")
    return {"kind": Kind.PREFERENCE, "prompt": prompt, "completion": better, "rejected": worse}


def _prompt(value: Any) -> tuple[Said, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise InvalidInput("the prompt is empty")
        return (Said("user", value),)
    said = _said(value, "prompt")
    if said[-1].role not in ("user", "tool"):
        raise InvalidInput("the prompt ends with an answer; its last message has to be the person's")
    return said


def _said(value: Any, name: str) -> tuple[Said, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{name} has to be text or a list of messages")
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InvalidInput(f"a message of {name} has no role that is one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise InvalidInput(f"a message of {name} has no text as its content")
    return tuple(Said(message["role"], message["content"]) for message in value)


def _answer(value: Any, name: str) -> str:
    if isinstance(value, str):
        text = value
    else:
        said = _said(value, name)
        if len(said) != 1 or said[0].role != "assistant":
            raise InvalidInput(f"{name} has to be text or one assistant message")
        text = said[0].content
    if not text.strip():
        raise InvalidInput(f"{name} is empty")
    return text


def _apart(one: Sequence[Said], other: Sequence[Said]) -> tuple[tuple[Said, ...], str, str]:
    """The common beginning and the two last answers."""
    if list(one[:-1]) != list(other[:-1]):
        raise InvalidInput("chosen and rejected differ before the last answer")
    if one[-1].role != "assistant" or other[-1].role != "assistant" or len(one) < 2:
        raise InvalidInput("chosen and rejected have to be a question and end with an answer")
    if not one[-1].content.strip() or not other[-1].content.strip():
        raise InvalidInput("an answer is empty")
    return tuple(one[:-1]), one[-1].content, other[-1].content


def _talk(text: str) -> tuple[Said, ...]:
    """An HH transcript."""
    parts = _SPEAKER.split(text)
    if parts[0].strip() or len(parts) < 3:
        raise InvalidInput(r"it is no transcript that begins with \n\nHuman:")
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Said(roles[who], what) for who, what in zip(parts[1::2], parts[2::2], strict=True))


# ---------------------------------------------------------------------- writing


def write(rows: Iterable[Judgement], form: str) -> Iterator[str | Bad]:
    """Lines (without line ends) of the rows that `form` has room for; rows of another kind are passed over, those
    that it cannot express are reported.

    Raises:
        InvalidInput: there is no such format.
    """
    if form not in FORMATS:
        raise InvalidInput(f"There is no format {form!r}. Choose one of {', '.join(FORMATS)}.")
    kind, columns = _WRITERS[form]
    for row in rows:
        if row.kind is not kind:
            continue
        try:
            yield json.dumps(columns(row), ensure_ascii=False)
        except InvalidInput as error:
            yield Bad(0, error.message, row.id)


def _preference(row: Judgement) -> dict[str, Any]:
    return {"prompt": messages(row.prompt), "chosen": _one(row.completion), "rejected": _one(row.rejected)}


def _label(row: Judgement) -> dict[str, Any]:
    columns = {"prompt": messages(row.prompt), "completion": _one(row.completion), "label": bool(row.value)}
    return {**columns, "label_name": row.label}


def _demonstration(row: Judgement) -> dict[str, Any]:
    return {"prompt": messages(row.prompt), "completion": _one(row.completion)}


def _one(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _hh(row: Judgement) -> dict[str, Any]:
    return {
        "chosen": _transcript((*row.prompt, Said("assistant", row.completion))),
        "rejected": _transcript((*row.prompt, Said("assistant", row.rejected))),
    }


def _transcript(said: Sequence[Said]) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    if strange := {one.role for one in said} - set(names):
        raise InvalidInput(f"a transcript has no {' or '.join(sorted(strange))}")
    text = "".join(f"\n\n{names[one.role]}: {one.content}" for one in said)
    if _talk(text) != tuple(said):
        raise InvalidInput("it contains what would read as another speaker")
    return text


_WRITERS: Mapping[str, tuple[Kind, Callable[[Judgement], dict[str, Any]]]] = {
    "trl-preference": (Kind.PREFERENCE, _preference),
    "trl-label": (Kind.LABEL, _label),
    "trl-demonstration": (Kind.DEMONSTRATION, _demonstration),
    "hh": (Kind.PREFERENCE, _hh),
}
