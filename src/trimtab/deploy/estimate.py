"""What a variant will take, from a model's metadata alone: disk to the byte nearly, memory from what was measured.

The parts of memory are the weights, the keys and values of every slot, those of questions that were answered, the
largest step of computation, and the engine itself. How often an engine holds its weights, and what a step and the
engine take, are constants fitted to peak memory on x86-64 (the table in docs/deployment.md): llama.cpp sets all slots
aside when it starts, and keeps 4-bit weights a second time in another order; OpenVINO takes its
weights twice (16-bit ones three times), and touches keys and values only when they are used. Without AVX-512 it takes
16-bit weights four times, and others three times once more than four questions are computed together.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.domain.errors import ImpossibleBudget

from .machine import Machine, has_avx512
from .plan import Deployment
from .variant import Candidate, Variant

_BLOCK = 32
_BLOCK_BYTES = {"f32": 128, "f16": 64, "q8_0": 34, "q5_0": 22, "q4_0": 18, "int8": 34, "int4": 20}
"""Bytes of 32 numbers with their scale."""
_KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32, "u8": 1.1875, "u4": 0.6875}
"""Bytes of one remembered number, its share of a scale and a zero point included."""
MB = 1_000_000
TOGETHER = 4
"""Questions computed at once, above which OpenVINO keeps weights in one more order on processors without AVX-512."""
CACHE = 256 * (1 << 20)
"""Most that an engine keeps of questions which were answered (`EngineOptions.cache_mib`)."""


@dataclass(frozen=True)
class ModelFacts:
    """Of a model, from its file's header."""

    name: str
    sha256: str
    layers: int
    hidden: int
    inner: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int
    matrix_numbers: int
    """In matrices that are quantized, the table of words not counted."""
    table_numbers: int
    """In the table of words, and in the output matrix where it is another."""
    vector_bytes: int
    """Norms and biases, kept as they are."""
    header_bytes: int
    """Vocabulary, template and names in the file."""

    @property
    def numbers(self) -> int:
        return self.matrix_numbers + self.table_numbers


@dataclass(frozen=True)
class Estimate:
    """Bytes, and what they are made of."""

    disk: int
    memory: int
    basis: str


@dataclass(frozen=True)
class Asked:
    """What an engine was asked since it started."""

    questions: int
    tokens: int
    """Of all questions and answers."""


def estimate(
    facts: ModelFacts, candidate: Candidate, asked: Asked | None = None, *, avx512: bool | None = None
) -> Estimate:
    """Without loading anything.

    Args:
        asked: what the engine may remember; None: as much as it has room for, as after a day of use.
        avx512: whether the processor has it; None: as this one.
    """
    if candidate.variant.engine == "llamacpp":
        return _llamacpp(facts, candidate, asked)
    return _openvino(facts, candidate, asked, has_avx512() if avx512 is None else avx512)


def _weights(facts: ModelFacts, variant: Variant) -> int:
    table = "int8" if variant.weights == "int4" else variant.weights  # as the converter does
    blocks = facts.matrix_numbers * _BLOCK_BYTES[variant.weights] + facts.table_numbers * _BLOCK_BYTES[table]
    return round(blocks / _BLOCK)


def _token(facts: ModelFacts, variant: Variant) -> float:
    """Bytes of keys and values for a token."""
    return 2 * facts.layers * facts.kv_heads * facts.head * _KV_BYTES[variant.kv]


def _kv(facts: ModelFacts, candidate: Candidate) -> int:
    tokens = candidate.knobs.slots * min(candidate.knobs.context, facts.context or candidate.knobs.context)
    return round(tokens * _token(facts, candidate.variant))


def _llamacpp(facts: ModelFacts, candidate: Candidate, asked: Asked | None) -> Estimate:
    weights = _weights(facts, candidate.variant)
    room = CACHE
    if asked is not None:  # the last question of each slot is still in it
        left = max(0.0, 1 - candidate.knobs.slots / asked.questions) if asked.questions else 0.0
        room = min(CACHE, round(asked.tokens * left * _token(facts, candidate.variant)))
    step = candidate.knobs.batch * 16 * facts.inner
    engine = 60 * MB + 2 * facts.header_bytes
    disk = facts.header_bytes + facts.vector_bytes + weights
    held = weights * (2 if candidate.variant.weights == "q4_0" else 1)
    return _told(disk, held, _kv(facts, candidate), room, step, engine)


