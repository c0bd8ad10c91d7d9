"""Take an isolated instance out of service, so that nothing destroys it as unhealthy and nobody is
sent to it; and the way back.

The record, on the instance: `forensic:auto-scaling-group` holds the name of the group;
`forensic:load-balancers` holds one word for each registration: `<name>/<id>/<port>` of a target
group, with `/<address>` behind it when the target is an address, or `classic/<name>`. Name and id
are the end of the target group's ARN, so that one made later under the same name is not mistaken
for it.
"""

from functools import partial
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, unquote

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.instance import OfInstance
from custom_actions.record import AUTO_SCALING_GROUP, LOAD_BALANCERS
from custom_actions.registry import register
from custom_actions.response import Change, LookAgain, Revert, Step, error_code, ignoring

CLASSIC = "classic load balancers"
GONE = ("TargetGroupNotFound", "LoadBalancerNotFound")

NOT_OUT = PolicyExecutionError("it still shows the instance, it may leave it later")


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
        name, group_id, port, *address = word.split("/")
        return cls(f"{name}/{group_id}", int(port), *address)


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
        """The registrations that recorded words name."""
        groups, classic = {}, []
        for word in words:
            if word.startswith("classic/") and word.count("/") == 1:
                classic.append(word.partition("/")[2])
            else:
                target = Target.parse(word)
                groups.setdefault(target.group, []).append(target)
        return cls(groups, classic)


class View(NamedTuple):
    addresses: dict  # {VPC id: the networks that belong to the instance}
    member: dict | None  # as Auto Scaling describes it
    known: bool  # whether Auto Scaling answered
    now: Registrations

    @property
    def group(self):
        """The Auto Scaling group that it is in, and not on its way out of."""
        return None if is_leaving(self.member) else self.member["AutoScalingGroupName"]


def escaped(name):
    """A name as one word of a record; what a tag value cannot hold is escaped with =."""
    return quote(name, safe="+.:/@").replace("%", "=")


def recorded_group(tags):
    words = record.from_tags(tags, AUTO_SCALING_GROUP)
    return unquote("".join(words).replace("=", "%")) if words else None


def own_addresses(instance):
    """The networks that belong to an instance: {VPC id: its addresses and delegated prefixes}."""
    found = {}
    for interface in instance.get("NetworkInterfaces") or ():
        networks = found.setdefault(interface["VpcId"], [])
        for items, key in (
            ("PrivateIpAddresses", "PrivateIpAddress"),
            ("Ipv6Addresses", "Ipv6Address"),
            ("Ipv4Prefixes", "Ipv4Prefix"),
            ("Ipv6Prefixes", "Ipv6Prefix"),
        ):
            networks += [ip_network(item[key]) for item in interface.get(items) or ()]
    return found


def is_own(address, networks):
    return any(ip_address(address) in network for network in networks)


def is_leaving(member):
    """Whether an instance, as Auto Scaling describes it, is out of its group or on its way out."""
    return member is None or member["LifecycleState"] in ("Detaching", "Detached")


def group_part(name):
    return f"Auto Scaling group {name}"


