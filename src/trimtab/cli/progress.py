"""How far something that takes long has come, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

    from trimtab.llm.shelf import OnProgress, Progress


@contextmanager
def progress_of(what: str, *, in_bytes: bool = False) -> Iterator[OnProgress]:
    """A bar on a terminal, a line in a log; each thing that is told of has a bar of its own."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr)
    how_far = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (TaskProgressColumn(),)
    columns = ("{task.description}", BarColumn(), *how_far, TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(step: Progress) -> None:
            if not tasks and not console.is_terminal:  # a log gets one line instead of bars
                typer.echo(f"{what} …", err=True)
            if step.what not in tasks:
                tasks[step.what] = bar.add_task(step.what, total=step.total or None)
            bar.update(tasks[step.what], completed=step.done)

        yield show
