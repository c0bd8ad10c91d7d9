"""The mails that the messages on the mail queue become, by the mailer and its mailer.yml."""

from email.message import EmailMessage
from pathlib import Path

from deployment.errors import Refused
from mailer import config as configuration
from mailer.errors import Failure
from mailer.mail import Mail
from mailer.queue import Queue
from mailer.secrets import Secrets


class Kept(Mail):
    """Mail that is composed as any, and kept instead of sent."""

    def __init__(self, means):
        super().__init__(means)
        self.mails: list[tuple[EmailMessage, list[str]]] = []

    def send(self, mail: EmailMessage, recipients: list[str]) -> list[Failure]:
        self.mails.append((mail, recipients))
        return []


def config(path: Path) -> dict:
    """What mailer.yml says. Raises Refused when it cannot be used."""
    try:
        return configuration.load(path)
    except (configuration.ConfigError, OSError) as error:
        raise Refused(f"no mail can be made: {error}") from error


class Mails:
    """session: boto3's, in the account and region of the queue. config: see `config`."""

    def __init__(self, session, config: dict):
        courier = configuration.courier(config, session, Secrets(session), ways=(Kept,))
        self._courier, (self._kept,) = courier, courier.transports

    def read(self, queue: Queue) -> list[dict]:
        """Take all messages off the queue: [{policy, to, from, subject, text, html, problems}].

        policy: that sent it. problems: who does not get it and why, a line each; where nobody does,
        `to` is empty and so is the rest.
        """
        found = []
        while message := queue.receive():
            self._kept.mails.clear()
            problems = [str(failure) for failure in self._courier.deliver(message)]
            queue.acknowledge(message)
            policy = message.data["policy"]["name"]
            for mail, to in self._kept.mails or [(EmailMessage(), [])]:
                found.append(
                    {"policy": policy, "to": sorted(to), "problems": problems} | read(mail)
                )
        return found


def read(mail: EmailMessage) -> dict:
    """What a person sees of it."""
    parts = {part.get_content_subtype(): part for part in mail.walk() if not part.is_multipart()}
    content = {kind: part.get_content() for kind, part in parts.items()} if mail.keys() else {}
    return {
        "from": str(mail["From"] or ""),
        "subject": str(mail["Subject"] or ""),
        "text": content.get("plain", ""),
        "html": content.get("html", ""),
    }
