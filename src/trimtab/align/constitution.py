"""A constitution: written principles that a model is criticised, revised and judged by (RLAIF).

It is a YAML file that people edit, so its text is kept as they wrote it, comments and all, and a mistake is reported
with its line. A version is the hash of the text. After Bai et al. 2022 (arXiv:2212.08073), with what a small model
needs on top: two characters to speak as (`good`, `bad`), a yes-or-no question, and template revisions.

    constitution = Constitution.load(DEFAULT)
    constitution["harmless"].text

The text is untrusted: aliases, tags and deep nesting are refused before anything is built from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from trimtab.domain.errors import InvalidInput, NotFound, TooLarge

DEFAULT = Path(__file__).parent / "data" / "constitution.yaml"
FORMS = ("likelihood", "pointwise", "contrast", "choice", "external")
"""How a judge can be asked; `judge.py` says what each is."""
AUTO = "auto"
EXPECTED = ("answer", "decline", "redirect")
START = "{start}"
MOST_BYTES = 256_000
MOST_PRINCIPLES = 64
_DEEPEST = 6
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Principle:
    id: str
    title: str
    text: str
    """What a good answer does, as the model is told."""
    critique: str
    revise: str
    question: str
    """About an answer; yes is good."""
    good: str
    """A system message under which the model speaks as somebody who keeps the principle."""
    bad: str
    """... and as somebody who breaks it."""
    judge: str = AUTO
    """One of `FORMS`, or ``auto``."""
    expected: tuple[str, ...] = EXPECTED
    """The prompts it is sampled for; `for` in the file."""
    evidence: tuple[str, ...] = ()
    """Faults or labels of people's judgements it is measured on."""
    templates: tuple[str, ...] = ()


_KEYS = {"for" if f.name == "expected" else f.name for f in fields(Principle)}
_NEEDED = ("id", "title", "text", "critique", "revise", "question", "good", "bad")
_LISTS = ("for", "evidence", "templates")