def _openvino(facts: ModelFacts, candidate: Candidate, asked: Asked | None, avx512: bool) -> Estimate:
    weights = _weights(facts, candidate.variant)
    angles = facts.context * facts.head * 4
    beside = facts.layers * 75_000 + facts.vocabulary * 125
    kv, room = _kv(facts, candidate), CACHE
    if asked is not None:
        used = round(asked.tokens * _token(facts, candidate.variant))
        kv, room = min(kv, used), min(CACHE, max(0, used - kv))
    step = candidate.knobs.batch * 50 * facts.inner
    engine = 300 * MB
    if candidate.variant.weights == "f16":
        held = weights * (3 if avx512 else 4)
    else:
        held = weights * (2 if avx512 or candidate.knobs.slots <= TOGETHER else 3)
    return _told(weights + angles + facts.vector_bytes + beside, held, kv, room, step, engine)


def _told(disk: int, weights: int, kv: int, room: int, step: int, engine: int) -> Estimate:
    parts = {"weights": weights, "context": kv, "earlier questions": room, "computing": step, "engine": engine}
    words = ", ".join(f"{name} {size / MB:.0f}" for name, size in parts.items())
    return Estimate(disk, sum(parts.values()), f"{words} MB")


@dataclass(frozen=True)
class Fit:
    """Whether a candidate is within a budget."""

    candidate: Candidate
    memory: int
    disk: int
    basis: str
    """What the numbers come from."""
    obstacles: tuple[str, ...]
    """In words; none when it fits."""


def fit(plan: Deployment, machine: Machine, candidate: Candidate, memory: int, disk: int, basis: str) -> Fit:
    """Compare what a candidate takes with what there is and what was allowed."""
    found = []
    memory_limit = _limit(plan.budget.memory_mb * MB, machine.memory or 1 << 62)
    disk_limit = _limit(plan.budget.disk_mb * MB, machine.disk)
    if memory > memory_limit:
        found.append(f"needs {memory / MB:.0f} MB of memory, {(memory - memory_limit) / MB:.0f} MB too much")
    if disk > disk_limit:
        found.append(f"needs {disk / MB:.0f} MB of disk, {(disk - disk_limit) / MB:.0f} MB too much")
    return Fit(candidate, memory, disk, basis, tuple(found))


def _limit(allowed: int, there: int) -> int:
    return min(allowed, there) if allowed else there


def refuse_impossible(plan: Deployment, machine: Machine, facts: ModelFacts, fits: list[Fit]) -> None:
    """Raises ImpossibleBudget when the plan cannot be had here, whatever is chosen."""
    if plan.budget.cores > machine.cores:
        raise ImpossibleBudget(
            f"The plan wants {plan.budget.cores} cores and this machine lends {machine.cores}. "
            "Set budget.cores to that, or to 0 for all.",
            wanted=plan.budget.cores,
            there=machine.cores,
        )
    if plan.budget.accelerator == "required" and not machine.accelerators:
        raise ImpossibleBudget(
            "The plan requires an accelerator and there is none on this machine. Set budget.accelerator to none, or "
            "run it where there is one.",
        )
    if facts.context and plan.targets.context > facts.context:
        raise ImpossibleBudget(
            f"The plan wants {plan.targets.context} tokens of context and {facts.name} was trained for "
            f"{facts.context}. Set targets.context to that, or choose another model.",
            wanted=plan.targets.context,
            there=facts.context,
        )
    if fits and all(one.obstacles for one in fits):
        least = min(fits, key=lambda one: one.memory)
        raise ImpossibleBudget(
            f"No variant of {facts.name} fits the budget. The smallest, {least.candidate.variant.name}, "
            f"{' and '.join(least.obstacles)}. Allow more, ask for fewer users or a shorter context, or choose a "
            "smaller model.",
            smallest=least.candidate.variant.name,
            memory_mb=round(least.memory / MB),
            disk_mb=round(least.disk / MB),
        )
