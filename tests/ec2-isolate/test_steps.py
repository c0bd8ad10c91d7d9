"""All steps of ec2-isolate together: one that fails stops none of the others, nor the mail."""

import pytest

FUNCTION = "custodian-ec2-isolate"
STEPS = ["isolate-instance", "block-remote-address", "preserve-evidence", "leave-service"]
STEPS += ["revoke-role-sessions"]


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
    scene.cloud.fail(operation, "OperationNotPermitted", when=lambda call: call.caller == FUNCTION)

    pack.deliver(scene.finding(instance))

    first, second = [i for i in scene.cloud.invocations if i.function_name == FUNCTION]
    assert f"step:{failing}" in first.error["errorMessage"]
    assert "OperationNotPermitted" in first.error["errorMessage"] and second.error is None
    assert scene.is_isolated(instance)
    told = [m for m in pack.messages() if m["policy"]["name"] == "ec2-isolate"]
    assert len(told) == 2  # the failure, and its end
    before, after = ({o["step"]: o for o in m["resources"][0]["c7n:response"]} for m in told)
    assert [s for s in STEPS if before[s]["status"] == "failed"] == [failing]
    assert failing in told[0]["event"]["c7n:notice"]["headline"]
    assert {after[step]["status"] for step in STEPS} <= {"done", "unchanged"}
    assert after[failing]["status"] == "done" or failing == "leave-service"
    assert all(after[s]["status"] == "unchanged" for s in STEPS if s != failing)
