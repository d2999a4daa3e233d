"""`trimtab connectors auth` and `logs` as a person types them."""

import asyncio
import json
import stat
import threading
import webbrowser
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from services import LoopbackServices
from sign_in_world import signing_in
from trimtab.cli.connectors import app
from trimtab.domain.errors import NotFound

KEYED = """
from trimtab.connect import ApiKey, Connector, Effect, Http

connector = Connector(
    name="harbour", version="1.0.0", description="Notes of the harbour.", hosts=("notes.example.org",),
    auth=ApiKey(env="HARBOUR_KEY", header="X-Key"),
)


@connector.tool(effect=Effect.READ)
async def notes(http: Http) -> str:
    '''Read the notes.'''
    return (await http.get("/notes")).text
"""
SIGNED_IN = KEYED.replace("ApiKey,", "OAuth,").replace('ApiKey(env="HARBOUR_KEY", header="X-Key")', "OAuth(**{spec})")
SPEC = {
    "authorize_url": "https://auth.example.org/authorize",
    "token_url": "https://auth.example.org/token",
    "client_id_env": "HARBOUR_ID",
    "issuer": "https://auth.example.org",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HARBOUR_KEY", "HARBOUR_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    return tmp_path


def install(home: Path, source: str, url: str) -> None:
    (home / "harbour.py").write_text(source)
    (home / "config.toml").write_text(
        f'connector_files = ["{home}/harbour.py"]\n\n[connectors.harbour]\nbase_url = "{url}"\nallow_private = true\n'
        f'token_url = "{url}/token"\n'
    )


def run(*words: str, answer: str = "") -> str:
    result = CliRunner().invoke(app, list(words), input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_a_key_is_typed_once_kept_for_oneself_and_never_shown(home: Path) -> None:
    with LoopbackServices() as services:
        install(home, KEYED, services.url)
        assert "key: missing HARBOUR_KEY" in run("show", "harbour")
        said = run("auth", "harbour", answer="k3y-of-the-harbour\n")
        assert said.endswith("harbour is ready.\n")
        assert "k3y" not in said
        kept = home / "secrets"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert run("call", "harbour.notes").startswith("[]")
        assert services.requests[0].headers["x-key"] == "k3y-of-the-harbour"

        kept.chmod(0o644)
        assert "chmod 600" in run("show", "harbour")
        kept.chmod(0o600)
        assert "deleted" in run("auth", "harbour", "--forget")
        assert "key: missing HARBOUR_KEY" in run("show", "harbour")
    written = [path for path in home.rglob("*") if path.is_file() and b"k3y-of-the-harbour" in path.read_bytes()]
    assert written == []


def test_the_last_calls_are_shown_without_what_was_asked(home: Path) -> None:
    assert run("logs") == "No call yet.\n"
    run("call", "calculator.calculate", "--arg", "expression=2+40")
    with pytest.raises(Exception, match="zero"):
        run("call", "calculator.calculate", "--arg", "expression=1/0")
    run("call", "clock.now")
    lines = run("logs", "calculator").splitlines()
    assert [line.split()[4] for line in lines] == ["ok", "failed"]
    assert all("calculator.calculate" in line for line in lines)
    assert len(run("logs").splitlines()) == 3
    assert len(run("logs", "--failed").splitlines()) == 1
    told = json.loads(run("logs", "calculator", "--json"))
    assert (told[0]["ok"], told[1]["reason"], told[0]["effect"]) == (True, "failed", "read")
    assert "40" not in (home / "logs" / "connectors.jsonl").read_text().splitlines()[0].partition('"message"')[2]
    with pytest.raises(NotFound):
        run("logs", "nothing")


async def test_a_person_signs_in_from_the_command_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is a thread that goes where the service would send it."""
    async with signing_in() as world:
        install(home, SIGNED_IN.replace("{spec}", repr(SPEC)), world.url)

        def browser(url: str) -> bool:
            threading.Thread(target=lambda: urlopen(world.browser(url)).read(), daemon=True).start()
            return True

        monkeypatch.setattr(webbrowser, "open", browser)
        said = await asyncio.to_thread(run, "auth", "harbour", answer="the-client-id\n")
        assert "https://auth.example.org/authorize?response_type=code&client_id=the-client-id" in said
        assert said.endswith("harbour is ready.\n")
        assert world.access not in said
        answer = await asyncio.to_thread(run, "call", "harbour.notes")
        assert "[secret removed]" in answer
        assert "deleted" in await asyncio.to_thread(run, "auth", "harbour", "--forget")
        assert "key: missing HARBOUR_ID" in await asyncio.to_thread(run, "show", "harbour")


def test_what_needs_no_key_says_so() -> None:
    assert run("auth", "calculator") == "calculator needs no key and no sign-in.\n"
