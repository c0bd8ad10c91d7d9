"""Take an isolated instance out of service, so that nothing destroys it as unhealthy and nobody is
sent to it; and the way back.

The record, on the instance: `forensic:auto-scaling-group` holds the name of the group;
`forensic:load-balancers` holds one word for each registration: `<name>/<id>/<port>` of a target
group, with `/<address>` behind it when the target is an address, or `classic/<name>`. Name and id
are the end of the target group's ARN, so that one made later under the same name is not mistaken
for it.
"""

import logging
import time
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, unquote

from botocore.exceptions import BotoCoreError
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.instance import describe_instance
from custom_actions.response import ResponseAction, describe, error_code, retry, tags_of

log = logging.getLogger("custodian.actions.service")

GROUP_KEY = "forensic:auto-scaling-group"
BALANCERS_KEY = "forensic:load-balancers"

# Seconds before each look: deregistrations are not seen everywhere at once.
READ_BACK_DELAYS = (0, 0.2, 0.5, 1, 2)


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


def group_tags(name):
    """The name of an Auto Scaling group as tags; what a tag value cannot hold is escaped with =."""
    return record.as_tags(GROUP_KEY, [quote(name, safe="+.:/@").replace("%", "=")])


def recorded_group(tags):
    words = record.from_tags(tags, GROUP_KEY)
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


def is_leaving(member):
    """Whether an instance, as Auto Scaling describes it, is out of its group or on its way out."""
    return member is None or member["LifecycleState"] in ("Detaching", "Detached")


