"""ec2-release, run by a person: what was isolated is back as it was, and nothing else changes."""


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


def test_an_instance_that_is_not_isolated_stays_as_it_is_and_nobody_is_told(scene, pack, release):
    instance = scene.instance()
    before = everything(scene, instance)

    succeeded, output = release(instance)

    assert succeeded and "Nothing to revert: no interface is in a forensic group" in output
    assert everything(scene, instance) == before
    assert pack.messages() == []


def test_a_second_release_has_nothing_to_do(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    assert release(instance)[0]

    succeeded, output = release(instance)

    assert succeeded and "Nothing to revert" in output


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

    assert not succeeded and f"{unknown}: " in output and "no record of its groups" in output
    assert scene.interfaces(instance)[unknown] == [scene.forensic_group()]

    said = f"{unknown}={scene.groups[2]}"
    assert release(instance, groups=said)[0]
    assert scene.interfaces(instance)[unknown] == scene.groups[2:]


def test_an_incident_after_the_release_isolates_again(scene, pack, release):
    instance = scene.instance(scene.groups)
    pack.isolate(scene.finding(instance))
    release(instance)
    pack.messages()

    pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert len(pack.messages()) == 1
    assert release(instance)[0]


def test_without_a_named_instance_nothing_happens(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))

    assert release("{instance}")[0]

    assert scene.is_isolated(instance)


def test_an_instance_terminated_in_the_middle_is_not_called_released(scene, pack, release):
    """Nothing is left to read back, and nothing is not "every interface"."""
    instance = scene.instance()
    pack.isolate(scene.finding(instance))

    def terminate(call):
        for protection in ("DisableApiTermination", "DisableApiStop"):
            scene.ec2.modify_instance_attribute(
                InstanceId=instance, **{protection: {"Value": False}}
            )
        scene.ec2.terminate_instances(InstanceIds=[instance])

    scene.cloud.before(
        "DescribeNetworkInterfaces",
        terminate,
        skip=2,  # by verify-record, and before the groups are given back
    )

    succeeded, output = release(instance)

    assert not succeeded and "NothingReadBack" in output
    assert "The recorded groups are back on every interface" not in output
