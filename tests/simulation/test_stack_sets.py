"""The corrections of StackSets. On plain moto each test must fail: see test_ec2.py."""

import json
from contextlib import nullcontext

import boto3
import pytest
from moto import mock_aws

from simulation.stack_sets import corrected_stack_sets

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
corrected_and_plain = pytest.mark.parametrize(
    "corrections",
    [
        pytest.param(corrected_stack_sets, id="corrected"),
        pytest.param(
            nullcontext,
            id="plain-moto",
            marks=pytest.mark.xfail(strict=True, reason="moto differs from AWS here"),
        ),
    ],
)
CHIEF = "123456789012"
NAME = {"StackSetName": "set"}
ROLE = {
    "Type": "AWS::IAM::Role",
    "Properties": {"RoleName": "web", "AssumeRolePolicyDocument": {}},
}
TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "topic"}}


@pytest.fixture
def aws(corrections):
    """CloudFormation and the id of the root, which has the management account and one member."""
    with mock_aws(), corrections():
        organizations = boto3.client("organizations", **ACCOUNT)
        organizations.create_organization(FeatureSet="ALL")
        organizations.create_account(AccountName="a", Email="somebody@example.com")
        yield (
            boto3.client("cloudformation", **ACCOUNT),
            organizations.list_roots()["Roots"][0]["Id"],
        )


def made(aws, resources):
    """A StackSet of these resources in all accounts; ({account: result}, {account: instance})."""
    cloudformation, root = aws
    cloudformation.create_stack_set(
        **NAME,
        TemplateBody=json.dumps({"Resources": resources}),
        PermissionModel="SERVICE_MANAGED",
        AutoDeployment={"Enabled": True, "RetainStacksOnAccountRemoval": True},
    )
    targets = {"OrganizationalUnitIds": [root]}
    done = cloudformation.create_stack_instances(
        **NAME, DeploymentTargets=targets, Regions=["us-west-2"]
    )
    return outcome(cloudformation, done["OperationId"])


def outcome(cloudformation, operation):
    results = cloudformation.list_stack_set_operation_results(**NAME, OperationId=operation)
    instances = cloudformation.list_stack_instances(**NAME)
    return tuple({one["Account"]: one for one in got["Summaries"]} for got in (results, instances))


@corrected_and_plain
def test_it_shows_its_units_regions_and_automatic_deployment(aws):
    made(aws, {"Topic": TOPIC})
    shown = aws[0].describe_stack_set(**NAME)["StackSet"]
    assert shown["OrganizationalUnitIds"] == [aws[1]] and shown["Regions"] == ["us-west-2"]
    assert shown["AutoDeployment"]["RetainStacksOnAccountRemoval"] is True


@corrected_and_plain
def test_the_management_account_gets_no_stack_and_the_results_are_of_the_others(aws):
    results, instances = made(aws, {"Topic": TOPIC})
    assert CHIEF not in instances and len(instances) == 1 and set(results) == set(instances)


@corrected_and_plain
def test_one_that_fails_says_why_and_an_update_mends_and_reaches_it(aws):
    cloudformation, _ = aws
    results, instances = made(aws, {"Role": ROLE, "Same": ROLE})
    (result,), (instance,) = results.values(), instances.values()
    assert result["Status"] == "FAILED" and "already exists" in result["StatusReason"]
    assert instance["Status"] == "OUTDATED" and "already exists" in instance["StatusReason"]

    topic = json.dumps({"Resources": {"Topic": TOPIC}})
    done = cloudformation.update_stack_set(**NAME, TemplateBody=topic, OperationId="one")

    results, instances = outcome(cloudformation, done["OperationId"])
    assert [i["Status"] for i in instances.values()] == ["CURRENT"]
    assert [r["Status"] for r in results.values()] == ["SUCCEEDED"]
