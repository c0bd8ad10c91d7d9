"""Deny everything to sessions of a role whose credentials are in the wrong hands; and the way back.

Credentials that have left an instance go on working wherever they are used, however well the
instance is isolated. They cannot be taken back, but permissions are looked at for each request:
an inline policy on the role denies everything to exactly the sessions meant.

- The session has a name: `aws:userid` of its requests is `<role id>:<name>`. EC2 names the sessions
  that it makes after the instance, Lambda after the function, ECS after the task. Every other
  session of the role goes on; whoever uses the same name with the role is denied too, also later:
  the instance, each run of the function, the task. A task that replaces it has another name.
- It has none: every session issued before now is denied, as by "Revoke active sessions" of
  IAM's console, by `aws:TokenIssueTime`.

One policy for each incident, named after it: `forensic-deny-sessions-<instance id>` of an
isolated instance, `forensic-deny-sessions-<finding id>` of a credential finding. So two incidents
on one role never overwrite each other, and a revert removes exactly what its incident added. The
two policies may deny the same session; then it takes both reverts to lift that.

Limits. AWS says that it may take some minutes until a change of IAM is in force everywhere. What
the credentials did before stays done. Not stopped: a session of another name, which whoever may
assume the role can make; sessions of other roles that were assumed with these credentials; what
else was on the machine: roles of ECS tasks and of EKS pods (IRSA, Pod Identity), the default host
management role of Systems Manager; and what needs no permission (sts:GetCallerIdentity).

Sources, all under https://docs.aws.amazon.com/IAM/latest/UserGuide/:
id_roles_use_revoke-sessions (the deny, its time, service-linked roles);
id_credentials_temp_control-access_disable-perms (permissions are evaluated for each request; roles
of IAM Identity Center); reference_policies_variables (the value of aws:userid for each kind of
principal); reference_iam-quotas (10,240 characters of inline policies a role, white space not
counted). How Lambda and ECS name their sessions is not in that table; it is seen in the ARNs of
assumed roles in CloudTrail. Nothing here was run against AWS.
"""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.finding import (
    ENTITY_NAME,
    FINDING_ID,
    INSTANCE_ID,
    affiliated_account,
    finding_id,
    role_session,
    workload,
)
from custom_actions.instance import OfInstance
from custom_actions.record import ROLE_POLICY
from custom_actions.registry import register
from custom_actions.response import Change, NothingToDo, Revert, Step, error_code, ignoring

PREFIX = "forensic-deny-sessions-"

# As IAM's console does, so that a session issued before the deny is in force is denied too.
AHEAD = timedelta(seconds=30)

UNEDITABLE = {
    "/aws-service-role/": "is a service-linked role: only its service can change it, and its "
    "sessions cannot be revoked",
    "/aws-reserved/": "belongs to IAM Identity Center and cannot be edited in IAM: revoke the "
    "session there",
}

REASONS = {
    "LimitExceeded": "Its inline policies are at IAM's limit of 10,240 characters: make room, or "
    "deny the sessions by hand in a managed policy.",
    "UnmodifiableEntity": "Nobody but the service that it belongs to can change it.",
}


def deny_session(role_id, name):
    """The statement that denies the sessions of one name.

    name: a well-formed one (finding.SESSION_NAME), in which IAM finds no variable.
    """
    return _deny({"StringEquals": {"aws:userid": f"{role_id}:{name}"}})


def deny_older(moment):
    """The statement that denies the sessions issued before a moment (an aware datetime)."""
    moment = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _deny({"DateLessThan": {"aws:TokenIssueTime": moment}})


def _deny(condition):
    return {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}


def issued_before(statement):
    """The time of a statement that `deny_older` made; None for any other."""
    try:
        moment = statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
    except (KeyError, TypeError):
        return None
    return moment if statement == _deny({"DateLessThan": {"aws:TokenIssueTime": moment}}) else None


