"""The world of a finding: exactly its ids."""

import copy
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from custom_actions.finding_file import read_finding
from simulation.world import build, plan_networks

TESTS = Path(__file__).parents[1]
FINDINGS = TESTS / "findings"
SCENARIO = TESTS.parent / "simulation" / "scenario.json"


def details(event):
    return event["detail"]["resource"]["instanceDetails"]


def shape(interface):
    """An interface of a finding as `World.snapshot` shows it, without names."""
    return {
        "id": interface["networkInterfaceId"],
        "vpc_id": interface["vpcId"],
        "subnet_id": interface["subnetId"],
        "private_ip": interface.get("privateIpAddress"),
        "groups": [group["groupId"] for group in interface["securityGroups"]],
    }


def built(world):
    """The interfaces of the target as built, in the form of `shape`."""
    return [
        {key: interface[key] for key in ("id", "vpc_id", "subnet_id", "private_ip")}
        | {"groups": [group["id"] for group in interface["groups"]]}
        for interface in world.snapshot()[world.target]["interfaces"]
    ]


def test_the_scenario(cloud):
    event = read_finding(SCENARIO)
    world = build(cloud, event)
    snapshot = world.snapshot()
    assert list(snapshot) == [world.target, *world.neighbours]
    assert [instance["name"] for instance in snapshot.values()] == [
        "GuardDuty-Example: Compromised Instance: Scenario 1",
        "GuardDuty-Example: Neighbour Instance",
        "GuardDuty-Example: Malicious Instance",
    ]
    groups = [i["groups"] for one in snapshot.values() for i in one["interfaces"]]
    assert groups == [[{"id": "sg-0aaaaaaaaaaaaaaa1", "name": "TargetSecurityGroup"}]] * 3
    subnets = {i["subnet_id"] for one in snapshot.values() for i in one["interfaces"]}
    assert subnets == {"subnet-0123456789abcdef0"}

    remote = event["detail"]["service"]["action"]["networkConnectionAction"]["remoteIpDetails"]
    addresses = world.client("ec2").describe_addresses()["Addresses"]
    holder = {address["PublicIp"]: address["InstanceId"] for address in addresses}
    assert holder[remote["ipAddressV4"]] == world.neighbours[1]
    s3 = world.client("s3")
    (bucket,) = s3.list_buckets()["Buckets"]
    listed = s3.get_object(Bucket=bucket["Name"], Key="GuardDuty-Example-threat-list.txt")
    assert listed["Body"].read().decode() == f"{remote['ipAddressV4']}\n"

    balancing = world.client("elbv2")
    (group,) = balancing.describe_target_groups()["TargetGroups"]
    health = balancing.describe_target_health(TargetGroupArn=group["TargetGroupArn"])
    targets = [target["Target"]["Id"] for target in health["TargetHealthDescriptions"]]
    assert sorted(targets) == sorted(world.instances)


@pytest.mark.parametrize(
    "name",
    [
        "ec2-malicious-ip-caller",
        "ec2-malicious-ip-caller-multi-eni",
        "ec2-dns-crypto",
        "ec2-port-probe",
        "bare-ec2-malicious-ip-caller",
        "iam-role-credential-exfiltration",
    ],
)
def test_ids_and_addresses_are_the_findings(cloud, name):
    event = read_finding(FINDINGS / f"{name}.json")
    world = build(cloud, event)
    assert world.target == details(event)["instanceId"]
    assert built(world) == [shape(one) for one in details(event)["networkInterfaces"]]
    snapshot = world.snapshot()[world.target]
    assert snapshot["tags"] == {tag["key"]: tag["value"] for tag in details(event)["tags"]}
    for neighbour in world.neighbours:
        (interface,) = world.snapshot()[neighbour]["interfaces"]
        first = details(event)["networkInterfaces"][0]
        assert interface["subnet_id"] == first["subnetId"]
        groups = [group["id"] for group in interface["groups"]]
        assert groups == [first["securityGroups"][0]["groupId"]]


def test_a_public_address_is_the_findings(cloud):
    world = build(cloud, read_finding(FINDINGS / "ec2-malicious-ip-caller.json"))
    found = world.client("ec2").describe_instances(InstanceIds=[world.target])
    assert found["Reservations"][0]["Instances"][0]["PublicIpAddress"] == "198.51.100.10"


def test_an_ipv6_interface(cloud):
    event = read_finding(FINDINGS / "ec2-malicious-ip-caller-ipv6-only.json")
    world = build(cloud, event)
    (interface,) = world.client("ec2").describe_network_interfaces(
        NetworkInterfaceIds=["eni-0000000000000000a"]
    )["NetworkInterfaces"]
    assert [one["Ipv6Address"] for one in interface["Ipv6Addresses"]] == ["2001:db8:1234:1a00::10"]


