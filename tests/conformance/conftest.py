"""An AWS in this process, and the steps played on it."""

import functools
import time
from types import SimpleNamespace

import boto3
import pytest
import stages
from c7n.resources import load_resources
from c7n.utils import reset_session_cache
from moto import mock_aws
from wire import Play, Wire

from simulation.ec2 import corrected_ec2
from simulation.ecs import corrected_ecs
from simulation.guardduty import findings_by_api
from simulation.iam import corrected_iam
from simulation.load_balancing import corrected_load_balancing
from simulation.s3 import corrected_s3
from simulation.ssm import corrected_ssm


@pytest.fixture(scope="module")
def aws():
    """An AWS in this process, and a wire to it; nobody waits."""
    load_resources(tuple(f"aws.{kind}" for kind in ("ec2", "account", "iam-user")))
    load_resources(("aws.security-group",))
    reset_session_cache()
    with pytest.MonkeyPatch.context() as patch, findings_by_api(), mock_aws():
        # Each comes with a snapshot, and moto looks at all of them for every DescribeSnapshots.
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setattr(time, "sleep", lambda seconds: None)
        with (
            corrected_ec2(),
            corrected_load_balancing(),
            corrected_iam(),
            corrected_ecs(),
            corrected_s3(),
            corrected_ssm(),
        ):
            session = boto3.Session("testing", "testing", region_name=stages.REGION)
            yield SimpleNamespace(wire=Wire(), client=functools.cache(session.client))
    reset_session_cache()


@pytest.fixture
def play(aws):
    """Makes stages and plays steps on them."""
    plays = []

    def make(stage, **variant):
        plays.append(Play(aws, stage(aws.client, **variant)))
        return plays[-1]

    yield make
    for one in plays:
        getattr(one.stage, "teardown", lambda: None)()
