"""Take an isolated instance out of service, so that nothing destroys it as unhealthy and nobody is
sent to it; and the way back.

The record, on the instance: `forensic:auto-scaling-group` holds the name of the group;
`forensic:suspended-processes` holds the processes of that group that are suspended for it;
`forensic:load-balancers` holds one word for each registration: `<name>/<id>/<port>` of a target
group, with `/<address>` behind it when the target is an address, or `classic/<name>`. Name and id
are the end of the target group's ARN, so that one made later under the same name is not mistaken
for it. Whoever may tag the instance can write there too: words that are none are skipped and named.
"""

from functools import partial
from typing import NamedTuple

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.record import AUTO_SCALING_GROUP, LOAD_BALANCERS, SUSPENDED
from custom_actions.registry import register
from custom_actions.response import (
    Change,
    Impossible,
    LookAgain,
    NothingToDo,
    Revert,
    Step,
    error_code,
)
from custom_actions.service import (
    CLASSIC,
    PROCESSES,
    Group,
    Member,
    Registrations,
    Service,
    escaped,
    group_part,
    is_leaving,
    is_own,
    processes,
    processes_part,
    recorded_group,
    tail,
)

GONE = ("TargetGroupNotFound", "LoadBalancerNotFound")

# What DetachInstances takes.
DETACHABLE = ("InService", "Standby")

NOT_OUT = PolicyExecutionError("it still shows the instance, it may leave it later")


class View(NamedTuple):
    addresses: dict  # {VPC id: the networks that belong to the instance}
    member: Member | None
    known: bool  # whether Auto Scaling answered
    now: Registrations
    group: Group | None = None
    held: dict = {}  # {process: the other instances that it is suspended for}


