"""Sending a mail with Amazon SES.

Permission: ses:SendRawEmail on the identity of the sender. SES takes a mail for all its recipients
or for none, 50 at most.
https://docs.aws.amazon.com/ses/latest/APIReference/API_SendRawEmail.html
"""

from email.message import EmailMessage
from email.utils import parseaddr

from .errors import Failure


class Ses:
    """client: a boto3 client of `ses`, for which mailer.yml can name `ses_region`, `ses_role`."""

    def __init__(self, client):
        self.client = client

    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        """Send to these recipients; raises botocore's errors, then nobody got it."""
        self.client.send_raw_email(
            Source=parseaddr(str(mail["From"]))[1],
            Destinations=recipients,
            RawMessage={"Data": mail.as_bytes()},
        )
        return []

    def close(self) -> None:
        """Nothing is held open."""
