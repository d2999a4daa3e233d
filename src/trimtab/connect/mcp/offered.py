"""A server's resources and prompts.

Resources become two tools of the connector: one that lists them, one that reads one. Their definitions are ours, so no
text of the server is in them. Prompts are for a person to pick, not for a model to call: they are listed and filled in
through the API and the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trimtab.domain.tool import Effect

from ..declare import Connector
from ..result import Result, clean, shorten

if TYPE_CHECKING:
    from .link import Link
    from .supervisor import Supervised

LISTED = 100
LIST, READ = "list_resources", "read_resource"
URI = {
    "type": "object",
    "properties": {
        "uri": {
            "type": "string",
            "minLength": 1,
            "maxLength": 2000,
            "description": "The resource's address, as the list of resources gives it, e.g. memo://insights",
        }
    },
    "required": ["uri"],
}


def declare_resources(connector: Connector, supervised: Supervised, effect: Effect, facts: Mapping[str, Any]) -> None:
    """Add the two tools, under other names where the server has tools of these."""

    async def list_resources(arguments: Mapping[str, Any]) -> Result:
        return await supervised.use(_listed)

    async def read_resource(arguments: Mapping[str, Any]) -> Result:
        from . import content

        async def ask(link: Link) -> Result:
            return content.read(await link.read_resource(arguments["uri"]), connector.name, arguments["uri"])

        return await supervised.use(ask)

    told = f"the MCP server {connector.name}"
    listing = f"List the resources that {told} offers, each with its address."
    reading = f"Read one resource of {told} by its address."
    connector.declare(_free(connector, LIST), list_resources, {}, description=listing, effect=effect, **facts)
    connector.declare(_free(connector, READ), read_resource, URI, description=reading, effect=effect, **facts)


async def _listed(link: Link) -> Result:
    resources, templates = await link.resources(), await link.templates()
    entries = [
        {"uri": str(r.uri), "name": r.title or r.name, "description": _short(r.description)} for r in resources[:LISTED]
    ]
    entries += [
        {"uri": t.uri_template, "name": t.title or t.name, "description": _short(t.description)}
        for t in templates[:LISTED]
    ]
    left = len(resources) + len(templates) - len(entries)
    lines = [" - ".join(filter(None, (e["uri"], e["name"], e["description"]))) for e in entries]
    lines += [f"[cut: {left} left out]"] if left else []
    return Result(text="\n".join(lines) or "It has no resources.", data=entries)


async def prompts(link: Link) -> list[dict[str, Any]]:
    """A server's prompts for a person to choose from. The text is the server's; it is cleaned."""
    return [
        {
            "name": clean(prompt.name)[0][:200],
            "description": _short(prompt.description or prompt.title),
            "arguments": [
                {"name": a.name[:200], "description": _short(a.description), "required": bool(a.required)}
                for a in (prompt.arguments or ())[:50]
            ],
        }
        for prompt in (await link.prompts())[:LISTED]
    ]


async def fill(link: Link, name: str, arguments: Mapping[str, str]) -> list[dict[str, str]]:
    """A prompt filled in: messages with a role and a text."""
    from . import content

    filled = await link.prompt(name, arguments)
    return [
        {"role": message.role, "text": shorten(clean(content.blocks([message.content]))[0], 20_000)[0]}
        for message in filled.messages[:LISTED]
    ]


def _free(connector: Connector, name: str) -> str:
    return next(free for free in (name, f"{name}_of_server", f"mcp_{name}") if free not in connector.tools)


def _short(text: str | None) -> str:
    return " ".join(clean(text or "")[0].split())[:300]
