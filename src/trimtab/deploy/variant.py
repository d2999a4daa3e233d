"""The ways to run one model: which engine, which weights, which precision of its memory, and how it is set."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.domain.errors import InvalidInput

EngineName = Literal["llamacpp", "openvino"]
Weights = Literal["f16", "q8_0", "q5_0", "q4_0", "int8", "int4"]

WEIGHTS: dict[EngineName, tuple[Weights, ...]] = {
    "llamacpp": ("f16", "q8_0", "q5_0", "q4_0"),
    "openvino": ("f16", "int8", "int4"),
}
_STUDENT = r"[a-z0-9][a-z0-9-]{0,50}"
KV: dict[EngineName, tuple[str, ...]] = {"llamacpp": ("f16", "q8_0", "q4_0"), "openvino": ("u8", "f16", "u4")}
"""Precisions of the keys and values that an engine remembers; the first is what it takes unasked."""


@dataclass(frozen=True, order=True)
class Variant:
    """One form of a model."""

    engine: EngineName
    weights: Weights
    kv: str
    student: str = ""
    """The smaller model that it is a form of; empty for the installed model itself."""

    @property
    def name(self) -> str:
        """``llamacpp/q8_0``, with the memory's precision where it is not the engine's own choice; of a student
        ``llamacpp/q8_0@pruned-24-1f3c9a``."""
        plain = self.kv == KV[self.engine][0]
        kv = "" if plain else f"/kv-{self.kv}"
        return f"{self.engine}/{self.weights}{kv}" + (f"@{self.student}" if self.student else "")


REFERENCE = Variant("llamacpp", "f16", "f16")
"""What quality is compared with."""

STANDARD = (
    REFERENCE,
    Variant("llamacpp", "q8_0", "f16"),
    Variant("llamacpp", "q8_0", "q8_0"),
    Variant("llamacpp", "q5_0", "f16"),
    Variant("llamacpp", "q4_0", "f16"),
    Variant("openvino", "f16", "u8"),
    Variant("openvino", "int8", "u8"),
    Variant("openvino", "int8", "f16"),
    Variant("openvino", "int8", "u4"),
    Variant("openvino", "int4", "u8"),
)


def variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        InvalidInput: no engine, weights or precision of that name; lists those there are.
    """
    form, at, student = name.partition("@")
    if at and not re.fullmatch(_STUDENT, student):
        raise InvalidInput(f"{student!r} is no student's name. They are in: trimtab models students")
    engine, _, rest = form.partition("/")
    weights, _, kv = rest.partition("/kv-")
    for known, kinds in WEIGHTS.items():
        if engine == known and weights in kinds and (kv or KV[known][0]) in KV[known]:
            return Variant(known, next(k for k in kinds if k == weights), kv or KV[known][0], student)
    names = ", ".join(one.name for one in STANDARD)
    raise InvalidInput(f"There is no variant {name!r}. Known ones: {names}; of a student with @ and its name.")


def of_student(student: str) -> tuple[Variant, ...]:
    """The forms of a student that are worth measuring unasked: each engine's usual one."""
    return tuple(variant(f"{form}@{student}") for form in ("llamacpp/q8_0", "openvino/int8"))


@dataclass(frozen=True)
class Knobs:
    """How an engine is set."""

    slots: int = 1
    """Questions that are worked on at once."""
    context: int = 2048
    """Tokens of each."""
    threads: int = 1
    batch: int = 256
    """Tokens of a prompt that are read in one go."""


@dataclass(frozen=True)
class Candidate:
    """A variant, set in one way: what is measured and chosen."""

    variant: Variant
    knobs: Knobs

    @property
    def name(self) -> str:
        return f"{self.variant.name} ({self.knobs.threads} threads, {self.knobs.slots} slots, batch {self.knobs.batch})"

    def command(self, *more: str) -> str:
        """What measures it again."""
        words = ["trimtab", "measure", "--again", "--variant", self.variant.name, "--threads", str(self.knobs.threads)]
        words += ["--slots", str(self.knobs.slots), "--context", str(self.knobs.context)]
        return shlex.join([*words, "--batch", str(self.knobs.batch), *more])

    def plain(self) -> dict[str, Any]:
        values = asdict(self)
        if not self.variant.student:
            del values["variant"]["student"]  # what was measured before there were students keeps its key
        return values


def candidate(values: dict[str, Any]) -> Candidate:
    """The inverse of `Candidate.plain`. Raises TypeError or KeyError for other values."""
    return Candidate(Variant(**values["variant"]), Knobs(**values["knobs"]))
