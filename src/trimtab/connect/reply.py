"""A finished response, and what a request for one may cost."""

from __future__ import annotations

import json as jsonlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from trimtab.domain.errors import ToolError

Shape = TypeVar("Shape")
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)", re.I)


@dataclass(frozen=True)
class Limits:
    """What one HTTP request may cost. Seconds and bytes; `total` covers look-up, retries and redirects too."""

    connect: float = 3.0
    read: float = 10.0
    total: float = 15.0
    max_bytes: int = 2_000_000
    """Counted after decompression."""
    redirects: int = 3
    concurrent: int = 10
    """Calls of the connector at once. Another one waits, at most `patience` seconds."""
    patience: float = 2.0


@dataclass(frozen=True)
class Reply:
    """A finished response."""

    status: int
    url: str
    """Without the key, where that goes into the query."""
    headers: Mapping[str, str]
    """Lower-case names."""
    content: bytes
    at: float = field(default_factory=time.time, compare=False)
    """When the service said so, Unix seconds: earlier than now for one from the cache."""
    from_cache: bool = False
    stale: bool = False
    """Older than it should be, because the service could not be asked."""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """As declared; empty when nothing is."""
        named = _CHARSET.search(self.headers.get("content-type", ""))
        return named[1] if named else ""

    @property
    def text(self) -> str:
        """Decoded by the declared charset, else UTF-8; undecodable bytes are replaced."""
        try:
            return self.content.decode(self.charset or "utf-8", errors="replace")
        except LookupError:
            return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ToolError: it is not JSON, or too deeply nested to read.
        """
        try:
            return jsonlib.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise ToolError(
                f"{httpx.URL(self.url).host} answered with something that is not JSON.", reason="malformed"
            ) from error

    def into(self, shape: type[Shape]) -> Shape:
        """The body as JSON, checked to be a pydantic model, dataclass or other type.

        Raises:
            ToolError: it is not JSON, or not of that shape.
        """
        try:
            return TypeAdapter(shape).validate_python(self.json())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            raise ToolError(
                f"{httpx.URL(self.url).host} answered in a shape that is not understood ({where}: {first['msg']}). "
                "The service may have changed.",
                reason="malformed",
            ) from None
