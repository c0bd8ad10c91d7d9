"""Change sets of the double; test_stacks.py has what a deployment sees of them."""

import json

import pytest
from moto.core.exceptions import ServiceException  # noqa: F401

ACCOUNT, REGION = "111122223333", "us-west-2"
TEMPLATE = {
    "Parameters": {"Name": {"Type": "String"}, "Second": {"Type": "String", "Default": "no"}},
    "Conditions": {"Second": {"Fn::Equals": [{"Ref": "Second"}, "yes"]}},
    "Resources": {
        "First": {
            "Type": "AWS::SNS::Topic",
            "Properties": {"TopicName": {"Fn::Sub": "first-${Name}"}},
        },
        "Other": {
            "Type": "AWS::SNS::Topic",
            "Condition": "Second",
            "Properties": {"TopicName": "other"},
        },
    },
    "Outputs": {"Arn": {"Value": {"Ref": "First"}}},
}


@pytest.fixture
def cloudformation(cloud):
    cloud.reset()
    return cloud.client("cloudformation", ACCOUNT, REGION)


def change_set(cloudformation, kind, execute=True, template=TEMPLATE, **parameters):
    """Make one, execute it; (status, {resource: action})."""
    cloudformation.create_change_set(
        StackName="stack",
        ChangeSetName=f"a{len(cloudformation.list_change_sets(StackName='stack')['Summaries'])}",
        ChangeSetType=kind,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
    )
