"""The call log and faults on purpose."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from simulation.calls import ApiError
from simulation.cloud import Cloud

ACCOUNT, OTHER, REGION = "111122223333", "444455556666", "us-west-2"


@pytest.fixture
def ec2(cloud):
    """A client that does not retry."""
    session = cloud.session(ACCOUNT, REGION)
    cloud.call_log.clear()
    return session.client("ec2", config=Config(retries={"total_max_attempts": 1}))


def test_a_call_is_logged_as_boto3_was_given_it(cloud, ec2):
    ec2.create_security_group(GroupName="a", Description="b", TagSpecifications=[])
    (call,) = cloud.calls
    assert (call.service, call.operation) == ("ec2", "CreateSecurityGroup")
    assert (call.account_id, call.region) == (ACCOUNT, REGION)
    assert call.caller == "OrganizationAccountAccessRole"
    assert call.parameters == {"GroupName": "a", "Description": "b"}
    assert (call.status, call.error_code, call.injected) == (200, None, False)
    assert call.duration > 0


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("ec2", "describe_instances", {"InstanceIds": ["i-1"]}, "InvalidInstanceID.NotFound"),
        ("sns", "publish", {"TopicArn": "arn:aws:sns:us-west-2:1:a", "Message": "b"}, "NotFound"),
        ("sqs", "get_queue_url", {"QueueName": "none"}, "QueueDoesNotExist"),
        ("iam", "get_role", {"RoleName": "none"}, "NoSuchEntity"),
        ("lambda", "get_function", {"FunctionName": "none"}, "ResourceNotFoundException"),
    ],
)
def test_parameters_and_errors_of_every_protocol(cloud, service, operation, parameters, code):
    with pytest.raises(ClientError):
        getattr(cloud.client(service, ACCOUNT, REGION), operation)(**parameters)
    assert cloud.calls[-1].parameters == parameters
    assert cloud.calls[-1].error_code.endswith(code)


def test_accounts_see_their_own_resources(cloud):
    cloud.client("ec2", ACCOUNT, REGION).create_security_group(GroupName="mine", Description="b")
    names = {"Filters": [{"Name": "group-name", "Values": ["mine"]}]}
    assert cloud.client("ec2", ACCOUNT, REGION).describe_security_groups(**names)["SecurityGroups"]
    there = cloud.client("ec2", OTHER, REGION).describe_security_groups(**names)
    assert there["SecurityGroups"] == []
    assert cloud.calls[-1].account_id == OTHER


def test_a_role_is_the_caller_and_so_it_is_in_roles_that_it_assumes(cloud):
    sts = cloud.session(ACCOUNT, REGION, role="deployer").client("sts")
    sts.get_caller_identity()
    assert cloud.calls[-1].caller == "deployer"
    issued = sts.assume_role(
        RoleArn=f"arn:aws:iam::{OTHER}:role/member", RoleSessionName="session"
    )["Credentials"]
    boto3.client(
        "sts",
        REGION,
        endpoint_url=cloud.endpoint,
        aws_access_key_id=issued["AccessKeyId"],
        aws_secret_access_key=issued["SecretAccessKey"],
        aws_session_token=issued["SessionToken"],
    ).get_caller_identity()
    assert (cloud.calls[-1].caller, cloud.calls[-1].account_id) == ("deployer", OTHER)


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("ec2", "DescribeInstances", {}),
        ("sns", "ListTopics", {}),
        ("sqs", "ListQueues", {}),
        ("iam", "ListRoles", {}),
        ("lambda", "ListFunctions", {}),
        ("sts", "GetCallerIdentity", {}),
    ],
)
def test_a_fault_is_an_error_of_the_service(cloud, service, operation, parameters):
    client = cloud.client(service, ACCOUNT, REGION)
    cloud.fail(operation, "UnauthorizedOperation", message="not <you>", status=403)
    method = next(
        name for name, api in client.meta.method_to_api_mapping.items() if api == operation
    )
    with pytest.raises(ClientError) as caught:
        getattr(client, method)(**parameters)
    assert caught.value.response["Error"]["Code"] == "UnauthorizedOperation"
    assert caught.value.response["Error"]["Message"] == "not <you>"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert (cloud.calls[-1].error_code, cloud.calls[-1].status) == ("UnauthorizedOperation", 403)
    assert cloud.calls[-1].injected
    getattr(client, method)(**parameters)


def outcomes(ec2, count, **parameters):
    """What so many DescribeVpcs give: True or the error's code."""
    got = []
    for _ in range(count):
        try:
            ec2.describe_vpcs(**parameters)
            got.append(True)
        except ClientError as error:
            got.append(error.response["Error"]["Code"])
    return got