class Service:
    """What sends requests to one instance, or would replace it: found, changed, read back.

    An error at one of them is kept in `errors` under its name and does not stop the others.
    action: the response step, for its clients, its thread pool and the account id.
    """

    def __init__(self, action, instance):
        self.instance_id = instance["InstanceId"]
        self.addresses = own_addresses(instance)
        self.scaling = action.client("autoscaling")
        self.targets = action.client("elbv2")
        self.classic = action.client("elb")
        self.executor = action.executor_factory
        self.account_id = action.manager.config.account_id
        self.errors = {}

    def attempt(self, part, call, *args, **request):
        """Do a call; None, with the error kept, when it is refused."""
        try:
            return retry(call, *args, **request)
        except (ClientError, BotoCoreError) as error:
            self.errors[part] = error
            return None

    def pages(self, part, client, operation, key, **request):
        """All items of a paginated describe; [] with the error kept."""

        def read():
            pages = client.get_paginator(operation).paginate(**request)
            return [item for page in pages for item in page[key]]

        return self.attempt(part, read) or []

    # Where it is registered

    def member(self):
        """The instance as Auto Scaling describes it, or None when it is in no group."""
        answer = self.attempt(
            "Auto Scaling",
            self.scaling.describe_auto_scaling_instances,
            InstanceIds=[self.instance_id],
        )
        return next(iter((answer or {}).get("AutoScalingInstances") or ()), None)

    def find_targets(self):
        """The instance's registrations in the target groups of its VPCs.

        ELB has no way to ask for the groups of a target: one call for each group, some at a time.
        """
        groups = [
            group
            for group in self.pages(
                "target groups", self.targets, "describe_target_groups", "TargetGroups"
            )
            if group.get("VpcId") in self.addresses and group["TargetType"] in ("instance", "ip")
        ]
        with self.executor(max_workers=4) as workers:
            found = list(
                workers.map(lambda group: self.registered(group["TargetGroupArn"]), groups)
            )
        return [
            target
            for group, registered in zip(groups, found, strict=True)
            for target in registered
            if not target.address or self.is_own(target.address, [group["VpcId"]])
        ]

    def registered(self, arn):
        """The targets of one target group that are this instance, or an address.

        Without `Targets` in the request ELB describes all, with all their ports. A target whose
        state is draining has been deregistered.
        """
        group = arn.partition(":targetgroup/")[2]
        try:
            described = retry(self.targets.describe_target_health, TargetGroupArn=arn)
        except (ClientError, BotoCoreError) as error:
            if error_code(error) != "TargetGroupNotFound":
                self.errors[f"target group {group}"] = error
            return []
        return [
            Target(
                group,
                t["Target"]["Port"],
                "" if t["Target"]["Id"] == self.instance_id else t["Target"]["Id"],
            )
            for t in described["TargetHealthDescriptions"]
            if t["TargetHealth"]["State"] != "draining"
            and (t["Target"]["Id"] == self.instance_id or not t["Target"]["Id"].startswith("i-"))
        ]

    def is_own(self, address, vpc_ids=None):
        return any(
            ip_address(address) in network
            for vpc_id in vpc_ids or self.addresses
            for network in self.addresses[vpc_id]
        )

    def find_classic(self):
        """The names of the classic load balancers in which the instance is registered."""
        return [
            balancer["LoadBalancerName"]
            for balancer in self.pages(
                "classic load balancers",
                self.classic,
                "describe_load_balancers",
                "LoadBalancerDescriptions",
            )
            if self.instance_id in (i["InstanceId"] for i in balancer["Instances"])
        ]

    # Changing that

    def arn(self, group):
        meta = self.targets.meta
        return (
            f"arn:{meta.partition}:elasticloadbalancing:{meta.region_name}:{self.account_id}"
            f":targetgroup/{group}"
        )

    def change_targets(self, call, targets):
        """Call `deregister_targets` or `register_targets` for each target group."""
        for group in dict.fromkeys(target.group for target in targets):
            self.attempt(
                f"target group {group}",
                call,
                TargetGroupArn=self.arn(group),
                Targets=[
                    {"Id": target.address or self.instance_id, "Port": target.port}
                    for target in targets
                    if target.group == group
                ],
            )

    def change_classic(self, call, names):
        for name in names:
            self.attempt(
                f"classic load balancer {name}",
                call,
                LoadBalancerName=name,
                Instances=[{"InstanceId": self.instance_id}],
            )

    def registrations(self, targets, names):
        """Which of these registrations there are now, as words."""
        groups = dict.fromkeys(target.group for target in targets)
        now = [target for group in groups for target in self.registered(self.arn(group))]
        return {target.word for target in targets if target in now} | {
            f"classic/{name}" for name in self.find_classic() if name in names
        }

    def error(self):
        return "; ".join(f"{part}: {describe(e)}" for part, e in self.errors.items()) or None

    def error_facts(self):
        return [f"{part}:{error_code(e)}" for part, e in self.errors.items()]


def part_of(word):
    """What a recorded word is a registration in, as errors name it."""
    if word.startswith("classic/") and word.count("/") == 1:
        return f"classic load balancer {word.partition('/')[2]}"
    return f"target group {Target.parse(word).group}"


def parse(words):
    """Recorded words as targets and names of classic load balancers."""
    names = [w.partition("/")[2] for w in words if w.startswith("classic/") and w.count("/") == 1]
    targets = [Target.parse(w) for w in words if w.count("/") > 1]
    return targets, names


