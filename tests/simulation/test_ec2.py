"""The corrections of the EC2 double.

Every test of a correction runs three times: with the corrections it names, with all of them, and on
plain moto, where it must fail. If it passes there, moto has been repaired: delete the correction.
"""

import base64
import threading
from contextlib import nullcontext
from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.ec2.models import ec2_backends

from simulation import ec2 as double

REGION = "us-west-2"
ACCOUNT = {
    "region_name": REGION,
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
TESTED: set[str] = set()


def needs(*names: str) -> pytest.MarkDecorator:
    """Run a test with these corrections alone, with all, and on plain moto (expected to fail)."""
    TESTED.update(names)
    moto_repaired = pytest.mark.xfail(strict=True, reason="moto differs from EC2 here")
    return pytest.mark.parametrize(
        "corrections",
        [
            pytest.param(names, id="alone"),
            pytest.param(tuple(double.CORRECTIONS), id="all"),
            pytest.param((), id="plain-moto", marks=moto_repaired),
        ],
    )


@pytest.fixture
def corrections() -> tuple[str, ...]:
    """What `needs` parametrizes; a test without it runs with all corrections."""
    return tuple(double.CORRECTIONS)


@pytest.fixture(scope="module")
def client():
    """One client for all tests, because making one takes longer than a test."""
    return boto3.client("ec2", **ACCOUNT)


@pytest.fixture(scope="module", autouse=True)
def no_images():
    """Leave out moto's list of images, which takes most of a test's time to load."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        yield
    # moto keeps this backend for whatever test comes next in this process, which may want images.
    ec2_backends["123456789012"][REGION].reset()


@pytest.fixture
def ec2(corrections, client):
    with mock_aws(), double.corrected_ec2(*corrections) if corrections else nullcontext():
        yield client


class Network:
    """One VPC with one subnet, and short names for what the tests make in it."""

    def __init__(self, client, cidr: str = "10.0.0.0/16"):
        self.ec2 = client
        vpc = client.create_vpc(CidrBlock=cidr, AmazonProvidedIpv6CidrBlock=True)["Vpc"]
        self.vpc = vpc["VpcId"]
        vpc = client.describe_vpcs(VpcIds=[self.vpc])["Vpcs"][0]
        ipv6 = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
        self.subnet = client.create_subnet(
            VpcId=self.vpc,
            CidrBlock=cidr.replace("/16", "/24"),
            Ipv6CidrBlock=ipv6.replace("/56", "/64"),
        )["Subnet"]["SubnetId"]

    def group(self, name: str) -> str:
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)[
            "GroupId"
        ]

    def groups(self, count: int) -> list[str]:
        return [self.group(f"group-{number}") for number in range(count)]

    def launch(self, **request) -> str:
        request = {"SubnetId": self.subnet} | request
        if "NetworkInterfaces" in request:
            del request["SubnetId"]
        return self.ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1, **request)[
            "Instances"
        ][0]["InstanceId"]

    def launch_with_interfaces(self, *groups: list[str], **specification) -> str:
        return self.launch(
            NetworkInterfaces=[
                {"DeviceIndex": index, "SubnetId": self.subnet, "Groups": ids, **specification}
                for index, ids in enumerate(groups)
            ]
        )

    def interface(self, *groups: str) -> str:
        return self.ec2.create_network_interface(SubnetId=self.subnet, Groups=list(groups))[
            "NetworkInterface"
        ]["NetworkInterfaceId"]


@pytest.fixture
def net(ec2):
    return Network(ec2)


def instance(client, instance_id: str) -> dict:
    found = client.describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]


def interfaces(client, instance_id: str) -> list[str]:
    """Interface ids of an instance by device index."""
    nics = instance(client, instance_id)["NetworkInterfaces"]
    nics.sort(key=lambda nic: nic["Attachment"]["DeviceIndex"])
    return [nic["NetworkInterfaceId"] for nic in nics]


def ids(groups: list[dict]) -> list[str]:
    return sorted(group["GroupId"] for group in groups)


def interface_groups(client, interface_id: str) -> list[str]:
    found = client.describe_network_interfaces(NetworkInterfaceIds=[interface_id])
    return ids(found["NetworkInterfaces"][0]["Groups"])


def tags(client, resource_id: str) -> dict[str, str]:
    found = client.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource_id]}])
    return {tag["Key"]: tag["Value"] for tag in found["Tags"]}


def refused(code: str | None = None):
    """The call fails with this error code; None where EC2's code is not known."""
    return pytest.raises(ClientError, match=rf"\({code}\)" if code else None)


# -- groups: who has which ---------------------------------------------------------------------


@needs("interface_owns_its_groups")
def test_every_description_shows_exactly_the_groups_set_on_an_interface(ec2, net):
    old, new = net.groups(2)
    i = net.launch(SecurityGroupIds=[old])
    (nic,) = interfaces(ec2, i)

    ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[new])

    attribute = ec2.describe_network_interface_attribute(
        NetworkInterfaceId=nic, Attribute="groupSet"
    )
    assert interface_groups(ec2, nic) == [new]
    assert ids(instance(ec2, i)["NetworkInterfaces"][0]["Groups"]) == [new]
    assert ids(attribute["Groups"]) == [new]


