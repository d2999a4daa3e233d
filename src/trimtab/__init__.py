"""Trimtab: chat with tools and documents around a model that your feedback steers.

    from trimtab import Trimtab

The names here are the public ones; they are loaded when first used, so importing `trimtab` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.app import Ask, Trimtab
    from trimtab.connect import ApiKey, Connector, Effect, Http, Result, Source, ToolError
    from trimtab.domain.errors import TrimtabError
    from trimtab.domain.passage import Citation, Passage
    from trimtab.llm.scripted import ScriptedModel
    from trimtab.settings import Settings

__version__ = "0.1.0"

_WHERE = {
    "Ask": "trimtab.app",
    "Trimtab": "trimtab.app",
    "ApiKey": "trimtab.connect",
    "Connector": "trimtab.connect",
    "Effect": "trimtab.connect",
    "Http": "trimtab.connect",
    "Result": "trimtab.connect",
    "Source": "trimtab.connect",
    "ToolError": "trimtab.connect",
    "TrimtabError": "trimtab.domain.errors",
    "Citation": "trimtab.domain.passage",
    "Passage": "trimtab.domain.passage",
    "ScriptedModel": "trimtab.llm.scripted",
    "Settings": "trimtab.settings",
}

__all__ = [
    "ApiKey",
    "Ask",
    "Citation",
    "Connector",
    "Effect",
    "Http",
    "Passage",
    "Result",
    "ScriptedModel",
    "Settings",
    "Source",
    "ToolError",
    "Trimtab",
    "TrimtabError",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
