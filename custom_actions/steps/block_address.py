"""Deny the remote addresses of a finding in the network ACLs of the instance; and the way back.

An entry of an ACL cannot be tagged, so one key says on both sides whose it is. It ends in the
denied address, `forensic:deny:203.0.113.7`:

- on the ACL the value names the rules that this pack made: `ingress:99 egress:99`;
- on an instance it names the ACLs on which that instance needs the deny. It is the instance's own
  tag, so that two incidents never write into the same one, and the deny stays as long as any
  instance has it. A release first writes the word `released` before them: from then on nobody
  keeps the deny for this instance, but the tag is still the record of what may have to go.

With instance metadata tags enabled (`InstanceMetadataTags`), whoever is on the instance reads all
its `forensic:*` tags from the metadata service: that it is isolated, by which finding, and which
addresses are denied.
"""

from functools import partial
from ipaddress import ip_network
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError, PolicyValidationError
from c7n.utils import chunks, type_schema

from custom_actions import network_acl, record, seal
from custom_actions.finding import (
    INSTANCE_ID,
    TYPES,
    finding_type,
    is_among,
    is_sequence,
    is_target,
    remote_addresses,
    signals_of_addresses,
)
from custom_actions.instance import OfInstance
from custom_actions.network_acl import DIRECTIONS, deny_keys
from custom_actions.registry import register
from custom_actions.response import (
    REFUSED,
    Change,
    LookAgain,
    NothingToDo,
    NotReadBack,
    Revert,
    Step,
    UnexpectedAnswer,
    error_code,
    ignoring,
    is_refusal,
)

FULL = "NetworkAclEntryLimitExceeded"
MAKE_ROOM = (
    ": remove rules that are not needed, or have the quota 'Rules per network ACL' raised (20 a "
    "direction and IP version, at most 40)"
)

MOST = 5  # addresses that one instance may have denied, of the 20 rules of an ACL
SHOWN = 10  # of those that are not denied

