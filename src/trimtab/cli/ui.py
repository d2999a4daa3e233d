"""`trimtab ui`: the web UI alone, for a server that runs elsewhere."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(ui)


def ui(
    port: Annotated[int | None, typer.Option(help="Port of the web UI.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the API server.")] = None,
) -> None:
    """Start the web UI and keep it in the foreground. The key is read from TRIMTAB_KEY or from this machine's file."""
    from trimtab.settings import Settings

    settings = Settings.load(**({"ui_port": port} if port else {}))
    child = start(settings, url or settings.url)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = stop(child)
    raise typer.Exit(max(code, 0))


def start(settings: Settings, url: str, *, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Streamlit as a child process; `quiet` sends what it says to the log folder.

    Raises:
        MissingExtra: Streamlit is not installed.
        Unavailable: there is no key to talk to the server with.
    """
    import importlib.util

    from trimtab.domain.errors import MissingExtra, Unavailable

    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtra("The web UI", "ui")
    key = os.environ.get("TRIMTAB_KEY", "")
    if not key and not settings.key_path.exists():
        raise Unavailable("There is no key yet. Start the server first (`trimtab serve`), or set TRIMTAB_KEY.")
    key = key or settings.key_path.read_text("utf-8").strip()
    launch = importlib.import_module("trimtab_ui.launch")
    command: list[str] = launch.command(settings.ui_port, settings.host, url)
    environment = {
        **os.environ,
        "TRIMTAB_URL": url,
        "TRIMTAB_KEY": key,
        "TRIMTAB_MAX_UPLOAD_MB": str(settings.max_upload_mb),
    }
    if not quiet:
        return subprocess.Popen(command, env=environment)
    settings.logs_dir.mkdir(parents=True, exist_ok=True)
    with (settings.logs_dir / "ui.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def stop(child: subprocess.Popen[bytes]) -> int:
    """End it politely, then not."""
    child.terminate()
    try:
        return child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
