"""The server that the pages talk to in these tests."""

from __future__ import annotations

import pytest

from trimtab_ui import session
from ui.standin import Standin


@pytest.fixture
def standin() -> Standin:
    """What stands in; a module whose pages need more of a server has its own."""
    return Standin()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, standin: Standin) -> Standin:
    """The same, in place of the connection."""
    client = standin.client()
    monkeypatch.setattr(session, "client", lambda: client)
    return standin
