"""The transition group of a VPC: every rule allows everything, so that flows need no tracking.

See `cut-tracked-connections` of `isolate-instance` for what it is good for and what it costs.
"""

import logging

from c7n.exceptions import PolicyExecutionError

from custom_actions import forensic_group
from custom_actions.response import REFUSED, describe, ignoring

log = logging.getLogger("custodian.actions.isolate")

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
    except REFUSED as error:
        return groups, dict.fromkeys(vpc_ids, error)
    for vpc_id in vpc_ids:
        try:
            if vpc_id not in found:
                group_id = forensic_group.create_forensic_group(
                    client, NAME, vpc_id, mark=MARK, description="Allows everything: never attach"
                )
                made = forensic_group.describe_group(client, group_id)
                groups[vpc_id] = forensic_group.when_tagged(_opened, client, made)
            else:
                groups[vpc_id] = _opened(client, found[vpc_id])
        except REFUSED as error:
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
        ignoring("InvalidPermission.Duplicate", authorize, GroupId=group_id, IpPermissions=[rule])
    if missing := missing_rules(forensic_group.describe_group(client, group_id)):
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


class Transition:
    """Brings interfaces through the transition group of their VPC into the forensic group.

    not_cut: {interface id: why it did not go through}, now or, by the record, in an earlier run.
    """

    def __init__(self, client, not_cut=()):
        self.client = client
        self.not_cut = dict.fromkeys(
            not_cut, PolicyExecutionError("it was isolated without the transition group")
        )
        self.groups = {}  # VPC id: id of its transition group
        self.errors = {}  # VPC id: why there is none

    def find(self, interfaces):
        """Find or make the group where there is an interface to bring through it."""
        vpc_ids = {i["VpcId"] for i in interfaces if not holds_transition_group(i)}
        vpc_ids -= {*self.groups, *self.errors}
        if vpc_ids:
            found, errors = transition_groups(self.client, vpc_ids)
            self.groups |= found
            self.errors |= errors

    def bring_through(self, interface, set_groups, forensic, before):
        """Put an interface into the transition group, then into the group `forensic`.

        set_groups(interface, group ids): changes an interface. before: the groups that it had.
        """
        opened = self.open(interface, set_groups)
        try:
            set_groups(interface, [forensic])
        except REFUSED as cause:
            if not opened:
                raise
            self.close(interface, set_groups, forensic, before, cause)

    def open(self, interface, set_groups):
        """Put an interface into the transition group; whether it may be in there afterwards."""
        if holds_transition_group(interface):
            return True
        interface_id, vpc_id = interface["NetworkInterfaceId"], interface["VpcId"]
        if vpc_id in self.errors:
            self.not_cut[interface_id] = self.errors[vpc_id]
            return False
        try:
            set_groups(interface, [self.groups[vpc_id]])
            self.not_cut.pop(interface_id, None)
        except REFUSED as error:
            self.not_cut[interface_id] = error
        return True  # also after an error: the answer may have been lost, not the change

    def close(self, interface, set_groups, forensic, before, cause):
        """Take an interface out of the transition group when the swap after it failed.

        The forensic group once more, or else the groups that it had: those are open to somebody,
        the transition group is open to all.
        """
        if not holds_transition_group(interface):
            before = [group["GroupId"] for group in interface["Groups"]]
        for groups in filter(None, ([forensic], list(before))):
            try:
                set_groups(interface, groups)
            except REFUSED as error:
                log.error("%s is still open: %s", interface["NetworkInterfaceId"], describe(error))
                continue
            if groups == [forensic]:
                return
            raise PolicyExecutionError(
                f"{describe(cause)}; it has the groups again that it had"
            ) from cause
        raise PolicyExecutionError(
            f"{describe(cause)}; it may be left in {NAME}, which allows EVERYTHING: "
            "give it another group now"
        ) from cause
