"""Central mode: one deployment in GuardDuty's administrator account acts in the members.

The administrator account gets the findings of its members too. A policy with the line

    execution-options: {member-role: "{member-role}"}

in its mode acts on them where Custodian's variable `member-role` has a value: `make deploy
MEMBER_ROLE=guardduty-response-member`, or `vars` of that account in accounts.yml. The deploy
(custom_actions/provision.py) then takes the guard `accountId` out of the rule, and sets Custodian's
own `mode.member-role`. The function works in the member through the role `<value>-<policy>` of
infra/member-role.yml: look, change, record, mark. The mail goes to the topic of the administrator
account, by the function's own credentials. Findings of the administrator account itself are acted
on with the function's own role, as without this mode.

Which account is acted in is said by `detail.accountId` of the finding. Whoever can forge that can
invoke the function, and does no more than that; the role's trust decides whether it may act there.

A member may have a deployment of its own. Then both get the finding, at about the same time. Both
isolate and contain, which is the same done twice. Snapshots and the mail are not: with them the one
that did not begin the incident waits until the other has mailed (`once_another_is_done`). Which one
began it stands in the seal on the forensic group, where the tags of the instance do not reach.

`c7n.policy.LambdaMode.assume_member` is not used: it changes the configuration and the sessions
that a warm function keeps for its next event, which may be of another account.
"""

import re
import time

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.credentials import DeferredRefreshableCredentials
from c7n.credentials import SessionFactory
from c7n.exceptions import ClientError, PolicyExecutionError, PolicyValidationError
from c7n.utils import reset_session_cache

from custom_actions import clients, deadline, seal
from custom_actions.finding import ACCOUNT_ID, mapping, text
from custom_actions.record import (
    BY_HAND,
    DEPLOYMENT,
    INCIDENT,
    MEMBER_ROLE,
    NOTIFIED,
    STATE,
    WAITED,
    marks,
    short_id,
)
from custom_actions.response import REFUSED, describe, error_code

OPTION = "member-role"
OWN = "own"  # the deployment of the account that is acted in
NONE = "none"  # the deployment acts in its own account alone
TAG = MEMBER_ROLE  # of the function

# Where the configuration of an event says which account the function is deployed in.
ADMINISTRATOR = "administrator"

# Seconds between the looks for the mail of another deployment.
PATIENCE = (1, 2, 4, 8, 15)

ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")


def checked(name, policy_name):
    """The name of the policy's role in the members; None for `none`. Raises PolicyValidationError.

    name: the value of the variable, which all policies share.
    """
    role = f"{name}-{policy_name}"
    if name == NONE:
        return None
    if not isinstance(name, str) or not name or not ROLE_NAME.fullmatch(role):
        raise PolicyValidationError(
            f"policy:{policy_name} member-role {name!r} is not what names of roles begin with: say "
            f"MEMBER_ROLE=guardduty-response-member, or {NONE}. Nothing was changed"
        )
    return role


def of_event(event, mode, config, sessions):
    """The configuration and the sessions for an event; those of the function where it is its own.

    mode: of the policy, as it was deployed. Nothing is assumed before the first call.
    """
    if OPTION not in mode:
        return config, sessions
    # Custodian keeps a session for each region, whatever its account.
    reset_session_cache()
    account_id = text(mapping(event, "detail"), "accountId")
    if account_id == config.account_id or not ACCOUNT_ID.fullmatch(account_id):
        return config, sessions
    role = mode[OPTION].format(account_id=account_id)
    member = config.copy(**{"account_id": account_id, ADMINISTRATOR: config.account_id})
    return member, sessions.of_member(role, lambda: MemberSessions(sessions, role))


def deployment(config):
    """The account that the policy is deployed in. config: Custodian's."""
    return config.get(ADMINISTRATOR) or config.account_id


def word(config):
    """How the deployment is called in the seal of an account."""
    return OWN if deployment(config) == config.account_id else deployment(config)


def recorded_deployment(tags, config):
    """The account of the deployment that isolated an instance, by its tags; they can be forged."""
    recorded = tags.get(DEPLOYMENT, "")
    return recorded if ACCOUNT_ID.fullmatch(recorded) else config.account_id


