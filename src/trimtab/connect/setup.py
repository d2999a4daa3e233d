"""What a person sets up for one connector: a folder, a server's name. For connectors that cannot know it themselves.

    connector = Connector(..., options={"folder": Option("The folder whose files may be read.")})

    @connector.tool(effect=Effect.READ)
    async def read(path: Annotated[str, "A path"], setup: Setup) -> str:
        folder = setup.need("folder")

A parameter of type `Setup` is given by the toolbox and is not shown to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from trimtab.domain.errors import InvalidInput, ToolError

from .credentials import Secrets


@dataclass(frozen=True)
class Option:
    """One thing to set. While a `required` one is missing, the connector's tools are offered to no model."""

    about: str
    """For the person who sets it."""
    required: bool = True
    default: str = ""

    @property
    def needed(self) -> bool:
        """Whether it must be set before the connector works: a default is as good as a value."""
        return self.required and not self.default


class Setup:
    """The options of one connector, and its secrets by name, for the length of a call."""

    def __init__(
        self,
        name: str,
        options: Mapping[str, Option],
        given: Mapping[str, str] = {},
        *,
        secret: Callable[[str], SecretStr | None] = lambda name: None,
        secret_names: tuple[str, ...] = (),
        secrets: Secrets | None = None,
        call_key: str = "",
    ) -> None:
        self._name = name
        self._options = options
        self._given = given
        self._secret = secret
        self._secret_names = secret_names
        self._secrets = secrets if secrets is not None else Secrets()
        self.call_key = call_key
        """The same when a call is run again after a crash, for services that recognise what they were sent before."""

    def get(self, option: str) -> str:
        """Its value, or its default."""
        return self._given.get(option, "").strip() or self._options[option].default

    def need(self, option: str) -> str:
        """Its value.

        Raises:
            ToolError: it is not set; the message says how to.
        """
        value = self.get(option)
        if not value:
            raise ToolError(missing(self._name, self._options, (option,)), reason="not_set_up")
        return value

    def number(self, option: str, least: int, most: int) -> int:
        """Its value as a whole number.

        Raises:
            ToolError: it is not one, or not between the two.
        """
        value = self.need(option)
        if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
            raise ToolError(
                f"Connector {self._name!r}: option {option!r} is {value[:40]!r}; it must be a whole number from "
                f"{least} to {most}. Correct it in your settings.",
                reason="not_set_up",
            )
        return int(value)

    def secret(self, name: str) -> str:
        """One of the secrets that the connector's `auth` names; empty when there is none. It is kept out of whatever
        the call returns. Looking may open a keyring: do it in a thread.

        Raises:
            InvalidInput: `auth` does not name it.
        """
        if name not in self._secret_names:
            raise InvalidInput(f"Connector {self._name!r} does not declare the secret {name!r}. Name it in `auth`.")
        found = self._secret(name)
        value = found.get_secret_value() if found else ""
        self._secrets.add(value)
        return value


def lacking(options: Mapping[str, Option], given: Mapping[str, str]) -> tuple[str, ...]:
    """The required options that have no value."""
    return tuple(name for name, option in options.items() if option.needed and not given.get(name, "").strip())


def missing(connector: str, options: Mapping[str, Option], names: tuple[str, ...]) -> str:
    """A sentence for the person who can set them."""
    lines = "; ".join(
        f"trimtab config set connectors.{connector}.options.{name} VALUE ({options[name].about.rstrip('.')})"
        for name in names
    )
    return f"Connector {connector!r} is not set up. Run: {lines}. Then start Trimtab again."
