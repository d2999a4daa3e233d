"""What a server returns, as text for a model, data for a face, and a source to cite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import mcp_types as types

from trimtab.domain.errors import ToolError
from trimtab.domain.tool import Source

from ..result import Result, clean, shorten

MAX_BLOCKS = 200


def result(returned: types.CallToolResult, dotted: str) -> Result:
    """A tool's result.

    Raises:
        ToolError: the server says that the tool failed; the message is what it says.
    """
    text = blocks(returned.content)
    if returned.is_error:
        said = shorten(clean(text)[0], 1500)[0] or "It did not say why."
        raise ToolError(f"{dotted} failed: {said}")
    data = returned.structured_content
    if not text and data is not None:
        text = json.dumps(data, ensure_ascii=False)
    links = [block for block in returned.content[:MAX_BLOCKS] if isinstance(block, types.ResourceLink)]
    sources = [Source(link.title or link.name, str(link.uri)) for link in links[:10]]
    return Result(text=text or "Done.", data=data, sources=(Source(dotted), *sources))


def read(returned: types.ReadResourceResult, dotted: str, uri: str) -> Result:
    """A resource's content."""
    parts = [_resource(content) for content in returned.contents[:MAX_BLOCKS]]
    return Result(text="\n\n".join(parts) or "It is empty.", sources=(Source(f"{dotted} {uri}", uri),))


def blocks(content: Sequence[Any]) -> str:
    """The text of content blocks. What is not text is named, with its size."""
    shown = [_block(block) for block in content[:MAX_BLOCKS]]
    if len(content) > MAX_BLOCKS:
        shown.append(f"[cut: {len(content) - MAX_BLOCKS} of {len(content)} parts left out]")
    return "\n".join(part for part in shown if part)


def _block(block: Any) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes, not shown]"
        case types.EmbeddedResource():
            return _resource(block.resource)
        case types.ResourceLink():
            return f"{block.title or block.name}: {block.uri}"
    return f"[{type(block).__name__}, not shown]"


def _resource(content: types.TextResourceContents | types.BlobResourceContents) -> str:
    if isinstance(content, types.TextResourceContents):
        return content.text
    return f"[{content.uri}, {content.mime_type or 'binary'}, {len(content.blob) * 3 // 4} bytes, not shown]"
