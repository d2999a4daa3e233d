"""The learning curve on disk and on the wire: checkpoints in a folder, and a point of plain figures for each.

    folder/
      000005.safetensors    the player after five updates
      curve.json            the points so far

`trimtab learn` and the background job write the same folder. Reading one needs no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .training import Step

CURVE = "curve.json"
_FILE = re.compile(r"\d{6,}\.safetensors")


def kept(steps: Iterator[Step], folder: Path) -> Iterator[Step]:
    """Keep every checkpoint, and the curve so far beside them; a crash leaves the files of the step before."""
    points: list[dict[str, Any]] = []
    for step in steps:
        step.checkpoint.save(folder / f"{step.point.update:06d}.safetensors")
        points.append(asdict(step.point))
        part = folder / f"{CURVE}.part"
        part.write_text(json.dumps(points, indent=1), "utf-8")
        part.replace(folder / CURVE)
        yield step


def figures(point: Mapping[str, Any]) -> dict[str, Any]:
    """A `training.Point` as a dictionary, as one flat line of what a curve shows. Counts are of lines of play (a
    different sequence of moves each) and of states; see `exam`."""
    report = point["report"]
    plain = ("update", "games", "seconds", "reward", "entropy", "value_loss", "done")
    return {name: point[name] for name in plain} | {
        "lost_as_x": report["x"]["losses"],
        "lines_as_x": report["x"]["lines"],
        "lost_as_o": report["o"]["losses"],
        "lines_as_o": report["o"]["lines"],
        "given_away": report["not_lost"] - report["kept"],
        "not_lost": report["not_lost"],
        "lost_to_random": report["random"]["loss"],
        "lost_to_perfect": report["perfect"]["loss"],
        "value_correlation": report["value_correlation"],
        "never_loses": report["x"]["losses"] + report["o"]["losses"] == 0,
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """The points of a folder whose checkpoint is there, in order. A curve that cannot be read is none."""
    try:
        points = [figures(point) for point in json.loads((folder / CURVE).read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [p for p in points if (folder / f"{int(p['update']):06d}.safetensors").is_file()]


def checkpoint_file(folder: Path, name: str) -> Path | None:
    """The file of a checkpoint by its name (``000005``); None when there is none."""
    file = f"{name}.safetensors"
    return folder / file if _FILE.fullmatch(file) and (folder / file).is_file() else None