@needs("instance_has_the_groups_of_its_primary_interface")
def test_instance_launched_with_interfaces_has_the_groups_of_the_primary_one(ec2, net):
    first, second = net.groups(2)
    i = net.launch_with_interfaces([first], [second])

    attribute = ec2.describe_instance_attribute(InstanceId=i, Attribute="groupSet")
    assert ids(instance(ec2, i)["SecurityGroups"]) == [first]
    assert ids(attribute["Groups"]) == [first]


@needs("instance_has_the_groups_of_its_primary_interface")
def test_instance_in_the_default_vpc_has_its_default_group(ec2):
    i = ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)["Instances"][0]

    assert [g["GroupName"] for g in instance(ec2, i["InstanceId"])["SecurityGroups"]] == ["default"]


@needs("instance_has_the_groups_of_its_primary_interface")
def test_instance_follows_a_change_of_its_primary_interface(ec2, net):
    old, new = net.groups(2)
    i = net.launch(SecurityGroupIds=[old])
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interfaces(ec2, i)[0], Groups=[new])

    assert ids(instance(ec2, i)["SecurityGroups"]) == [new]


@needs("instance_has_the_groups_of_its_primary_interface", "interface_owns_its_groups")
def test_primary_interface_follows_a_change_of_its_instance(ec2, net):
    old, new = net.groups(2)
    i = net.launch(SecurityGroupIds=[old])
    (nic,) = interfaces(ec2, i)
    assert interface_groups(ec2, nic) == [old]

    ec2.modify_instance_attribute(InstanceId=i, Groups=[new])

    assert interface_groups(ec2, nic) == [new]


def too_many(ec2, net):
    return net.groups(6)


def unknown(ec2, net):
    return ["sg-0123456789abcdef0"]


def of_another_vpc(ec2, net):
    return [Network(ec2, "10.1.0.0/16").group("stranger")]


@needs("groups_are_checked")
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (unknown, "InvalidGroup.NotFound"),
        (of_another_vpc, "InvalidGroup.NotFound"),
        (too_many, "SecurityGroupsPerInterfaceLimitExceeded"),
    ],
)
def test_interface_refuses_groups_it_cannot_have(ec2, net, bad, code):
    own = net.group("own")
    nic = net.interface(own)
    wrong = bad(ec2, net)

    with refused(code):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=wrong)
    assert interface_groups(ec2, nic) == [own]
    # Which code CreateNetworkInterface has for a group of another VPC is not known.
    with refused(None if bad is of_another_vpc else code):
        net.interface(*wrong)
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) == 1


@needs("groups_are_checked")
@pytest.mark.parametrize("bad", [unknown, of_another_vpc, too_many])
def test_instance_refuses_groups_it_cannot_have(ec2, net, bad):
    own = net.group("own")
    i = net.launch(SecurityGroupIds=[own])

    with refused("InvalidGroup.NotFound" if bad is unknown else None):
        ec2.modify_instance_attribute(InstanceId=i, Groups=bad(ec2, net))
    assert ids(instance(ec2, i)["SecurityGroups"]) == [own]


@needs("groups_are_checked")
@pytest.mark.parametrize("bad", [of_another_vpc, too_many])
def test_launch_refuses_groups_it_cannot_have(ec2, net, bad):
    wrong = bad(ec2, net)
    code = "InvalidParameter" if bad is of_another_vpc else None

    with refused(code):
        net.launch(SecurityGroupIds=wrong)
    with refused(code):
        net.launch_with_interfaces(wrong)
    assert ec2.describe_instances()["Reservations"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_quota_of_groups_per_interface_can_be_raised_to_16(ec2, net):
    groups = net.groups(16)
    nic = net.interface()
    with double.groups_per_interface(16):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=groups)
    assert interface_groups(ec2, nic) == sorted(groups)

    with refused("SecurityGroupsPerInterfaceLimitExceeded"):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=groups)
    with pytest.raises(ValueError, match="1 to 16"), double.groups_per_interface(17):
        pass


