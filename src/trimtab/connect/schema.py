"""From a function's signature to the arguments a model may send: typed, described, closed and bounded.

The pydantic model refuses unknown names; each string, list and mapping has a largest size even where the author gave
none, so no argument is without limit. What cannot be closed is refused when the connector is declared.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from jsonschema import Draft202012Validator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from trimtab.domain.errors import InvalidInput

from .http import Http
from .setup import Setup

MAX_STRING = 4000
MAX_ITEMS = 100
TYPED = frozenset({"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf"})
"""A property with none of these takes any JSON at all."""
RESERVED = frozenset({"args", "callbacks", "config", "kwargs", "run_manager", "self"})
"""Names that LangChain's tools give a meaning of their own."""

_ARGUMENT_LINE = re.compile(r"^\s*(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")
_SECTIONS = ("args:", "arguments:", "parameters:", "returns:", "raises:", "example:", "examples:", "yields:")


def docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description a model reads, and what an ``Args:`` section says about each parameter."""
    lines = textwrap.dedent(inspect.getdoc(function) or "").splitlines()
    body: list[str] = []
    notes: dict[str, str] = {}
    section = ""
    for line in lines:
        if line.strip().lower() in _SECTIONS and not line.startswith(" "):
            section = line.strip().lower()
        elif not section:
            body.append(line)
        elif section in ("args:", "arguments:", "parameters:") and (found := _ARGUMENT_LINE.match(line)):
            notes[found[1]] = found[2].strip()
    return " ".join(" ".join(body).split()), notes


def arguments_of(
    function: Callable[..., Awaitable[Any]], dotted: str, notes: Mapping[str, str]
) -> tuple[tuple[str, ...], type[BaseModel]]:
    """Names of the injected `Http` parameters, and a pydantic model of the rest.

    Raises:
        InvalidInput: a parameter has no type, no description, a reserved name, or a type that cannot be closed.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise InvalidInput(f"{dotted}: its type hints cannot be read. {error}") from error
    injected: list[str] = []
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidInput(f"{dotted}: name each parameter; {parameter} cannot be described to a model.")
        if parameter.name not in hints:
            raise InvalidInput(f"{dotted}: parameter {parameter.name!r} has no type hint.")
        if hints[parameter.name] is Http:
            injected.append(parameter.name)
            continue
        if hints[parameter.name] is Setup:
            continue
        if parameter.name in RESERVED or parameter.name.startswith("_"):
            raise InvalidInput(f"{dotted}: parameter name {parameter.name!r} is reserved. Choose another.")
        fields[parameter.name] = _field(parameter, hints[parameter.name], dotted, notes)
    config = ConfigDict(extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)
    model: type[BaseModel] = create_model(dotted.replace(".", "_"), __config__=config, **fields)
    _insist_on_closed(model.model_json_schema(), dotted)
    return tuple(injected), model


def setup_parameters(function: Callable[..., Awaitable[Any]]) -> tuple[str, ...]:
    """Names of the parameters that are given a `Setup`. For a function whose type hints were read before."""
    hints = typing.get_type_hints(function, include_extras=True)
    return tuple(name for name, hint in hints.items() if hint is Setup)


def _field(parameter: inspect.Parameter, hint: Any, dotted: str, notes: Mapping[str, str]) -> Any:
    described = notes.get(parameter.name, "")
    if typing.get_origin(hint) is Annotated:
        inner, *extras = typing.get_args(hint)
        texts = [extra for extra in extras if isinstance(extra, str)]
        described = texts[0] if texts else described
        described = described or next((e.description for e in extras if isinstance(e, FieldInfo) and e.description), "")
        rest = [extra for extra in extras if not isinstance(extra, str)]
        hint = Annotated[(inner, *rest)] if rest else inner
    if not described:
        raise InvalidInput(
            f"{dotted}: parameter {parameter.name!r} is not described. "
            f'Write {parameter.name}: Annotated[..., "what it is, with an example"].'
        )
    default = ... if parameter.default is parameter.empty else parameter.default
    return (bounded(hint), Field(default, description=described))


