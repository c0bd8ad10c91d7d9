"""Deny everything to sessions of a role whose credentials are in the wrong hands; and the way back.

Credentials that have left an instance go on working wherever they are used, however well the
instance is isolated. They cannot be taken back, but permissions are looked at for each request:
an inline policy on the role denies everything to exactly the sessions meant.

- The session names an instance: EC2 names the sessions that it makes after the instance, and
  `aws:userid` of their requests is `<role id>:<instance id>`. Other instances with the role go on.
- It names none: every session issued before now is denied, as by "Revoke active sessions" of
  IAM's console, by `aws:TokenIssueTime`.

One policy for each incident, named after it: `forensic-deny-sessions-<instance id>` of an
isolated instance, `forensic-deny-sessions-<finding id>` of a credential finding. So two incidents
on one role never overwrite each other, and a revert removes exactly what its incident added. The
two policies may deny the same session; then it takes both reverts to lift that.

Limits. AWS says that it may take some minutes until a change of IAM is in force everywhere. What
the credentials did before stays done. Not stopped: sessions of other roles that were assumed with
these credentials, and what needs no permission (sts:GetCallerIdentity).

Sources, all under https://docs.aws.amazon.com/IAM/latest/UserGuide/:
id_roles_use_revoke-sessions (the deny, its time, service-linked roles);
id_credentials_temp_control-access_disable-perms (permissions are evaluated for each request; roles
of IAM Identity Center); reference_policies_variables (the value of aws:userid for each kind of
principal); reference_iam-quotas (10,240 characters of inline policies a role, white space not
counted). Nothing here was run against AWS.
"""

import json
import time
from datetime import UTC, datetime, timedelta

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.manager import resources
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions.finding import ENTITY_NAME, FINDING_ID, finding_id, role_session
from custom_actions.record import ROLE_POLICY, as_tags, from_tags, notified_key, tag_keys
from custom_actions.response import (
    FailUnlessComplete,
    ResponseAction,
    describe,
    error_code,
    retry,
    tags_of,
)

PREFIX = "forensic-deny-sessions-"

# Where the account's step leaves the role for notify-once, once it is known to be the right one.
ROLE = "c7n:role"

# Seconds before each look at the policy: IAM is eventually consistent.
READ_BACK_DELAYS = (0, 0.2, 0.5, 1, 2)

# As IAM's console does, so that a session issued before the deny is in force is denied too.
AHEAD = timedelta(seconds=30)

UNEDITABLE = {
    "/aws-service-role/": "is a service-linked role: only its service can change it, and its "
    "sessions cannot be revoked",
    "/aws-reserved/": "belongs to IAM Identity Center and cannot be edited in IAM: revoke the "
    "session there",
}