@needs("a_change_must_change_something")
def test_interface_refuses_an_empty_list_of_groups(ec2, net):
    nic = net.interface(net.group("own"))

    with refused():
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[])


@needs("a_change_must_change_something")
def test_instance_refuses_an_empty_list_of_groups(ec2, net):
    own = net.group("own")
    i = net.launch(SecurityGroupIds=[own])

    with refused("InvalidParameterCombination"):
        ec2.modify_instance_attribute(InstanceId=i, Groups=[])
    assert ids(instance(ec2, i)["SecurityGroups"]) == [own]


@needs("instance_with_several_interfaces_refuses_groups")
def test_instance_with_two_interfaces_refuses_groups(ec2, net):
    first, second, new = net.groups(3)
    i = net.launch_with_interfaces([first], [second])
    nics = interfaces(ec2, i)

    with refused("InvalidInstanceID"):
        ec2.modify_instance_attribute(InstanceId=i, Groups=[new])
    assert [interface_groups(ec2, nic) for nic in nics] == [[first], [second]]


@needs("group_in_use_is_not_deleted")
def test_group_on_an_interface_is_not_deleted(ec2, net):
    used, other = net.groups(2)
    nic = net.interface(used)

    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=used)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[other])
    ec2.delete_security_group(GroupId=used)


@needs("group_in_use_is_not_deleted")
def test_group_in_a_rule_of_another_group_is_not_deleted(ec2, net):
    named, other = net.groups(2)
    permission = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}
    for group in named, other:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])

    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=named)
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=[permission])
    ec2.delete_security_group(GroupId=named)


@needs("revoking_an_unknown_rule_id_names_the_rule")
def test_revoking_a_rule_twice_names_the_rule(ec2, net):
    group = net.group("group")
    (ipv4, _) = rules(ec2, group)
    request = {"GroupId": group, "SecurityGroupRuleIds": [ipv4["SecurityGroupRuleId"]]}
    ec2.revoke_security_group_egress(**request)

    with refused("InvalidSecurityGroupRuleId.NotFound"):
        ec2.revoke_security_group_egress(**request)


@needs("ipv6_egress_is_revoked_in_every_vpc")
def test_ipv6_egress_is_revoked_in_a_vpc_without_ipv6(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="group", Description="group", VpcId=vpc)["GroupId"]
    permission = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission])
    (described,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]

    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=described["IpPermissionsEgress"])

    assert rules(ec2, group) == []
    with refused("InvalidPermission.NotFound"):
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[permission])


# -- the life of instances and interfaces ------------------------------------------------------


@needs("launch_follows_the_interface_specification")
def test_interfaces_of_a_launch_have_ipv6_addresses(ec2, net):
    group = net.group("group")
    i = net.launch_with_interfaces([group], [group], Ipv6AddressCount=2)

    counts = [len(nic["Ipv6Addresses"]) for nic in instance(ec2, i)["NetworkInterfaces"]]
    assert counts == [2, 2]


@needs("launch_follows_the_interface_specification")
def test_primary_interface_is_deleted_with_its_instance_unless_said_otherwise(ec2, net):
    group = net.group("group")

    def primary_is_deleted(instance_id: str) -> bool:
        primary = instance(ec2, instance_id)["NetworkInterfaces"][0]
        return primary["Attachment"]["DeleteOnTermination"]

    assert primary_is_deleted(net.launch())
    assert primary_is_deleted(net.launch_with_interfaces([group]))
    assert not primary_is_deleted(net.launch_with_interfaces([group], DeleteOnTermination=False))
    existing = {"DeviceIndex": 0, "NetworkInterfaceId": net.interface(group)}
    assert not primary_is_deleted(net.launch(NetworkInterfaces=[existing]))


@needs("attachment_of_an_interface_can_be_modified")
def test_delete_on_termination_of_an_interface_can_be_set(ec2, net):
    i = net.launch_with_interfaces([net.group("group")], DeleteOnTermination=False)
    nic = instance(ec2, i)["NetworkInterfaces"][0]

    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=nic["NetworkInterfaceId"],
        Attachment={
            "AttachmentId": nic["Attachment"]["AttachmentId"],
            "DeleteOnTermination": True,
        },
    )

    attachment = instance(ec2, i)["NetworkInterfaces"][0]["Attachment"]
    assert attachment["DeleteOnTermination"] is True


