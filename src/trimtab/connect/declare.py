"""What a connector says about itself: its name, the hosts it may reach, the key it needs, and its tools.

A tool's name, type hints and docstring are its whole declaration. Nothing runs here: a `Connector` is a value that a
`Toolbox` reads, and a wrong declaration fails when the module is imported, with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from trimtab.domain.errors import InvalidInput
from trimtab.domain.tool import Effect

from . import schema
from .auth import ApiKey, Auth
from .budget import Rate
from .cache import Cache
from .circuit import Breaker
from .pages import Pages
from .reply import Limits
from .retry import Retry
from .setup import Option

__all__ = ["ApiKey", "Connector", "Declaration"]

NAME = re.compile(r"^[a-z][a-z0-9_]{0,30}$")
MODEL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
HOST = re.compile(r"^(\*|(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?)$")

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True)
class Declaration:
    """One tool of a connector."""

    name: str
    """The function's name. People see ``weather.forecast``, the model sees `model_name`."""
    dotted: str
    model_name: str
    function: Callable[..., Awaitable[Any]]
    description: str
    arguments: type[BaseModel]
    http_parameters: tuple[str, ...]
    """Parameters of type `Http`: given by the toolbox, unknown to the model."""
    effect: Effect
    examples: tuple[str, ...]
    untrusted: bool
    timeout: float
    max_chars: int
    max_tokens: int = 0
    """0: a third of `max_chars`."""
    read_by_post: bool = False
    setup_parameters: tuple[str, ...] = ()
    """Parameters of type `Setup`: given by the toolbox as well."""
    given: Mapping[str, Any] | None = None
    """The arguments' JSON schema where it came from elsewhere (MCP, OpenAPI). Then `arguments` is `schema.AsGiven`, and
    the function is called with the arguments as one mapping."""

    def json_schema(self) -> dict[str, Any]:
        """What a call may send, as JSON schema."""
        return schema.json_schema(self.arguments) if self.given is None else {"properties": {}, **self.given}


