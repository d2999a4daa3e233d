"""A document from an address, through the guarded client."""

from __future__ import annotations

from urllib.parse import urlsplit

from trimtab.domain.errors import InvalidInput, ToolError

from ..http import Http
from ..reach import Reach
from ..reply import Limits
from ..transport import PinnedTransport
from .document import MAX_BYTES
from .servers import server_at

LIMITS = Limits(connect=5.0, read=30.0, total=120.0, max_bytes=MAX_BYTES)


async def fetch_document(url: str, *, allow_private: bool = False) -> tuple[bytes, str]:
    """The bytes at an address, and the address it was finally found at.

    Raises:
        InvalidInput: it is not an http or https address, or cannot be read.
    """
    parts = urlsplit(url)
    named = server_at(parts._replace(path="", query="", fragment="").geturl())
    transport = PinnedTransport(allow_private=allow_private)
    # A redirect may lead anywhere public: a document is often kept at another host than it is announced at.
    reach = Reach(("*", named.host), plain_http=True, allow_private=allow_private)
    http = Http(reach, limits=LIMITS, transport=transport)
    try:
        reply = await http.open(url)
    except ToolError as error:
        hint = " Download it and import the file, or set `allow_private` for this connector."
        hint = hint if "private" in error.message and not allow_private else ""
        raise InvalidInput(f"The document could not be read. {error.message}{hint}") from error
    finally:
        await transport.aclose()
    return reply.content, reply.url
