"""A real PostgreSQL in a folder that is thrown away, on loopback, where its programs are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from running import free_port

PASSWORD = "s3cret-of-the-test"
START_SECONDS = 30


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`, which Debian keeps off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class PostgreSQL:
    """A cluster of one server; `database(name)` makes an empty database and gives its URL."""

    def __init__(self) -> None:
        found = programs()
        if found is None:
            pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
        self._bin = found
        self._folder = Path(tempfile.mkdtemp(prefix="trimtab-pg-", dir="/tmp"))  # a socket's path must be short
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._account = self._an_account()
        (self._folder / "password").write_text(PASSWORD)
        if self._account:
            for path in (self._folder, self._folder / "password"):
                shutil.chown(path, self._account, pwd.getpwnam(self._account).pw_gid)
        self._run("initdb", "-A", "scram-sha-256", "-U", "trimtab", f"--pwfile={self._folder}/password", "--no-sync")

    def __enter__(self) -> PostgreSQL:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        options = ["-k", str(self._folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=log,
                **self._who(),  # type: ignore[call-overload]
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._plain("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast way: whoever is connected is cut off
            self._process.wait(timeout=30)
            self._process = None

    def database(self, name: str) -> str:
        with psycopg.connect(self._plain("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def url(self, name: str, password: str = PASSWORD) -> str:
        return f"postgresql://trimtab:{password}@127.0.0.1:{self.port}/{name}"

    def _plain(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=trimtab password={PASSWORD} dbname={name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._bin / program, "-D", self._folder / "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, **self._who())  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(done.stderr)

    def _an_account(self) -> str:
        """PostgreSQL refuses to run as root; then somebody else runs it."""
        if os.geteuid() != 0:
            return ""
        known = {entry.pw_name for entry in pwd.getpwall()}
        return next(name for name in ("postgres", "nobody") if name in known)

    def _who(self) -> dict[str, object]:
        home: dict[str, object] = {"cwd": self._folder}
        if not self._account:
            return home
        return {**home, "user": self._account, "group": pwd.getpwnam(self._account).pw_gid, "extra_groups": []}
