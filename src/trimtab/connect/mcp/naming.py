"""What a server's tools are called here: in our alphabet, short enough, and never two the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

LONGEST = 31


def names(tools: Iterable[str], taken: Mapping[str, str]) -> dict[str, str]:
    """Our name for each of a server's tools. `taken` are the names that some of them have already, and keep."""
    found = {tool: taken[tool] for tool in tools if tool in taken}
    for tool in sorted(set(tools) - found.keys()):
        name = plain(tool)
        if name in found.values():
            name = f"{name[: LONGEST - 7]}_{_mark(tool)}"
        found[tool] = name
    return found


def plain(tool: str) -> str:
    """``readTextFile`` and ``read-text-file`` become ``read_text_file``."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", tool)
    name = re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")
    if not name or not name[0].isalpha():
        name = f"tool_{name}".rstrip("_")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 7].rstrip('_')}_{_mark(tool)}"


def _mark(tool: str) -> str:
    return hashlib.sha256(tool.encode()).hexdigest()[:6]