@pytest.mark.parametrize(
    "name", ["ec2-malicious-ip-caller-sample", "bare-sample-as-get-findings-prints-it"]
)
def test_the_instance_of_a_sample_does_not_exist(cloud, name):
    world = build(cloud, read_finding(FINDINGS / f"{name}.json"))
    assert world.target is None
    assert len(world.snapshot()) == 2
    every = world.client("ec2").describe_instances()["Reservations"]
    assert "i-99999999" not in str(every)


def test_the_target_can_be_left_out(cloud):
    world = build(cloud, read_finding(SCENARIO), target=False)
    assert world.target is None and len(world.neighbours) == 2


def many(count, **interface):
    """The scenario's event with so many interfaces, in three subnets and two VPCs."""
    event = read_finding(SCENARIO)
    details(event)["networkInterfaces"] = [
        {
            "networkInterfaceId": f"eni-{number:017x}",
            "privateIpAddress": f"10.{number % 2}.{number % 3}.{number + 10}",
            "vpcId": f"vpc-{number % 2:017x}",
            "subnetId": f"subnet-{number % 2 * 10 + number % 3:017x}",
            "securityGroups": [
                {"groupId": f"sg-{number % 2 * 100 + group:017x}", "groupName": f"group-{group}"}
                for group in range(16)
            ],
        }
        | interface
        for number in range(count)
    ]
    return event


def test_fifteen_interfaces_with_sixteen_groups_and_forty_tags(cloud):
    event = many(15)
    details(event)["tags"] = [{"key": f"aws:key-{n}", "value": f"<{n}> ä"} for n in range(40)]
    world = build(cloud, event)
    assert built(world) == [shape(one) for one in details(event)["networkInterfaces"]]
    assert len(world.snapshot()[world.target]["tags"]) == 40


def test_the_default_group_of_a_vpc(cloud):
    event = read_finding(SCENARIO)
    (interface,) = details(event)["networkInterfaces"]
    interface["securityGroups"] = [{"groupId": "sg-0aaaaaaaaaaaaaaa9", "groupName": "default"}]
    assert built(build(cloud, event)) == [shape(interface)]


@pytest.mark.parametrize(
    "missing",
    [
        {"networkInterfaceId": None},
        {"subnetId": None, "vpcId": None},
        {"subnetId": "subnet-<b>", "vpcId": "vpc-1"},
        {"privateIpAddress": None},
        {"privateIpAddress": "300.1.2.3"},
        {"privateIpAddress": "10.0.0.1"},
        {"securityGroups": None},
        {"securityGroups": [{"groupId": None, "groupName": None}, None]},
        {"ipv6Addresses": None},
    ],
)
def test_what_a_finding_leaves_out_or_gets_wrong_is_made_up(cloud, missing):
    event = read_finding(SCENARIO)
    details(event)["networkInterfaces"][0] |= missing
    world = build(cloud, event)
    snapshot = world.snapshot()[world.target]
    assert len(snapshot["interfaces"]) == 1
    assert all(snapshot["interfaces"][0][key] for key in ("id", "vpc_id", "subnet_id", "groups"))


@pytest.mark.parametrize("nothing", [None, [], [None]])
def test_an_instance_without_interfaces_gets_one(cloud, nothing):
    event = read_finding(SCENARIO)
    details(event)["networkInterfaces"] = nothing
    assert len(built(build(cloud, event))) == 1


@pytest.mark.parametrize("bad", [None, "", 3, "i-<script>", "i-123", "i-0ABC1234DEF567890"])
def test_an_instance_id_that_ec2_cannot_have_issued_is_not_made(cloud, bad):
    event = read_finding(SCENARIO)
    details(event)["instanceId"] = bad
    world = build(cloud, event)
    assert world.target is None and len(world.neighbours) == 2


@pytest.mark.parametrize(
    ("state", "built_state"),
    [("stopped", "stopped"), ("terminated", "terminated"), (None, "running")],
)
def test_the_state_is_the_findings(cloud, state, built_state):
    event = read_finding(SCENARIO)
    details(event)["instanceState"] = state
    world = build(cloud, event)
    assert world.snapshot()[world.target]["state"] == built_state


@pytest.mark.parametrize("resource", [None, [], {}, {"instanceDetails": None}])
def test_a_finding_without_an_instance_has_an_empty_world(cloud, resource):
    event = copy.deepcopy(read_finding(SCENARIO))
    event["detail"]["resource"] = resource
    world = build(cloud, event)
    assert world.instances == [] and world.snapshot() == {}


def test_the_profile_and_role_of_an_instance(cloud):
    event = read_finding(FINDINGS / "iam-role-credential-exfiltration.json")
    world = build(cloud, event)
    found = world.client("ec2").describe_instances(InstanceIds=[world.target])
    profile = found["Reservations"][0]["Instances"][0]["IamInstanceProfile"]
    assert profile["Arn"] == details(event)["iamInstanceProfile"]["arn"]
    role = world.client("iam").get_role(RoleName="GuardDuty-Example-EC2-Compromised")["Role"]
    assert role["RoleId"] == "AROAEXAMPLEEXAMPLE001"