def test_times_and_skip(cloud, ec2):
    cloud.fail("ec2:DescribeVpcs", "RequestLimitExceeded", status=503, times=2, skip=1)
    assert outcomes(ec2, 4) == [True, "RequestLimitExceeded", "RequestLimitExceeded", True]


def test_always_until_removed(cloud, ec2):
    hook = cloud.fail("DescribeVpcs", "Unavailable", status=503, times=None)
    assert outcomes(ec2, 2) == ["Unavailable", "Unavailable"]
    cloud.call_log.remove(hook)
    assert outcomes(ec2, 1) == [True]


def test_when_looks_at_the_parameters(cloud, ec2):
    cloud.fail("DescribeVpcs", "Unavailable", when=lambda call: "MaxResults" in call.parameters)
    assert outcomes(ec2, 1) == [True]
    assert outcomes(ec2, 1, MaxResults=5) == ["Unavailable"]


def test_operation_may_be_of_another_service(cloud, ec2):
    cloud.fail("sns:DescribeVpcs", "Unavailable")
    assert outcomes(ec2, 1) == [True]


def test_boto3_rides_out_throttling(cloud):
    client = cloud.client("ec2", ACCOUNT, REGION)
    cloud.call_log.clear()
    cloud.fail("DescribeVpcs", "RequestLimitExceeded", status=503, times=1)
    client.describe_vpcs()
    assert [call.status for call in cloud.calls] == [503, 200]


def test_before_may_call_and_may_answer(cloud, ec2):
    cloud.before("DescribeVpcs", lambda call: ec2.create_vpc(CidrBlock="10.9.0.0/16"))
    cloud.before("DescribeVpcs", lambda call: ApiError("Gone"), skip=1)
    assert "10.9.0.0/16" in [vpc["CidrBlock"] for vpc in ec2.describe_vpcs()["Vpcs"]]
    assert outcomes(ec2, 2) == ["Gone", True]


def test_subscribers_hear_of_calls_until_they_leave(cloud, ec2):
    heard = []
    leave = cloud.call_log.subscribe(lambda call: heard.append(call.operation))
    ec2.describe_vpcs()
    leave()
    ec2.describe_vpcs()
    assert heard == ["DescribeVpcs"]


def test_reset_forgets_everything(cloud, ec2):
    cloud.fail("DescribeVpcs", "Unavailable")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    cloud.reset()
    assert cloud.calls == []
    vpcs = cloud.client("ec2", ACCOUNT, REGION).describe_vpcs()["Vpcs"]
    assert vpc not in [found["VpcId"] for found in vpcs]


def test_there_is_one_cloud_at_a_time(cloud):
    with pytest.raises(RuntimeError, match="only one Cloud"), Cloud():
        pass


def test_this_machines_configuration_does_not_matter(cloud, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none"))
    identity = cloud.client("sts", ACCOUNT, REGION).get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert "AWS_PROFILE" not in cloud.environment(ACCOUNT, REGION)


def test_a_throttled_service_takes_so_many_calls_a_second(cloud, ec2):
    cloud.call_log.throttle("ec2", 2, when=lambda call: call.caller != "somebody")
    answers = []
    for _ in range(6):
        try:
            ec2.describe_vpcs()
            answers.append(None)
        except ClientError as error:
            answers.append((error.response["Error"]["Code"], cloud.calls[-1].status))
    cloud.client("sts", ACCOUNT, REGION).get_caller_identity()

    assert answers[:2] == [None, None]
    assert answers.count(("RequestLimitExceeded", 503)) >= 2


def test_calls_at_the_same_time_do_not_disturb_each_other(cloud):
    """moto goes through all rules for each event; another thread makes some meanwhile."""
    events = cloud.client("events", ACCOUNT, REGION)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as threads:
            entry = {"Source": "a", "DetailType": "b", "Detail": "{}"}
            pattern = json.dumps({"source": ["other"]})
            answers = []
            for n in range(80):
                rule = {"Name": f"rule-{n}", "EventPattern": pattern}
                answers.append(threads.submit(events.put_rule, **rule))
                answers.append(threads.submit(events.put_events, Entries=[entry]))
            assert all(answer.result() for answer in answers)
    finally:
        sys.setswitchinterval(usual)
