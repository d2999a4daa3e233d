"""What to train and how, as a person writes it: a TOML file whose every key is checked.

name = "kinder"
method = "ppo"

[data]
bundled = true
feedback = false

[policy]
steps = 20
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trimtab.domain.checking import checked_as
from trimtab.domain.errors import InvalidInput

Method = Literal["ppo", "grpo", "rloo", "dpo", "kto", "sft"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Data(_Part):
    """Whose judgement it learns from."""

    bundled: bool = True
    """The data set that comes with Trimtab."""
    feedback: bool = False
    """What people said here, after curation."""
    constitution: bool = False
    """The model's own judgement under the principles (RLAIF)."""
    principles: tuple[str, ...] = ()
    """Of the constitution only these; none named is all."""
    judge_pairs: int = Field(28, ge=4, le=1000)
    """People's pairs that each principle's judge is measured on."""
    labels_only: bool = False
    """Of all that only the 0/1 labels."""
    human_weight: float = Field(1.0, ge=0.0, le=100.0)
    ai_weight: float = Field(1.0, ge=0.0, le=100.0)
    prompts: int = Field(0, ge=0, le=100_000)
    """At most so many training prompts; 0 is all."""


class Stronger(_Part):
    """A stronger model, anywhere that speaks OpenAI's protocol, that judges and revises beside the one that learns."""

    base_url: str = Field("", max_length=2000)
    """Up to and including ``/v1``; empty for none."""
    model: str = Field("", max_length=200)
    """What that server calls it."""
    key_variable: str = Field("", pattern=r"^(TRIMTAB_JUDGE_KEY(_[A-Z0-9_]{1,60})?)?$")
    """The environment variable that holds its key: TRIMTAB_JUDGE_KEY, or that with an ending. A recipe is kept and
    shown, so the key itself has no place in it; and no other variable can be sent to an address that a recipe names."""
    at_once: int = Field(4, ge=1, le=64)
    """Questions that are asked at the same time."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("it begins with http:// or https:// and names a server")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("it holds an address only; name the key's variable in key_variable")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if bool(self.base_url) != bool(self.model):
            raise ValueError("base_url and model go together")
        return self


class Revision(_Part):
    """Answers that are criticised and written again under the constitution, and learnt before anything is judged."""

    prompts: int = Field(40, ge=0, le=10_000)
    """Answers to revise; 0 leaves this out."""
    harmful: float = Field(0.5, ge=0.0, le=1.0)
    """Share of them that answer the harmful requests which come with Trimtab."""
    own: int = Field(6, ge=0, le=10_000)
    """At most so many of them the model tries to revise itself; a small one rarely can, and trying takes longest."""
    epochs: int = Field(2, ge=1, le=20)
    learning_rate: float = Field(5e-4, gt=0.0, le=0.1)


class Reward(_Part):
    """The reward model."""

    batch: int = Field(16, ge=1, le=256)
    """Judgements that are read at a time."""
    rows: int = Field(0, ge=0, le=1_000_000)
    """At most so many judgements to train on; 0 is all."""


class Policy(_Part):
    """The model that learns."""

    steps: int = Field(30, ge=1, le=10_000)
    rollouts: int = Field(32, ge=2, le=1024)
    """Completions a step."""
    max_tokens: int = Field(48, ge=4, le=1024)
    learning_rate: float = Field(5e-4, gt=0.0, le=0.1)
    kl_target: float = Field(4.0, gt=0.0, le=100.0)
    """Nats a completion may be away from the reference, on the way."""
    kl_cap: float = Field(12.0, gt=0.0, le=200.0)
    rank: int = Field(16, ge=1, le=128)
    trunk_layers: int = Field(20, ge=0, le=200)
    """Layers, from below, that are not trained and are read once."""


class Rewards(_Part):
    """Weights of what adds up to the reward."""

    reward_model: float = Field(1.0, ge=0.0, le=100.0)
    length: float = Field(0.0, ge=0.0, le=100.0)
    """Against answers of more than `length_limit` words."""
    length_limit: int = Field(60, ge=1, le=10_000)
    functions: dict[str, float] = {}
    """A person's own: dotted path to weight."""


class Gate(_Part):
    test_prompts: int = Field(60, ge=2, le=10_000)
    """Held-out prompts on which old and new are compared."""
    test_rows: int = Field(160, ge=10, le=100_000)
    """Held-out judgements that the reward model is tested on."""
    parity_prompts: int = Field(50, ge=1, le=1000)
    probes: bool = True
    """Safety, look-alikes and sycophancy; false leaves out tool calls and cited answers as well."""
    probe_questions: int = Field(0, ge=0, le=1000)
    """Questions of each of those sets; 0 is all."""
    tool_questions: int = Field(24, ge=0, le=1000)
    """Questions for tools that the served versions are asked; 0 is none."""
    cited_questions: int = Field(30, ge=0, le=1000)
    """Questions about passages that the served versions are asked; 0 is none."""


class Recipe(_Part):
    name: str = Field("aligned", min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    method: Method = "ppo"
    seed: int = Field(0, ge=0, lt=2**31)
    data: Data = Data()
    stronger: Stronger = Stronger()
    revision: Revision = Revision()
    reward: Reward = Reward()
    policy: Policy = Policy()
    rewards: Rewards = Rewards()
    gate: Gate = Gate()


def checked(values: Any) -> Recipe:
    """A recipe from plain values.

    Raises:
        InvalidInput: names each key that is wrong, and what it may be.
    """
    return checked_as(Recipe, values, "recipe", told_in="docs/alignment.md")


def read(path: Path) -> Recipe:
    """A recipe from a TOML file.

    Raises:
        InvalidInput: it cannot be read, is no TOML, or a key of it is wrong.
    """
    try:
        return checked(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}.") from error
