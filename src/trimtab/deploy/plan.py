"""What a deployment must do, as a person writes it: `deployment.toml`, of which every key is checked.

[targets]
first_token_p95 = 2.0
users = 4

[budget]
memory_mb = 2000
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.domain.checking import checked_as
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput

from .variant import Candidate, Variant
from .variant import variant as named

Authentication = Literal["none", "key", "bearer", "basic", "client-credentials", "oauth"]
Face = Literal["web", "api", "mcp", "python", "terminal"]
FILE = "deployment.toml"
SERVED: tuple[Literal["web", "api", "mcp"], ...] = ("web", "api", "mcp")
"""The faces that a server offers; the others open what is installed themselves."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Targets(_Part):
    """How fast it must answer, with all users asking at once."""

    first_token_p95: float = Field(3.0, gt=0, le=3600)
    """Seconds until the first word of an answer, for 95 of 100 questions."""
    tokens_per_second: float = Field(8.0, ge=0, le=100_000)
    """Of each answer. People read about 5 a second."""
    users: int = Field(1, ge=1, le=64)
    """People who ask at the same time."""
    context: int = Field(2048, ge=512, le=131_072)
    """Tokens of conversation, documents and answer together that one question may have."""


class Budget(_Part):
    """What it may use."""

    cores: int = Field(0, ge=0, le=4096)
    """Processor cores; 0 is all there are."""
    memory_mb: int = Field(0, ge=0, le=100_000_000)
    """RAM of the model's engine; 0 is all there is."""
    disk_mb: int = Field(0, ge=0, le=1_000_000_000)
    """Disk for the model's files; 0 is all that is free."""
    accelerator: Literal["none", "required"] = "none"
    """`required`: refuse to start where there is none, instead of running slowly without."""
    money_per_million: float = Field(0.0, ge=0, le=1_000_000)
    """Most that a million tokens of a hosted model may cost; 0: nothing hosted."""


class Remote(_Part):
    """Where the model runs, when that is not here."""

    base_url: str = Field("", max_length=2000, pattern=r"^(https?://\S+)?$")
    """An OpenAI-compatible server (vLLM, Ollama, a hosted one) that knows `model` by that name; empty: this machine.
    Its key has no place here: it is the setting `api_key`."""
    price_per_million: float = Field(0.0, ge=0, le=1_000_000)
    """What a million of its tokens costs."""


class Quality(_Part):
    """How much may be lost for speed or size."""

    largest_loss: float = Field(0.03, ge=0, le=10)
    """By how much the perplexity on a fixed text may rise above that of the unquantized model: 0.03 is 3 %."""
    least_tool_calls: float = Field(0.0, ge=0, le=1)
    """Least share of the fixed questions for tools that must come out right; 0: not asked for."""
    least_cited: float = Field(0.0, ge=0, le=1)
    """Least share of the fixed questions about passages that must be answered rightly, with their source; 0: not asked
    for."""
    least_preferences: float = Field(0.0, ge=0, le=1)
    """Least share of pairs of answers in which it must find the one likelier that people found better; 0: not asked
    for."""
    least_reward: float = Field(-100.0, ge=-100, le=100)
    """Least mean score of its answers by the reward model (0 is the model's average answer); -100: not asked for."""


class Outside(_Part):
    """A connector or an MCP server."""

    name: str = Field(min_length=1, max_length=100)
    authentication: Authentication = "none"
    """How it knows us. The secret itself has no place here: `trimtab connectors auth` keeps it."""


class Resources(_Part):
    """What it reaches."""

    collections: tuple[str, ...] = ()
    """Knowledge collections."""
    connectors: tuple[Outside, ...] = ()
    mcp_servers: tuple[Outside, ...] = ()


class Interface(_Part):
    """How it is used."""

    faces: tuple[Face, ...] = Field(("web", "api"), min_length=1)
    """`web` (the web UI), `api` (OpenAI-compatible), `mcp`, `python` (embedded), `terminal`."""


class Chosen(_Part):
    """What `trimtab plan choose` decided by measurement."""

    engine: Literal["", "llamacpp", "openvino"] = ""
    weights: Literal["", "f16", "q8_0", "q5_0", "q4_0", "int8", "int4"] = ""
    kv: str = Field("", pattern=r"^[a-z0-9_]{0,8}$")
    student: str = Field("", pattern=r"^[a-z0-9-]{0,51}$")
    """The smaller model that is served; empty: the model itself."""
    slots: int = Field(0, ge=0, le=64)
    threads: int = Field(0, ge=0, le=4096)
    batch: int = Field(0, ge=0, le=65_536)

    @property
    def variant(self) -> Variant | None:
        """The chosen variant; None while nothing is chosen.

        Raises:
            InvalidInput: these parts make no variant.
        """
        student = f"@{self.student}" if self.student else ""
        return named(f"{self.engine}/{self.weights}/kv-{self.kv}{student}") if self.engine else None

    @classmethod
    def of(cls, one: Candidate) -> Chosen:
        """A candidate that was measured."""
        variant, knobs = one.variant, one.knobs
        return cls(
            engine=variant.engine,
            weights=variant.weights,
            kv=variant.kv,
            student=variant.student,
            slots=knobs.slots,
            threads=knobs.threads,
            batch=knobs.batch,
        )


class Deployment(_Part):
    model: str = Field("default", min_length=1, max_length=1000)
    """A catalogue name or the path of a .gguf file."""
    remote: Remote = Remote()
    targets: Targets = Targets()
    budget: Budget = Budget()
    quality: Quality = Quality()
    resources: Resources = Resources()
    interface: Interface = Interface()
    chosen: Chosen = Chosen()

    @property
    def digest(self) -> str:
        """A name of exactly this plan."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def checked(values: Any) -> Deployment:
    """A plan from plain values.

    Raises:
        InvalidInput: names each key that is wrong, and what it may be.
    """
    return checked_as(Deployment, values, "plan", told_in="docs/deployment.md")


def read(path: Path) -> Deployment:
    """A plan from a TOML file.

    Raises:
        InvalidInput: it cannot be read, is no TOML, or a key of it is wrong.
    """
    try:
        return checked(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no plan {path}. Make one: trimtab plan ask") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}.") from error


def write(plan: Deployment, path: Path) -> None:
    """Raises InvalidInput when the file cannot be written; the old one is then still whole."""
    try:
        replace_file(path, as_toml(plan))
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be written ({error.strerror}). Choose another place, or free some space."
        ) from error


def as_toml(plan: Deployment) -> str:
    """Every key with what it means above it."""
    import tomlkit

    document = tomlkit.document()
    document.add(
        tomlkit.comment("What `trimtab up --plan` runs. `trimtab plan check` and `trimtab plan choose` read it.")
    )
    document.add("model", tomlkit.item(plan.model))
    for name in type(plan).model_fields:
        part = getattr(plan, name)
        if not isinstance(part, BaseModel) or (name == "chosen" and part == Chosen()):
            continue
        table = tomlkit.table()
        for key, field in type(part).model_fields.items():
            if field.description:
                for line in field.description.splitlines():
                    table.add(tomlkit.comment(line))
            table.add(key, tomlkit.item(_plain(getattr(part, key))))
        document.add(name, table)
    return tomlkit.dumps(document)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value.model_dump() if isinstance(value, BaseModel) else value
