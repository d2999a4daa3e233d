"""What somebody thinks of an answer, as a row that training can use.

A row carries what curation needs to decide about it: who said it, whether the text is the model's own, what it had
read. It never carries a person's name: `person` is an opaque id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    LABEL = "label"
    """One completion and a 0 or 1 for one label (``helpful``, ``harmless``, or an operator's own)."""
    PREFERENCE = "preference"
    """Two completions of one prompt, the better one first."""
    DEMONSTRATION = "demonstration"
    """A completion as somebody wants it: an edit, or a revision under a principle."""


class Source(StrEnum):
    PERSON = "person"
    CONSTITUTION = "constitution"
    IMPORT = "import"
    BUNDLED = "bundled"


class Blame(StrEnum):
    """What a bad answer was caused by. Only `MODEL` trains the policy."""

    MODEL = "model"
    RETRIEVAL = "retrieval"
    TOOL = "tool"


@dataclass(frozen=True)
class Said:
    """One message of the prompt, as the model was given it."""

    role: str
    content: str


@dataclass(frozen=True)
class Judgement:
    id: str
    kind: Kind
    prompt: tuple[Said, ...]
    completion: str
    """Label: the judged text. Preference: the better one. Demonstration: the wanted one."""
    rejected: str = ""
    """Preference: the worse one."""
    value: int | None = None
    """Label: 0 or 1."""
    label: str = "helpful"
    source: Source = Source.PERSON
    person: str = ""
    """Opaque id of who judged; for a constitution the principle's id."""
    version: str = ""
    """Which version of the model wrote it."""
    at: float = 0.0
    """Unix seconds."""
    consent: bool = True
    ours: bool = True
    """The text is what our model generated, unchanged: its digest is the stored generation's."""
    tainted: bool = False
    """The turn had read content from outside before it wrote this."""
    reviewed: bool = False
    """A person looked at a tainted row and let it in."""
    blame: Blame = Blame.MODEL
    weight: float = 1.0
    about: Mapping[str, str] = field(default_factory=dict)
    """Where it came from: message, thread, file, line."""
