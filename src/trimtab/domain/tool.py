"""What a tool is, as far as the rest of Trimtab is concerned.

Tools themselves are LangChain tools. What LangChain has no field for (who declared it, what it may do to the world,
whether its results can be trusted) is a `ToolInfo`, kept in the tool's `metadata` under `METADATA_KEY`. A LangChain
tool without one is treated as the worst case: it writes, and what it returns is untrusted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

METADATA_KEY = "trimtab"


class Effect(StrEnum):
    """What a call does to the world. Only `READ` runs without asking a person."""

    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


@dataclass(frozen=True)
class Source:
    """Where a piece of outside data came from, so that an answer can cite it."""

    title: str
    url: str = ""
    retrieved_at: str = ""
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class ToolInfo:
    """A tool's declaration. `name` is what the model sees and is unique among installed tools."""

    name: str
    description: str
    connector: str
    connector_version: str = "0"
    effect: Effect = Effect.READ
    untrusted: bool = True
    """Whether results carry text from outside (a web page, an API). A local calculation does not."""
    examples: tuple[str, ...] = ()
    """Questions a person would ask that this tool answers; the router learns from them."""
    timeout: float = 20.0
    """Seconds for a whole call, retries included."""


@dataclass(frozen=True)
class ToolOutcome:
    """What a call returned: the artifact of LangChain's `content_and_artifact` response format."""

    text: str
    """Written for a model to read."""
    data: Any = None
    """The same as JSON, for a face to draw."""
    sources: tuple[Source, ...] = ()
    answer: str = ""
    """The result as one plain sentence a person could be told, where the tool can write it itself. A model too
    small to phrase it says this instead."""
    truncated: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


class RunDirectly(ABC):
    """A tool that can be run without LangChain's callbacks hearing of it."""

    @abstractmethod
    async def outcome(self, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Check the arguments and run. Raises what `ainvoke` would."""


CALL_ID: ContextVar[str] = ContextVar("trimtab_call_id", default="")
"""Which call of a conversation is being run, where one is. A service that is asked to write is told a key made of it,
so that a call that is run again after a crash is recognised there."""
