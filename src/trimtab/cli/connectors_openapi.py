"""`trimtab connectors import`: connectors from OpenAPI documents; looking, importing, removing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from trimtab.connect.openapi import Imports
    from trimtab.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Make connectors from OpenAPI documents.")

SHOWN = 20
"""Lines of what was left out; `--json` has them all."""

Name = Annotated[str, typer.Argument(help="The name of an imported connector.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def openapi(
    spec: Annotated[str, typer.Argument(help="An OpenAPI 3.0 or 3.1 or Swagger 2.0 document: a file or an address.")],
    include: Annotated[
        list[str] | None,
        typer.Option(help="Only operations with this tag, or this id (* for any part). May be repeated."),
    ] = None,
    base_url: Annotated[str, typer.Option(help="Ask this address instead of the document's servers.")] = "",
    name: Annotated[str, typer.Option(help="What to call the connector. Default: from the document's title.")] = "",
    security: Annotated[str, typer.Option(help="The document's security scheme to use; 'none' sends no key.")] = "",
    offer: Annotated[
        str, typer.Option(help="each (a tool per operation), search (find, then call), or auto.")
    ] = "auto",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of an import of that name.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what would be imported.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a connector from a document. Nothing in the document is run."""
    from trimtab.domain.errors import InvalidInput
    from trimtab.settings import Settings

    if offer not in ("auto", "each", "search"):
        raise InvalidInput(f"--offer is auto, each or search, not {offer!r}.")
    settings = Settings.load()
    content, source = _content(spec, settings, name)
    wanted = {
        "name": name, "include": include or [], "base_url": base_url, "security": security, "offer": offer,
        "source": source,
    }  # fmt: skip
    found = _run(settings, wanted, content, preview=preview, replace=replace)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _show(found, preview)


@app.command("list")
def list_imports(as_json: AsJson = False) -> None:
    """Show what was imported, and from where."""
    from trimtab.cli.ingest import server_client
    from trimtab.cli.talk import checked
    from trimtab.settings import Settings

    settings = Settings.load()
    if (client := server_client(settings)) is not None:
        with client:
            found = checked(client.get("/v1/connectors/openapi"))["imports"]
    else:
        imports = _imports(settings)
        found = [imports.describe(one) for one in imports.names()]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo("None yet. Import one: trimtab connectors import openapi SPEC")
    for one in found:
        state = f"broken: {one['error']}" if one["error"] else f"{one['operations']} operations of {one['title']}"
        typer.echo(_plain(f"{one['name']}  {state}  (from {one['choices']['source'] or one['document'][:12]})"))


@app.command()
def remove(name: Name) -> None:
    """Take an imported connector away."""
    from trimtab.cli.ingest import server_client
    from trimtab.cli.talk import checked
    from trimtab.settings import Settings

    settings = Settings.load()
    if (client := server_client(settings)) is not None:
        with client:
            checked(client.delete(f"/v1/connectors/openapi/{quote(name, safe='')}"))
    else:
        _imports(settings).remove(name)
    typer.echo(f"{name} was removed.")


def _run(settings: Settings, wanted: dict[str, Any], content: bytes, *, preview: bool, replace: bool) -> dict[str, Any]:
    from trimtab.cli.ingest import server_client
    from trimtab.cli.talk import checked
    from trimtab.connect.openapi import Choices, summary

    if (client := server_client(settings)) is not None:
        body = {**wanted, "document": content.decode("utf-8", "replace")}
        with client:
            if preview:
                found = checked(client.post("/v1/connectors/openapi/preview", json=body))
            else:
                found = checked(client.post("/v1/connectors/openapi", json={**body, "replace": replace}))
        return found  # type: ignore[no-any-return]
    name = wanted.pop("name")
    choices = Choices(**{**wanted, "include": tuple(wanted["include"])})
    imports = _imports(settings)
    made = imports.preview(content, name, choices)
    if not preview:
        imports.take(made, content, replace=replace)
    return {"name": made.connector.name, **summary(made)}


def _content(spec: str, settings: Settings, name: str) -> tuple[bytes, str]:
    """The document's bytes, and where they are from."""
    from trimtab.connect.openapi import fetch_document
    from trimtab.connect.openapi.document import MAX_BYTES
    from trimtab.domain.errors import InvalidInput, TooLarge

    if "://" in spec:
        override = settings.connectors.get(name)
        return asyncio.run(fetch_document(spec, allow_private=bool(override and override.allow_private)))
    path = Path(spec)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TooLarge(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read.")
        return path.read_bytes(), path.name
    except OSError as error:
        raise InvalidInput(f"{path} could not be read: {error.strerror}. Give a file or an address.") from error


def _imports(settings: Settings) -> Imports:
    from trimtab.own_connectors import open_connectors

    return open_connectors(settings)[2]


def _show(found: dict[str, Any], preview: bool) -> None:
    effects = ", ".join(f"{count} {effect}" for effect, count in found["effects"].items())
    done = "would be imported" if preview else "imported"
    typer.echo(_plain(f"{found['name']}: {found['operations']} operations {done} ({effects}) of {found['title']}"))
    typer.echo(_plain(f"reaches: {', '.join(found['servers'])}"))
    tools = found["tools"]
    more = f" and {len(tools) - 8} more" if len(tools) > 8 else ""
    typer.echo(_plain(f"tools: {', '.join(tools[:8])}{more}"))
    if found["secrets"]:
        typer.echo(_plain(f"key ({found['security_scheme']}): {' and '.join(found['secrets'])}"))
    for kind, label in (("left_out", "left out"), ("remarks", "noted")):
        count = found[f"{kind}_count"]
        if count:
            typer.echo(f"{label}: {count}")
        for one in found[kind][:SHOWN]:
            what = f"{one['what']} " if one["what"] else ""
            typer.echo(_plain(f"  {what}{one['pointer']}: {one['why']}"))
        if count > SHOWN:
            typer.echo(f"  ... {count - SHOWN} more; --json lists them")


def _plain(text: str) -> str:
    from trimtab.cli.show import plain

    return plain(text)
