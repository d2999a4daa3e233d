"""The connectors of an installation, however they came: installed, in files, MCP servers, imported APIs."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.connect.call_log import CallLog
from trimtab.connect.conformance.badge import Badges
from trimtab.connect.discovery import in_file
from trimtab.connect.mcp import Book, Servers, Ways
from trimtab.connect.openapi import Imports
from trimtab.connect.toolbox import ConnectOptions, Override, Toolbox, from_environment
from trimtab.connect.vault import kept_in
from trimtab.settings import Settings


def open_toolbox(
    settings: Settings, change: Callable[[ConnectOptions], ConnectOptions] = lambda options: options
) -> Toolbox:
    """The installed connectors and those in files, with what the settings say about them. `change` is given the
    options and may return others: to record what is asked, or to replay it.

    Raises:
        InvalidInput: a file named in the settings holds no connector.
    """
    secret, keeper = kept_in(settings.home, settings.connector_secrets)
    options = ConnectOptions(
        disabled=frozenset(settings.connectors_disabled),
        enabled=frozenset(settings.connectors_only) or None,
        standing=Badges(settings.home).standing,
        overrides={
            name: Override(
                o.base_url,
                o.allow_private,
                o.user_agent,
                o.token_url,
                {option: str(value) for option, value in o.options.items()},
            )
            for name, o in settings.connectors.items()
        },
        secret=secret,
        keeper=keeper,
        log=connector_log(settings),
    )
    toolbox = Toolbox.discover(change(options))
    for path in settings.connector_files:
        toolbox.add(in_file(path), origin=str(path))
    return toolbox


def connector_log(settings: Settings) -> CallLog:
    """The last calls of connectors, of this process and others."""
    return CallLog(settings.logs_dir / "connectors.jsonl")


def open_servers(settings: Settings, toolbox: Toolbox) -> Servers:
    """The MCP servers that were added, as connectors of the toolbox. None is started by this.

    Raises:
        InvalidInput: the file that lists them cannot be read.
    """
    return Servers(Book(settings.home / "mcp.json"), toolbox, Ways(from_environment))


def open_imports(settings: Settings, toolbox: Toolbox) -> Imports:
    """The connectors that were imported from OpenAPI documents, added to the toolbox."""
    imports = Imports(settings.home / "openapi", toolbox)
    imports.load()
    return imports


def open_connectors(
    settings: Settings, change: Callable[[ConnectOptions], ConnectOptions] = lambda options: options
) -> tuple[Toolbox, Servers, Imports]:
    """All there are, however they came: `open_toolbox` with the added MCP servers and the imported APIs in it."""
    toolbox = open_toolbox(settings, change)
    return toolbox, open_servers(settings, toolbox), open_imports(settings, toolbox)
