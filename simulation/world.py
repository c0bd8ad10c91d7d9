"""The world that a finding is about, built in moto with exactly the finding's own ids.

    world = build(cloud, event)
    world.target, world.neighbours     # instance ids
    world.targets                      # of an attack sequence several
    world.snapshot()                   # interfaces and groups of each, before and after

Around the instances of the finding stand two more, in the first one's first security group and
subnet: they must not be touched. For a finding of a custom threat list the second one is the
malicious instance of the workshop: it holds the finding's remote address as its Elastic IP, and the
list is in S3.

What a finding leaves out is made up, and what cannot exist (an id that EC2 could not have issued,
the instance i-99999999 of sample findings) is not made. Nor are, of an attack sequence, instances
of another account or region, and those of which it describes nothing: EC2 does not know them. Calls
go to the server, as the account's administrator; EC2 chooses ids itself, so for the length of one
call moto's generator is replaced.
An account and region can hold one such world; `Cloud.reset` makes room for the next.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from unittest import mock

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from custom_actions.finding import is_sequence, mapping
from custom_actions.finding_file import account_and_region

from . import guardduty
from .cloud import Cloud
from .ec2 import groups_per_interface

SAMPLE_INSTANCE = "i-99999999"
DEFAULT_NETWORK = "10.0.0.0/24"
TRUST = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
"Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"""

# Where moto 5.2.5 makes the ids.
GENERATORS = {
    "i": "moto.ec2.models.instances.random_instance_id",
    "eni": "moto.ec2.models.elastic_network_interfaces.random_eni_id",
    "sg": "moto.ec2.models.security_groups.random_security_group_id",
    "subnet": "moto.ec2.models.subnets.random_subnet_id",
    "vpc": "moto.ec2.models.vpcs.random_vpc_id",
}


@dataclass
class World:
    """What was built. target is None when the finding has no instance that can exist."""

    cloud: Cloud
    account_id: str
    region: str
    targets: list[str] = field(default_factory=list)
    neighbours: list[str] = field(default_factory=list)

    @property
    def target(self) -> str | None:
        return self.targets[0] if self.targets else None

    @property
    def instances(self) -> list[str]:
        return [*self.targets, *self.neighbours]

    def client(self, service: str):
        """A client in the account and region of the world."""
        return self.cloud.client(service, self.account_id, self.region)

    def snapshot(self) -> dict[str, dict]:
        """What there is now, as EC2 describes it: {instance id: {name, state, tags, interfaces}}.

        interfaces: {id, vpc_id, subnet_id, private_ip, tags, groups: [{id, name}]} each, by device
        index. Ready for JSON.
        """
        if not self.instances:
            return {}
        ec2 = self.client("ec2")
        pages = ec2.describe_instances(InstanceIds=self.instances)["Reservations"]
        found = {item["InstanceId"]: item for page in pages for item in page["Instances"]}
        interfaces = ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": self.instances}]
        )["NetworkInterfaces"]
        interfaces.sort(key=lambda interface: interface["Attachment"]["DeviceIndex"])
        return {
            instance_id: {
                "name": _tags(found[instance_id].get("Tags", [])).get("Name", ""),
                "state": found[instance_id]["State"]["Name"],
                "tags": _tags(found[instance_id].get("Tags", [])),
                "interfaces": [
                    {
                        "id": interface["NetworkInterfaceId"],
                        "vpc_id": interface["VpcId"],
                        "subnet_id": interface["SubnetId"],
                        "private_ip": interface.get("PrivateIpAddress"),
                        "tags": _tags(interface["TagSet"]),
                        "groups": [
                            {"id": group["GroupId"], "name": group["GroupName"]}
                            for group in interface["Groups"]
                        ],
                    }
                    for interface in interfaces
                    if interface["Attachment"]["InstanceId"] == instance_id
                ],
            }
            for instance_id in self.instances
            if instance_id in found
        }

    def is_isolated(self, instance_id: str, name: str | None = None) -> bool:
        """Whether every interface has one group alone, and that has no rule: a forensic one.

        name: that the group must have; by default any, since a policy may call it otherwise.
        """
        interfaces = self.snapshot()[instance_id]["interfaces"]
        if not interfaces or any(len(interface["groups"]) != 1 for interface in interfaces):
            return False
        groups = [interface["groups"][0] for interface in interfaces]
        if name and any(group["name"] != name for group in groups):
            return False
        ids = sorted({group["id"] for group in groups})
        shown = self.client("ec2").describe_security_groups(GroupIds=ids)["SecurityGroups"]
        return not any(g["IpPermissions"] or g["IpPermissionsEgress"] for g in shown)


