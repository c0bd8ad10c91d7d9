"""SNS: the ARN of a topic in a policy's `to`. Its subscribers get the text of the mail.

Only topics that a policy names: c7n_mailer also takes them from tags of the instance, by which
whoever may tag an instance could lead findings into an account of their own.

Permission: sns:Publish on the topic; for one of another account that account's topic policy, or a
role in `cross_accounts` of mailer.yml and sts:AssumeRole on it.
https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
"""

import re

import boto3
from c7n_mailer.utils import get_message_subject, get_rendered_jinja

from .errors import Failure, Permanent, one_line
from .mail import SILENT
from .message import Message
from .parcel import Parcel
from .rendering import require, require_text
from .text import as_text

ARN = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):([0-9]{12}):[A-Za-z0-9_-]{1,256}")
SUBJECT = 100  # characters; SNS refuses longer ones, and any that is not ASCII
BODY = 256 * 1024  # bytes


class Topics:
    """The transport of SNS, and the way to a topic for others.

    config: `cross_accounts`, account id -> role ARN. session: boto3's.
    """

    name = "sns"

    def __init__(self, config: dict, session):
        self._config = config
        self._session = session
        self._clients: dict[tuple[str, str], object] = {}

    def parcels(self, message: Message) -> list[Parcel]:
        """One for each topic; Permanent when there is no such template."""
        data = message.data
        topics = [target for target in data["action"]["to"] if is_topic(target)]
        if not topics:
            return []
        template = data["action"].get("template", "default")
        require(self._config, template)
        text = get_rendered_jinja(
            topics[0], data, data["resources"], SILENT, "template", "default",
            self._config["templates_folders"],
        )  # fmt: skip
        require_text(template, text)
        if template.endswith("html"):
            text = as_text(text)
        subject = one_line(get_message_subject(data), SUBJECT)
        return [Parcel((topic,), self._publishing(topic, subject, text)) for topic in topics]

    def _publishing(self, topic: str, subject: str, text: str):
        def send(targets: list[str]) -> list[Failure]:
            self.publish(topic, text, Subject=subject.encode("ascii", "replace").decode())
            return []

        return send

    def publish(self, topic: str, text: str, **options) -> None:
        """sns:Publish in the topic's own region; raises botocore's errors. Permanent when the text
        is too long for SNS."""
        if len(text.encode()) > BODY:
            raise Permanent(f"longer than the {BODY} bytes of SNS")
        region, account = ARN.fullmatch(topic).groups()
        if (region, account) not in self._clients:
            session = self._session
            role = self._config.get("cross_accounts", {}).get(account)
            if role:
                keys = session.client("sts").assume_role(
                    RoleArn=role, RoleSessionName="guardduty-response-mailer"
                )["Credentials"]
                session = boto3.Session(
                    keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
                )
            self._clients[region, account] = session.client("sns", region_name=region)
        self._clients[region, account].publish(TopicArn=topic, Message=text, **options)


def is_topic(target: str) -> bool:
    return bool(ARN.fullmatch(target))
