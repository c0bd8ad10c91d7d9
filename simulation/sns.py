"""SNS to SQS in another account: moto looks for the queue in the topic's own account."""

import contextlib
from collections.abc import Iterator

from moto.sns.models import Subscription


@contextlib.contextmanager
def delivering_across_accounts() -> Iterator[None]:
    """Have a subscription of a queue deliver to the account that its ARN names.

    The queue's policy, which has to allow that on AWS, is not enforced.
    """
    create = Subscription.__init__

    def __init__(self, *args, **kwargs):
        create(self, *args, **kwargs)
        if self.protocol == "sqs":
            self.account_id = self.endpoint.split(":")[4]

    Subscription.__init__ = __init__
    try:
        yield
    finally:
        Subscription.__init__ = create
