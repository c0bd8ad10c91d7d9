"""The corrections of the S3 double; each fails on plain moto."""

import base64
import hashlib
import json
from contextlib import nullcontext

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from simulation.s3 import corrected_s3

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
LOCKED = {
    "Type": "AWS::S3::Bucket",
    "Properties": {
        "BucketName": "locked",
        "VersioningConfiguration": {"Status": "Enabled"},
        "ObjectLockEnabled": True,
        "ObjectLockConfiguration": {
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}},
        },
    },
}


@pytest.mark.parametrize(
    "corrected",
    [
        corrected_s3,
        pytest.param(nullcontext, id="plain-moto", marks=pytest.mark.xfail(strict=True)),
    ],
)
@pytest.mark.parametrize("what", ["the lock", "the checksum"])
def test_a_bucket_of_a_stack_locks_and_a_wrong_checksum_is_refused(corrected, what):
    with mock_aws(), corrected():
        template = json.dumps({"Resources": {"Bucket": LOCKED}})
        boto3.client("cloudformation", **ACCOUNT).create_stack(StackName="s", TemplateBody=template)
        s3 = boto3.client("s3", **ACCOUNT)
        said = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
        if what == "the lock":
            put = s3.put_object(Bucket="locked", Key="k", Body=b"x")
            shown = s3.head_object(Bucket="locked", Key="k", VersionId=put["VersionId"])
            assert shown["ObjectLockMode"] == "GOVERNANCE"
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(Bucket="locked", Key="k", VersionId=put["VersionId"])
        else:
            with pytest.raises(ClientError, match="BadDigest"):
                s3.put_object(
                    Bucket="locked",
                    Key="k",
                    Body=b"x",
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=said,
                )
