"""Documents in, passages out. `Library` is the door.

Importing this package imports nothing heavy: the name below is looked up when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .library import Library, LibraryOptions
    from .search import Filters

__all__ = ["Filters", "Library", "LibraryOptions"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
