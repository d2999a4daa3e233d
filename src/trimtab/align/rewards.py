"""Rewards: plain callables that say how good completions are, added up with weights.

A reward is ``reward(prompts, completions, context) -> list[float]``, one number for each completion. `prompts` are
conversations, `completions` texts as a person reads them; `context[i]` is what else is known of row i: the caller's
own columns, and `rollout`, the tokens behind the text, where there is one. A person's own function is named by
its dotted path. ::

    Weighted([Part("kind", 1.0, reward_model.reward), Part("short", 0.2, length(limit=60))])
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

Prompt = Sequence[Said]
Context = Sequence[Mapping[str, Any]]
Reward = Callable[[Sequence[Prompt], Sequence[str], Context], list[float]]


@dataclass(frozen=True)
class Part:
    name: str
    weight: float
    reward: Reward


@dataclass(frozen=True)
class Scored:
    """What a batch earned: the weighted sum a row, and each part's own numbers before its weight."""

    totals: list[float]
    parts: dict[str, list[float]]

    def means(self) -> dict[str, float]:
        return {name: sum(values) / max(len(values), 1) for name, values in self.parts.items()}


class Weighted:
    """The weighted sum of some rewards.

    Raises:
        InvalidInput: there is none, or two have one name; or, when called, one returned something else than a
            finite number for each completion.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts or len({part.name for part in parts}) != len(parts):
            raise InvalidInput("A reward needs at least one part, and each part a name of its own.")
        self.parts = tuple(parts)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str], context: Context) -> Scored:
        found: dict[str, list[float]] = {}
        for part in self.parts:
            values = [float(value) for value in part.reward(prompts, completions, context)]
            if len(values) != len(completions) or not all(map(math.isfinite, values)):
                raise InvalidInput(
                    f"The reward {part.name!r} must return one finite number for each "
                    f"of {len(completions)} completions."
                )
            found[part.name] = values
        totals = [sum(part.weight * found[part.name][row] for part in self.parts) for row in range(len(completions))]
        return Scored(totals, found)


def length(*, limit: int, unit: int = 20) -> Reward:
    """0 up to `limit` words, then -1 for each further `unit` words."""

    def reward(prompts: Sequence[Prompt], completions: Sequence[str], context: Context) -> list[float]:
        return [-max(0, len(text.split()) - limit) / unit for text in completions]

    return reward


def matches(pattern: str) -> Reward:
    """1 where the whole text matches a regular expression, else 0."""
    compiled = re.compile(pattern, re.DOTALL)

    def reward(prompts: Sequence[Prompt], completions: Sequence[str], context: Context) -> list[float]:
        return [float(compiled.fullmatch(text.strip()) is not None) for text in completions]

    return reward


def valid_json(schema: Mapping[str, Any] | None = None) -> Reward:
    """1 for JSON that fits the schema, 0.5 for JSON that does not, 0 for anything else."""
    check = jsonschema.Draft202012Validator(schema or {})

    def reward(prompts: Sequence[Prompt], completions: Sequence[str], context: Context) -> list[float]:
        return [_json_score(text, check) for text in completions]

    return reward


def _json_score(text: str, check: jsonschema.Draft202012Validator) -> float:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0 if check.is_valid(value) else 0.5


def tool_call() -> Reward:
    """How right a tool call is: 0 no JSON object, 0.3 fits no schema, 0.6 fits, 1 and each value stands in the prompt.

    A completion is the arguments as JSON; `context[i]["schema"]` is their JSON schema. A value is grounded when its
    words and numbers occur in the conversation: an argument that nobody said was invented. Values of an enum or a
    boolean are the schema's own words and need no ground. With `context[i]["arguments"]`, the right arguments, 1 is
    for these exactly and 0.8 for others that are grounded.
    """

    def reward(prompts: Sequence[Prompt], completions: Sequence[str], context: Context) -> list[float]:
        return [_call_score(p, c, k) for p, c, k in zip(prompts, completions, context, strict=True)]

    return reward


def _call_score(prompt: Prompt, text: str, context: Mapping[str, Any]) -> float:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(arguments, dict):
        return 0.0
    schema = context.get("schema", {})
    if not jsonschema.Draft202012Validator(schema).is_valid(arguments):
        return 0.3
    said = _words(" ".join(part.content for part in prompt if part.role != "system"))
    free = {name for name, rule in schema.get("properties", {}).items() if "enum" in rule or "const" in rule}
    if not all(name in free or _grounded(value, said) for name, value in arguments.items()):
        return 0.6
    right = context.get("arguments")
    return 1.0 if right is None or right == arguments else 0.8


def _grounded(value: Any, said: set[str]) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, dict):
        return all(_grounded(inner, said) for inner in value.values())
    if isinstance(value, list):
        return all(_grounded(inner, said) for inner in value)
    return _words(str(value)) <= said


def _words(text: str) -> set[str]:
    """Words and numbers, with their sign; 3.0 is 3."""
    found = re.findall(r"-?\d+(?:\.\d+)?|[^\W\d_]+", text.casefold())
    return {f"{float(word):g}" if word[-1].isdigit() else word for word in found}


def named(path: str) -> Reward:
    """A person's own function by its dotted path: ``"my_package.my_rewards:politeness"``.

    It runs with this process's rights: only whoever may install code should be able to name one.

    Raises:
        InvalidInput: there is no such callable.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"There is no reward {path!r} ({error}). Write it as package.module:function.") from error
    if not callable(function):
        raise InvalidInput(f"{path!r} is not a function.")
    return function  # type: ignore[no-any-return]
