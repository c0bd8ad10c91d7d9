"""All steps of ec2-isolate together: one that fails stops none of the others, nor the mail."""

import pytest

FUNCTION = "custodian-ec2-isolate"
BY_ISOLATE = {"when": lambda call: call.caller == FUNCTION}
STEPS = ["isolate-instance", "block-remote-address", "preserve-evidence", "leave-service"]
STEPS += ["revoke-role-sessions"]


def test_no_step_fails_on_a_healthy_instance(scene, pack):
    invocation = pack.isolate(scene.finding(scene.instance()))

    (message,) = pack.messages()
    for outcome in message["resources"][0]["c7n:response"]:
        assert outcome["error"] is None, (
            f"policy ec2-isolate: its step {outcome['step']} fails on an instance that is well: "
            f"{outcome['error']}"
        )
    assert invocation.error is None


@pytest.mark.parametrize(
    "operation, failing",
    [
        ("ModifyNetworkInterfaceAttribute", "isolate-instance"),
        ("CreateNetworkAclEntry", "block-remote-address"),
        ("CreateSnapshots", "preserve-evidence"),
        ("DescribeAutoScalingInstances", "leave-service"),
        ("GetInstanceProfile", "revoke-role-sessions"),
    ],
)
def test_a_failing_step_is_named_and_the_retry_completes_it(scene, pack, operation, failing):
    iam = scene.cloud.client("iam", "111122223333", "us-west-2")
    name = f"web-{failing}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    instance = scene.instance()
    scene.ec2.associate_iam_instance_profile(InstanceId=instance, IamInstanceProfile={"Name": name})
    scene.cloud.fail(operation, "OperationNotPermitted", **BY_ISOLATE)

    pack.deliver(scene.finding(instance))

    first, second, *_ = [i for i in scene.cloud.invocations if i.function_name == FUNCTION]
    assert f"step:{failing}" in first.error["errorMessage"]
    assert "OperationNotPermitted" in first.error["errorMessage"]
    assert f"step:{failing}" not in str(second.error)
    assert scene.is_isolated(instance)
    told = [m for m in pack.messages() if m["policy"]["name"] == "ec2-isolate"]
    assert len(told) == 2  # the failure, and its end
    before, after = ({o["step"]: o for o in m["resources"][0]["c7n:response"]} for m in told)
    assert [s for s in STEPS if before[s]["status"] == "failed"] == [failing]
    assert failing in told[0]["event"]["c7n:notice"]["headline"]
    assert {after[step]["status"] for step in STEPS} <= {"done", "unchanged"}
    assert after[failing]["status"] == "done" or failing == "leave-service"
    assert all(after[s]["status"] == "unchanged" for s in STEPS if s != failing)


def test_a_throttled_step_ends_before_the_mail(scene, pack):
    """Lambda would kill the function in the middle of it, and nobody would hear of anything."""
    scene.cloud.fail(
        "DescribeInstanceAttribute", "RequestLimitExceeded", status=503, times=None, **BY_ISOLATE
    )
    instance = scene.instance()

    invocation = pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    error = invocation.error["errorMessage"]
    assert "step:preserve-evidence error:" in error and "RequestLimitExceeded" in error
    (message,) = pack.messages()
    headline = message["event"]["c7n:notice"]["headline"]
    assert "has been isolated, but the response is NOT COMPLETE" in headline
