"""The double of S3, as far as the evidence bucket needs it: moto's differences corrected.

    with corrected_s3():
        ...

Nothing here was run against AWS.
"""

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from unittest import mock

from moto.core.common_models import CloudFormationModel
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket, s3_backends
from moto.s3.responses import S3Response
from moto.utilities.utils import get_partition

from .cloudformation import SetAnew


@contextlib.contextmanager
def corrected_s3() -> Iterator[None]:
    """Apply all corrections until the end of the block."""
    with _stacks_lock_their_buckets(), _checksums_are_compared():
        yield


def _stacks_lock_their_buckets():
    """A bucket of a stack has the versioning and the Object Lock of its template.

    moto makes a bucket of CloudFormation with its encryption and tags alone.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-s3-bucket.html
    """
    made = FakeBucket.create_from_cloudformation_json

    def create(name, template, account_id, region_name, **more):
        bucket = made(name, template, account_id, region_name, **more)
        properties = template.get("Properties", {})
        backend = s3_backends[account_id][get_partition(region_name)]
        if status := properties.get("VersioningConfiguration", {}).get("Status"):
            backend.put_bucket_versioning(bucket.name, status)
        rule = properties.get("ObjectLockConfiguration", {}).get("Rule", {})
        if default := rule.get("DefaultRetention"):
            lock = default["Mode"], int(default["Days"]), 0
            backend.put_object_lock_configuration(bucket.name, True, *lock)
        return bucket

    return mock.patch.object(FakeBucket, "create_from_cloudformation_json", create)


def _checksums_are_compared():
    """An object whose SHA-256 is another than the request says is refused, as BadDigest.

    moto believes what the request says.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    put = S3Response.put_object

    def compared(response):
        said = response.headers.get("x-amz-checksum-sha256")
        digest = hashlib.sha256(response.body or b"").digest()
        if said and base64.b64decode(said) != digest:
            raise BadDigest
        return put(response)

    return mock.patch.object(S3Response, "put_object", compared)


class BucketPolicy(SetAnew, CloudFormationModel):
    """AWS::S3::BucketPolicy, which is not kept: moto minds no condition, and would deny all that a
    deny names. tests/test_evidence_bucket.py evaluates it."""

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        return cls(resource_name)


class BadDigest(S3ClientError):
    status_code = 400
    code = "BadDigest"
    message = "The SHA256 you specified did not match the calculated checksum."
