"""`make isolated`: what is isolated, as EC2 shows it, and what is not as it should be."""

import json

import pytest
from click.testing import CliRunner

from deployment.__main__ import main

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture
def listed(scene, monkeypatch):
    for name, value in scene.cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)

    def run(*options):
        result = CliRunner().invoke(main, ["isolated", "--region", REGION, *options])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.stdout

    return run


def test_what_is_isolated_and_what_is_not_as_it_should_be(scene, pack, listed):
    assert listed() == (0, "0 isolated, or said to be, in 1 of 1 accounts and regions.\n")
    evil = "web \u202e\n1"
    instance = scene.instance(scene.groups[:1], scene.groups[1:], tags={"Name": evil})
    other, neighbour = scene.instance(), scene.instance()
    finding = scene.finding(instance)
    pack.isolate(finding)
    pack.isolate(scene.finding(other))
    scene.cloud.call_log.clear()

    code, told = listed()

    assert code == 0, told
    shown = next(block for block in told.split("\n\n") if block.startswith(instance))
    assert shown.splitlines()[0] == f"{instance} 'web 1' in {ACCOUNT} {REGION}"
    assert f", by finding {finding['detail']['id']}" in shown
    assert "EC2 shows running, all 2 interfaces in a forensic group" in shown
    assert "record    sealed" in shown and "denied    203.0.113.7" in shown
    command = f"make release INSTANCE={instance} REGION={REGION}"
    assert f"release   {command}" in shown.splitlines()[-1]
    assert neighbour not in told and "2 isolated" in told
    assert len(scene.cloud.calls) <= 7, "the calls do not grow with the instances"
    assert {c.operation[:8] for c in scene.cloud.calls} <= {"Describe", "GetCalle"}

    # somebody opens one interface, and somebody writes tags
    opened = next(iter(scene.interfaces(instance)))
    ec2 = scene.ec2
    ec2.modify_network_interface_attribute(NetworkInterfaceId=opened, Groups=scene.groups[:1])
    ec2.create_tags(Resources=[neighbour], Tags=[{"Key": "forensic:state", "Value": "isolated"}])
    ec2.delete_tags(Resources=[other], Tags=[{"Key": "forensic:state"}])
    ec2.create_tags(Resources=[other], Tags=[{"Key": "forensic:deny:192.0.2.9", "Value": "acl-1"}])

    code, told = listed("--json")

    assert code == 1
    answer = json.loads(told)
    by_id = {one["instance"]: one for one in answer["instances"]}
    assert set(by_id) == {instance, other, neighbour} and answer["failed"] == []
    assert by_id[instance]["problems"] == [f"OPEN: {opened} has {scene.groups[0]}"]
    assert by_id[instance]["is_isolated"] is False and by_id[instance]["release"] == command
    assert by_id[other]["is_isolated"] is True and by_id[other]["is_sealed"] is False
    (problem,) = by_id[other]["problems"]
    assert problem.startswith("not what was sealed: deny.")
    assert "NOT isolated" in listed()[1]
    assert by_id[neighbour]["problems"][0].startswith("OPEN: eni-")
    assert by_id[neighbour]["is_sealed"] is False

    # a rule in the forensic group, and a seal that is gone: EC2's groups still name the instance
    ec2.delete_tags(Resources=[neighbour], Tags=[{"Key": "forensic:state"}])
    ec2.delete_tags(Resources=[other], Tags=[{"Key": "forensic:deny:192.0.2.9"}])
    group = scene.forensic_group()
    ec2.delete_tags(Resources=[group], Tags=[{"Key": f"forensic:record:{other}"}])
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )

    code, told = listed("--json")

    by_id = {one["instance"]: one for one in json.loads(told)["instances"]}
    assert (code, set(by_id)) == (1, {instance, other})
    assert by_id[other]["problems"] == [
        f"{group}: the forensic group has rules",
        "the record was never sealed: the release will ask",
    ]

    for attribute in ("DisableApiTermination", "DisableApiStop"):
        ec2.modify_instance_attribute(InstanceId=instance, **{attribute: {"Value": False}})
    ec2.terminate_instances(InstanceIds=[instance])
    found = {one["instance"]: one for one in json.loads(listed("--json")[1])["instances"]}
    assert (found[instance]["state"], found[instance]["release"]) == ("terminated", None)
    assert found[instance]["problems"] == []


def test_a_region_that_cannot_be_read_is_named(scene, listed):
    scene.cloud.fail("DescribeSecurityGroups", "UnauthorizedOperation")
    code, told = listed("--json")
    assert code == 1
    (failed,) = json.loads(told)["failed"]
    assert (failed["account"], failed["region"]) == (ACCOUNT, REGION)
    assert "DescribeSecurityGroups: UnauthorizedOperation" in failed["error"]
