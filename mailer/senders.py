"""The topics that feed the queue: whose subscriptions are confirmed, of whom their messages speak.

What is on the queue came through the queue's policy (infra/mailer.yml), from a topic of an account
that is let in. Here:

- The subscription that another account has made of this queue waits for the queue's owner. SNS
  sends a message that asks for it; it is confirmed for the topics that mailer.yml knows, with its
  token, in the topic's region. The address in that message is never fetched.
- A topic is known in the regions of its account that accounts.yml has: in another one, where no
  stack and no policy is, anybody who may make topics could make one of its name. Elsewhere `topics`
  has to name it.
- A topic speaks of its own account alone, unless `administrator_accounts` has its account. SNS
  writes the topic into the message, so who publishes cannot choose it; whoever may turn on raw
  delivery of the subscription could.
- What names no topic was put on the queue by hand, or delivered raw. SQS tells who sent it: a role,
  or what looks like an IAM user, as SNS does. (Documented for roles and users; of SNS reported.)

Permission: sns:ConfirmSubscription on topics of other accounts; no topic's policy can give it. It
is not known whether SNS takes the signed call then, nor that of an account where the topic's region
is not enabled. Where it is refused an unsigned call is made, which SNS documents to suffice.
https://docs.aws.amazon.com/sns/latest/dg/sns-send-message-to-sqs-cross-account.html
https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html
"""

import logging
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from .accounts import ID, KEY, Accounts
from .errors import Permanent, describe, is_permanent
from .message import ASKED, ENDED, ROLE, Message
from .topics import ARN

log = logging.getLogger("mailer")

TOPICS = "topics"
ADMINISTRATORS = "administrator_accounts"
OWN_KEYS = (TOPICS, ADMINISTRATORS)
NAME = "guardduty-response"  # the topic of infra/account.yml
PATTERN = re.compile(r"arn:[a-z*-]+:sns:[a-z0-9*-]+:[0-9*]+:[A-Za-z0-9_*-]{1,256}")


class Senders:
    """config: `topics` and `administrator_accounts` of mailer.yml. accounts: those of accounts.yml.
    session: boto3's."""

    def __init__(self, config: dict, accounts: Accounts, session):
        self._patterns = config.get(TOPICS, [])
        self._administrators = set(config.get(ADMINISTRATORS, []))
        self._accounts = accounts
        self._session = session

    def check(self, message: Message) -> None:
        """Permanent when a message is of a topic that may not have sent it."""
        if message.kind == ENDED:
            raise Permanent(
                f"the subscription of {message.topic or '(no ARN)'} was ended: what is published "
                "there is not mailed any more. If that was not meant, subscribe again from that "
                "account and region: docs/mailer.md, One central queue"
            )
        if message.kind == ASKED:
            self._check_topic(message.topic)
            return
        if not message.topic:
            if message.sender.startswith(ROLE):
                return  # put on the queue by hand, by one of SenderArns
            raise Permanent(
                "it names no topic, and no role has put it on the queue, so nobody knows whose it "
                "is: a subscription of the queue has RawMessageDelivery on (`make status-org` "
                "names it), or an IAM user sent it"
            )
        region, account = ARN.fullmatch(message.topic).groups()
        regions = self._accounts.regions(account)
        if regions and region not in regions and not self._is_named(message.topic):
            raise Permanent(
                f"accounts.yml has {', '.join(regions)} of account {account}, and not the region "
                f"of {message.topic}: add it to {KEY}, or the topic to {TOPICS}, and deploy the "
                "mailer"
            )
        named = message.finding.get("accountId"), message.data.get("account_id")
        others = sorted({str(one) for one in named if one} - {account})
        if others and account not in self._administrators:
            raise Permanent(
                f"only topics of {ADMINISTRATORS} of mailer.yml may send mails about other "
                f"accounts: {message.topic} about {', '.join(others)}"
            )

    def _check_topic(self, topic: str) -> None:
        _, _, _, region, account, name = (topic or ":::::").split(":")
        if name == NAME and region in self._accounts.regions(account):
            return
        if self._is_named(topic):
            return
        raise Permanent(
            f"not confirmed, since mailer.yml does not know {topic or 'a topic without an ARN'}: "
            f"add its account and region to {KEY}, or the topic to {TOPICS}, deploy the mailer, "
            "and send this back within two days"
        )

    def _is_named(self, topic: str) -> bool:
        return any(_is_like(pattern, topic) for pattern in self._patterns)

    def is_of_administrator(self, message: Message) -> bool:
        """Whether it came from a topic that may speak of other accounts."""
        return bool(message.topic) and message.topic.split(":")[4] in self._administrators

    def confirm(self, message: Message) -> None:
        """sns:ConfirmSubscription for a topic that `check` has let through; raises botocore's
        errors. InvalidParameter says that the token is older than two days: subscribe again."""
        token = message.envelope.get("Token")
        if not isinstance(token, str) or not token:
            raise Permanent(f"the message of {message.topic} has no token")
        asked = {"TopicArn": message.topic, "Token": token}
        region, _ = ARN.fullmatch(message.topic).groups()
        try:
            # Signed, to ask for a signature of whoever ends the subscription; SNS says that it does
            # so of queues anyway. https://docs.aws.amazon.com/sns/latest/api/API_Unsubscribe.html
            client = self._session.client("sns", region_name=region)
            client.confirm_subscription(**asked, AuthenticateOnUnsubscribe="true")
        except ClientError as error:
            if is_permanent(error):
                raise
            log.warning("%s: unsigned, since signed: %s", message, describe(error))
            unsigned = Config(signature_version=UNSIGNED)
            client = self._session.client("sns", region_name=region, config=unsigned)
            client.confirm_subscription(**asked)
        log.info("confirmed: %s", message)


def check(config: dict) -> Iterator[str]:
    """What is wrong with these keys of mailer.yml, `key: why`."""
    for key, form, must in (
        (TOPICS, PATTERN, "the ARN of an SNS topic, * allowed"),
        (ADMINISTRATORS, ID, "an account id of 12 digits, in quotes"),
    ):
        if not isinstance(config.get(key, []), list):
            yield f"{key}: must be a list"
            continue
        for number, one in enumerate(config.get(key, [])):
            if not isinstance(one, str) or not form.fullmatch(one):
                yield f"{key}.{number}: must be {must}"


def _is_like(pattern: str, arn: str) -> bool:
    """The parts of an ARN, each by itself, as IAM compares them."""
    return all(map(fnmatchcase, arn.split(":"), pattern.split(":")))
