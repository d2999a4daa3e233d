"""Signing in: a browser at a service of this test, codes, tokens that end, and what a person is told."""

import asyncio
import base64
import stat
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from sign_in_world import ISSUER, World, signing_in
from trimtab.connect import (
    Basic,
    Bearer,
    ClientCredentials,
    ConnectOptions,
    Connector,
    Effect,
    Http,
    InvalidInput,
    OAuth,
    Override,
    Retry,
    Toolbox,
    ToolError,
)
from trimtab.connect.authorize import answered, asking
from trimtab.connect.vault import Memory, SecretFile
from trimtab.domain.errors import DeadlineExceeded

SECRETS = {"APP_ID": "app-id-1", "APP_SECRET": "app+secret/1"}
PERSON = OAuth(
    authorize_url=f"{ISSUER}/authorize",
    token_url=f"{ISSUER}/token",
    client_id_env="APP_ID",
    client_secret_env="APP_SECRET",
    scopes=("read", "write"),
    issuer=ISSUER,
    issuer_required=True,
    resource="https://api.example.org/",
)
MACHINE = ClientCredentials(
    token_url=f"{ISSUER}/token", client_id_env="APP_ID", client_secret_env="APP_SECRET", scopes=("read",)
)


def toolbox_of(world: World, auth: Any, keeper: Any = None) -> Toolbox:
    connector = Connector(
        name="mail", version="1", description="x", hosts=("api.example.org",), auth=auth, retry=Retry(attempts=1)
    )

    @connector.tool(effect=Effect.READ)
    async def inbox(http: Http) -> str:
        """Read."""
        return (await http.get("/inbox")).text

    @connector.tool(effect=Effect.WRITE)
    async def send(http: Http) -> str:
        """Send."""
        return (await http.post("/send", json={})).text

    here = Override(base_url=world.url, allow_private=True, token_url=f"{world.url}/token")
    options = ConnectOptions(
        overrides={"mail": here},
        secret=lambda name: SecretStr(SECRETS[name]) if name in SECRETS else None,
        keeper=keeper if keeper is not None else Memory(),
    )
    toolbox = Toolbox(options)
    toolbox.add(connector)
    return toolbox


