"""The one sentence that asks for what a call still needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .slots import Slot
from .wording import spaced

_MAX_ABOUT = 80


def question_for(tool: str, missing: Sequence[Slot]) -> str:
    """Ask for `missing` in plain words; the same values are always asked for in the same words.

    "To use weather I need the place (city or place name). What is it?"
    """
    parts = [_named(slot) for slot in missing]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"To use {spaced(tool)} I need {listed}: {'what is it' if len(parts) == 1 else 'what are they'}?"


def _named(slot: Slot) -> str:
    name = spaced(str(slot.schema.get("title") or slot.name))
    outer = " of the ".join(spaced(p) for p in reversed(slot.path[:-1]))
    about = re.split(r"[.;\n]|, (?:for example|e\.g|such as|left out)", str(slot.schema.get("description") or ""))[
        0
    ].strip()
    label = f"the {name}" + (f" of the {outer}" if outer else "")
    if not about or len(about) > _MAX_ABOUT or about.lower() in (name, f"the {name}"):
        return label
    return f"{label} ({about if about[:2].isupper() and about[1:2].isalpha() else about[0].lower() + about[1:]})"
