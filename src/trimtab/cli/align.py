"""`trimtab align`: from feedback to a better version of the model, with evidence."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.align.jobs import Job, Jobs
    from trimtab.training import Trainings

app = typer.Typer(no_args_is_help=True, help="Train the model on feedback, and see whether it got better.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line a report.")]
JobId = Annotated[str, typer.Argument(help="A job's id, or the beginning of it, from `trimtab align status`.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the policy.")]
Name = Annotated[str, typer.Option(help="What to call the version.")]
Seed = Annotated[int, typer.Option(min=0, help="Chance; the same seed gives the same version.")]
Detach = Annotated[bool, typer.Option("--detach", help="Only queue it; a running server does it.")]


class Whose(StrEnum):
    """Whose judgement the demo learns from."""

    PEOPLE = "people"
    CONSTITUTION = "constitution"
    BOTH = "both"


DEMO_PRINCIPLES = ["harmless", "helpful", "sense"]
"""Those whose judge, the default model itself, agrees with people (docs/alignment.md)."""
DEMOS: dict[Whose, tuple[str, dict[str, Any]]] = {
    Whose.PEOPLE: ("demo-rlhf", {"bundled": True}),
    Whose.CONSTITUTION: (
        "demo-rlaif",
        {"bundled": True, "constitution": True, "human_weight": 0.0, "principles": DEMO_PRINCIPLES},
    ),
}
"""What the version is called, and what it learns from."""
DEMO_POLICY = {"steps": 12, "learning_rate": 1.4e-3}
"""Few and large steps: it has to be over in minutes."""
DEMO_GATE = {"probe_questions": 20, "tool_questions": 12, "cited_questions": 16}


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A TOML file; docs/alignment.md says what it may hold.")],
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Do what a recipe says: reward model, policy, examination, verdict."""
    from trimtab.align.recipe import read

    order(read(recipe).model_dump(), detach, as_json)


