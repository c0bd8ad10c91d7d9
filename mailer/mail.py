"""E-mail: who gets it (c7n_mailer and known.py), what it says (the templates), as MIME.

How it is sent is the business of transports/smtp.py and transports/ses.py.
"""

from abc import abstractmethod
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import partial

from c7n_mailer.utils_email import set_mimetext_headers

from .errors import Failure, Permanent
from .known import ADDRESS
from .message import Message, digest
from .stock import SILENT
from .text import as_text
from .transport import Parcel, Transport

KEYWORDS = {"resource-owner", "event-owner", "account-emails"}


class Mail(Transport):
    """What the transports of e-mail share: all but `send`, and which of them is configured."""

    name = "mail"

    def accepts(self, target: str) -> bool:
        return target in KEYWORDS or bool(ADDRESS.fullmatch(target))

    def knows(self, target: str) -> bool:
        return target in KEYWORDS or self.means.known.address(target)

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each group of recipients that gets the same resources. Permanent when there is
        no known recipient, no such template, nothing in it, or a line break in the subject."""
        found = self.means.addresses.get_emails_to_resources_map(message.addressed(targets))
        if not found:
            raise Permanent("no valid recipient among " + ", ".join(targets))
        parcels = []
        for recipients, resources in found.items():
            mail = self._composed(message, resources, recipients)
            says = partial(self._says, message, resources, recipients)
            parcels.append(Parcel(recipients, partial(self.send, mail), says))
        return parcels

    def _composed(
        self, message: Message, resources: list[dict], recipients: tuple[str, ...]
    ) -> EmailMessage:
        """The mail, with a Message-ID that is the same for the same content, so that mail programs
        fold a repetition. No header but the subject has a word of the message in it."""
        name = message.template
        content = self._content(message, resources, recipients, datetime.now(UTC))
        config = self.means.config
        mail = set_mimetext_headers(
            EmailMessage(policy=SMTP),
            subject=message.subject,
            from_addr=config["from_address"],
            to_addrs=recipients,
            cc_addrs=None,
            additional_headers=config.get("additional_email_headers"),
            priority=message.data["action"].get("priority_header"),
            logger=SILENT,
        )
        domain = sender(mail).rpartition("@")[2]
        mail["Date"] = format_datetime(message.sent_at)
        mail["Message-ID"] = f"<{message.identity}.{digest(*recipients)[:8]}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        if name.endswith("html"):
            mail.set_content(as_text(content))
            mail.add_alternative(content, subtype="html")
        else:
            mail.set_content(content)
        return mail

    def _says(self, message: Message, resources: list[dict], recipients: tuple[str, ...]) -> str:
        return digest(message.subject, self._content(message, resources, recipients))

    def _content(
        self,
        message: Message,
        resources: list[dict],
        recipients: tuple[str, ...],
        mailed: datetime | None = None,
    ) -> str:
        render = self.means.templates.render
        return render(message.template, message.data, resources, [*recipients], mailed)

    @abstractmethod
    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Send to these recipients; returns those that were refused. When it raises, nobody got
        it."""


def sender(mail: EmailMessage) -> str:
    """The plain address of who sends it."""
    return parseaddr(str(mail["From"]))[1]
