"""Deny the remote addresses of a finding in the network ACLs of the instance; and the way back.

An entry of an ACL cannot be tagged, so one key says on both sides whose it is. It ends in the
denied network, `forensic:deny:203.0.113.7/32`:

- on the ACL the value names the rules that this pack made: `ingress:99 egress:99`;
- on an instance it names the ACLs on which that instance needs the deny. It is the instance's own
  tag, so that two incidents never write into the same one, and the deny stays as long as any
  instance has it.
"""

from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import network_acl, record
from custom_actions.finding import remote_addresses
from custom_actions.instance import OfInstance
from custom_actions.network_acl import DIRECTIONS
from custom_actions.record import DENY, tags_of
from custom_actions.registry import register
from custom_actions.response import (
    REFUSED,
    Change,
    LookAgain,
    NothingToDo,
    NotReadBack,
    Revert,
    Step,
    error_code,
    ignoring,
)

FULL = "NetworkAclEntryLimitExceeded"
MAKE_ROOM = (
    ": remove rules that are not needed, or have the quota 'Rules per network ACL' raised (20 a "
    "direction and IP version, at most 40)"
)


class NoRoom(PolicyExecutionError):
    """No rule number is free where a deny would have to stand."""


class NoNetworkAcl(PolicyExecutionError):
    """EC2 shows no ACL of a subnet."""


class Deny(NamedTuple):
    """One direction of a network on an ACL, and the number of the rule that denies it, or would."""

    acl: dict
    network: object
    egress: bool
    number: int | None

    @property
    def acl_id(self):
        return self.acl["NetworkAclId"]

    @property
    def pair(self):
        return self.acl_id, self.network

    @property
    def direction(self):
        return DIRECTIONS[self.egress]

    @property
    def entry(self):
        family = "CidrBlock" if self.network.version == 4 else "Ipv6CidrBlock"
        return {
            "RuleNumber": self.number,
            "Protocol": "-1",
            "RuleAction": "deny",
            "Egress": self.egress,
            family: str(self.network),
        }


