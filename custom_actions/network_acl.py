"""The arithmetic of network ACLs: what may be denied, what is, and where there is room for a rule.

Nothing here calls AWS; an ACL, an entry and a VPC are what EC2 describes.
"""

import re
from ipaddress import AddressValueError, ip_address, ip_network
from typing import NamedTuple

from custom_actions import record
from custom_actions.record import DENY, tags_of

DIRECTIONS = {False: "ingress", True: "egress"}

ACL_ID = re.compile(r"acl-[0-9a-f]{8,17}")
MARK = re.compile(rf"({'|'.join(DIRECTIONS.values())}):[0-9]{{1,5}}")

# The first word of an instance's record that a release has begun to take back.
RELEASED = "released"

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


def judge(text, own_networks, allow_private=False, never=()):
    """The network (/32 or /128) to deny for an address of a finding, and why not: one is None.

    `own_networks` are the CIDR blocks of the instance's VPCs, `never` those of the policy.
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
    if refused is None:
        listed = next((network for network in never if address in network), None)
        refused = listed and f"in {listed}, which the policy never denies"
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


def deny_keys(network):
    """The tag keys of a denied network, on an instance and on an ACL: what is written is the first.

    The address alone, because a key with `/` is refused on an instance whose metadata service
    shows its tags; an IPv6 address in full, because the `:2` behind a key that goes on would be
    read as a part of a short one. The second, with the prefix length, was written until November
    2026 and is still read and taken off: delete it when no resource has a key of this kind any
    more (`aws ec2 describe-tags --filters "Name=key,Values=forensic:deny:*/*"`).
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
    """
    return f"{DENY}{network.network_address.exploded}", f"{DENY}{network}"


def denied_network(key):
    """The network that a tag key is about, or None when it is none of this pack's."""
    try:
        network = ip_network(key.removeprefix(DENY))
    except ValueError:
        return None
    return network if key in deny_keys(network) and network.num_addresses == 1 else None


class Hold(NamedTuple):
    """What an instance's tags say of a denied network.

    acl_ids: where it needs the deny. is_released: that a release has begun: nobody has to keep the
    deny for it, but it may still be there.
    """

    acl_ids: list
    is_released: bool


def holds(tags):
    """What an instance's tags say that it needs: {network: Hold}. What is malformed is left out."""
    found = {}
    for key in tags:
        if network := denied_network(key):
            words = record.from_tags(tags, key)
            acl_ids, released = found.get(network, ([], True))
            new = [w for w in dict.fromkeys(words) if ACL_ID.fullmatch(w) and w not in acl_ids]
            found[network] = Hold(acl_ids + new, released and words[:1] == [RELEASED])
    return found


def strays(tags):
    """What stands in an instance's tags under DENY and cannot be meant: {key: why}."""
    found, read = {}, set()
    for key in filter(denied_network, tags):
        read |= {*record.tag_keys(tags, key)}
        words = record.from_tags(tags, key)
        words = [w for w in words[words[:1] == [RELEASED] :] if not ACL_ID.fullmatch(w)]
        if words:
            found[key] = f"{' '.join(words)!r:.60} is the id of no network ACL"
    for key in tags:
        if key.startswith(DENY) and key not in read:
            found[key] = "no address, or a part without the one before"
    return found


def has_mark(acl, network):
    """Whether the ACL says that this pack made rules for the network."""
    return any(key in tags_of(acl) for key in deny_keys(network))


def mark_words(acl, network):
    """What the marks of the network say: `ingress:<rule number>` and the like, or anything."""
    tags = tags_of(acl)
    return [word for key in deny_keys(network) for word in record.from_tags(tags, key) or ()]


def marked_rules(acl, network):
    """The rules of the ACL that this pack made for the network: {egress: rule number}.

    A marked rule that is gone, or that is another one by now, is left out.
    """
    words = mark_words(acl, network)
    return {
        entry["Egress"]: entry["RuleNumber"]
        for entry in acl["Entries"]
        if f"{DIRECTIONS[entry['Egress']]}:{entry['RuleNumber']}" in words
        and is_own_deny(entry, network)
    }


def stray_marks(acl, network):
    """The words of the network's marks that name no rule."""
    return [word for word in mark_words(acl, network) if not MARK.fullmatch(word)]
