"""`trimtab measure`: what each variant of the model really does on this machine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.deploy.campaign import Orders
    from trimtab.deploy.results import Measured
    from trimtab.deployment import Deploying


def register(app: typer.Typer) -> None:
    app.command()(measure)


def measure(
    plan: Annotated[
        Path | None, typer.Option(help="The plan to measure for; else deployment.toml, if it is here.")
    ] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    users: Annotated[int | None, typer.Option(min=1, max=64, help="Who ask at the same time.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=256)] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=64, help="Questions worked on at once.")] = None,
    context: Annotated[int | None, typer.Option(min=512, max=131072, help="Tokens of each.")] = None,
    batch: Annotated[int | None, typer.Option(min=32, max=4096, help="Tokens of a prompt read in one go.")] = None,
    workload: Annotated[
        str, typer.Option(help="synthetic, file:PATH (a question a line, or JSON lines), or last:N conversations.")
    ] = "synthetic",
    minutes: Annotated[float, typer.Option(min=0.1, help="When they are over nothing new is begun.")] = 15.0,
    settings: Annotated[bool, typer.Option(help="Try other settings of the best variants, too.")] = True,
    tool_questions: Annotated[int, typer.Option(min=0, help="Fixed questions for tools, at most.")] = 24,
    cited_questions: Annotated[int, typer.Option(min=0, help="Fixed questions about passages, at most.")] = 30,
    preference_pairs: Annotated[int, typer.Option(min=0, help="Pairs that people judged, at most.")] = 24,
    reward_prompts: Annotated[int, typer.Option(min=0, help="Answers for the reward model, at most.")] = 18,
    answer_seconds: Annotated[float, typer.Option(min=0, help="For all of these, of each variant.")] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="Measure also what was measured before.")] = False,
    base_url: Annotated[str, typer.Option(help="Measure this OpenAI-compatible server, its speed only.")] = "",
    model: Annotated[str, typer.Option(help="What that server calls the model.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line a variant.")] = False,
) -> None:
    """Measure speed, memory, disk and quality of the model's variants. Run it again to go on where it was stopped."""
    from trimtab.cli.plan import deploying
    from trimtab.deploy import variant as known
    from trimtab.deploy.answers import USUAL, Sizes
    from trimtab.deployment import workload_named
    from trimtab.gathering import reading_of
    from trimtab.own_database import own_database

    if base_url:
        _remote(base_url, model, workload, users or 1, as_json)
        return
    here = deploying(plan)
    asked = workload_named(workload, lambda: own_database(here.settings), reading_of(here.settings))
    more = ("--workload", workload) + (("--plan", str(plan)) if plan else ())
    given = {"threads": threads, "slots": slots or users, "context": context, "batch": batch}
    limits = {
        "--tool-questions": (tool_questions, USUAL.tools),
        "--cited-questions": (cited_questions, USUAL.cited),
        "--preference-pairs": (preference_pairs, USUAL.preferences),
        "--reward-prompts": (reward_prompts, USUAL.reward),
    }
    more += tuple(word for name, (some, usual) in limits.items() if some != usual for word in (name, str(some)))
    orders = here.orders(
        asked,
        variants=tuple(known.variant(name) for name in variant) if variant else here.known_variants,
        knobs=replace(here.knobs, **{name: value for name, value in given.items() if value}),
        users=users or here.plan.targets.users,
        seconds=minutes * 60,
        settings=settings and not variant,
        sizes=Sizes(preference_pairs, tool_questions, cited_questions, reward_prompts),
        answer_seconds=answer_seconds,
        again=again,
        more_words=more,
    )
    asyncio.run(_told(here, orders, as_json))