async def visit(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(url)


async def sign_in(toolbox: Toolbox, world: World) -> None:
    async with asking(toolbox.sign_in("mail")) as question:
        page = await visit(world.browser(question.url))
        assert (page.status_code, "close this page" in page.text) == (200, True)
        await answered(toolbox.sign_in("mail"), question)


async def test_a_person_signs_in_and_the_tools_work_until_the_token_ends_and_after(tmp_path: Path) -> None:
    async with signing_in() as world:
        kept = SecretFile(tmp_path / "secrets")
        toolbox = toolbox_of(world, PERSON, kept)
        assert toolbox.connector("mail").auth == "not connected"
        with pytest.raises(ToolError, match="run `trimtab connectors auth mail`") as unknown:
            await toolbox.call("mail.inbox", {})
        assert unknown.value.detail["reason"] == "auth"
        world.lasts = 10  # due at once: tokens are renewed half a minute before they end
        await sign_in(toolbox, world)
        assert toolbox.connector("mail").auth == "ready"
        exchanged = world.forms[0]
        assert exchanged["resource"] == "https://api.example.org/"
        assert world.basics[0] == "app-id-1:app%2Bsecret%2F1"

        world.lasts = 3600
        outcome = await toolbox.call("mail.inbox", {})
        assert [form["grant_type"] for form in world.forms] == ["authorization_code", "refresh_token"]
        await toolbox.call("mail.inbox", {})
        assert len(world.forms) == 2
        # What the service echoed of the token, plain and quoted, is taken out; the file is ours alone.
        assert "access-token" not in repr(outcome)
        assert "[secret removed]" in outcome.text
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
        assert world.access in kept.path.read_text()
        # Another process, or the same one tomorrow, goes on where this one stopped.
        later = toolbox_of(world, PERSON, SecretFile(tmp_path / "secrets"))
        await later.call("mail.inbox", {})
        assert len(world.forms) == 2


async def test_fifty_calls_and_two_processes_renew_a_token_once(tmp_path: Path) -> None:
    async with signing_in() as world:
        boxes = [toolbox_of(world, PERSON, SecretFile(tmp_path / "secrets")) for _ in range(2)]
        world.lasts = 10
        await sign_in(boxes[0], world)
        world.lasts = 3600
        outcomes = await asyncio.gather(*(boxes[n % 2].call("mail.inbox", {}) for n in range(50)))
    assert len(outcomes) == 50
    assert [form["grant_type"] for form in world.forms] == ["authorization_code", "refresh_token"]


async def test_a_refused_token_is_renewed_once_and_the_request_sent_again() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        await sign_in(toolbox, world)
        world.access = "revoked-at-the-service"
        await toolbox.call("mail.send", {})
        assert len(world.heads) == 2
        assert len(world.forms) == 2


async def test_a_service_that_refuses_every_token_does_not_make_us_ask_for_ever_more() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        await sign_in(toolbox, world)
        world.rejects_all = True
        for _ in range(5):
            with pytest.raises(ToolError, match=r"refused the key.*401") as refused:
                await toolbox.call("mail.inbox", {})
        assert refused.value.detail["reason"] == "auth"
        assert len(world.forms) == 2


async def test_a_sign_in_that_the_server_ended_asks_the_person_to_connect_again() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        world.lasts = 10
        await sign_in(toolbox, world)
        world.broken = True
        with pytest.raises(ToolError):
            await toolbox.call("mail.inbox", {})
        assert toolbox.connector("mail").auth == "ready"  # a server that is down has ended nothing
        world.broken, world.refuses = False, "invalid_grant"
        with pytest.raises(ToolError, match="must be signed in again: run `trimtab connectors auth mail`"):
            await toolbox.call("mail.inbox", {})
        assert toolbox.connector("mail").auth == "reconnect"
        asked = len(world.forms)
        with pytest.raises(ToolError, match="signed in again"):
            await toolbox.call("mail.inbox", {})
        assert len(world.forms) == asked
        world.refuses, world.lasts = "", 3600
        await sign_in(toolbox, world)
        assert toolbox.connector("mail").auth == "ready"
        await toolbox.call("mail.inbox", {})
        toolbox.sign_in("mail").forget()
        assert toolbox.connector("mail").auth == "not connected"


async def test_who_stops_waiting_does_not_cost_the_sign_in() -> None:
    """The server rotates; the call that asked is cancelled while it does. The new token is kept all the same."""
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        world.lasts = 10
        await sign_in(toolbox, world)
        world.lasts = 3600
        call = asyncio.create_task(toolbox.call("mail.inbox", {}))
        while len(world.forms) < 2:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await toolbox.sign_in("mail").aclose()
        await toolbox.call("mail.inbox", {})
    assert len(world.forms) == 2


async def test_only_the_answer_to_our_question_signs_anybody_in() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        async with asking(toolbox.sign_in("mail")) as question:
            waiting = asyncio.create_task(answered(toolbox.sign_in("mail"), question))
            for wrong in ({"state": "somebody-elses"}, {"state": None}, {"state": "é"}):
                page = await visit(world.browser(question.url, **wrong))
                assert (page.status_code, "Nobody was signed in" in page.text) == (400, True)
            elsewhere = question.redirect.replace("/callback", "/")
            assert (await visit(elsewhere)).status_code == 404
            assert (await visit(world.browser(question.url) + "&state=twice")).status_code == 400
            assert not waiting.done()
            await visit(world.browser(question.url))
            await waiting
        assert toolbox.connector("mail").auth == "ready"
        with pytest.raises(httpx.ConnectError):  # the port lives for one sign-in
            await visit(question.redirect)


@pytest.mark.parametrize("issuer", ["https://other.example.org", None])
async def test_another_servers_answer_signs_nobody_in(issuer: str | None) -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        async with asking(toolbox.sign_in("mail")) as question:
            await visit(world.browser(question.url, iss=issuer))
            with pytest.raises(ToolError, match="not from the server that was asked"):
                await answered(toolbox.sign_in("mail"), question)
        assert world.forms == []
        assert toolbox.connector("mail").auth == "not connected"


async def test_a_person_who_declines_or_never_comes_is_told_so() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        async with asking(toolbox.sign_in("mail")) as question:
            await visit(world.browser(question.url, code=None, error="access_denied"))
            with pytest.raises(ToolError, match="was not signed in: access_denied"):
                await answered(toolbox.sign_in("mail"), question)
        async with asking(toolbox.sign_in("mail")) as question:
            with pytest.raises(DeadlineExceeded, match="Nobody signed in"):
                await answered(toolbox.sign_in("mail"), question, seconds=0.05)


async def test_a_stolen_code_is_worth_nothing_without_the_verifier() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, PERSON)
        async with asking(toolbox.sign_in("mail")) as question:
            await visit(world.browser(question.url))
            world.challenge = "of-somebody-else"
            with pytest.raises(ToolError, match="invalid_grant"):
                await answered(toolbox.sign_in("mail"), question)


