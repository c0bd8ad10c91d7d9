"""Deny the remote addresses of a finding in the network ACLs of the instance; and the way back.

An entry of an ACL cannot be tagged, so one key says on both sides whose it is. It ends in the
denied network, `forensic:deny:203.0.113.7/32`:

- on the ACL the value names the rules that this pack made: `ingress:99 egress:99`;
- on an instance it names the ACLs on which that instance needs the deny. It is the instance's own
  tag, so that two incidents never write into the same one, and the deny stays as long as any
  instance has it.
"""

import logging
import re
import time
from ipaddress import AddressValueError, ip_address, ip_network

from c7n.exceptions import ClientError
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.finding import remote_addresses
from custom_actions.isolate import attached_interfaces
from custom_actions.response import ResponseAction, describe, error_code, retry, tags_of

log = logging.getLogger("custodian.actions.connections")

DENY = "forensic:deny:"
DENIED_NETWORK = re.compile(re.escape(DENY) + r"([0-9a-f.:]+/(?:32|128))")

# Seconds before each look at the ACLs: another invocation may take a number, and EC2's describes
# are eventually consistent.
LOOKS = (0, 0, 0.2, 0.5, 1, 2)

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


class Blockade:
    """The denies of some networks on the ACLs of some subnets: what is there, what is missing.

    An error at one ACL, network or direction is kept and does not stop the others.
    """

    def __init__(self, client, instance_id, subnet_ids, networks, held):
        self.client = client
        self.instance_id = instance_id
        self.subnet_ids = subnet_ids
        self.networks = networks
        self.held = {network: list(held.get(network, ())) for network in networks}
        self.acls = []
        self.errors = {}  # (ACL id, network or None, "ingress", "egress" or "record"): (code, text)
        self.made = set()  # (ACL id, network, egress): entries that this run created
        self.marked = set()  # (ACL id, network): marks that this run wrote
        self.changed = False

    def run(self):
        for attempt, delay in enumerate(LOOKS):
            time.sleep(delay)
            self.look()
            if attempt == 0:
                self.hold()
            pending = [pair for pair in self.pairs() if not self.is_settled(*pair)]
            if not pending:
                break
            for acl, network in pending:
                self.deny(acl, network)
        else:
            self.look()
        self.judge_what_is_left()

    def look(self):
        self.acls = retry(
            self.client.describe_network_acls,
            Filters=[{"Name": "association.subnet-id", "Values": self.subnet_ids}],
        )["NetworkAcls"]

    def pairs(self):
        return [(acl, network) for acl in self.acls for network in self.networks]

    def missing(self, acl, network):
        """The directions in which the network is not denied and that have not failed for good."""
        return [
            egress
            for egress, direction in DIRECTIONS.items()
            if denying_rule(acl, network, egress) is None
            and (acl["NetworkAclId"], network, direction) not in self.errors
        ]

    def is_settled(self, acl, network):
        unseen_mark = (acl["NetworkAclId"], network) in self.marked and not self.is_marked(
            acl, network
        )
        return not self.missing(acl, network) and not unseen_mark

    def is_marked(self, acl, network):
        return f"{DENY}{network}" in tags_of(acl)

    def hold(self):
        """Record on the instance which denies it needs, before they are made.

        Not those that were there without a mark: a person made them, and they outlive the
        incident.
        """
        for network in self.networks:
            acl_ids = [
                acl["NetworkAclId"]
                for acl in self.acls
                if acl["NetworkAclId"] not in self.held[network]
                and (
                    self.is_marked(acl, network)
                    or any(free_number(acl, network, e) for e in self.missing(acl, network))
                )
            ]
            if not acl_ids:
                continue
            self.held[network] += acl_ids
            try:
                retry(
                    self.client.create_tags,
                    Resources=[self.instance_id],
                    Tags=record.as_tags(f"{DENY}{network}", self.held[network]),
                )
            except ClientError as error:
                # Denied all the same; the mail and this line are then the only record.
                log.error("not recorded on %s: %s on %s", self.instance_id, network, acl_ids)
                self.errors[None, network, "record"] = (
                    "not-recorded",
                    f"the deny of {network} on {', '.join(acl_ids)} could not be recorded on the "
                    f"instance: {describe(error)}",
                )

    def deny(self, acl, network):
        """Make the missing entries of one network on one ACL; its own numbers are marked first."""
        acl_id, numbers = acl["NetworkAclId"], {}
        for egress in self.missing(acl, network):
            if (acl_id, network, egress) in self.made:
                continue  # EC2 does not show it yet
            numbers[egress] = free_number(acl, network, egress)
            if numbers[egress] is None:
                del numbers[egress]
                allow = first_allow(acl, network, egress)
                self.errors[acl_id, network, DIRECTIONS[egress]] = (
                    "no-room",
                    f"{acl_id}: no free rule number below {allow}, its first {DIRECTIONS[egress]} "
                    f"allow for {network}: give that rule a higher number",
                )
        if not numbers:
            return
        self.mark(acl, network, numbers)
        refused = [
            egress
            for egress, number in numbers.items()
            if not self.make(acl, network, egress, number)
        ]
        if refused:
            # A number without an entry must not stay marked: a person may use it.
            self.mark(acl, network, {e: n for e, n in numbers.items() if e not in refused})

    def make(self, acl, network, egress, number):
        """Create one entry; False when EC2 refused it for good."""
        acl_id = acl["NetworkAclId"]
        cidr = {"CidrBlock" if network.version == 4 else "Ipv6CidrBlock": str(network)}
        entry = {
            "RuleNumber": number,
            "Protocol": "-1",
            "RuleAction": "deny",
            "Egress": egress,
            **cidr,
        }
        try:
            retry(self.client.create_network_acl_entry, NetworkAclId=acl_id, **entry)
        except ClientError as error:
            if error_code(error) == "NetworkAclEntryAlreadyExists":
                return True  # somebody was faster: the next look decides
            self.errors[acl_id, network, DIRECTIONS[egress]] = (
                error_code(error),
                f"{acl_id} {DIRECTIONS[egress]} {network}: {describe(error)}"
                + (
                    ": remove rules that are not needed, or have the quota 'Rules per network ACL' "
                    "raised (20 a direction and IP version, at most 40)"
                    if error_code(error) == "NetworkAclEntryLimitExceeded"
                    else ""
                ),
            )
            return False
        self.changed = True
        self.made.add((acl_id, network, egress))
        acl["Entries"].append(entry)  # so that the next network gets another number
        return True

    def mark(self, acl, network, numbers):
        acl_id = acl["NetworkAclId"]
        own = {**(marked_rules(acl, network) or {}), **numbers}
        words = [f"{DIRECTIONS[egress]}:{number}" for egress, number in sorted(own.items())]
        try:
            retry(
                self.client.create_tags,
                Resources=[acl_id],
                Tags=record.as_tags(f"{DENY}{network}", words),
            )
            self.marked.add((acl_id, network))
        except ClientError as error:
            # Denied all the same; the mail and this line are then the only record.
            log.error("not marked on %s: %s as %s", acl_id, network, " ".join(words))
            self.errors[acl_id, network, "record"] = (
                "not-marked",
                f"{acl_id}: its rules {' '.join(words)} for {network} could not be marked: "
                f"{describe(error)}",
            )

    def judge_what_is_left(self):
        """Errors for what EC2 does not show, and for what a revert would not find."""
        for acl, network in self.pairs():
            acl_id = acl["NetworkAclId"]
            for egress in self.missing(acl, network):
                self.errors[acl_id, network, DIRECTIONS[egress]] = (
                    "not-read-back",
                    f"{acl_id} {DIRECTIONS[egress]} {network}: NotReadBack: EC2 does not show "
                    "the deny",
                )
            if acl_id in self.held[network] and not self.is_marked(acl, network):
                self.errors.setdefault(
                    (acl_id, network, "record"),
                    (
                        "not-marked",
                        f"{acl_id}: NoRecord: its deny of {network} has no mark, a release will "
                        "leave it: remove it by hand then",
                    ),
                )
        shown = {a["SubnetId"] for acl in self.acls for a in acl["Associations"]}
        for subnet_id in sorted(set(self.subnet_ids) - shown):
            self.errors[subnet_id, None, "ingress"] = (
                "no-acl",
                f"{subnet_id}: NoNetworkAcl: EC2 shows none; the owner of a shared subnet has it",
            )

    def rows(self):
        """What the mail shows, one row for each ACL and network."""
        return [self.row(acl, network) for acl, network in self.pairs()]

    def row(self, acl, network):
        acl_id = acl["NetworkAclId"]
        errors = [
            text
            for (where, what, _), (_, text) in self.errors.items()
            if where in (acl_id, None) and what == network
        ]
        numbers = {name: denying_rule(acl, network, e) for e, name in DIRECTIONS.items()}
        return {
            "network_acl": acl_id,
            "vpc_id": acl["VpcId"],
            "subnets": sorted(a["SubnetId"] for a in acl["Associations"]),
            "network": str(network),
            **numbers,
            "status": "denied" if all(numbers.values()) else "failed",
            "error": "; ".join(errors) or None,
        }

    def facts(self):
        facts = [
            f"{where}:{what}:{kind}:{code}"
            for (where, what, kind), (code, _) in self.errors.items()
        ]
        for row in self.rows():
            facts += [
                f"{row['network_acl']}:{row['network']}:{name}:denied"
                for name in DIRECTIONS.values()
                if row[name]
            ]
        return facts


