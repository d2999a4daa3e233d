"""Plain values from outside, made into something whose every key was checked."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import InvalidInput

M = TypeVar("M", bound=BaseModel)

MOST_TOLD = 5
"""Faults in one message."""


def checked_as(kind: type[M], values: Any, what: str, *, told_in: str = "") -> M:
    """`values` as a `kind`.

    Args:
        what: what a person calls it, such as "recipe".
        told_in: the handbook's page that says what it may hold.

    Raises:
        InvalidInput: names each key that is wrong, and what it may be.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = error.errors()[:MOST_TOLD]
        told = "; ".join(f"{'.'.join(map(str, fault['loc'])) or what}: {fault['msg']}" for fault in faults)
        where = f" See {told_in} for what it may hold." if told_in else ""
        raise InvalidInput(f"This {what} is wrong: {told}.{where}") from error