def bounded(hint: Any) -> Any:
    """The same type with a largest size for each string, list and mapping that has none."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *extras = typing.get_args(hint)
        if any(_has_size(extra) for extra in extras):
            return hint
        if inner is int:  # its own bounds first: behind a validator they would not reach the JSON schema
            return Annotated[(int, *extras, AfterValidator(_int64))]
        return Annotated[(bounded(inner), *extras)]
    if hint is str:
        return Annotated[str, Field(max_length=MAX_STRING)]
    if hint is int:
        return Annotated[int, AfterValidator(_int64)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(bounded(part) for part in typing.get_args(hint))]  # noqa: UP007
    if origin in (list, set, frozenset, Sequence):
        (inner,) = typing.get_args(hint)
        return Annotated[origin[bounded(inner)], Field(max_length=MAX_ITEMS)]
    if origin in (dict, Mapping):
        key, value = typing.get_args(hint)
        return Annotated[dict[bounded(key), bounded(value)], Field(max_length=MAX_ITEMS)]  # type: ignore[misc]
    return hint


def _has_size(extra: Any) -> bool:
    if isinstance(extra, FieldInfo):
        return any(getattr(part, "max_length", None) is not None for part in extra.metadata)
    return getattr(extra, "max_length", None) is not None


def _int64(value: int) -> int:
    """JSON numbers have no largest size; ours do. Not in the schema, where grammar builders choke on such bounds."""
    if not -(2**63) <= value < 2**63:
        raise ValueError("is too large a number")
    return value


def _insist_on_closed(schema: Any, dotted: str, where: str = "") -> None:
    if isinstance(schema, list):
        for item in schema:
            _insist_on_closed(item, dotted, where)
    if not isinstance(schema, dict):
        return
    open_object = schema.get("type") == "object" and schema.get("additionalProperties", True) is True
    if open_object or (where and not TYPED & schema.keys()):
        raise InvalidInput(
            f"{dotted}: {where or 'an argument'} accepts anything. Give it a type whose fields are known, "
            "for a pydantic model with model_config = ConfigDict(extra='forbid')."
        )
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for name, inner in value.items():
                _insist_on_closed(inner, dotted, name)
        elif key in ("items", "anyOf", "oneOf", "allOf", "additionalProperties", "prefixItems"):
            _insist_on_closed(value, dotted, where or key)


class AsGiven(BaseModel):
    """Stands in for the arguments of a tool whose JSON schema came from elsewhere (MCP, OpenAPI)."""


@functools.lru_cache(maxsize=4096)
def _validator(given: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(given))


def check_given(given: Mapping[str, Any], arguments: Mapping[str, Any], tool: str) -> dict[str, Any]:
    """The arguments, when a JSON schema from elsewhere allows them. What it does not name is refused.

    Raises:
        InvalidInput: they do not fit; names each that does not.
    """
    closed = {"type": "object", **given, "additionalProperties": False}
    found = _validator(json.dumps(closed, sort_keys=True)).iter_errors(dict(arguments))
    problems = sorted(found, key=lambda error: [str(step) for step in error.path])[:5]
    if problems:
        said = "; ".join(f"{'.'.join(map(str, e.path)) or 'arguments'}: {e.message[:300]}" for e in problems)
        fields = [str(error.path[0]) for error in problems if error.path]
        raise InvalidInput(f"{tool} was not called, its arguments do not fit. {said}.", fields=fields)
    return dict(arguments)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema without pydantic's titles, which only cost tokens."""
    return typing.cast("dict[str, Any]", _untitled(model.model_json_schema()))


def _untitled(value: Any, *, names: bool = False) -> Any:
    if isinstance(value, dict):
        return {k: _untitled(v, names=k in ("properties", "$defs")) for k, v in value.items() if names or k != "title"}
    return [_untitled(item) for item in value] if isinstance(value, list) else value


def problem(error: ValidationError, tool: str) -> InvalidInput:
    """A sentence that names each argument that does not fit, and what was wrong with it."""
    parts = []
    for item in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        where = ".".join(str(step) for step in item["loc"]) or "arguments"
        parts.append(f"{where}: {item['msg']}")
    fields = [str(item["loc"][0]) for item in error.errors(include_url=False) if item["loc"]]
    return InvalidInput(f"{tool} was not called, its arguments do not fit. {'; '.join(parts)}.", fields=fields)
