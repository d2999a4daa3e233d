"""A tool as the guided way needs to know it, from a LangChain tool or from an OpenAI-format dict."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from ..domain.errors import InvalidInput
from ..domain.tool import METADATA_KEY, ToolInfo

MAX_TOOLS = 1000
MAX_EXAMPLES = 64
MAX_TEXT = 2000
"""Characters of a description that are read; a longer one would drown the rest."""
_MAX_DEPTH = 16


@dataclass(frozen=True)
class ToolSpec:
    """Name, description, JSON schema of the arguments (references resolved) and example questions."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}}, hash=False)
    examples: tuple[str, ...] = ()

    @cached_property
    def properties(self) -> Mapping[str, Any]:
        found = self.parameters.get("properties")
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def required(self) -> tuple[str, ...]:
        names = self.parameters.get("required")
        return tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else ()

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return Draft202012Validator(dict(self.parameters), format_checker=Draft202012Validator.FORMAT_CHECKER)

    def problem(self, arguments: Any) -> str:
        """What is wrong with `arguments` under the schema, in one line; ``""`` when nothing is."""
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except (RecursionError, SchemaError, ValueError, TypeError) as broken:
            return f"the schema of {self.name} cannot be checked: {type(broken).__name__}"
        if error is None:
            return ""
        where = ".".join(str(p) for p in error.absolute_path)
        return f"{where}: {error.message}" if where else error.message

    def as_openai(self) -> dict[str, Any]:
        """The OpenAI form; `examples` ride along so that a bound model finds them again."""
        function: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        if self.examples:
            function["examples"] = list(self.examples)
        return {"type": "function", "function": function}


def spec_of(tool: Mapping[str, Any] | type | Callable[..., Any] | BaseTool) -> ToolSpec:
    """Read any form of tool that LangChain's `bind_tools` accepts.

    Raises:
        InvalidInput: it is none of them, or its schema is not a JSON schema for an object.
    """
    examples: Sequence[Any] = ()
    if isinstance(tool, BaseTool):
        info = (tool.metadata or {}).get(METADATA_KEY)
        examples = info.examples if isinstance(info, ToolInfo) else ()
    elif isinstance(tool, Mapping):
        inner = tool.get("function")
        found = inner.get("examples") if isinstance(inner, Mapping) else None
        examples = found if isinstance(found, list) else ()
    try:
        function = convert_to_openai_tool(tool)["function"]
        written = json.dumps([function["name"], function.get("description"), function.get("parameters")])
        shown = tuple(e[:MAX_TEXT] for e in examples if isinstance(e, str) and e.strip())[:MAX_EXAMPLES]
    except Exception as error:  # whatever the conversion trips over, the tool is what is wrong
        raise InvalidInput(
            f"A tool could not be read ({type(error).__name__}). Send the OpenAI form, with function.name."
        ) from error
    return _read(written, shown)


@lru_cache(maxsize=2048)
def _read(written: str, examples: tuple[str, ...]) -> ToolSpec:
    """The tool of a JSON text of name, description and parameters. Kept, because checking a schema is slow."""
    name, description, schema = json.loads(written)
    if not isinstance(name, str) or not name:
        raise InvalidInput("A tool has no name. Send the OpenAI form, with function.name.")
    return ToolSpec(name, str(description or "")[:MAX_TEXT], _checked(name, schema), examples)


def specs_of(tools: Sequence[Any]) -> tuple[ToolSpec, ...]:
    """All of them, each name once.

    Raises:
        InvalidInput: a tool cannot be read, two share a name, or there are more than `MAX_TOOLS`.
    """
    if len(tools) > MAX_TOOLS:
        raise InvalidInput(f"{len(tools)} tools were offered; at most {MAX_TOOLS} can be.")
    specs = tuple(spec_of(t) for t in tools)
    for name, count in Counter(s.name for s in specs).items():
        if count > 1:
            raise InvalidInput(f"Two tools are named '{name}'. Give each its own name.")
    return specs


def _checked(name: str, schema: Any) -> dict[str, Any]:
    if schema is None:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping):
        raise InvalidInput(f"The parameters of tool '{name}' are not a JSON schema.")
    try:
        resolved = _resolve(schema, schema, 0)
        Draft202012Validator.check_schema(resolved)
    except (SchemaError, RecursionError, ValueError, TypeError) as error:
        raise InvalidInput(f"The parameters of tool '{name}' are not a JSON schema.") from error
    if not isinstance(resolved, dict) or resolved.get("type", "object") != "object":
        raise InvalidInput(f"The parameters of tool '{name}' must be a schema of type object.")
    resolved.setdefault("type", "object")
    return resolved


def _resolve(node: Any, root: Mapping[str, Any], depth: int) -> Any:
    """`node` with local references written out. A reference that goes round in a circle ends as "anything"."""
    if depth > _MAX_DEPTH:
        return {}
    if isinstance(node, list):
        return [_resolve(n, root, depth) for n in node]
    if not isinstance(node, Mapping):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        rest = {k: v for k, v in node.items() if k != "$ref"}
        target = _follow(reference, root)
        return _resolve({**target, **rest}, root, depth + 1)
    return {k: _resolve(v, root, depth + 1) for k, v in node.items() if k not in ("$defs", "definitions")}


def _follow(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node a local reference points at. Anything else (a web address above all) is refused, never fetched."""
    if not reference.startswith("#"):
        raise ValueError("only local references")
    node: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            node = node[part.replace("~1", "/").replace("~0", "~")] if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        raise ValueError("a reference that points nowhere")
    return node
