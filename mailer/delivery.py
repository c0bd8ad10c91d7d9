"""A message to all who are to have it, each once."""

import logging
import time

from .errors import Failure, failure, one_line
from .mail import Mail, is_mail_target
from .message import Message
from .slack import is_slack_target
from .splunk import is_splunk_target
from .topic import is_topic

log = logging.getLogger("mailer")

WINDOW = 3600.0  # seconds for which this process remembers who has what
MOST = 10_000  # remembered, then the oldest go


class Memory:
    """Who was sent what in the last WINDOW seconds, by this process.

    At least once is what EventBridge, SNS and SQS promise, so a message can come twice. What it
    cannot know: another process, or a function's other container, that got the second one.
    """

    def __init__(self, window: float = WINDOW, most: int = MOST):
        self._window = window
        self._most = most
        self._sent: dict[tuple[str, str], float] = {}

    def has(self, key: str, target: str) -> bool:
        at = self._sent.get((key, target))
        return at is not None and time.monotonic() - at < self._window

    def add(self, key: str, target: str) -> None:
        self._sent.pop((key, target), None)
        self._sent[key, target] = time.monotonic()
        if len(self._sent) > self._most:
            del self._sent[next(iter(self._sent))]


class Courier:
    """transports: each with a `name` and `parcels(message)`, see mail.Mail. They are independent:
    one that fails does not keep a message from the others."""

    def __init__(self, transports: list, memory: Memory | None = None):
        self.transports = transports
        self.memory = memory or Memory()

    def deliver(self, message: Message) -> list[Failure]:
        """Send to everybody who does not have it yet, and note in the message who has it now.

        Returns who did not get it; nothing is raised, since one message must not stop others.
        """
        try:
            parcels, failures = self._packed(message)
        except Exception as error:  # noqa: BLE001  whatever is in a message
            return [failure("message", error)]
        sent = []
        for parcel in parcels:
            due = [
                target
                for target in parcel.targets
                if not (message.has(target) or self.memory.has(message.key, target))
            ]
            if not due:
                continue
            try:
                refused = parcel.send(due)
            except Exception as error:  # noqa: BLE001  whatever a transport may raise
                refused = [failure(target, error) for target in due]
            failures += refused
            for target in set(due) - {refusal.target for refusal in refused}:
                message.done(target)
                self.memory.add(message.key, target)
                sent.append(target)
        if sent:
            log.info("delivered: %s to %s", message, ", ".join(sorted(sent)))
        elif parcels and not failures:
            log.info("not sent again, all have it: %s", message)
        return failures

    def problems(self, message: Message) -> list[Failure]:
        """What would keep a message from being sent, as far as it shows without sending it."""
        try:
            return self._packed(message)[1]
        except Exception as error:  # noqa: BLE001  as in deliver
            return [failure("message", error)]

    def close(self) -> None:
        """End what the transports hold open."""
        for transport in self.transports:
            if isinstance(transport, Mail):
                transport.sender.close()

    def _packed(self, message: Message) -> tuple[list, list[Failure]]:
        parcels, failures = [], []
        for transport in self.transports:
            try:
                parcels += transport.parcels(message)
            except Exception as error:  # noqa: BLE001  an error of a template, for example
                failures.append(failure(transport.name, error))
        to = message.data["action"]["to"]
        failures += [
            Failure(one_line(target, 80), "not an address or a target that this mailer knows", True)
            for target in to
            if not is_known(target)
        ]
        if not to:
            failures.append(Failure("recipients", "the message names none", True))
        return parcels, failures


def is_known(target: str) -> bool:
    return any(
        test(target) for test in (is_mail_target, is_slack_target, is_splunk_target, is_topic)
    )
