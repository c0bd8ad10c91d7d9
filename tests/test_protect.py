"""infra/protect.yml: a service control policy that IAM would take, and what it denies to whom.

moto enforces none; `denies` reads the little of IAM's language that it is written in.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import boto3
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACCOUNT = "111122223333"
VALUES = {"AWS::Partition": "aws", "TargetIds": ["ou-1"]}
MOST = 5120  # characters; https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms, resolved with VALUES and the defaults of the parameters."""


def sub(loader, node):
    return re.sub(r"\$\{([\w:]+)\}", lambda match: VALUES[match[1]], node.value)


def split(loader, node):
    separator, text = loader.construct_sequence(node, deep=True)
    return text.split(separator)


Loader.add_constructor("!Sub", sub)
Loader.add_constructor("!Split", split)
Loader.add_constructor("!Ref", lambda loader, node: VALUES[node.value])
TEXT = (ROOT / "infra" / "protect.yml").read_text()
# the parameters stand first, and have no short forms
PARAMETERS = yaml.safe_load(TEXT[: TEXT.index("Resources:")])["Parameters"]
VALUES |= {name: found["Default"] for name, found in PARAMETERS.items() if "Default" in found}
POLICY = yaml.load(TEXT, Loader)["Resources"]["Protection"]["Properties"]["Content"]
STATEMENTS = {statement["Sid"]: statement for statement in POLICY["Statement"]}


def listed(value):
    return [value] if isinstance(value, str) else value


def applies(operator, patterns, value):
    """value: that of the request, a list for a key of many values, None where there is none."""
    if operator == "Null":
        return (value is None) == (patterns == "true")
    found = [fnmatchcase(v, p) for v in listed(value or []) for p in listed(patterns)]
    holds = {"ArnNotLike": not any(found)}
    return holds.get(operator, any(found))  # ForAnyValue:StringLike, StringEquals