def test_a_user_and_its_key(cloud):
    world = build(cloud, read_finding(FINDINGS / "iam-user-malicious-ip-caller.json"))
    iam = world.client("iam")
    name = "GuardDuty-Example-Compromised-Simulated"
    assert iam.get_user(UserName=name)["User"]["UserId"] == "AIDAEXAMPLEEXAMPLE001"
    (key,) = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    assert key["AccessKeyId"] == "AKIAEXAMPLEEXAMPLE01"


@pytest.mark.parametrize("name", [None, "", "<b>"])
def test_a_name_that_iam_cannot_have_is_not_made(cloud, name):
    event = read_finding(FINDINGS / "iam-user-malicious-ip-caller.json")
    event["detail"]["resource"]["accessKeyDetails"]["userName"] = name
    assert build(cloud, event).client("iam").list_users()["Users"] == []


def test_the_place_is_the_findings(cloud):
    event = read_finding(SCENARIO) | {"account": "999988887777"}
    world = build(cloud, event)
    assert (world.account_id, world.region) == ("111122223333", "us-west-2")


def plan(*interfaces):
    """plan_networks for (subnet, address) pairs in one VPC, as text."""
    given = [
        {"vpcId": "v", "subnetId": subnet, "privateIpAddress": address}
        for subnet, address in interfaces
    ]
    return {key[1]: str(network) for key, network in plan_networks(given).items()}


def test_networks_hold_their_addresses_and_no_others():
    assert plan(("a", "10.0.0.10")) == {"a": "10.0.0.0/24"}
    assert plan(("a", "10.0.0.10"), ("a", "10.0.3.10")) == {"a": "10.0.0.0/22"}
    assert plan(("a", "10.0.0.10"), ("b", "10.0.0.140")) == {
        "a": "10.0.0.0/25",
        "b": "10.0.0.128/25",
    }
    assert plan(("a", "10.0.0.10"), ("b", "10.0.1.10")) == {"a": "10.0.0.0/24", "b": "10.0.1.0/24"}
    assert plan(("a", None), ("b", "10.0.0.10")) == {"a": "10.0.1.0/24", "b": "10.0.0.0/24"}
    assert plan(("a", None)) == {"a": "10.0.0.0/24"}


def test_addresses_that_cannot_be_in_two_subnets_still_get_networks():
    planned = plan(("a", "10.0.0.10"), ("b", "10.0.0.11"), ("a", "10.0.0.12"), ("c", "10.0.0.10"))
    networks = [IPv4Network(network) for network in planned.values()]
    assert len(networks) == 3
    for number, one in enumerate(networks):
        assert not any(one.overlaps(other) for other in networks[number + 1 :])


def test_isolated_means_one_group_without_rules_and_the_named_one_where_it_is_asked(cloud):
    world = build(cloud, read_finding(SCENARIO))
    ec2 = world.client("ec2")
    (interface,) = world.snapshot()[world.target]["interfaces"]
    assert not world.is_isolated(world.target)  # its group has rules
    made = ec2.create_security_group(
        GroupName="Quarantine", Description="-", VpcId=interface["vpc_id"]
    )["GroupId"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface["id"], Groups=[made])
    assert not world.is_isolated(world.target)  # one that was just made lets all out
    ec2.revoke_security_group_egress(
        GroupId=made, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )
    assert world.is_isolated(world.target)
    assert not world.is_isolated(world.target, "ForensicSecurityGroup")
    assert world.is_isolated(world.target, "Quarantine")


def test_every_instance_of_an_attack_sequence_but_those_that_are_elsewhere_or_gone(cloud):
    event = read_finding(FINDINGS / "ec2-sequence-half-gone.json")
    world = build(cloud, event)
    listed = event["detail"]["service"]["detection"]["sequence"]["resources"]
    described = [r for r in listed if r.get("data", {}).get("ec2Instance")]
    assert world.targets == [r["uid"] for r in described] and len(world.targets) == 3
    assert list(world.snapshot()) == [*world.targets, *world.neighbours]
    for resource in described:
        shown = world.snapshot()[resource["uid"]]
        assert [i["id"] for i in shown["interfaces"]] == (
            resource["data"]["ec2Instance"]["ec2NetworkInterfaceUids"]
        )
        assert shown["interfaces"][0]["groups"] == [{"id": "sg-0aaaaaaaaaaaaaaa1", "name": "web"}]
        assert shown["name"] == resource["name"]
    cloud.reset()
    world = build(cloud, read_finding(FINDINGS / "ec2-sequence-elsewhere.json"))
    assert len(world.targets) == 1
    cloud.reset()
    assert build(cloud, read_finding(FINDINGS / "ec2-sequence-sample.json")).target is None