@needs("stop_protection_refuses_termination_too")
def test_stop_protection_protects_from_termination(ec2, net):
    i = net.launch()
    ec2.modify_instance_attribute(InstanceId=i, DisableApiStop={"Value": True})

    with refused():
        ec2.terminate_instances(InstanceIds=[i])

    assert instance(ec2, i)["State"]["Name"] == "running"
    ec2.modify_instance_attribute(InstanceId=i, DisableApiStop={"Value": False})
    ec2.terminate_instances(InstanceIds=[i])
    assert instance(ec2, i)["State"]["Name"] == "terminated"


@needs("shutdown_behavior_can_be_modified")
def test_shutdown_behavior_can_be_set_and_leaves_the_groups(ec2, net):
    own = net.group("own")
    i = net.launch(SecurityGroupIds=[own])

    ec2.modify_instance_attribute(
        InstanceId=i, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
    )

    attribute = ec2.describe_instance_attribute(
        InstanceId=i, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert attribute["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}
    assert ids(instance(ec2, i)["SecurityGroups"]) == [own]


@needs("settings_that_an_instance_cannot_have_are_refused")
@pytest.mark.parametrize(
    "kind, attribute, value, code",
    [
        ("spot", "DisableApiTermination", True, "UnsupportedOperation"),
        ("spot", "DisableApiStop", True, "UnsupportedOperation"),
        ("instance store", "DisableApiStop", True, "UnsupportedOperation"),
        ("instance store", "InstanceInitiatedShutdownBehavior", "stop", "UnsupportedOperation"),
        ("managed", "DisableApiTermination", True, "OperationNotPermitted"),
    ],
)
def test_a_setting_that_an_instance_cannot_have(ec2, net, kind, attribute, value, code):
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if kind == "spot" else {}
    i = net.launch(**spot)
    if kind == "instance store":
        double.put_root_on_instance_store(i, region=REGION)
    if kind == "managed":
        double.make_managed(i, region=REGION)

    with pytest.raises(ClientError, match=rf"\({code}\)"):
        ec2.modify_instance_attribute(InstanceId=i, **{attribute: {"Value": value}})


@needs("terminated_instance_has_no_interfaces")
def test_terminated_instance_is_described_without_network(ec2, net):
    i = net.launch(SecurityGroupIds=[net.group("group")])

    ec2.terminate_instances(InstanceIds=[i])

    gone = instance(ec2, i)
    assert gone["State"]["Name"] == "terminated"
    assert gone["NetworkInterfaces"] == []
    assert gone["SecurityGroups"] == []
    assert not gone.keys() & {"VpcId", "SubnetId", "PrivateIpAddress", "PublicIpAddress"}


@needs("terminated_instance_has_no_interfaces")
def test_interfaces_of_a_terminated_instance_are_deleted_or_detached(ec2, net):
    group, other = net.groups(2)
    i = net.launch_with_interfaces([group], DeleteOnTermination=True)
    j = net.launch_with_interfaces([group], DeleteOnTermination=False)
    (deleted,), (kept,) = interfaces(ec2, i), interfaces(ec2, j)

    ec2.terminate_instances(InstanceIds=[i, j])

    (left,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert (left["NetworkInterfaceId"], left["Status"]) == (kept, "available")
    assert "Attachment" not in left
    assert ids(left["Groups"]) == [group]
    with refused("InvalidNetworkInterfaceID.NotFound"):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=deleted, Groups=[other])
    ec2.modify_network_interface_attribute(NetworkInterfaceId=kept, Groups=[other])


@needs("terminated_instance_has_no_interfaces")
def test_terminated_instance_refuses_groups(ec2, net):
    group = net.group("group")
    i = net.launch(SecurityGroupIds=[group])
    ec2.terminate_instances(InstanceIds=[i])

    with refused():
        ec2.modify_instance_attribute(InstanceId=i, Groups=[group])


@needs("requester_managed_interface_refuses_changes")
def test_requester_managed_interface_refuses_groups(ec2, net):
    own, new = net.groups(2)
    nic = net.interface(own)
    double.make_requester_managed(nic, region=REGION)

    described = ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])
    assert described["NetworkInterfaces"][0]["RequesterManaged"] is True
    with refused("AuthFailure"):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, Groups=[new])
    assert interface_groups(ec2, nic) == [own]


