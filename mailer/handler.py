"""The Lambda entry point, `mailer.handler.run`: the queue is the function's event source.

Each message is acknowledged as soon as it was delivered, so that a function that dies or runs out
of time repeats one message and not its batch. It answers which messages of the batch it could not
deliver (ReportBatchItemFailures), and Lambda leaves those. The configuration is
`mailer/config.json` of the archive, checked when it was deployed.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import functools
import json
import logging
from pathlib import Path

import boto3

from .config import courier
from .delivery import deliver_one, explain
from .message import Message
from .queue import Queue
from .secrets import HidingFormatter, Secrets

log = logging.getLogger("mailer")
log.setLevel(logging.INFO)

CONFIG = Path(__file__).with_name("config.json")
# Milliseconds that must be left to begin with a message: a slow server's answer to one mail.
RESERVE = 75_000


@functools.cache
def prepared():
    """Queue and courier of this container."""
    config = json.loads(CONFIG.read_text())
    session = boto3.Session(region_name=config["region"])
    secrets = Secrets(session)
    for handler in logging.root.handlers:
        handler.setFormatter(HidingFormatter(handler.formatter, secrets))
    return Queue(session.client("sqs"), config["queue_url"]), courier(config, session, secrets)


def run(event: dict, context) -> dict:
    """Deliver a batch. Raises only when nothing can be delivered at all, for example because the
    configuration is gone; then the whole batch comes again."""
    queue, courier = prepared()
    failed = []
    for record in event["Records"]:
        message = Message.received(record)
        if context.get_remaining_time_in_millis() < RESERVE:
            log.warning("no time left, to be tried again at once: %s", message)
            queue.release(message)
            failed.append(message.id)
            continue
        failures = deliver_one(queue, courier, message)
        if failures:
            log.warning(explain(message, failures))
            if not queue.put_back(message, failures):
                failed.append(message.id)
    return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}
