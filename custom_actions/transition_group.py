"""The transition group of a VPC: every rule allows everything, so that flows need no tracking.

See `cut-tracked-connections` of `isolate-instance` for what it is good for and what it costs.
"""

from c7n.exceptions import ClientError, PolicyExecutionError

from custom_actions import forensic_group
from custom_actions.response import retry

# Reserved: a group of this name is never recorded as an original group of an interface.
NAME = "ForensicTransitionGroup"

# Another value than the forensic group's, so that the role's right to add rules to a group can be
# limited to this one, and so that whoever keeps forensic groups empty leaves this one alone.
MARK = {"Key": forensic_group.MARK["Key"], "Value": "transition"}

PERMISSIONS = ("ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress")

IPV4 = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
IPV6 = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


def holds_transition_group(interface):
    """Whether an interface, as any describe shows it, has been left in the transition group."""
    return any(group["GroupName"] == NAME for group in interface["Groups"])


def transition_groups(client, vpc_ids):
    """Find or make the group of each VPC and see that it allows everything.

    Returns ({vpc id: group id}, {vpc id: why there is none}). One call when all is there.
    """
    groups, errors = {}, {}
    try:
        found = forensic_group.find_forensic_groups(client, NAME, vpc_ids)
    except ClientError as error:
        return groups, dict.fromkeys(vpc_ids, error)
    for vpc_id in vpc_ids:
        try:
            if vpc_id not in found:
                group_id = forensic_group.create_forensic_group(
                    client, NAME, vpc_id, mark=MARK, description="Allows everything: never attach"
                )
                found[vpc_id] = _describe(client, group_id)
            groups[vpc_id] = _opened(client, found[vpc_id])
        except (ClientError, PolicyExecutionError) as error:
            errors[vpc_id] = error
    return groups, errors


def _opened(client, group):
    """Add the rules that are missing, read them back, and return the group's id."""
    group_id = group["GroupId"]
    if not missing_rules(group):
        return group_id
    if MARK not in group.get("Tags", ()):
        # Somebody's own group: rules added to it would open that person's instances.
        raise PolicyExecutionError(
            f"{NAME} {group_id} has not the tag {MARK['Key']}={MARK['Value']}: it is left as it is"
        )
    for direction, rule in missing_rules(group):
        authorize = {
            "IpPermissions": client.authorize_security_group_ingress,
            "IpPermissionsEgress": client.authorize_security_group_egress,
        }[direction]
        retry(
            authorize,
            GroupId=group_id,
            IpPermissions=[rule],
            ignore_err_codes=("InvalidPermission.Duplicate",),
        )
    if missing := missing_rules(_describe(client, group_id)):
        raise PolicyExecutionError(f"{NAME} {group_id} does not allow everything: {missing}")
    return group_id


def missing_rules(group):
    """The rules that a group lacks to allow everything: [(direction, rule)]."""
    return [
        (direction, rule)
        for direction in ("IpPermissions", "IpPermissionsEgress")
        for rule, ranges in ((IPV4, "IpRanges"), (IPV6, "Ipv6Ranges"))
        if not any(
            present["IpProtocol"] == "-1" and _cidr(rule[ranges][0]) in map(_cidr, present[ranges])
            for present in group[direction]
        )
    ]


def _cidr(item):
    return item.get("CidrIp") or item.get("CidrIpv6")


def _describe(client, group_id):
    return forensic_group.when_visible(retry, client.describe_security_groups, GroupIds=[group_id])[
        "SecurityGroups"
    ][0]
