"""What a plan reaches and how it is used: looked up before anything starts, and made settings.

A plan that names connectors or MCP servers is for exactly those; without names whatever is switched on is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import httpx
from sqlalchemy import Connection, select

from trimtab.connect.auth import ApiKey, Basic, Bearer, ClientCredentials, OAuth
from trimtab.connect.mcp import Servers
from trimtab.connect.toolbox import Toolbox
from trimtab.deploy.plan import SERVED, Authentication, Deployment, Outside
from trimtab.domain.errors import EngineError, ImpossibleBudget, InvalidInput, NotFound
from trimtab.own_database import open_database
from trimtab.settings import Settings
from trimtab.store.documents import documents

WAYS: dict[type, Authentication] = {
    ApiKey: "key",
    Bearer: "bearer",
    Basic: "basic",
    ClientCredentials: "client-credentials",
    OAuth: "oauth",
}
WELL = ("none", "ready", "optional")
"""What a connector says of its sign-in when it can be called."""
REACH_SECONDS = 5.0


def collections(connection: Connection) -> set[str]:
    """The collections that hold a document, anybody's."""
    return set(connection.execute(select(documents.c.collection).distinct()).scalars())


def refuse_unknown(plan: Deployment, toolbox: Toolbox, servers: Servers, known: Collection[str]) -> None:
    """Refuse what is not here, or cannot be called.

    Args:
        known: the collections that hold a document.

    Raises:
        NotFound: a connector, MCP server or collection of the plan is not here; names those that are.
        InvalidInput: it knows us in another way than the plan says, or is not signed in to.
    """
    outside = plan.resources
    added = [str(one["name"]) for one in servers.listed()]
    own = [one.name for one in toolbox.connectors if one.name not in added]
    for kind, named, there, make in (
        ("connector", outside.connectors, own, "trimtab connectors list"),
        ("MCP server", outside.mcp_servers, added, "trimtab connectors mcp add"),
    ):
        for one in named:
            if one.name not in there:
                raise NotFound(
                    f"The plan names the {kind} {one.name!r}, and there is none of that name here. There are: "
                    f"{', '.join(there) or 'none'}. See: {make}",
                    kind=kind,
                    name=one.name,
                )
            _refuse_sign_in(one, kind, toolbox)
    for name in outside.collections:
        if name not in known:
            raise NotFound(
                f"The plan names the collection {name!r}, and no document is in it. There are: "
                f"{', '.join(sorted(known)) or 'none'}. Add some: trimtab ingest --collection",
                kind="collection",
                name=name,
            )


def _refuse_sign_in(one: Outside, kind: str, toolbox: Toolbox) -> None:
    status = toolbox.connector(one.name)
    if status.error:
        raise InvalidInput(f"The plan names the {kind} {one.name!r}, which cannot be loaded: {status.error}")
    auth = toolbox.sign_in(one.name).auth
    way = WAYS.get(type(auth), "none")
    if one.authentication != way and kind == "connector":
        raise InvalidInput(
            f"The plan says that the connector {one.name!r} knows us by {one.authentication!r}, and it is {way!r}. Set "
            "its `authentication` to that."
        )
    if status.auth not in WELL:
        raise InvalidInput(
            f"The plan names the {kind} {one.name!r}, which is not signed in to ({status.auth}). "
            f"Run: trimtab connectors auth {one.name}"
        )


def as_settings(plan: Deployment) -> dict[str, Any]:
    """The settings that reach what the plan reaches, and serve the faces that it wants.

    Raises:
        InvalidInput: it wants nothing that is served.
    """
    faces = [face for face in SERVED if face in plan.interface.faces]
    if not faces:
        raise InvalidInput(
            f"The plan is used by {' and '.join(plan.interface.faces)} only, and nothing is served for that. Run: "
            "trimtab chat, or open it in Python (docs/python-api.md). Or add web, api or mcp to interface.faces."
        )
    resources = plan.resources
    only = [one.name for one in (*resources.connectors, *resources.mcp_servers)]
    return {"faces": faces, "connectors_only": only, "collections": list(resources.collections)}


def refuse_remote(plan: Deployment, key: str) -> None:
    """See that the server elsewhere that a plan names can be paid and reached; nothing to see where it names none.

    Raises:
        ImpossibleBudget: its tokens cost more than the plan allows.
        EngineError: it does not answer like a server of OpenAI's protocol, or knows no such model.
    """
    remote, most = plan.remote, plan.budget.money_per_million
    if remote.price_per_million > most:
        raise ImpossibleBudget(
            f"A million tokens of {plan.model} cost {remote.price_per_million:g}, and the plan allows {most:g}. Set "
            "budget.money_per_million to that, or choose another model.",
            wanted=remote.price_per_million,
            there=most,
        )
    if not remote.base_url:
        return
    url = f"{remote.base_url.rstrip('/')}/models"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        found = httpx.get(url, headers=headers, timeout=REACH_SECONDS, trust_env=False)
        found.raise_for_status()
        names = [str(one["id"]) for one in found.json()["data"]]
    except httpx.HTTPStatusError as error:
        raise EngineError(
            f"{url} answers {error.response.status_code}. Check remote.base_url of the plan, and the setting `api_key`."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EngineError(
            f"No server answers at {url} ({type(error).__name__}). Start it, or check remote.base_url of the plan."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{url} is no server of OpenAI's protocol. Check remote.base_url of the plan.") from error
    if plan.model not in names:
        raise EngineError(
            f"{remote.base_url} serves no model {plan.model!r}. It has: {', '.join(names[:20]) or 'none'}. Set `model` "
            "of the plan to one of them."
        )


def refuse_unreachable(plan: Deployment, settings: Settings) -> None:
    """All of the above, with the parts opened for it and closed again: for who runs beside no server, or before it.

    Raises: as `refuse_remote` and `refuse_unknown` do.
    """
    from trimtab.own_connectors import open_connectors

    refuse_remote(plan, settings.api_key.get_secret_value())
    if not (plan.resources.connectors or plan.resources.mcp_servers or plan.resources.collections):
        return
    database = open_database(settings)
    try:
        known = database.read_sync(collections)
    finally:
        database.close()
    toolbox, servers, _ = open_connectors(settings)
    try:
        refuse_unknown(plan, toolbox, servers, known)
    finally:
        asyncio.run(toolbox.aclose())