# Types whose remote side is not the intruder's, after GuardDuty's page of EC2 findings: an intruder
# on the instance would choose what is denied for its neighbours too, 8.8.8.8 or S3 for one.
NOT_FOR_TYPES = (
    ("Recon:EC2/Portscan", "the instance scans it"),
    ("Impact:EC2/PortSweep", "the instance sweeps it"),
    # of findings with the role TARGET the remote side is the attacker: those are denied
    ("UnauthorizedAccess:EC2/SSHBruteForce", "the instance tries passwords on it"),
    ("UnauthorizedAccess:EC2/RDPBruteForce", "the instance tries passwords on it"),
    ("Impact:EC2/WinRMBruteForce", "the instance tries passwords on it"),
    ({"prefix": "Backdoor:EC2/DenialOfService"}, "the instance floods it"),
    ("Backdoor:EC2/Spambot", "the instance sends mail to it"),
    # the page says "unusual", not that the remote side is known to be bad
    ({"prefix": "Behavior:EC2/"}, "it is merely unusual for the instance"),
    ({"prefix": "DefenseEvasion:EC2/"}, "it is a public resolver"),
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
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - type: block-remote-address
                allow-private: false
                never: [8.8.8.8/32, 198.51.100.0/24]
                max-addresses: 5
              - fail-unless-complete

    Arguments:

    - `allow-private` (default false) also denies private addresses (RFC 1918, 100.64.0.0/10,
      fc00::/7) and those in the VPCs' own CIDR blocks.
    - `never` (default none): CIDR blocks that are not denied, such as public resolvers, your own
      networks, those of AWS that you use. The function has no way to fetch AWS's list
      (https://ip-ranges.amazonaws.com/ip-ranges.json); take from it what your subnets need, S3 of
      your region first. A list of `vars` serves all accounts.
    - `not-for-types`: types of findings, as in `guard-duty-finding`, whose remote addresses are not
      denied. It replaces the default: `Recon:EC2/Portscan`, `Impact:EC2/PortSweep`, the three
      `...BruteForce` unless the instance is their target, `Backdoor:EC2/DenialOfService.*` and
      `Backdoor:EC2/Spambot`, whose remote side the intruder chose and attacks; `Behavior:EC2/*`
      and `DefenseEvasion:EC2/*`, whose remote side may be a service that everybody uses.
    - `max-addresses` (default 5): how many addresses one instance may have denied on the ACLs of
      its subnets, with those of earlier findings. An ACL has room for 20 rules; without a limit the
      findings of one instance fill it, and the next incident finds no room.

    Of an attack sequence the addresses are its endpoints (`service.detection.sequence`), in its
    order, the same for each of its instances and no more than `max-addresses`: instances of one
    group share subnets, and so the 20 rules of an ACL. An endpoint is left out when all signals
    that name it are findings of the types in `not-for-types`, whichever side acts: that a signal
    does not say.

    Never denied, whatever they say: unspecified, loopback, link-local, multicast and reserved
    addresses, AWS's metadata service and resolvers. An address that is refused is named in the
    detail with the reason and fails nothing.

    The outcome has a list `network_acls`: `network_acl`, `vpc_id`, `subnets`, `network`, the rule
    numbers `ingress` and `egress` that deny it, `status` and `error`. It is `skipped` when the
    finding names no remote address (DNS findings name a domain) or none that may be denied, or
    when all ACLs belong to another account, which shares its subnets (the participant may describe
    an ACL and not change it): the detail says whom to ask. It is `failed`, with the ACL and the way
    out, when an ACL is full or has no free number below its first allow. An ACL that EC2 shows and
    that none of the instance's subnets has is not touched.

    Calls: DescribeInstances, DescribeVpcs, DescribeNetworkAcls, DescribeInstances, then for each
    ACL and address CreateTags and two CreateNetworkAclEntry, one more CreateTags for each address,
    then DescribeInstances and DescribeNetworkAcls.

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
    and IP version with the default deny among them, is all there is room for. Whoever may tag a
    network ACL can mark a person's deny of a whole address as this pack's, and a release of an
    instance that is tagged for it takes that deny away.

    Sources:
    https://docs.aws.amazon.com/vpc/latest/userguide/vpc-network-acls.html
    https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html
    https://docs.aws.amazon.com/vpc/latest/userguide/vpc-sharing.html
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_finding-types-ec2.html
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkAclEntry.html
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Action.html
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_NetworkEndpoint.html
    """

    schema = type_schema(
        "block-remote-address",
        **{
            "allow-private": {"type": "boolean"},
            "never": {"type": "array", "items": {"type": "string"}},
            "not-for-types": {**TYPES, "minItems": 0},
            "max-addresses": {"type": "integer", "minimum": 1},
        },
    )
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeVpcs",
        "ec2:DescribeNetworkAcls",
        "ec2:CreateTags",
        "ec2:CreateNetworkAclEntry",
    )
    when_terminated = None  # it has no interface then, and that is said

    def validate(self):
        try:
            self.never()
        except ValueError as error:
            raise PolicyValidationError(
                f"policy:{self.policy_name} action:{self.type} never: {error}"
            ) from error
        return self

    @property
    def most(self):
        return self.data.get("max-addresses", MOST)

    def never(self):
        return [ip_network(text) for text in self.data.get("never", ())]

    def look_at(self, run, instance):
        if run.view is None:
            self.judge(run, instance)
        subnets = sorted({i["SubnetId"] for i in instance["NetworkInterfaces"]})
        found = self.client().describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": subnets}]
        )["NetworkAcls"]
        run.memory["subnets"] = subnets
        acls = [a for a in found if any(b["SubnetId"] in subnets for b in a["Associations"])]
        if run.view is None:
            self.limit(run, acls)
        return acls

    def judge(self, run, instance):
        """Decide which networks to deny, and say why others are not."""
        addresses = remote_addresses(run.event)
        if not addresses:
            named = "The finding names" if finding_type(run.event) else "There is no finding, so"
            raise NothingToDo(f"{named} no remote address: there is none to block.", "skipped")
        found = finding_type(run.event)
        if reason := self.not_the_intruder(found, is_target(run.event)):
            named = ", ".join(f"{address!r:.50}" for address in addresses)
            raise NothingToDo(
                f"No address was blocked. Not blocked: {named} (the finding is a "
                f"{found:.80}: {reason}).",
                "skipped",
                facts=["not-for-type"],
            )
        vpc_ids = sorted({i["VpcId"] for i in instance.get("NetworkInterfaces") or ()})
        if not vpc_ids:
            raise NothingToDo(
                "The instance has no network interface: there is no subnet to block in.", "skipped"
            )
        vpcs = self.client().describe_vpcs(VpcIds=vpc_ids)["Vpcs"]
        own = [network for vpc in vpcs for network in network_acl.vpc_networks(vpc)]
        networks, refusals = [], []
        signals = signals_of_addresses(run.event)
        for address in addresses:
            if reason := self.attacked(signals.get(address)):
                refusals.append(f"{address!r:.50} ({reason})")
                continue
            network, reason = network_acl.judge(
                address, own, self.data.get("allow-private", False), self.never()
            )
            if network is None:
                # repr: the text comes from outside
                refusals.append(f"{address!r:.50} ({reason})")
            elif is_sequence(run.event) and len(networks) >= self.most and network not in networks:
                refusals.append(f"{network} (max-addresses is {self.most})")
            elif network not in networks:
                networks.append(network)
        run.memory |= {
            "networks": networks,
            "refusals": refusals,
            "marked": set(),  # the pairs that this run has marked
            "written": {},  # {network: ids of the ACLs that this run has recorded}
        }
        self.end_without_networks(run)

    def attacked(self, signals):
        """Why an address of an attack sequence is not the intruder's, or None.

        signals: the names of those that have it; by one of them that is an intruder's it is one.
        """
        reasons = [self.not_the_intruder(name, False) for name in sorted(signals or ())]
        return reasons[0] if reasons and all(reasons) else None

    def not_the_intruder(self, found, is_target):
        """Why the remote addresses of a finding of a type are not the intruder's, or None."""
        if (chosen := self.data.get("not-for-types")) is not None:
            return "the policy's not-for-types names it" if is_among(chosen, found) else None
        if found.endswith("BruteForce") and is_target:
            return None  # the remote side attacks
        return next((why for entry, why in NOT_FOR_TYPES if is_among([entry], found)), None)

    def limit(self, run, acls):
        """Leave out what is more than one instance may have denied; what it has counts.

        Only what is there on an ACL counts: tags alone could be written by the intruder, to use
        the room up. What is denied already needs no room.
        """
        most = self.most
        own = [acl for acl in acls if not owner_elsewhere(self, acl)]
        had = {
            network
            for network, hold in network_acl.holds(run.tags).items()
            for acl in own
            if acl["NetworkAclId"] in hold.acl_ids and network_acl.marked_rules(acl, network)
        }
        for network in [*run.memory["networks"]]:
            if all(network_acl.denying_rule(a, network, e) for a in own for e in DIRECTIONS):
                continue
            if network not in had and len(had) >= most:
                run.memory["networks"].remove(network)
                run.memory["refusals"].append(
                    f"{network} (the instance has {len(had)} addresses denied, max-addresses is "
                    f"{most})"
                )
                continue
            had.add(network)
        self.end_without_networks(run)

    def end_without_networks(self, run):
        if not run.memory["networks"]:
            raise NothingToDo(
                f"No address was blocked. {self.refused(run)}".strip(), "skipped", facts=["refused"]
            )

    def refused(self, run):
        refusals = run.memory["refusals"]
        more = f" and {len(refusals) - SHOWN} more" if len(refusals) > SHOWN else ""
        return f"Not blocked: {', '.join(refusals[:SHOWN])}{more}." if refusals else ""

    def held(self, run, network):
        """The ACLs on which the instance's tags say that it needs the deny, with this run's own."""
        hold = network_acl.holds(run.tags).get(network)
        shown = hold.acl_ids if hold and not hold.is_released else []
        return shown + run.memory["written"].get(network, [])

    def changes(self, run):
        for acl in run.view:
            if owner := owner_elsewhere(self, acl):
                yield self.of_another(run, acl, owner)
                continue
            taken = {**acl, "Entries": [*acl["Entries"]]}  # with what is planned here
            for network in self.networks_on(run, acl):
                for egress in DIRECTIONS:
                    yield self.change(run, acl, taken, network, egress)
        shown = {a["SubnetId"] for acl in run.view for a in acl["Associations"]}
        for subnet_id in sorted(set(run.memory["subnets"]) - shown):
            yield Change(
                subnet_id,
                error=NoNetworkAcl("EC2 shows none; the owner of a shared subnet has it"),
            )

    def networks_on(self, run, acl):
        """The networks to deny on an ACL."""
        return run.memory["networks"]

    def of_another(self, run, acl, owner):
        networks = run.memory["networks"]
        return Change(
            acl["NetworkAclId"],
            holds=all(network_acl.denying_rule(acl, n, e) for n in networks for e in DIRECTIONS),
            excused=f"it belongs to account {owner}, which shares the subnet and alone can change "
            f"it: ask there to deny {', '.join(map(str, networks))} in both directions",
            end="denied",
        )

    def is_wanting(self, run):
        return not all(change.holds or change.excused for change in run.changes)

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
        elif deny.acl_id in self.held(run, network) and not self.is_marked(run, acl, network):
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
            for network in self.networks_on(run, acl)
            if self.is_marked(run, acl, network) and not owner_elsewhere(self, acl)
        }
        if any(acl_id not in self.held(run, network) for acl_id, network in wanted):
            # read after the ACLs: another response may have recorded meanwhile what it denied
            run.tags = run.read("the tags", self.read_tags, run, default=run.tags)
        for network in run.memory["networks"]:
            held = self.held(run, network)
            new = sorted({a for a, other in wanted if other == network and a not in held})
            if new:
                # with what a release has not taken back yet
                hold = network_acl.holds(run.tags).get(network)
                words = list(dict.fromkeys([*(hold.acl_ids if hold else ()), *held, *new]))
                run.memory["written"].setdefault(network, []).extend(new)
                told = (
                    f"the deny of {network} on {', '.join(new)} could not be recorded on the "
                    "instance"
                )
                key, _ = deny_keys(network)
                run.recorded[key] = words
                recorded = run.attempt(told, self.tag, run, record.as_tags(key, words))
                self.note(run, key, new, recorded)
                if not recorded:
                    # Denied all the same; the mail and this line are then the only record.
                    self.log.error(
                        "not recorded on %s: %s on %s", self.resource_id(run), network, new
                    )
        for pair in dict.fromkeys(deny.pair for deny in denies):
            self.mark(run, [deny for deny in denies if deny.pair == pair])

    def mark(self, run, denies):
        """Say on the ACL which of its rules for a network are ours. The denies are of one pair."""
        acl, network, *_ = denies[0]
        numbers = network_acl.marked_rules(acl, network)
        numbers |= {deny.egress: deny.number for deny in denies if deny.number}
        words = [f"{DIRECTIONS[egress]}:{number}" for egress, number in sorted(numbers.items())]
        acl_id = acl["NetworkAclId"]
        told = f"{acl_id}: its rules {' '.join(words)} for {network} could not be marked"
        key, _ = deny_keys(network)
        tags = record.as_tags(key, words)
        if run.attempt(told, self.client().create_tags, Resources=[acl_id], Tags=tags):
            run.memory["marked"].add(denies[0].pair)
        else:
            # Denied all the same; the mail and this line are then the only record.
            self.log.error("not marked on %s: %s as %s", acl_id, network, " ".join(words))

    def is_marked(self, run, acl, network):
        pair = acl["NetworkAclId"], network
        return network_acl.has_mark(acl, network) or pair in run.memory["marked"]

    def deny(self, run, deny):
        """Make one entry. A number without an entry must not stay marked: a person may use it."""
        try:
            self.client().create_network_acl_entry(NetworkAclId=deny.acl_id, **deny.entry)
        except REFUSED as error:
            if error_code(error) == "NetworkAclEntryAlreadyExists":
                raise LookAgain from error
            if is_refusal(error):  # else it may be there: a lost answer
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
        return f"{detail} {self.refused(run)}".strip()

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
        return " ".join(filter(None, [*sentences, self.refused(run)]))

    def more(self, run):
        return {"network_acls": self.rows(run)}

    def rows(self, run):
        """What the mail shows, one row for each ACL and network."""
        rows = []
        for acl in run.view:
            for network in self.networks_on(run, acl):
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
                if row["status"] != "denied" and owner_elsewhere(self, acl):
                    row["status"] = "skipped"
                elif self.dryrun and row["status"] != "denied":
                    row |= {"status": "planned", "error": None}
                rows.append(row)
        return rows


class KeepDenied(BlockRemoteAddress):
    """Makes the denies of an instance again, where somebody took them off a network ACL.

    For a guard, whose event is an API call and names no address: what is denied, and on which ACL,
    is what the instance's tags say, provided that they are what the response has sealed
    (custom_actions/seal.py). So nobody who can write tags has it deny an address for the
    neighbours in the subnet. A deny that is gone, that became an allow, or that an allow with a
    lower number has overtaken, is made below the first allow, marked and read back.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-keep-denied
            resource: ec2
            mode:
              type: cloudtrail
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              events:
                - source: ec2.amazonaws.com
                  event: DeleteNetworkAclEntry
                  ids: requestParameters.networkAclId
            filters:
              - isolated
            actions:
              - keep-denied
              - fail-unless-complete

    No arguments. On the ACLs of the instance's subnets, and only on those that the record names: an
    ACL that was put in their place has no deny, and would need a new record. `skipped` when the
    record is not what was sealed. Rules that an intruder made in the meantime stay.

    Limits: as `block-remote-address`, whose revert, `unblock-remote-address`, takes these denies
    off as well. There is no revert of its own.

    IAM: ec2:CreateNetworkAclEntry and ec2:CreateTags on network ACLs.
    """

    schema = type_schema("keep-denied")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeNetworkAcls",
        "ec2:CreateTags",
        "ec2:CreateNetworkAclEntry",
    )

    def judge(self, run, instance):
        found = network_acl.holds(run.tags)
        networks = [network for network, hold in found.items() if not hold.is_released]
        if not networks:
            raise NothingToDo("No address is denied for this instance.")
        words = seal.denies_on_record(run.tags)
        seals = seal.find(self.client(), self.resource_id(run)).values()
        if not any(seal.is_sealed(one, seal.DENIES, words) for one in seals):
            raise NothingToDo(
                "No address was denied again: the addresses on record are not what was sealed.",
                "skipped",
                facts=["not-sealed"],
            )
        run.memory |= {"networks": networks, "refusals": [], "marked": set(), "written": {}}

    def limit(self, run, acls):
        """They had room before."""

    def networks_on(self, run, acl):
        return [n for n in run.memory["networks"] if acl["NetworkAclId"] in self.held(run, n)]

    def of_another(self, run, acl, owner):
        """No deny of the pack was ever on it."""
        return Change(acl["NetworkAclId"], holds=True, end="not-ours")


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

    The instance's own hold is dropped first (the word `released` in its tags), then others' holds
    are looked for, then the rules are removed: of two instances that share a deny and are released
    together, the one that looks last sees no hold of the other. The tag stays until the rules are
    gone, so that a release that fails or dies is finished by the next one.

    When EC2 refuses one removal, the others are done, the tags of that one stay, and the step
    fails; it can be run again. The same when the hold cannot be dropped: the tag then stays, and
    no other release takes this one's deny for unneeded. An ACL that is gone, or that belongs to
    another account, has nothing to revert.

    What is malformed in the tags (no address, no id of an ACL, no rule number: anybody with
    `ec2:CreateTags` can write it) is left out and named in the error once; it goes with the record,
    so that it never stops a release. A deny whose mark is gone is left, since it could be a
    person's, and named in the same way.

    Limits: an instance that was terminated counts as needing its denies as long as EC2 shows its
    tags, about an hour; after that the release of the last other instance removes them. Whether
    EC2 lets a terminated instance be tagged was not tried on AWS. A response that begins in the
    same instant on another instance can lose the deny that it found; the next finding makes it
    again. EC2 shows a tag late at times: two releases in the same second may both still see the
    other's hold, and both say for whom the deny stays.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteNetworkAclEntry.html
    """

    schema = type_schema("unblock-remote-address")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeTags",
        "ec2:DescribeNetworkAcls",
        "ec2:DeleteNetworkAclEntry",
        "ec2:CreateTags",
        "ec2:DeleteTags",
    )
    when_terminated = None  # its denies are to go all the same

    def look_at(self, run, instance):
        if run.view is None:
            self.check_verified(run, record.DENY, seal.denies_on_record(run.tags))
            held, strays = network_acl.holds(run.tags), network_acl.strays(run.tags)
            if not (held or strays):
                raise NothingToDo("No address was blocked: there is nothing to revert.")
            run.memory |= {
                "held": held,
                "strays": strays,
                "needed": None,  # not known before the own hold is dropped
                "rules": {},  # (ACL id, network, egress): number of the rule to remove
            }
            if self.dryrun:
                run.memory["needed"] = self.needed_by_others(run)
        wanted = sorted({acl_id for hold in run.memory["held"].values() for acl_id in hold.acl_ids})
        # As a filter, because one ACL that is gone would make a call with ids fail; it takes 200.
        found = [
            acl
            for ids in chunks(wanted, 200)
            for acl in self.client().describe_network_acls(
                Filters=[{"Name": "network-acl-id", "Values": ids}]
            )["NetworkAcls"]
        ]
        return {
            acl["NetworkAclId"]: acl
            for acl in found
            if acl["NetworkAclId"] in wanted and not owner_elsewhere(self, acl)
        }

    def needed_by_others(self, run):
        """Which other instances need these denies: {(ACL id, network): [instance ids]}."""
        needed, held = {}, run.memory["held"]
        if not held:
            return needed
        keys = [key for network in held for key in deny_keys(network)]
        for other, tags in record.find(self.client(), keys).items():
            # by what is found, not by what was asked for
            if other == self.resource_id(run) or not INSTANCE_ID.fullmatch(other):
                continue
            for network, hold in network_acl.holds(tags).items():
                for acl_id in () if hold.is_released else hold.acl_ids:
                    needed.setdefault((acl_id, network), []).append(other)
        return needed

    def pairs(self, run):
        """What is to be removed: held by this instance, on an ACL that exists, by no other."""
        return [
            (run.view[acl_id], network)
            for network, hold in run.memory["held"].items()
            for acl_id in hold.acl_ids
            if acl_id in run.view and (acl_id, network) not in (run.memory["needed"] or {})
        ]

    def changes(self, run):
        for key, why in run.memory["strays"].items():
            yield stray(f"the tag {key!r:.60}", why)
        shown = {}
        for acl, network in self.pairs(run):
            rules = network_acl.marked_rules(acl, network)
            shown |= {(acl["NetworkAclId"], network, e): number for e, number in rules.items()}
            if words := network_acl.stray_marks(acl, network):
                why = f"{' '.join(words)!r:.60} is no rule"
                yield stray(f"the mark of {network} on {acl['NetworkAclId']}", why)
            if left := [] if network_acl.has_mark(acl, network) else own_denies(acl, network):
                yield Change(
                    f"the denies of {network} on {acl['NetworkAclId']}",
                    holds=True,
                    flaws={
                        "not-marked": f"NoRecord: {', '.join(left)} has no mark and stays: remove "
                        "it by hand if no person made it"
                    },
                )
        run.memory["rules"] |= shown
        for (acl_id, network, egress), number in run.memory["rules"].items():
            if (acl_id, network) in (run.memory["needed"] or {}):
                continue
            yield Change(
                f"{acl_id}: {DIRECTIONS[egress]} rule {number} ({network})",
                holds=(acl_id, network, egress) not in shown,
                make=partial(self.remove, run, acl_id, network, egress, number),
                end="removed",
                unseen=NotReadBack("EC2 still shows it"),
                item=(acl_id, network),
            )

    def put_on_record(self, run):
        """Drop the own hold, then look for those of others: in this order one of two sees it."""
        if run.memory["needed"] is not None:
            return
        tags = [
            tag
            for network, hold in run.memory["held"].items()
            if not hold.is_released
            for key in deny_keys(network)
            if key in run.tags
            for tag in record.as_tags(key, [network_acl.RELEASED, *hold.acl_ids])
        ]
        if tags:
            run.memory["kept"] = not run.attempt("the own hold", self.tag, run, tags)
        run.memory["needed"] = self.needed_by_others(run)

    def remove(self, run, acl_id, network, egress, number):
        if (acl_id, network) in run.memory["needed"]:
            raise LookAgain
        ignoring(
            "InvalidNetworkAclEntry.NotFound",
            self.client().delete_network_acl_entry,
            NetworkAclId=acl_id,
            RuleNumber=number,
            Egress=egress,
        )

    def conclude(self, run):
        """Remove the ACLs' marks, then the instance's record of each network that is done."""
        if run.memory["needed"] is None:
            run.errors["the denies"] = UnexpectedAnswer(
                "what EC2 shows of the network ACLs could not be read; nothing was removed"
            )
            return
        kept = {change.item for change in run.changes if not change.holds}
        marked = {
            network: [
                acl["NetworkAclId"]
                for acl, other in self.pairs(run)
                if other == network and (acl["NetworkAclId"], network) not in kept
            ]
            for network in run.memory["held"]
        }
        for network, hold in run.memory["held"].items():
            told = f"the tags of {network} could not be removed"
            if run.attempt(told, self.unmark, network, marked[network]) and not (
                run.memory.get("kept") or any((acl_id, network) in kept for acl_id in hold.acl_ids)
            ):
                self.forget_keys(run, told, deny_keys(network))
        malformed = [k for k in run.memory["strays"] if not network_acl.denied_network(k)]
        self.forget_keys(run, "the malformed tags", malformed)

    def forget_keys(self, run, told, keys):
        keys = {k for key in keys for k in record.tag_keys(run.tags, key)}
        if keys:
            run.attempt(told, self.untag, run, keys)

    def unmark(self, network, acl_ids):
        if acl_ids:
            self.client().delete_tags(
                Resources=acl_ids, Tags=[{"Key": key} for key in deny_keys(network)]
            )

    def plan(self, run):
        names = [change.name for change in run.changes if change.item]
        return f"Would remove {', '.join(names) or 'no rule'}."

    def tell(self, run):
        removed = [change.name for change in run.holding if change.item]
        told = (
            f"Removed, as read back from EC2: {', '.join(removed)}."
            if removed
            else "No rule was removed."
        )
        return " ".join(filter(None, [told, self.stays(run)]))

    def stays(self, run):
        return " ".join(
            f"{network} stays denied on {acl_id} for {', '.join(sorted(others))}."
            for network, hold in run.memory["held"].items()
            for acl_id in hold.acl_ids
            if (others := (run.memory["needed"] or {}).get((acl_id, network)))
        )

    def more(self, run):
        return {"stays": self.stays(run) or None}


def owner_elsewhere(step, acl):
    """The other account that an ACL belongs to, or None."""
    owner = acl.get("OwnerId")
    return owner if owner != step.manager.config.account_id else None


def own_denies(acl, network):
    """The rules of an ACL that could be this pack's denies of a network, in words."""
    return [
        f"{DIRECTIONS[entry['Egress']]} rule {entry['RuleNumber']}"
        for entry in acl["Entries"]
        if network_acl.is_own_deny(entry, network)
    ]


def stray(name, why):
    """What is malformed in a record: nothing can be done about it but to say so."""
    return Change(name, holds=True, flaws={"malformed": f"{why}: left out"})


register("block-remote-address", BlockRemoteAddress, "ec2")
register("keep-denied", KeepDenied, "ec2")
register("unblock-remote-address", UnblockRemoteAddress, "ec2")
