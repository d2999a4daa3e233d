"""Run the server: check the address, open the parts, make the first key, listen, and shut down in order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput, Unavailable
from trimtab.own_database import LOCAL_USER
from trimtab.settings import Settings
from trimtab.store import people

from .server import create_app

GRACE_SECONDS = 10
Announce = Callable[[str], object]


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it exists: a streamed token costs our process a third less there."""
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


async def serve_forever(settings: Settings, announce: Announce = print) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        InvalidInput, Unavailable: see `checked_socket`; and whatever `Trimtab.open` raises.
    """
    with contextlib.closing(checked_socket(settings)) as listening:
        async with Trimtab.open(settings) as app, serving(app, listening) as server:
            announce(f"Trimtab answers at {settings.url} (model {app.profile.name}).")
            announce(await key_line(app))
            await server.until_stopped()


class Server(uvicorn.Server):
    """uvicorn inside our own loop; signals are ours to handle."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    async def until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        await self._stop.wait()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """uvicorn would raise the signal again after its own shutdown, before ours."""
        yield


@asynccontextmanager
async def serving(app: Trimtab, listening: socket.socket) -> AsyncIterator[Server]:
    """Serve `app` on a bound socket while the block runs."""
    config = uvicorn.Config(
        create_app(app),
        log_level="warning",
        lifespan="on",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        limit_concurrency=512,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="http server")
    try:
        while not server.started:
            if task.done():
                await task
                raise Unavailable("The HTTP server did not start; the log says why.")
            await asyncio.sleep(0.01)
        yield server
    finally:
        # Answers in flight are waited for by the runner; their watchers only need to see the end.
        await app.runner.close(GRACE_SECONDS)
        server.should_exit = True
        await asyncio.wait({task}, timeout=GRACE_SECONDS + 5)


def checked_socket(settings: Settings) -> socket.socket:
    """A bound, listening socket.

    Raises:
        InvalidInput: not a loopback address, and `expose` is not set.
        Unavailable: the port is taken.
    """
    if not settings.expose and not _is_loopback(settings.host):
        raise InvalidInput(
            f"{settings.host} can be reached from other machines. If you want that, set `expose`, and put TLS in front."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(256)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Is Trimtab running already? Choose "
            "another port with --port."
        ) from error
    return listening


async def key_line(app: Trimtab) -> str:
    """What a start says about the key: the key itself when it was made just now, else where it is."""
    made = await ensure_key(app)
    where = f"kept in {app.settings.key_path}"
    return f"A key was made: {made} ({where})" if made else f"The key is {where}"


async def ensure_key(app: Trimtab) -> str | None:
    """Make this machine's own key and its file (mode 0600) at the first start; the key if it was made now."""
    path = app.settings.key_path
    if path.exists():
        known = await app.database.read(people.user_of_key, path.read_text("utf-8").strip())
        if known is not None:
            return None
    key = await app.database.write(people.create_key, LOCAL_USER, "this machine")
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    os.replace(temporary, path)
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
