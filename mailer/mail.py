"""E-mail: who gets it (c7n_mailer), what it says (c7n_mailer and the templates), as MIME."""

import logging
import re
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from c7n_mailer.email_delivery import EmailDelivery

from .errors import Failure, Permanent
from .message import Message, digest
from .parcel import Parcel
from .rendering import require, require_text
from .text import as_text

KEYWORDS = {"resource-owner", "event-owner", "account-emails"}
DEFAULT = "default"  # the key of account_emails for accounts that are not listed
# One plain address. Tags of an instance become recipients: nothing there may name two, or carry a
# header of its own.
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9-]+\.)+[A-Za-z0-9-]{2,63}")
# c7n_mailer's classes log whole messages and configurations; what matters is logged here.
SILENT = logging.getLogger("mailer.c7n_mailer")
SILENT.setLevel(logging.CRITICAL)


class Addresses(EmailDelivery):
    """c7n_mailer's resolution of recipients, with a default and with a stricter idea of an
    address. It renders the mails too; its own sending is not used, since it swallows errors."""

    def get_ses_session(self):
        # A client takes a tenth of a second of a cold start.
        return None if "smtp_server" in self.config else super().get_ses_session()

    def get_valid_emails_from_list(self, targets):
        return [a for a in super().get_valid_emails_from_list(targets) if ADDRESS.fullmatch(a)]

    def get_account_emails(self, sqs_message):
        emails = super().get_account_emails(sqs_message)
        if emails or "account-emails" not in sqs_message["action"]["to"]:
            return emails
        default = self.config.get("account_emails", {}).get(DEFAULT, [])
        return self.get_valid_emails_from_list(default)


class Mail:
    """The transport of e-mail.

    addresses: see above. sender: sends one mail; smtp.Smtp or ses.Ses.
    """

    name = "mail"

    def __init__(self, addresses: Addresses, sender):
        self.addresses = addresses
        self.sender = sender

    def parcels(self, message: Message) -> list[Parcel]:
        """One for each group of recipients that gets the same resources. Permanent when there is
        no valid recipient, no such template, nothing in it, or a line break in the subject."""
        to = message.data["action"]["to"]
        if not any(is_mail_target(target) for target in to):
            return []
        require(self.addresses.config, template_of(message))
        mails = self.addresses.get_emails_to_mimetext_map(message.data)
        if not mails:
            raise Permanent("no valid recipient among " + ", ".join(to))
        return [
            Parcel(addresses, self._posting(compose(message, rendered, addresses)))
            for addresses, rendered in mails.items()
        ]

    def _posting(self, mail: EmailMessage):
        def post(recipients: list[str]) -> list[Failure]:
            return self.sender.send(mail, recipients)

        return post


def is_mail_target(target: str) -> bool:
    return target in KEYWORDS or bool(ADDRESS.fullmatch(target))


def template_of(message: Message) -> str:
    return message.data["action"].get("template", "default")


def compose(message: Message, rendered, addresses: tuple[str, ...]) -> EmailMessage:
    """c7n_mailer's rendered mail as one that can be sent: with a text part, a date, and a
    Message-ID that is the same for the same content, so that mail programs fold a repetition."""
    content = rendered.get_payload(decode=True).decode("utf-8")
    require_text(template_of(message), content)
    subject = str(rendered["Subject"])
    if len(subject.splitlines()) > 1 or subject != subject.strip("\r\n"):
        raise Permanent("a line break in the subject")
    mail = EmailMessage(policy=SMTP)
    for name, value in rendered.items():
        if name.lower() not in ("content-type", "mime-version", "content-transfer-encoding"):
            mail[name] = str(value)
    domain = parseaddr(str(rendered["From"]))[1].rpartition("@")[2]
    mail["Date"] = format_datetime(message.sent_at)
    mail["Message-ID"] = f"<{message.key}.{digest(*addresses)[:8]}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if rendered.get_content_subtype() == "html":
        mail.set_content(as_text(content))
        mail.add_alternative(content, subtype="html")
    else:
        mail.set_content(content)
    return mail
