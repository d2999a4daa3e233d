"""How the web UI is started: the command line of `streamlit run`, with every option on it.

Nothing is written to disk and no configuration file is read from the current folder's point of view: what the app
needs (security, theme, quiet logs) is on the command line, which wins over a person's own `config.toml`. The API key is
not: other users of a machine can read a command line, so it travels in the environment (`TRIMTAB_KEY`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .palette import theme_options

MAIN = Path(__file__).parent / "serve.py"
UPLOAD_MEGABYTES = 50
"""Per file, unless the server's own limit is given in `TRIMTAB_MAX_UPLOAD_MB`."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(port: int, address: str, url: str) -> list[str]:
    """The argv that serves the UI on `address`:`port` for the API at `url`. The key goes into `TRIMTAB_KEY`."""
    options = {
        "server.port": str(port),
        "server.address": address,
        "server.headless": "true",
        "server.enableXsrfProtection": "true",
        "server.enableCORS": "true",
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "server.maxUploadSize": os.environ.get("TRIMTAB_MAX_UPLOAD_MB") or str(UPLOAD_MEGABYTES),
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverPort": str(port),
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "logger.level": "warning",
        "runner.magicEnabled": "false",
        **theme_options(),
    }
    hosts = [f"--server.allowedHosts={host}" for host in LOOPBACK] if address in LOOPBACK else []
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(MAIN), *flags, *hosts, "--", "--api", url]