def deny_instance(role_id, instance_id):
    """The statement that denies the sessions which EC2 made for one instance."""
    return _deny({"StringEquals": {"aws:userid": f"{role_id}:{instance_id}"}})


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
        self.key = {"RoleName": role_name, "PolicyName": name}

    def statements(self):
        """Its statements; none when there is no such policy."""
        try:
            document = retry(self.iam.get_role_policy, **self.key)["PolicyDocument"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            return []
        found = document["Statement"]
        return found if isinstance(found, list) else [found]

    def put(self, statements):
        """Write it and read it back."""
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        retry(self.iam.put_role_policy, **self.key, PolicyDocument=document)
        self.read_back(statements)

    def delete(self):
        """Delete it, if it is there, and see that it is gone."""
        try:
            retry(self.iam.delete_role_policy, **self.key)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
        self.read_back([])

    def read_back(self, statements):
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            if self.statements() == statements:
                return
        raise PolicyExecutionError(
            "IAM still shows policy {PolicyName} of role {RoleName} as it was".format(**self.key)
        )


def pack_policies(iam, role_name):
    """The names of this pack's policies on a role."""
    pages = iam.get_paginator("list_role_policies").paginate(RoleName=role_name)
    names = retry(lambda: [name for page in pages for name in page["PolicyNames"]])
    return [name for name in names if name.startswith(PREFIX)]


class Revocation:
    """What the two `revoke-role-sessions` share: the deny on a role that is known to be right."""

    def revoke(self, role, instance_id, incident, record=lambda policy: None):
        """Deny the sessions of one instance, or the older ones when `instance_id` is None.

        role: RoleName, RoleId and Path as IAM shows them. incident: the end of the policy's name.
        record: called with the policy's name before the change; returns None or what failed.
        """
        name = PREFIX + incident
        self.refuse_uneditable(role)
        policy = InlinePolicy(self.client("iam"), role["RoleName"], name)
        present = policy.statements()
        if instance_id:
            wanted = deny_instance(role["RoleId"], instance_id)
            denied = wanted in present
        else:
            # The first time of an incident stays: an update of a finding does not move it.
            earlier = next((s for s in present if issued_before(s)), None)
            wanted, denied = earlier or deny_older(datetime.now(UTC) + AHEAD), earlier is not None
        about = {
            "role": role["RoleName"],
            "policy": name,
            "instance": instance_id,
            "issued_before": issued_before(wanted),
        }
        whom = self.whom(**about)
        if self.dryrun and not denied:
            return self.outcome(
                "planned", f"Would deny everything to {whom}", revoked=False, **about
            )
        failure = None if self.dryrun else record(name)
        if not denied:
            try:
                policy.put([*present, wanted])
            except (ClientError, PolicyExecutionError) as error:
                return self.refused(error, about, failure)
        return self.outcome(
            "failed" if failure else "unchanged" if denied else "done",
            ("Already so: e" if denied else "E") + f"verything is denied to {whom}",
            error=failure,
            facts=[f"{role['RoleName']}/{name}:{'not-recorded' if failure else 'denied'}"],
            revoked=True,
            verified_at=datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
        )

    def whom(self, role, policy, instance, issued_before):
        """Whom the deny hits, as the rest of a sentence of at most 250 characters."""
        if instance:
            return (
                f"sessions of {instance} with role {role}, wherever they are used; other "
                f"instances with the role go on. Policy {policy}."
            )
        return (
            f"EVERY session of role {role} issued before {issued_before}, not only the stolen "
            f"one: the finding names no instance. Policy {policy}."
        )

    def refuse_uneditable(self, role):
        for path, reason in UNEDITABLE.items():
            if role["Path"].startswith(path):
                raise PolicyExecutionError(f"role {role['RoleName']} {reason}")

    def refused(self, error, about, failure):
        """The outcome when IAM does not take the policy, or does not show it afterwards."""
        reasons = {
            "LimitExceeded": "Its inline policies are at IAM's limit of 10,240 characters: make "
            "room, or deny the sessions by hand in a managed policy.",
            "UnmodifiableEntity": "Nobody but the service that it belongs to can change it.",
        }
        code = error_code(error)
        return self.outcome(
            "failed",
            f"IAM does not show that the sessions of role {about['role']} are denied. "
            f"{reasons.get(code, '')}".strip(),
            error="; ".join([describe(error), *([failure] if failure else [])]),
            facts=[f"{about['role']}/{about['policy']}:{code}"],
            revoked=False,
            **about,
        )


@EC2.action_registry.register("revoke-role-sessions")
class RevokeInstanceSessions(Revocation, ResponseAction):
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
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - revoke-role-sessions
              - fail-unless-complete

    No arguments. The outcome has besides `revoked` (true only when the policy was read back),
    `role`, `policy`, `instance`, `issued_before` (None here) and `verified_at`. An instance
    without a profile, or whose profile has no role, is `unchanged`; a terminated one without a
    profile is `skipped`, since what it had is not known. Dry run: reads, changes
    nothing.

    IAM: iam:GetInstanceProfile, iam:GetRolePolicy and iam:PutRolePolicy, besides ec2:CreateTags.
    No condition key of IAM limits PutRolePolicy to deny policies: deny it for the response's own
    role.

    Limits: only the role that the profile has now; credentials of a role that the instance had
    before go on working. See the module for what a deny does not stop.
    """

    schema = type_schema("revoke-role-sessions")
    permissions = (
        "iam:GetInstanceProfile",
        "iam:GetRolePolicy",
        "iam:PutRolePolicy",
        "ec2:CreateTags",
    )

    def respond(self, instance, event):
        profile = instance.get("IamInstanceProfile")
        if not profile and instance["State"]["Name"] == "terminated":
            return self.outcome(
                "skipped",
                "The instance is terminated and EC2 shows no instance profile any more. If it had "
                "one, credentials that left it work until they expire: revoke by hand.",
            )
        if not profile:
            return self.outcome("unchanged", "EC2 shows no instance profile: no role to revoke.")
        name = profile["Arn"].rpartition("/")[2]
        found = retry(self.client("iam").get_instance_profile, InstanceProfileName=name)
        found = found["InstanceProfile"]
        if found["InstanceProfileId"] != profile["Id"]:
            raise PolicyExecutionError(
                f"instance profile {name} was made again since the instance got it: its role may "
                "not be that of the instance"
            )
        if not found["Roles"]:
            return self.outcome("unchanged", f"Instance profile {name} has no role.")
        (role,) = found["Roles"]  # IAM allows no more than one
        return self.revoke(
            role,
            instance["InstanceId"],
            instance["InstanceId"],
            lambda policy: self.record(instance, f"{role['RoleName']}/{policy}"),
        )

    def record(self, instance, entry):
        """Add the policy to the instance's record, unless it is there; returns what failed."""
        recorded = from_tags(tags_of(instance), ROLE_POLICY) or []
        if entry in recorded:
            return None
        try:
            retry(
                self.client().create_tags,
                Resources=[instance["InstanceId"]],
                Tags=as_tags(ROLE_POLICY, [*recorded, entry]),
            )
        except ClientError as error:
            self.log.error("not recorded on %s: inline policy %s", instance["InstanceId"], entry)
            return f"inline policy {entry} could not be recorded on the instance: {describe(error)}"
        return None


class RevokeFindingSessions(Revocation, ResponseAction):
    """Denies everything to the role session that a credential finding names.

    Role and session come from the finding (`accessKeyDetails`); nothing is done unless IAM has a
    role of that name with that very id. A session named after an instance is denied alone. Any
    other session is denied by time: every session of the role issued before now (and half a
    minute more, as IAM's console has it), so **everybody else with the role is hit as well**.
    People and programs have to assume the role again. Instances with the role are denied until
    EC2 gives them new credentials; AWS documents no more than that these come at least five
    minutes before the old ones expire.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-revoke-stolen-sessions
            resource: account
            mode:
              type: guard-duty
              role: guardduty-response
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
    `role`, `policy`, `instance` or `issued_before`, and `verified_at`. An update of the finding
    changes nothing: the time does not move. A new finding adds a policy of its own. Failed, with
    the reason: a role that cannot be edited (service-linked, of IAM Identity Center), inline
    policies at their limit. Dry run: reads, changes nothing.

    IAM: iam:GetRole, iam:GetRolePolicy, iam:PutRolePolicy.

    Limits: a thief who can assume the role anew gets a session that is not denied; close that
    way, which is in the role's trust policy. See the module for what a deny does not stop.
    """

    schema = type_schema("revoke-role-sessions")
    permissions = ("iam:GetRole", "iam:GetRolePolicy", "iam:PutRolePolicy")

    def respond(self, account, event):
        session = role_session(event, account["account_id"])
        incident = finding_id(event)
        role = self.role_of(session)
        account[ROLE] = {"RoleName": role["RoleName"], "Tags": role.get("Tags") or []}
        return self.revoke(role, session.instance_id, incident)

    def role_of(self, session):
        try:
            role = retry(self.client("iam").get_role, RoleName=session.role_name)["Role"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            raise PolicyExecutionError(f"IAM knows no role {session.role_name}") from None
        if role["RoleId"] != session.role_id:
            raise PolicyExecutionError(
                f"the finding is about role id {session.role_id}, but the role called "
                f"{session.role_name} is {role['RoleId']}. Nothing was changed"
            )
        return role


@EC2.action_registry.register("restore-role-sessions")
class RestoreInstanceSessions(ResponseAction):
    """Removes the inline policy that `revoke-role-sessions` put on the role of an instance.

    It removes what is recorded on the instance and nothing else, and only a policy that is named
    after this instance: whoever may tag the instance cannot have other policies removed. Denies
    of credential findings stay and are named.

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
    iam:ListRolePolicies, besides ec2:DescribeTags and ec2:DeleteTags.

    Limit: the record ends with the instance; of a terminated one remove the policy by hand, or
    leave it: it denies nobody else.
    """

    schema = type_schema("restore-role-sessions")
    permissions = (
        "ec2:DescribeTags",
        "iam:DeleteRolePolicy",
        "iam:GetRolePolicy",
        "iam:ListRolePolicies",
        "ec2:DeleteTags",
    )

    def respond(self, instance, event):
        client, iam, instance_id = self.client(), self.client("iam"), instance["InstanceId"]
        shown = retry(
            client.describe_tags,
            Filters=[
                {"Name": "resource-id", "Values": [instance_id]},
                {"Name": "key", "Values": [f"{ROLE_POLICY}*"]},
            ],
        )
        tags = tags_of(shown)
        recorded = from_tags(tags, ROLE_POLICY)
        if not recorded:
            return self.outcome("unchanged", "Nothing to revert: no session was revoked.")
        if self.dryrun:
            return self.outcome("planned", f"Would remove {', '.join(recorded)}.")
        errors, left = [], []
        for entry in recorded:
            role_name, _, policy = entry.partition("/")
            try:
                if policy != PREFIX + instance_id or not ENTITY_NAME.fullmatch(role_name):
                    raise PolicyExecutionError("is not a policy that this pack made for it")
                InlinePolicy(iam, role_name, policy).delete()
                left += [f"{role_name}/{name}" for name in self.others(iam, role_name)]
            except (ClientError, PolicyExecutionError) as error:
                errors.append(f"{entry}: {describe(error)}")
        if not errors:
            retry(
                client.delete_tags,
                Resources=[instance_id],
                Tags=[{"Key": key} for key in tag_keys(tags, ROLE_POLICY)],
            )
        return self.outcome(
            "failed" if errors else "done",
            ("Not removed everything of " if errors else "Removed ")
            + ", ".join(recorded)
            + (f". Other denies stay: {', '.join(left)}." if left else "."),
            error="; ".join(errors) or None,
        )

    def others(self, iam, role_name):
        try:
            return pack_policies(iam, role_name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            return []  # the role is gone, and its policies with it


class RestoreFindingSessions(ResponseAction):
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

    def respond(self, account, event):
        role_name, finding = self.data["role"], self.data["finding"]
        if not ENTITY_NAME.fullmatch(role_name) or not FINDING_ID.fullmatch(finding):
            raise PolicyExecutionError(f"role {role_name!r}, finding {finding!r}: not well-formed")
        iam = self.client("iam")
        policy = InlinePolicy(iam, role_name, PREFIX + finding)
        if not policy.statements():
            others = ", ".join(pack_policies(iam, role_name)) or "none"
            return self.outcome(
                "unchanged",
                f"Nothing to revert: role {role_name} has no policy {PREFIX}{finding}. "
                f"Policies of this pack on it: {others}.",
            )
        if self.dryrun:
            return self.outcome("planned", f"Would remove {role_name}/{PREFIX}{finding}.")
        policy.delete()
        retry(iam.untag_role, RoleName=role_name, TagKeys=[notified_key(finding)])
        others = ", ".join(pack_policies(iam, role_name))
        return self.outcome(
            "done",
            f"Removed {role_name}/{PREFIX}{finding}."
            + (f" Other denies stay: {others}." if others else ""),
        )


def _register(registry, resource_class):
    # See custom_actions/headline.py for why not by decorators.
    if resource_class.type == "account":
        actions = resource_class.action_registry
        actions.register("revoke-role-sessions", RevokeFindingSessions)
        actions.register("restore-role-sessions", RestoreFindingSessions)
        actions.register("fail-unless-complete", FailUnlessComplete)


resources.subscribe(_register)
