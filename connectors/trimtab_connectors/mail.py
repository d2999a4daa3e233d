"""E-mail: a draft to look at, and sending it through your own SMTP server.

Sending cannot be taken back, so it waits for a person, is tried once, and says exactly how far it came: not sent, sent,
or perhaps sent. One message goes to all of its recipients or to none. Nothing that a model writes can add a header or a
recipient: addresses are matched whole, and a subject is one line. The connection is encrypted before a password or a
word of the message is said.
"""

import asyncio
import contextlib
import hashlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from ipaddress import ip_address
from typing import Annotated

from pydantic import Field

from trimtab.connect import Basic, Connector, Effect, Option, Result, Setup, ToolError

connector = Connector(
    name="email",
    version="1.0.0",
    description="Drafts e-mail and sends it through your SMTP server, after your approval.",
    auth=Basic(user_env="SMTP_USER", password_env="SMTP_PASSWORD", optional=True),  # noqa: S106
    options={
        "host": Option("The SMTP server that sends your mail, e.g. smtp.example.org."),
        "sender": Option("The address that mail comes from, e.g. you@example.org."),
        "port": Option("The server's port.", required=False, default="587"),
        "security": Option(
            "starttls, tls (port 465), or none (this machine only).", required=False, default="starttls"
        ),
        "recipients": Option("Only these addresses or @domains may be written to; empty: any.", required=False),
        "ca_file": Option("Authorities to trust besides the system's, as a PEM file.", required=False),
    },
    speaks=("SMTP",),
)

SECONDS = 25.0
STEP = 10.0
"""Seconds without a byte, after which the server is given up."""
OURSELVES = "[127.0.0.1]"
"""How we greet: this machine's name is nobody's business, and looking it up may take long."""
ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
UNSENT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
Addresses = Annotated[list[str], Field(min_length=1, max_length=20)]
Subject = Annotated[str, Field(min_length=1, max_length=200), "The subject, one line"]
Text = Annotated[str, Field(min_length=1, max_length=20_000), "The message, as plain text"]
Copies = Annotated[list[str] | None, Field(max_length=20), "Addresses that get a copy"]


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Draft an e-mail to anna@example.org about the meeting tomorrow",
        "Write a mail to harbour@example.com asking for a berth, do not send it",
        "Prepare an email to bob@example.net with the subject Invoice",
        "Compose an e-mail to info@example.org that says thank you",
        "How would a mail to carol@example.com about the delay look?",
        "Draft a polite reminder to dave@example.org",
    ),
)
async def draft(
    to: Annotated[Addresses, "Who gets it, as addresses: anna@example.org"],
    subject: Subject,
    text: Text,
    setup: Setup,
    cc: Copies = None,
) -> Result:
    """Write an e-mail as a draft to look at. Nothing is sent."""
    letter = written(setup, to, cc or [], subject, text)
    return Result(
        text=f"A draft, not sent.\n{letter.shown}",
        data=letter.data,
        answer=f"Here is the draft to {', '.join(letter.recipients)}: {letter.subject}. It was not sent.",
    )


@connector.tool(
    effect=Effect.IRREVERSIBLE,
    timeout=SECONDS + 5.0,
    examples=(
        "Send an e-mail to anna@example.org that says the boat leaves at noon",
        "E-mail bob@example.net: the meeting is moved to Friday",
        "Send a mail to harbour@example.com with the subject Berth and ask for a place on 3 May",
        "Mail carol@example.com that I will be late",
        "Please send an email to info@example.org asking for the price list",
        "Write to dave@example.org that the parcel has arrived, and send it",
    ),
)
async def send(
    to: Annotated[Addresses, "Who gets it, as addresses: anna@example.org"],
    subject: Subject,
    text: Text,
    setup: Setup,
    cc: Copies = None,
) -> Result:
    """Send an e-mail from the person's own address. It cannot be taken back."""
    letter = written(setup, to, cc or [], subject, text)
    await posted(Delivery(letter, server(setup), setup))
    said = f"The e-mail “{letter.subject}” was sent to {', '.join(letter.recipients)}."
    return Result(text=f"{said}\n{letter.shown}", data={**letter.data, "sent": True}, answer=said)


