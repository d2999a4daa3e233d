"""E-mail through a real SMTP server on loopback: what is sent, what is refused, and what nobody can know."""

import email
import socket
import threading
from collections.abc import Iterator
from email import policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from pydantic import SecretStr

from trimtab.connect import ConnectOptions, Effect, Override, Toolbox, ToolError
from trimtab.connect.conformance import certificates
from trimtab.domain.tool import CALL_ID
from trimtab_connectors import mail

LETTER = {"to": ["bob@example.org"], "subject": "Berth on 3 May", "text": "Dear Bob,\n.\nGrüße\nAnna"}


class Box:
    """Keeps what arrives; refuses recipients called nobody."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 kept"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret-of-smtp", handled=False)


class Server(Controller):
    def __init__(self, box: Box, **facts: Any) -> None:
        self._facts = facts
        super().__init__(box, hostname="127.0.0.1", port=0)

    def factory(self) -> SMTP:
        return SMTP(self.handler, **self._facts)

    def _trigger_server(self) -> None:
        assert self.server
        self.port = self.server.sockets[0].getsockname()[1]  # a free one, now that there is one
        super()._trigger_server()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def server(box: Box) -> Iterator[Server]:
    running = Server(box)
    running.start()
    yield running
    running.stop()


def toolbox_for(port: int, secrets: dict[str, str] | None = None, **options: str) -> Toolbox:
    given = {"host": "127.0.0.1", "port": str(port), "sender": "anna@harbour.example", "security": "none", **options}
    known = {name: SecretStr(value) for name, value in (secrets or {}).items()}
    toolbox = Toolbox(ConnectOptions(overrides={"email": Override(options=given)}, secret=known.get))
    toolbox.add(mail.connector)
    return toolbox


async def test_a_letter_arrives_as_it_was_approved(server: Server, box: Box) -> None:
    toolbox = toolbox_for(server.port)
    effects = {tool.name: tool.info.effect for tool in toolbox.connector("email").tools}
    assert effects == {"email.draft": Effect.READ, "email.send": Effect.IRREVERSIBLE}
    draft = await toolbox.call("email.draft", LETTER)
    assert "not sent" in draft.text
    assert box.letters == []
    token = CALL_ID.set("turn-1/call-1")
    sent = await toolbox.call("email.send", {**LETTER, "cc": ["carol@example.org"]})
    await toolbox.call("email.send", LETTER)
    CALL_ID.reset(token)
    assert sent.answer == "The e-mail “Berth on 3 May” was sent to bob@example.org, carol@example.org."
    first, again = box.letters
    assert first.mail_from == "anna@harbour.example"
    assert first.rcpt_tos == ["bob@example.org", "carol@example.org"]
    read = email.message_from_bytes(first.content, policy=policy.default)
    assert read["subject"] == "Berth on 3 May"
    assert read.get_content().splitlines() == ["Dear Bob,", ".", "Grüße", "Anna"]
    same = email.message_from_bytes(again.content, policy=policy.default)
    assert read["message-id"] == same["message-id"], "a call run again after a crash is the same letter"


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Hello\r\nBcc: eve@evil.example"},
        {"subject": "Hello\nX: y"},
        {"subject": "Hello\u2028Bcc: eve@evil.example"},
        {"to": ["bob@example.org\r\nBcc: eve@evil.example"]},
        {"to": ["bob@example.org, eve@evil.example"]},
        {"to": ["Bob <bob@example.org>"]},
        {"to": ["bob@example.org>\r\nRCPT TO:<eve@evil.example"]},
        {"to": ["@example.org"]},
        {"to": ["bob@localhost"]},
        {"cc": ["böb@example.org"]},
        {"to": ["bob@example.org"] * 21},
        {"to": []},
    ],
)
async def test_nothing_in_it_becomes_a_header_or_a_recipient(server: Server, box: Box, change: Any) -> None:
    toolbox = toolbox_for(server.port)
    with pytest.raises(Exception, match=r"Nothing was sent|at (most|least)") as caught:
        await toolbox.call("email.send", {**LETTER, **change})
    assert "failed inside" not in str(caught.value)
    assert box.letters == []


async def test_one_refused_recipient_is_all_refused_and_only_permitted_ones_are_asked(server: Server, box: Box) -> None:
    toolbox = toolbox_for(server.port)
    with pytest.raises(ToolError, match=r"was not sent: .* 550 no such mailbox"):
        await toolbox.call("email.send", {**LETTER, "to": ["bob@example.org", "nobody@example.org"]})
    narrow = toolbox_for(server.port, recipients="@example.org, eve@other.example")
    with pytest.raises(ToolError, match=r"mallory@other\.example is not among the `recipients`"):
        await narrow.call("email.send", {**LETTER, "to": ["bob@example.org", "mallory@other.example"]})
    assert box.letters == []
    await narrow.call("email.send", {**LETTER, "to": ["Bob@EXAMPLE.org", "eve@other.example"]})
    assert len(box.letters) == 1


async def test_the_password_goes_only_over_a_line_that_was_proved(tmp_path: Path, box: Box) -> None:
    made = certificates.make(tmp_path, ["localhost"])
    secrets = {"SMTP_USER": "anna", "SMTP_PASSWORD": "s3cret-of-smtp"}
    running = Server(
        box, tls_context=made.servers["good"], require_starttls=True, authenticator=box.login, auth_required=True
    )
    running.start()
    try:
        there = {"host": "localhost", "security": "starttls"}
        await toolbox_for(running.port, secrets, ca_file=made.authority, **there).call("email.send", LETTER)
        assert box.logins == [(b"anna", b"s3cret-of-smtp")]
        assert len(box.letters) == 1
        with pytest.raises(ToolError, match="certificate is not right"):
            await toolbox_for(running.port, secrets, **there).call("email.send", LETTER)
        wrong = {**secrets, "SMTP_PASSWORD": "wrong-one-of-all"}
        with pytest.raises(ToolError, match="does not accept SMTP_USER") as caught:
            await toolbox_for(running.port, wrong, ca_file=made.authority, **there).call("email.send", LETTER)
        assert "wrong-one" not in caught.value.message
        assert len(box.letters) == 1
    finally:
        running.stop()


async def test_without_encryption_it_says_so_and_stays_silent(server: Server, box: Box) -> None:
    with pytest.raises(ToolError, match="does not offer the encryption"):
        await toolbox_for(server.port, security="starttls").call("email.send", LETTER)
    with pytest.raises(ToolError, match="is not this machine"):
        await toolbox_for(server.port, host="smtp.example.org").call("email.send", LETTER)
    with pytest.raises(ToolError, match=r"config set connectors\.email\.options\.host VALUE"):
        await toolbox_for(server.port, host="").call("email.send", LETTER)
    assert box.letters == []


def scripted(lines: list[bytes]) -> tuple[int, threading.Thread]:
    """A server that says these lines, one after each of the client's, and then nothing, or hangs up at ``b""``."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as connection, connection.makefile("rb") as said:
            connection.settimeout(20)
            for line in lines:
                if not line:
                    return
                connection.sendall(line)
                asked = said.readline()
                while line.startswith(b"354") and asked not in (b".\r\n", b""):
                    asked = said.readline()
            while said.readline():
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return listening.getsockname()[1], thread