# -- describing --------------------------------------------------------------------------------


@needs("instances_are_found_by_the_groups_of_their_interfaces")
def test_instances_are_found_by_a_group_of_any_interface(ec2, net):
    first, second = net.groups(2)
    i = net.launch_with_interfaces([first], [second])
    net.launch(SecurityGroupIds=[first])

    def found(*values: str) -> list[str]:
        wanted = [{"Name": "network-interface.group-id", "Values": list(values)}]
        reservations = ec2.describe_instances(Filters=wanted)["Reservations"]
        return [each["InstanceId"] for r in reservations for each in r["Instances"]]

    assert found(second) == [i]
    assert len(found(first, second)) == 2


@needs("interfaces_are_found_by_any_of_their_groups")
def test_interfaces_are_found_by_any_of_several_groups(ec2, net):
    first, second, third = net.groups(3)
    nic = net.interface(first, second)

    def found(*values: str) -> list[str]:
        wanted = [{"Name": "group-id", "Values": list(values)}]
        nics = ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]
        return [each["NetworkInterfaceId"] for each in nics]

    assert found(first) == [nic]
    assert found(second, third) == [nic]
    assert found(third) == []


@needs("what_is_not_there_is_left_out")
def test_untagged_group_has_no_tags(ec2, net):
    (group,) = ec2.describe_security_groups(GroupIds=[net.group("group")])["SecurityGroups"]

    assert "Tags" not in group


@needs("what_is_not_there_is_left_out")
def test_interface_without_public_address_has_no_association(ec2, net):
    (nic,) = instance(ec2, net.launch())["NetworkInterfaces"]

    assert "Association" not in nic


# -- tags --------------------------------------------------------------------------------------


@needs("tags_are_checked")
@pytest.mark.parametrize(
    ("key", "value"),
    [("aws:key", "value"), ("k" * 129, "value"), ("key", "v" * 257)],
    ids=["reserved", "long-key", "long-value"],
)
def test_tag_that_ec2_does_not_allow_is_refused(ec2, net, key, value):
    good = {"Key": "k" * 127, "Value": "v" * 256}

    with refused("InvalidParameterValue"):
        ec2.create_tags(Resources=[net.subnet], Tags=[good, {"Key": key, "Value": value}])
    assert tags(ec2, net.subnet) == {}
    ec2.create_tags(Resources=[net.subnet], Tags=[good])


@needs("tag_keys_that_the_metadata_service_shows_are_checked")
@pytest.mark.parametrize("key", ["a/b", "a b", "_index", "ä"])
def test_a_tag_key_that_the_metadata_service_cannot_show_is_refused(ec2, net, key):
    shown = net.launch(MetadataOptions={"InstanceMetadataTags": "enabled"})
    other = net.launch()
    good = {"Key": "forensic:a+b=c.d,e_f@g-1", "Value": "a/b c"}

    with refused("InvalidParameterValue"):
        ec2.create_tags(Resources=[other, shown], Tags=[good, {"Key": key, "Value": ""}])
    assert tags(ec2, shown) == tags(ec2, other) == {}
    ec2.create_tags(Resources=[shown], Tags=[good])
    ec2.create_tags(Resources=[other, net.subnet], Tags=[{"Key": key, "Value": ""}])


@needs("reserved_tags_do_not_count")
def test_fifty_tags_besides_the_reserved_ones(ec2, net):
    template = ec2.create_launch_template(
        LaunchTemplateName="template", LaunchTemplateData={"ImageId": "ami-12345678"}
    )["LaunchTemplate"]["LaunchTemplateId"]
    i = net.launch(LaunchTemplate={"LaunchTemplateId": template})
    assert all(key.startswith("aws:") for key in tags(ec2, i))
    fifty = [{"Key": f"key-{number}", "Value": ""} for number in range(50)]

    ec2.create_tags(Resources=[i], Tags=fifty)
    with refused("TagLimitExceeded"):
        ec2.create_tags(Resources=[net.vpc, i], Tags=[{"Key": "one", "Value": "more"}])
    assert tags(ec2, net.vpc) == {}