class Service(OfInstance):
    """What the step and its revert share: Auto Scaling and the load balancers of one instance."""

    def member(self, run):
        """The instance as Auto Scaling describes it, or None when it is in no group."""
        answer = self.client("autoscaling").describe_auto_scaling_instances(
            InstanceIds=[self.resource_id(run)]
        )
        return next(iter(answer["AutoScalingInstances"]), None)

    def look_at_member(self, run):
        """(what `member` says, whether Auto Scaling answered)."""
        unknown = object()
        member = run.read("Auto Scaling", self.member, run, default=unknown)
        return (None, False) if member is unknown else (member, True)

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
        """The targets of one target group that are this instance, or an address.

        Without `Targets` in the request ELB describes all, with all their ports. A target whose
        state is draining has been deregistered.
        """
        described = run.read(
            f"target group {group}",
            ignoring,
            "TargetGroupNotFound",
            self.client("elbv2").describe_target_health,
            TargetGroupArn=self.arn(group),
        )
        return [
            Target(
                group,
                t["Target"]["Port"],
                "" if t["Target"]["Id"] == self.resource_id(run) else t["Target"]["Id"],
            )
            for t in (described or {}).get("TargetHealthDescriptions", ())
            if t["TargetHealth"]["State"] != "draining"
            and (
                t["Target"]["Id"] == self.resource_id(run) or not t["Target"]["Id"].startswith("i-")
            )
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
        return [
            balancer["LoadBalancerName"]
            for balancer in balancers
            if self.resource_id(run) in (i["InstanceId"] for i in balancer["Instances"])
        ]

    def change_targets(self, call, run, targets):
        """Call `deregister_targets` or `register_targets` for the targets of one target group."""
        call(
            TargetGroupArn=self.arn(targets[0].group),
            Targets=[{"Id": t.address or self.resource_id(run), "Port": t.port} for t in targets],
        )

    def change_classic(self, call, run, name):
        call(LoadBalancerName=name, Instances=[{"InstanceId": self.resource_id(run)}])


class LeaveService(Service, Step):
    """Takes an instance out of its Auto Scaling group and out of every load balancer.

    An isolated instance fails its health checks, and its Auto Scaling group then terminates it,
    whatever its termination protection says, and the evidence is gone. Detached without lowering
    the desired capacity it lives on, and the group launches another in its place. Then it is
    deregistered from every target group of its VPCs in which it is registered, by its id or by one
    of its addresses, on every port, and from every classic load balancer. What it was registered in
    is recorded before, for `return-to-service`; nothing is ever taken out of that record.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-leave-service
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - leave-service
              - fail-unless-complete

    No arguments. The outcome has `auto_scaling_group` (a name or None) and `registrations` (the
    words of the record). It is `failed` when one part is refused; the others are done all the same.

    Detaching is done by Auto Scaling step by step: the instance counts as out as soon as it is
    `Detaching`. A deregistered target drains, by default for 300 seconds: connections that are open
    go on that long as far as the load balancer is concerned, and the forensic group ends at once
    those that it can end. Auto Scaling itself also deregisters an instance that it detaches from
    the load balancers of the group; deregistering twice is not an error.

    Limits: only an instance that is InService or Standby can be detached; another state is
    reported, and the retry by Lambda tries again. One that its group is terminating already is
    reported as such. Where the group's process `Launch` is suspended nothing takes its place.
    Target groups with target type `ip` in another VPC (by peering) are not searched, because an
    address says nothing outside its VPC. VPC Lattice, Global Accelerator, Route 53 and services
    that find their members by themselves (ECS, EKS) are not touched; the last may register it
    again. A target's QuicServerId is not recorded. One call is made for each target group of the
    VPC, four at a time.

    IAM: autoscaling:DetachInstances on Auto Scaling groups; elasticloadbalancing:DeregisterTargets
    on target groups, DeregisterInstancesFromLoadBalancer on classic load balancers; the describes
    on "*".

    Sources: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DetachInstances.html;
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-detach-attach-instances.html;
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeregisterTargets.html;
    that Standby can be detached as well: https://github.com/reproio/ecs_deploy/issues/47.
    """

    schema = type_schema("leave-service")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:CreateTags",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DetachInstances",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
    )
    nothing = {"auto_scaling_group": None, "registrations": []}

    def look_at(self, run, instance):
        member, known = self.look_at_member(run)
        addresses = own_addresses(instance)
        if run.view is None:
            found = Registrations(self.find_targets(run, addresses), self.classic(run))
            run.memory |= {
                "found": found,
                "group": recorded_group(run.tags),
                "words": record.from_tags(run.tags, LOAD_BALANCERS) or [],
            }
        else:
            found = self.registrations(run, run.memory["found"])
        return View(addresses, member, known, found)

    def find_targets(self, run, addresses):
        """The instance's registrations in the target groups of its VPCs.

        ELB has no way to ask for the groups of a target: one call for each group, some at a time.
        """
        groups = [
            group
            for group in run.read(
                "target groups",
                self.pages,
                "elbv2",
                "describe_target_groups",
                "TargetGroups",
                default=(),
            )
            if group.get("VpcId") in addresses and group["TargetType"] in ("instance", "ip")
        ]
        tails = [group["TargetGroupArn"].partition(":targetgroup/")[2] for group in groups]
        self.client("elbv2")  # made here: the threads share it
        with self.executor_factory(max_workers=4) as workers:
            shown = list(workers.map(partial(self.registered, run), tails))
        found = {
            tail: [
                t for t in targets if not t.address or is_own(t.address, addresses[group["VpcId"]])
            ]
            for group, tail, targets in zip(groups, tails, shown, strict=True)
        }
        return {tail: targets for tail, targets in found.items() if targets}

    def changes(self, run):
        view, found = run.view, run.memory["found"]
        group = view.group or run.memory.get("leaving")
        if group:
            run.memory["leaving"] = group
            # The group first: it terminates what its load balancers call unhealthy.
            yield Change(
                group_part(group),
                holds=view.known and is_leaving(view.member),
                make=partial(self.detach, run, group, view.member),
                key=AUTO_SCALING_GROUP,
                words=() if run.memory["group"] else (escaped(group),),
                unseen=NOT_OUT,
            )
        elbv2, elb = self.client("elbv2"), self.client("elb")
        for group, targets in found.targets.items():
            yield Change(
                f"target group {group}",
                holds=not view.now.targets[group] and f"target group {group}" not in run.unread,
                make=partial(self.change_targets, elbv2.deregister_targets, run, targets),
                key=LOAD_BALANCERS,
                words=tuple(target.word for target in targets),
                unseen=NOT_OUT,
            )
        for name in found.classic:
            yield Change(
                f"classic load balancer {name}",
                holds=name not in view.now.classic and CLASSIC not in run.unread,
                make=partial(
                    self.change_classic, elb.deregister_instances_from_load_balancer, run, name
                ),
                key=LOAD_BALANCERS,
                words=(f"classic/{name}",),
                unseen=NOT_OUT,
            )

    def detach(self, run, group, member):
        state = member["LifecycleState"]
        if state.startswith(("Terminat", "Warmed:Terminat")):
            raise PolicyExecutionError(f"it is terminating the instance already ({state})")
        self.client("autoscaling").detach_instances(
            AutoScalingGroupName=group,
            InstanceIds=[self.resource_id(run)],
            ShouldDecrementDesiredCapacity=False,
        )

    def plan(self, run):
        group, words = run.view.group, run.memory["found"].words
        return (
            f"Would detach it from {group_part(group) if group else 'no group'} and "
            f"deregister it from {', '.join(words) or 'no load balancer'}."
        )

    def out_of(self, run):
        """The group and the registrations that it has left, in this run or before."""
        memory = run.memory
        words = dict.fromkeys([*memory["words"], *memory["found"].words])
        return memory["group"] or memory.get("leaving"), list(words)

    def tell(self, run):
        group, words = self.out_of(run)
        if group or words:
            detail = "Out of service, as read back: "
            detail += (
                f"Auto Scaling group {group}, whose desired capacity is unchanged, so that it "
                "launches another instance"
                if group
                else "no Auto Scaling group"
            )
            detail += f"; load balancers: {', '.join(words) or 'none'}."
            if run.view.member is not None:
                detail += f" Auto Scaling shows it as {run.view.member['LifecycleState']}."
        else:
            detail = "The instance is in no Auto Scaling group and behind no load balancer."
        if run.problems:
            detail = "Not everything could be done. " + detail.replace(", as read back", "")
        return detail

    def facts(self, run):
        group, words = self.out_of(run)
        return [group or "", *words] + [
            f"{part}:{text.partition(': ')[0]}" for part, text in run.problems.items()
        ]

    def more(self, run):
        group, words = self.out_of(run)
        return {"auto_scaling_group": group, "registrations": words}


