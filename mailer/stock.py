"""What is taken from c7n_mailer, the stock mailer, with what it is too generous about put right."""

import logging
import re
from pathlib import Path

from c7n_mailer.email_delivery import EmailDelivery

from .errors import Permanent

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


def require_template(config: dict, name: str) -> None:
    """Permanent when no folder of `templates_folders` has the template. c7n_mailer only logs that,
    and goes on without a text."""
    if not any((Path(folder) / f"{name}.j2").is_file() for folder in config["templates_folders"]):
        raise Permanent(f"there is no template {name!r}")


def require_text(name: str, text: str | None) -> None:
    """Permanent when a template rendered to nothing, which is no message to anybody."""
    if not (text or "").strip():
        raise Permanent(f"the template {name!r} renders to nothing")