def denies(action, resource, role, keys=None):
    """The Sids of the statements that deny a role's call; keys: of the tags in it, or the value of
    the mail key's tag on the resource."""
    request = {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/{role}", "aws:TagKeys": keys}
    request["aws:ResourceTag/guardduty-response:mail-key"] = keys
    return [
        sid
        for sid, statement in STATEMENTS.items()
        if action in listed(statement["Action"])
        and any(fnmatchcase(resource, p) for p in listed(statement["Resource"]))
        and all(
            applies(operator, patterns, request[key])
            for operator, tests in statement["Condition"].items()
            for key, patterns in tests.items()
        )
    ]


INSTANCE = f"arn:aws:ec2:us-west-2:{ACCOUNT}:instance/i-0abc1234def567890"
FUNCTION = f"arn:aws:lambda:us-west-2:{ACCOUNT}:function:custodian-ec2-isolate"
RULE = f"arn:aws:events:us-west-2:{ACCOUNT}:rule/custodian-ec2-isolate"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/guardduty-response-ec2-isolate"
QUEUE = f"arn:aws:sqs:us-west-2:{ACCOUNT}:guardduty-response-dlq"
MAILER = FUNCTION.replace("custodian-ec2-isolate", "guardduty-response-mailer")
MAIL = QUEUE.replace("dlq", "mail")
ALARM = f"arn:aws:cloudwatch:us-west-2:{ACCOUNT}:alarm:guardduty-response-mail-late"
HEARTBEAT = f"arn:aws:scheduler:us-west-2:{ACCOUNT}:schedule/default/guardduty-response-heartbeat"
KEY = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012"
TELL = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-tell"
ALL = "guardduty-response-ec2-isolate custodian-deploy responder"
MARK, NAME = ["Name", "forensic:exempt"], ["Name"]


@pytest.mark.parametrize(
    "action, resource, keys, allowed",
    [
        ("ec2:CreateTags", INSTANCE, MARK, ALL),
        ("ec2:DeleteTags", INSTANCE, MARK, ALL),
        ("ec2:DeleteTags", INSTANCE, None, ALL),
        ("iam:TagRole", f"arn:aws:iam::{ACCOUNT}:role/web", MARK, "guardduty-response-x responder"),
        ("lambda:UpdateFunctionCode", FUNCTION, None, "custodian-deploy"),
        ("lambda:UpdateFunctionCode", MAILER, None, "custodian-deploy"),
        ("lambda:InvokeFunction", f"{FUNCTION}:7", None, "custodian-deploy responder"),
        ("sqs:ReceiveMessage", MAIL, None,
         "custodian-deploy responder guardduty-response-mailer"),
        ("lambda:DeleteFunctionConcurrency", FUNCTION, None,
         "custodian-deploy guardduty-response-response-guard"),
        ("events:EnableRule", RULE, None, "custodian-deploy guardduty-response-response-guard"),
        ("events:DisableRule", RULE, None, "custodian-deploy"),
        ("sqs:PurgeQueue", QUEUE, None, "custodian-deploy"),
        ("cloudwatch:DeleteAlarms", ALARM, None, "custodian-deploy"),
        ("scheduler:UpdateSchedule", HEARTBEAT, None, "custodian-deploy"),
        ("iam:CreatePolicyVersion", TELL, None, "custodian-deploy"),
        ("iam:PassRole", ROLE, None, "custodian-deploy"),
        ("iam:CreateRole", ROLE + "-x", None, "custodian-deploy stacksets-exec-0123abcd"),
        ("iam:PutRolePolicy", ROLE, None, "custodian-deploy stacksets-exec-0123abcd"),
        ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/stacksets-exec-0", None,
         "custodian-deploy"),
        ("kms:ScheduleKeyDeletion", KEY, "yes", "custodian-deploy"),
        ("kms:UntagResource", KEY, "yes", "custodian-deploy"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() else "",
)  # fmt: skip
def test_the_pack_and_its_people_may_and_nobody_else(action, resource, keys, allowed):
    assert [denies(action, resource, role, keys) for role in allowed.split()] == [
        [] for _ in allowed.split()
    ]
    for stranger in ("Developer", "x/custodian-deploy", "custodian-deploy-x", "Responder"):
        assert denies(action, resource, stranger, keys), stranger
    if action.split(":")[0] != "ec2" and "iam:Tag" not in action:
        assert denies(action, resource, "guardduty-response-ec2-isolate", keys)


def test_what_is_not_the_packs_is_everybodys():
    assert not denies("ec2:CreateTags", INSTANCE, "Developer", NAME)
    assert not denies("ec2:DeleteTags", INSTANCE, "Developer", NAME)
    assert not denies("lambda:UpdateFunctionCode", FUNCTION.replace("custodian-", ""), "Developer")
    assert not denies("events:DisableRule", RULE.replace("ec2-isolate", "tags"), "Developer")
    assert not denies("iam:PassRole", ROLE.replace("guardduty-response", "web"), "Developer")
    assert not denies("kms:ScheduleKeyDeletion", KEY, "Developer")


def test_every_function_of_a_deploy_is_protected_with_its_rule():
    deployed = {
        policy["name"]
        for path in (ROOT / "policies").glob("*.yml")
        for policy in yaml.safe_load(path.read_text())["policies"]
        if "mode" in policy
    }
    prefix = "arn:aws:lambda:*:*:function:custodian-"
    for statement in ("InvokeAndReceive", "ThePack"):
        named = listed(STATEMENTS[statement]["Resource"])
        assert {n.removeprefix(prefix)[:-1] for n in named if n.startswith(prefix)} == deployed
    prefix = "arn:aws:events:*:*:rule/custodian-"
    assert {n.removeprefix(prefix) for n in named if n.startswith(prefix)} == deployed


def test_organizations_takes_it():
    """Its size, with room for longer parameters; the syntax of a deny; calls that exist."""
    assert len(json.dumps(POLICY, separators=(",", ":"))) < MOST - 500
    assert "&" not in TEXT.replace("${", "") and "<<" not in TEXT  # CloudFormation has no aliases
    names = ("cloudwatch", "ec2", "events", "iam", "kms", "lambda", "scheduler", "sns", "sqs")
    services = {name: boto3.client(name, "us-east-1") for name in names}
    for statement in POLICY["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Deny" and statement["Sid"].isalnum()
        for action in listed(statement["Action"]):
            service, operation = action.split(":")
            if action not in ("iam:PassRole", "lambda:InvokeFunction"):  # no calls of that name
                assert operation in services[service].meta.service_model.operation_names, action
