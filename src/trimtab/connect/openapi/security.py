"""How an API wants to be signed in to, as the connector's own declaration.

A connector signs in one way. Of the ways its operations accept, the one that most of them accept is taken; a way that
needs two schemes at once is taken when one of them is enough to say it (an API key in two headers is not supported).
Secrets are named after the connector (``PETSTORE_KEY``) and kept where all secrets are, never in the document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.domain.errors import InvalidInput

from ..auth import ApiKey, Auth, Basic, Bearer, ClientCredentials, OAuth
from .document import Document
from .fault import Fault, Remark, below
from .parameters import TOKEN

Ways = tuple[frozenset[str], ...]
"""The alternatives of an operation's `security`: each a set of scheme names; an empty set means none is needed."""


@dataclass(frozen=True)
class Secured:
    """`auth` None means that nothing is sent."""

    auth: Auth | None = None
    scheme: str = ""


def ways(node: Mapping[str, Any], fallback: Ways) -> Ways:
    """The alternatives a node names; `fallback` (the document's) when it names none."""
    given = node.get("security")
    if not isinstance(given, list):
        return fallback
    return tuple(frozenset(map(str, one)) for one in given if isinstance(one, dict))


def secured(document: Document, name: str, wanted: Iterable[Ways], remarks: list[Remark], scheme: str = "") -> Secured:
    """The declaration for a connector of that name whose operations accept what `wanted` lists.

    `scheme` is a person's choice among the document's security schemes; ``none`` sends nothing.

    Raises:
        InvalidInput: the document has no such scheme, or it is of a kind that is not supported.
    """
    schemes, pointer = _schemes(document)
    if scheme == "none":
        return Secured()
    if scheme:
        if scheme not in schemes:
            raise InvalidInput(
                f"There is no security scheme {scheme!r}. The document has: {', '.join(schemes) or 'none'}."
            )
        return Secured(_auth(document, schemes[scheme], below(pointer, scheme), name, False), scheme)
    every = list(wanted)
    accepted = Counter(only for one in every for way in one if len(way) == 1 for only in way)
    optional = any(not one or frozenset() in one for one in every)
    for candidate, _ in accepted.most_common():
        where = below(pointer, candidate)
        try:
            if candidate not in schemes:
                raise Fault(where, "is named in `security` and not described")
            return Secured(_auth(document, schemes[candidate], where, name, optional), candidate)
        except Fault as fault:
            remarks.append(Remark(fault.pointer, f"not used to sign in: {fault.why}"))
    if every and not accepted and not optional:
        remarks.append(Remark(pointer, "nothing is sent to sign in: the operations want several schemes at once"))
    return Secured()


def _schemes(document: Document) -> tuple[dict[str, Any], str]:
    root = document.root
    if document.swagger:
        found, pointer = root.get("securityDefinitions"), "#/securityDefinitions"
    else:
        components = root.get("components")
        found = components.get("securitySchemes") if isinstance(components, dict) else None
        pointer = "#/components/securitySchemes"
    return (found if isinstance(found, dict) else {}), pointer


def _auth(document: Document, given: Any, pointer: str, name: str, optional: bool) -> Auth:
    node, pointer = document.follow(given, pointer)
    kind = node.get("type") if isinstance(node, dict) else None
    upper = name.upper()
    if kind == "basic" or (kind == "http" and str(node.get("scheme")).lower() == "basic"):
        return Basic(f"{upper}_USER", f"{upper}_PASSWORD", optional=optional)
    if kind == "http" and str(node.get("scheme")).lower() == "bearer":
        return Bearer(f"{upper}_TOKEN", optional=optional)
    if kind == "apiKey":
        return _api_key(node, pointer, upper, optional)
    if kind == "oauth2":
        return _oauth(node, pointer, upper, optional)
    if kind == "openIdConnect":
        return Bearer(f"{upper}_TOKEN", optional=optional)
    told = f"{kind} {node.get('scheme')}" if kind == "http" else str(kind)
    raise Fault(pointer, f"the way to sign in {told[:60]!r} is not supported")


def _api_key(node: Mapping[str, Any], pointer: str, upper: str, optional: bool) -> ApiKey:
    place, name = node.get("in"), str(node.get("name") or "")
    if place == "query" and name.isprintable() and 0 < len(name) <= 100:
        return ApiKey(f"{upper}_KEY", query=name, optional=optional)
    if place in ("header", "cookie") and TOKEN.match(name):
        if place == "cookie":
            return ApiKey(f"{upper}_KEY", header="Cookie", prefix=f"{name}=", optional=optional)
        return ApiKey(f"{upper}_KEY", header=name, optional=optional)
    raise Fault(pointer, "is no API key in a header, a query parameter or a cookie of a usable name")


def _oauth(node: Mapping[str, Any], pointer: str, upper: str, optional: bool) -> Auth:
    flows = node.get("flows") if isinstance(node.get("flows"), dict) else {str(node.get("flow")): node}
    assert isinstance(flows, dict)
    for names in (("authorizationCode", "accessCode"), ("clientCredentials", "application")):
        flow = next((flows[one] for one in names if isinstance(flows.get(one), dict)), None)
        if flow is None:
            continue
        scopes = tuple(sorted(map(str, flow["scopes"])))[:50] if isinstance(flow.get("scopes"), dict) else ()
        scopes = tuple(scope for scope in scopes if scope.isascii() and scope.isprintable() and " " not in scope)
        try:
            if names[0] == "authorizationCode":
                return OAuth(
                    authorize_url=str(flow.get("authorizationUrl")),
                    token_url=str(flow.get("tokenUrl")),
                    client_id_env=f"{upper}_CLIENT_ID",
                    scopes=scopes,
                )
            return ClientCredentials(
                token_url=str(flow.get("tokenUrl")),
                client_id_env=f"{upper}_CLIENT_ID",
                client_secret_env=f"{upper}_CLIENT_SECRET",
                scopes=scopes,
            )
        except InvalidInput:
            continue  # its addresses are relative or not https: a token made elsewhere still works
    # Implicit and password flows are gone from OAuth 2.1. A token that was made elsewhere can be sent.
    return Bearer(f"{upper}_TOKEN", optional=optional)
