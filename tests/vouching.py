"""A badge for the notes connector, as whoever runs `trimtab connectors check` has one."""

from __future__ import annotations

from pathlib import Path

import connector_notes
from trimtab.connect.conformance.badge import Badges
from trimtab.connect.conformance.runner import check


def vouch_for_notes(home: Path) -> None:
    """Its whole check is a test of its own; here the quick lines are enough to sign."""
    Badges(home).award(check(connector_notes.connector, only=("DECL", "SCHEMA")))
