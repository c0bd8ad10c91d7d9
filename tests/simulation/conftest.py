"""Fixtures for the tests of the simulation."""

import io
import zipfile

import pytest

from simulation.cloud import Cloud

ACCOUNT, REGION = "111122223333", "us-west-2"
ROLE = "function-role"


@pytest.fixture
def cloud():
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def make_function(cloud):
    """Creates a Lambda function from source: `make_function(name, {"main.py": source}, ...)`."""
    iam = cloud.client("iam", ACCOUNT, REGION)
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")

    def make(name, files, handler="main.run", **options):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as contents:
            for path, source in files.items():
                contents.writestr(path, source)
        return cloud.client("lambda", ACCOUNT, REGION).create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{ACCOUNT}:role/{ROLE}",
            Handler=handler,
            Code={"ZipFile": archive.getvalue()},
            **options,
        )["FunctionArn"]

    return make


@pytest.fixture
def make_rule(cloud):
    """Creates a rule that invokes a function: `make_rule(name, pattern text, function ARN)`."""
    events = cloud.client("events", ACCOUNT, REGION)

    def make(name, pattern, function_arn, permitted=True, **options):
        rule = events.put_rule(Name=name, EventPattern=pattern, **options)["RuleArn"]
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": function_arn}])
        if permitted:
            cloud.client("lambda", ACCOUNT, REGION).add_permission(
                FunctionName=function_arn,
                StatementId=name,
                Action="lambda:InvokeFunction",
                Principal="events.amazonaws.com",
                SourceArn=rule,
            )

    return make
