"""Who may do what with the evidence bucket, by its policy; infra/evidence.yml."""

import json
import re

import pytest

from custom_actions.steps.write_case import WriteCase
from infra import permissions
from simulation.policies import Request, admits

BUCKET = "arn:aws:s3:::evidence"
CENTRAL, MEMBER, STRANGER = "111122223333", "444455556666", "999999999999"
ORGANIZATION = "o-abcd123456"
RESPONDER = "arn:aws:iam::*:role/responder"
PACK, IN_MEMBERS = "guardduty-response-ec2-isolate", "guardduty-response-member-ec2-isolate"
VALUES = {"OrganizationId": ORGANIZATION, "ResponderArns": RESPONDER, "Bucket.Arn": BUCKET}


def resolved(value):
    """A value of the template, with all that can be chosen."""
    if isinstance(value, dict):
        return {key: resolved(held) for key, held in value.items()}
    if isinstance(value, list):
        if value and value[0] in ("Organization", "Responders", "RespondersOfOthers"):
            return resolved(value[1])
        if len(value) == 2 and value[0] == ",":
            parts = resolved(value[1])
            return parts if isinstance(parts, list) else [parts]
        return [resolved(held) for held in value]
    if isinstance(value, permissions.Ref):
        return VALUES.get(str(value), str(value))
    if isinstance(value, str):
        return re.sub(r"\$\{!", "${", value.replace("${Bucket.Arn}", BUCKET))
    return value


def document(name="BucketPolicy"):
    whole = permissions.resources("evidence.yml")[name]["Properties"]
    return resolved(whole.get("PolicyDocument") or whole["KeyPolicy"])


def may(action, key, role, account, **context):
    principal = f"arn:aws:iam::{account}:role/{role}"
    context = {
        "aws:PrincipalArn": principal,
        "aws:PrincipalAccount": account,
        "aws:PrincipalOrgID": ORGANIZATION if account != STRANGER else "o-other",
        "aws:SecureTransport": "true",
        **context,
    }
    resource = f"{BUCKET}/{key}" if key else BUCKET
    return admits(document(), Request(f"s3:{action}", resource, principal, context), CENTRAL)


def test_each_account_writes_into_its_own_folder_and_nobody_deletes():
    own, other = f"cases/{MEMBER}/us-west-2/i-1/case.json", f"cases/{CENTRAL}/us-west-2/x"
    for role in (PACK, IN_MEMBERS, "responder"):
        assert may("PutObject", own, role, MEMBER) and may("GetObject", own, role, MEMBER)
        assert may("PutObject", other, role, CENTRAL), "of the bucket's own account"
        assert not may("PutObject", other, role, MEMBER)
        assert not may("GetObject", other, role, MEMBER)
        assert not may("PutObject", own, role, CENTRAL)
        assert not may("PutObject", own, role, MEMBER, **{"aws:SecureTransport": "false"})
        assert may("ListBucket", "", role, MEMBER, **{"s3:prefix": f"cases/{MEMBER}/us-west-2/"})
        assert not may("ListBucket", "", role, MEMBER, **{"s3:prefix": f"cases/{CENTRAL}/"})
        assert not may("ListBucket", "", role, MEMBER)
    stranger = f"cases/{STRANGER}/x"
    assert not may("PutObject", stranger, PACK, STRANGER)
    assert not may("PutObject", own, "guardduty-response-finding-notify", MEMBER)
    assert not may("PutObject", other, "Admin", CENTRAL), "nor an administrator, unnoticed"
    for action in ("DeleteObject", "DeleteObjectVersion", "BypassGovernanceRetention"):
        for role in (PACK, "responder", "Admin"):
            assert not may(action, other, role, CENTRAL)
    for action in ("PutObjectRetention", "PutObjectLegalHold"):
        assert not may(action, other, PACK, CENTRAL) and may(action, other, "Admin", CENTRAL)
    assert may("GetObjectVersion", own, "responder", MEMBER)
    assert not may("GetObjectVersion", own, PACK, MEMBER)


def test_what_is_written_is_locked_encrypted_private_and_logged():
    of = permissions.resources("evidence.yml")
    bucket, log = of["Bucket"]["Properties"], of["Log"]["Properties"]
    assert bucket["ObjectLockEnabled"] is True
    assert bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"] == {
        "Mode": "RetentionMode",
        "Days": "RetentionDays",
    }
    assert '"aws:kms"' in json.dumps(bucket["BucketEncryption"])
    assert bucket["LoggingConfiguration"]["DestinationBucketName"] == "Log"
    assert "ObjectLockEnabled" not in log, "such a bucket takes no access logs"
    for one in (bucket, log):
        assert set(one["PublicAccessBlockConfiguration"].values()) == {True}
    assert of["Key"]["Properties"]["EnableKeyRotation"] is True
    assert {of[name]["DeletionPolicy"] for name in ("Bucket", "Log", "Key")} == {"Retain"}


@pytest.mark.parametrize("action", ["Decrypt", "GenerateDataKey"])
def test_the_key_serves_members_by_way_of_s3_alone(action):
    def may_use(service, account=MEMBER, role=PACK):
        principal = f"arn:aws:iam::{account}:role/{role}"
        context = {
            "aws:PrincipalArn": principal,
            "aws:PrincipalOrgID": ORGANIZATION if account != STRANGER else "o-other",
            "kms:ViaService": service,
        }
        request = Request(f"kms:{action}", "key", principal, context)
        return admits(document("Key"), request, CENTRAL)

    assert may_use("s3.us-west-2.amazonaws.com")
    assert not may_use("ec2.us-west-2.amazonaws.com")
    assert not may_use("s3.us-west-2.amazonaws.com", account=STRANGER)
    assert not may_use("s3.us-west-2.amazonaws.com", role="other")


def test_the_rights_to_write_a_case_are_what_the_step_declares():
    """Besides those that ec2-isolate has for other steps, and the key of the bucket."""
    of = permissions.resources("account.yml")["WriteCase"]["Properties"]["PolicyDocument"]
    allowed = permissions.allowed(permissions.statements(of))
    describing = {"ec2:DescribeInstances", "ec2:DescribeSnapshots"}
    assert describing <= permissions.allowed(permissions.role("ec2-isolate"))
    declared = set(WriteCase.permissions) - set(WriteCase.of_a_person)
    key = {"kms:Decrypt", "kms:GenerateDataKey"}
    assert allowed == declared - describing | key

    people = permissions.allowed(permissions.managed("operators.yml", "Cases"))
    verifying = {"s3:GetObjectRetention", "s3:GetObjectVersion", "s3:ListBucketVersions"}
    free = {"sts:GetCallerIdentity"}
    assert people == set(WriteCase.permissions) - free | key | verifying
