"""One thing that was read back from AWS: how it is, whether that is well, what mends it."""

import contextlib
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError
from c7n.utils import get_partition

from deployment.errors import reason

GRANT = "grant the caller guardduty-response-status (infra/operators.yml)"


@dataclass(frozen=True)
class Check:
    """what: rule, topic, ... found: as it is, for a person. mend: the command, where it is not
    well. policy: whose it is, or "" for what all share."""

    what: str
    well: bool
    found: str = ""
    mend: str = ""
    policy: str = ""


class Checks(list):
    """A list of Check; `policy` is the one that they are about."""

    def __init__(self, policy=""):
        super().__init__()
        self.policy = policy

    def say(self, what, well, found="", mend=""):
        self.append(Check(what, bool(well), found, "" if well else mend, self.policy))

    @contextlib.contextmanager
    def reading(self, what):
        """What AWS does not let be read is not well, and the rest goes on."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            self.say(what, False, reason(error), GRANT if denied(error) else "")


def denied(error):
    return code(error) in ("AccessDenied", "AccessDeniedException", "AuthorizationError")


def code(error):
    """The error's code; "" for one that did not come from AWS."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""


def unless(absent, call, **parameters):
    """What `call` answers; None where it raises a ClientError with one of the codes `absent`."""
    try:
        return call(**parameters)
    except ClientError as error:
        if code(error) not in absent:
            raise
        return None


def deploy(target, policy=""):
    """The command that deploys to a target, all policies or one."""
    whose = f"-org ACCOUNTS={target.name}" if target.listed else ""
    return f"make deploy{whose} REGION={target.region}" + (f" POLICY={policy}" if policy else "")


def infra(target):
    return f"make infra REGION={target.region}"


def arn(target, service):
    """How an ARN of a service begins in a target."""
    return f"arn:{get_partition(target.region)}:{service}:{target.region}:{target.account_id}"