@EC2.action_registry.register("block-remote-address")
class BlockRemoteAddress(ResponseAction):
    """Denies the remote addresses of the finding on the network ACLs of the instance's subnets.

    A change of security groups leaves tracked connections open; a network ACL is stateless and
    cuts every packet from and to an address at once, whatever the protocol. Each address gets a
    deny in each direction on the ACL of every subnet in which the instance has an interface, with
    the highest free rule number below the first allow that would let the address through. A deny
    that is there already and comes before that allow is left as it is. What was denied is read
    back. `unblock-remote-address` takes away exactly what was made here.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-block-remote-address
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - type: block-remote-address
                allow-private: false
              - fail-unless-complete

    Arguments: `allow-private` (default false) also denies private addresses (RFC 1918,
    100.64.0.0/10, fc00::/7) and those in the VPCs' own CIDR blocks. Never denied, whatever it
    says: unspecified, loopback, link-local, multicast and reserved addresses, AWS's metadata
    service and resolvers. An address that is refused is named in the detail and fails nothing.

    The outcome has a list `network_acls`: `network_acl`, `vpc_id`, `subnets`, `network`, the rule
    numbers `ingress` and `egress` that deny it, `status` and `error`. It is `skipped` when the
    finding names no remote address (DNS findings name a domain) or none that may be denied, and
    `failed`, with the ACL and the way out, when an ACL is full or has no free number below its
    first allow.

    Calls: DescribeNetworkInterfaces, DescribeVpcs, DescribeNetworkAcls, then for each ACL and
    address CreateTags and two CreateNetworkAclEntry, one more CreateTags for each address, and
    DescribeNetworkAcls.

    Price: **an ACL belongs to the subnet, and the default ACL to every subnet of the VPC that has
    no other**. All instances there lose this one address as well, as the detail says.

    Limits: traffic inside one subnet does not cross an ACL. Behind a NAT gateway the instance's
    packets carry the remote address and are denied here; what reaches the instance through a
    load balancer or proxy carries that one's address and is not. ACLs do not filter DNS
    to the VPC's resolver, DHCP, instance metadata, time and licence services. An attacker moves
    to another address; only the addresses of findings are denied. Of two rules made in the same
    instant by a person and by this action, with the same number and the same contents, the
    person's is taken for this action's. A person who adds an allow with a lower number opens the
    address again, until the next finding. A terminated instance that was never released keeps
    its denies on the ACL; they have the tag `forensic:deny:...`. The quota, 20 rules a direction
    and IP version with the default deny among them, is all there is room for.

    Sources:
    https://docs.aws.amazon.com/vpc/latest/userguide/vpc-network-acls.html
    https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkAclEntry.html
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Action.html
    """

    schema = type_schema("block-remote-address", **{"allow-private": {"type": "boolean"}})
    permissions = (
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeVpcs",
        "ec2:DescribeNetworkAcls",
        "ec2:CreateTags",
        "ec2:CreateNetworkAclEntry",
    )

    def respond(self, instance, event):
        client, instance_id = self.client(), instance["InstanceId"]
        addresses = remote_addresses(event)
        if not addresses:
            return self.outcome(
                "skipped", "The finding names no remote address: there is none to block."
            )
        interfaces = attached_interfaces(client, instance_id)
        if not interfaces:
            return self.outcome(
                "skipped", "The instance has no network interface: there is no subnet to block in."
            )
        networks, refused = self.judge(client, addresses, interfaces)
        if not networks:
            return self.outcome(
                "skipped", f"No address was blocked. {refused}".strip(), facts=["refused"]
            )
        subnet_ids = sorted({i["SubnetId"] for i in interfaces})
        held = held_denies(tags_of(instance))
        blockade = Blockade(client, instance_id, subnet_ids, networks, held)
        if self.dryrun:
            return self.plan(blockade, refused)
        blockade.run()
        return self.report(blockade, refused)

    def judge(self, client, addresses, interfaces):
        """The networks to deny, and a sentence about the addresses that are refused."""
        vpcs = retry(client.describe_vpcs, VpcIds=sorted({i["VpcId"] for i in interfaces}))["Vpcs"]
        own = [network for vpc in vpcs for network in vpc_networks(vpc)]
        networks, refusals = [], []
        for address in addresses:
            network, reason = judge(address, own, self.data.get("allow-private", False))
            if network is None:
                # repr: the text comes from outside
                refusals.append(f"{address!r:.50} ({reason})")
            elif network not in networks:
                networks.append(network)
        return networks, f"Not blocked: {', '.join(refusals)}." if refusals else ""

    def plan(self, blockade, refused):
        """What would be denied, and where: reads only."""
        blockade.look()
        rows = [
            {**row, "status": "planned"} for row in blockade.rows() if row["status"] != "denied"
        ]
        where = ", ".join(f"{row['network']} on {row['network_acl']}" for row in rows)
        detail = f"Would deny {where} in both directions." if rows else "All is denied already."
        return self.outcome("planned", f"{detail} {refused}".strip(), network_acls=rows)

    def report(self, blockade, refused):
        rows, errors = blockade.rows(), [text for _, text in blockade.errors.values()]
        denied = [row for row in rows if row["status"] == "denied"]
        subnets = {subnet for row in denied for subnet in row["subnets"]}
        sentences = [
            f"{row['network']} is denied on {row['network_acl']} (rule {row['ingress']} ingress, "
            f"{row['egress']} egress), as read back from EC2."
            for row in denied
        ] or ["No address is denied in both directions."]
        if denied:
            sentences.append(
                f"That holds for every instance in the {len(subnets)} subnets of these ACLs."
                if len(subnets) > 1
                else "That holds for every instance in the subnet."
            )
        return self.outcome(
            "failed" if errors else "done" if blockade.changed else "unchanged",
            " ".join(filter(None, [*sentences, refused])),
            error="; ".join(errors) or None,
            facts=blockade.facts(),
            network_acls=rows,
        )