@needs("only_what_exists_is_tagged")
@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("eni-0123456789abcdef0", "InvalidNetworkInterfaceID.NotFound"),
        ("acl-0123456789abcdef0", "InvalidNetworkAclID.NotFound"),
    ],
)
def test_tagging_something_missing_tags_nothing(ec2, net, missing, code):
    with refused(code):
        ec2.create_tags(Resources=[net.subnet, missing], Tags=[{"Key": "k", "Value": "v"}])
    assert tags(ec2, net.subnet) == {}


# -- what moto has right, and the pack relies on -----------------------------------------------


def rules(client, group_id: str) -> list[dict]:
    wanted = [{"Name": "group-id", "Values": [group_id]}]
    return client.describe_security_group_rules(Filters=wanted)["SecurityGroupRules"]


def every_kind_of_permission(client, group_id: str) -> dict:
    """Four rules: an IPv4 range, an IPv6 range, a prefix list and the group itself."""
    prefixes = client.create_managed_prefix_list(
        PrefixListName="prefixes", AddressFamily="IPv4", MaxEntries=1
    )["PrefixList"]["PrefixListId"]
    return {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "ipv4"}],
        "Ipv6Ranges": [{"CidrIpv6": "fd00::/8", "Description": "ipv6"}],
        "PrefixListIds": [{"PrefixListId": prefixes, "Description": "list"}],
        "UserIdGroupPairs": [{"GroupId": group_id, "Description": "group"}],
    }


def test_new_group_in_a_vpc_with_ipv6_lets_everything_out(ec2, net):
    described = {
        (r["IsEgress"], r.get("CidrIpv4"), r.get("CidrIpv6")) for r in rules(ec2, net.group("g"))
    }

    assert described == {(True, "0.0.0.0/0", None), (True, None, "::/0")}


def test_rules_of_every_kind_are_listed_and_revoked_by_id(ec2, net):
    group = net.group("group")
    permission = every_kind_of_permission(ec2, group)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission])

    both = {True: [], False: []}
    for rule in rules(ec2, group):
        both[rule["IsEgress"]].append(rule["SecurityGroupRuleId"])
    assert (len(both[True]), len(both[False])) == (2 + 4, 4)
    ec2.revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=both[True])
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=both[False])

    assert rules(ec2, group) == []
    (described,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert described["IpPermissions"] == described["IpPermissionsEgress"] == []


def test_rules_of_every_kind_are_revoked_as_they_are_described(ec2, net):
    group = net.group("group")
    permission = every_kind_of_permission(ec2, group)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[permission])
    (described,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]

    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=described["IpPermissions"])
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=described["IpPermissionsEgress"])

    assert rules(ec2, group) == []


def test_second_group_of_the_same_name_in_a_vpc_is_refused(ec2, net):
    net.group("twin")

    with refused("InvalidGroup.Duplicate"):
        net.group("twin")
    Network(ec2, "10.1.0.0/16").group("twin")


def test_untagged_instance_has_no_tags(ec2, net):
    assert "Tags" not in instance(ec2, net.launch())


def test_interfaces_are_found_by_their_instance(ec2, net):
    group = net.group("group")
    i = net.launch_with_interfaces([group], [group])
    net.launch()
    wanted = [{"Name": "attachment.instance-id", "Values": [i]}]

    found = ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]
    assert sorted(nic["NetworkInterfaceId"] for nic in found) == sorted(interfaces(ec2, i))


def test_interface_without_groups_gets_the_default_group(ec2, net):
    (default,) = ec2.describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [net.vpc]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"]

    assert interface_groups(ec2, net.interface()) == [default["GroupId"]]


