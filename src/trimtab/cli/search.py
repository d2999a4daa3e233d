"""`trimtab search "..."`: ranked passages, with the score of each side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("search")(search)


def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=50, help="Passages at most.")] = 5,
    name: Annotated[str, typer.Option(help="Only documents with this name; * and ? are allowed.")] = "",
    collection: Annotated[str, typer.Option(help="Only this collection.")] = "",
    mime: Annotated[str, typer.Option("--type", help="Only this type, such as text/markdown or text/.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what the documents say, best passage first, without asking a model."""
    from trimtab.settings import Settings

    filters = {key: v for key, v in (("name", name), ("collection", collection), ("mime", mime)) if v}
    settings = Settings.load()
    passages = _passages(settings, question, k, filters)
    if as_json:
        typer.echo(json.dumps({"passages": passages, "floor": settings.passage_floor}, ensure_ascii=False, indent=2))
    else:
        _draw(passages, settings.passage_floor)


def _passages(settings: Settings, question: str, k: int, filters: dict[str, str]) -> list[dict[str, Any]]:
    """From the running server, which owns the index; else with the library opened here."""
    from dataclasses import asdict

    from trimtab.cli.ingest import local_library, server_client
    from trimtab.cli.talk import checked

    client = server_client(settings)
    if client is not None:
        body = {"question": question, "k": k, **({"filters": filters} if filters else {})}
        with client:
            found: list[dict[str, Any]] = checked(client.post("/v1/search", json=body))["passages"]
        return found
    from trimtab.retrieval import Filters

    with local_library(settings) as (library, owner):
        return [
            asdict(p)
            for p in library.search(
                question,
                owner,
                k,
                Filters(filters.get("name", ""), filters.get("collection", ""), mime=filters.get("mime", "")),
                floor=-1,
            )
        ]


def _draw(passages: list[dict[str, Any]], floor: float) -> None:
    from rich.console import Console
    from rich.text import Text

    from trimtab.cli.show import plain

    console = Console(highlight=False)
    if not passages:
        console.print("Nothing found.")
    for number, p in enumerate(passages, start=1):
        place = " > ".join([p["name"], *p["heading"]])
        console.print(Text(f"{number}. {plain(place)}", style="bold"))
        under = "" if p["score"] >= floor else f" (under the floor of {floor:.2f}: not used in answers)"
        scores = f"cosine {p['score']:.3f}{under}, rank {p['vector_rank'] or '-'}"
        if p["keyword_rank"]:
            scores += f"; words {p['keyword_score']:.1f}, rank {p['keyword_rank']}"
        span = p["span"]
        console.print(Text(f"   {scores}; characters {span['start']}-{span['end']}", style="dim"))
        console.print(Text(plain(p["text"]).strip() + "\n"))
