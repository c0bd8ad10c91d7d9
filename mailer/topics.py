"""Publishing to an SNS topic, wherever it is.

Permission: sns:Publish on the topic; for one of another account that account's topic policy, or a
role in `cross_accounts` of mailer.yml and sts:AssumeRole on it.
https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
"""

import re

import boto3

from .errors import Permanent

ARN = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):([0-9]{12}):[A-Za-z0-9_-]{1,256}")
BODY = 256 * 1024  # bytes


class Topics:
    """config: `cross_accounts` of mailer.yml, account id -> role ARN. session: boto3's."""

    def __init__(self, config: dict, session):
        self._roles = config.get("cross_accounts", {})
        self._session = session
        self._clients: dict[tuple[str, str], object] = {}

    def publish(self, topic: str, text: str, **options) -> None:
        """sns:Publish in the topic's own region; raises botocore's errors. Permanent when the text
        is too long for SNS."""
        if len(text.encode()) > BODY:
            raise Permanent(f"longer than the {BODY} bytes of SNS")
        where = ARN.fullmatch(topic).groups()
        if where not in self._clients:
            self._clients[where] = self._client(*where)
        self._clients[where].publish(TopicArn=topic, Message=text, **options)

    def _client(self, region: str, account: str):
        session = self._session
        if role := self._roles.get(account):
            keys = session.client("sts").assume_role(
                RoleArn=role, RoleSessionName="guardduty-response-mailer"
            )["Credentials"]
            session = boto3.Session(
                keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
            )
        return session.client("sns", region_name=region)