@EC2.action_registry.register("leave-service")
class LeaveService(ResponseAction):
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

    def respond(self, instance, event):
        client = self.client()
        instance = describe_instance(client, instance["InstanceId"])
        if instance["State"]["Name"] == "terminated":
            return self.outcome(
                "skipped", "The instance is terminated.", auto_scaling_group=None, registrations=[]
            )
        service = Service(self, instance)
        member = service.member()
        targets, names = service.find_targets(), service.find_classic()
        if self.dryrun:
            return self.plan(service, member, targets, names)
        words = [t.word for t in targets] + [f"classic/{name}" for name in names]
        group, recorded = self.record(client, instance, service, member, words)
        changed = bool(words) or not is_leaving(member)
        self.leave(service, member, targets, names)
        if changed:
            member = self.read_back(service, member, targets, names)
        return self.report(service, member, group, recorded, changed)

    def record(self, client, instance, service, member, words):
        """Add to the record what is not in it; returns the group and the words of the record."""
        tags = tags_of(instance)
        group, recorded = recorded_group(tags), record.from_tags(tags, BALANCERS_KEY) or []
        new = [word for word in words if word not in recorded]
        written = record.as_tags(BALANCERS_KEY, recorded + new) if new else []
        if not group and not is_leaving(member):
            group = member["AutoScalingGroupName"]
            written += group_tags(group)
        if written:
            told = " ".join(tag["Value"] for tag in written)
            service.attempt(
                f"the record ({told})",
                client.create_tags,
                Resources=[instance["InstanceId"]],
                Tags=written,
            )
            if f"the record ({told})" in service.errors:
                # Out of service all the same; the mail and this line are then the only record.
                log.error("not recorded: service of %s: %s", instance["InstanceId"], told)
        return group, recorded + new

    def leave(self, service, member, targets, names):
        if not is_leaving(member):
            state, part = member["LifecycleState"], self.part(member)
            if state.startswith(("Terminat", "Warmed:Terminat")):
                service.errors[part] = PolicyExecutionError(
                    f"it is terminating the instance already ({state})"
                )
            else:
                # The group first: it terminates what its load balancers call unhealthy.
                service.attempt(
                    part,
                    service.scaling.detach_instances,
                    AutoScalingGroupName=member["AutoScalingGroupName"],
                    InstanceIds=[service.instance_id],
                    ShouldDecrementDesiredCapacity=False,
                )
        service.change_targets(service.targets.deregister_targets, targets)
        service.change_classic(service.classic.deregister_instances_from_load_balancer, names)

    def part(self, member):
        return f"Auto Scaling group {member['AutoScalingGroupName']}"

    def read_back(self, service, member, targets, names):
        """Look until the instance is out; what is not out becomes an error. Returns the member."""
        group = self.part(member) if member else None
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            member = service.member()
            left = {part_of(word) for word in service.registrations(targets, names)}
            if is_leaving(member):
                service.errors.pop(group, None)  # somebody else took it out at the same moment
            else:
                left.add(self.part(member))
            if left <= set(service.errors):
                break
        for part in sorted(left):
            service.errors.setdefault(
                part, PolicyExecutionError("it still shows the instance, it may leave it later")
            )
        return member

    def plan(self, service, member, targets, names):
        """What would be done: nothing was changed so far."""
        group = None if is_leaving(member) else member["AutoScalingGroupName"]
        words = [t.word for t in targets] + [f"classic/{name}" for name in names]
        return self.outcome(
            "planned",
            f"Would detach it from {f'Auto Scaling group {group}' if group else 'no group'} and "
            f"deregister it from {', '.join(words) or 'no load balancer'}.",
            auto_scaling_group=group,
            registrations=words,
        )

    def report(self, service, member, group, recorded, changed):
        if group or recorded:
            detail = "Out of service, as read back: "
            detail += (
                f"Auto Scaling group {group}, whose desired capacity is unchanged, so that it "
                "launches another instance"
                if group
                else "no Auto Scaling group"
            )
            detail += f"; load balancers: {', '.join(recorded) or 'none'}."
            if member is not None:
                detail += f" Auto Scaling shows it as {member['LifecycleState']}."
        else:
            detail = "The instance is in no Auto Scaling group and behind no load balancer."
        error = service.error()
        if error:
            detail = "Not everything could be done. " + detail.replace(", as read back", "")
        return self.outcome(
            "failed" if error else "done" if changed else "unchanged",
            detail,
            error=error,
            facts=[group or "", *recorded, *service.error_facts()],
            auto_scaling_group=group,
            registrations=recorded,
        )


