"""Where clients are made: one a session, and the only place where calls are tried again."""

import json
from pathlib import Path

import pytest
import yaml
from botocore.exceptions import ClientError
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.utils import reset_session_cache

from custom_actions import clients
from custom_actions.modes import UNRESOLVED, ApiCallMode, FindingMode

ACCOUNT, OTHER, REGION = "111122223333", "444455556666", "us-west-2"
FINDING = Path(__file__).parent / "findings" / "ec2-malicious-ip-caller.json"
REFUSED = {  # operation: how to call it, and codes that pass by themselves with their status
    "ec2:DescribeInstances": (
        lambda ec2: ec2.describe_instances(),
        ("RequestLimitExceeded", 503), ("Client.RequestLimitExceeded", 503), ("Unavailable", 503),
        ("InternalError", 500), ("InternalFailure", 500), ("ServiceUnavailable", 503),
        ("EC2ThrottledException", 503), ("RequestThrottled", 400),
    ),
    "ec2:CreateTags": (
        lambda ec2: ec2.create_tags(Resources=["i-1"], Tags=[]),
        ("ConcurrentTagAccess", 400),
    ),
    "ec2:CreateSnapshots": (
        lambda ec2: ec2.create_snapshots(InstanceSpecification={"InstanceId": "i-1"}),
        ("SnapshotCreationPerVolumeRateExceeded", 400),
    ),
    "iam:PutRolePolicy": (
        lambda iam: iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument="{}"),
        ("Throttling", 400), ("ServiceFailure", 500), ("ConcurrentModification", 409),
        ("EntityTemporarilyUnmodifiable", 409),
    ),
    "sns:Publish": (
        lambda sns: sns.publish(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:t", Message="m"),
        ("Throttled", 429), ("KMSThrottling", 400), ("InternalError", 500),
    ),
    "autoscaling:DetachInstances": (
        lambda scaling: scaling.detach_instances(
            AutoScalingGroupName="g", InstanceIds=["i-1"], ShouldDecrementDesiredCapacity=False
        ),
        ("ResourceContention", 500), ("Throttling", 400),
    ),
    "elb:DescribeLoadBalancers": (
        lambda elb: elb.describe_load_balancers(), ("DependencyThrottle", 400)
    ),
}  # fmt: skip


@pytest.fixture
def factory(cloud):
    reset_session_cache()
    cloud.call_log.clear()
    yield lambda *_, **__: cloud.session(ACCOUNT, REGION)
    reset_session_cache()
    cloud.call_log.clear()


@pytest.fixture
def waits(monkeypatch):
    """The seconds that botocore would have slept."""
    slept = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", slept.append)
    return slept


def made(cloud, operation):
    return [c for c in cloud.calls if f"{c.service}:{c.operation}" == operation]


@pytest.mark.parametrize(
    ("operation", "call", "code", "status"),
    [
        pytest.param(operation, call, *error, id=f"{operation}-{error[0]}")
        for operation, (call, *errors) in REFUSED.items()
        for error in errors
    ],
)
def test_what_passes_by_itself_is_tried_again_by_botocore(
    cloud, factory, waits, operation, call, code, status
):
    cloud.fail(operation, code, status=status, times=None)

    with pytest.raises(ClientError, match=code):
        call(clients.client(factory, operation.split(":")[0]))

    assert len(made(cloud, operation)) == clients.ATTEMPTS
    assert len(waits) == clients.ATTEMPTS - 1
    assert all(wait <= min(2**n, 20) for n, wait in enumerate(waits))


def test_another_error_is_not_tried_again(cloud, factory, waits):
    cloud.fail("DescribeInstances", "UnauthorizedOperation", status=403, times=None)

    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        clients.client(factory, "ec2").describe_instances()

    assert len(made(cloud, "ec2:DescribeInstances")) == 1 and waits == []


@pytest.mark.parametrize("path", sorted(Path("policies").rglob("*.yml")), ids=lambda p: p.stem)
def test_the_longest_call_fits_into_every_function(path):
    (policy,) = yaml.safe_load(path.read_text())["policies"]
    waiting = sum(min(2**n, clients.LONGEST_WAIT) for n in range(clients.ATTEMPTS - 1))
    sending = clients.CONFIG.connect_timeout + clients.CONFIG.read_timeout

    longest = waiting + clients.ATTEMPTS * sending
    assert longest < policy.get("mode", {"timeout": 300})["timeout"] - 30


