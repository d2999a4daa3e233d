"""`trimtab feedback`: what people said, what becomes of it, and the dataset it makes."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.gathering import Outcome
    from trimtab.settings import Settings
    from trimtab.store.database import Database

app = typer.Typer(no_args_is_help=True, help="List, curate, import and export feedback, and make datasets of it.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="A feedback's id, as `trimtab feedback list` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the decision.")]
BATCH = 300


@app.command("list")
def list_feedback(
    person: Annotated[str, typer.Option(help="Only what this person said.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 30,
    as_json: AsJson = False,
) -> None:
    """Show feedback, the latest first: what was said, whom a bad answer is put down to, and whether it trains."""
    with _open() as (settings, database):
        found = [one for one in _outcomes(settings, database) if person in ("", one.by)][:limit]
    if as_json:
        _echo([_wire(one) for one in found])
        return
    from rich.table import Table

    table = Table("id", "when", "who", "said", "question", "trains", box=None, pad_edge=False)
    for one in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.row.at))
        question = one.row.prompt[-1].content if one.row.prompt else ""
        cells = (
            one.row.about["feedback"],
            when,
            one.by,
            _said(one),
            question[:60],
            "yes" if not one.rule else one.rule,
        )
        table.add_row(*map(_plain, cells))
    _print(table)


@app.command()
def show(feedback: Id, as_json: AsJson = False) -> None:
    """Show one judgement: the prompt as the model was given it, the answers, and what becomes of it."""
    with _open() as (settings, database):
        found = [one for one in _outcomes(settings, database) if one.row.about["feedback"] == feedback]
    if not found:
        from trimtab.domain.errors import NotFound

        raise NotFound(f"No feedback {feedback}. `trimtab feedback list` shows what there is.")
    if as_json:
        _echo([_wire(one) for one in found])
        return
    one = found[0]
    typer.echo(_plain(f"{feedback}: {_said(one)} by {one.by}"))
    for said in one.row.prompt:
        typer.echo(_plain(f"\n[{said.role}]\n{said.content}"))
    typer.echo(_plain(f"\n[answer]\n{one.row.completion}"))
    if one.row.rejected:
        typer.echo(_plain(f"\n[worse answer]\n{one.row.rejected}"))
    if reason := one.row.about.get("reason"):
        typer.echo(_plain(f"\nreason: {reason}"))
    typer.echo(
        _plain(f"\nblame: {one.row.blame}" + (f" ({one.row.about['blame']})" if "blame" in one.row.about else ""))
    )
    typer.echo(_plain(f"trains: no, {one.rule}: {one.why}" if one.rule else "trains: yes"))


@app.command()
def curate(
    dropped: Annotated[
        bool, typer.Option("--dropped", help="List every row that is left out, with the reason.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what curation leaves, and what it leaves out by which rule. Changes nothing."""
    from trimtab.gathering import curated_by

    with _open() as (settings, database):
        found = curated_by(settings, database)
    out = [{"id": one.row.id, "rule": one.rule, "reason": one.reason} for one in found.dropped]
    if as_json:
        _echo({"kept": len(found.rows), **found.card(), **({"left_out": out} if dropped else {})})
        return
    from rich.table import Table

    typer.echo(f"{len(found.rows)} judgements stay, {len(found.dropped)} are left out.")
    table = Table("left out by", "rows", box=None, pad_edge=False)
    for rule, count in found.counts.items():
        table.add_row(_plain(rule), str(count))
    if found.counts:
        _print(table)
    if found.scrubbed:
        typer.echo("replaced: " + ", ".join(f"{count} {what}" for what, count in found.scrubbed.items()))
    for one in out if dropped else ():
        typer.echo(_plain(f"{one['id']}: {one['rule']}: {one['reason']}"))


@app.command()
def exclude(feedback: Id, reason: Reason = "") -> None:
    """Leave one judgement out. `include` or `undo` bring it back."""
    _decide(feedback, "exclude", reason)
    typer.echo(f"{feedback} is left out.")


@app.command()
def include(feedback: Id, reason: Reason = "") -> None:
    """Let one judgement in that a rule leaves out. Consent and whose words they are cannot be overruled."""
    _decide(feedback, "include", reason)
    typer.echo(f"{feedback} is let in, if its person agreed and the words are the model's.")


