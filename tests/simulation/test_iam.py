"""The corrections of the IAM double. On plain moto each test must fail: see test_ec2.py."""

import contextlib
import json
from contextlib import nullcontext

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.iam.models import iam_backends

from simulation.cloudformation import no_value_is_no_element
from simulation.iam import corrected_iam, enforcing

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
moto_repaired = pytest.mark.xfail(strict=True, reason="moto differs from AWS here")
corrected_and_plain = pytest.mark.parametrize(
    "corrections",
    [
        pytest.param(corrected_iam, id="corrected"),
        pytest.param(nullcontext, id="plain-moto", marks=moto_repaired),
    ],
)


@pytest.fixture
def iam(corrections, monkeypatch):
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    with mock_aws(), corrections():
        iam = boto3.client("iam", **ACCOUNT)
        iam.create_role(RoleName="web", AssumeRolePolicyDocument="{}")
        yield iam


def document(size):
    """A policy document of so many characters without white space."""
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    missing = size - len(json.dumps(policy, separators=(",", ":")))
    statement["Resource"] += "x" * missing
    return json.dumps(policy, indent=8)


@corrected_and_plain
def test_an_instance_shows_the_id_of_its_profile(iam):
    made = iam.create_instance_profile(InstanceProfileName="web")["InstanceProfile"]
    ec2 = boto3.client("ec2", **ACCOUNT)
    subnet = ec2.create_subnet(
        VpcId=ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"], CidrBlock="10.0.0.0/24"
    )["Subnet"]["SubnetId"]
    instance = ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        IamInstanceProfile={"Name": "web"},
    )["Instances"][0]["InstanceId"]

    (shown,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]

    assert shown["IamInstanceProfile"] == {"Arn": made["Arn"], "Id": made["InstanceProfileId"]}


@corrected_and_plain
def test_the_inline_policies_of_a_role_have_a_quota_together(iam):
    iam.put_role_policy(RoleName="web", PolicyName="one", PolicyDocument=document(5120))
    iam.put_role_policy(RoleName="web", PolicyName="two", PolicyDocument=document(5120))
    iam.put_role_policy(RoleName="web", PolicyName="two", PolicyDocument=document(5119))

    with pytest.raises(ClientError, match="Maximum policy size of 10240 bytes") as refused:
        iam.put_role_policy(RoleName="web", PolicyName="two", PolicyDocument=document(5121))

    assert refused.value.response["Error"]["Code"] == "LimitExceeded"
    assert len(iam.get_role_policy(RoleName="web", PolicyName="two")["PolicyDocument"]) == 2


@contextlib.contextmanager
def corrected_stacks():
    with corrected_iam(), no_value_is_no_element():
        yield


STACK = """
Resources:
  Shared:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      ManagedPolicyName: shared
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {Effect: Allow, Action: "sns:ListTopics", Resource: "*"}
          - {Effect: Deny, Action: "ec2:*", Resource: "*"}
  Role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: stacked
      AssumeRolePolicyDocument: {}
      ManagedPolicyArns: [!Ref Shared, !Ref AWS::NoValue]
      Policies:
        - PolicyName: own
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - Effect: Allow
                Action: ["ec2:DescribeVpcs", "ec2:CreateVpc"]
                Resource: "arn:aws:ec2:*:*:vpc/*"
                Condition: {StringEquals: {"aws:TagKeys": x}}
"""


@pytest.mark.parametrize(
    "corrections",
    [
        pytest.param(corrected_stacks, id="corrected"),
        pytest.param(nullcontext, id="plain-moto", marks=moto_repaired),
    ],
)
def test_a_role_of_a_stack_has_its_policies_and_is_held_to_their_actions(iam):
    """By moto's enforcement, which without `enforcing` refuses all of it."""
    boto3.client("cloudformation", **ACCOUNT).create_stack(StackName="s", TemplateBody=STACK)
    attached = iam.list_attached_role_policies(RoleName="stacked")["AttachedPolicies"]
    assert [p["PolicyName"] for p in attached] == ["shared"]
    own = iam.get_role_policy(RoleName="stacked", PolicyName="own")["PolicyDocument"]
    assert own["Statement"][0]["Effect"] == "Allow"
    role = "arn:aws:iam::123456789012:role/stacked"
    keys = boto3.client("sts", **ACCOUNT).assume_role(RoleArn=role, RoleSessionName="test")
    keys = keys["Credentials"]
    session = boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], "us-west-2"
    )
    ec2 = session.client("ec2")
    with enforcing({"stacked"}):
        ec2.describe_vpcs()
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
        session.client("sns").list_topics()
        iam.list_roles()  # somebody else's
        with pytest.raises(ClientError, match="not authorized"):
            ec2.describe_subnets()
    with enforcing({"stacked"}, {"ec2:DescribeVpcs"}), pytest.raises(ClientError):
        ec2.describe_vpcs()
    ec2.describe_subnets()


@corrected_and_plain
def test_a_role_is_assumed_by_whom_it_trusts_and_who_may(iam, corrections):
    def session(role):
        keys = boto3.client("sts", **ACCOUNT).assume_role(RoleArn=role, RoleSessionName="test")
        key = keys["Credentials"]
        return boto3.Session(
            key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"], "us-west-2"
        )

    def statement(**more):
        allow = {"Effect": "Allow", "Action": "sts:AssumeRole", **more}
        return json.dumps({"Version": "2012-10-17", "Statement": [allow]})

    web = "arn:aws:iam::123456789012:role/web"
    wanted = "arn:aws:iam::444455556666:role/member"
    caller = session(web).client("sts")
    there = session("arn:aws:iam::444455556666:role/anybody").client("iam")  # made from nothing
    root = {"AWS": "arn:aws:iam::123456789012:root"}
    this = {"ArnEquals": {"aws:PrincipalArn": web}}
    other = {"ArnEquals": {"aws:PrincipalArn": f"{web}-2"}}
    document = {"RoleName": "member", "PolicyDocument": statement(Principal=root, Condition=this)}
    permission = {"RoleName": "web", "PolicyName": "members"}

    def is_refused():
        with pytest.raises(
            ClientError, match="AccessDenied.*sts:AssumeRole on resource: " + wanted
        ):
            caller.assume_role(RoleArn=wanted, RoleSessionName="test")
        return True

    assert is_refused()
    there.create_role(RoleName="member", AssumeRolePolicyDocument=document["PolicyDocument"])
    assert is_refused()
    iam.put_role_policy(PolicyDocument=statement(Resource="arn:aws:iam::*:role/mem*"), **permission)
    caller.assume_role(RoleArn=wanted, RoleSessionName="test")
    document["PolicyDocument"] = statement(Principal=root, Condition=other)
    there.update_assume_role_policy(**document)
    assert is_refused()


@corrected_and_plain
def test_roles_may_come_while_others_are_looked_at(iam):
    seen = iter(iam_backends["123456789012"]["aws"].get_roles())
    next(seen)
    iam.create_role(RoleName="new", AssumeRolePolicyDocument="{}")
    assert not list(seen)
