"""The arithmetic of network ACLs: what may be denied, what is, and where there is room for a rule.

Nothing here calls AWS; an ACL, an entry and a VPC are what EC2 describes.
"""

import re
from ipaddress import AddressValueError, ip_address, ip_network

from custom_actions import record
from custom_actions.record import DENY, tags_of

DENIED_NETWORK = re.compile(re.escape(DENY) + r"([0-9a-f.:]+/(?:32|128))")

DIRECTIONS = {False: "ingress", True: "egress"}

# Behind every rule: the last ones, which deny what no rule allowed, are 32767 and for IPv6 32768.
# https://docs.aws.amazon.com/vpc/latest/userguide/default-network-acl.html
END, HIGHEST = 32769, 32766

# Spelt out because Python's is_private and is_global change with its version and count the
# documentation networks (203.0.113.0/24, 2001:db8::/32) as private.
# https://www.iana.org/assignments/iana-ipv4-special-registry/
# https://www.iana.org/assignments/iana-ipv6-special-registry/
NEVER = {
    ip_network(network): reason
    for network, reason in {
        "0.0.0.0/8": "no host's address",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local, where AWS has its metadata service and resolver",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved or broadcast",
        "::/128": "no host's address",
        "::1/128": "loopback",
        "::ffff:0:0/96": "an IPv4 address in IPv6 notation",
        "fe80::/10": "link-local",
        "fd00:ec2::/32": "AWS's metadata service and resolver",
        "ff00::/8": "multicast",
    }.items()
}
PRIVATE = {
    ip_network(network): "private"
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    )
}


def vpc_networks(vpc):
    """All CIDR blocks of a VPC, as DescribeVpcs shows it."""
    blocks = [vpc.get("CidrBlock")]
    blocks += [a.get("CidrBlock") for a in vpc.get("CidrBlockAssociationSet", ())]
    blocks += [a.get("Ipv6CidrBlock") for a in vpc.get("Ipv6CidrBlockAssociationSet", ())]
    return [ip_network(block) for block in dict.fromkeys(filter(None, blocks))]


def judge(text, own_networks, allow_private=False):
    """The network (/32 or /128) to deny for an address of a finding, and why not: one is None.

    `own_networks` are the CIDR blocks of the instance's VPCs.
    """
    try:
        address = ip_address(text)
        if getattr(address, "scope_id", None):
            raise AddressValueError
    except ValueError:
        return None, "not an IP address"
    own = [network for network in own_networks if address in network]
    if any(address == network.network_address + 2 for network in own if address.version == 4):
        return None, "the VPC's resolver"
    refused = next((reason for network, reason in NEVER.items() if address in network), None)
    if refused is None and not allow_private:
        refused = next((reason for network, reason in PRIVATE.items() if address in network), None)
        if refused is None and own:
            refused = f"inside the VPC's own {own[0]}"
    return (None, refused) if refused else (ip_network(address), None)


def network_of(entry):
    return ip_network(entry.get("CidrBlock") or entry["Ipv6CidrBlock"], strict=False)


def covers(entry, network):
    mine = network_of(entry)
    return mine.version == network.version and network.subnet_of(mine)


def rules(acl, egress):
    """The entries of one direction in the order in which EC2 tries them."""
    return sorted(
        (e for e in acl["Entries"] if e["Egress"] is egress), key=lambda e: e["RuleNumber"]
    )


def first_allow(acl, network, egress):
    """The number of the first rule that lets some traffic of the network through, or END."""
    return next(
        (
            entry["RuleNumber"]
            for entry in rules(acl, egress)
            if entry["RuleAction"] == "allow" and covers(entry, network)
        ),
        END,
    )


def denying_rule(acl, network, egress):
    """The number of the rule that denies all traffic of the network before any allow, or None."""
    return next(
        (
            entry["RuleNumber"]
            for entry in rules(acl, egress)
            if entry["RuleAction"] == "deny"
            and entry["Protocol"] == "-1"
            and covers(entry, network)
            and entry["RuleNumber"] < first_allow(acl, network, egress)
        ),
        None,
    )


def free_number(acl, network, egress):
    """The highest free rule number below the first allow, or None. Low ones stay for people.

    Below the first allow of all where there is room; else below the first one that matters.
    """
    taken = {entry["RuleNumber"] for entry in rules(acl, egress)}
    allows = [e["RuleNumber"] for e in rules(acl, egress) if e["RuleAction"] == "allow"]
    limits = [min([*allows, HIGHEST + 1]), min(first_allow(acl, network, egress), HIGHEST + 1)]
    below = [number for limit in limits for number in range(limit - 1, 0, -1)]
    return next((number for number in below if number not in taken), None)


def is_own_deny(entry, network):
    """Whether an entry is what this pack makes: a deny of everything of exactly this network."""
    return (
        entry["RuleAction"] == "deny" and entry["Protocol"] == "-1" and network_of(entry) == network
    )


def marked_rules(acl, network):
    """The rules of the ACL that this pack made for the network: {egress: rule number}.

    None when the ACL has no mark for it. A marked rule that is gone, or that is another one by
    now, is left out.
    """
    words = record.from_tags(tags_of(acl), f"{DENY}{network}")
    if words is None:
        return None
    return {
        entry["Egress"]: entry["RuleNumber"]
        for entry in acl["Entries"]
        if f"{DIRECTIONS[entry['Egress']]}:{entry['RuleNumber']}" in words
        and is_own_deny(entry, network)
    }


def held_denies(tags):
    """What an instance's tags say that it needs: {network: [ACL ids]}."""
    keys = {match[1]: match[0] for match in map(DENIED_NETWORK.fullmatch, tags) if match}
    return {ip_network(text): record.from_tags(tags, key) for text, key in keys.items()}
