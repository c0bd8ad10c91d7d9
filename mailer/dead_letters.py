"""What the dead-letter queue of the mail queue holds, in plain words, and the way back.

Permissions, of the person who runs it: on the mail queue sqs:GetQueueAttributes and
sqs:SendMessage; on the dead-letter queue sqs:GetQueueUrl, sqs:ReceiveMessage,
sqs:ChangeMessageVisibility and sqs:DeleteMessage.
"""

import json

from .delivery import Courier
from .errors import Permanent
from .message import ABOUT_SUBSCRIPTIONS, ATTEMPTS, FIRST_SENT, Message
from .queue import Queue


def run(action: str, queue: Queue, courier: Courier, finding: str | None = None) -> int:
    """`list` or `send-back`, of all or of one finding. Prints; exit code 0."""
    dead = dead_letter_queue(queue)
    messages = [m for m in take_all(dead) if not finding or m.about["finding"] == finding]
    if not messages:
        print("The dead-letter queue holds nothing" + (" about that finding." if finding else "."))
    for message in messages:
        if action == "list":
            print(tell(message, courier))
            dead.release(message)
        else:
            send_back(message, dead, queue)
            print(f"Sent back: {message}")
    return 0


def dead_letter_queue(queue: Queue) -> Queue:
    """The queue that the redrive policy names, of the same account and region."""
    attributes = queue.sqs.get_queue_attributes(
        QueueUrl=queue.url, AttributeNames=["RedrivePolicy"]
    ).get("Attributes", {})
    if "RedrivePolicy" not in attributes:
        raise Permanent(f"{queue.url} has no redrive policy, so no dead-letter queue")
    name = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    return Queue(queue.sqs, queue.sqs.get_queue_url(QueueName=name)["QueueUrl"])


def take_all(dead: Queue) -> list[Message]:
    """All messages that are visible now, oldest first. They come back by themselves after the
    queue's visibility timeout, should this be interrupted."""
    messages = []
    while message := dead.receive():
        messages.append(message)
    return sorted(messages, key=lambda message: message.sent)


def send_back(message: Message, dead: Queue, queue: Queue) -> None:
    """To the mail queue, tried as if it were new, but not to those who have it. Sent before it is
    deleted: an interruption repeats it, and never loses it."""
    notes = message.notes()
    for name in (ATTEMPTS, FIRST_SENT):
        del notes[name]
    queue.send(message.body, notes)
    dead.acknowledge(message)


def tell(message: Message, courier: Courier) -> str:
    """One message in plain words. Why it is here is found out by trying again, without sending:
    SQS does not keep a reason."""
    about = message.about
    problems = courier.problems(message)
    why = "; ".join(map(str, problems)) or (
        "no fault in the message: its recipients were refused (the log of the mailer says how), "
        "or what was wrong has been repaired. Send it back to try again"
    )
    what = f"policy {about['policy']}"
    if message.kind in ABOUT_SUBSCRIPTIONS:
        what = str(message)
    lines = [
        f"{message.sent_at:%Y-%m-%d %H:%M:%S} UTC  {what}",
        f"  finding  {about['finding']}",
        f"  instance {about['instance']}, account {about['account']}, region {about['region']}",
        f"  why      {why}",
    ]
    if message.delivered:
        lines.append(f"  already delivered to {len(message.delivered)} of its recipients")
    return "\n".join(lines)
