"""E-mail: who gets it (c7n_mailer), what it says (c7n_mailer and the templates), as MIME.

How it is sent is the business of transports/smtp.py and transports/ses.py.
"""

from abc import abstractmethod
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import partial

from .errors import Failure, Permanent
from .message import Message, digest
from .stock import ADDRESS, require_template, require_text
from .text import as_text
from .transport import Parcel, Transport

KEYWORDS = {"resource-owner", "event-owner", "account-emails"}


class Mail(Transport):
    """What the transports of e-mail share: all but `send`, and which of them is configured."""

    name = "mail"

    def accepts(self, target: str) -> bool:
        return target in KEYWORDS or bool(ADDRESS.fullmatch(target))

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each group of recipients that gets the same resources. Permanent when there is
        no valid recipient, no such template, nothing in it, or a line break in the subject."""
        require_template(self.means.config, message.template)
        mails = self.means.addresses.get_emails_to_mimetext_map(message.data)
        if not mails:
            raise Permanent("no valid recipient among " + ", ".join(targets))
        return [
            Parcel(recipients, partial(self.send, compose(message, rendered, recipients)))
            for recipients, rendered in mails.items()
        ]

    @abstractmethod
    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Send to these recipients; returns those that were refused. When it raises, nobody got
        it."""


def sender(mail: EmailMessage) -> str:
    """The plain address of who sends it."""
    return parseaddr(str(mail["From"]))[1]


def compose(message: Message, rendered, recipients: tuple[str, ...]) -> EmailMessage:
    """c7n_mailer's rendered mail as one that can be sent: with a text part, a date, and a
    Message-ID that is the same for the same content, so that mail programs fold a repetition."""
    content = rendered.get_payload(decode=True).decode("utf-8")
    require_text(message.template, content)
    subject = str(rendered["Subject"])
    if len(subject.splitlines()) > 1 or subject != subject.strip("\r\n"):
        raise Permanent("a line break in the subject")
    mail = EmailMessage(policy=SMTP)
    for name, value in rendered.items():
        if name.lower() not in ("content-type", "mime-version", "content-transfer-encoding"):
            mail[name] = str(value)
    domain = sender(mail).rpartition("@")[2]
    mail["Date"] = format_datetime(message.sent_at)
    mail["Message-ID"] = f"<{message.key}.{digest(*recipients)[:8]}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if rendered.get_content_subtype() == "html":
        mail.set_content(as_text(content))
        mail.add_alternative(content, subtype="html")
    else:
        mail.set_content(content)
    return mail