@EC2.action_registry.register("unblock-remote-address")
class UnblockRemoteAddress(ResponseAction):
    """Takes away the denies that `block-remote-address` made for this instance.

    It finds them by the instance's tags `forensic:deny:...`, also on ACLs of subnets where the
    instance has no interface any more. A deny stays as long as another instance has the same tag
    with the same ACL. Only rules that the ACL's tag names are removed, and only while they still
    are denies of exactly that address: never a rule that a person made. What was removed is read
    back, then the tags go.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-unblock-one
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - unblock-remote-address
              - fail-unless-complete

    When EC2 refuses one removal, the others are done, the tags of that one stay, and the step
    fails; it can be run again. An ACL that is gone has nothing to revert.

    Limits: an instance that was terminated counts as needing its denies as long as EC2 shows its
    tags, about an hour; after that the release of the last other instance removes them. A
    response that begins in the same instant on another instance can lose the deny that it found;
    the next finding makes it again.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteNetworkAclEntry.html
    """

    schema = type_schema("unblock-remote-address")
    permissions = (
        "ec2:DescribeTags",
        "ec2:DescribeNetworkAcls",
        "ec2:DeleteNetworkAclEntry",
        "ec2:DeleteTags",
    )

    def respond(self, instance, event):
        client, instance_id = self.client(), instance["InstanceId"]
        # Not the instance's own tags: on the command line Custodian may have them from its cache.
        own = self.tags(client, [{"Name": "resource-id", "Values": [instance_id]}])
        tags = own.get(instance_id, {})
        held = held_denies(tags)
        if not held:
            return self.outcome("unchanged", "No address was blocked: there is nothing to revert.")
        removal = Removal(
            client, instance_id, held, self.needed_by_others(client, held, instance_id)
        )
        if self.dryrun:
            removal.look()
            return self.outcome("planned", f"Would remove {removal.describe_rules() or 'no rule'}.")
        removal.run(tags)
        errors = removal.errors
        return self.outcome(
            "failed" if errors else "done",
            removal.detail(),
            error="; ".join(errors.values()) or None,
            facts=[f"{acl_id}:{network}:kept" for acl_id, network in errors],
        )

    def needed_by_others(self, client, held, instance_id):
        """Which other instances need these denies: {(ACL id, network): [instance ids]}."""
        keys = [f"{DENY}{network}{part}" for network in held for part in ("", ":2")]
        filters = [
            {"Name": "resource-type", "Values": ["instance"]},
            {"Name": "key", "Values": keys},
        ]
        needed = {}
        for other, tags in self.tags(client, filters).items():
            for network, acl_ids in held_denies(tags).items():
                for acl_id in acl_ids if other != instance_id else ():
                    needed.setdefault((acl_id, network), []).append(other)
        return needed

    def tags(self, client, filters):
        """Tags by resource: {resource id: {key: value}}."""
        pages = client.get_paginator("describe_tags").paginate(Filters=filters)
        found = {}
        for tag in retry(lambda: [one for page in pages for one in page["Tags"]]):
            found.setdefault(tag["ResourceId"], {})[tag["Key"]] = tag["Value"]
        return found


