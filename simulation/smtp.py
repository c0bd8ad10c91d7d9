"""An SMTP server that keeps what it is sent, and fails on purpose, for tests and for the demo.

    with MailSink() as sink:
        ...  # send to 127.0.0.1:sink.port
        sink.wait_for(2)
        sink.mails[0].subject

    with MailSink(certificate=(cert_file, key_file), login=("user", "password")) as sink:
        sink.fail = lambda what: "451 try again later" if what == "DATA" else None
        sink.down()  # connections are refused until up()

Without a certificate it speaks plain SMTP; without a login it lets everybody in.
"""

import asyncio
import contextlib
import email
import email.policy
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

DROP = "drop"  # as an answer of `fail`: the connection is cut


@dataclass
class Mail:
    """One message as it arrived. `arrived` is in seconds of the monotonic clock."""

    message: EmailMessage
    recipients: list[str]
    content: bytes
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    arrived: float = field(default_factory=time.monotonic)

    @property
    def subject(self) -> str:
        return self.message["subject"] or ""

    @property
    def body(self) -> str:
        """The HTML body, or the plain text where there is no HTML."""
        return self._part("html", "plain")

    @property
    def text(self) -> str:
        """The plain-text body, or nothing."""
        return self._part("plain")

    def _part(self, *kinds: str) -> str:
        part = self.message.get_body(kinds)
        return part.get_content().replace("\r\n", "\n") if part else ""

    def save(self, folder: Path, number: int) -> list[Path]:
        """Write NUMBER-KIND.eml and .html; KIND is the first part of the subject."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = re.sub(r"\W+", "-", self.subject.split(" | ")[0].lower()).strip("-")[:60]
        name = f"{number}-{kind}" if kind else str(number)
        eml, html = folder / f"{name}.eml", folder / f"{name}.html"
        eml.write_bytes(self.content)
        html.write_text(self.body, encoding="utf-8")
        return [eml, html]


class MailSink:
    """A context manager: the server, on a free port of 127.0.0.1, and the mails it got.

    certificate: files of a certificate and its key; then STARTTLS is offered. login: user and
    password that a client must give. refusal: set it to an SMTP answer such as `451 later` to have
    every message refused.

    fail: `(what) -> answer`, asked at each step: `what` is CONNECT, EHLO, STARTTLS, AUTH, MAIL,
    an address (at RCPT), or DATA when the text has come. The answer is an SMTP answer, DROP, or
    None for no fault; at EHLO, MAIL, RCPT and DATA also a number of seconds to be slow.
    """

    def __init__(
        self,
        certificate: tuple[Path, Path] | None = None,
        login: tuple[str, str] | None = None,
    ):
        self.mails: list[Mail] = []
        self.refusal: str | None = None
        self.fail: Callable[[str], str | float | None] = lambda what: None
        self.login = login
        self.connections = 0
        self.encrypted: list[bool] = []  # for each mail
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._arrived = threading.Condition()
        self._subscribers: list[Callable[[Mail], object]] = []

    def __enter__(self) -> "MailSink":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp", daemon=True)
        self._thread.start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._server = None
        self.up()
        return self

    def __exit__(self, *exception) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = self._run(
            self._loop.create_server(lambda: _Server(self, self._tls), "127.0.0.1", self.port)
        )

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        if self._server:
            self._run(self._close())
            self._server = None

    async def _close(self) -> None:
        self._server.close()
        for session in asyncio.all_tasks():
            if session is not asyncio.current_task():
                session.cancel()
        await asyncio.sleep(0)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    def subscribe(self, callback: Callable[[Mail], object]) -> None:
        """Have `callback(mail)` called for each mail, in the server's thread."""
        self._subscribers.append(callback)

    def wait_for(self, count: int, timeout: float = 10) -> list[Mail]:
        """Wait until so many mails have arrived in all; TimeoutError after `timeout` seconds."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.mails) >= count, timeout):
                subjects = [mail.subject for mail in self.mails]
                raise TimeoutError(
                    f"{len(subjects)} of {count} mails after {timeout} s: {subjects}"
                )
            return list(self.mails)

    def save(self, folder: Path) -> list[Path]:
        """Write all mails, see `Mail.save`. Returns the files."""
        mails = enumerate(self.mails, 1)
        return [path for number, mail in mails for path in mail.save(folder, number)]

    # aiosmtpd's hooks, by its names

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802
        session.host_name = hostname
        answer = await self._fault("EHLO", server)
        return [answer] if answer else responses

    async def handle_MAIL(self, server, session, envelope, address, options) -> str:  # noqa: N802
        answer = await self._fault("MAIL", server)
        if answer:
            return answer
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        answer = await self._fault(address, server)
        if answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        answer = self.refusal or await self._fault("DATA", server)
        if answer:
            return answer
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        mail = Mail(message, envelope.rcpt_tos, envelope.content)
        for subscriber in self._subscribers:
            subscriber(mail)
        with self._arrived:
            self.encrypted.append(session.ssl is not None)
            self.mails.append(mail)
            self._arrived.notify_all()
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        """Whether it is the login; `fail("AUTH")` can refuse it, with words of its own."""
        answer = self.fail("AUTH")
        given = (data.login.decode(), data.password.decode())
        if answer or given != self.login:
            return AuthResult(success=False, handled=False, message=answer)
        return AuthResult(success=True)

    async def _fault(self, what: str, server: "_Server") -> str | None:
        fault = self.fail(what)
        if fault == DROP:
            server.transport.abort()
            await asyncio.Event().wait()  # until the connection's end cancels this
        if isinstance(fault, (int, float)):
            await asyncio.sleep(fault)
            return None
        return fault


class _Server(SMTP):
    """One connection of a sink."""

    def __init__(self, sink: MailSink, tls: ssl.SSLContext | None):
        self._sink = sink
        with warnings.catch_warnings():
            # Not to log in without TLS is the client's business here.
            warnings.simplefilter("ignore")
            super().__init__(
                sink,
                hostname="127.0.0.1",
                tls_context=tls,
                auth_required=sink.login is not None,
                auth_require_tls=False,
                authenticator=sink.authenticate,
                auth_exclude_mechanism=() if sink.login else ("LOGIN", "PLAIN"),
            )

    def connection_made(self, transport) -> None:
        self._sink.connections += 1
        if self._sink.fail("CONNECT") == DROP:
            transport.abort()
            return
        super().connection_made(transport)

    async def smtp_STARTTLS(self, argument: str) -> None:  # noqa: N802  aiosmtpd's name
        answer = self._sink.fail("STARTTLS")
        if answer:
            await self.push(answer)
        else:
            await super().smtp_STARTTLS(argument)

    def connection_lost(self, error) -> None:
        # aiosmtpd relies on what connection_made sets.
        with contextlib.suppress(AssertionError, AttributeError):
            super().connection_lost(error)