class Connector:
    """A service and its tools.

        connector = Connector(name="tides", version="1.0.0", description="Tide tables.", hosts=("api.example.org",))

    `hosts` are the only ones its HTTP client will talk to: ``"api.example.org"``, ``"api.example.org:8443"``,
    ``"*.example.org"``, or ``"*"`` for any public host. Connections are https; `plain_http` also permits http.

    `auth` is how it signs in, `rate` what the service's terms permit, `cache` how long answers may be used again,
    `pages` how its lists continue. `idempotency_header` names the header by which the service recognises a repeated
    write: with it, writes are tried again after a failure like reads.

    `options` are what a person sets up before it works (`Setup` has the values). `speaks` names the protocols besides
    HTTP in which its own code talks to servers that its options name: what the client enforces and a check injects
    does not reach there, so the code must keep its own deadlines and limits.

    Raises:
        InvalidInput: the declaration is wrong; the message says where.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        description: str,
        hosts: tuple[str, ...] = (),
        auth: Auth | None = None,
        limits: Limits = Limits(),
        retry: Retry = Retry(),
        plain_http: bool = False,
        rate: Rate | None = None,
        cache: Cache | None = None,
        breaker: Breaker = Breaker(),
        pages: Pages | None = None,
        idempotency_header: str = "",
        options: Mapping[str, Option] | None = None,
        speaks: tuple[str, ...] = (),
    ) -> None:
        if not NAME.match(name):
            raise InvalidInput(f"{name!r} cannot name a connector: use a-z, 0-9 and _, at most 31, a letter first.")
        for host in hosts:
            if not HOST.match(host):
                raise InvalidInput(f"Connector {name!r}: {host!r} is not a host. Write it like 'api.example.org'.")
        for option in options or {}:
            if not NAME.match(option):
                raise InvalidInput(f"Connector {name!r}: {option!r} cannot name an option: use a-z, 0-9 and _.")
        if auth and "*" in hosts:
            raise InvalidInput(f"Connector {name!r} reaches any host, so it must not carry a key. Name its hosts.")
        self.name = name
        self.version = version
        self.description = description
        self.hosts = hosts
        self.auth = auth
        self.limits = limits
        self.retry = retry
        self.plain_http = plain_http
        self.rate = rate
        self.cache = cache
        self.breaker = breaker
        self.pages = pages
        self.idempotency_header = idempotency_header
        self.options = dict(options or {})
        self.speaks = speaks
        self.tools: dict[str, Declaration] = {}

    def __repr__(self) -> str:
        return f"Connector({self.name!r}, version={self.version!r}, tools={sorted(self.tools)})"

    def tool(
        self,
        *,
        effect: Effect,
        examples: tuple[str, ...] = (),
        untrusted: bool = True,
        timeout: float = 20.0,
        max_chars: int = 6000,
        max_tokens: int = 0,
        read_by_post: bool = False,
        name: str = "",
    ) -> Callable[[Function], Function]:
        """Declare a tool.

        `effect` is what a call does to the world: anything but `Effect.READ` waits for a person's approval. `examples`
        are questions people would ask; a small model's router learns from them, so give six or more. `untrusted` is
        whether results carry text from outside. `timeout` is for a whole call, in seconds; `max_chars` and
        `max_tokens` (a third of that), whichever is less, are how much of a result the model reads. A tool that
        reads sends GET and HEAD alone; `read_by_post` also permits it POST, for services that are asked that way.
        """

        def declare(function: Function) -> Function:
            self._add(
                function,
                name or function.__name__,
                effect=effect,
                examples=examples,
                untrusted=untrusted,
                timeout=timeout,
                max_chars=max_chars,
                max_tokens=max_tokens,
                read_by_post=read_by_post,
            )
            return function

        return declare

    def _add(
        self, function: Callable[..., Awaitable[Any]], name: str, *, examples: tuple[str, ...], **told: Any
    ) -> None:
        dotted, model_name = self._names(name)
        if not inspect.iscoroutinefunction(function):
            raise InvalidInput(f"{dotted} must be an async function: write 'async def {name}'.")
        if isinstance(examples, str):
            raise InvalidInput(f"{dotted}: examples is a tuple of questions, not one string. Add a comma.")
        description, notes = schema.docstring(function)
        if not description:
            raise InvalidInput(f"{dotted} has no docstring. One sentence tells the model what it is for.")
        http_parameters, arguments = schema.arguments_of(function, dotted, notes)
        self.tools[name] = Declaration(
            name=name,
            dotted=dotted,
            model_name=model_name,
            function=function,
            description=description,
            arguments=arguments,
            http_parameters=http_parameters,
            setup_parameters=schema.setup_parameters(function),
            examples=tuple(examples),
            **told,
        )

    def declare(
        self, name: str, function: Callable[..., Awaitable[Any]], given: Mapping[str, Any], **facts: Any
    ) -> None:
        """Declare a tool whose arguments a JSON schema from elsewhere describes. `function` is given them as one
        mapping. `facts` are `description`, `effect`, `examples`, `untrusted`, `timeout` and `max_chars`, and
        `http_parameters`: the names by which `function` is also given an `Http`.

        Raises:
            InvalidInput: the name cannot be one, or is taken.
        """
        dotted, model_name = self._names(name)
        defaults = {"examples": (), "untrusted": True, "timeout": 20.0, "max_chars": 6000, "http_parameters": ()}
        self.tools[name] = Declaration(
            name=name,
            dotted=dotted,
            model_name=model_name,
            function=function,
            arguments=schema.AsGiven,
            given=given,
            **{**defaults, **facts},
        )

    def _names(self, name: str) -> tuple[str, str]:
        """What people and the model call a tool, when it may be called that."""
        dotted = f"{self.name}.{name}"
        model_name = name if name == self.name else f"{self.name}_{name}"
        if not NAME.match(name) or not MODEL_NAME.match(model_name):
            raise InvalidInput(f"{name!r} cannot name a tool: use a-z, 0-9 and _, at most 31, a letter first.")
        if name in self.tools:
            raise InvalidInput(f"{dotted} is declared twice. Rename one of the functions.")
        return dotted, model_name
