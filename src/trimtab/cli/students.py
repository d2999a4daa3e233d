"""`trimtab models prune|distil|calibrate|students|forget`: smaller models made of the installed one, to be measured
beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.settings import Settings
    from trimtab.students import Students

Layers = Annotated[int, typer.Option(min=0, help="To drop; 0: a fifth of them to prune, a third to distil.")]
Name = Annotated[str, typer.Option(help="What to call it: lower-case letters, digits, dashes.")]
Teacher = Annotated[str, typer.Option(help="A version's id or name to learn from; else the one that answers now.")]
Bundled = Annotated[bool, typer.Option(help="Learn on the texts that come with Trimtab.")]
Conversations = Annotated[int, typer.Option(min=0, max=500, help="Learn on so many of the last conversations, too.")]
Tokens = Annotated[int, typer.Option(min=0, help="To read in training; 0: 30,000 to prune, 60,000 to distil.")]
Seed = Annotated[int, typer.Option(min=0, help="Chance; the same seed gives the same student.")]
Detach = Annotated[bool, typer.Option("--detach", help="Only queue it; a running server does it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `trimtab models`."""
    for command in (prune, distil, calibrate, students, forget):
        app.command()(command)


def prune(
    layers: Layers = 0,
    name: Name = "",
    teacher: Teacher = "",
    bundled: Bundled = True,
    conversations: Conversations = 0,
    tokens: Tokens = 0,
    seed: Seed = 0,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller model: leave out the layers that matter least, and train the others to make up for them."""
    _made("prune", locals(), detach, as_json)


def distil(
    layers: Layers = 0,
    name: Name = "",
    teacher: Teacher = "",
    bundled: Bundled = True,
    conversations: Conversations = 0,
    tokens: Tokens = 0,
    seed: Seed = 0,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller model: leave out every second or third upper layer, and let it learn from the whole."""
    _made("distil", locals(), detach, as_json)


def _made(method: str, given: dict[str, Any], detach: bool, as_json: bool) -> None:
    from trimtab.cli.align import order

    recipe = {key: value for key, value in given.items() if key not in ("detach", "as_json")}
    order(recipe | {"method": method}, detach, as_json, kind="student")


def calibrate(
    student: Annotated[str, typer.Argument(help="A student's name; none means the installed model.")] = "",
    bundled: Annotated[bool, typer.Option(help="Fit it to the texts that come with Trimtab.")] = True,
    conversations: Annotated[
        int, typer.Option(min=0, max=500, help="Fit it to so many of the last conversations.")
    ] = 0,
) -> None:
    """Write a model that comes in 16 bits in 4, its numbers fitted to what it reads in texts: less is lost."""
    from trimtab.cli.progress import progress_of
    from trimtab.settings import Settings
    from trimtab.variants import Variants

    settings = Settings.load()
    talks = _talks(settings, conversations, bundled)
    with progress_of(f"Fitting {student or settings.model} to {len(talks)} texts") as show:
        made = Variants(settings.model, settings.models_dir, settings.home / "variants", show)
        name = made.calibrate(student, talks).name
    typer.echo(f"{name} is written. See what it is worth: trimtab measure --again --variant {name}")


def _talks(settings: Settings, conversations: int, bundled: bool) -> list[list[dict[str, str]]]:
    """Own conversations first."""
    from contextlib import closing

    from trimtab.align import bundled as texts
    from trimtab.domain.judgement import Kind
    from trimtab.own_database import open_database
    from trimtab.training import last_conversations

    found: list[list[tuple[str, str]]] = []
    if conversations:
        with closing(open_database(settings)) as database:
            found = last_conversations(database, conversations)
    if bundled:
        rows = [row for row in texts.load_bundled("train") if row.kind is Kind.DEMONSTRATION]
        found += [[*((said.role, said.content) for said in row.prompt), ("assistant", row.completion)] for row in rows]
    return [[{"role": role, "content": text} for role, text in line] for line in found]


def students(as_json: AsJson = False) -> None:
    """Show the smaller models that were made here, and how far each is from its teacher."""
    rows = [
        {
            "name": one.name,
            "method": one.version.manifest.lineage.method,
            "teacher": one.version.manifest.lineage.parent,
            "layers": one.version.manifest.metrics.get("layers"),
            "kl": one.version.manifest.metrics.get("KL to the teacher"),
            "same": one.version.manifest.metrics.get("same likeliest token"),
            "disk": sum(file.size for file in one.version.manifest.files.values()),
            "folder": str(one.version.folder),
        }
        for one in _students().listed()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("None was made yet. Make one: trimtab models prune")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("student", "method", "layers", "KL to its teacher", "same next token", "MB", box=None, pad_edge=False)
    for row in rows:
        kl, same = f"{float(str(row['kl'])):.3f}", f"{float(str(row['same'])):.0%}"
        size = f"{int(str(row['disk'])) / 1e6:.0f}"
        table.add_row(str(row["name"]), str(row["method"]), str(row["layers"]), kl, same, size)
    Console(highlight=False).print(table)


def forget(name: Annotated[str, typer.Argument(help="A name from `trimtab models students`.")]) -> None:
    """Delete a student from this machine. What was measured of it is kept."""
    _students().remove(name)
    typer.echo(f"{name}: removed")


def _students() -> Students:
    from trimtab.settings import Settings
    from trimtab.students import Students

    return Students(Settings.load().home)
