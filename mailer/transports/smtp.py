"""E-mail over SMTP, where mailer.yml names an `smtp_server`.

Not c7n_mailer's SmtpDelivery: that one has no time-out, does not check the server's certificate,
and drops the answer that says which recipients were refused.
https://docs.python.org/3/library/smtplib.html
"""

import contextlib
import functools
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from email.message import EmailMessage

from ..errors import Failure, Temporary, describe, one_line
from ..mail import Mail, sender
from ..transport import Means

LOCAL = ("127.0.0.1", "localhost", "::1")
IMPLICIT_TLS = 465  # the port where TLS begins with the connection (RFC 8314)
# Permanent by their number, yet of the configuration, not of the mail (RFC 4954).
LOGIN_CODES = {530, 534, 535, 538}
# What went wrong, the first that fits, for a person who does not know smtplib's names
WHAT = (
    (socket.gaierror, "no such host, see smtp_server"),
    (ssl.SSLCertVerificationError, "its certificate cannot be trusted"),
    (ssl.SSLError, "no TLS on smtp_port: with 465 it begins at once, with any other by STARTTLS"),
    (TimeoutError, "no answer: is smtp_port right, and open from here?"),
    (ConnectionRefusedError, "refuses connections: is smtp_port right?"),
    (smtplib.SMTPAuthenticationError, "login refused, see smtp_username and smtp_password"),
    (smtplib.SMTPSenderRefused, "sender refused, see from_address"),
    (smtplib.SMTPRecipientsRefused, "recipient refused"),
    (smtplib.SMTPDataError, "mail refused"),
)


class Smtp(Mail):
    """One mail server; the connection is kept between mails.

    `smtp_server`, `smtp_port`, `smtp_ssl`, `smtp_username` and `smtp_password` of mailer.yml; the
    password is read at each login. After a failed connection further mails fail at once for a
    moment, which doubles each time, so that a server that is down is not hammered and costs no
    time-out for each message.
    """

    secret_keys = ("smtp_password",)

    timeout = 10.0  # seconds for each answer of the server until it has let us in
    # Seconds for each answer while a mail is sent. Servers look into a mail before they answer; who
    # gives up too early sends again what they then take. RFC 5321 (4.5.3.2) would have minutes; the
    # function has two in all.
    patience = 60.0
    # seconds without a try after the server was not reached
    first_wait, longest_wait = 1.0, 60.0

    @classmethod
    def check(cls, config: dict) -> Iterator[str]:
        has_name, has_password = "smtp_username" in config, "smtp_password" in config
        if has_password and not has_name:
            yield "smtp_username: missing beside smtp_password"
        if has_name and not has_password:
            yield "smtp_password: missing beside smtp_username"
        if has_name and config.get("smtp_ssl") is False and config.get("smtp_server") not in LOCAL:
            yield (
                "smtp_ssl: must not be false with smtp_username: the password would travel in clear"
            )
        yield from super().check(config)

    def __init__(self, means: Means):
        super().__init__(means)
        self.host = means.config.get("smtp_server")
        self.port = int(means.config.get("smtp_port", 25))
        self.wait = self.first_wait
        self._closed_until = 0.0
        self._why = ""
        self._connection: smtplib.SMTP | None = None

    def accepts(self, target: str) -> bool:
        return self.host is not None and super().accepts(target)

    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Raises Temporary when the server cannot be reached or does not let us in, and what
        smtplib raises when it breaks off."""
        connection = self._connected()
        connection.sock.settimeout(self.patience)
        try:
            refused = connection.sendmail(sender(mail), recipients, mail.as_bytes())
            what = "recipient refused"
        except smtplib.SMTPRecipientsRefused as error:
            refused, what = error.recipients, _what(error)
        except smtplib.SMTPResponseException as error:
            refused = dict.fromkeys(recipients, (error.smtp_code, error.smtp_error))
            what = _what(error)
        except OSError:
            self._drop()
            raise
        return [
            Failure(
                recipient,
                f"{what}: {code} {self._text(answer)}",
                code >= 500 and code not in LOGIN_CODES,
            )
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
            self._why = f"mail server {self.host}:{self.port}: {self._reason(error)}"
            self._closed_until = time.monotonic() + self.wait
            self.wait = min(self.wait * 2, self.longest_wait)
            raise Temporary(self._why) from None
        self.wait = self.first_wait
        return self._connection

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Checks the server's certificate and name; reading the authorities takes 20 ms."""
        return ssl.create_default_context()

    def _connect(self) -> smtplib.SMTP:
        config = self.means.config
        username, password = config.get("smtp_username"), ""
        if username:
            password = self.means.secrets.reveal("smtp_password", config["smtp_password"])
        implicit = self.port == IMPLICIT_TLS
        if implicit:
            connection = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.timeout, context=self._tls
            )
        else:
            connection = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        try:
            connection.ehlo_or_helo_if_needed()
            if config.get("smtp_ssl", True) and not implicit:
                connection.starttls(context=self._tls)
            if username:
                connection.login(username, password)
        except BaseException:
            connection.close()
            raise
        return connection

    def _text(self, answer: bytes | str) -> str:
        """A server's words. Secrets are hidden before they are cut, of which nobody would know
        half."""
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
        return one_line(self.means.secrets.hide(text))

    def _reason(self, error: OSError) -> str:
        said = describe(error)
        if isinstance(error, smtplib.SMTPResponseException):
            said = f"{error.smtp_code} {self._text(error.smtp_error)}"
        what = _what(error)
        return f"{what}: {said}" if what else said


def _what(error: Exception) -> str:
    return next((words for kind, words in WHAT if isinstance(error, kind)), "")
