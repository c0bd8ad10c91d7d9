"""What is taken from c7n_mailer, the stock mailer, with what it is too generous about put right."""

import logging

from c7n_mailer.email_delivery import EmailDelivery

from .errors import one_line
from .known import ADDRESS, SAMPLES, Known

log = logging.getLogger("mailer")

DEFAULT = "default"  # the key of account_emails for accounts that are not listed
# c7n_mailer's classes log whole messages and configurations; what matters is logged here.
SILENT = logging.getLogger("mailer.c7n_mailer")
SILENT.setLevel(logging.CRITICAL)


class Addresses(EmailDelivery):
    """c7n_mailer's resolution of recipients, with a default, with a stricter idea of an address,
    of those that mailer.yml knows, and of samples. Its own rendering is not used, since it takes a
    subject for a template; nor its sending, since it swallows errors."""

    def __init__(self, config: dict, session, known: Known):
        super().__init__(config, session, SILENT)
        self._known = known

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

    def get_emails_to_resources_map(self, sqs_message):
        """Where everything that c7n_mailer finds comes together: tags, LDAP, `to`. Who is not known
        gets nothing, which is said; a tag that names a stranger must not cost the others a mail."""
        samples = self.config.get(SAMPLES)
        if samples and _is_sample(sqs_message):
            return {tuple(samples): sqs_message["resources"]}
        known = {}
        for emails, resources in super().get_emails_to_resources_map(sqs_message).items():
            accepted = tuple(email for email in emails if self._known.address(email))
            for email in set(emails) - set(accepted):
                log.warning(
                    "mailer.yml does not know %s, who gets nothing: see `recipients`",
                    one_line(email, 80),
                )
            if accepted:
                known.setdefault(accepted, []).extend(resources)
        return known


def _is_sample(sqs_message) -> bool:
    """Whether the policy that sent it says so (custom_actions/headline.py); a remediation never
    does."""
    notice = sqs_message["event"].get("c7n:notice")
    return isinstance(notice, dict) and notice.get("sample") is True