class BlockRemoteAddress(OfInstance, Step):
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

    Calls: DescribeInstances, DescribeVpcs, DescribeNetworkAcls, then for each ACL and address
    CreateTags and two CreateNetworkAclEntry, one more CreateTags for each address, and the first
    and the third once more.

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
        "ec2:DescribeInstances",
        "ec2:DescribeVpcs",
        "ec2:DescribeNetworkAcls",
        "ec2:CreateTags",
        "ec2:CreateNetworkAclEntry",
    )
    when_terminated = None  # it has no interface then, and that is said

    def look_at(self, run, instance):
        if run.view is None:
            self.judge(run, instance)
        run.memory["subnets"] = sorted({i["SubnetId"] for i in instance["NetworkInterfaces"]})
        return self.client().describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": run.memory["subnets"]}]
        )["NetworkAcls"]

    def judge(self, run, instance):
        """Decide which networks to deny, and say why others are not."""
        addresses = remote_addresses(run.event)
        if not addresses:
            raise NothingToDo(
                "The finding names no remote address: there is none to block.", "skipped"
            )
        vpc_ids = sorted({i["VpcId"] for i in instance.get("NetworkInterfaces") or ()})
        if not vpc_ids:
            raise NothingToDo(
                "The instance has no network interface: there is no subnet to block in.", "skipped"
            )
        vpcs = self.client().describe_vpcs(VpcIds=vpc_ids)["Vpcs"]
        own = [network for vpc in vpcs for network in network_acl.vpc_networks(vpc)]
        networks, refusals = [], []
        for address in addresses:
            network, reason = network_acl.judge(address, own, self.data.get("allow-private", False))
            if network is None:
                # repr: the text comes from outside
                refusals.append(f"{address!r:.50} ({reason})")
            elif network not in networks:
                networks.append(network)
        refused = f"Not blocked: {', '.join(refusals)}." if refusals else ""
        if not networks:
            raise NothingToDo(
                f"No address was blocked. {refused}".strip(), "skipped", facts=["refused"]
            )
        held = network_acl.held_denies(run.tags)
        run.memory |= {
            "networks": networks,
            "refused": refused,
            "held": {network: list(held.get(network, ())) for network in networks},
            "marked": set(),  # the pairs that this run has marked
        }

    def changes(self, run):
        for acl in run.view:
            taken = {**acl, "Entries": [*acl["Entries"]]}  # with what is planned here
            for network in run.memory["networks"]:
                for egress in DIRECTIONS:
                    yield self.change(run, acl, taken, network, egress)
        shown = {a["SubnetId"] for acl in run.view for a in acl["Associations"]}
        for subnet_id in sorted(set(run.memory["subnets"]) - shown):
            yield Change(
                subnet_id,
                error=NoNetworkAcl("EC2 shows none; the owner of a shared subnet has it"),
            )

    def change(self, run, acl, taken, network, egress):
        number = network_acl.denying_rule(acl, network, egress)
        deny = Deny(acl, network, egress, number)
        if number is None:
            deny = deny._replace(number=network_acl.free_number(taken, network, egress))
        change = Change(
            f"{deny.acl_id} {deny.direction} {network}",
            holds=number is not None,
            make=partial(self.deny, run, deny),
            fact=f"{deny.acl_id}:{network}:{deny.direction}",
            end="denied",
            unseen=NotReadBack("EC2 does not show the deny"),
            item=deny,
        )
        if deny.number is None:
            allow = network_acl.first_allow(acl, network, egress)
            change.error = NoRoom(
                f"no free rule number below {allow}, its first {deny.direction} allow for "
                f"{network}: give that rule a higher number"
            )
        elif not change.holds:
            taken["Entries"].append(deny.entry)  # so that the next network gets another number
        elif deny.acl_id in run.memory["held"][network] and not self.is_marked(run, acl, network):
            change.flaws["not-marked"] = (
                "NoRecord: the deny has no mark, a release will leave it: remove it by hand then"
            )
        return change

    def put_on_record(self, run):
        """Both sides of the record: what the instance needs, and which rules of an ACL are ours."""
        denies = [change.item for change in run.fresh]
        wanted = {deny.pair for deny in denies}
        # Not a deny that was there without a mark: a person made it, and it outlives the incident.
        wanted |= {
            (acl["NetworkAclId"], network)
            for acl in run.view
            for network in run.memory["networks"]
            if self.is_marked(run, acl, network)
        }
        for network, held in run.memory["held"].items():
            new = sorted({a for a, other in wanted if other == network and a not in held})
            if new:
                held += new
                told = (
                    f"the deny of {network} on {', '.join(new)} could not be recorded on the "
                    "instance"
                )
                if not run.attempt(told, self.tag, run, record.as_tags(f"{DENY}{network}", held)):
                    # Denied all the same; the mail and this line are then the only record.
                    self.log.error(
                        "not recorded on %s: %s on %s", self.resource_id(run), network, new
                    )
        for pair in dict.fromkeys(deny.pair for deny in denies):
            self.mark(run, [deny for deny in denies if deny.pair == pair])

    def mark(self, run, denies):
        """Say on the ACL which of its rules for a network are ours. The denies are of one pair."""
        acl, network, *_ = denies[0]
        numbers = network_acl.marked_rules(acl, network) or {}
        numbers |= {deny.egress: deny.number for deny in denies if deny.number}
        words = [f"{DIRECTIONS[egress]}:{number}" for egress, number in sorted(numbers.items())]
        acl_id = acl["NetworkAclId"]
        told = f"{acl_id}: its rules {' '.join(words)} for {network} could not be marked"
        tags = record.as_tags(f"{DENY}{network}", words)
        if run.attempt(told, self.client().create_tags, Resources=[acl_id], Tags=tags):
            run.memory["marked"].add(denies[0].pair)
        else:
            # Denied all the same; the mail and this line are then the only record.
            self.log.error("not marked on %s: %s as %s", acl_id, network, " ".join(words))

    def is_marked(self, run, acl, network):
        pair = acl["NetworkAclId"], network
        return f"{DENY}{network}" in tags_of(acl) or pair in run.memory["marked"]

    def deny(self, run, deny):
        """Make one entry. A number without an entry must not stay marked: a person may use it."""
        try:
            self.client().create_network_acl_entry(NetworkAclId=deny.acl_id, **deny.entry)
        except REFUSED as error:
            if error_code(error) == "NetworkAclEntryAlreadyExists":
                raise LookAgain from error
            made = [
                change.item
                for change in run.changes
                if change.item and change.item.pair == deny.pair
                if not (change.holds or change.error)
            ]
            self.mark(run, [d._replace(number=None) if d == deny else d for d in made])
            if error_code(error) == FULL:
                error.response["Error"]["Message"] += MAKE_ROOM
            raise

    def plan(self, run):
        rows = [row for row in self.rows(run) if row["status"] == "planned"]
        where = ", ".join(f"{row['network']} on {row['network_acl']}" for row in rows)
        detail = f"Would deny {where} in both directions."
        return f"{detail} {run.memory['refused']}".strip()

    def tell(self, run):
        denied = [row for row in self.rows(run) if row["status"] == "denied"]
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
        return " ".join(filter(None, [*sentences, run.memory["refused"]]))

    def more(self, run):
        return {"network_acls": self.rows(run)}

    def rows(self, run):
        """What the mail shows, one row for each ACL and network."""
        rows = []
        for acl in run.view:
            for network in run.memory["networks"]:
                numbers = {
                    name: network_acl.denying_rule(acl, network, egress)
                    for egress, name in DIRECTIONS.items()
                }
                pair = acl["NetworkAclId"], network
                changes = [c for c in run.changes if c.item and c.item.pair == pair]
                row = {
                    "network_acl": acl["NetworkAclId"],
                    "vpc_id": acl["VpcId"],
                    "subnets": sorted(a["SubnetId"] for a in acl["Associations"]),
                    "network": str(network),
                    **numbers,
                    "status": "denied" if all(numbers.values()) else "failed",
                    "error": "; ".join(f"{c.name}: {c.problem}" for c in changes if c.problem)
                    or None,
                }
                if self.dryrun and row["status"] != "denied":
                    row |= {"status": "planned", "error": None}
                rows.append(row)
        return rows


