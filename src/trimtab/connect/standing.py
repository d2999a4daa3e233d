"""How far a connector is vouched for: by its badge, by the release it came with, or not at all.

A connector that nobody vouches for runs read-only: its tools that change something are refused. Who asks whether it is
vouched for is the toolbox; who knows is handed to it (`trimtab.connect.conformance.badge.Badges`).
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.domain.errors import Forbidden


@dataclass(frozen=True)
class Standing:
    """`state` is for programs, `reason` for people; only a `vouched` connector may do more than read."""

    state: str
    """``current`` (a badge of this very source), ``release`` (built in), ``caller`` (badges are not looked at),
    ``approved`` (an MCP server's tools, each of which a person has approved as it is), else
    ``missing``, ``outdated`` (made for another source or version), ``failed`` (the check found something),
    ``unsigned`` (damaged, or signed with another key)."""
    reason: str = ""
    checked_at: str = ""
    """When the badge was made; ISO 8601, UTC."""

    @property
    def vouched(self) -> bool:
        return self.state in ("current", "release", "caller", "approved")


CALLER = Standing("caller", "Badges are not looked at: the program that made this toolbox vouches for its connectors.")


def read_only(connector: str, tool: str, effect: str, standing: Standing) -> Forbidden:
    """What a tool that changes something raises when its connector is not vouched for."""
    return Forbidden(
        f"{tool} was not run: it is declared '{effect}', and connector {connector!r} runs read-only. {standing.reason} "
        f"Run: trimtab connectors check {connector}",
        badge=standing.state,
        connector=connector,
    )