@pytest.mark.parametrize("place", ["basic", "post"])
async def test_a_connector_signs_in_by_itself_once(place: Any) -> None:
    async with signing_in() as world:
        auth = ClientCredentials(**{**vars(MACHINE), "client_auth": place})
        toolbox = toolbox_of(world, auth)
        assert toolbox.connector("mail").auth == "ready"
        await asyncio.gather(*(toolbox.call("mail.inbox", {}) for _ in range(10)))
        assert len(world.forms) == 1
        assert world.forms[0]["scope"] == "read"
        assert (world.basics, "client_secret" in world.forms[0]) == (
            (["app-id-1:app%2Bsecret%2F1"], False) if place == "basic" else ([], True)
        )
        world.access = "revoked"
        await toolbox.call("mail.inbox", {})
        assert len(world.forms) == 2
        world.refuses, world.access = "invalid_client", "revoked"
        toolbox.sign_in("mail")._forced_at = time.time() - 61  # a minute later
        with pytest.raises(ToolError, match=r"refused to sign connector 'mail' in \(invalid_client\)") as refused:
            await toolbox.call("mail.inbox", {})
        assert SECRETS["APP_SECRET"] not in repr(refused.value)


async def test_bearer_and_basic_are_sent_and_never_told() -> None:
    async with signing_in() as world:
        world.access = "t0ken-value"
        SECRETS_HERE = {"TOKEN": "t0ken-value", "USER": "ada", "PASSWORD": "pass word"}

        def keyed(auth: Any) -> Toolbox:
            toolbox = toolbox_of(world, auth)
            secret = lambda name: SecretStr(SECRETS_HERE[name])  # noqa: E731
            toolbox.sign_in("mail")._secret = secret
            return toolbox

        outcome = await keyed(Bearer(env="TOKEN")).call("mail.inbox", {})
        assert "t0ken-value" not in repr(outcome)
        with pytest.raises(ToolError, match="refused the key") as refused:
            await keyed(Basic(user_env="USER", password_env="PASSWORD")).call("mail.inbox", {})
        assert base64.b64encode(b"ada:pass word") in world.heads[-1]
        assert "pass word" not in repr(refused.value)


async def test_an_optional_key_that_is_not_there_is_not_needed() -> None:
    async with signing_in() as world:
        toolbox = toolbox_of(world, Bearer(env="NOT_SET", optional=True))
        assert toolbox.connector("mail").auth == "optional"
        with pytest.raises(ToolError, match="refused the key"):
            await toolbox.call("mail.inbox", {})
        assert b"authorization" not in world.heads[0].lower()


def test_mistakes_in_a_sign_in_are_named() -> None:
    for wrong, said in (
        (lambda: OAuth(authorize_url="http://a.example/", token_url=f"{ISSUER}/t", client_id="x"), "https address"),
        (lambda: OAuth(authorize_url=f"{ISSUER}/a", token_url=f"{ISSUER}/t"), "exactly one"),
        (
            lambda: OAuth(authorize_url=f"{ISSUER}/a", token_url=f"{ISSUER}/t", client_id="x", issuer_required=True),
            "needs the issuer",
        ),
        (lambda: Basic(user_env="", password_env="P"), "user_env and password_env"),
    ):
        with pytest.raises(InvalidInput, match=said):
            wrong()
