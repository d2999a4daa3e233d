"""The classroom needs torch and gymnasium, which come with an extra; here is what a person without it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from trimtab.domain.errors import MissingExtra

NEEDED = ("torch", "gymnasium", "safetensors", "numpy")


def ensure() -> None:
    """Look whether it is there, without importing it.

    Raises:
        MissingExtra
    """
    if any(find_spec(name) is None for name in NEEDED):
        raise MissingExtra("The classroom", "align")


@contextmanager
def needed() -> Iterator[None]:
    """An import that fails inside is a `MissingExtra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        raise MissingExtra("The classroom", "align") from None
