"""Options that several commands share."""

from __future__ import annotations

ENGINE_HELP = "The local engine: auto, openvino or llamacpp."


def given(**values: str | None) -> dict[str, str]:
    """Those that were given, by name."""
    return {name: value for name, value in values.items() if value}