class InlinePolicy:
    """One inline policy of a role, as IAM has it."""

    def __init__(self, iam, role_name, name):
        self.iam = iam
        self.role_name = role_name
        self.name = name

    @property
    def key(self):
        return {"RoleName": self.role_name, "PolicyName": self.name}

    def __str__(self):
        return f"{self.role_name}/{self.name}"

    def statements(self):
        """Its statements; none when there is no such policy."""
        shown = ignoring("NoSuchEntity", self.iam.get_role_policy, **self.key)
        found = shown["PolicyDocument"]["Statement"] if shown else []
        return found if isinstance(found, list) else [found]

    def put(self, statements):
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.iam.put_role_policy(**self.key, PolicyDocument=document)

    def delete(self):
        ignoring("NoSuchEntity", self.iam.delete_role_policy, **self.key)

    @property
    def unseen(self):
        return PolicyExecutionError(
            f"IAM still shows policy {self.name} of role {self.role_name} as it was"
        )

    def others(self):
        """The names of the pack's other policies on the role."""
        pages = self.iam.get_paginator("list_role_policies").paginate(RoleName=self.role_name)
        names = [name for page in pages for name in page["PolicyNames"]]
        return [name for name in names if name.startswith(PREFIX) and name != self.name]


class Deny(NamedTuple):
    """The deny that is wanted, and the statements that its policy has now."""

    policy: InlinePolicy
    session: str  # "" for every session
    statement: dict
    present: list
    workload: str  # what the session is of, in words, where the finding says so

    @property
    def instance_id(self):
        return self.session if INSTANCE_ID.fullmatch(self.session) else None

    @property
    def about(self):
        """What the outcome says of it."""
        return {
            "role": self.policy.role_name,
            "policy": self.policy.name,
            "session": self.session or None,
            "instance": self.instance_id,
            "workload": self.workload or None,
            "issued_before": issued_before(self.statement),
        }

    @property
    def whom(self):
        """Whom it hits, as the rest of a sentence of at most 250 characters."""
        role, name = self.policy.role_name, self.policy.name
        if self.instance_id:
            return (
                f"sessions of {self.instance_id} with role {role}, wherever they are used; other "
                f"instances with the role go on. Policy {name}."
            )
        if self.workload:
            return (
                f"sessions of role {role} named {self.session}: that {self.workload} is hit too; "
                f"other names go on. Policy {name}."
            )
        if self.session:
            return (
                f"sessions of role {role} named {self.session}; other names go on. Policy {name}."
            )
        return (
            f"EVERY session of role {role} issued before {issued_before(self.statement)}, not "
            f"only the stolen one: the finding names no session. Policy {name}."
        )


