"""A turn in the terminal. Everything a model, a tool or a document says loses its control characters first."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text


def plain(text: object) -> str:
    """Text that cannot move the cursor, change colours or reverse its direction."""
    kept = (c for c in str(text) if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))
    return "".join(kept)


def compared(event: Mapping[str, Any]) -> str:
    """In words which of several answers was given."""
    if event["trouble"]:
        return plain(f"the answers could not be compared, so this is the first: {event['trouble']}")
    told = "  ".join(f"{score:+.2f}" for score in sorted(event["scores"], reverse=True))
    return plain(f"the best of {len(event['scores'])} by the reward model of {event['by']} ({told})")


class Show:
    """Prints events as they come. Steps go to stderr, the answer to stdout, so that a pipe gets the answer alone."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._side = Console(stderr=True, highlight=False)
        self._printed = ""
        self._answer = ""

    def event(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "passages.found" if event["used"]:
                names = dict.fromkeys(plain(p["name"]) for p in event["passages"])
                self._note(f"read {len(event['passages'])} passages from {', '.join(names)}")
            case "tool.requested":
                arguments = plain(json.dumps(event["arguments"], ensure_ascii=False))
                self._note(f"{plain(event['tool'])} {arguments}")
            case "tool.finished":
                self._note(f"{plain(event['tool'])}: {event['status']} in {event['seconds']:.1f} s")
            case "answers.sampled":
                self._note(f"writing {event['n']} answers, to give you the best")
            case "answers.compared":
                self._note(compared(event))
            case "text.delta":
                self._answer += event["text"]
                self._write(plain(event["text"]))
            case "text.replaced":
                self._note(plain(event["reason"]))
                if event["text"] != self._answer:
                    self._write(("\n" if self._answer else "") + plain(event["text"]))
                    self._answer = event["text"]
            case "turn.finished":
                self._finish(event)
            case "turn.failed":
                self._side.print(Text(plain(event["message"]), style="red"))

    def confirm(self, event: Mapping[str, Any]) -> bool:
        """Ask the person whether a call may be made."""
        self._side.print(Text(f"\n{plain(event['tool'])} wants to run with", style="bold yellow"))
        self._side.print(Text(plain(json.dumps(event["arguments"], indent=2, ensure_ascii=False))))
        self._side.print(Text(plain(event["reason"])))
        if not sys.stdin.isatty():
            self._side.print(Text("Nobody is here to approve it: rejected."))
            return False
        return self._side.input("Allow this once? [y/N] ").strip().lower() in ("y", "yes")

    def _finish(self, event: Mapping[str, Any]) -> None:
        self._write("\n")
        for citation in event["citations"]:
            title = " › ".join((citation["title"], *citation["heading"]))
            where = citation["url"] or (
                f"characters {citation['span']['start']}-{citation['span']['end']}" if citation["span"] else ""
            )
            self._side.print(Text(plain(f"[{citation['number']}] {title} {where}"), style="cyan"))
        for doubt in event["unsupported"]:
            self._side.print(Text(f"not in the sources: {plain(doubt)}", style="yellow"))
        lineage, timing = event["lineage"], event["timing"]
        stopped = "stopped, " if event["status"] == "cancelled" else ""
        self._note(f"{stopped}{lineage['model']}, {timing['total']:.1f} s")

    def _note(self, text: str) -> None:
        self._side.print(Text(text, style="dim"))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
