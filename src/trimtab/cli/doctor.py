"""`trimtab doctor`: is everything in order, and if not, how to mend it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trimtab.settings import Settings

NEEDED_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One line of the report. `mend` is what to do when it is not in order."""

    part: str
    ok: bool
    found: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check each part and say how to mend what is wrong. Exit code 1 when something is."""
    from trimtab.settings import Settings

    settings = Settings.load()
    findings = list(examine(settings))
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        for finding in findings:
            mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("MEND", fg="red", bold=True)
            typer.echo(f"{mark} {finding.part:12} {finding.found}")
            if not finding.ok:
                typer.echo(f"     {'':12} → {finding.mend}")
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which the parts depend on each other. A check that breaks is a finding itself."""
    checks: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
        ("python", _python),
        ("folder", _folder),
        ("database", _database),
        ("models", _models),
        ("engine", _engine),
        ("version", _version),
        ("connectors", _connectors),
        ("web UI", _ui),
        ("server", _server),
    )
    for name, check in checks:
        try:
            yield check(settings)
        except Exception as error:
            yield Finding(
                name, False, f"{type(error).__name__}: {error}", "see the message; if it does not help, report it"
            )


def _python(settings: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _folder(settings: Settings) -> Finding:
    settings.home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.home).free
    return Finding(
        "folder",
        free > NEEDED_BYTES,
        f"{settings.home}, {free / 1e9:.1f} GB free",
        "free some space, or set TRIMTAB_HOME",
    )


def _database(settings: Settings) -> Finding:
    import contextlib

    from trimtab.own_database import open_database
    from trimtab.store import threads

    with contextlib.closing(open_database(settings)) as database:
        found = database.check()
        counts = database.read_sync(threads.count)
    said = ", ".join(f"{n} {name}" for name, n in counts.items())
    return Finding("database", bool(found["ok"]), said, "restore a backup (docs/operations.md), the file is damaged")


def _models(settings: Settings) -> Finding:
    from trimtab.llm import catalogue, shelf

    missing = [
        name
        for name in (catalogue.DEFAULT_CHAT, catalogue.DEFAULT_EMBEDDING)
        if not shelf.is_installed(catalogue.entry(name), settings.models_dir)
    ]
    found = f"missing: {', '.join(missing)}" if missing else f"default models in {settings.models_dir}"
    return Finding("models", not missing, found, "run `trimtab models pull`")


def _engine(settings: Settings) -> Finding:
    from importlib.metadata import version

    if settings.base_url:
        return Finding("engine", True, f"none here: {settings.model} at {settings.base_url}")
    from trimtab.domain.errors import TrimtabError
    from trimtab.llm import catalogue, shelf
    from trimtab.llm.served import engine_for, is_hosted
    from trimtab.own_models import serving_options

    if is_hosted(settings.model):
        return Finding("engine", True, f"none here: {settings.model}")
    name = catalogue.DEFAULT_CHAT if settings.model == "default" else settings.model
    try:
        choice = engine_for(shelf.resolve_model(name, settings.models_dir), serving_options(settings))
    except TrimtabError as error:
        return Finding("engine", False, error.message, "see the message")
    package = {"openvino": "openvino-genai", "llamacpp": "xllamacpp"}[choice.engine]
    found = f"{choice.engine} ({package} {version(package)}): {choice.reason}"
    return Finding("engine", True, found, f"pip install {package}")


def _version(settings: Settings) -> Finding:
    """The files of the version that should answer, against their hashes. The base is the engine's."""
    import contextlib

    from trimtab.domain.errors import TrimtabError
    from trimtab.own_database import open_database
    from trimtab.registry.registry import Registry
    from trimtab.store import versions

    with contextlib.closing(open_database(settings)) as database:
        now = database.read_sync(versions.serving_or_none)
        row = database.read_sync(versions.get, now["version_id"]) if now else None
    if row is None or row["kind"] == "base":
        return Finding("version", True, "the model as it was installed")
    try:
        Registry(settings.versions_dir).verified(row["id"])
    except TrimtabError as error:
        found = f"{row['name']} cannot answer, so the model as installed does: {error.message}"
        return Finding("version", False, found, "trimtab models rollback, or promote another: trimtab models versions")
    return Finding("version", True, f"{row['name']}, its files are whole")


def _connectors(settings: Settings) -> Finding:
    from trimtab.own_connectors import open_toolbox

    toolbox = open_toolbox(settings)
    broken = [f"{c.name}: {c.error}" for c in toolbox.connectors if c.error]
    names = ", ".join(f"{c.name}{'' if c.enabled else ' (off)'}" for c in toolbox.connectors if not c.error)
    return Finding("connectors", not broken, "; ".join(broken) or names, "reinstall or remove the broken connector")


def _ui(settings: Settings) -> Finding:
    import importlib.util

    there = importlib.util.find_spec("streamlit") is not None
    return Finding("web UI", there, "installed" if there else "not installed", "pip install 'trimtab[ui]'")


def _server(settings: Settings) -> Finding:
    import httpx

    try:
        response = httpx.get(f"{settings.url}/readyz", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return Finding("server", True, "not running (`trimtab up` starts it)")
    parts = response.json()["parts"]
    down = [name for name, part in parts.items() if not part["ok"]]
    found = f"running at {settings.url}" + (f", not in order: {', '.join(down)}" if down else "")
    why = "the Models page says why (so does `version` above): trimtab models rollback, or promote another"
    mend = why if down == ["version"] else ""
    return Finding("server", not down, found, mend or f"look into {settings.logs_dir}")
