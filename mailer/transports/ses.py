"""E-mail by Amazon SES, where mailer.yml names no `smtp_server`.

Permission: ses:SendRawEmail on the identity of the sender. SES takes a mail for all its recipients
or for none, 50 at most.
https://docs.aws.amazon.com/ses/latest/APIReference/API_SendRawEmail.html
"""

from email.message import EmailMessage

from ..errors import Failure
from ..mail import Mail, sender


class Ses(Mail):
    """mailer.yml can name `ses_region` and `ses_role`."""

    def accepts(self, target: str) -> bool:
        return "smtp_server" not in self.means.config and super().accepts(target)

    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Raises botocore's errors, then nobody got it."""
        self.means.addresses.aws_ses.send_raw_email(
            Source=sender(mail),
            Destinations=recipients,
            RawMessage={"Data": mail.as_bytes()},
        )
        return []
