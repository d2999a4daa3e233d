"""Finding installed connectors: whatever packages announce under the entry point group ``trimtab.connectors``.

A package announces a module (or an object in it) that holds a `Connector`. One that cannot be imported is reported
with its error, and costs only itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtab.domain.errors import InvalidInput

from .declare import Connector

GROUP = "trimtab.connectors"


@dataclass(frozen=True)
class Found:
    """An announced connector; `connector` is None when loading it failed, and `error` says why."""

    name: str
    origin: str
    connector: Connector | None = None
    error: str = ""


def installed(group: str = GROUP) -> Iterator[Found]:
    """Everything announced, in order of name and then origin."""
    for point in sorted(set(entry_points(group=group)), key=lambda p: (p.name, p.value)):
        try:
            yield Found(point.name, point.value, connector=connector_in(point.load()))
        except Exception as error:
            yield Found(point.name, point.value, error=f"{type(error).__name__}: {error}"[:500])


def connector_in(thing: Any) -> Connector:
    """The `Connector` that `thing` is, or the only one that a module holds.

    Raises:
        InvalidInput: there is none, or more than one.
    """
    if isinstance(thing, Connector):
        return thing
    if not isinstance(thing, ModuleType):
        raise InvalidInput(f"{thing!r} is neither a Connector nor a module that holds one.")
    held = {id(value): value for value in vars(thing).values() if isinstance(value, Connector)}
    if len(held) != 1:
        raise InvalidInput(
            f"Module {thing.__name__} holds {len(held)} connectors. Give it one: connector = Connector(...)"
        )
    return next(iter(held.values()))


def in_file(path: Path) -> Connector:
    """The connector in a Python file that is not installed: one's own, while it is being written.

    The file is run with all that this process may do, like any installed connector. Only name files you trust.

    Raises:
        InvalidInput: there is no such file, it does not run, or it holds no connector.
    """
    name = f"trimtab_connector_file_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidInput(f"There is no Python file {path}. Correct `connector_files` in your settings.")
    module = module_from_spec(spec)
    sys.modules[name] = module  # pydantic and inspect look a function's module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidInput(f"The connector {path} does not run: {type(error).__name__}: {error}") from error
    return connector_in(module)