class Removal:
    """The removal of one instance's denies; an error at one does not stop the others."""

    def __init__(self, client, instance_id, held, needed):
        self.client = client
        self.instance_id = instance_id
        self.held = held
        self.needed = needed
        self.acls = {}
        self.errors = {}  # (ACL id, network): why it is not done
        self.removed = []  # "acl-...: ingress rule 99"

    def run(self, tags):
        self.look()
        for acl, network in self.pairs():
            for egress, number in (marked_rules(acl, network) or {}).items():
                self.remove(acl["NetworkAclId"], network, egress, number)
        self.read_back()
        for network, acl_ids in self.held.items():
            try:
                self.forget(network, acl_ids, tags)
            except ClientError as error:
                self.errors[self.instance_id, network] = (
                    f"the tags of {network} could not be removed: {describe(error)}"
                )

    def look(self):
        ids = sorted({acl_id for acl_ids in self.held.values() for acl_id in acl_ids})
        # As a filter, because one ACL that is gone would make a call with ids fail.
        found = retry(
            self.client.describe_network_acls, Filters=[{"Name": "network-acl-id", "Values": ids}]
        )["NetworkAcls"]
        self.acls = {acl["NetworkAclId"]: acl for acl in found}

    def pairs(self):
        """What is to be removed: held by this instance, on an ACL that exists, by no other."""
        return [
            (self.acls[acl_id], network)
            for network, acl_ids in self.held.items()
            for acl_id in acl_ids
            if acl_id in self.acls and (acl_id, network) not in self.needed
        ]

    def remove(self, acl_id, network, egress, number):
        rule = f"{acl_id}: {DIRECTIONS[egress]} rule {number} ({network})"
        try:
            retry(
                self.client.delete_network_acl_entry,
                NetworkAclId=acl_id,
                RuleNumber=number,
                Egress=egress,
                ignore_err_codes=("InvalidNetworkAclEntry.NotFound",),
            )
            self.removed.append(rule)
        except ClientError as error:
            self.errors[acl_id, network] = f"{rule}: {describe(error)}"

    def read_back(self):
        for delay in LOOKS[1:]:
            time.sleep(delay)
            self.look()
            left = {
                (acl["NetworkAclId"], network): numbers
                for acl, network in self.pairs()
                if (numbers := marked_rules(acl, network))
                and (acl["NetworkAclId"], network) not in self.errors
            }
            if not left:
                return
        for acl_id, network in left:
            self.errors[acl_id, network] = f"{acl_id}: EC2 still shows the deny of {network}"

    def forget(self, network, acl_ids, tags):
        """Remove the ACLs' marks, then the instance's record, unless something is left to do."""
        gone = [
            acl["NetworkAclId"]
            for acl, other in self.pairs()
            if other == network and (acl["NetworkAclId"], network) not in self.errors
        ]
        if gone:
            retry(self.client.delete_tags, Resources=gone, Tags=[{"Key": f"{DENY}{network}"}])
        if not any((acl_id, network) in self.errors for acl_id in acl_ids):
            keys = record.tag_keys(tags, f"{DENY}{network}")
            retry(
                self.client.delete_tags,
                Resources=[self.instance_id],
                Tags=[{"Key": key} for key in keys],
            )

    def describe_rules(self):
        return ", ".join(
            f"{acl['NetworkAclId']}: {DIRECTIONS[egress]} rule {number} ({network})"
            for acl, network in self.pairs()
            for egress, number in (marked_rules(acl, network) or {}).items()
        )

    def detail(self):
        sentences = [
            f"Removed, as read back from EC2: {', '.join(self.removed)}."
            if self.removed
            else "No rule was removed."
        ]
        for network, acl_ids in self.held.items():
            for acl_id in acl_ids:
                if others := self.needed.get((acl_id, network)):
                    sentences.append(
                        f"{network} stays denied on {acl_id} for {', '.join(sorted(others))}."
                    )
        return " ".join(sentences)