def build(cloud: Cloud, event: dict, target: bool = True) -> World:
    """Build the world of an event; see the module. target: False leaves out the instance itself."""
    account_id, region = account_and_region(event)
    world = World(cloud, account_id, region)
    # moto makes a region's default VPC with the first call there, which must not be one whose ids
    # are chosen
    world.client("ec2").describe_vpcs()
    guardduty.turn_on(account_id, region)  # whose finding it is
    resource = event["detail"].get("resource")
    if not isinstance(resource, dict):
        return world
    _build_identity(world, resource)
    if found := _details(world, event):
        _Builder(world, event["detail"], found).build(target)
    return world


def _details(world: World, event: dict) -> list[dict]:
    """What a finding says of each instance that it is about, as `instanceDetails`."""
    details = event["detail"]["resource"].get("instanceDetails")
    if isinstance(details, dict):
        return [details]
    interfaces, found = {}, {}
    resources = mapping(event, "detail", "service", "detection", "sequence").get("resources")
    resources = resources if is_sequence(event) and isinstance(resources, list) else []
    for resource in resources:
        if interface := mapping(resource, "data", "ec2NetworkInterface"):
            address, *_ = [*(interface.get("privateIpAddresses") or []), {}]
            interfaces[resource.get("uid")] = interface | {
                "networkInterfaceId": resource.get("uid"),
                "subnetId": interface.get("subNetId"),
                "privateIpAddress": address.get("privateIpAddress"),
            }
    for resource in resources:
        instance = mapping(resource, "data", "ec2Instance")
        place = resource.get("accountId"), resource.get("region")
        if instance and place == (world.account_id, world.region):
            instance_id = str(resource.get("uid")).rpartition("/")[2]
            uids = instance.get("ec2NetworkInterfaceUids") or []
            found[instance_id] = instance | {
                "instanceId": instance_id,
                "iamInstanceProfile": instance.get("IamInstanceProfile"),
                "tags": resource.get("tags"),
                "networkInterfaces": [interfaces[uid] for uid in uids if uid in interfaces],
            }
    return list(found.values())


