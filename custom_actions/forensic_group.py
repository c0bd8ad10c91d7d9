"""The forensic security group of a VPC: no ingress rule, no egress rule."""

import time

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import get_retry

from custom_actions import record, seal
from custom_actions.response import MISSHAPEN, REFUSED, ignoring, readable

# The role may change a group by its tag, which IAM too may learn of late: once more, and only then.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
when_tagged = get_retry(("UnauthorizedOperation",), max_attempts=2)

# The roles in infra/account.yml may empty only groups with this tag, and use no other.
MARK = {"Key": record.GROUP, "Value": "true"}

# A new group is not known everywhere at once.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/query-api-troubleshooting.html#eventual-consistency
when_visible = get_retry(("InvalidGroup.NotFound", "InvalidGroupId.NotFound"), max_attempts=5)

PERMISSIONS = (
    "ec2:DescribeSecurityGroups",
    "ec2:CreateSecurityGroup",
    "ec2:CreateTags",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:RevokeSecurityGroupEgress",
)


def find_forensic_groups(client, name, vpc_ids, owner=None):
    """The groups called `name` in these VPCs: {vpc id: group as EC2 describes it}.

    One call, whatever the number of VPCs (an instance can have interfaces in several). owner: the
    account whose groups count, since in a shared VPC others have groups of the same name, which
    can be neither emptied nor tagged from here.
    """
    groups = client.describe_security_groups(
        Filters=[
            {"Name": "group-name", "Values": [name]},
            {"Name": "vpc-id", "Values": sorted(vpc_ids)},
        ],
    )["SecurityGroups"]
    return {
        group["VpcId"]: group
        for group in groups
        if group["VpcId"] in vpc_ids
        and group["GroupName"] == name
        and owner in (None, group.get("OwnerId", owner))
    }


def create_forensic_group(
    client,
    name,
    vpc_id,
    mark=MARK,
    description="Isolation of compromised instances: no ingress, no egress",
):
    """Create the group in a VPC; when somebody else was faster, the one that is there.

    Returns the group's id. It still has the egress rules that EC2 gives every new group.
    """
    try:
        return client.create_security_group(
            GroupName=name,
            Description=description,
            VpcId=vpc_id,
            TagSpecifications=[
                {"ResourceType": "security-group", "Tags": [{"Key": "Name", "Value": name}, mark]}
            ],
        )["GroupId"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidGroup.Duplicate":
            raise
    return when_visible(_existing, client, name, vpc_id)


def _existing(client, name, vpc_id):
    group = find_forensic_groups(client, name, [vpc_id]).get(vpc_id)
    if group is None:
        raise ClientError(
            {"Error": {"Code": "InvalidGroup.NotFound", "Message": f"{name} in {vpc_id}"}},
            "DescribeSecurityGroups",
        )
    return group["GroupId"]


def describe_group(client, group_id):
    """A group as EC2 shows it, waited for when it has just been made."""
    found = when_visible(client.describe_security_groups, GroupIds=[group_id])
    return found["SecurityGroups"][0]


def is_empty(group):
    """Whether a group, as DescribeSecurityGroups shows it, has no rule in either direction."""
    return not group["IpPermissions"] and not group["IpPermissionsEgress"]


def empty_forensic_group(client, group_id):
    """Revoke every rule of the group, both directions and every family, and verify that.

    What EC2 shows is sent back to it, as c7n.resources.vpc.RemovePermissions does, so that no
    address family, prefix list or group reference can be missed. Raises PolicyExecutionError when
    rules are left, ClientError when EC2 refuses.
    """
    for delay in (0, 0, 0.5, 1):  # another invocation, or a person, may be at the same group
        time.sleep(delay)
        group = describe_group(client, group_id)
        if is_empty(group):
            return
        for revoke, rules in (
            (client.revoke_security_group_ingress, group["IpPermissions"]),
            (client.revoke_security_group_egress, group["IpPermissionsEgress"]),
        ):
            if rules:
                ignoring(
                    "InvalidPermission.NotFound", revoke, GroupId=group_id, IpPermissions=rules
                )
    raise PolicyExecutionError(
        f"forensic group {group_id} still has rules after they were revoked: "
        "something adds them again; remove them by hand"
    )


class ForensicGroups:
    """The forensic groups of the VPCs of one instance: found, made where missing, and empty.

    ids: {vpc id: group id}. empty: the VPCs whose group was seen to have no rule. made: the VPCs
    whose group was made here. errors: {vpc id: why there is no group, or why it still has rules}.
    """

    def __init__(self, client, name, owner=None):
        self.client = client
        self.name = name
        self.owner = owner
        self.ids = {}
        self.empty = set()
        self.made = set()
        self.errors = {}
        self.found = {}

    def look(self, vpc_ids):
        """Find the groups of the VPCs that have not been looked at: one call, or none."""
        new = set(vpc_ids) - set(self.found)
        if not new:
            return
        found = find_forensic_groups(self.client, self.name, new, self.owner)
        self.found |= dict.fromkeys(new) | found
        self.ids |= {vpc_id: group["GroupId"] for vpc_id, group in found.items()}
        self.empty |= {vpc_id for vpc_id, group in found.items() if is_empty(group)}

    def seals(self, instance_id):
        """The seals of an instance's record that the groups had when they were found.

        {vpc id: seal}, see custom_actions/seal.py. A claim alone is none.
        """
        read = {v: seal.read(group, instance_id) for v, group in self.found.items() if group}
        return {vpc_id: found for vpc_id, found in read.items() if not seal.is_claim(found)}

    def make_empty(self, vpc_id):
        """Make the group of a VPC, if there is none, and revoke every rule that it has."""
        try:
            if vpc_id in self.ids:
                empty_forensic_group(self.client, self.ids[vpc_id])
            else:
                self.ids[vpc_id] = create_forensic_group(self.client, self.name, vpc_id)
                self.made.add(vpc_id)
                when_tagged(empty_forensic_group, self.client, self.ids[vpc_id])
        except (*REFUSED, *MISSHAPEN) as error:
            self.errors[vpc_id] = readable(error)
            raise
        self.empty.add(vpc_id)

    def is_marked(self, vpc_id):
        """Whether the group of a VPC has the tag without which the role may not use it."""
        return vpc_id in self.made or MARK in (self.found.get(vpc_id) or {}).get("Tags", ())

    def of(self, vpc_id):
        """The id of the group of a VPC; raises what kept it from being made."""
        if vpc_id not in self.ids:
            raise self.errors[vpc_id]
        return self.ids[vpc_id]
