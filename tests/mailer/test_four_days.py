"""The four days that docs/mailer.md promises, try by try: a mail server that stays down.

The queue is that of infra/mailer.yml, in moto; only the clock is wound.
"""

import pytest
from moto.sqs.models import sqs_backends

from mailer.errors import Failure
from mailer.queue import GIVE_UP, Queue

ACCOUNT, REGION = "111122223333", "us-west-2"
MAIL, DEAD = "guardduty-response-mail", "guardduty-response-mail-dlq"
DOWN = [Failure("security@example.com", "connection refused", permanent=False)]
RECURSIONS = (
    16  # after so many rounds Lambda stops a function that feeds itself, if not told otherwise
)


@pytest.fixture
def clock(monkeypatch):
    """[seconds since 1970], which moto's queues and the mailer's queue go by."""
    now = [1_800_000_000.0]
    monkeypatch.setattr("moto.sqs.models.unix_time", lambda: now[0])
    monkeypatch.setattr("moto.sqs.models.unix_time_millis", lambda: now[0] * 1000)
    monkeypatch.setattr("mailer.queue.time.time", lambda: now[0])
    return now


class Direct:
    """The calls of boto3 that Queue makes, on moto's own queues: a thousand tries in no time."""

    def __init__(self):
        self.backend = sqs_backends[ACCOUNT][REGION]
        self.sent = 0

    def receive_message(self, **_):
        timeout = self.backend.queues[MAIL].visibility_timeout
        received = self.backend.receive_message(MAIL, 1, 0, timeout, ["All"])
        return {
            "Messages": [
                {
                    "MessageId": one.id,
                    "ReceiptHandle": one.receipt_handle,
                    "Body": one.body,
                    "Attributes": {
                        "ApproximateReceiveCount": one.approximate_receive_count,
                        "SentTimestamp": one.sent_timestamp,
                    },
                    "MessageAttributes": one.message_attributes,
                }
                for one in received
            ]
        }

    def send_message(self, *, MessageBody, MessageAttributes, DelaySeconds, **_):
        self.sent += 1
        self.backend.send_message(MAIL, MessageBody, MessageAttributes, DelaySeconds)

    def delete_message(self, *, ReceiptHandle, **_):
        self.backend.delete_message(MAIL, ReceiptHandle)

    def change_message_visibility(self, *, ReceiptHandle, VisibilityTimeout, **_):
        self.backend.change_message_visibility(MAIL, ReceiptHandle, VisibilityTimeout)


def test_a_message_is_tried_for_four_days_and_then_kept(stack, clock):
    sqs = Direct()
    queue, waiting = Queue(sqs, stack["MailQueueUrl"]), sqs.backend.queues[MAIL]
    dead = sqs.backend.queues[DEAD]
    for one in (waiting, dead):
        one._messages.clear()
    start = clock[0]
    sqs.backend.send_message(MAIL, "the mail")

    tries, ages, receives = [], [], []
    while waiting._messages:
        if message := queue.receive():
            tries.append(clock[0] - start)
            ages.append(clock[0] - waiting._messages[0].sent_timestamp / 1000)
            receives.append(message.receives)
            queue.put_back(message, DOWN)
        elif waiting._messages:
            (held,) = waiting._messages
            clock[0] = max(held.visible_at, held.delayed_until) / 1000 + 0.001

    rounded = [round(at) for at in tries]
    assert rounded[:5] == [0, 5, 25, 105, 405]
    pauses = [after - before for before, after in zip(tries, tries[1:], strict=False)]
    assert max(pauses) < 301
    assert GIVE_UP == 4 * 86400 < tries[-1] < GIVE_UP + 600
    # then as fast as SQS gives it out, to the dead-letter queue, where it stays for the rest of
    # its own 14 days
    assert receives[-5:] == [1, 2, 3, 4, 5] and max(receives[:-2]) == 3
    (kept,) = dead._messages
    assert kept.body == "the mail"
    # no copy grows old: neither the retention of the queue (14 days) nor the 12 hours for which a
    # message may be invisible are ever near; and mail-late of infra/mailer.yml looks for 600 s
    assert 600 < max(ages) < 901
    # what docs/mailer.md says
    assert (len(tries), sqs.sent) == (1160, 385)
    assert sqs.sent > RECURSIONS, "then Lambda need not be told that the loop is meant"