class Revocation(Step):
    """What the two `revoke-role-sessions` share: the deny on a role that is known to be right."""

    def deny(self, run, role, session, incident, workload=""):
        """The deny of the sessions of one name, or of the older ones when `session` is empty.

        role: RoleName, RoleId and Path as IAM shows them. incident: the end of the policy's name.
        workload: what has sessions of that name, in words.
        """
        for path, reason in UNEDITABLE.items():
            if (role.get("Path") or "").startswith(path):
                raise PolicyExecutionError(f"role {role['RoleName']} {reason}")
        policy = InlinePolicy(self.client("iam"), role["RoleName"], PREFIX + incident)
        present = policy.statements()
        # The first time of an incident stays: an update of a finding does not move it.
        earlier = next((s for s in present if issued_before(s)), None)
        if session:
            wanted = deny_session(role["RoleId"], session)
        else:
            wanted = earlier or deny_older(run.begun + AHEAD)
        return Deny(policy, session, wanted, present, workload)

    def changes(self, run):
        deny = run.view
        yield Change(
            str(deny.policy),
            holds=deny.statement in deny.present,
            make=partial(deny.policy.put, [*deny.present, deny.statement]),
            key=self.record_key,
            words=(str(deny.policy),) if self.record_key else (),
            end="denied",
            unseen=deny.policy.unseen,
        )

    record_key = None

    def plan(self, run):
        return f"Would deny everything to {run.view.whom}"

    def tell(self, run):
        (change,) = run.changes
        if change.holds:
            return (
                "E" if run.made else "Already so: e"
            ) + f"verything is denied to {run.view.whom}"
        return (
            f"IAM does not show that the sessions of role {run.view.policy.role_name} are denied. "
            + REASONS.get(error_code(change.error), "")
        ).strip()

    def more(self, run):
        about = {"revoked": all(change.holds for change in run.changes), **run.view.about}
        if about["revoked"]:
            about["verified_at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        return about


class RevokeInstanceSessions(OfInstance, Revocation):
    """Denies everything to the sessions that an instance has, or has had, of its role.

    The role is the one of the instance's profile. The deny holds wherever the credentials are
    used, also on the instance itself, and also for the credentials that EC2 hands it later; other
    instances with the role are not affected. Which policy was put on which role is recorded on
    the instance (`forensic:role-policy`) for `restore-role-sessions`.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-revoke
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - revoke-role-sessions
              - fail-unless-complete

    No arguments. The outcome has besides `revoked` (true only when the policy was read back),
    `role`, `policy`, `session` and `instance` (the same), `issued_before` (None here) and
    `verified_at`. An instance
    without a profile, or whose profile has no role, is `unchanged`; a terminated one without a
    profile is `skipped`, since what it had is not known. Dry run: reads, changes
    nothing.

    IAM: iam:GetInstanceProfile, iam:GetRolePolicy and iam:PutRolePolicy, besides ec2:CreateTags.
    No condition key of IAM limits PutRolePolicy to deny policies. The roles of infra/account.yml
    therefore may edit no role of the pack, and each from its own function alone
    (`lambda:SourceFunctionArn`): a policy of another name needs a role with its name there.

    Limits: only the role that the profile has now; credentials of a role that the instance had
    before go on working. What a deny does not stop:
    custom_actions/steps/sessions.py.
    """

    schema = type_schema("revoke-role-sessions")
    permissions = (
        "ec2:DescribeInstances",
        "iam:GetInstanceProfile",
        "iam:GetRolePolicy",
        "iam:PutRolePolicy",
        "ec2:CreateTags",
    )
    when_terminated = None  # what it had is denied all the same, as long as EC2 shows it
    record_key = ROLE_POLICY
    recording = ("inline policy",)

    def look_at(self, run, instance):
        role = run.memory.get("role") or self.role_of(instance)
        run.memory["role"] = role
        return self.deny(run, role, self.resource_id(run), self.resource_id(run))

    def role_of(self, instance):
        profile = instance.get("IamInstanceProfile")
        if not profile and instance["State"]["Name"] == "terminated":
            raise NothingToDo(
                "The instance is terminated and EC2 shows no instance profile any more. If it had "
                "one, credentials that left it work until they expire: revoke by hand.",
                "skipped",
            )
        if not profile:
            raise NothingToDo("EC2 shows no instance profile: no role to revoke.")
        name = profile["Arn"].rpartition("/")[2]
        found = self.client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        if found["InstanceProfileId"] != profile["Id"]:
            raise PolicyExecutionError(
                f"instance profile {name} was made again since the instance got it: its role may "
                "not be that of the instance"
            )
        if not found["Roles"]:
            raise NothingToDo(f"Instance profile {name} has no role.")
        (role,) = found["Roles"]  # IAM allows no more than one
        return role


class RevokeFindingSessions(Revocation):
    """Denies everything to the role session that a credential finding names.

    Role and session come from the finding (`accessKeyDetails`); nothing is done unless IAM has a
    role of that name with that very id. The session is denied by its name, and no other one. Only
    where the finding names no session every session of the role issued before now is denied (and
    half a minute more, as IAM's console has it), so that **everybody else with the role is hit as
    well**. People and programs have to assume the role again. Instances with the role are denied
    until EC2 gives them new credentials; AWS documents no more than that these come at least five
    minutes before the old ones expire.

    The session of a Lambda function is named after the function, and so is every run of it with the
    role: the function itself is denied until that is lifted. That of an ECS task is named after the
    task; the one that replaces a stopped task has another name and is not denied.

    Use inside AWS by an account that GuardDuty knows as affiliated with this one is not revoked:
    the step is `skipped`, with the account, and the mail says so. Where a person runs the policy
    (the filter `by-hand`) it is.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-revoke-stolen-sessions
            resource: account
            mode:
              type: guard-duty
              role: guardduty-response-iam-role-revoke-sessions
              packages: [custom_actions]
              handler: custom_actions.handler.run
            filters:
              - type: event
                key: detail.type
                value: UnauthorizedAccess:IAMUser/InstanceCredentialExfiltration.OutsideAWS
            actions:
              - revoke-role-sessions
              - type: notify-once
                template: credentials.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    No arguments. The outcome has besides `revoked` (true only when the policy was read back),
    `role`, `policy`, `session` (and `instance` when it is one, or `workload`, in words, when the
    finding is about a function or a task) or `issued_before`, and `verified_at`. An update of the
    finding changes nothing: the time does not move. A new finding adds a policy of its own. Failed,
    with the reason: a role that cannot be edited (service-linked, of IAM Identity Center), inline
    policies at their limit. Dry run: reads, changes nothing.

    IAM: iam:GetRole, iam:GetRolePolicy, iam:PutRolePolicy; see the action of that name on ec2.

    Limits: a thief who can assume the role anew, under another name, gets a session that is not
    denied; close that way, which is in the role's trust policy. What a deny does not stop:
    custom_actions/steps/sessions.py.
    """

    schema = type_schema("revoke-role-sessions")
    permissions = ("iam:GetRole", "iam:GetRolePolicy", "iam:PutRolePolicy")

    def look(self, run):
        session = role_session(run.event, run.resource["account_id"])
        incident = finding_id(run.event)
        role = run.resource.get(record.ROLE) or self.role_of(session)
        run.resource[record.ROLE] = role
        account = affiliated_account(run.event)
        if account and record.BY_HAND not in run.resource:
            raise NothingToDo(
                f"The credentials were used from account {account}, which GuardDuty knows as "
                "affiliated with this one. Ask there what it was; if it was nobody's work, revoke "
                "by hand.",
                "skipped",
                facts=["affiliated", account],
                revoked=False,
                role=role["RoleName"],
            )
        return self.deny(run, role, session.name, incident, workload(run.event, session.name))

    def role_of(self, session):
        shown = ignoring("NoSuchEntity", self.client("iam").get_role, RoleName=session.role_name)
        if shown is None:
            raise PolicyExecutionError(f"IAM knows no role {session.role_name}")
        role = shown["Role"]
        if role["RoleId"] != session.role_id:
            raise PolicyExecutionError(
                f"the finding is about role id {session.role_id}, but the role called "
                f"{session.role_name} is {role['RoleId']}. Nothing was changed"
            )
        # what goes into the message: no more than is needed
        return {k: role.get(k) for k in ("RoleName", "RoleId", "Path", "Tags")}


class RestoreInstanceSessions(OfInstance, Revert):
    """Removes the inline policy that `revoke-role-sessions` put on the role of an instance.

    It removes what is recorded on the instance and nothing else, and only a policy that is named
    after this instance: whoever may tag the instance cannot have other policies removed. Any other
    word of the record is left out and named. Denies of credential findings stay and are named.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-sessions
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - restore-role-sessions
              - fail-unless-complete

    No arguments. `unchanged` when nothing is recorded. The record goes when the policy is seen to
    be gone; a failed revert can be run again. IAM: iam:DeleteRolePolicy, iam:GetRolePolicy,
    iam:ListRolePolicies, besides ec2:DescribeInstances and ec2:DeleteTags.

    Limits: the record ends with the instance; of a terminated one remove the policy by hand, or
    leave it: it denies nobody else.
    """

    schema = type_schema("restore-role-sessions")
    permissions = (
        "ec2:DescribeInstances",
        "iam:DeleteRolePolicy",
        "iam:GetRolePolicy",
        "iam:ListRolePolicies",
        "ec2:DeleteTags",
    )
    when_terminated = None
    keys = (ROLE_POLICY,)
    unrecorded = "no session was revoked."

    def look_at(self, run, instance):
        policies = {}
        for word in self.recorded(run)[ROLE_POLICY]:
            role_name, _, name = word.partition("/")
            if name == PREFIX + self.resource_id(run) and ENTITY_NAME.fullmatch(role_name):
                policies[word] = InlinePolicy(self.client("iam"), role_name, name)
            else:
                policies[word] = None
        return {word: (p, p and run.read(word, p.statements)) for word, p in policies.items()}

    def changes(self, run):
        for word, (policy, statements) in run.view.items():
            if policy is None:
                flaw = "is not a policy that this pack made for it, left alone"
                yield Change(word[:200], holds=True, flaws={"malformed": flaw})
            else:
                yield Change(word, holds=statements == [], make=policy.delete, unseen=policy.unseen)

    def conclude(self, run):
        run.memory["left"] = left = []
        gone = {change.name for change in run.holding if not change.flaws}
        for policy in (policy for word, (policy, _) in run.view.items() if word in gone):
            # a role that is gone has none
            names = run.read("other denies", ignoring, "NoSuchEntity", policy.others)
            left += [f"{policy.role_name}/{name}" for name in names or ()]
        super().conclude(run)

    def plan(self, run):
        return f"Would remove {', '.join(run.view)}."

    def tell(self, run):
        left, gone = run.memory["left"], [c.name for c in run.holding if not c.flaws]
        return (
            ("Removed " if self.is_over(run) else "Not removed everything of ")
            + (", ".join(gone if self.is_over(run) else run.view) or "nothing")
            + (f". Other denies stay: {', '.join(left)}." if left else ".")
        )


class RestoreFindingSessions(Revert):
    """Removes the inline policy that a credential finding put on a role. Run by a person.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-restore-one
            resource: account
            actions:
              - type: restore-role-sessions
                role: web-server
                finding: 7ab2c3d4e5f60718293a4b5c6d7e8f90
              - fail-unless-complete

    Arguments: `role`, the name of the role; `finding`, the id of the finding. Both are in the
    mail. What others have put on the role stays, other incidents' policies too. `unchanged`, with
    the policies of this pack that the role has, when it has none of this finding. The mark of the
    mail (see custom_actions/notify.py) goes with the policy.

    Archive the finding in GuardDuty first: an update of an active finding denies again.

    IAM: iam:GetRolePolicy, iam:DeleteRolePolicy, iam:ListRolePolicies, iam:UntagRole.
    """

    schema = type_schema(
        "restore-role-sessions",
        required=["role", "finding"],
        role={"type": "string"},
        finding={"type": "string"},
    )
    permissions = (
        "iam:GetRolePolicy",
        "iam:DeleteRolePolicy",
        "iam:ListRolePolicies",
        "iam:UntagRole",
    )

    def look(self, run):
        role_name, finding = self.data["role"], self.data["finding"]
        if not ENTITY_NAME.fullmatch(role_name) or not FINDING_ID.fullmatch(finding):
            raise PolicyExecutionError(f"role {role_name!r}, finding {finding!r}: not well-formed")
        policy = InlinePolicy(self.client("iam"), role_name, PREFIX + finding)
        statements = policy.statements()
        if run.view is None and not statements:
            raise NothingToDo(
                f"Nothing to revert: role {role_name} has no policy {policy.name}. Policies of "
                f"this pack on it: {', '.join(policy.others()) or 'none'}."
            )
        return policy, statements

    def changes(self, run):
        policy, statements = run.view
        make = partial(self.remove, policy)
        yield Change(str(policy), holds=not statements, make=make, unseen=policy.unseen)

    def remove(self, policy):
        """The policy is the record too: what else is to go goes before it."""
        policy.iam.untag_role(
            RoleName=policy.role_name, TagKeys=[record.notified_key(self.data["finding"])]
        )
        policy.delete()

    def forget(self, run):
        """The policy was the record."""

    def conclude(self, run):
        super().conclude(run)
        run.memory["left"] = run.read("other denies", run.view[0].others) or ()

    def plan(self, run):
        return f"Would remove {run.view[0]}."

    def tell(self, run):
        left = run.memory["left"]
        return (
            ("Not removed " if run.problems else "Removed ")
            + f"{run.view[0]}."
            + (f" Other denies stay: {', '.join(left)}." if left else "")
        )


register("revoke-role-sessions", RevokeInstanceSessions, "ec2")
register("restore-role-sessions", RestoreInstanceSessions, "ec2")
register("revoke-role-sessions", RevokeFindingSessions, "account")
register("restore-role-sessions", RestoreFindingSessions, "account")
