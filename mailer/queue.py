"""The mail queue: taking a message, acknowledging it, putting it back.

A message that could not be delivered stays. How it is put back decides what SQS does with it:

- Nothing can help but a person (`permanent`): visible again at once. SQS counts how often it gave
  the message out and moves it to the dead-letter queue by the redrive policy.
- Trying again may help: visible again after a delay that grows. A mail server that is down for a
  day must not fill the dead-letter queue, so shortly before the count is reached the message is
  replaced by a copy, whose count begins anew. After GIVE_UP it counts as permanent.
- Some recipients have it already: replaced by a copy that says who. That is how a retry, also by
  another process, does not mail them again; nothing else has to remember it.

A copy is sent before the original is deleted: a crash between the two repeats the message, it
never loses it.

Permissions: sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility, sqs:SendMessage.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
"""

import logging
import time

from .errors import AWS_ERRORS, Failure, are_permanent, describe
from .message import Message

log = logging.getLogger("mailer")

RENEW_AT = 3  # receives; the redrive policy of infra/mailer.yml moves after 5
DELAYS = (5, 20, 80, 300)  # seconds before the second, third ... try
GIVE_UP = 4 * 86400  # seconds; mail servers themselves give up after four or five days
# Receives after which a queue evidently has no redrive policy: put back slowly from then on.
NO_REDRIVE = 20


class Queue:
    """sqs: a boto3 client. url: of the queue."""

    def __init__(self, sqs, url: str):
        self.sqs = sqs
        self.url = url

    def receive(self, wait: int = 0) -> Message | None:
        """One message, waiting up to `wait` seconds (20 at most) for it.

        One, not ten: what a crash can repeat is then one message, and none expires in the hand.
        """
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait,
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount", "SenderId", "SentTimestamp"],
        )
        for raw in answer.get("Messages", []):
            return Message.received(raw)
        return None

    def acknowledge(self, message: Message) -> None:
        """Delete a message: everybody has it. When that fails it comes again, which is said."""
        try:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)
        except AWS_ERRORS as error:
            log.error("%s is done but will come again: %s", message, describe(error))

    def put_back(self, message: Message, failures: list[Failure], delay: int | None = None) -> bool:
        """Keep a message that could not be delivered, or not to all; see the module.

        delay: seconds until it is visible again, by default what the number of attempts asks for.
        Returns whether a copy took its place, so that the original is gone.
        """
        permanent = are_permanent(failures) or _age(message) > GIVE_UP
        if delay is None:
            delay = 0 if permanent and message.receives < NO_REDRIVE else backoff(message.attempts)
        if message.progress or (not permanent and message.receives >= RENEW_AT):
            try:
                self.send(message.body, message.notes(), delay)
                self.acknowledge(message)
                return True
            except AWS_ERRORS as error:
                log.warning("%s could not be replaced by a copy: %s", message, describe(error))
        self.release(message, delay)
        return False

    def release(self, message: Message, delay: int = 0) -> None:
        """Make a message visible again after `delay` seconds. When that fails, because it is
        visible already or the network is gone, its visibility timeout does it."""
        try:
            self.sqs.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=message.receipt, VisibilityTimeout=delay
            )
        except AWS_ERRORS as error:
            log.warning("%s becomes visible by its time-out only: %s", message, describe(error))

    def send(self, body: str, attributes: dict[str, str], delay: int = 0) -> None:
        """A new message, visible after `delay` seconds (900 at most)."""
        self.sqs.send_message(
            QueueUrl=self.url,
            MessageBody=body,
            DelaySeconds=delay,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            },
        )


def _age(message: Message) -> float:
    return time.time() - message.sent / 1000


def backoff(attempts: int) -> int:
    """Seconds to wait after a message was tried `attempts` times before and failed again."""
    return DELAYS[min(attempts, len(DELAYS) - 1)]
