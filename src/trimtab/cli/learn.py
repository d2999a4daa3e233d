"""`trimtab learn`: reinforcement learning where it can be watched and proved, on a board of Tic-Tac-Toe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.align.classroom.extra import needed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from trimtab.align.classroom.exam import Report
    from trimtab.align.classroom.player import Policy
    from trimtab.align.classroom.rollout import Thought
    from trimtab.align.classroom.training import Point, Step

app = typer.Typer(no_args_is_help=True, help="Watch reinforcement learning work, on Tic-Tac-Toe.")


class Algorithm(StrEnum):
    PPO = "ppo"
    Q = "q"


class OpponentChoice(StrEnum):
    SELF = "self"
    MIXTURE = "mixture"
    RANDOM = "random"
    PERFECT = "perfect"


class SideChoice(StrEnum):
    X = "X"
    O = "O"  # noqa: E741 -- the game's own letter


@app.command()
def tictactoe(
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Chance; another seed is another player.")] = 0,
    games: Annotated[
        int | None, typer.Option(min=1, max=100_000_000, help="At most; it ends when the exam is passed.")
    ] = None,
    opponent: Annotated[OpponentChoice, typer.Option(help="Whom it learns against (ppo only).")] = OpponentChoice.SELF,
    algorithm: Annotated[Algorithm, typer.Option(help="ppo, or the table of Q-learning.")] = Algorithm.PPO,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints and the curve.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curve as JSON, a line a point.")] = False,
) -> None:
    """Train a player until it is proved never to lose, and show how it went."""
    with needed():
        from rich.console import Console

        from trimtab.align.classroom import curve

        steps = _training(algorithm, seed, games, opponent)
        folder = out or _folder() / f"tictactoe-{algorithm}-{seed}"
        console = Console()
        points = list(_shown((step.point for step in curve.kept(steps, folder)), console, quiet=as_json))
    if as_json:
        return
    console.print(_curve(points))
    _verdict(points[-1], console)
    console.print(f"Checkpoints are in {folder}. Play against the last one: trimtab learn play", soft_wrap=True)


@app.command()
def play(
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint; none means the latest trained.")] = None,
    side: Annotated[SideChoice, typer.Option(help="Yours. X begins.")] = SideChoice.X,
    think: Annotated[bool, typer.Option("--think", help="Show what the player thinks before it moves.")] = False,
) -> None:
    """Play against a checkpoint. Positions are 1 to 9, row by row."""
    with needed():
        from rich.console import Console

        from trimtab.align.classroom.checkpoint import open_checkpoint

        policy = open_checkpoint(checkpoint or _latest()).policy
        _game(policy, side, Console(highlight=False), think)


@app.command()
def words() -> None:
    """Print the words of reinforcement learning, for Tic-Tac-Toe and for a language model."""
    from rich.console import Console
    from rich.table import Table

    from trimtab.align.classroom.words import WORDS

    table = Table("word", "Tic-Tac-Toe", "language model")
    for word in WORDS:
        table.add_row(word.word, word.tictactoe, word.language_model)
    Console().print(table)


def _folder() -> Path:
    from trimtab.settings import Settings

    return Settings.load().home / "learn"


def _latest() -> Path:
    from trimtab.domain.errors import NotFound

    files = sorted(_folder().glob("*/*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not files:
        raise NotFound("No player has been trained yet. Run: trimtab learn tictactoe")
    return files[-1]


def _training(algorithm: Algorithm, seed: int, games: int | None, opponent: OpponentChoice) -> Iterator[Step]:
    from trimtab.align.classroom import qlearning, training

    if algorithm is Algorithm.Q:
        return qlearning.train(qlearning.QConfig(seed=seed, games=games or qlearning.QConfig.games))
    most = games or training.TrainingConfig.games
    return training.train(training.TrainingConfig(seed=seed, games=most, opponent=opponent.value))


def _shown(points: Iterator[Point], console: Console, *, quiet: bool) -> Iterator[Point]:
    """Pass the points on; meanwhile a terminal sees the last of them live, and JSON gets a line each."""
    from dataclasses import asdict

    from rich.live import Live

    if quiet or not console.is_terminal:
        for point in points:
            if quiet:
                typer.echo(json.dumps(asdict(point)))
            yield point
        return
    seen: list[Point] = []
    with Live("Playing the first games …", console=console, transient=True) as live:
        for point in points:
            seen.append(point)
            live.update(_curve(seen[-10:]))
            yield point


COLUMNS: tuple[tuple[str, Callable[[Point], str]], ...] = (
    ("games", lambda p: f"{p.games:,}"),
    ("seconds", lambda p: f"{p.seconds:.1f}"),
    ("lost as X", lambda p: f"{p.report.x.losses}/{p.report.x.lines}"),
    ("as O", lambda p: f"{p.report.o.losses}/{p.report.o.lines}"),
    ("given away", lambda p: f"{p.report.not_lost - p.report.kept}"),
    ("to random", lambda p: f"{p.report.random.loss:.2%}"),
    ("to perfect", lambda p: f"{p.report.perfect.loss:.2%}"),
    ("value", lambda p: f"{p.report.value_correlation:.3f}"),
    ("entropy", lambda p: f"{p.report.entropy:.2f}"),
)
"""Lines of play lost as either side; states given away; games lost to two opponents; the values' correlation with the
true ones; nats a decision."""


def _curve(points: list[Point]) -> Table:
    from rich.table import Table

    table = Table(*(title for title, _ in COLUMNS))
    for point in points:
        table.add_row(*(cell(point) for _, cell in COLUMNS))
    return table


def _verdict(point: Point, console: Console) -> None:
    report: Report = point.report
    lines = report.x.lines + report.o.lines
    if report.passed:
        console.print(
            f"[bold green]Passed.[/] It loses none of the {lines:,} lines of play that are possible against it, and"
            f" gives away none of the {report.not_lost:,} states that are not lost: nobody beats it."
        )
    elif report.never_loses:
        console.print(
            f"[bold green]It never loses[/] from the empty board: none of {lines:,} lines. In"
            f" {report.not_lost - report.kept} states that its own play does not lead to it would give the game away."
        )
    else:
        lost = report.x.lost_lines + report.o.lost_lines
        shown = "; ".join(" ".join(str(position + 1) for position in line) for line in lost[:3])
        losses = report.x.losses + report.o.losses
        console.print(f"[bold red]Not passed.[/] It loses {losses:,} of {lines:,} lines of play, such as {shown}.")
        console.print("More games help: --games. So does another opponent: --opponent self.")


def _game(policy: Policy, side: SideChoice, console: Console, think: bool) -> None:
    from trimtab.align.classroom import board, rollout

    state = board.EMPTY
    while not board.OVER[state]:
        console.print(_drawn(board.show(state)))
        if board.mover(state) == side:
            position = _asked(board.FREE[state].nonzero()[0].tolist())
        else:
            thought = rollout.think(policy, board.show(state))
            position = int(policy.greedy[state].argmax())
            console.print(f"{thought.mover} takes {position + 1}.")
            if think:
                console.print(_told(thought))
        state = int(board.AFTER[state, position])
    console.print(_drawn(board.show(state)))
    if not board.LOST[state]:
        console.print("A draw.")
    else:
        console.print("The player wins." if board.mover(state) == side else "You win.")


def _asked(free: list[int]) -> int:
    choices = ", ".join(str(position + 1) for position in free)
    while True:
        typer.echo(f"Your position ({choices}): ", nl=False)
        line = sys.stdin.readline()
        if not line:
            raise typer.Exit(1)
        if line.strip().isdecimal() and int(line) - 1 in free:
            return int(line) - 1
        typer.echo(f"One of {choices}, please.")


def _drawn(text: str) -> str:
    cells = [str(i + 1) if stone == "." else f"[bold]{stone}[/]" for i, stone in enumerate(text)]
    return "\n".join(" ".join(cells[i : i + 3]) for i in (0, 3, 6))


def _told(thought: Thought) -> str:
    chances = ", ".join(f"{i + 1}: {thought.probabilities[i]:.0%}" for i in thought.free)
    return f"  expects {thought.value:+.2f} (in truth {thought.truth:+d}); {chances}"