GREETING = [b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n"]


@pytest.mark.parametrize(
    ("lines", "told", "reason"),
    [
        ([b""], "was not sent", "unreachable"),
        ([b"220 hi\r\n", b"250-a\r\n" * 3000], "was not sent", "deadline"),
        ([b"SSH-2.0-OpenSSH\r\n"], "was not sent", "failed"),
        ([*GREETING, b"554 no\r\n"], "was not sent", "failed"),
        ([*GREETING, b"354 go\r\n", b"554 spam\r\n"], "was not sent", "failed"),
        ([*GREETING, b"354 go\r\n", b""], "Nobody knows whether", "unknown"),
        ([*GREETING, b"354 go\r\n"], "Nobody knows whether", "unknown"),
    ],
)
async def test_how_far_it_came_is_said_truly(
    monkeypatch: pytest.MonkeyPatch, lines: list[bytes], told: str, reason: str
) -> None:
    monkeypatch.setattr(mail, "SECONDS", 1.0)
    port, thread = scripted(lines)
    with pytest.raises(ToolError, match=told) as caught:
        await toolbox_for(port).call("email.send", LETTER)
    thread.join(timeout=20)
    assert not thread.is_alive(), "it hung up"
    assert caught.value.detail["reason"] in (reason, "failed")
    assert ("Nobody knows" in caught.value.message) is (reason == "unknown")