class UnblockRemoteAddress(OfInstance, Revert):
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
        "ec2:DescribeInstances",
        "ec2:DescribeTags",
        "ec2:DescribeNetworkAcls",
        "ec2:DeleteNetworkAclEntry",
        "ec2:DeleteTags",
    )
    when_terminated = None  # its denies are to go all the same

    def look_at(self, run, instance):
        if run.view is None:
            held = network_acl.held_denies(run.tags)
            if not held:
                raise NothingToDo("No address was blocked: there is nothing to revert.")
            run.memory |= {
                "held": held,
                "needed": self.needed_by_others(run, held),
                "rules": {},  # (ACL id, network, egress): number of the rule to remove
            }
        ids = sorted({acl_id for acl_ids in run.memory["held"].values() for acl_id in acl_ids})
        # As a filter, because one ACL that is gone would make a call with ids fail.
        found = self.client().describe_network_acls(
            Filters=[{"Name": "network-acl-id", "Values": ids}]
        )["NetworkAcls"]
        return {acl["NetworkAclId"]: acl for acl in found}

    def needed_by_others(self, run, held):
        """Which other instances need these denies: {(ACL id, network): [instance ids]}."""
        needed = {}
        keys = [f"{DENY}{network}" for network in held]
        for other, tags in record.find(self.client(), keys).items():
            if other == self.resource_id(run):
                continue
            for network, acl_ids in network_acl.held_denies(tags).items():
                for acl_id in acl_ids:
                    needed.setdefault((acl_id, network), []).append(other)
        return needed

    def pairs(self, run):
        """What is to be removed: held by this instance, on an ACL that exists, by no other."""
        return [
            (run.view[acl_id], network)
            for network, acl_ids in run.memory["held"].items()
            for acl_id in acl_ids
            if acl_id in run.view and (acl_id, network) not in run.memory["needed"]
        ]

    def changes(self, run):
        shown = {
            (acl["NetworkAclId"], network, egress): number
            for acl, network in self.pairs(run)
            for egress, number in (network_acl.marked_rules(acl, network) or {}).items()
        }
        run.memory["rules"] |= shown
        for (acl_id, network, egress), number in run.memory["rules"].items():
            yield Change(
                f"{acl_id}: {DIRECTIONS[egress]} rule {number} ({network})",
                holds=(acl_id, network, egress) not in shown,
                make=partial(
                    ignoring,
                    "InvalidNetworkAclEntry.NotFound",
                    self.client().delete_network_acl_entry,
                    NetworkAclId=acl_id,
                    RuleNumber=number,
                    Egress=egress,
                ),
                end="removed",
                unseen=NotReadBack("EC2 still shows it"),
                item=(acl_id, network),
            )

    def conclude(self, run):
        """Remove the ACLs' marks, then the instance's record of each network that is done."""
        kept = {change.item for change in run.changes if not change.holds}
        for network, acl_ids in run.memory["held"].items():
            marked = [
                acl["NetworkAclId"]
                for acl, other in self.pairs(run)
                if other == network and (acl["NetworkAclId"], network) not in kept
            ]
            told = f"the tags of {network} could not be removed"
            if run.attempt(told, self.unmark, network, marked) and not any(
                (acl_id, network) in kept for acl_id in acl_ids
            ):
                run.attempt(told, self.untag, run, record.tag_keys(run.tags, f"{DENY}{network}"))

    def unmark(self, network, acl_ids):
        if acl_ids:
            self.client().delete_tags(Resources=acl_ids, Tags=[{"Key": f"{DENY}{network}"}])

    def plan(self, run):
        return f"Would remove {', '.join(change.name for change in run.changes) or 'no rule'}."

    def tell(self, run):
        removed = [change.name for change in run.holding]
        sentences = [
            f"Removed, as read back from EC2: {', '.join(removed)}."
            if removed
            else "No rule was removed."
        ]
        for network, acl_ids in run.memory["held"].items():
            for acl_id in acl_ids:
                if others := run.memory["needed"].get((acl_id, network)):
                    sentences.append(
                        f"{network} stays denied on {acl_id} for {', '.join(sorted(others))}."
                    )
        return " ".join(sentences)


register("block-remote-address", BlockRemoteAddress, "ec2")
register("unblock-remote-address", UnblockRemoteAddress, "ec2")
