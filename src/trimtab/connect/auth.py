"""How a service is told who asks. Declarations only: they name where secrets are kept, and never hold one.

    auth=ApiKey(env="TIDES_KEY", header="X-Key")
    auth=Bearer(env="TIDES_TOKEN")
    auth=Basic(user_env="TIDES_USER", password_env="TIDES_PASSWORD")
    auth=OAuth(authorize_url=..., token_url=..., client_id="...", scopes=("read",))
    auth=ClientCredentials(token_url=..., client_id_env="TIDES_ID", client_secret_env="TIDES_SECRET")

What goes to the declared hosts is added by the client, not by the connector; it is not sent after a redirect to
another origin, and is never part of a result or an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from trimtab.domain.errors import InvalidInput


@dataclass(frozen=True)
class ApiKey:
    """A secret sent in one header or one query parameter. `env` is the secret's name: see `vault`."""

    env: str
    header: str = ""
    query: str = ""
    prefix: str = ""
    optional: bool = False
    """The service also answers without; then nothing is sent."""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.query):
            raise InvalidInput(f"ApiKey for {self.env} needs either a header or a query parameter: name exactly one.")


@dataclass(frozen=True)
class Bearer:
    """A token sent as ``Authorization: Bearer ...``."""

    env: str
    optional: bool = False


@dataclass(frozen=True)
class Basic:
    """A user name and a password, both secrets with names of their own (RFC 7617)."""

    user_env: str
    password_env: str
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.user_env or not self.password_env:
            raise InvalidInput("Basic needs user_env and password_env: the names under which both are kept.")


@dataclass(frozen=True)
class OAuth:
    """A person signs in at the service in a browser: OAuth 2.1 authorization code with PKCE, then refreshed.

    `trimtab connectors auth NAME` runs it. A public client has a `client_id` and no secret; a confidential one names
    where its secret is kept. `issuer` is the authorization server's own name, which its answer must carry when it says
    that it does (RFC 9207). `resource` is the API the token is for (RFC 8707), where the service asks for it.
    """

    authorize_url: str
    token_url: str
    client_id: str = ""
    client_id_env: str = ""
    client_secret_env: str = ""
    scopes: tuple[str, ...] = ()
    issuer: str = ""
    issuer_required: bool = False
    """Refuse an answer without `iss`: for servers whose metadata says they always send it."""
    resource: str = ""
    redirect_port: int = 0
    """A fixed port of the redirect on this machine, for services that want it registered; 0 takes a free one."""

    def __post_init__(self) -> None:
        for url in (self.authorize_url, self.token_url):
            _https(url)
        if bool(self.client_id) == bool(self.client_id_env):
            raise InvalidInput("OAuth needs either client_id or client_id_env: name exactly one.")
        if self.issuer_required and not self.issuer:
            raise InvalidInput("OAuth with issuer_required needs the issuer to compare with.")


@dataclass(frozen=True)
class ClientCredentials:
    """The connector itself signs in with a client id and a secret (RFC 6749, 4.4); nobody is asked."""

    token_url: str
    client_id_env: str
    client_secret_env: str
    scopes: tuple[str, ...] = ()
    resource: str = ""
    client_auth: Literal["basic", "post"] = "basic"
    """Where the token endpoint wants id and secret: a Basic header, or the form."""

    def __post_init__(self) -> None:
        _https(self.token_url)
        if not self.client_id_env or not self.client_secret_env:
            raise InvalidInput("ClientCredentials needs client_id_env and client_secret_env.")


Auth = ApiKey | Bearer | Basic | OAuth | ClientCredentials


def secret_names(auth: Auth | None) -> tuple[str, ...]:
    """The names of the secrets it needs, in the order in which a person would give them."""
    match auth:
        case ApiKey() | Bearer():
            return (auth.env,)
        case Basic():
            return (auth.user_env, auth.password_env)
        case OAuth():
            return tuple(name for name in (auth.client_id_env, auth.client_secret_env) if name)
        case ClientCredentials():
            return (auth.client_id_env, auth.client_secret_env)
    return ()


def _https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.fragment:
        raise InvalidInput(f"{url!r} cannot be asked for tokens: give an https address without a fragment.")