class LeaveService(Service, Step):
    """Takes an instance out of its Auto Scaling group and out of every load balancer.

    An isolated instance fails its health checks, and its Auto Scaling group then terminates it,
    whatever its termination protection says, and the evidence is gone. Detached without lowering
    the desired capacity it lives on, and the group launches another in its place. Then it is
    deregistered from every target group of its VPCs in which it is registered, by its id or by one
    of its addresses, on every port, and from every classic load balancer. What it was registered in
    is recorded before, for `return-to-service`; nothing is ever taken out of that record.

    Put it directly behind `isolate-instance`: health checks fail within seconds. It detaches first
    and searches the load balancers then; it asks before only for those that belong to the group,
    since Auto Scaling takes the instance out of them and nothing tells of that afterwards.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-leave-service
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
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

    Only an instance that is InService or Standby can be detached. In any other state (Pending,
    EnteringStandby, one with a hook, a warm pool's) the processes ReplaceUnhealthy and Terminate of
    its group are suspended, if they are not. Scale-in protection of the instance would be milder
    and is of no use here: it begins with InService, is refused in warm pools, and does not hold
    against a failed health check. A state that passes is reported as failed, so that the retry by
    Lambda detaches; that a warm pool's instance cannot be detached is told. One that its group is
    terminating already is reported as such: nothing stops that, and what is left are its volumes
    and snapshots (`preserve-evidence`). One that the group retains after a hook
    (Terminating:Retained) is terminated by nobody, and counts as out.

    Price: while processes are suspended **the whole group** replaces no unhealthy instance and does
    not scale in. That is recorded (`forensic:suspended-processes`) and ends with
    `return-to-service`.

    Limits: whether suspended processes keep an instance of a warm pool was not run against AWS.
    Where the group's process `Launch` is suspended nothing takes its place.
    Target groups with target type `ip` in another VPC (by peering) are not searched, because an
    address says nothing outside its VPC. VPC Lattice, Global Accelerator, Route 53 and services
    that find their members by themselves (ECS, EKS) are not touched; the last may register it
    again. A target's QuicServerId is not recorded. One call is made for each target group of the
    VPC, four at a time.

    IAM: autoscaling:DetachInstances and SuspendProcesses on Auto Scaling groups;
    elasticloadbalancing:DeregisterTargets on target groups, DeregisterInstancesFromLoadBalancer on
    classic load balancers; ec2:CreateTags on instances; the describes on "*".

    Sources: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DetachInstances.html;
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-detach-attach-instances.html,
    understand-how-suspending-processes-affects-other-processes.html and
    ec2-auto-scaling-instance-protection.html there; API_AutoScalingInstanceDetails.html (states);
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeregisterTargets.html;
    that Standby can be detached as well: https://github.com/reproio/ecs_deploy/issues/47.
    """

    schema = type_schema("leave-service")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeTags",
        "ec2:CreateTags",
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DetachInstances",
        "autoscaling:SuspendProcesses",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
    )
    nothing = {"auto_scaling_group": None, "registrations": []}

    def look_at(self, run, instance):
        if run.resource.get(record.NOT_JUDGED):
            raise NothingToDo(
                "isolate-instance could not look, and so not judge whether it is the last healthy "
                "member of anything: the next try decides.",
                "skipped",
            )
        if run.view is None:
            words = record.from_tags(run.tags, LOAD_BALANCERS) or []
            run.memory |= {
                "found": Registrations({}, []),
                "group": recorded_group(run.tags),
                "words": Registrations.parse(words)[0].words,
                "searched": False,
            }
        member, known = self.look_at_member(run)
        group = None
        if not is_leaving(member):
            told = f"what belongs to {group_part(member.group)}"
            group = run.read(told, self.group, member.group)
        held = {}
        if self.is_to_halt(member) and group and group.suspended & set(PROCESSES):
            told = f"who else needs the {processes_part(member.group)}"
            held = run.read(told, self.held, run, member.group, let_go=True, default={})
        addresses = self.own_addresses(run, instance)
        now = self.registrations(run, run.memory["found"])
        if not run.memory["searched"]:
            # An unhealthy instance can be terminated within seconds: the detachment does not wait
            # for a search through all target groups, only for those that Auto Scaling itself takes
            # it out of, since nothing tells of them afterwards.
            quick = group and member.state in DETACHABLE and run.view is None and not self.dryrun
            found = self.of_group(run, group) if quick else self.search(run, addresses)
            run.memory |= {"found": run.memory["found"] | found, "searched": not quick}
            now |= found
        return View(addresses, member, known, now, group, held)

    def of_group(self, run, group):
        """The instance's registrations in what the Auto Scaling group registers it in."""
        targets = {
            name: [t for t in self.registered(run, name) if not t.address]
            for name in group.target_groups
        }
        classic = self.classic(run) if group.classic else ()
        return Registrations({name: found for name, found in targets.items() if found}, classic)

    def search(self, run, addresses):
        """All registrations of the instance."""
        return Registrations(self.find_targets(run, addresses), self.classic(run))

    def find_targets(self, run, addresses):
        """The instance's registrations in the target groups of its VPCs.

        ELB has no way to ask for the groups of a target: one call for each group, some at a time.
        """
        shown = run.read(
            "target groups",
            self.pages,
            "elbv2",
            "describe_target_groups",
            "TargetGroups",
            default=(),
        )
        groups = {}
        for number, group in enumerate(shown, 1):
            told = f"target group {group.get('TargetGroupName') or f'number {number}'}"
            groups |= run.read(told, self.vpc_of, group, addresses, default={})
        self.client("elbv2")  # made here: the threads share it
        with self.executor_factory(max_workers=4) as workers:
            targets = list(workers.map(partial(self.registered, run), groups))
        found = {
            name: [t for t in some if not t.address or is_own(t.address, addresses[groups[name]])]
            for name, some in zip(groups, targets, strict=True)
        }
        return {name: some for name, some in found.items() if some}

    def vpc_of(self, group, addresses):
        """{end of its ARN: its VPC} of a target group in which the instance could be."""
        if group["TargetType"] not in ("instance", "ip") or group["VpcId"] not in addresses:
            return {}
        return {tail(group["TargetGroupArn"]): group["VpcId"]}

    def is_to_halt(self, member):
        """Whether it can be kept from being terminated, but not be detached."""
        return not (is_leaving(member) or member.is_terminating or member.state in DETACHABLE)

    def changes(self, run):
        view, found = run.view, run.memory["found"]
        group = run.memory.get("leaving") if is_leaving(view.member) else view.member.group
        if group:
            run.memory["leaving"] = group
            # The group first: it terminates what its load balancers call unhealthy.
            yield Change(
                group_part(group),
                holds=view.known and is_leaving(view.member),
                make=partial(self.detach, run, group, view.member),
                key=AUTO_SCALING_GROUP,
                words=() if run.memory["group"] else (escaped(group),),
                unseen=not_detached(view.member),
            )
            if self.is_to_halt(view.member) and view.group:
                yield self.halt(run)
        elbv2, elb = self.client("elbv2"), self.client("elb")
        for group, targets in found.targets.items():
            yield Change(
                f"target group {group}",
                holds=not view.now.targets.get(group) and f"target group {group}" not in run.unread,
                make=partial(self.change_targets, elbv2.deregister_targets, run, targets),
                key=LOAD_BALANCERS,
                words=tuple(target.word for target in targets),
                unseen=NOT_OUT,
            )
        for name in found.classic:
            yield Change(
                f"classic load balancer {name}",
                holds=name not in view.now.classic
                and not {CLASSIC, f"classic load balancer {name}"} & run.unread.keys(),
                make=partial(
                    self.change_classic, elb.deregister_instances_from_load_balancer, run, name
                ),
                key=LOAD_BALANCERS,
                words=(f"classic/{name}",),
                unseen=NOT_OUT,
            )

    def detach(self, run, group, member):
        if member is None:
            raise LookAgain
        if member.is_terminating:
            raise PolicyExecutionError(
                f"it is terminating the instance already ({member.state}), which nothing stops. "
                "Volumes and snapshots stay. While it is in Terminating:Wait a person can gain "
                "time with aws autoscaling record-lifecycle-action-heartbeat, 48 hours at most"
            )
        if member.is_warm:
            raise Impossible(
                f"it is in the warm pool ({member.state}), out of which nothing can be detached"
            )
        if member.state not in DETACHABLE:
            raise LookAgain
        self.client("autoscaling").detach_instances(
            AutoScalingGroupName=group,
            InstanceIds=[self.resource_id(run)],
            ShouldDecrementDesiredCapacity=False,
        )

    def halt(self, run):
        """Suspend what would terminate it; what a person had suspended is none of the record."""
        name, suspended, *_ = run.view.group
        return Change(
            processes_part(name),
            holds=set(PROCESSES) <= suspended,
            make=partial(
                self.client("autoscaling").suspend_processes,
                AutoScalingGroupName=name,
                ScalingProcesses=list(PROCESSES),
            ),
            key=SUSPENDED,
            words=tuple(p for p in PROCESSES if p not in suspended or p in run.view.held),
            end="suspended",
            unseen=PolicyExecutionError("Auto Scaling does not show them suspended yet"),
        )

    def plan(self, run):
        member, words = run.view.member, run.memory["found"].words
        where = "no group" if is_leaving(member) else group_part(member.group)
        plan = (
            f"Would suspend {' and '.join(PROCESSES)} of {where}, for all its instances,"
            if self.is_to_halt(member)
            else f"Would detach it from {where}"
        )
        return f"{plan} and deregister it from {', '.join(words) or 'no load balancer'}."

    def out_of(self, run):
        """The group and the registrations that it has left, or is to leave."""
        memory = run.memory
        words = dict.fromkeys([*memory["words"], *memory["found"].words])
        return memory.get("leaving") or memory["group"], list(words)

    def tell(self, run):
        (group, words), member = self.out_of(run), run.view.member
        if group is None:
            where = "no Auto Scaling group"
        elif is_leaving(member):
            where = (
                f"{group_part(group)}, whose desired capacity is unchanged, so that it launches "
                "another instance"
            )
        else:
            where = f"NOT {group_part(group)}"
        detail = "The instance is in no Auto Scaling group and behind no load balancer."
        if group or words:
            detail = (
                f"Out of service, as read back: {where}; "
                f"load balancers: {', '.join(words) or 'none'}."
            )
        if member is not None:
            detail += f" Auto Scaling shows it as {member.state}."
        if run.problems:
            detail = "Not everything could be done. " + detail.replace(", as read back", "")
        if processes(self.present_words(run, SUSPENDED)):
            detail += (
                f" {' and '.join(PROCESSES)} of the WHOLE group {group} are suspended until the "
                "release: it replaces no unhealthy instance and does not scale in."
            )
        return detail

    def facts(self, run):
        group, words = self.out_of(run)
        halted = [c for c in run.holding if c.key == SUSPENDED]
        return (
            [group or "", *words]
            + [f"{change.name}:{change.end}" for change in halted]
            + [f"{name}:excused" for name in run.excuses]
            + [f"{part}:{text.partition(': ')[0]}" for part, text in run.problems.items()]
        )

    def more(self, run):
        group, words = self.out_of(run)
        return {"auto_scaling_group": group, "registrations": words}


