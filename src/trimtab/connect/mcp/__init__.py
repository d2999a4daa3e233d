"""MCP servers as connectors: their tools and resources, pinned to what a person has seen and approved.

    servers = Servers(Book(folder / "mcp.json"), toolbox, Ways(from_environment))
    files = Server("files", Command(("mcp-server-filesystem", "/data")))
    found = await servers.look(files)  # show it to a person
    await servers.add(files, reads=found.hinted, seen=found.sha256)

The official SDK speaks the protocol; it is imported when a server is first talked to. What is here is what it leaves
open: which definitions a model may see, what a process may know, where a connection may go, and when to give up.
"""

from .book import Approved, Book, Server
from .definition import Definition
from .reach import Command, Endpoint
from .servers import Found, Servers
from .ways import Ways

__all__ = ["Approved", "Book", "Command", "Definition", "Endpoint", "Found", "Server", "Servers", "Ways"]