def once_another_is_done(action, resource, event, look):
    """The tags of an instance, once another deployment that began its incident has mailed.

    look: reads them. It is waited for once an event, half a minute at most: then the rest is done
    here, though it may be done twice. A person is never kept waiting, nor a guard, whose incident
    is another. Two that begin within the same moment may not see each other's tags yet.

    An instance's own role can often write its tags. So they are believed only where the seal on the
    forensic group names another deployment too: no function without such a deployment beside it
    ever waits, nor for a person who has isolated by hand.

    IAM: ec2:DescribeSecurityGroups, where the tags name another deployment.
    """
    for delay in PATIENCE:
        tags = look()
        if not _is_anothers(action, resource, tags, event):
            return tags
        time.sleep(delay)
    event[WAITED] = True  # for all the instances that it names
    return look()


def _is_anothers(action, resource, tags, event):
    config = action.manager.config
    if not resource.get(INCIDENT) or STATE not in tags or action.dryrun:
        return False
    if not event or BY_HAND in resource or "eventID" in event["detail"]:
        return False
    if WAITED in event or deadline.is_over():
        return False
    if recorded_deployment(tags, config) == deployment(config):
        return False
    return short_id(event) not in marks(tags, NOTIFIED) and _is_sealed_by_another(action, resource)


def _is_sealed_by_another(action, resource):
    try:
        seals = seal.find(action.client(), resource[action.manager.resource_type.id])
    except REFUSED as error:
        action.log.warning("whose deployment was first is not known: %s", describe(error))
        return False
    by = {found.get(seal.BY) for found in seals.values()} - {None}
    return bool(by) and word(action.manager.config) not in by


class NotAssumed(PolicyExecutionError):
    """The role in a member cannot be assumed."""


class MemberSessions(SessionFactory):
    """Sessions of a role in a member; with `assume=False` the function's own.

    One session is kept, with its clients and the retries of custom_actions/clients.py. The role is
    assumed by its first call, and again before the hour of its credentials is over. Service models
    are shared with the function's own session.

    own: FunctionSessions. IAM: sts:AssumeRole of the role.
    """

    def __init__(self, own, role):
        super().__init__(own.region, assume_role=role)
        self.own = own
        self.kept = None

    def __call__(self, assume=True, region=None):
        if not assume:
            return self.own(assume=False, region=region)
        if (region or self.region) != self.region:
            return self.update(self.make(region))
        if self.kept is None:
            self.kept = clients.kept(self.make(self.region))
            self.kept.events.register("before-call.iam.ListAccountAliases", no_alias)
        return self.update(self.kept)

    def make(self, region):
        core = botocore.session.Session()
        loader = self.own(assume=False)._session.get_component("data_loader")
        core.register_component("data_loader", loader)
        core._credentials = DeferredRefreshableCredentials(self.credentials, "sts-assume-role")
        return boto3.Session(botocore_session=core, region_name=region)

    def credentials(self):
        """What botocore refreshes them by. Raises NotAssumed."""
        own = self.own(assume=False)
        try:
            given = clients.of_session(own, "sts").assume_role(
                RoleArn=self.assume_role, RoleSessionName=self.session_name
            )["Credentials"]
        except ClientError as error:
            todo = "Then"
            if error_code(error) == "AccessDenied":
                todo = (
                    "Deploy infra/member-role.yml in account "
                    f"{self.assume_role.split(':')[4]}, and infra/account.yml here, with the right "
                    "MemberRole and OrganizationId in both; see whether a service control policy "
                    "denies sts:AssumeRole; then"
                )
            raise NotAssumed(
                f"{self.assume_role} cannot be assumed ({describe(error)}). {todo} give the "
                "function this event again"
            ) from error
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }


def no_alias(**_):
    """A handler of botocore's event `before-call`, which makes the call unnecessary.

    Custodian's `notify` asks for the account's alias before each message. A mail must go out though
    the role in the member cannot be assumed, and the mailer knows the names of accounts.
    """
    return AWSResponse("", 200, {}, None), {"AccountAliases": []}