def test_auto_scaling_replaces_a_terminated_instance(ec2, net):
    """The corrections of terminated instances do not disturb moto's other services."""
    ec2.create_launch_template(
        LaunchTemplateName="template",
        LaunchTemplateData={"ImageId": "ami-12345678", "SecurityGroupIds": [net.group("group")]},
    )
    scaling = boto3.client("autoscaling", **ACCOUNT)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="asg",
        LaunchTemplate={"LaunchTemplateName": "template"},
        MinSize=1,
        MaxSize=1,
        VPCZoneIdentifier=net.subnet,
    )

    def members() -> list[str]:
        (asg,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return [member["InstanceId"] for member in asg["Instances"]]

    (first,) = members()
    ec2.terminate_instances(InstanceIds=[first])
    (second,) = members()

    assert second != first
    assert instance(ec2, second)["SecurityGroups"][0]["GroupName"] == "group"


# -- applying and lifting ----------------------------------------------------------------------


def fingerprint() -> list[object]:
    """Everything that a correction may replace."""
    patched = [
        *(double.NetworkInterface, double.NetworkInterfaceBackend, double.Instance),
        *(double.InstanceBackend, double.SecurityGroupBackend, double.TagBackend),
        *(double.EC2Backend, double.ElasticNetworkInterfaces, double.InstanceResponse),
        *(double.TagResponse, double.NetworkAcl, double.NetworkAclBackend, double.General),
        *(double.EBSBackend, double.ElasticBlockStore),
    ]
    mappings = [
        double.utils.filter_dict_attribute_mapping,
        double.EC2BaseResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER,
    ]
    return [dict(vars(cls)) for cls in patched] + [dict(mapping) for mapping in mappings]


@pytest.mark.parametrize("name", double.CORRECTIONS)
def test_correction_is_documented_and_lifted_without_trace(name):
    before = fingerprint()
    with double.corrected_ec2(name):
        assert fingerprint() != before
    assert fingerprint() == before
    assert "moto" in double.CORRECTIONS[name].__doc__


def test_corrections_are_lifted_when_the_block_fails():
    before = fingerprint()
    with pytest.raises(RuntimeError), double.corrected_ec2():
        raise RuntimeError
    assert fingerprint() == before


def test_blocks_can_be_nested():
    before = fingerprint()
    with double.corrected_ec2():
        all_applied = fingerprint()
        with double.corrected_ec2(), double.corrected_ec2("tags_are_checked"):
            assert fingerprint() == all_applied
        assert fingerprint() == all_applied
    assert fingerprint() == before


def test_blocks_of_two_threads_can_overlap():
    before = fingerprint()
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with double.corrected_ec2():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=second)
    with double.corrected_ec2():
        thread.start()
        assert entered.wait(10)
    assert fingerprint() != before  # the first block has ended, the second still holds
    leave.set()
    thread.join(10)
    assert fingerprint() == before


def test_unknown_correction_is_an_error():
    with pytest.raises(KeyError), double.corrected_ec2("no_such_correction"):
        pass


# -- network ACLs


def network_acl(client, net: Network) -> str:
    return client.create_network_acl(VpcId=net.vpc)["NetworkAcl"]["NetworkAclId"]


def acl_rules(client, acl: str, egress: bool = False) -> list[tuple]:
    (found,) = client.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"]
    return sorted(
        (e["RuleNumber"], e["RuleAction"], e.get("CidrBlock") or e["Ipv6CidrBlock"])
        for e in found["Entries"]
        if e["Egress"] is egress
    )


def deny(client, acl: str, number: int, egress: bool = False, **cidr: str) -> None:
    client.create_network_acl_entry(
        NetworkAclId=acl,
        RuleNumber=number,
        Protocol="-1",
        RuleAction="deny",
        Egress=egress,
        **(cidr or {"CidrBlock": f"198.51.100.{number % 250}/32"}),
    )


@needs("network_acl_ends_in_a_deny")
@pytest.mark.parametrize("egress", [False, True])
def test_every_network_acl_ends_in_a_deny_for_each_ip_version(ec2, net, egress):
    filters = [{"Name": "vpc-id", "Values": [net.vpc]}]
    (default,) = ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    ending = [(32767, "deny", "0.0.0.0/0"), (32768, "deny", "::/0")]

    assert acl_rules(ec2, network_acl(ec2, net), egress) == ending
    assert acl_rules(ec2, default["NetworkAclId"], egress) == [
        (100, "allow", "0.0.0.0/0"),
        (101, "allow", "::/0"),
        *ending,
    ]


@needs("network_acl_ends_in_a_deny", "network_acl_has_a_quota_of_rules")
def test_a_network_acl_holds_twenty_rules_a_direction_and_ip_version(ec2, net):
    acl = network_acl(ec2, net)
    for number in range(1, 20):
        deny(ec2, acl, number)
    before = acl_rules(ec2, acl)

    with refused("NetworkAclEntryLimitExceeded"):
        deny(ec2, acl, 20)

    assert acl_rules(ec2, acl) == before
    deny(ec2, acl, 20, egress=True)
    deny(ec2, acl, 20, Ipv6CidrBlock="2001:db8::7/128")


