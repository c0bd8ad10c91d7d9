"""Where an instance serves: its Auto Scaling group and its load balancers, as AWS shows them and as
the words of a record name them.

Words that are none are skipped and named: whoever may tag the instance can write them.
"""

import re
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, unquote

from custom_actions import record
from custom_actions.instance import OfInstance
from custom_actions.record import AUTO_SCALING_GROUP, SUSPENDED
from custom_actions.response import ignoring

CLASSIC = "classic load balancers"

# With these suspended a group terminates none of its instances.
PROCESSES = ("ReplaceUnhealthy", "Terminate")

NAME = re.compile(r"[A-Za-z0-9-]{1,32}")  # of a target group or a classic load balancer
GROUP_ID = re.compile(r"[0-9a-f]{1,32}")


class Target(NamedTuple):
    """One registration in a target group; `address` is "" when the target is the instance."""

    group: str  # <name>/<id>, the end of the ARN
    port: int
    address: str = ""

    @property
    def word(self):
        return "/".join(filter(None, (self.group, str(self.port), self.address)))

    @classmethod
    def parse(cls, word):
        """Raises ValueError when the word is not one of a target."""
        name, group_id, port, *address = word.split("/")
        if not (NAME.fullmatch(name) and GROUP_ID.fullmatch(group_id) and len(address) < 2):
            raise ValueError(word)
        if not 0 < int(port) < 65536:
            raise ValueError(word)
        return cls(f"{name}/{group_id}", int(port), *(str(ip_address(a)) for a in address))


class Registrations(NamedTuple):
    """Where an instance is registered: {target group: targets}, names of classic balancers."""

    targets: dict
    classic: list

    @property
    def words(self):
        targets = [target.word for group in self.targets.values() for target in group]
        return targets + [f"classic/{name}" for name in self.classic]

    @classmethod
    def parse(cls, words):
        """The registrations that recorded words name, and the words that name none."""
        groups, classic, malformed = {}, [], []
        for word in words:
            kind, _, name = word.partition("/")
            if kind == "classic" and NAME.fullmatch(name):
                classic.append(name)
                continue
            try:
                target = Target.parse(word)
            except ValueError:
                malformed.append(word)
            else:
                groups.setdefault(target.group, []).append(target)
        return cls(groups, classic), malformed

    def __or__(self, other):
        targets = dict(self.targets)
        for group, more in other.targets.items():
            targets[group] = unique(targets.get(group, ()), more)
        return Registrations(targets, unique(self.classic, other.classic))


def unique(*lists):
    return list(dict.fromkeys(item for items in lists for item in items))


class Member(NamedTuple):
    """An instance as its Auto Scaling group has it."""

    group: str
    state: str
    health: str

    @property
    def is_leaving(self):
        """Out, on its way out, or kept apart until a person calls for its termination."""
        return self.state in ("Detaching", "Detached") or self.state.endswith(":Retained")

    @property
    def is_terminating(self):
        return self.state.startswith(("Terminat", "Warmed:Terminat"))

    @property
    def is_warm(self):
        return self.state.startswith("Warmed:")


class Group(NamedTuple):
    """An Auto Scaling group."""

    name: str
    suspended: set
    target_groups: list  # ends of ARNs
    classic: list


def escaped(name):
    """A name as one word of a record; what a tag value cannot hold is escaped with =."""
    return quote(name, safe="+.:/@").replace("%", "=")


def recorded_group(tags):
    words = record.from_tags(tags, AUTO_SCALING_GROUP)
    return unquote("".join(words).replace("=", "%")) if words else None


def processes(words):
    """The processes that recorded words name."""
    found = (word.removeprefix("-") for word in words or ())
    return [process for process in dict.fromkeys(found) if process in PROCESSES]


def networks_of(interface):
    """The addresses and delegated prefixes of an interface."""
    return [
        ip_network(item[key])
        for items, key in (
            ("PrivateIpAddresses", "PrivateIpAddress"),
            ("Ipv6Addresses", "Ipv6Address"),
            ("Ipv4Prefixes", "Ipv4Prefix"),
            ("Ipv6Prefixes", "Ipv6Prefix"),
        )
        for item in interface.get(items) or ()
    ]


def is_own(address, networks):
    return any(ip_address(address) in network for network in networks)


def is_leaving(member):
    """Whether an instance is in no group, or on its way out of it."""
    return member is None or member.is_leaving


def group_part(name):
    return f"Auto Scaling group {name}"


def processes_part(name):
    return f"processes of {group_part(name)}"


