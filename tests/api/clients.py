"""Clients of an app's whole HTTP side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.own_database import LOCAL_USER
from trimtab.store import people


async def new_key(app: Trimtab, user: str = LOCAL_USER) -> str:
    return await app.database.write(people.create_key, user, "a test")


@asynccontextmanager
async def client_of(app: Trimtab, *, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app's whole HTTP side, without a socket between. It sees a response when it is complete."""
    headers = {"Authorization": f"Bearer {key or await new_key(app)}"}
    transport = httpx.ASGITransport(create_app(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=30
    ) as client:
        yield client
