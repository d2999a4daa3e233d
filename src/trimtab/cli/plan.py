"""`trimtab plan`: what a deployment must do, whether this machine can hold it, and which variant of the model does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimtab.deploy.choose import Choice, Judged
    from trimtab.deploy.results import Measured
    from trimtab.deployment import Deploying
    from trimtab.settings import Settings
    from trimtab.store.database import Database

app = typer.Typer(help="Plan a deployment: ask, check, choose by measurement.")

NAME = Path("deployment.toml")
File = Annotated[Path, typer.Argument(help="The plan.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def plan(context: typer.Context) -> None:
    """Plan a deployment: ask, check, choose by measurement. Without a command: ask."""
    if context.invoked_subcommand is None:
        ask()


@app.command()
def ask(
    file: File = NAME,
    yes: Annotated[bool, typer.Option("--yes", help="Take the defaults, which fit this machine.")] = False,
) -> None:
    """Ask what the deployment must do, in plain words, and write the plan."""
    from trimtab.deploy import plan as plans
    from trimtab.deploy.machine import this_machine
    from trimtab.settings import Settings

    settings = Settings.load()
    machine = this_machine(settings.home)
    old = plans.read(file) if file.exists() else plans.Deployment(model=settings.model)
    typer.echo(f"This machine: {machine.fingerprint}, {machine.disk / 1e9:.0f} GB of disk free")
    answers = old if yes else plans.checked(_asked(old, machine.memory, bool(machine.accelerators)))
    plans.write(answers, file)
    typer.echo(f"Wrote {file}. Next: trimtab plan check")


def _asked(old: Any, memory: int, accelerator: bool) -> dict[str, Any]:
    """The questions. Values are checked together afterwards."""
    values: dict[str, Any] = old.model_dump(exclude={"chosen"})
    targets = values["targets"]
    _asked_where(values)
    typer.echo("\nHow fast?")
    targets["users"] = typer.prompt("How many people ask at the same time", targets["users"], type=int)
    targets["first_token_p95"] = typer.prompt(
        "How many seconds may the first word take, for 95 of 100 questions", targets["first_token_p95"], type=float
    )
    targets["tokens_per_second"] = typer.prompt(
        "How many tokens a second must each answer get (people read about 5)", targets["tokens_per_second"], type=float
    )
    targets["context"] = typer.prompt(
        "How many tokens may a conversation with its documents have (750 words are about 1000)",
        targets["context"],
        type=int,
    )
    if not values["remote"]["base_url"]:
        _asked_means(values, memory, accelerator)
    typer.echo("\nWhat does it reach? (names separated by commas; empty: whatever is switched on)")
    resources = values["resources"]
    resources["collections"] = _names("Collections of documents", resources["collections"])
    for kind, words in (("connectors", "Connectors"), ("mcp_servers", "MCP servers")):
        ways = {one["name"]: one["authentication"] for one in resources[kind]}
        resources[kind] = [{"name": name, "authentication": _way(name, ways)} for name in _names(words, tuple(ways))]
    typer.echo("\nHow is it used?")
    faces = values["interface"]["faces"]
    values["interface"]["faces"] = _names("Which of web, api, mcp, python, terminal", faces)
    return values


def _asked_means(values: dict[str, Any], memory: int, accelerator: bool) -> None:
    """What a model on this machine may use, and lose."""
    budget = values["budget"]
    typer.echo("\nWith what?")
    budget["cores"] = typer.prompt("Processor cores (0: all)", budget["cores"], type=int)
    default = budget["memory_mb"] or memory // 2_000_000
    budget["memory_mb"] = typer.prompt("MB of memory for the model", default, type=int)
    budget["disk_mb"] = typer.prompt("MB of disk for the model (0: all that is free)", budget["disk_mb"], type=int)
    if accelerator:
        needed = typer.confirm("Must it run on the accelerator that is here", budget["accelerator"] == "required")
        budget["accelerator"] = "required" if needed else "none"
    values["quality"]["largest_loss"] = (
        typer.prompt(
            "How many percent worse may it predict text than the whole model, to be faster or smaller",
            values["quality"]["largest_loss"] * 100,
            type=float,
        )
        / 100
    )


def _asked_where(values: dict[str, Any]) -> None:
    """Where the model runs, and what that may cost."""
    remote, budget = values["remote"], values["budget"]
    typer.echo("\nWhere does the model run?")
    told = typer.prompt("Address of an OpenAI-compatible server, or here", remote["base_url"] or "here")
    remote["base_url"] = "" if told.strip().lower() in ("", "here") else told.strip()
    if not remote["base_url"]:
        return
    values["model"] = typer.prompt("What that server calls the model", values["model"])
    price = typer.prompt("What a million of its tokens costs", remote["price_per_million"], type=float)
    most = max(budget["money_per_million"], price)
    remote["price_per_million"] = price
    budget["money_per_million"] = typer.prompt("The most that a million tokens may cost", most, type=float)


def _names(question: str, default: Any) -> list[str]:
    told: str = typer.prompt(question, ", ".join(default), show_default=bool(default))
    return [name.strip() for name in told.split(",") if name.strip()]


def _way(name: str, ways: dict[str, str]) -> str:
    told: str = typer.prompt(
        f"How does {name} know us (none, key, bearer, basic, client-credentials, oauth)", ways.get(name, "none")
    )
    return told.strip()


@app.command()
def check(file: File = NAME, as_json: AsJson = False) -> None:
    """Say whether this machine can hold the plan, before anything is loaded. Exit code 1 when it cannot."""
    from trimtab.deploy import plan as plans
    from trimtab.reach import refuse_unreachable
    from trimtab.settings import Settings

    wanted = plans.read(file)
    refuse_unreachable(wanted, Settings.load())
    if wanted.remote.base_url:
        typer.echo(f"{wanted.model} answers at {wanted.remote.base_url}, within the budget; no model runs here.")
        return
    here = deploying(file)
    fits = here.check()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in fits], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("variant", "memory MB", "disk MB", "fits", "basis", box=None, pad_edge=False)
    for one in fits:
        told = "; ".join(one.obstacles) or "yes"
        table.add_row(one.candidate.variant.name, f"{one.memory / 1e6:.0f}", f"{one.disk / 1e6:.1f}", told, one.basis)
    typer.echo(f"{here.variants.facts.name} on {here.machine.fingerprint}")
    Console().print(table)
    if any(one.basis != "measured" for one in fits):
        typer.echo("Estimates hold for memory to about a seventh. Whether it is fast enough: trimtab measure")


@app.command()
def choose(
    file: File = NAME,
    as_json: AsJson = False,
    write: Annotated[bool, typer.Option(help="Write the choice into the plan.")] = True,
) -> None:
    """Choose the cheapest measured variant that meets every target, and say why not the others."""
    from trimtab.deploy import plan as plans

    here = deploying(file)
    found = here.choose()
    if as_json:
        typer.echo(json.dumps([_plain(one) for one in found.judged], indent=2))
    else:
        _table(found)
    chosen = found.demanded()
    one = chosen.candidate
    if write:
        kept = plans.Chosen.of(one)
        plans.write(here.plan.model_copy(update={"chosen": kept}), file)
    if not as_json:
        typer.echo(f"\nChosen: {one.name}. Measured by: {chosen.command}")


@app.command()
def apply(file: File = NAME, reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve what the plan chose: at once, without losing a turn, where Trimtab runs; else from its next start."""
    from trimtab.changeover import apply_at_rest
    from trimtab.deploy import plan as plans
    from trimtab.reach import refuse_unreachable
    from trimtab.settings import Settings

    settings, wanted = Settings.load(), plans.read(file)

    def at_rest(database: Database) -> dict[str, Any]:
        refuse_unreachable(wanted, settings)
        return apply_at_rest(database, settings, wanted, by="local", reason=reason)

    _changed(settings, "apply", {"plan": wanted.model_dump(mode="json"), "reason": reason}, at_rest, as_json)