@app.command()
def rlhf(
    name: Name = "from-feedback",
    bundled: Annotated[bool, typer.Option(help="Learn from the data set that comes with Trimtab, too.")] = False,
    labels_only: Annotated[bool, typer.Option("--labels-only", help="Learn from 0/1 labels alone.")] = False,
    method: Annotated[str, typer.Option(help="ppo, grpo, rloo, dpo, kto or sft.")] = "ppo",
    steps: Steps = None,
    seed: Seed = 0,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Learn from what people said here."""
    data = {"bundled": bundled, "feedback": True, "labels_only": labels_only}
    order(_recipe(name, data, method, steps, seed), detach, as_json)


@app.command()
def rlaif(
    name: Name = "constitutional",
    steps: Steps = None,
    seed: Seed = 0,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Learn from the model's own judgement under the constitution."""
    data = {"bundled": True, "constitution": True, "human_weight": 0.0}
    order(_recipe(name, data, "ppo", steps, seed), detach, as_json)


@app.command()
def demo(
    by: Annotated[Whose, typer.Option(help="Whose judgement it learns from.")] = Whose.PEOPLE,
    steps: Steps = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """See it work on the bundled data: learn from people's judgement, or from the model's own under a constitution."""
    for whose, (name, data) in DEMOS.items():
        if by in (whose, Whose.BOTH):
            recipe = _recipe(name, data, "ppo", steps, seed)
            order(recipe | {"policy": DEMO_POLICY | recipe["policy"], "gate": DEMO_GATE}, False, as_json)
    if by is Whose.PEOPLE:
        typer.echo("Next, without any person's judgement: trimtab align demo --by constitution", err=True)


@app.command()
def again(
    version: Annotated[str, typer.Argument(help="A version's id or name, from `trimtab models versions`.")],
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Train by a version's recipe once more, on the feedback that is there now: without what was deleted since."""
    from trimtab.store import versions
    from trimtab.training import recipe_of

    with _trainings() as trainings:
        row = trainings.database.read_sync(versions.get, version)
    order(recipe_of(row), detach, as_json)


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(help="One job; none lists all.")] = None, as_json: AsJson = False
) -> None:
    """Show the jobs and how they stand."""
    jobs = _jobs()
    found = [_find(jobs, job)] if job else jobs.listed()
    rows = [_row(jobs, one) for one in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No job was ever started. See it work: trimtab align demo")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "what", "name", "state", "done", "stage", "verdict", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("id", "kind", "name", "status", "done", "stage", "verdict")))
    Console(highlight=False).print(table)
    for row in rows:
        if row["message"]:
            typer.echo(f"{row['id']}: {row['message']}")
    if any(row["status"] in ("queued", "running") for row in rows) and not jobs.attended():
        typer.echo("Nothing works on them now. They go on where they were when a server runs: trimtab up")


@app.command()
def watch(job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end."""
    jobs = _jobs()
    _follow(jobs, _find(jobs, job), as_json)


@app.command()
def logs(job: JobId) -> None:
    """Print the end of what a job's process said."""
    from trimtab.cli.show import plain

    jobs = _jobs()
    typer.echo(plain(jobs.log(_find(jobs, job))))


@app.command()
def pause(job: JobId) -> None:
    """Let a job rest at its next checkpoint, its memory freed."""
    jobs = _jobs()
    typer.echo(f"It is {jobs.pause(_find(jobs, job)).status.value} and rests at its next checkpoint.")


@app.command()
def resume(job: JobId) -> None:
    """Queue a job that rests, failed or was cancelled; it goes on where it was."""
    jobs = _jobs()
    typer.echo(f"It is {jobs.resume(_find(jobs, job)).status.value}. A running server goes on with it.")


@app.command()
def cancel(job: JobId) -> None:
    """End a job at its next checkpoint."""
    jobs = _jobs()
    jobs.cancel(_find(jobs, job))
    typer.echo("It ends at its next checkpoint.")


@app.command()
def score(
    prompt: Annotated[str, typer.Argument(help="What was asked.")],
    completion: Annotated[str, typer.Argument(help="The answer to score.")],
    job: Annotated[str | None, typer.Option(help="Whose reward model; none means the latest trained.")] = None,
) -> None:
    """Score an answer with a trained reward model. 0 is the base model's average answer, 1 a deviation better."""
    from trimtab.domain.errors import NotFound
    from trimtab.reward import has_reward, reward_of

    jobs = _jobs()
    found = _find(jobs, job) if job else reward_of(jobs)
    if not has_reward(found):
        raise NotFound(f"Job {found.id} has no reward model. Those of all jobs: trimtab align status")
    from trimtab.domain.judgement import Said
    from trimtab.scoring import Bench

    typer.echo(f"{Bench(found.folder).scores([Said('user', prompt)], [completion])[0]:+.3f}")


# ---------------------------------------------------------------------- ordering and following


def _recipe(name: str, data: Mapping[str, Any], method: str, steps: int | None, seed: int) -> dict[str, Any]:
    policy = {"steps": steps} if steps else {}
    return {"name": name, "method": method, "seed": seed, "data": dict(data), "policy": policy}


def order(recipe: Mapping[str, Any], detach: bool, as_json: bool, kind: str = "align") -> None:
    """Through the running server if there is one, else in this process's own foreman."""
    import asyncio

    from trimtab.cli.talk import checked, running_server
    from trimtab.settings import Settings

    settings = Settings.load()
    if (server := running_server(settings)) is not None:

        async def send() -> Any:
            async with server:
                return checked(await server.post("/v1/jobs", json={"kind": kind, "recipe": recipe}))

        job_id = asyncio.run(send())["id"]
        jobs = _jobs()
        typer.echo(f"Job {job_id} is queued at the running server.", err=True)
        if not detach:
            _follow(jobs, jobs.get(job_id), as_json)
        return
    with _trainings() as trainings:
        job = asyncio.run(trainings.submit(kind, recipe, by="local"))
        typer.echo(f"Job {job.id} is queued.", err=True)
        if detach:
            typer.echo("It begins when a server runs: trimtab up", err=True)
            return
        with trainings.working():
            _follow(trainings.jobs, job, as_json)
        asyncio.run(trainings.collect())


@contextlib.contextmanager
def _trainings() -> Iterator[Trainings]:
    """The parts that training needs, without an engine: nobody is answered meanwhile."""
    from trimtab.own_database import open_database
    from trimtab.registry.registry import Registry
    from trimtab.settings import Settings
    from trimtab.training import Trainings

    settings = Settings.load()
    database = open_database(settings)
    try:
        yield Trainings(settings, database, Registry(settings.versions_dir))
    finally:
        database.close()


def _jobs() -> Jobs:
    from trimtab.align.jobs import Jobs
    from trimtab.settings import Settings

    return Jobs(Settings.load().jobs_dir)


def _find(jobs: Jobs, given: str) -> Job:
    """By id or by an unmistakable beginning or end of it."""
    found = [job for job in jobs.listed() if job.id.startswith(given) or job.id.endswith(given)]
    return found[0] if len(found) == 1 else jobs.get(given)


def _row(jobs: Jobs, job: Job) -> dict[str, Any]:
    state = jobs.state(job)
    evidence = state.result.get("evidence", {})
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.recipe.get("recipe", job.recipe).get("name", ""),
        "status": state.status.value,
        "done": f"{state.done / state.total:.0%}" if state.total else "",
        "stage": state.stage,
        "eta": state.eta,
        "message": state.message,
        "verdict": evidence.get("verdict", ""),
        "version": state.result.get("version", ""),
    }


def _follow(jobs: Jobs, job: Job, as_json: bool) -> None:
    """Print what a job reports until it ends. Ctrl-C stops following; the job goes on where a server runs."""
    from rich.console import Console

    console, seen = Console(highlight=False), 0
    while True:
        state = jobs.state(job)
        for line in jobs.progress(job, after=seen):
            seen += 1
            typer.echo(json.dumps(line)) if as_json else _tell(console, line)
        if state.status.final or state.status.value == "paused":
            break
        time.sleep(0.5)
    if as_json:
        typer.echo(json.dumps(_row(jobs, job)))
    else:
        _ended(console, jobs, job)
    if state.status.value != "done":
        sys.exit(1)


_SHOWN = {
    "reward": ("loss", "accuracy"),
    "judge": ("loss", "accuracy"),
    "revised": ("loss",),
    "training": ("loss", "same"),
    "policy": ("reward", "kl_sequence", "entropy", "tokens", "distinct", "held_out", "loss"),
}


def _tell(console: Console, line: Mapping[str, Any]) -> None:
    from trimtab.cli.show import plain

    stage = str(line.get("stage", ""))
    if stage in _SHOWN:
        facts = [f"{key} {line[key]:.3f}" for key in _SHOWN[stage] if isinstance(line.get(key), float)]
        console.print(f"{stage:8} {line['step']:>4}/{line['steps']}  {'  '.join(facts)}", markup=False)
    elif stage == "revision":
        by = ", ".join(f"{count} by {who}" for who, count in line["by"].items() if count)
        console.print(f"revision: {line['revised']} of {line['answers']} answers ({by})", markup=False)
    elif stage == "revised report":
        console.print(f"revised: {line['kl']:.2f} nats from the base", markup=False)
    elif stage.endswith(" report"):
        console.print(f"{stage}: {line['accuracy']:.0%} of {line['rows']} held-out judgements right", markup=False)
    elif stage == "judges":
        for found in line["agreement"]:
            console.print(f"judge of {found['principle']}: {found['why']}", markup=False)
    else:
        facts = [_fact(key, value) for key, value in line.items() if key not in ("at", "stage", "datasets")]
        console.print(plain(f"{stage}: {'; '.join(facts)}"), markup=False)


def _fact(key: str, value: Any) -> str:
    if key == "text":
        return str(value)
    if isinstance(value, Mapping):
        return f"{key} {', '.join(f'{count} {what}' for what, count in value.items())}"
    return f"{key} {value}"


def _ended(console: Console, jobs: Jobs, job: Job) -> None:
    from rich.table import Table

    from trimtab.cli.show import plain

    state = jobs.state(job)
    if state.message:
        console.print(state.message, markup=False)
    if made := state.result.get("student"):
        console.print(f"Student: {made}. See what it is worth: trimtab measure --variant openvino/int8@{made}")
    evidence = state.result.get("evidence", {})
    if not evidence:
        return
    table = Table("check", "", "found", "wanted", box=None, pad_edge=False)
    for check in evidence["checks"]:
        table.add_row(check["name"], "ok" if check["passed"] else "NO", check["found"], check["wanted"])
    console.print(table)
    for sample in evidence.get("samples", [])[:3]:
        for key in ("prompt", "before", "after"):
            console.print(f"{key:>7}: {plain(sample[key])}", markup=False)
    console.print(f"Verdict: {evidence['verdict']} ({evidence['verdict_reason']})", markup=False)
    console.print(
        f"Version: {state.result['version']}. Let it answer: trimtab models promote {state.result['version']}"
    )
