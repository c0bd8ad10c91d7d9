"""The corrections of change sets. On plain moto each test must fail: see test_ec2.py.

What a deployment sees of them is in tests/deployment/test_stacks.py.
"""

import itertools
import json
from contextlib import nullcontext

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from simulation.change_sets import UNCHANGED, corrected_change_sets

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
corrected_and_plain = pytest.mark.parametrize(
    "corrections",
    [
        pytest.param(corrected_change_sets, id="corrected"),
        pytest.param(
            nullcontext,
            id="plain-moto",
            marks=pytest.mark.xfail(strict=True, reason="moto differs from AWS here"),
        ),
    ],
)
TOPIC = {"Type": "AWS::SNS::Topic"}
TEMPLATE = {
    "Parameters": {"Name": {"Type": "String"}, "More": {"Type": "String", "Default": "no"}},
    "Conditions": {"More": {"Fn::Equals": [{"Ref": "More"}, "yes"]}},
    "Resources": {
        "First": TOPIC | {"Properties": {"DisplayName": {"Fn::Sub": "by ${Name}"}}},
        "Other": TOPIC | {"Condition": "More", "Properties": {"TopicName": "other"}},
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {"RoleName": "web", "AssumeRolePolicyDocument": {}},
        },
    },
    "Outputs": {"Name": {"Value": {"Fn::Sub": "${Name}!"}}},
}
numbers = itertools.count()


@pytest.fixture
def run(corrections):
    """`run(kind, **parameters)`: make a change set and execute it; (status and reason of the
    change set, {resource: action, Replacement, names of properties}, the stack)."""
    with mock_aws(), corrections():
        aws = boto3.client("cloudformation", **ACCOUNT)

        def change_set(kind, template=TEMPLATE, execute=True, **parameters):
            name = {"StackName": "stack", "ChangeSetName": f"a{next(numbers)}"}
            aws.create_change_set(
                **name,
                ChangeSetType=kind,
                TemplateBody=json.dumps(template),
                Parameters=[
                    {"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()
                ],
            )
            made = aws.describe_change_set(**name)
            changes = {
                change["LogicalResourceId"]: (
                    change["Action"],
                    change.get("Replacement"),
                    [detail["Target"]["Name"] for detail in change.get("Details", ())],
                )
                for change in (c["ResourceChange"] for c in made.get("Changes", ()))
            }
            if execute:
                aws.execute_change_set(**name)
            (stack,) = aws.describe_stacks(StackName="stack")["Stacks"]
            return (made["Status"], made.get("StatusReason")), changes, stack

        yield change_set


ADD = ("Add", None, [])


@corrected_and_plain
def test_what_a_parameter_changes_is_shown_and_done(run):
    _, changes, stack = run("CREATE", Name="one")
    assert changes == {"First": ADD, "Role": ADD}
    assert stack["Outputs"][0]["OutputValue"] == "one!"

    _, changes, stack = run("UPDATE", Name="two", More="yes")

    assert changes == {"First": ("Modify", "False", []), "Other": ADD}
    assert stack["Outputs"][0]["OutputValue"] == "two!"
    topics = boto3.client("sns", **ACCOUNT).list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":other") for topic in topics)
    _, changes, _ = run("UPDATE", Name="two", More="no", execute=False)
    assert changes == {"Other": ("Remove", None, [])}


@corrected_and_plain
def test_another_name_is_another_resource(run):
    run("CREATE", Name="one")
    renamed = json.loads(json.dumps(TEMPLATE).replace('"web"', '"www"'))
    _, changes, _ = run("UPDATE", renamed, execute=False, Name="one")
    assert changes == {"Role": ("Modify", "True", ["RoleName"])}


@corrected_and_plain
def test_without_a_change_there_is_no_change_set_to_execute(run):
    run("CREATE", Name="one")
    made, changes, _ = run("UPDATE", execute=False, Name="one", More="no")
    assert made == ("FAILED", UNCHANGED) and changes == {}


@corrected_and_plain
def test_what_fails_is_rolled_back_and_named(run):
    iam = boto3.client("iam", **ACCOUNT)
    iam.create_role(RoleName="web", AssumeRolePolicyDocument="{}")

    try:
        _, _, stack = run("CREATE", Name="one")
    except ClientError as error:
        pytest.fail(f"the call itself fails: {error}")

    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    events = boto3.client("cloudformation", **ACCOUNT).describe_stack_events(StackName="stack")
    failed = [e for e in events["StackEvents"] if e["ResourceStatus"] == "CREATE_FAILED"]
    assert failed[-1]["LogicalResourceId"] == "Role"
    assert "already exists" in failed[-1]["ResourceStatusReason"]
