"""A message to all who are to have it, each once."""

import logging
import time
from collections.abc import Callable

from .errors import Failure, are_permanent, failure
from .message import ABOUT_SUBSCRIPTIONS, ASKED, Message
from .queue import Queue
from .senders import Senders
from .transport import Parcel, Transport, label

log = logging.getLogger("mailer")

WINDOW = 3600.0  # seconds for which this process remembers who has what
MOST = 10_000  # remembered, then the oldest go
EXPLAINED = 10  # failures of one message; a forged one can have thousands
NO_TARGET = "not an address or a target that this mailer knows"
STRANGER = "neither account_emails nor `recipients` of mailer.yml has it"


class Memory:
    """Who was sent what in the last WINDOW seconds, by this process.

    At least once is what EventBridge, SNS and SQS promise, so a message can come twice. What it
    cannot know: another process, or a function's other container, that got the second one.

    Two that share a key need not say the same, and who publishes first would have the word. So what
    a member says stands for what an administrator account does only where it reads the same; the
    administrator's stands for both. of: the topic of an administrator account, else "". says: see
    Parcel.
    """

    def __init__(self):
        self._sent: dict[tuple[str, str], tuple[float, str, str]] = {}

    def has(self, key: str, target: str, of: str, says: Callable[[], str]) -> bool:
        at, by, said = self._sent.get((key, target), (None, "", ""))
        if at is None or time.monotonic() - at >= WINDOW:
            return False
        return of in ("", by) or bool(said) and says() == said

    def add(self, key: str, target: str, of: str, says: str) -> None:
        self._sent.pop((key, target), None)
        self._sent[key, target] = time.monotonic(), of, says
        if len(self._sent) > MOST:
            del self._sent[next(iter(self._sent))]


class Courier:
    """transports: independent of each other: one that fails does not keep a message from the
    others. senders: whose messages are delivered."""

    def __init__(self, transports: list[Transport], senders: Senders):
        self.transports = transports
        self.senders = senders
        self.memory = Memory()

    def deliver(self, message: Message) -> list[Failure]:
        """Send to everybody who does not have it yet, and note in the message who has it now.

        Returns who did not get it; nothing is raised, since one message must not stop others. A
        message of SNS itself is answered instead.
        """
        if message.kind in ABOUT_SUBSCRIPTIONS:
            return self._answered(message)
        parcels, failures = self._packed(message)
        of = message.topic if self.senders.is_of_administrator(message) else ""
        sent = []
        for parcel in parcels:
            due = [
                target
                for target in parcel.targets
                if not (
                    message.has(target) or self.memory.has(message.key, target, of, parcel.says)
                )
            ]
            if not due:
                continue
            try:
                says = parcel.says()  # before it is sent: what raises then would be sent again
                refused = parcel.send(due)
            except Exception as error:  # noqa: BLE001  whatever a transport may raise
                refused = [failure(target, error) for target in due]
            failures += refused
            for target in set(due) - {refusal.target for refusal in refused}:
                message.done(target)
                self.memory.add(message.key, target, of, says)
                sent.append(target)
        if sent:
            log.info("delivered: %s to %s", message, ", ".join(sorted(sent)))
        elif parcels and not failures:
            log.info("not sent again, all have it: %s", message)
        return failures

    def problems(self, message: Message) -> list[Failure]:
        """What would keep a message from being sent, as far as it shows without sending it."""
        return self._packed(message)[1]

    def close(self) -> None:
        """End what the transports hold open."""
        for transport in self.transports:
            transport.close()

    def _answered(self, message: Message) -> list[Failure]:
        """What keeps a subscription from being confirmed."""
        try:
            self.senders.check(message)
            self.senders.confirm(message)
        except Exception as error:  # noqa: BLE001  as for a transport
            return [failure("subscription", error)]
        return []

    def _packed(self, message: Message) -> tuple[list[Parcel], list[Failure]]:
        try:
            self.senders.check(message)
            if message.kind == ASKED:
                return [], []
            to, _ = message.to, message.key
        except Exception as error:  # noqa: BLE001  whatever is in a message
            return [], [failure("message", error)]
        parcels, failures, named, known = [], [], set(), set()
        for transport in self.transports:
            try:
                accepted = [target for target in to if transport.accepts(target)]
                targets = [target for target in accepted if transport.knows(target)]
                named.update(accepted)
                known.update(targets)
                if targets or transport.every_message:
                    parcels += transport.parcels(message, targets)
            except Exception as error:  # noqa: BLE001  an error of a template, for example
                failures.append(failure(transport.name, error))
        failures += [
            Failure(label(target), STRANGER if target in named else NO_TARGET, True)
            for target in dict.fromkeys(to)
            if target not in known
        ]
        if not to:
            failures.append(Failure("recipients", "the message names none", True))
        return parcels, failures


def deliver_one(queue: Queue, courier: Courier, message: Message) -> list[Failure]:
    """Deliver one message, then acknowledge it: a crash between the two repeats it, and never
    loses it.

    Returns who did not get it. Then it is still in hand, not acknowledged: say so with `explain`,
    and put it back with Queue.put_back.
    """
    failures = courier.deliver(message)
    if not failures:
        queue.acknowledge(message)
    return failures


def explain(message: Message, failures: list[Failure]) -> str:
    """One line about a message that was kept."""
    reasons = "; ".join(map(str, failures[:EXPLAINED]))
    if len(failures) > EXPLAINED:
        reasons += f"; and {len(failures) - EXPLAINED} more"
    where = (
        "kept; the dead-letter queue gets it"
        if are_permanent(failures)
        else "kept on the queue, to be tried again"
    )
    return f"NOT DELIVERED: {message}: {reasons}. The message was {where}."