@dataclass(frozen=True)
class Letter:
    """A message, whole and checked."""

    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    subject: str
    text: str
    message: EmailMessage = field(repr=False)

    @property
    def recipients(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.to, *self.cc)))

    @property
    def shown(self) -> str:
        copies = f"\nCc: {', '.join(self.cc)}" if self.cc else ""
        return f"From: {self.sender}\nTo: {', '.join(self.to)}{copies}\nSubject: {self.subject}\n\n{self.text}"

    @property
    def data(self) -> dict[str, object]:
        return {"from": self.sender, "to": self.to, "cc": self.cc, "subject": self.subject, "text": self.text}


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    security: str
    ca_file: str = ""


def written(setup: Setup, to: list[str], cc: list[str], subject: str, text: str) -> Letter:
    """The message.

    Raises:
        ToolError: an address is none or not permitted, or the subject would be more than a line.
    """
    sender = address(setup.need("sender"))
    if BREAKS.search(subject):
        raise ToolError("A subject is one line without control characters. Nothing was sent.", reason="not_permitted")
    permitted = [part.strip().casefold() for part in setup.get("recipients").split(",") if part.strip()]
    everyone = [address(one) for one in [*to, *cc]]
    for one in everyone:
        domain = "@" + one.rpartition("@")[2].casefold()
        if permitted and one.casefold() not in permitted and domain not in permitted:
            raise ToolError(
                f"{one} is not among the `recipients` that the settings permit. Nothing was sent.",
                reason="not_permitted",
            )
    clean = UNSENT.sub("", text.replace("\r\n", "\n"))
    subject = UNSENT.sub("", subject).strip()
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = Address(addr_spec=sender)
    message["To"] = [Address(addr_spec=one) for one in everyone[: len(to)]]
    if cc:
        message["Cc"] = [Address(addr_spec=one) for one in everyone[len(to) :]]
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    # The same for a call that is run again after a crash: servers and readers recognise a letter by it.
    mark = hashlib.sha256(setup.call_key.encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{mark}@{sender.rpartition('@')[2]}>"
    message.set_content(clean, cte="quoted-printable")
    return Letter(sender, tuple(everyone[: len(to)]), tuple(everyone[len(to) :]), subject, clean, message)


def address(text: str) -> str:
    """One plain address.

    Raises:
        ToolError: it is none, or more than one.
    """
    text = text.strip()
    if not ADDRESS.fullmatch(text) or len(text) > 254 or len(text.rpartition("@")[0]) > 64:
        raise ToolError(f"{text[:80]!r} is not an e-mail address like anna@example.org. Nothing was sent.")
    return text


def server(setup: Setup) -> Server:
    """Raises `ToolError`: it is not set up, or not rightly."""
    host, security = setup.need("host"), setup.need("security").casefold()
    if security not in ("starttls", "tls", "none"):
        raise ToolError("Connector 'email': `security` must be starttls, tls or none.", reason="not_set_up")
    if security == "none" and not _here(host):
        raise ToolError(
            f"Connector 'email': {host} is not this machine, so mail goes there encrypted. Set `security` to starttls "
            "or tls.",
            reason="not_set_up",
        )
    return Server(host, setup.number("port", 1, 65535), security, setup.get("ca_file"))


def _here(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


# ---------------------------------------------------------------------- sending


async def posted(delivery: "Delivery") -> None:
    """Deliver in a thread, and give up in time: whatever was not begun by then is not begun any more.

    Raises:
        ToolError: it was not sent, or nobody knows whether it was; the message says which.
    """
    work = asyncio.ensure_future(asyncio.to_thread(delivery.run))
    work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # of one given up, nobody asks
    try:
        done, _ = await asyncio.wait({work}, timeout=SECONDS)
        if not done:
            raise delivery.given_up()
        work.result()
    except asyncio.CancelledError:
        delivery.given_up()
        raise


class Delivery:
    """One attempt. `run` is for a thread; `given_up` ends it from another."""

    def __init__(self, letter: Letter, where: Server, setup: Setup) -> None:
        self._letter = letter
        self._where = where
        self._setup = setup
        self._lock = threading.Lock()
        self._over = False
        self._sending = False
        self._client: smtplib.SMTP | None = None

    def run(self) -> None:
        """Raises `ToolError`."""
        where = self._where
        try:
            self._deliver()
        except smtplib.SMTPNotSupportedError:
            raise self._failed("it does not offer the encryption or the login that is set up") from None
        except smtplib.SMTPAuthenticationError:
            raise self._failed("it does not accept SMTP_USER and SMTP_PASSWORD", "auth") from None
        except smtplib.SMTPResponseException as error:
            if error.smtp_code > 0:
                self._sending = False  # it has answered, and refused
            raise self._failed(f"it answered {error.smtp_code} {_plain(error.smtp_error)}") from None
        except smtplib.SMTPException as error:
            raise self._failed(f"the conversation broke off ({type(error).__name__})") from None
        except ssl.SSLError as error:
            raise self._failed(f"its certificate is not right ({error.reason or 'TLS'})", "unreachable") from None
        except TimeoutError:
            raise self._failed("it did not answer in time", "deadline") from None
        except (OSError, ValueError) as error:
            why = f"it cannot be reached at {where.host}, port {where.port} ({type(error).__name__})"
            raise self._failed(why, "unreachable") from None
        finally:
            self._hang_up(close=True)

    def given_up(self) -> ToolError:
        """End it now, whatever it is doing, and say how far it came."""
        with self._lock:
            self._over = True
        self._hang_up()
        return self._failed("it did not answer in time", "deadline")

    def _deliver(self) -> None:
        where, letter = self._where, self._letter
        context = ssl.create_default_context()
        if where.ca_file:
            context.load_verify_locations(where.ca_file)
        make: Callable[[], smtplib.SMTP] = (
            (lambda: smtplib.SMTP_SSL(local_hostname=OURSELVES, timeout=STEP, context=context))
            if where.security == "tls"
            else (lambda: smtplib.SMTP(local_hostname=OURSELVES, timeout=STEP))
        )
        client = make()
        client._host = where.host  # type: ignore[attr-defined]  # SMTP_SSL checks the certificate's name against it
        with self._lock:
            self._client = client
        _accepted(client.connect(where.host, where.port))
        if where.security == "starttls":
            client.starttls(context=context)
        user, password = self._setup.secret("SMTP_USER"), self._setup.secret("SMTP_PASSWORD")
        if user and password:
            client.login(user, password)
        client.ehlo_or_helo_if_needed()
        _accepted(client.mail(letter.sender))
        for one in letter.recipients:
            _accepted(client.rcpt(one))
        with self._lock:
            if self._over:
                raise TimeoutError
            self._sending = True
        _accepted(client.data(letter.message.as_bytes()))
        self._sending = False
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()  # it has the letter; how it says goodbye does not matter

    def _failed(self, why: str, reason: str = "failed") -> ToolError:
        if self._sending:
            return ToolError(
                f"Nobody knows whether the e-mail was sent: while {self._where.host} was given it, {why}. Look into "
                "the sent folder or ask the recipient before it is sent again.",
                reason="unknown",
            )
        return ToolError(f"The e-mail was not sent: {self._where.host} was asked, and {why}.", reason=reason)

    def _hang_up(self, *, close: bool = False) -> None:
        """Wake whoever reads from the connection; `close` is for the thread that owns it."""
        client = self._client
        if client is None:
            return
        with contextlib.suppress(OSError, smtplib.SMTPException):
            if client.sock is not None:
                client.sock.shutdown(socket.SHUT_RDWR)
        if close:
            client.close()


def _accepted(answer: tuple[int, bytes]) -> None:
    code, said = answer
    if not 200 <= code < 300:
        raise smtplib.SMTPResponseException(code, said)


def _plain(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:200]
