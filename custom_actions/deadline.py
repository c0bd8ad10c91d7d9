"""How long the steps of this invocation may go on: until a minute is left for the mail.

Lambda kills a function at its time-out, before the mail and without a word, and then tries the
event again, with the same end. With a throttled API a single step could take all of that time:
here its calls end in time, what is not done is reported as not done, and the next try goes on.

Outside Lambda there is no deadline: a person waits for a release, or ends it.
"""

import contextlib

from c7n.exceptions import PolicyExecutionError

RESERVE = 60  # seconds: a publish and a tag, each with a few retries

_remaining = None  # Lambda's own function, milliseconds
_enforced = 0  # how many steps are at work: only their calls end, those of the mail go on


class OutOfTime(PolicyExecutionError):
    """The rest of the step was not done, so that the mail is still sent."""

    def __init__(self):
        super().__init__(
            f"not done: less than {RESERVE} s of the function's time were left; "
            "the next try goes on from here"
        )


def begin(context):
    """context: Lambda's, of the invocation that begins now; None on the command line."""
    global _remaining
    _remaining = getattr(context, "get_remaining_time_in_millis", None)


def left():
    """Seconds until the steps have to end."""
    return float("inf") if _remaining is None else _remaining() / 1000 - RESERVE


def is_over():
    """Whether the steps have to end."""
    return left() < 0


@contextlib.contextmanager
def enforced():
    """While a step is at work: `end_calls` raises for its calls."""
    global _enforced
    _enforced += 1
    try:
        yield
    finally:
        _enforced -= 1


def end_calls(**_):
    """A handler of botocore's event `before-send`: no call and no retry of one after the deadline.

    botocore takes what is raised here for the end of the call, since it is no error of a
    connection (botocore.endpoint.Endpoint._get_response, botocore/retries/standard.py).
    """
    if _enforced and is_over():
        raise OutOfTime