@needs("unknown_network_acl_entry_is_named")
def test_deleting_an_unknown_network_acl_entry_names_it(ec2, net):
    acl = network_acl(ec2, net)
    deny(ec2, acl, 7)

    with refused("InvalidNetworkAclEntry.NotFound"):
        ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=7, Egress=True)

    ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=7, Egress=False)
    assert 7 not in [number for number, *_ in acl_rules(ec2, acl)]


@needs("network_acls_are_found_by_their_id")
def test_network_acls_are_found_by_their_id(ec2, net):
    acl = network_acl(ec2, net)
    filters = [{"Name": "network-acl-id", "Values": [acl, "acl-0abc1234def567890"]}]

    found = ec2.describe_network_acls(Filters=filters)["NetworkAcls"]

    assert [one["NetworkAclId"] for one in found] == [acl]


@needs("snapshots_can_be_locked")
def test_a_locked_snapshot_is_not_deleted(ec2, net):
    volume = ec2.create_volume(Size=1, AvailabilityZone=REGION + "a")["VolumeId"]
    one, other, third = (ec2.create_snapshot(VolumeId=volume)["SnapshotId"] for _ in range(3))

    def lock(snapshot, mode="governance", days=30, **more):
        return ec2.lock_snapshot(SnapshotId=snapshot, LockMode=mode, LockDuration=days, **more)

    def locks():
        shown = ec2.describe_locked_snapshots(SnapshotIds=[one, other])["Snapshots"]
        return {s["SnapshotId"]: (s["LockState"], s["LockDuration"]) for s in shown}

    assert locks() == {}
    locked = lock(one)
    assert (locked["LockExpiresOn"] - locked["LockCreatedOn"]).days == 30
    with refused("InvalidParameterCombination"):
        lock(other, CoolOffPeriod=1)
    lock(other, "compliance", CoolOffPeriod=1)
    assert locks() == {one: ("governance", 30), other: ("compliance-cooloff", 30)}
    for snapshot in (one, other):
        with refused("OperationNotPermitted"):
            ec2.delete_snapshot(SnapshotId=snapshot)
    ec2.unlock_snapshot(SnapshotId=other)
    lock(one, days=1)
    assert locks() == {one: ("governance", 1)}
    lock(one, "compliance", days=2)
    with refused("OperationNotPermitted"):
        ec2.unlock_snapshot(SnapshotId=one)
    with refused("OperationNotPermitted"):
        lock(one, days=3)
    lock(one, "compliance", days=3)
    ec2.delete_snapshot(SnapshotId=other)

    kept = ec2_backends["123456789012"][REGION].snapshots
    kept[third].status = "pending"
    assert "LockExpiresOn" not in lock(third)
    kept[third].status = "error"  # with which the lock ends
    assert ec2.describe_locked_snapshots(SnapshotIds=[third])["Snapshots"] == []
    with refused("IncorrectState"):
        lock(third)
    kept[one].lock["began"] -= timedelta(days=4)
    shown = ec2.describe_locked_snapshots()["Snapshots"]
    assert [(s["SnapshotId"], s["LockState"]) for s in shown] == [(one, "expired")]
    ec2.delete_snapshot(SnapshotId=one)


def test_what_moto_does_right_about_network_acls(ec2, net):
    acl = network_acl(ec2, net)
    deny(ec2, acl, 7)
    ec2.create_tags(Resources=[acl], Tags=[{"Key": "forensic:deny:2001:db8::7/128", "Value": "a"}])

    with refused("NetworkAclEntryAlreadyExists"):
        deny(ec2, acl, 7, CidrBlock="203.0.113.7/32")

    (found,) = ec2.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"]
    assert found["Tags"] == [{"Key": "forensic:deny:2001:db8::7/128", "Value": "a"}]
    filters = [{"Name": "association.subnet-id", "Values": [net.subnet]}]
    (shown,) = ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    assert shown["IsDefault"] and shown["VpcId"] == net.vpc


@needs("a_running_instance_has_a_screenshot")
def test_a_running_instance_has_a_screenshot(ec2, net):
    (launched,) = ec2.run_instances(
        ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=net.subnet
    )["Instances"]
    instance = launched["InstanceId"]

    shown = ec2.get_console_screenshot(InstanceId=instance)

    assert base64.b64decode(shown["ImageData"]).startswith(b"\xff\xd8")
    ec2.stop_instances(InstanceIds=[instance])
    with refused("IncorrectInstanceState"):
        ec2.get_console_screenshot(InstanceId=instance)


def test_every_correction_has_a_test():
    assert set(double.CORRECTIONS) == TESTED
