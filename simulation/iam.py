"""The IAM double: where moto 5.2.5 differs from IAM in what this pack reads and writes.

The rule is that of simulation/ec2.py: each correction says what moto does, what AWS does and the
source, and its test fails on plain moto. Nothing here was run against AWS.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterator
from unittest import mock

from moto.core.authorization import enable_iam_authentication
from moto.core.exceptions import AccessDeniedError
from moto.core.responses import BaseResponse
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociation
from moto.iam.access_control import IAMPolicyStatement, IAMRequest, PermissionResult
from moto.iam.exceptions import LimitExceededException
from moto.iam.models import IAMBackend, ManagedPolicy, Role, iam_backends
from moto.sts.models import sts_backends
from moto.sts.responses import TokenResponse
from moto.utilities.utils import get_partition

from . import policies
from .organizations import organization_of

ROLE_POLICY_SIZE = 10240
ORGANIZATION = "o-simulation0"


@contextlib.contextmanager
def corrected_iam() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        roles_may_come_while_others_are_looked_at(),
        instances_show_the_id_of_their_profile(),
        inline_policies_have_a_quota(),
        roles_decide_who_assumes_them(),
        stacks_give_roles_their_policies(),
        stacks_change_managed_policies(),
    ):
        yield


def roles_may_come_while_others_are_looked_at():
    """At each call of any service moto goes through all roles for the one that calls.

    A role that another thread makes meanwhile is an error 500 of that call; AWS gives none.
    """
    return mock.patch.object(IAMBackend, "get_roles", lambda self: list(self.roles.values()))


def instances_show_the_id_of_their_profile():
    """DescribeInstances shows the id of the instance profile.

    moto shows the id of the association. EC2: `IamInstanceProfile.Id` is "the ID of the instance
    profile" (API, IamInstanceProfile), which IAM calls InstanceProfileId.
    """
    create = IamInstanceProfileAssociation.__init__

    def __init__(self, *args, **kwargs):
        create(self, *args, **kwargs)
        profile = self.iam_instance_profile
        self.ec2_backend.modify_instance_attribute(
            self.instance_id, "iam_instance_profile", {"Arn": profile.arn, "Id": profile.id}
        )

    return mock.patch.object(IamInstanceProfileAssociation, "__init__", __init__)


def inline_policies_have_a_quota():
    """The inline policies of a role hold 10,240 characters together, white space not counted.

    moto takes any size. IAM: LimitExceeded, "Maximum policy size of 10240 bytes exceeded for role
    NAME" (quota: IAM user guide, "IAM and AWS STS quotas"; message reported).
    """
    put = IAMBackend.put_role_policy

    def put_role_policy(self, role_name, policy_name, policy_json):
        others = {k: v for k, v in self.get_role(role_name).policies.items() if k != policy_name}
        if sum(map(_size, [*others.values(), policy_json])) > ROLE_POLICY_SIZE:
            raise LimitExceededException(
                f"Maximum policy size of {ROLE_POLICY_SIZE} bytes exceeded for role {role_name}"
            )
        return put(self, role_name, policy_name, policy_json)

    return mock.patch.object(IAMBackend, "put_role_policy", put_role_policy)


def roles_decide_who_assumes_them():
    """AssumeRole needs the trust of the role and the permission of the caller.

    moto lets everybody assume every role, one too that does not exist. STS: AccessDenied. Here this
    holds for callers whose own role exists; the others (administrators, who deploys) were made from
    nothing. Of their policies the inline ones count. Without an organisation all are in one.
    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    """
    assume = TokenResponse.assume_role

    def assume_role(self):
        wanted, partition = self._get_param("RoleArn"), get_partition(self.region)
        issued = sts_backends[self.current_account][partition]
        caller = issued.get_assumed_role_from_access_key(self.access_key)
        role = caller and _role(caller.role_arn)
        if role:
            target, organization = _role(wanted), organization_of(self.current_account)
            context = {
                "aws:PrincipalArn": role.arn,
                "aws:PrincipalOrgID": organization or ORGANIZATION,
                "aws:ResourceOrgID": organization or ORGANIZATION,
                # Cloud names the session of a function so
                "lambda:SourceFunctionArn": f"arn:{partition}:lambda:{self.region}:"
                f"{self.current_account}:function:{caller.session_name}",
            }
            request = policies.Request("sts:AssumeRole", wanted, role.arn, context)
            trust = json.loads(target.assume_role_policy_document) if target else {}
            trusting = [s | {"Resource": wanted} for s in trust.get("Statement", ())]
            permitting = [
                s | {"Principal": "*"}
                for policy in role.policies.values()
                for s in policies.listed(json.loads(policy)["Statement"])
            ]
            if not all(
                policies.effect({"Statement": statements}, request) == "Allow"
                for statements in (trusting, permitting)
            ):
                raise AccessDeniedError(caller.arn, f"sts:AssumeRole on resource: {wanted}")
        return assume(self)

    return mock.patch.object(TokenResponse, "assume_role", assume_role)


def _role(arn: str) -> Role | None:
    _, partition, _, _, account_id, name = arn.split(":", 5)
    roles = iam_backends[account_id][partition].roles.values()
    return next((role for role in roles if role.arn == arn), None)


def stacks_give_roles_their_policies():
    """A role of a CloudFormation stack has the policies of `ManagedPolicyArns` and `Policies`.

    moto passes over the first, keeps the second in a form of which its own enforcement makes
    nothing, at an update changes neither, and deletes no role that has one of the first. https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-iam-role.html
    """
    create = Role.create_from_cloudformation_json.__func__
    delete = Role.delete_from_cloudformation_json.__func__

    def give(role, properties, account_id, region):
        backend = iam_backends[account_id][get_partition(region)]
        role.policies = {
            p["PolicyName"]: json.dumps(p["PolicyDocument"]) for p in properties.get("Policies", ())
        }
        wanted = properties.get("ManagedPolicyArns", ())
        for arn in set(role.managed_policies) - set(wanted):
            backend.detach_role_policy(arn, role.name)
        for arn in wanted:
            backend.attach_role_policy(arn, role.name)
        return role

    def create_from_cloudformation_json(cls, name, template, account_id, region, **kwargs):
        role = create(cls, name, template, account_id, region, **kwargs)
        return give(role, template["Properties"], account_id, region)

    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        properties = cloudformation_json["Properties"]
        return give(original_resource, properties, account_id, region_name)

    def delete_from_cloudformation_json(cls, name, template, account_id, region):
        role = iam_backends[account_id][get_partition(region)].get_role(name)
        give(role, {}, account_id, region)
        delete(cls, name, template, account_id, region)

    return mock.patch.multiple(
        Role,
        delete_from_cloudformation_json=classmethod(delete_from_cloudformation_json),
        create_from_cloudformation_json=classmethod(create_from_cloudformation_json),
        update_from_cloudformation_json=classmethod(update_from_cloudformation_json),
    )


def stacks_change_managed_policies():
    """An update of a managed policy in a stack gives it another document.

    moto forgets the policy. CloudFormation updates PolicyDocument without interruption:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-iam-managedpolicy.html
    """

    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        backend = iam_backends[account_id][get_partition(region_name)]
        document = json.dumps(cloudformation_json["Properties"]["PolicyDocument"])
        backend.create_policy_version(original_resource.arn, document, True)
        return original_resource

    return mock.patch.object(
        ManagedPolicy,
        "update_from_cloudformation_json",
        classmethod(update_from_cloudformation_json),
    )


@contextlib.contextmanager
def enforcing(roles: Collection[str], without: Collection[str] = ()) -> Iterator[None]:
    """Have moto refuse what these roles may not do, by the names of actions alone.

    roles: names; what anybody else calls is not looked at. without: actions (`ec2:CreateTags`) that
    the roles lack meanwhile.

    Of the rest of a statement moto's own enforcement makes something else than IAM: one of EC2 or
    SNS that names a resource never applies, a condition is never met, and the signature of a call
    in REST is calculated wrongly. So an Allow counts here as if it had `Resource: "*"` and no
    condition, and a Deny does not count. tests/test_iam_language.py looks at those.
    """
    authorize = BaseResponse._authenticate_and_authorize_normal_action

    def only_of_roles(self, resource="*"):
        issued = sts_backends[self.current_account][get_partition(self.region)]
        role = issued.get_assumed_role_from_access_key(self.access_key)
        if role and role.role_arn.rpartition("/")[2] in roles:
            authorize(self)

    def is_action_permitted(self, action, *_):
        action = re.sub("^tagging:", "tag:", action)  # moto goes by the name of the endpoint
        if self._statement["Effect"] != "Allow" or action in without:
            return PermissionResult.NEUTRAL
        allowed = self._check_element_matches("Action", action)
        return PermissionResult.PERMITTED if allowed else PermissionResult.NEUTRAL

    with (
        enable_iam_authentication(),
        mock.patch.object(BaseResponse, "_authenticate_and_authorize_normal_action", only_of_roles),
        mock.patch.object(IAMRequest, "check_signature"),
        mock.patch.object(IAMPolicyStatement, "is_action_permitted", is_action_permitted),
    ):
        yield


def _size(policy: str) -> int:
    return len(json.dumps(json.loads(policy), separators=(",", ":")))