@app.command()
def undo(feedback: Id) -> None:
    """Take a decision back: the rules decide again."""
    from trimtab.store import judgements

    with _open() as (_, database):
        there = database.write_sync(judgements.undecide, feedback)
    typer.echo("The rules decide again." if there else "Nothing was decided about it by hand.")


@app.command()
def replay(
    feedback: Id,
    context: Annotated[str, typer.Option(help="The right text; without it the documents are searched again.")] = "",
    file: Annotated[Path | None, typer.Option(help="A file with the right text.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask again with the right text: was a thumb down the model's fault, or what it was given?"""
    import asyncio

    from trimtab.domain.errors import InvalidInput

    if file is not None:
        try:
            context = file.read_text("utf-8", errors="replace")
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}. Name a text file.") from error
    told = asyncio.run(_replayed(feedback, context))
    if as_json:
        _echo(told)
        return
    for answer in told["answers"]:
        typer.echo(_plain(f"- {answer}"))
    typer.echo(_plain(f"Blame: {told['blame']} ({told['why']})"))


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="JSONL in TRL's columns, or HH-RLHF.")],
    label: Annotated[str, typer.Option(help="What 0/1 labels without a name of their own are about.")] = "helpful",
    name: Annotated[str, typer.Option(help="What to call it; default the file's name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add judgements from a file. Lines that cannot be read are named; the others are added, each once."""
    from trimtab.align.interchange import Bad, read
    from trimtab.store import imports

    name, new, total = name or file.name, 0, 0
    bad: list[Bad] = []
    with _open() as (_, database), _source(file) as lines:
        for batch in _batches(read(lines, name, label=label)):
            rows = [row for row in batch if not isinstance(row, Bad)]
            bad += [row for row in batch if isinstance(row, Bad)]
            new += database.write_sync(imports.add, rows, file=name) if rows else 0
            total += len(rows)
    if as_json:
        _echo({"added": new, "known": total - new, "bad": [{"line": b.line, "reason": b.reason} for b in bad]})
    else:
        for one in bad:
            typer.echo(_plain(f"{file}:{one.line}: {one.reason}"), err=True)
        typer.echo(f"{new} added, {total - new} known already, {len(bad)} bad.")
    if bad:
        raise typer.Exit(1)


@app.command("remove-import")
def remove_import(name: Annotated[str, typer.Argument(help="What the file was called when it was imported.")]) -> None:
    """Take back what a file said."""
    from trimtab.store import imports

    with _open() as (_, database):
        gone = database.write_sync(imports.remove, name)
        known = database.read_sync(imports.files)
    typer.echo(
        f"{gone} removed." if gone else f"Nothing came from {name!r}. Imported: {', '.join(known) or 'nothing'}."
    )


@app.command("export")
def export(
    form: Annotated[str, typer.Option("--format", help="trl-preference, trl-label, trl-demonstration or hh.")],
    to: Annotated[Path | None, typer.Option("--to", help="A file; default standard output.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what curation leaves out, but for consent.")] = False,
) -> None:
    """Write feedback as JSONL that TRL and others read. Without --all, what curation leaves."""
    from trimtab.align.interchange import Bad, write

    with _open() as (settings, database), _target(to) as out:
        written = 0
        for line in write(_exported(settings, database, everything), form):
            if isinstance(line, Bad):
                typer.echo(_plain(f"{line.row} is left out: {line.reason}"), err=True)
            else:
                out.write(line + "\n")
                written += 1
    typer.echo(f"{written} lines written.", err=True)


@app.command()
def dataset(
    validation: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the prompts for validation.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the prompts for the test.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Curate all feedback, split it by prompt, write it as a dataset, and print its card."""
    from trimtab.align.splits import Shares
    from trimtab.gathering import curated_by, datasets_dir, make_dataset

    with _open() as (settings, database):
        made = make_dataset(curated_by(settings, database), datasets_dir(settings), Shares(validation, test))
    if as_json:
        _echo({"folder": str(made.folder), **made.card})
        return
    typer.echo((made.folder / "README.md").read_text("utf-8"))
    typer.echo(f"written to {made.folder}")


@app.command()
def agreement(as_json: AsJson = False) -> None:
    """Show how far people agree about the same answers: Cohen's kappa for two, Krippendorff's alpha for more."""
    from dataclasses import asdict

    from trimtab.labelling import Labelling

    with _open() as (_, database):
        found = database.read_sync(Labelling(anybody=True).agreement, "")
    if as_json:
        _echo({label or "preference": asdict(one) for label, one in found.items()})
        return
    for label, one in found.items():
        figure = "no figure yet" if one.coefficient is None else f"{one.name} {one.coefficient:.2f}"
        typer.echo(
            _plain(f"{label or 'preference'}: {figure} ({one.items} judged by two or more of {one.raters} people)")
        )
    if not found:
        typer.echo("Nothing was judged yet.")


@app.command("delete-person")
def delete_person(
    name: Annotated[str, typer.Argument(help="The user's name, as `trimtab config keys` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete all feedback that a person gave or that is about the person's conversations, and every dataset it is in.

    Says which versions of the model it shaped. This cannot be undone.
    """
    from trimtab.gathering import datasets_dir, forget_person

    if not yes:
        typer.confirm(f"Delete the feedback of {name} for good?", abort=True)
    with _open() as (settings, database):
        gone = forget_person(database, datasets_dir(settings), name)
    if as_json:
        _echo({"feedback": gone.feedback, "datasets": gone.datasets, "versions": gone.versions})
        return
    typer.echo(f"{gone.feedback} judgements and {len(gone.datasets)} datasets deleted.")
    for version in gone.versions:
        typer.echo(
            _plain(f"It had shaped version {version['name']} ({version['status']}, {version['rows']} judgements).")
        )
        typer.echo(_plain(f"  A model cannot unlearn. Train it again without: trimtab align again {version['name']}"))


# ---------------------------------------------------------------------- inside


@contextlib.contextmanager
def _open() -> Iterator[tuple[Settings, Database]]:
    """The settings and the database. Safe beside a running server: one writes at a time, many read."""
    from trimtab.own_database import open_database
    from trimtab.settings import Settings

    settings = Settings.load()
    with contextlib.closing(open_database(settings)) as database:
        yield settings, database


async def _replayed(feedback: str, context: str) -> dict[str, Any]:
    """By the running server if there is one, else with the parts opened here."""
    from trimtab.cli.talk import checked, running_server
    from trimtab.settings import Settings

    settings = Settings.load()
    if (server := running_server(settings)) is not None:
        async with server:
            found: dict[str, Any] = checked(
                await server.post(f"/v1/feedback/{feedback}/replay", json={"context": context})
            )
            return found
    from trimtab.app import Trimtab

    async with Trimtab.open(settings) as trimtab:
        return await trimtab.replays.replay(feedback, context)


def _outcomes(settings: Settings, database: Database) -> list[Outcome]:
    from trimtab.gathering import outcomes, reading_of, rules_of

    rules = database.read_sync(rules_of, settings)
    return database.read_sync(outcomes, rules, reading_of(settings))


def _exported(settings: Settings, database: Database, everything: bool) -> list[Any]:
    from trimtab.gathering import curated_by, gather, reading_of

    if everything:
        return [row for row in database.read_sync(gather, reading_of(settings)).rows if row.consent]
    return list(curated_by(settings, database).rows)


def _decide(feedback: str, decision: str, reason: str) -> None:
    from trimtab.own_database import LOCAL_USER
    from trimtab.store import judgements, people

    with _open() as (_, database):
        by = database.write_sync(people.ensure_user, LOCAL_USER)
        database.write_sync(judgements.decide, feedback, decision, reason, by)


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def _source(file: Path) -> Iterator[Any]:
    from trimtab.domain.errors import InvalidInput

    try:
        lines = file.open(encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}. Name a JSONL file.") from error
    with lines:
        yield lines


@contextlib.contextmanager
def _target(to: Path | None) -> Iterator[Any]:
    if to is None:
        yield sys.stdout
    else:
        with to.open("w", encoding="utf-8", newline="\n") as file:
            yield file


def _said(one: Outcome) -> str:
    match str(one.row.kind):
        case "label":
            return f"{one.row.label}: {'yes' if one.row.value else 'no'}"
        case "preference":
            return "edited" if one.row.about.get("edit") else "preferred"
        case _:
            return "edited" if one.row.about.get("edit") else "shown how"


def _wire(one: Outcome) -> dict[str, Any]:
    from trimtab.align.rows import as_dict

    told = as_dict(one.row)
    return {**told, "by": one.by, "trains": not one.rule, "rule": one.rule, "why": one.why, "decision": one.decision}


def _plain(text: object) -> str:
    from trimtab.cli.show import plain

    return plain(text)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(table)


def _echo(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