@EC2.action_registry.register("return-to-service")
class ReturnToService(ResponseAction):
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

    def respond(self, instance, event):
        client = self.client()
        instance = describe_instance(client, instance["InstanceId"])
        tags = tags_of(instance)
        keys = record.tag_keys(tags, GROUP_KEY) + record.tag_keys(tags, BALANCERS_KEY)
        if not keys:
            return self.outcome("unchanged", "Nothing to revert: no service is recorded.")
        if instance["State"]["Name"] == "terminated":
            return self.outcome("skipped", "The instance is terminated.")
        group, words = recorded_group(tags), record.from_tags(tags, BALANCERS_KEY) or []
        rejoin = group and self.data.get("rejoin-auto-scaling-group", False)
        if self.dryrun:
            return self.outcome(
                "planned",
                f"Would register it with {', '.join(words) or 'no load balancer'} and "
                + (f"attach it to Auto Scaling group {group}." if rejoin else "attach it to none."),
            )
        service = Service(self, instance)
        back, gone = self.register(service, words)
        if rejoin:
            self.rejoin(service, group, record.STATE in tags)
        if not service.errors:
            service.attempt(
                "the record",
                client.delete_tags,
                Resources=[instance["InstanceId"]],
                Tags=[{"Key": key} for key in keys],
            )
        return self.report(service, group, rejoin, back, gone)

    def register(self, service, words):
        """Register; returns the words that are registered again and what exists no more."""
        targets, names = parse(words)
        gone = [t.word for t in targets if t.address and not service.is_own(t.address)]
        targets = [t for t in targets if t.word not in gone]
        service.change_targets(service.targets.register_targets, targets)
        service.change_classic(service.classic.register_instances_with_load_balancer, names)
        for part, error in list(service.errors.items()):
            if error_code(error) in ("TargetGroupNotFound", "LoadBalancerNotFound"):
                del service.errors[part]
                gone.append(part)
        failed = {*gone, *service.errors}
        expected = {word for word in words if word not in gone and part_of(word) not in failed}
        targets = [t for t in targets if t.word in expected]
        names = [name for name in names if f"classic/{name}" in expected]
        for delay in READ_BACK_DELAYS if expected else ():
            time.sleep(delay)
            back = service.registrations(targets, names)
            if back == expected:
                break
        for word in sorted(expected - back if expected else ()):
            service.errors[word] = PolicyExecutionError("it does not show the instance yet")
        return sorted(back) if expected else [], gone

    def rejoin(self, service, group, isolated):
        part = f"Auto Scaling group {group}"
        if isolated:
            service.errors[part] = PolicyExecutionError(
                "the instance is isolated, the group would terminate it: release it first"
            )
            return
        member = service.member()
        if member is None:
            service.attempt(
                part,
                service.scaling.attach_instances,
                AutoScalingGroupName=group,
                InstanceIds=[service.instance_id],
            )
            member = service.member()
        if is_leaving(member) or member["AutoScalingGroupName"] != group:
            service.errors.setdefault(
                part, PolicyExecutionError("Auto Scaling does not show the instance in it")
            )

    def report(self, service, group, rejoin, back, gone):
        part = f"Auto Scaling group {group}"
        detail = f"Registered again, as read back: {', '.join(back) or 'with no load balancer'}."
        if group and not rejoin:
            detail += (
                f" It was NOT put back into {part}, which has launched another instance in its "
                "place."
            )
        elif group and part not in service.errors:
            detail += f" It is in {part} again, whose desired capacity is one higher now."
        elif group:
            detail += f" It could not be put back into {part}."
        errors = [f"no longer exists: {', '.join(gone)}"] if gone else []
        if service.errors:
            errors.append(service.error())
            detail += " The record is kept, this can be run again."
        return self.outcome(
            "failed" if errors else "done",
            detail,
            error="; ".join(errors) or None,
            facts=[*back, *gone, *service.error_facts()],
        )
