"""The loop over the queue, once or without end.

`stop` ends it after the message in hand, which is delivered and acknowledged first.
"""

import logging
import threading

from .delivery import Courier, deliver_one, explain
from .errors import AWS_ERRORS, Failure, are_permanent, describe
from .message import Message
from .queue import Queue

log = logging.getLogger("mailer")

WAIT = 5  # seconds of one long poll; a stop takes as long at most
PASSES = 3  # how often `once` tries what can be tried again
PAUSE = 2.0  # seconds between two passes, and after a queue that could not be read
LONGEST_PAUSE = 60.0


class Loop:
    """queue, courier: see there. stop: set it to end the loop, from a signal handler too.

    kept, delivered: of `once`. Id of the message -> what to say about each that could not be
    delivered; the number of those that were.
    """

    def __init__(self, queue: Queue, courier: Courier, stop: threading.Event | None = None):
        self.queue = queue
        self.courier = courier
        self.stop = stop or threading.Event()
        self.kept: dict[str, str] = {}
        self.delivered = 0

    def once(self, passes: int = PASSES, pause: float = PAUSE) -> None:
        """Until the queue is empty. What can be tried again is tried in `passes` passes at most,
        then it is left visible; what cannot is left to the redrive policy. See `kept`."""
        for number in range(passes):
            held = self._drain()
            for message, failures in held:
                self.queue.put_back(message, failures, delay=0)
            if not held or number == passes - 1 or self.stop.wait(pause):
                return

    def _drain(self) -> list[tuple[Message, list[Failure]]]:
        """Until nothing is visible; returns what is still in hand because trying again may help.

        Who has a message is written on the queue at once, not at the end of the pass: a process
        that dies in between repeats one message. The copy that says so is taken off the queue
        again, and waits for the next pass."""
        tried: dict[str, list[Failure]] = {}
        held: list[tuple[Message, list[Failure]]] = []
        while not self.stop.is_set() and (message := self.queue.receive()):
            if message.origin in tried:
                held.append((message, tried[message.origin]))
                continue
            failures = deliver_one(self.queue, self.courier, message)
            if not failures:
                self.kept.pop(message.origin, None)
                self.delivered += 1
                continue
            self.kept[message.origin] = explain(message, failures)
            if are_permanent(failures):
                self.queue.put_back(message, failures)
                continue
            tried[message.origin] = failures
            if message.progress:
                self.queue.put_back(message, failures, delay=0)
            else:
                held.append((message, failures))
        return held

    def forever(self, wait: int = WAIT, pause: float = PAUSE) -> None:
        """Until `stop`. What failed comes back after a growing delay; a queue that cannot be read
        is tried again after a growing pause."""
        trouble = pause
        while not self.stop.is_set():
            try:
                message = self.queue.receive(wait)
            except AWS_ERRORS as error:
                log.error("the queue cannot be read: %s", describe(error))
                self.stop.wait(trouble)
                trouble = min(trouble * 2, LONGEST_PAUSE)
                continue
            trouble = pause
            if message is None:
                continue
            if self.stop.is_set():  # it came while we were told to end
                self.queue.release(message)
                return
            failures = deliver_one(self.queue, self.courier, message)
            if failures:
                log.warning(explain(message, failures))
                self.queue.put_back(message, failures)
