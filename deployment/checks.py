"""One thing that was read back from AWS: how it is, whether that is well, what mends it."""

import contextlib
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

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
        except (BotoCoreError, ClientError, ValueError) as error:
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
    return make("deploy", target) + (f" POLICY={policy}" if policy else "")


def make(what, target):
    """A command that has a form for the accounts of accounts.yml, for this account alone."""
    whose = f"-org ACCOUNTS={target.account_id}" if target.listed else ""
    return f"make {what}{whose} REGION={target.region}"


def infra(target, stack=""):
    """stack: the name of the one that is there."""
    if stack.startswith("StackSet-"):
        return "make stackset"
    return make("infra", target)


def there(target):
    """Where a command without such a form has to be run."""
    return f" (with credentials of account {target.account_id})" if target.listed else ""
