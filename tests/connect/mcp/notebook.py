"""The tests' own MCP server, ready to be added: as a process, or over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running import free_port
from trimtab.connect.mcp import Book, Command, Server, Servers, Ways
from trimtab.connect.toolbox import Toolbox, from_environment

A_SERVER = Path(__file__).parent / "a_server.py"


def notebook(name: str, folder: Path, *, timeout: float = 30.0, **fields: Any) -> Server:
    argv = (sys.executable, str(A_SERVER), "--notes", str(folder / f"{name}.txt"))
    return Server(name, Command(argv, **fields), timeout=timeout)


def opened(folder: Path, secret: Any = from_environment, **ways: Any) -> tuple[Toolbox, Servers]:
    toolbox = Toolbox()
    return toolbox, Servers(Book(folder / "mcp.json"), toolbox, Ways(secret, **ways))


async def added(servers: Servers, server: Server) -> None:
    """Look at a server and add it, believing what it says of itself."""
    found = await servers.look(server)
    await servers.add(server, found.hinted, found.sha256)


@contextmanager
def over_http(folder: Path, *arguments: str, port: int = 0) -> Iterator[str]:
    """The server in a process of its own, listening on loopback; gives its address."""
    port = port or free_port()
    argv = [sys.executable, str(A_SERVER), "--http", str(port), "--notes", str(folder / "web.txt"), *arguments]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def answers(url: str) -> None:
    """Wait until something listens there."""
    port = int(url.rsplit(":", 1)[1].partition("/")[0])
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
