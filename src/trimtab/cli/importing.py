"""How long a command takes to begin."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for garbage meanwhile: there is none, and looking takes a quarter of a server's imports.

    What is there at the end is never looked at again: modules stay, and each look at all of them would hold up the
    event loop for a tenth of a second and more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
