"""One declared tool as a LangChain tool: arguments checked, deadline kept, result shaped, secrets taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from langchain_core.tools import StructuredTool
from pydantic import PrivateAttr, ValidationError
from typing_extensions import override

from trimtab.domain.errors import Conflict, InvalidInput, ToolError
from trimtab.domain.tool import METADATA_KEY, Effect, RunDirectly, Source, ToolInfo, ToolOutcome

from . import schema
from .credentials import Secrets
from .declare import Connector, Declaration
from .http import Http
from .reply import Reply
from .result import clean, estimate, outcome
from .setup import Setup

Call = Callable[[Mapping[str, Any]], Awaitable[ToolOutcome]]
"""Arguments that were already validated, to an outcome."""


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


async def run_tool(
    declared: Declaration,
    arguments: Mapping[str, Any],
    http: Http | None,
    secrets: Secrets,
    *,
    until: float | None = None,
    count: Callable[[str], int] = estimate,
    setup: Setup | None = None,
) -> ToolOutcome:
    """Call the function and shape what it returns. `http` and `setup` are for a function that declares one, `until` of
    the event loop's clock.

    Raises:
        ToolError: it failed, or took longer than its declared timeout.
        InvalidInput: the function itself found an argument wrong.
        Conflict: what it would have called is not what was approved.
    """
    injected: dict[str, Any] = dict.fromkeys(declared.http_parameters, http)
    injected |= dict.fromkeys(declared.setup_parameters, setup)
    end = asyncio.get_running_loop().time() + declared.timeout if until is None else until
    try:
        async with asyncio.timeout_at(end) as deadline:
            if declared.given is not None:
                returned = await declared.function(arguments, **injected)
            else:
                returned = await declared.function(**arguments, **injected)
        shaped = _shaped(declared, returned, http, count)
    except (ToolError, InvalidInput, Conflict) as error:
        raise type(error)(secrets.redact(error.message), **error.detail) from (None if secrets else error)
    except TimeoutError as error:
        if not deadline.expired():
            raise ToolError(f"{declared.dotted} waited too long for something it needs.", reason="failed") from error
        raise ToolError(
            f"{declared.dotted} did not finish within {declared.timeout:g} seconds.", reason="deadline"
        ) from None
    except Exception as error:
        said = secrets.redact(clean(f"{type(error).__name__}: {error}")[0][:300])
        # With a key in play the original is left out of the chain: a traceback would print what it holds.
        raise ToolError(f"{declared.dotted} failed inside its own code. {said}", reason="failed") from (
            None if secrets else error
        )
    return _redacted(shaped, secrets)


def _shaped(declared: Declaration, returned: Any, http: Http | None, count: Callable[[str], int]) -> ToolOutcome:
    """Within the tool's budget, with its sources dated, and said to be old where it is."""
    replies = http.replies if http is not None else []
    stale = [reply for reply in replies if reply.stale]
    note = stale_note(min(reply.at for reply in stale)) if stale else ""
    tokens = declared.max_tokens or declared.max_chars // 3
    shaped = outcome(
        returned,
        max_chars=max(declared.max_chars - len(note), 100),
        max_tokens=max(tokens - count(note), 25),
        count=count,
        meta={"tool": declared.dotted, **({"stale": True} if stale else {})},
    )
    if not replies:
        return shaped
    sources = tuple(_dated(source, replies) for source in shaped.sources) or _sources(declared, replies)
    text = f"{note}\n{shaped.text}" if note else shaped.text
    answer = f"{shaped.answer} {note}" if note and shaped.answer else shaped.answer
    return replace(shaped, text=text, answer=answer, sources=sources)


def stale_note(at: float) -> str:
    """Said before and after an answer that came from the cache because the service could not be asked."""
    return f"[This is of {_when(at)}: the service could not be asked just now.]"


def _dated(source: Source, replies: Sequence[Reply]) -> Source:
    """With the time of the reply that it names, or of the last one."""
    if source.retrieved_at or not replies:
        return source
    same = [reply for reply in replies if reply.url == source.url] or replies
    return replace(source, retrieved_at=_iso(same[-1].at))


def _sources(declared: Declaration, replies: Sequence[Reply]) -> tuple[Source, ...]:
    """For a function that names none: what was read last."""
    read = [reply for reply in replies if reply.status < 400]
    if declared.effect is not Effect.READ or not read:
        return ()
    last = read[-1]
    return (Source(urlsplit(last.url).hostname or declared.dotted, last.url, _iso(last.at)),)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _redacted(result: ToolOutcome, secrets: Secrets) -> ToolOutcome:
    """A service may echo what it was sent, the key included."""
    if not secrets:
        return result
    redact = secrets.redact
    return replace(
        result,
        text=redact(result.text),
        data=_redact_data(result.data, redact),
        sources=tuple(Source(redact(s.title), redact(s.url), s.retrieved_at) for s in result.sources),
        answer=redact(result.answer),
    )


def _redact_data(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redact_data(item, redact) for item in value]
    if isinstance(value, dict):
        return {redact(name): _redact_data(item, redact) for name, item in value.items()}
    return value