@app.command()
def undo(reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve what was served before the last `apply`. Done twice, it is as it was."""
    from trimtab.changeover import undo_at_rest
    from trimtab.settings import Settings

    settings = Settings.load()
    _changed(
        settings, "undo", {"reason": reason}, lambda db: undo_at_rest(db, settings, by="local", reason=reason), as_json
    )


def _changed(
    settings: Settings, what: str, body: dict[str, Any], at_rest: Callable[[Database], dict[str, Any]], as_json: bool
) -> None:
    """Ask the running server, or write it down for the next start."""
    from trimtab.cli.versions import sent
    from trimtab.own_database import open_database

    told = sent("POST", f"/v1/plans/{what}", body)
    if told is None:
        database = open_database(settings)
        try:
            line = at_rest(database)
        finally:
            database.close()
    else:
        line = told["changed"]
    if as_json:
        typer.echo(json.dumps(line, indent=2))
        return
    when = "from the next start on" if told is None else "from the next question on"
    typer.echo(f"{line['after_variant']} is served {when}; before, {line['before_variant']}.")
    typer.echo("Back to that: trimtab plan undo")


@app.command()
def plot(
    file: File = NAME, to: Annotated[Path, typer.Option(help="The picture to write.")] = Path("deployment.svg")
) -> None:
    """Draw what was measured for the plan: speed, memory and quality, and which is chosen."""
    from trimtab.deploy.plot import plot as drawn
    from trimtab.domain.durable import replace_file
    from trimtab.domain.errors import InvalidInput

    picture = drawn(deploying(file).choose())
    try:
        replace_file(to, picture)
    except OSError as error:
        raise InvalidInput(f"{to} cannot be written ({error.strerror}). Choose another place.") from error
    typer.echo(f"Wrote {to}")


@app.command()
def export(
    kind: Annotated[str, typer.Argument(help="compose or kubernetes.")],
    file: File = NAME,
    image: Annotated[str, typer.Option(help="The image that holds Trimtab; you build it.")] = "trimtab:latest",
) -> None:
    """Print the chosen plan as a compose.yaml or as Kubernetes manifests. No secret is in it."""
    import yaml

    from trimtab.deploy import manifests
    from trimtab.deploy import plan as plans
    from trimtab.domain.errors import InvalidInput

    if kind not in ("compose", "kubernetes"):
        raise InvalidInput(f"There is no export {kind!r}. Give compose or kubernetes.")
    wanted = plans.read(file)
    memory = 0 if wanted.remote.base_url else _memory(deploying(file))
    if kind == "compose":
        typer.echo(yaml.safe_dump(manifests.compose(wanted, image, memory), sort_keys=False), nl=False)
        return
    typer.echo(yaml.safe_dump_all(manifests.kubernetes(wanted, image, memory), sort_keys=False), nl=False)


def _memory(here: Deploying) -> int:
    """Bytes of the chosen variant's engine."""
    from trimtab.domain.errors import InvalidInput

    if (one := here.plan.chosen.variant) is None:
        raise InvalidInput("Nothing is chosen in this plan yet. Run: trimtab measure, then trimtab plan choose")
    return here.fits((one,))[0].memory


def _table(found: Choice) -> None:
    from rich.console import Console
    from rich.table import Table

    heads = (
        "",
        "variant",
        "MB",
        "disk",
        "first p95",
        "tokens/s",
        "all",
        "loss",
        "KL",
        "tools",
        "cited",
        "people",
        "reward",
        "why not",
    )
    table = Table(*heads, box=None, pad_edge=False)
    for one in found.judged:
        table.add_row(*_cells(one, found))
    Console().print(table)
    typer.echo("* nothing else is as fast, small and good; the cheapest come first")


def _cells(one: Judged, found: Choice) -> list[str]:
    row, quality = one.row, one.row.quality
    chosen = found.chosen is not None and row.key == found.chosen.key
    mark = ("→" if chosen else " ") + ("*" if one.on_front else " ")
    lost = f"{quality.loss.value:+.1%} [{quality.loss.low:+.1%}, {quality.loss.high:+.1%}]" if quality else "?"
    return [
        mark,
        row.candidate.name,
        f"{row.memory / 1e6:.0f}",
        f"{row.disk / 1e6:.0f}",
        f"{row.together.first_p95:.2f} s",
        f"{row.together.rate.value:.1f}",
        f"{row.together.total:.0f}",
        lost,
        f"{quality.divergence.value:.4f}" if quality else "?",
        *_answers(row),
        one.why_not or ("the cheapest that meets every target" if chosen else ""),
    ]


def _answers(row: Measured) -> list[str]:
    """Shares of the fixed sets and the mean reward, with their 95 % intervals."""
    found = row.answers
    shares = [found.tools, found.cited, found.preferences] if found else [None] * 3
    told = [f"{one.value:.0%} [{one.low:.0%}, {one.high:.0%}]" if one else "?" for one in shares]
    reward = found.reward if found else None
    return [*told, f"{reward.value:+.2f} [{reward.low:+.2f}, {reward.high:+.2f}]" if reward else "?"]


def _plain(one: Judged) -> dict[str, Any]:
    row = one.row
    return {
        "variant": row.candidate.name,
        "memory": row.memory,
        "disk": row.disk,
        "first_p95": row.together.first_p95,
        "tokens_per_second": row.together.rate.value,
        "total": row.together.total,
        "loss": row.quality.loss.value if row.quality else None,
        "answers": asdict(row.answers) if row.answers else None,
        "on_front": one.on_front,
        "why_not": one.why_not,
        "command": row.command,
    }


def deploying(file: Path | None) -> Deploying:
    """The plan of that file on this machine; without a file the one here, or one of defaults."""
    from trimtab.deploy import plan as plans
    from trimtab.deployment import Deploying
    from trimtab.settings import Settings

    settings = Settings.load()
    if file is None and not NAME.exists():
        return Deploying(settings, plans.Deployment(model=settings.model))
    return Deploying(settings, plans.read(file or NAME))
