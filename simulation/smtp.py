"""An SMTP server that keeps what it is sent, for tests and for the demo.

    with MailSink() as sink:
        ...  # send to 127.0.0.1:sink.port
        sink.wait_for(2)
        sink.mails[0].subject

It speaks plain SMTP: no TLS, no login.
"""

import contextlib
import email
import email.policy
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.controller import Controller


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
        part = self.message.get_body(("html", "plain"))
        return part.get_content().replace("\r\n", "\n") if part else ""

    def save(self, folder: Path, number: int) -> list[Path]:
        """Write NUMBER-KIND.eml and .html; KIND is the subject up to the finding's id."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = re.sub(r"\W+", "-", self.subject.split(" | ID")[0].lower()).strip("-")[:60]
        name = f"{number}-{kind}" if kind else str(number)
        eml, html = folder / f"{name}.eml", folder / f"{name}.html"
        eml.write_bytes(self.content)
        html.write_text(self.body, encoding="utf-8")
        return [eml, html]


class MailSink:
    """A context manager: the server, on a free port of 127.0.0.1, and the mails it got.

    refusal: set it to an SMTP answer such as `451 try again later` to have every message refused.
    """

    def __init__(self):
        self.mails: list[Mail] = []
        self.refusal: str | None = None
        self._arrived = threading.Condition()
        self._subscribers: list[Callable[[Mail], object]] = []

    def __enter__(self) -> "MailSink":
        self._controller = _LoopbackController(self)
        self._controller.start()
        return self

    def __exit__(self, *exception) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        return self._controller.port

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

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802  aiosmtpd's name
        if self.refusal:
            return self.refusal
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        mail = Mail(message, envelope.rcpt_tos, envelope.content)
        with self._arrived:
            self.mails.append(mail)
            self._arrived.notify_all()
        for subscriber in self._subscribers:
            subscriber(mail)
        return "250 OK"


class _LoopbackController(Controller):
    """A controller that binds port 0 itself: aiosmtpd connects to the port that it was given."""

    def __init__(self, handler):
        self._socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(handler, hostname="127.0.0.1", port=self._socket.getsockname()[1])

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self._socket)

    def stop(self, no_assert: bool = False) -> None:
        super().stop(no_assert)
        with contextlib.suppress(OSError):
            self._socket.close()