def test_one_client_a_session(factory):
    first = clients.client(factory, "ec2")
    assert clients.client(factory, "ec2") is first
    assert clients.client(factory, "sns") is not first
    reset_session_cache()
    assert clients.client(factory, "ec2") is not first


def test_a_function_keeps_its_own_session_and_no_other(cloud, monkeypatch):
    for name, value in cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)
    own = clients.FunctionSessions(REGION)
    member = clients.FunctionSessions(REGION, assume_role=f"arn:aws:iam::{OTHER}:role/member")

    assert own() is own(region=REGION) is own(assume=False)
    assert own().client("sns") is own().client("sns")
    assert own(region="us-east-1").region_name == "us-east-1"
    assert member() is not member()
    assert member().client("sts").get_caller_identity()["Account"] == OTHER
    assert own().client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_the_mail_of_a_deployed_function_is_tried_again(scene, pack):
    """Custodian makes that client; this code is in none of botocore's lists."""
    scene.cloud.fail("sns:Publish", "KMSThrottling", status=400)

    assert pack.isolate(scene.finding(scene.instance())).error is None

    assert pack.messages()


def policy(factory, resource, mode):
    load_resources(("aws.ec2", "aws.security-group"))
    data = {"name": "p", "resource": resource, "mode": mode}
    options = Config.empty(account_id=ACCOUNT, region=REGION)
    return PolicyCollection.from_data({"policies": [data]}, options, factory).policies[0]


def test_an_instance_that_is_throttled_away_is_asked_for_once(cloud, factory, waits):
    """Custodian's own query would multiply its retry with botocore's."""
    cloud.fail("DescribeInstances", "RequestLimitExceeded", status=503, times=None)
    event = json.loads(FINDING.read_text())
    mode = FindingMode(policy(factory, "ec2", {"type": "guard-duty"}))

    (resource,) = mode.resolve_resources(event)

    assert resource[UNRESOLVED].startswith("RequestLimitExceeded: ")
    assert len(made(cloud, "ec2:DescribeInstances")) == clients.ATTEMPTS


def test_a_security_group_that_is_throttled_away_is_asked_for_once(cloud, factory, waits):
    cloud.fail("DescribeSecurityGroups", "RequestLimitExceeded", status=503, times=None)
    events = [{"source": "ec2.amazonaws.com", "event": "e", "ids": "requestParameters.groupId"}]
    mode = ApiCallMode(policy(factory, "security-group", {"type": "cloudtrail", "events": events}))
    detail = {"eventName": "e", "eventSource": "ec2.amazonaws.com"}

    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        mode.resolve_resources({"detail": {**detail, "requestParameters": {"groupId": "sg-1"}}})

    assert len(made(cloud, "ec2:DescribeSecurityGroups")) == clients.ATTEMPTS


def test_an_instance_is_shown_as_custodian_shows_it(cloud, factory):
    ec2 = cloud.client("ec2", ACCOUNT, REGION)
    launched = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
    instance_id = launched["Instances"][0]["InstanceId"]
    event = json.loads(FINDING.read_text())
    event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance_id
    mode = FindingMode(policy(factory, "ec2", {"type": "guard-duty"}))

    resolved = mode.resolve_resources(event)

    (shown,) = mode.policy.resource_manager.source.get_resources([instance_id])
    assert resolved == [{"Tags": [], **shown}]
    assert shown["ReservationId"] == launched["ReservationId"]


def test_the_deployed_function_rides_out_throttling_of_each_call(scene, pack):
    instance = scene.instance()
    seen = set()

    def first_time(call):
        name = (call.service, call.operation)
        if call.caller != "custodian-ec2-isolate" or call.service == "sts" or name in seen:
            return False
        seen.add(name)
        return True

    for service in ("ec2", "sns", "iam"):
        scene.cloud.fail(
            f"{service}:*", "RequestLimitExceeded", status=503, when=first_time, times=None
        )

    invocation = pack.isolate(scene.finding(instance))

    assert invocation.error is None and scene.is_isolated(instance)
    assert ("sns", "Publish") in seen
    calls = scene.cloud.call_log.by("custodian-ec2-isolate")
    refused = [c for c in calls if c.error_code == "RequestLimitExceeded"]
    assert len(refused) == len(seen) > 10