def not_detached(member):
    """Why an instance is still in its group at the end, or is not seen to be out."""
    if is_leaving(member) or member.state in DETACHABLE:
        return NOT_OUT
    return PolicyExecutionError(
        f"the instance is {member.state}, and only {' and '.join(DETACHABLE)} can be detached: "
        "the next try does it"
    )


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

    Processes of the group that were suspended for this instance are resumed, but not those that
    another instance still needs suspended (same group and process in its tags), nor those that were
    suspended before. While the instance is in the group and isolated, or called unhealthy, they are
    not: the group would terminate it at once; the error has the command that helps.

    Words in the record that mean nothing are left out and named; the rest is done, and the record
    goes.

    Limits: a target can only be registered while its instance runs. An instance that was terminated
    counts as needing the suspension as long as EC2 shows its tags, about an hour.

    IAM: elasticloadbalancing:RegisterTargets on target groups,
    RegisterInstancesWithLoadBalancer on classic load balancers, ec2:CreateTags and ec2:DeleteTags
    on instances, autoscaling:ResumeProcesses on Auto Scaling groups when some were suspended, and
    autoscaling:AttachInstances on them when it is to rejoin.

    Sources: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_AttachInstances.html;
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html.
    """

    schema = type_schema("return-to-service", **{"rejoin-auto-scaling-group": {"type": "boolean"}})
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DeleteTags",
        "ec2:CreateTags",
        "ec2:DescribeTags",
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:AttachInstances",
        "autoscaling:ResumeProcesses",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
    )
    keys = (AUTO_SCALING_GROUP, LOAD_BALANCERS, SUSPENDED)
    unrecorded = "no service is recorded."

    def look_at(self, run, instance):
        if run.view is None:
            self.remember(run)
        name, held = run.memory["group"], {}
        member, known, group = None, True, None
        if name:
            member, known = self.look_at_member(run)
            # when it cannot be read nothing is done about it, and the record stays
            group = run.read(group_part(name), self.group, name)
        if run.memory["halted"] and group:
            held = run.read(f"who else needs the {processes_part(name)}", self.held, run, name)
        now = self.registrations(run, run.memory["wanted"])
        return View(self.own_addresses(run, instance), member, known, now, group, held or {})

    def remember(self, run):
        """Take from the record what is well-formed."""
        words = self.recorded(run)
        wanted, malformed = Registrations.parse(words[LOAD_BALANCERS])
        halted, name = processes(words[SUSPENDED]), recorded_group(run.tags)
        malformed += [w for w in words[SUSPENDED] if w.removeprefix("-") not in PROCESSES]
        if name and not (len(name) <= 255 and name.isprintable()):
            malformed += words[AUTO_SCALING_GROUP]
            name = None
        run.memory |= {
            "wanted": wanted,
            "malformed": malformed,
            "group": name,
            "halted": halted if name else [],
            "gone": set(),
        }

    def is_gone(self, run):
        """Whether the recorded Auto Scaling group is known not to exist."""
        name = run.memory["group"]
        return name and not run.view.group and group_part(name) not in run.unread

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
        name = run.memory["group"]
        if view.group:
            if run.memory["halted"]:
                yield self.resume(run)
            if self.rejoin(run):
                yield self.attach(run)
        elif self.is_gone(run) and (self.rejoin(run) or run.memory["halted"]):
            yield no_longer_exists(group_part(name))
        for word in dict.fromkeys(run.memory["malformed"]):
            yield skipped(word)

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

    def resume(self, run):
        """Resume the processes that this instance had suspended and no other one needs so."""
        view, halted = run.view, run.memory["halted"]
        own = {process for process in halted if process not in view.held}
        change = Change(
            processes_part(view.group.name),
            holds=bool(run.memory.get("let go")) and not own & view.group.suspended,
            make=partial(self.let_go, run, view.group.name, halted),
            unseen=PolicyExecutionError("Auto Scaling does not show them resumed yet"),
        )
        if is_leaving(view.member):
            return change  # it cannot be terminated by this, see `let_go`
        if record.STATE in run.tags:
            change.error = PolicyExecutionError(
                "the instance is isolated, the group would terminate it: release it first"
            )
        elif str(view.member.health).lower() == "unhealthy":
            change.error = PolicyExecutionError(
                "the group calls the instance unhealthy and would terminate it at once. First: aws "
                f"autoscaling set-instance-health --instance-id {self.resource_id(run)} "
                "--health-status Healthy"
            )
        return change

    def let_go(self, run, group, halted):
        if not run.view.known:
            raise LookAgain
        # Its own need first: of two that are released at once the later one sees nobody's.
        self.tag(run, record.as_tags(SUSPENDED, [f"-{process}" for process in halted]))
        run.memory["let go"] = True
        held = self.held(run, group)
        if own := [process for process in halted if process not in held]:
            self.client("autoscaling").resume_processes(
                AutoScalingGroupName=group, ScalingProcesses=own
            )

    def attach(self, run):
        group, member = run.memory["group"], run.view.member
        change = Change(
            group_part(group),
            holds=not is_leaving(member) and member.group == group,
            unseen=PolicyExecutionError("Auto Scaling does not show the instance in it"),
        )
        if record.STATE in run.tags:
            change.error = PolicyExecutionError(
                "the instance is isolated, the group would terminate it: release it first"
            )
        elif member is not None:
            change.error = change.unseen  # it is in another one, or on its way out
        else:
            change.make = partial(self.put_back, run, group)
        return change

    def put_back(self, run, group):
        if not run.view.known:
            raise LookAgain
        self.client("autoscaling").attach_instances(
            AutoScalingGroupName=group, InstanceIds=[self.resource_id(run)]
        )

    def plan(self, run):
        words, group = run.memory["wanted"].words, run.memory["group"]
        resume = f" Would resume {' and '.join(run.memory['halted'])} of {group_part(group)}."
        return (
            f"Would register it with {', '.join(words) or 'no load balancer'} and "
            + (f"attach it to {group_part(group)}." if self.rejoin(run) else "attach it to none.")
            + (resume if run.memory["halted"] else "")
        )

    def tell(self, run):
        view, group = run.view, run.memory["group"]
        words = view.now.words
        sentences = [
            f"Registered again, as read back: {', '.join(words) or 'with no load balancer'}."
        ]
        if self.is_gone(run):
            sentences.append(f"{group_part(group)}, which is recorded, does not exist.")
        elif group and view.group and view.known:
            sentences += [self.tell_of_group(run), *self.tell_of_processes(run)]
        elif group:
            sentences.append(f"What is with {group_part(group)} could not be read.")
        if not self.is_over(run):
            sentences.append("The record is kept, this can be run again.")
        return " ".join(sentences)

    def tell_of_group(self, run):
        group, member = run.memory["group"], run.view.member
        is_in = not is_leaving(member) and member.group == group
        if is_in and not any(c.tried for c in run.changes if c.name == group_part(group)):
            return f"It is in {group_part(group)}."
        if not self.rejoin(run):
            return (
                f"It was NOT put back into {group_part(group)}, which has launched another "
                "instance in its place."
            )
        if group_part(group) in run.problems:
            return f"It could not be put back into {group_part(group)}."
        return f"It is in {group_part(group)} again, whose desired capacity is one higher now."

    def tell_of_processes(self, run):
        for change in run.holding:
            if change.name == processes_part(run.memory["group"]):
                yield f"Not suspended for it any more: {', '.join(run.memory['halted'])}."
        for process, others in run.view.held.items():
            yield f"{process} stays suspended for {', '.join(sorted(others))}."


def no_longer_exists(name):
    """What the record names and is not there any more; no further run could put it back."""
    return Change(f"no longer exists: {name}", holds=True, flaws={"gone": "it was left out"})


def skipped(word):
    """A word of the record that this pack did not write, or somebody has changed."""
    return Change(
        f"in the record: {word[:80]}", holds=True, flaws={"malformed": "means nothing, left out"}
    )


register("leave-service", LeaveService, "ec2")
register("return-to-service", ReturnToService, "ec2")