class Service(OfInstance):
    """For a step and its revert: Auto Scaling and the load balancers of one instance."""

    def member(self, run):
        """The instance as Auto Scaling describes it, or None when it is in no group."""
        answer = self.client("autoscaling").describe_auto_scaling_instances(
            InstanceIds=[self.resource_id(run)]
        )
        for shown in answer["AutoScalingInstances"]:
            return Member(
                shown["AutoScalingGroupName"], shown["LifecycleState"], shown.get("HealthStatus")
            )
        return None

    def look_at_member(self, run):
        """(what `member` says, whether Auto Scaling answered)."""
        unknown = object()
        member = run.read("Auto Scaling", self.member, run, default=unknown)
        return (None, False) if member is unknown else (member, True)

    def group(self, name):
        """The Auto Scaling group of that name; None when there is none."""
        answer = self.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[name]
        )
        for shown in answer["AutoScalingGroups"]:
            return Group(
                name,
                {process["ProcessName"] for process in shown["SuspendedProcesses"]},
                [tail(arn) for arn in shown["TargetGroupARNs"]],
                shown["LoadBalancerNames"],
            )
        return None

    def held(self, run, group, let_go=False):
        """For which other instances processes of a group are suspended: {process: instance ids}.

        let_go: whether those count that need it no longer and have not resumed it yet.
        """
        found = {}
        for other, tags in record.find(self.client(), [SUSPENDED, AUTO_SCALING_GROUP]).items():
            words = record.from_tags(tags, SUSPENDED) or ()
            if other == self.resource_id(run) or recorded_group(tags) != group:
                continue
            for process in processes(w for w in words if let_go or not w.startswith("-")):
                found.setdefault(process, []).append(other)
        return found

    def own_addresses(self, run, instance):
        """The networks that belong to an instance: {VPC id: its addresses and prefixes}."""
        found = {}
        interfaces = run.read("the interfaces", instance.__getitem__, "NetworkInterfaces")
        for interface in interfaces or ():
            told = f"the addresses of {interface.get('NetworkInterfaceId')}"
            networks = run.read(told, networks_of, interface, default=())
            found.setdefault(interface.get("VpcId"), []).extend(networks)
        return found

    def pages(self, service, operation, key):
        pages = self.client(service).get_paginator(operation).paginate()
        return [item for page in pages for item in page[key]]

    def arn(self, group):
        meta = self.client("elbv2").meta
        return (
            f"arn:{meta.partition}:elasticloadbalancing:{meta.region_name}:"
            f"{self.manager.config.account_id}:targetgroup/{group}"
        )

    def registered(self, run, group):
        """The targets of one target group that are this instance, or an address."""
        return run.read(f"target group {group}", self.targets, run, group, default=())

    def targets(self, run, group):
        """The same, as ELB describes them.

        Without `Targets` in the request ELB describes all, with all their ports. A target whose
        state is draining has been deregistered.
        """
        described = ignoring(
            "TargetGroupNotFound",
            self.client("elbv2").describe_target_health,
            TargetGroupArn=self.arn(group),
        )
        shown = described["TargetHealthDescriptions"] if described else ()
        own = self.resource_id(run)
        found = [
            (t["Target"]["Id"], t["Target"]["Port"])
            for t in shown
            if t["TargetHealth"]["State"] != "draining"
        ]
        return [
            Target(group, port, "" if target == own else target)
            for target, port in found
            if target == own or not target.startswith("i-")
        ]

    def registrations(self, run, wanted):
        """Those of the wanted registrations that there are now."""
        targets = {
            group: [t for t in self.registered(run, group) if t in wanted.targets[group]]
            for group in wanted.targets
        }
        classic = self.classic(run) if wanted.classic else ()
        return Registrations(targets, [name for name in classic if name in wanted.classic])

    def classic(self, run):
        """The names of the classic load balancers in which the instance is registered."""
        balancers = run.read(
            CLASSIC,
            self.pages,
            "elb",
            "describe_load_balancers",
            "LoadBalancerDescriptions",
            default=(),
        )
        names = []
        for number, balancer in enumerate(balancers, 1):
            name = balancer.get("LoadBalancerName")
            told = f"classic load balancer {name or f'number {number}'}"
            names += run.read(told, self.name_if_in, run, balancer, default=())
        return names

    def name_if_in(self, run, balancer):
        """The name of a classic load balancer in a list, when the instance is registered in it."""
        ids = [instance["InstanceId"] for instance in balancer["Instances"]]
        return [balancer["LoadBalancerName"]] if self.resource_id(run) in ids else []

    def change_targets(self, call, run, targets):
        """Call `deregister_targets` or `register_targets` for the targets of one target group."""
        call(
            TargetGroupArn=self.arn(targets[0].group),
            Targets=[{"Id": t.address or self.resource_id(run), "Port": t.port} for t in targets],
        )

    def change_classic(self, call, run, name):
        call(LoadBalancerName=name, Instances=[{"InstanceId": self.resource_id(run)}])


def tail(arn):
    """The end of a target group's ARN: <name>/<id>."""
    return arn.partition(":targetgroup/")[2]