class _Builder:
    """Builds the instances of one finding."""

    def __init__(self, world: World, detail: dict, found: list[dict]):
        self.world = world
        self.detail = detail
        self.found = found
        self.interfaces = [interface for instance in found for interface in _interfaces(instance)]
        self.ec2 = world.client("ec2")
        self.networks = plan_networks(self.interfaces)
        self.vpcs: dict[str | None, str] = {}
        self.subnets: dict[tuple, str] = {}
        self.groups: dict[tuple, str] = {}
        self.addresses = {_address(interface) for interface in self.interfaces}

    def build(self, target: bool) -> None:
        most = max(len(_groups(interface)) for interface in self.interfaces)
        if most > 5:
            # The account has had its quota raised, for as long as the cloud lasts.
            self.world.cloud.enter_context(groups_per_interface(most))
        for instance in self.found if target else ():
            instance_id = instance.get("instanceId")
            if _issued("i", instance_id) and instance_id != SAMPLE_INSTANCE:
                self._build_target(instance, instance_id)
        first = self.interfaces[0]
        remote = self._remote_address()
        names = ("Neighbour", "Malicious") if remote else ("First Neighbour", "Second Neighbour")
        for name in names:
            self.world.neighbours.append(self._build_neighbour(first, name))
        if remote:
            self._give_public_address(remote, InstanceId=self.world.neighbours[1])
            self._build_threat_list(remote)
        self._build_target_group(first)
        for instance in self.found:
            if instance.get("instanceId") in self.world.targets:
                self._change_state(instance)

    def _build_target(self, instance: dict, instance_id: str) -> None:
        launch = []
        for index, interface in enumerate(_interfaces(instance)):
            interface_id = self._build_interface(interface)
            launch.append({"DeviceIndex": index, "NetworkInterfaceId": interface_id})
        with _forced("i", instance_id):
            self.ec2.run_instances(
                ImageId=instance.get("imageId") or "ami-0123456789abcdef0",
                InstanceType=instance.get("instanceType") or "t3.micro",
                MinCount=1,
                MaxCount=1,
                NetworkInterfaces=launch,
                **self._profile(instance),
            )
        self.world.targets.append(instance_id)
        for interface, item in zip(_interfaces(instance), launch, strict=True):
            if interface.get("publicIp"):
                interface_id = item["NetworkInterfaceId"]
                self._give_public_address(interface["publicIp"], NetworkInterfaceId=interface_id)
        # Not by CreateTags, which refuses the aws: tags that a finding may list.
        backend = ec2_backends[self.world.account_id][self.world.region]
        for tag in instance.get("tags") or []:
            if isinstance(tag, dict) and tag.get("key"):
                backend.tags[instance_id][tag["key"]] = str(tag.get("value") or "")

    def _change_state(self, instance: dict) -> None:
        instance_id, state = instance["instanceId"], instance.get("instanceState")
        if state in ("stopped", "stopping"):
            self.ec2.stop_instances(InstanceIds=[instance_id])
        elif state in ("terminated", "shutting-down"):
            self.ec2.terminate_instances(InstanceIds=[instance_id])

    def _build_interface(self, interface: dict) -> str:
        arguments = {
            "SubnetId": self._subnet(interface),
            "Groups": [self._group(interface, group) for group in _groups(interface)],
        }
        address = _address(interface)
        if not address or not _usable(address, self.networks[_subnet_key(interface)]):
            address = self._free_address(interface)
        arguments["PrivateIpAddress"] = str(address)
        if interface.get("ipv6Addresses"):
            arguments["Ipv6Addresses"] = [
                {"Ipv6Address": address} for address in interface["ipv6Addresses"]
            ]
        if not arguments["Groups"]:
            del arguments["Groups"]
        with _forced("eni", interface.get("networkInterfaceId")):
            made = self.ec2.create_network_interface(**arguments)
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def _build_neighbour(self, interface: dict, name: str) -> str:
        tags = [{"Key": "Name", "Value": f"GuardDuty-Example: {name} Instance"}]
        groups = [self._group(interface, group) for group in _groups(interface)[:1]]
        made = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0",
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            SubnetId=self._subnet(interface),
            PrivateIpAddress=str(self._free_address(interface)),
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            **({"SecurityGroupIds": groups} if groups else {}),
        )
        return made["Instances"][0]["InstanceId"]

    def _vpc(self, interface: dict) -> str:
        key = interface.get("vpcId")
        if key not in self.vpcs:
            mine = [one for one in self.interfaces if one.get("vpcId") == key]
            networks = [self.networks[_subnet_key(one)] for one in mine]
            # A VPC is a /16 at most; a further range is a further association.
            blocks = dict.fromkeys(network.supernet(new_prefix=16) for network in networks)
            first, *others = map(str, blocks)
            # Each VPC comes with a group named default; nobody can make another of that name.
            default = next(
                (
                    group.get("groupId")
                    for one in mine
                    for group in _groups(one)
                    if group.get("groupName") == "default" and _issued("sg", group.get("groupId"))
                ),
                None,
            )
            with _forced("vpc", key), _forced("sg", default):
                vpc_id = self.ec2.create_vpc(CidrBlock=first)["Vpc"]["VpcId"]
            for block in others:
                self.ec2.associate_vpc_cidr_block(VpcId=vpc_id, CidrBlock=block)
            if default:
                self.groups[(key, default)] = default
            self.vpcs[key] = vpc_id
        return self.vpcs[key]

    def _subnet(self, interface: dict) -> str:
        key = _subnet_key(interface)
        if key not in self.subnets:
            vpc_id = self._vpc(interface)
            with _forced("subnet", interface.get("subnetId")):
                made = self.ec2.create_subnet(
                    VpcId=vpc_id,
                    CidrBlock=str(self.networks[key]),
                    AvailabilityZone=self._zone(),
                )
            self.subnets[key] = made["Subnet"]["SubnetId"]
        return self.subnets[key]

    def _free_address(self, interface: dict) -> IPv4Address:
        """An address of the interface's subnet that nothing has. moto may give one twice."""
        network = self.networks[_subnet_key(interface)]
        free = next(
            address
            for address in network
            if _usable(address, network) and address not in self.addresses
        )
        self.addresses.add(free)
        return free

    def _group(self, interface: dict, group: dict) -> str:
        vpc_id = self._vpc(interface)
        group_id = group.get("groupId")
        key = (interface.get("vpcId"), group_id or group.get("groupName"))
        if key not in self.groups:
            name = group.get("groupName") or group_id or "unnamed"
            taken = {
                other["GroupName"]
                for other in self.ec2.describe_security_groups(
                    Filters=[{"Name": "vpc-id", "Values": [vpc_id]}]
                )["SecurityGroups"]
            }
            if name in taken:
                name = f"{name} ({group_id})"
            with _forced("sg", group_id):
                made = self.ec2.create_security_group(
                    GroupName=name, Description="of the finding", VpcId=vpc_id
                )
            self.groups[key] = made["GroupId"]
            self.ec2.authorize_security_group_ingress(
                GroupId=made["GroupId"],
                IpPermissions=[
                    {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made["GroupId"]}]}
                ],
            )
        return self.groups[key]

    def _zone(self) -> str:
        zones = self.ec2.describe_availability_zones()["AvailabilityZones"]
        names = [zone["ZoneName"] for zone in zones]
        zone = self.found[0].get("availabilityZone")
        return zone if zone in names else names[0]

    def _profile(self, instance: dict) -> dict:
        arn = (instance.get("iamInstanceProfile") or {}).get("arn")
        if not arn:
            return {}
        name = arn.rpartition("/")[2]
        details = self.detail["resource"].get("accessKeyDetails") or {}
        role = details.get("userName") or name
        iam = self.world.client("iam")
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUST)
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)
        return {"IamInstanceProfile": {"Name": name}}

    def _remote_address(self) -> str | None:
        """The remote IPv4 address, when the finding says that it is on a custom threat list."""
        action = (self.detail.get("service") or {}).get("action") or {}
        if not str(self.detail.get("type")).endswith(".Custom") or not isinstance(action, dict):
            return None
        for kind in action.values():
            if isinstance(kind, dict) and isinstance(kind.get("remoteIpDetails"), dict):
                return kind["remoteIpDetails"].get("ipAddressV4") or None
        return None

    def _give_public_address(self, address: str, **holder: str) -> None:
        """Associate an address with an InstanceId or a NetworkInterfaceId."""
        # EC2 allocates a given address only if it was the account's before; moto takes any.
        allocation = self.ec2.allocate_address(Domain="vpc", Address=address)["AllocationId"]
        self.ec2.associate_address(AllocationId=allocation, **holder)

    def _build_threat_list(self, address: str) -> None:
        """The list that the administrator uploaded. moto has no GuardDuty threat-intel sets."""
        info = (self.detail.get("service") or {}).get("additionalInfo") or {}
        name = info.get("threatListName") or "threat-list"
        bucket = f"guardduty-example-{self.world.account_id}-{self.world.region}"
        s3 = self.world.client("s3")
        # S3 refuses its own first region here.
        where = {"CreateBucketConfiguration": {"LocationConstraint": self.world.region}}
        s3.create_bucket(Bucket=bucket, **({} if self.world.region == "us-east-1" else where))
        s3.put_object(Bucket=bucket, Key=f"{name}.txt", Body=f"{address}\n".encode())

    def _build_target_group(self, interface: dict) -> None:
        balancing = self.world.client("elbv2")
        made = balancing.create_target_group(
            Name="GuardDuty-Example", Protocol="HTTP", Port=80, VpcId=self._vpc(interface)
        )
        balancing.register_targets(
            TargetGroupArn=made["TargetGroups"][0]["TargetGroupArn"],
            Targets=[{"Id": instance_id} for instance_id in self.world.instances],
        )


