"""One declared tool as a LangChain tool: arguments checked, deadline kept, result shaped, secrets taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain_core.tools import StructuredTool
from pydantic import PrivateAttr, ValidationError
from typing_extensions import override

from trimtab.domain.errors import InvalidInput, ToolError
from trimtab.domain.tool import METADATA_KEY, RunDirectly, ToolInfo, ToolOutcome

from . import schema
from .declare import Connector, Declaration
from .http import Http
from .result import clean, outcome

Call = Callable[[Mapping[str, Any]], Awaitable[ToolOutcome]]
"""Arguments that were already validated, to an outcome."""

REMOVED = "[secret removed]"


class ConnectorTool(StructuredTool, RunDirectly):
    """A LangChain tool whose wrong arguments are an `InvalidInput` that names them. It can be run directly as well."""

    _declared: Declaration = PrivateAttr()
    _call: Call = PrivateAttr()

    def __init__(self, declared: Declaration, call: Call, **fields: Any) -> None:
        super().__init__(**fields)
        self._declared = declared
        self._call = call

    @override
    async def outcome(self, arguments: Mapping[str, Any]) -> ToolOutcome:
        """The same as `ainvoke`, without LangChain's callbacks."""
        return await self._call(checked(self._declared, arguments, self.name))

    @override
    def _parse_input(self, tool_input: str | dict[str, Any], tool_call_id: str | None) -> str | dict[str, Any]:
        if isinstance(tool_input, str):
            raise InvalidInput(f"{self.name} takes named arguments, not one text. Send a JSON object.")
        if self._declared.given is not None:
            return schema.check_given(self._declared.given, tool_input, self.name)
        try:
            return super()._parse_input(tool_input, tool_call_id)
        except ValidationError as error:
            raise schema.problem(error, self.name) from None

    @override
    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._declared.given is None:
            return super()._to_args_and_kwargs(tool_input, tool_call_id)
        # Somebody else's names may be those that LangChain passes by name itself ("config").
        return (self._parse_input(tool_input, tool_call_id),), {}


def langchain_tool(connector: Connector, declared: Declaration, call: Call) -> ConnectorTool:
    """The tool a model is shown. Its artifact is the `ToolOutcome`, its `metadata` holds the `ToolInfo`."""

    async def run(*given: Mapping[str, Any], **arguments: Any) -> tuple[str, ToolOutcome]:
        result = await call(given[0] if given else arguments)
        return result.text, result

    return ConnectorTool(
        declared,
        call,
        name=declared.model_name,
        description=declared.description,
        args_schema=declared.arguments if declared.given is None else declared.json_schema(),
        coroutine=run,
        response_format="content_and_artifact",
        metadata={METADATA_KEY: tool_info(connector, declared)},
    )


def checked(declared: Declaration, arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments as the function wants them.

    Raises:
        InvalidInput: they do not fit; the message calls the tool `name`.
    """
    if declared.given is not None:
        return schema.check_given(declared.given, arguments, name)
    try:
        values = declared.arguments.model_validate(dict(arguments))
    except ValidationError as error:
        raise schema.problem(error, name) from None
    return {field: getattr(values, field) for field in declared.arguments.model_fields}


def tool_info(connector: Connector, declared: Declaration) -> ToolInfo:
    return ToolInfo(
        name=declared.model_name,
        description=declared.description,
        connector=connector.name,
        connector_version=connector.version,
        effect=declared.effect,
        untrusted=declared.untrusted,
        examples=declared.examples,
        timeout=declared.timeout,
    )


async def run_tool(declared: Declaration, arguments: Mapping[str, Any], http: Http | None, secret: str) -> ToolOutcome:
    """Call the function and shape what it returns. `http` is for a function that declares one.

    Raises:
        ToolError: it failed, or took longer than its declared timeout.
        InvalidInput: the function itself found an argument wrong.
    """
    injected = dict.fromkeys(declared.http_parameters, http)
    try:
        async with asyncio.timeout(declared.timeout) as deadline:
            if declared.given is not None:
                returned = await declared.function(arguments, **injected)
            else:
                returned = await declared.function(**arguments, **injected)
        meta = {"tool": declared.dotted}
        shaped = outcome(returned, max_chars=declared.max_chars, meta=meta)
    except (ToolError, InvalidInput) as error:
        raise type(error)(redact(error.message, secret), **error.detail) from (None if secret else error)
    except TimeoutError as error:
        if not deadline.expired():
            raise ToolError(f"{declared.dotted} waited too long for something it needs.") from error
        raise ToolError(f"{declared.dotted} did not finish within {declared.timeout:g} seconds.") from None
    except Exception as error:
        said = redact(clean(f"{type(error).__name__}: {error}")[0][:300], secret)
        # With a key in play the original is left out of the chain: a traceback would print what it holds.
        raise ToolError(f"{declared.dotted} failed inside its own code. {said}") from (None if secret else error)
    return _redacted(shaped, secret)


def redact(text: str, secret: str) -> str:
    return text.replace(secret, REMOVED) if secret else text


def _redacted(result: ToolOutcome, secret: str) -> ToolOutcome:
    """A service may echo what it was sent, the key included."""
    if not secret:
        return result
    return ToolOutcome(
        text=redact(result.text, secret),
        data=_redact_data(result.data, secret),
        sources=tuple(type(s)(redact(s.title, secret), redact(s.url, secret), s.retrieved_at) for s in result.sources),
        answer=redact(result.answer, secret),
        truncated=result.truncated,
        meta=result.meta,
    )


def _redact_data(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return redact(value, secret)
    if isinstance(value, list):
        return [_redact_data(item, secret) for item in value]
    if isinstance(value, dict):
        return {redact(name, secret): _redact_data(item, secret) for name, item in value.items()}
    return value