def _remote(base_url: str, model: str, workload: str, users: int, as_json: bool) -> None:
    """A server elsewhere. Its key is the setting `api_key`."""
    from trimtab.deploy import speed
    from trimtab.deployment import workload_named
    from trimtab.gathering import reading_of
    from trimtab.own_database import own_database
    from trimtab.settings import Settings

    settings = Settings.load()
    asked = workload_named(workload, lambda: own_database(settings), reading_of(settings))
    endpoint = speed.Endpoint(base_url.rstrip("/"), model, settings.api_key.get_secret_value())

    async def both() -> list[speed.Speed]:
        await speed.measure(endpoint, asked.part(-1, 1), 1)
        alone = await speed.measure(endpoint, asked.part(0, 5), 1)
        return [alone, await speed.measure(endpoint, asked.part(5, 3 * users), users)] if users > 1 else [alone]

    for found in asyncio.run(both()):
        if as_json:
            typer.echo(json.dumps(asdict(found)))
            continue
        many = "1 user" if found.users == 1 else f"{found.users} users"
        gaps = f"{found.gap_p50:.3f} s a piece (p95 {found.gap_p95:.3f})"
        typer.echo(
            f"{model}, {many}: first word {found.first_p50:.2f} s (p95 {found.first_p95:.2f}), then {gaps}, "
            f"{found.rate.value:.1f} tokens/s each, {found.total:.1f} together"
        )


async def _told(here: Deploying, orders: Orders, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeElapsedColumn

    from trimtab.cli.show import plain
    from trimtab.deploy.campaign import Began, Done, LeftOut, run

    console = Console(stderr=True, highlight=False)
    console.print(
        f"{here.variants.facts.name} on {here.machine.fingerprint}; at most {orders.seconds / 60:.0f} minutes"
    )
    columns = ("{task.description}", BarColumn(), "{task.completed:.0f}/{task.total:.0f}", TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("measuring", total=len(orders.variants))
        async for step in run(orders, here.variants, here.results):
            match step:
                case Began():
                    told = f"{step.candidate.name}, {step.left_seconds / 60:.0f} minutes left"
                    bar.update(task, description=told, completed=step.number - 1, total=step.of)
                    if not console.is_terminal:  # a log gets a line instead of a bar
                        console.print(f"[{step.number}/{step.of}] {told}", markup=False, style="dim")
                case Done(row=row):
                    bar.advance(task)
                    if as_json:
                        typer.echo(json.dumps(asdict(row), default=str))
                    else:
                        _say(console, row, step.before, here.variants.could_be_fitted(row.candidate.variant))
                case LeftOut():
                    bar.advance(task)
                    console.print(plain(f"{step.candidate.name}: {step.reason}"), markup=False, style="yellow")
    if not as_json:
        console.print("Now choose: trimtab plan choose")


def _say(console: Console, row: Measured, before: bool, could_be_fitted: bool) -> None:
    """A row in words, and how to repeat it."""
    together, quality = row.together, row.quality
    noise = "; the machine was busy" if row.load_before > 0.5 else ""
    lost = f", perplexity {quality.perplexity.value:.2f}, loss {quality.loss.value:+.1%}" if quality else ""
    if row.answers:
        shares = (("tools", row.answers.tools), ("cited", row.answers.cited), ("people", row.answers.preferences))
        lost += "".join(f", {name} {one.value:.0%}" for name, one in shares if one)
        lost += f", reward {row.answers.reward.value:+.2f}" if row.answers.reward else ""
    size = f"{row.memory / 1e6:.0f} MB (estimated {row.estimated_memory / 1e6:.0f})"
    disk = f"disk {row.disk / 1e6:.1f} MB (estimated {row.estimated_disk / 1e6:.1f})"
    speed = f"{row.alone.rate.value:.0f} tokens/s alone, {together.total:.0f} for {together.users}"
    typer.echo(
        f"{row.candidate.name}{' (measured before)' if before else ''}: first word {together.first_p50:.2f} s "
        f"(p95 {together.first_p95:.2f}), {speed}, {size}, {disk}, start {row.start_seconds:.1f} s{lost}{noise}"
    )
    console.print(f"    {row.command}", markup=False, style="dim", soft_wrap=True)
    if could_be_fitted:
        fit = f"trimtab models calibrate {row.candidate.variant.student}".strip()
        console.print(f"    Rounded to the nearest; fitted to texts it loses less: {fit}", markup=False, soft_wrap=True)
