"""Where the boto3 clients of the pack are made, and where it says how calls are tried again."""

import functools
import logging
import random

from botocore.config import Config
from c7n.credentials import SessionFactory
from c7n.utils import local_session

from custom_actions import deadline, timeline

log = logging.getLogger("custodian.actions.clients")

# Two hundred findings at once are two hundred functions that share what EC2 takes. Calculated with
# 28 calls each at 20 calls a second: with seven attempts 12 instances stay unisolated even after
# the two retries of Lambda, with eight 3, with nine or ten none.
ATTEMPTS = 10
LONGEST_WAIT = 20  # seconds, as in botocore's standard mode

# Ten attempts wait 56 s on average between them and 111 s at most. If all also run into both
# timeouts, one call takes 241 s; the functions have 300 s at least (mode.timeout).
#
# Not `adaptive`: it slows down all calls of a client after one refusal, and those of a function are
# few. Not `legacy`, botocore's default, whose list of codes is shorter and whose waits have no end.
CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    connect_timeout=3,
    read_timeout=10,
)

# What passes by itself and is in no list of botocore's standard mode (botocore/retries/standard.py,
# which knows the other throttling codes, and every 500, 502, 503 and 504: EC2's InternalError,
# InternalFailure, Unavailable and ServiceUnavailable, Auto Scaling's ResourceContention, IAM's
# ServiceFailure).
MORE_CODES = frozenset(
    {
        # EC2: two changes of one resource's tags; one snapshot of a volume in 15 s
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
        "ConcurrentTagAccess",
        "SnapshotCreationPerVolumeRateExceeded",
        "Client.RequestLimitExceeded",  # so Custodian's own list (c7n.query) has it
        # IAM: two changes of one role or user
        "ConcurrentModification",
        "EntityTemporarilyUnmodifiable",
        # Classic Load Balancer: it is throttled itself by another service
        "DependencyThrottle",
        # SNS: the account's rate, and that of the key of an encrypted topic
        "Throttled",
        "KMSThrottling",
    }
)


# For what is asked before the swap and may go unanswered: two attempts, some 5 s at most.
IMPATIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=1, read_timeout=2
)


def client(session_factory, service, patient=True):
    """A boto3 client of the policy's account and region, made once for each session.

    session_factory: of the policy or its resource manager. service: boto3's name of it, such as
    `ec2`. Making a client costs as much as several calls. Custodian keeps a session for 45 minutes
    in each thread, and makes a new one when it assumes another role.

    patient: whether it goes on trying; `IMPATIENT` else, for calls that the isolation waits for.

    Calls are plain calls: botocore tries again what is throttled, fails at AWS or does not answer,
    up to `ATTEMPTS` times, and nothing else in the pack does. Wrapping a call in Custodian's
    `retry` would multiply the two.

    `needs-retry` is the event by which botocore asks after each answer whether to send the request
    again; it sleeps the first answer that is not None.
    """
    return of_session(local_session(session_factory), service, patient)


def of_session(session, service, patient=True):
    """The same, of a boto3 session."""
    clients = vars(session).setdefault("response_clients", {})
    if (service, patient) not in clients:
        made = session.client(service, config=CONFIG if patient else IMPATIENT)
        if patient:
            made.meta.events.register("needs-retry", wait_for_more_codes, unique_id="more-codes")
        made.meta.events.register("before-send", deadline.end_calls, unique_id="deadline")
        timeline.watch(made.meta.events)
        clients[service, patient] = made
    return clients[service, patient]


class FunctionSessions(SessionFactory):
    """Custodian's session factory, for a function: its own clients too are made once and retry.

    Custodian makes a session and an SNS client for each mail, which takes as long as an isolation.
    Here the function's own session is kept as long as the container, and so are its clients, with
    the retries of this module. Of a member account's role (custom_actions/central.py) the last one
    is kept, since one for each would fill the memory. On the command line Custodian's factory stays
    as it is: its queries there have a retry of their own, which the two would multiply.
    """

    kept = None
    member = None

    def of_member(self, role, make):
        """The factory for a role in another account: the last one, or what `make()` makes."""
        if self.member is None or self.member.assume_role != role:
            self.member = make()
        return self.member

    def __call__(self, assume=True, region=None):
        if (self.assume_role and assume) or (region or self.region) != self.region:
            return super().__call__(assume, region)
        if self.kept is None:
            self.kept = kept(super().__call__(assume=False))
            do_without_alias(self.kept)
        return self.update(self.kept)


def kept(session):
    """A boto3 session as a function keeps it: its clients are made once, and retry."""
    session._session.set_default_client_config(CONFIG)  # boto3 has no way to it
    session.events.register("needs-retry", wait_for_more_codes, unique_id="more-codes")
    timeline.watch(session.events)
    session.client = functools.cache(session.client)
    return session


def wait_for_more_codes(response, attempts, **_):
    """Seconds to wait before a call that failed with one of MORE_CODES is sent again, or None.

    response: (HTTP response, parsed response), or None when there was none. attempts: how often
    the request was sent. The wait is that of botocore's standard mode.
    """
    code = response[1].get("Error", {}).get("Code") if response else None
    if code not in MORE_CODES or attempts >= ATTEMPTS:
        return None
    return random.random() * min(2 ** (attempts - 1), LONGEST_WAIT)  # noqa: S311 - not a secret


def do_without_alias(session):
    """Have a mail sent without the account's alias where IAM refuses to tell it.

    Custodian's `notify` asks for it before each message (iam:ListAccountAliases), and without an
    answer sends none. session: boto3's.
    """
    session.events.register(
        "after-call.iam.ListAccountAliases", _no_alias, unique_id="no-account-alias"
    )


def _no_alias(http_response, parsed, **_):
    """A handler of botocore's event `after-call`, which comes before it looks at the status."""
    if http_response.status_code >= 300:
        log.warning("the account's alias is not known: %s", parsed.get("Error"))
        http_response.status_code = 200
        parsed["AccountAliases"] = []
