"""ec2-release, run by a person: what was isolated is back as it was, and nothing else changes."""

import subprocess

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture
def release(scene, tmp_path):
    """Run the policy as `make release` does; returns (succeeded, output)."""

    def run(instance):
        (tmp_path / "vars.yml").write_text(f"instance: {instance}\n")
        arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "output"]
        arguments += ["--vars-file", tmp_path / "vars.yml", "policies/ec2-release.yml"]
        try:
            return True, deploy.custodian(scene.cloud, arguments, ACCOUNT, REGION).stdout
        except (RuntimeError, subprocess.CalledProcessError) as error:
            return False, str(error)

    return run


def everything(scene, *instances):
    """All that EC2 shows of the instances and of their interfaces."""
    shown = scene.ec2.describe_instances(InstanceIds=list(instances))["Reservations"]
    interfaces = [i for instance in instances for i in scene.interfaces(instance)]
    return [
        [r["Instances"] for r in shown],
        scene.ec2.describe_network_interfaces(NetworkInterfaceIds=interfaces)["NetworkInterfaces"],
    ]


def test_everything_is_back_as_it_was(scene, pack, release):
    instance = scene.instance(scene.groups, scene.groups[1:], tags={"Name": "web"})
    neighbour = scene.instance()
    before = everything(scene, instance, neighbour)
    pack.isolate(scene.finding(instance))
    assert scene.is_isolated(instance)

    succeeded, output = release(instance)

    assert succeeded and "status:done" in output
    assert everything(scene, instance, neighbour) == before


def test_only_the_named_instance_is_released(scene, pack, release):
    named, other = scene.instance(), scene.instance()
    pack.isolate(scene.finding(named))
    pack.isolate(scene.finding(other))

    assert release(named)[0]

    assert not scene.is_isolated(named) and scene.is_isolated(other)


def test_it_refuses_an_instance_that_is_not_isolated(scene, pack, release):
    instance = scene.instance()
    before = everything(scene, instance)

    succeeded, output = release(instance)

    assert not succeeded
    assert f"{instance} is not isolated" in output and "Nothing was changed" in output
    assert everything(scene, instance) == before


def test_a_second_release_is_refused(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    assert release(instance)[0]

    succeeded, output = release(instance)

    assert not succeeded and "is not isolated" in output


def test_a_group_that_is_gone_is_named_and_the_rest_is_put_back(scene, pack, release):
    instance = scene.instance(scene.groups)
    pack.isolate(scene.finding(instance))
    scene.ec2.delete_security_group(GroupId=scene.groups[1])

    succeeded, output = release(instance)

    assert not succeeded and f"no longer exists: {scene.groups[1]}" in output
    assert set(*scene.interfaces(instance).values()) == {scene.groups[0], scene.groups[2]}
    assert not any(key.startswith("forensic:") for key in scene.tags(instance))


def test_when_no_group_is_left_the_instance_stays_isolated(scene, pack, release):
    instance = scene.instance(scene.groups)
    pack.isolate(scene.finding(instance))
    for group in scene.groups:
        scene.ec2.delete_security_group(GroupId=group)

    succeeded, output = release(instance)

    assert not succeeded and "none of its groups exists any more" in output
    assert scene.is_isolated(instance)
    assert scene.tags(instance)["forensic:state"] == "releasing"


def test_an_interface_that_refuses_keeps_the_record_for_another_try(scene, pack, release):
    instance = scene.instance(scene.groups, scene.groups[:1])
    first, second = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    scene.cloud.fail(
        "ModifyNetworkInterfaceAttribute",
        "OperationNotPermitted",
        when=lambda call: call.parameters["NetworkInterfaceId"] == first,
    )

    succeeded, output = release(instance)

    assert not succeeded and first in output and "OperationNotPermitted" in output
    assert scene.interfaces(instance)[second] == scene.groups[:1]

    assert release(instance)[0]
    assert scene.interfaces(instance) == {first: scene.groups, second: scene.groups[:1]}


def test_an_interface_isolated_without_a_record_is_reported(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    unknown = scene.attach(instance, [scene.forensic_group()])

    succeeded, output = release(instance)

    assert not succeeded and f"{unknown}: no record" in output
    assert scene.interfaces(instance)[unknown] == [scene.forensic_group()]


def test_an_incident_after_the_release_isolates_again(scene, pack, release):
    instance = scene.instance(scene.groups)
    pack.isolate(scene.finding(instance))
    release(instance)
    pack.messages()

    pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert len(pack.messages()) == 1
    assert release(instance)[0]


def test_without_a_named_instance_nothing_happens(scene, pack):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))

    deploy.custodian(
        scene.cloud,
        ["run", "--region", REGION, "--cache-period", "0", "-s", scene.cloud.folder / "none"]
        + ["policies/ec2-release.yml"],
        ACCOUNT,
        REGION,
    )

    assert scene.is_isolated(instance)


def test_an_instance_terminated_in_the_middle_is_not_called_released(scene, pack, release):
    """Nothing is left to read back, and nothing is not "every interface"."""
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    scene.cloud.before(
        "DescribeNetworkInterfaces",
        lambda call: scene.ec2.terminate_instances(InstanceIds=[instance]),
        skip=1,
    )

    succeeded, output = release(instance)

    assert not succeeded and "NothingReadBack" in output
    assert "The recorded groups are back on every interface" not in output
