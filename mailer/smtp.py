"""Sending a mail over SMTP.

Not c7n_mailer's SmtpDelivery: that one has no time-out, does not check the server's certificate,
and drops the answer that says which recipients were refused.
https://docs.python.org/3/library/smtplib.html
"""

import contextlib
import functools
import smtplib
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import parseaddr

from .errors import Failure, Temporary, describe, one_line

TIMEOUT = 10  # seconds for each answer of the server until it has let us in
# Seconds for each answer while a mail is sent. Servers look into a mail before they answer; who
# gives up too early sends again what they then take. RFC 5321 (4.5.3.2) would have minutes; the
# function has two in all.
PATIENCE = 60
IMPLICIT_TLS = 465  # the port where TLS begins with the connection (RFC 8314)
# Permanent by their number, yet of the configuration, not of the mail (RFC 4954).
LOGIN_CODES = {530, 534, 535, 538}
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds without a try after the server was not reached


class Smtp:
    """One mail server; the connection is kept between mails.

    config: `smtp_server`, `smtp_port`, `smtp_ssl`, `smtp_username` of mailer.yml. password: gives
    the password, or None; asked at each login. After a failed connection further mails fail at
    once for a moment, which doubles each time, so that a server that is down is not hammered and
    costs no time-out for each message.
    """

    def __init__(
        self,
        config: dict,
        password: Callable[[], str | None],
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        first_wait: float = FIRST_WAIT,
    ):
        self.host = config["smtp_server"]
        self.port = int(config.get("smtp_port", 25))
        self.starttls = bool(config.get("smtp_ssl", True))
        self.username = config.get("smtp_username")
        self.password = password
        self.timeout = timeout
        self.patience = patience
        self.first_wait = self.wait = first_wait
        self._closed_until = 0.0
        self._why = ""
        self._connection: smtplib.SMTP | None = None

    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Send to these recipients; returns those that the server refused.

        Raises Temporary when the server cannot be reached or does not let us in, and what smtplib
        raises when it breaks off.
        """
        connection = self._connected()
        sender = parseaddr(str(mail["From"]))[1]
        connection.sock.settimeout(self.patience)
        try:
            refused = connection.sendmail(sender, recipients, mail.as_bytes())
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPResponseException as error:
            refused = dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
        except OSError:
            self._drop()
            raise
        return [
            Failure(recipient, f"{code} {_text(answer)}", code >= 500 and code not in LOGIN_CODES)
            for recipient, (code, answer) in refused.items()
        ]

    def close(self) -> None:
        """End the connection, politely when possible."""
        if self._connection:
            with contextlib.suppress(OSError):
                self._connection.quit()
            self._drop()

    def _drop(self) -> None:
        self._connection.close()
        self._connection = None

    def _connected(self) -> smtplib.SMTP:
        """A connection that answers. Servers drop idle ones, so it is asked first: to find out by
        sending would leave open whether the mail was taken."""
        if self._connection and self._connection.sock:  # None when smtplib has closed it
            self._connection.sock.settimeout(self.timeout)
            with contextlib.suppress(OSError):
                if self._connection.noop()[0] == 250:
                    return self._connection
            self._drop()
        now = time.monotonic()
        if now < self._closed_until:
            raise Temporary(self._why)
        try:
            self._connection = self._connect()
        except OSError as error:
            self._why = f"mail server {self.host}:{self.port}: {_reason(error)}"
            self._closed_until = time.monotonic() + self.wait
            self.wait = min(self.wait * 2, LONGEST_WAIT)
            raise Temporary(self._why) from None
        self.wait = self.first_wait
        return self._connection

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Checks the server's certificate and name; reading the authorities takes 20 ms."""
        return ssl.create_default_context()

    def _connect(self) -> smtplib.SMTP:
        password = self.password() if self.username else None
        if self.port == IMPLICIT_TLS:
            connection = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.timeout, context=self._tls
            )
        else:
            connection = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        try:
            connection.ehlo_or_helo_if_needed()
            if self.starttls and self.port != IMPLICIT_TLS:
                connection.starttls(context=self._tls)
            if self.username:
                connection.login(self.username, password or "")
        except BaseException:
            connection.close()
            raise
        return connection


def _text(answer: bytes | str) -> str:
    return one_line(answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer)


def _reason(error: OSError) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    return describe(error)
