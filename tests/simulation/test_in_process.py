"""A policy's function in this process does what it does in Lambda, and can die after any call."""

import pytest

from custom_actions.response import OUTCOMES
from simulation.in_process import Died, InProcess

ACCOUNT, REGION = "111122223333", "us-west-2"
POLICY = "policies/ec2-isolate.yml"


@pytest.fixture(scope="module")
def cloud(quick_cloud):
    return quick_cloud


@pytest.fixture
def function(pack):
    return InProcess(pack.cloud, POLICY, ACCOUNT, REGION)


def operations(cloud, name):
    called = [call.operation for call in cloud.call_log.by(name)]
    return [operation for operation in called if operation != "AssumeRole"]


def test_it_calls_and_reports_what_the_function_does(scene, pack, function):
    pack.isolate(scene.finding(scene.instance()))  # makes the group
    scene.cloud.call_log.clear()
    one, other = scene.instance(), scene.instance()
    invoked = pack.isolate(scene.finding(one)).result["ec2-isolate"]
    by_lambda = operations(scene.cloud, "custodian-ec2-isolate")
    scene.cloud.call_log.clear()

    (resource,) = function.run(scene.finding(other))

    assert scene.is_isolated(other)
    assert operations(scene.cloud, "custodian-ec2-isolate") == by_lambda
    done = resource[OUTCOMES]
    assert [(o["step"], o["status"]) for o in done] == [(o["step"], o["status"]) for o in invoked]


def test_it_dies_after_the_call_that_was_chosen_and_the_next_run_completes(scene, function):
    instance = scene.instance()
    event = scene.finding(instance)
    with pytest.raises(Died):
        function.run(event, dies_after=3)
    assert len(operations(scene.cloud, function.name)) == 3

    function.run(event)
    assert scene.is_isolated(instance)


def test_faults_are_met_and_nobody_waits(scene, function):
    instance = scene.instance()
    scene.cloud.fail("ec2:DescribeNetworkInterfaces", "RequestLimitExceeded", status=503, times=2)
    function.run(scene.finding(instance))
    assert scene.is_isolated(instance) and function.slept

    scene.cloud.fail("ec2:DescribeNetworkInterfaces", "UnauthorizedOperation", times=None)
    with pytest.raises(Exception, match="isolate-instance"):
        function.run(scene.finding(scene.instance()))