def _build_identity(world: World, resource: dict) -> None:
    """The user or role whose credentials a finding names, with its ids and access key."""
    details = resource.get("accessKeyDetails") or {}
    name, kind = details.get("userName"), details.get("userType")
    iam, backend = world.client("iam"), iam_backends[world.account_id]["aws"]
    principal = (details.get("principalId") or "").partition(":")[0]
    if not re.fullmatch(r"[\w+=,.@-]{1,64}", name or "", re.ASCII):
        return  # IAM has no such names
    if kind in ("AssumedRole", "Role"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
        role = next(role for role in backend.roles.values() if role.name == name)
        if principal:
            backend.roles[principal] = backend.roles.pop(role.id)
            role.id = principal
    elif kind == "IAMUser":
        iam.create_user(UserName=name)
        user = backend.users[name]
        user.id = principal or user.id
        if details.get("accessKeyId"):
            key = backend.create_access_key(name)
            del backend.access_keys[key.access_key_id]
            key.access_key_id = details["accessKeyId"]
            backend.access_keys[key.access_key_id] = key


def plan_networks(interfaces: list[dict]) -> dict[tuple, IPv4Network]:
    """A network for each subnet of a finding's interfaces: {(vpc id, subnet id): network}.

    It holds the addresses that the interfaces have in the subnet and none of another one in the
    same VPC: a /24 where that is possible, else the narrower or wider network that is.
    """
    addresses: dict[tuple, list[IPv4Address]] = {}
    for interface in interfaces:
        mine = addresses.setdefault(_subnet_key(interface), [])
        mine += [_address(interface)] if _address(interface) else []
    planned: dict[tuple, IPv4Network] = {}
    for key in sorted(addresses, key=lambda key: not addresses[key]):
        vpc = key[0]
        foreign = [
            address
            for other, others in addresses.items()
            if other != key and other[0] == vpc
            for address in others
        ]
        used = [network for other, network in planned.items() if other[0] == vpc]
        planned[key] = next(
            network
            for network in _candidates(addresses[key])
            if not any(address in network for address in foreign)
            and not any(network.overlaps(other) for other in used)
        )
    return planned


def _candidates(addresses: list[IPv4Address]) -> Iterator[IPv4Network]:
    """Networks for a subnet with these addresses, the best first."""
    if addresses:
        for prefix in (24, 25, 26, 27, 28, 23, 22, 21, 20, 19, 18, 17, 16):
            network = IPv4Network((addresses[0], prefix), strict=False)
            if all(address in network for address in addresses):
                yield network
    # No address, or addresses that cannot be in one subnet: any network does.
    yield from IPv4Network(DEFAULT_NETWORK).supernet(new_prefix=16).subnets(new_prefix=24)
    yield from IPv4Network("172.31.0.0/16").subnets(new_prefix=28)


def _usable(address: IPv4Address, network: IPv4Network) -> bool:
    """AWS keeps the first four addresses of a subnet and the last for itself."""
    last = int(network.broadcast_address)
    return int(network.network_address) + 4 <= int(address) < last


def _address(interface: dict) -> IPv4Address | None:
    try:
        return IPv4Address(interface.get("privateIpAddress") or "")
    except ValueError:
        return None


def _interfaces(instance: dict) -> list[dict]:
    interfaces = instance.get("networkInterfaces") or []
    return [one for one in interfaces if isinstance(one, dict)] or [{}]


def _groups(interface: dict) -> list[dict]:
    groups = interface.get("securityGroups") or []
    return [group for group in groups if isinstance(group, dict)]


def _subnet_key(interface: dict) -> tuple:
    return interface.get("vpcId"), interface.get("subnetId")


def _issued(kind: str, resource_id: object) -> bool:
    """Whether EC2 could have issued the id: 8 hexadecimal digits in the old days, else 17."""
    pattern = rf"{kind}-([0-9a-f]{{8}}|[0-9a-f]{{17}})"
    return isinstance(resource_id, str) and re.fullmatch(pattern, resource_id) is not None


@contextlib.contextmanager
def _forced(kind: str, resource_id: str | None) -> Iterator[None]:
    """The next resource of this kind gets this id; any id where it is missing or malformed."""
    if not _issued(kind, resource_id):
        yield
        return
    with mock.patch(GENERATORS[kind], return_value=resource_id):
        yield


def _tags(tags: list[dict]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}