class ReturnToService(Service, Revert):
    """Registers an instance again where `leave-service` took it out.

    The same targets with the same ports, and the same classic load balancers. Into its Auto Scaling
    group it is put back only when the policy asks for it: the group has launched another instance
    since, attaching this one raises the desired capacity by one, and the group may then terminate
    either. The outcome says plainly which it was.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-return-to-service
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - type: return-to-service
                rejoin-auto-scaling-group: true
              - fail-unless-complete

    Arguments: `rejoin-auto-scaling-group` (default false). A maximum size that leaves no room is
    reported. It is refused while the instance is isolated (tag forensic:state), because the group
    would find it unhealthy and terminate it: release the instance first. It comes back InService
    with the group's own scale-in protection, whatever it had before.

    A target group or classic load balancer that no longer exists is named, as is an address that
    is no longer the instance's; the rest is registered. Whatever else is refused keeps the record,
    so that this can be run again.

    Limits: a target can only be registered while its instance runs.

    IAM: elasticloadbalancing:RegisterTargets on target groups,
    RegisterInstancesWithLoadBalancer on classic load balancers, ec2:DeleteTags on instances, and
    autoscaling:AttachInstances on Auto Scaling groups when it is to rejoin.

    Sources: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AttachInstances.html;
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html.
    """

    schema = type_schema("return-to-service", **{"rejoin-auto-scaling-group": {"type": "boolean"}})
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DeleteTags",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:AttachInstances",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
    )
    keys = (AUTO_SCALING_GROUP, LOAD_BALANCERS)
    unrecorded = "no service is recorded."

    def look_at(self, run, instance):
        words = self.recorded(run)[LOAD_BALANCERS]
        run.memory |= {"wanted": Registrations.parse(words), "group": recorded_group(run.tags)}
        run.memory.setdefault("gone", set())
        member, known = self.look_at_member(run) if self.rejoin(run) else (None, False)
        now = self.registrations(run, run.memory["wanted"])
        return View(own_addresses(instance), member, known, now)

    def rejoin(self, run):
        return run.memory["group"] and self.data.get("rejoin-auto-scaling-group", False)

    def changes(self, run):
        view, wanted = run.view, run.memory["wanted"]
        elbv2, elb = self.client("elbv2"), self.client("elb")
        own = [network for networks in view.addresses.values() for network in networks]
        for group, targets in wanted.targets.items():
            back = [t for t in targets if not t.address or is_own(t.address, own)]
            for target in targets:
                if target not in back:
                    yield no_longer_exists(target.word)
            if back:
                yield self.register(
                    run,
                    f"target group {group}",
                    set(back) <= set(view.now.targets[group]),
                    partial(self.change_targets, elbv2.register_targets, run, back),
                )
        for name in wanted.classic:
            yield self.register(
                run,
                f"classic load balancer {name}",
                name in view.now.classic,
                partial(self.change_classic, elb.register_instances_with_load_balancer, run, name),
            )
        if self.rejoin(run):
            yield self.attach(run)

    def register(self, run, name, holds, call):
        if name in run.memory["gone"]:
            return no_longer_exists(name)

        def make():
            try:
                call()
            except ClientError as error:
                if error_code(error) not in GONE:
                    raise
                run.memory["gone"].add(name)
                raise LookAgain from error

        unseen = PolicyExecutionError("it does not show the instance yet")
        return Change(name, holds, make, unseen=unseen)

    def attach(self, run):
        group, member = run.memory["group"], run.view.member
        change = Change(
            group_part(group),
            holds=not is_leaving(member) and member["AutoScalingGroupName"] == group,
            unseen=PolicyExecutionError("Auto Scaling does not show the instance in it"),
        )
        if record.STATE in run.tags:
            change.error = PolicyExecutionError(
                "the instance is isolated, the group would terminate it: release it first"
            )
        elif member is not None:
            change.error = change.unseen  # it is in another one, or on its way out
        elif run.view.known:
            change.make = partial(
                self.client("autoscaling").attach_instances,
                AutoScalingGroupName=group,
                InstanceIds=[self.resource_id(run)],
            )
        return change

    def plan(self, run):
        words, group = run.memory["wanted"].words, run.memory["group"]
        return f"Would register it with {', '.join(words) or 'no load balancer'} and " + (
            f"attach it to Auto Scaling group {group}."
            if self.rejoin(run)
            else "attach it to none."
        )

    def tell(self, run):
        words, group = run.view.now.words, run.memory["group"]
        detail = f"Registered again, as read back: {', '.join(words) or 'with no load balancer'}."
        if group and not self.rejoin(run):
            detail += (
                f" It was NOT put back into Auto Scaling group {group}, which has launched another "
                "instance in its place."
            )
        elif group and group_part(group) not in run.problems:
            detail += (
                f" It is in Auto Scaling group {group} again, whose desired capacity is one higher "
                "now."
            )
        elif group:
            detail += f" It could not be put back into Auto Scaling group {group}."
        if not self.is_over(run):
            detail += " The record is kept, this can be run again."
        return detail


def no_longer_exists(name):
    """What the record names and is not there any more; no further run could put it back."""
    return Change(f"no longer exists: {name}", holds=True, flaws={"gone": "it was left out"})


register("leave-service", LeaveService, "ec2")
register("return-to-service", ReturnToService, "ec2")