@dataclass(frozen=True)
class Constitution:
    name: str
    principles: tuple[Principle, ...]
    text: str = field(repr=False)
    """The YAML as it was written."""

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def __getitem__(self, principle_id: str) -> Principle:
        for principle in self.principles:
            if principle.id == principle_id:
                return principle
        known = ", ".join(principle.id for principle in self.principles)
        raise NotFound(f"The constitution {self.name!r} has no principle {principle_id!r}. It has: {known}.")

    def for_prompt(self, expected: str) -> tuple[Principle, ...]:
        """The principles that are sampled for such a prompt (``answer``, ``decline`` or ``redirect``)."""
        return tuple(principle for principle in self.principles if expected in principle.expected)

    @classmethod
    def load(cls, path: Path = DEFAULT) -> Constitution:
        """Read a file.

        Raises:
            NotFound: there is no such file.
            InvalidInput: it is not a constitution; the message names the line.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise NotFound(
                f"There is no constitution at {path} ({error.strerror}). Give the path of a file."
            ) from error
        return cls.parse(raw, source=path.name)

    @classmethod
    def parse(cls, text: str | bytes, source: str = "constitution") -> Constitution:
        """Read a constitution from YAML text.

        Raises:
            InvalidInput: the message names the line at fault; `detail` has ``line`` (from 1).
            TooLarge: more than `MOST_BYTES`.
        """
        try:
            raw = text.encode() if isinstance(text, str) else text
        except UnicodeEncodeError as error:
            line = error.object.count("\n", 0, error.start) + 1
            raise _fault(source, line, "there is half of a character (a lone surrogate). Remove it") from error
        if len(raw) > MOST_BYTES:
            raise TooLarge(f"{source} has {len(raw)} bytes; a constitution may have {MOST_BYTES}. Shorten it.")
        try:
            decoded = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise _fault(source, line, "this is not UTF-8 text. Save the file as UTF-8") from error
        return _Reader(source).read(decoded)


def _fault(source: str, line: int, what: str) -> InvalidInput:
    return InvalidInput(f"{source}, line {line}: {what}.", line=line)


class _Reader:
    """From YAML nodes, which know their lines, to principles."""

    def __init__(self, source: str) -> None:
        self._source = source

    def read(self, text: str) -> Constitution:
        try:
            self._check_events(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            # What never ends is at fault where it begins; anything else where it was noticed.
            endless = "end" in (error.problem or "") and "stream" in (error.problem or "")
            mark = (error.context_mark if endless else None) or error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise _fault(self._source, line, f"this is not YAML ({error.problem or error.context})") from error
        except yaml.YAMLError as error:
            line = text.count("\n", 0, getattr(error, "position", 0)) + 1
            raise _fault(self._source, line, f"this is not YAML ({getattr(error, 'reason', error)})") from error
        top = self._mapping(root, {"name", "principles"}, "the file")
        if "principles" not in top:
            raise _fault(self._source, 1, "there is no list called principles. Add one")
        return Constitution(
            name=self._text(top["name"], "name") if "name" in top else "constitution",
            principles=self._principles(top["principles"]),
            text=text,
        )

    def _check_events(self, text: str) -> None:
        """Event by event, which needs no recursion: a bomb is refused before it is built."""
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _fault(self._source, line, "anchors and aliases (& and *) are not read here. Write the text out")
            if tag := getattr(event, "tag", None):
                raise _fault(self._source, line, f"the tag {tag} is not read here. Remove it")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise _fault(self._source, line, "this is nested too deeply. A principle has plain fields and lists")

    def _principles(self, node: yaml.Node) -> tuple[Principle, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise _fault(self._source, _line(node), "principles must be a list with at least one principle")
        if len(node.value) > MOST_PRINCIPLES:
            raise _fault(self._source, _line(node), f"there are more than {MOST_PRINCIPLES} principles. Merge some")
        seen: dict[str, int] = {}
        principles = []
        for item in node.value:
            principle = self._principle(item)
            if principle.id in seen:
                where = f"there is already a principle {principle.id!r} in line {seen[principle.id]}"
                raise _fault(self._source, _line(item), f"{where}. Give this one another id")
            seen[principle.id] = _line(item)
            principles.append(principle)
        return tuple(principles)

    def _principle(self, node: yaml.Node) -> Principle:
        found = self._mapping(node, _KEYS, "a principle")
        missing = [key for key in _NEEDED if key not in found]
        if missing:
            raise _fault(self._source, _line(node), f"this principle has no {', '.join(missing)}. Add it")
        values: dict[str, Any] = {
            key: self._list(value, key) if key in _LISTS else self._text(value, key) for key, value in found.items()
        }
        if not _ID.fullmatch(values["id"]):
            raise _fault(self._source, _line(found["id"]), "an id is made of a-z, 0-9 and -, at most 40 of them")
        self._one_of(found, values, "judge", (AUTO, *FORMS))
        self._one_of(found, values, "for", EXPECTED)
        values["expected"] = values.pop("for", EXPECTED)
        return Principle(**values)

    def _one_of(
        self, nodes: Mapping[str, yaml.Node], values: Mapping[str, Any], key: str, known: tuple[str, ...]
    ) -> None:
        chosen = values.get(key, ())
        for value in (chosen,) if isinstance(chosen, str) else chosen:
            if value not in known:
                raise _fault(self._source, _line(nodes[key]), f"{key} is {value!r}; it can be {', '.join(known)}")

    def _mapping(self, node: yaml.Node | None, known: set[str], what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise _fault(self._source, _line(node), f"{what} must be made of fields like `name: value`")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self._text(key, "a field's name")
            if name not in known:
                raise _fault(
                    self._source, _line(key), f"{what} has no field {name!r}. Fields: {', '.join(sorted(known))}"
                )
            if name in found:
                raise _fault(self._source, _line(key), f"{name} is given twice. Keep one")
            found[name] = value
        return found

    def _list(self, node: yaml.Node, key: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise _fault(self._source, _line(node), f"{key} must be a list, such as [one, two]")
        return tuple(self._text(item, f"an item of {key}") for item in node.value)

    def _text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise _fault(self._source, _line(node), f"{key} must be text and not be empty")
        return str(node.value).strip()


def _line(node: yaml.Node | None) -> int:
    return int(node.start_mark.line) + 1 if node is not None else 1
