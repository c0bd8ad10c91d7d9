"""leave-service and return-to-service, run as in Lambda: out of service, and the way back."""

import itertools

import pytest
import yaml

from custom_actions import record
from custom_actions.service import (
    escaped,
    recorded_group,
)
from simulation import deploy
from simulation.calls import ApiError
from simulation.load_balancing import put_into

ACCOUNT, REGION = "111122223333", "us-west-2"
NUMBERS = itertools.count(1)
BACK, RELEASE = "service-back", "service-release"
OWN_TAGS = ("forensic:auto-scaling-group", "forensic:load-balancers", "forensic:suspended")
REJOIN = {"type": "return-to-service", "rejoin-auto-scaling-group": True}


@pytest.fixture(scope="module")
def functions(pack, tmp_path_factory):
    """The step behind the isolation, the same as a dry run, and the revert, each a function."""
    steps = {
        "service": (["isolate-instance", "leave-service"], {}),
        "service-plan": (["isolate-instance", "leave-service"], {"dryrun": True}),
        BACK: (["return-to-service"], {}),
        "service-back-plan": ([REJOIN], {"dryrun": True}),
        "service-rejoin": ([REJOIN], {}),
        RELEASE: (["release-instance", REJOIN], {}),
    }
    path = tmp_path_factory.mktemp("service") / "service.yml"
    path.write_text(yaml.safe_dump({"policies": [policy(n, *s) for n, s in steps.items()]}))
    deploy.deploy(pack.cloud, [path], ACCOUNT, REGION)


def policy(name, actions, options):
    return {
        "name": name,
        "resource": "ec2",
        "mode": {
            "type": "guard-duty",
            "role": "guardduty-response-ec2-isolate",
            "packages": ["custom_actions"],
            "handler": "custom_actions.handler.run",
            "runtime": "python3.13",
            "timeout": 300,
            "execution-options": options,
        },
        "actions": [*actions, "fail-unless-complete"],
    }


class Fleet:
    """Load balancers and Auto Scaling groups in the scene's VPC, and the functions."""

    def __init__(self, scene):
        self.scene, self.cloud, self.ec2 = scene, scene.cloud, scene.ec2
        self.scaling, self.elbv2, self.elb = (
            self.cloud.client(name, ACCOUNT, REGION) for name in ("autoscaling", "elbv2", "elb")
        )
        self.arns, self.names = [], []

    def run(self, name, event):
        return self.cloud.invoke(f"custodian-{name}", event, ACCOUNT, REGION)

    def outcome(self, name, event):
        invocation = self.run(name, event)
        assert invocation.error is None, invocation.error
        return invocation.result[name][-1]

    def target_group(self, *targets, kind="instance", vpc_id=None):
        """Make a target group with these targets, each an id or (id, port); returns its ARN."""
        arn = self.elbv2.create_target_group(
            Name=f"web-{next(NUMBERS)}",
            Protocol="HTTP",
            Port=80,
            VpcId=vpc_id or self.scene.vpc_id,
            TargetType=kind,
        )["TargetGroups"][0]["TargetGroupArn"]
        self.arns.append(arn)
        for target in targets:
            target_id, *port = [target] if isinstance(target, str) else target
            key = {"Id": target_id} | ({"Port": port[0]} if port else {})
            self.elbv2.register_targets(TargetGroupArn=arn, Targets=[key])
        return arn

    def classic(self, *instances):
        name = f"classic-{next(NUMBERS)}"
        self.elb.create_load_balancer(
            LoadBalancerName=name,
            Listeners=[{"Protocol": "http", "LoadBalancerPort": 80, "InstancePort": 80}],
            Subnets=[self.scene.subnet_id],
        )
        self.names.append(name)
        self.elb.register_instances_with_load_balancer(
            LoadBalancerName=name, Instances=[{"InstanceId": i} for i in instances]
        )
        return name

    def group(self, size=2, most=4, name=None, **options):
        name = name or f"group-{next(NUMBERS)}"
        self.scaling.create_launch_configuration(
            LaunchConfigurationName=name,
            ImageId="ami-12c6146b",
            InstanceType="t3.micro",
            SecurityGroups=self.scene.groups[:1],
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=name,
            MinSize=0,
            MaxSize=most,
            DesiredCapacity=size,
            VPCZoneIdentifier=self.scene.subnet_id,
            **options,
        )
        return name

    def describe(self, group):
        (shown,) = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
            "AutoScalingGroups"
        ]
        return shown

    def suspended(self, group):
        return {p["ProcessName"] for p in self.describe(group)["SuspendedProcesses"]}

    def suspend(self, group, *processes):
        self.scaling.suspend_processes(AutoScalingGroupName=group, ScalingProcesses=list(processes))

    def members(self, group):
        return [i["InstanceId"] for i in self.describe(group)["Instances"]]

    def member(self, **options):
        """A new group and one of its instances."""
        group = self.group(**options)
        return group, self.members(group)[0]

    def health(self, arn):
        shown = self.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {
            (t["Target"]["Id"], t["Target"]["Port"])
            for t in shown
            if t["TargetHealth"]["State"] != "draining"
        }

    def registered(self, name):
        (shown,) = self.elb.describe_load_balancers(LoadBalancerNames=[name])[
            "LoadBalancerDescriptions"
        ]
        return {i["InstanceId"] for i in shown["Instances"]}

    def everything(self):
        return (
            {arn: self.health(arn) for arn in self.arns},
            {name: self.registered(name) for name in self.names},
        )

    def addresses(self, instance):
        shown = self.ec2.describe_instances(InstanceIds=[instance])
        interfaces = shown["Reservations"][0]["Instances"][0]["NetworkInterfaces"]
        return [a["PrivateIpAddress"] for i in interfaces for a in i["PrivateIpAddresses"]]

    def state(self, instance):
        shown = self.ec2.describe_instances(InstanceIds=[instance])
        return shown["Reservations"][0]["Instances"][0]["State"]["Name"]

    def own_tags(self, instance):
        return {key for key in self.scene.tags(instance) if key.startswith(OWN_TAGS)}

    def writes(self, name):
        return [
            c.operation
            for c in self.cloud.call_log.by(f"custodian-{name}")
            if not c.operation.startswith(("Describe", "Assume"))
        ]


@pytest.fixture
def fleet(scene, functions):
    return Fleet(scene)


def error(invocation):
    return invocation.error["errorMessage"]


def tail(arn):
    return arn.partition(":targetgroup/")[2]


def test_out_of_the_group_which_launches_another_while_the_instance_lives(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(size=2, TargetGroupARNs=[arn])
    other = fleet.members(group)[1]
    assert (instance, 80) in fleet.health(arn)

    report = fleet.outcome("service", fleet.scene.finding(instance))

    assert report["status"] == "done" and report["auto_scaling_group"] == group
    assert fleet.describe(group)["DesiredCapacity"] == 2
    members = fleet.members(group)
    assert len(members) == 2 and other in members and instance not in members
    assert fleet.state(instance) == "running"
    assert fleet.health(arn) == {(i, 80) for i in members}
    assert report["registrations"] == [f"{tail(arn)}/80"]
    assert group in report["detail"] and "desired capacity is unchanged" in report["detail"]


def test_out_of_every_target_group_on_every_port_and_every_classic_load_balancer(fleet):
    instance, neighbour = fleet.scene.instance(), fleet.scene.instance()
    both = [instance, neighbour]
    ports = fleet.target_group(*[(i, p) for i in both for p in (80, 8080, 8443)])
    more = fleet.target_group(*both)
    other = fleet.target_group(neighbour)
    classic, classic_other = fleet.classic(*both), fleet.classic(neighbour)

    report = fleet.outcome("service", fleet.scene.finding(instance))

    assert report["status"] == "done" and report["auto_scaling_group"] is None
    assert fleet.health(ports) == {(neighbour, p) for p in (80, 8080, 8443)}
    assert fleet.health(more) == fleet.health(other) == {(neighbour, 80)}
    assert fleet.registered(classic) == fleet.registered(classic_other) == {neighbour}
    assert set(report["registrations"]) == {
        *(f"{tail(ports)}/{p}" for p in (80, 8080, 8443)),
        f"{tail(more)}/80",
        f"classic/{classic}",
    }


def test_targets_by_address_on_every_interface_but_only_of_its_own_vpc(fleet):
    instance = fleet.scene.instance(fleet.scene.groups, fleet.scene.groups[:1])
    neighbour = fleet.scene.instance()
    first, second = fleet.addresses(instance)
    (other,) = fleet.addresses(neighbour)
    own = fleet.target_group(first, (second, 8080), other, kind="ip")
    elsewhere = fleet.target_group(first, kind="ip", vpc_id=fleet.scene.vpc()[0])

    report = fleet.outcome("service", fleet.scene.finding(instance))

    assert fleet.health(own) == {(other, 80)}
    assert fleet.health(elsewhere) == {(first, 80)}
    assert set(report["registrations"]) == {
        f"{tail(own)}/80/{first}",
        f"{tail(own)}/8080/{second}",
    }


def test_everything_is_registered_again_as_it_was(fleet):
    instance = fleet.scene.instance(fleet.scene.groups, fleet.scene.groups[:1])
    neighbour = fleet.scene.instance()
    for _ in range(3):
        fleet.target_group((instance, 80), (instance, 8443), neighbour)
    fleet.target_group(*fleet.addresses(instance), kind="ip")
    fleet.target_group(neighbour)
    for _ in range(2):
        fleet.classic(instance, neighbour)
    before = fleet.everything()
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    assert fleet.everything() != before

    report = fleet.outcome(BACK, event)

    assert report["status"] == "done"
    assert fleet.everything() == before
    assert fleet.own_tags(instance) == set()
    again = fleet.outcome(BACK, event)
    assert again["status"] == "unchanged" and "Nothing to revert" in again["detail"]


def test_by_hand_it_is_told_that_it_is_not_put_back_into_the_group(fleet, tmp_path):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    fleet.outcome("service", fleet.scene.finding(instance))
    path = tmp_path / "release.yml"
    release = {
        "name": "service-by-hand",
        "resource": "ec2",
        "query": [{"instance-id": instance}],
        "filters": [{"InstanceId": instance}],
        "actions": ["return-to-service", "release-instance", "fail-unless-complete"],
    }
    path.write_text(yaml.safe_dump({"policies": [release]}))
    arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "out", path]

    printed = deploy.custodian(fleet.cloud, arguments, ACCOUNT, REGION).stdout

    assert f"NOT put back into Auto Scaling group {group}" in printed
    assert (instance, 80) in fleet.health(arn) and instance not in fleet.members(group)
    assert not [key for key in fleet.scene.tags(instance) if key.startswith("forensic:")]


def test_back_into_the_group_when_the_policy_says_so(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(size=2, TargetGroupARNs=[arn])
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)

    report = fleet.outcome(RELEASE, event)

    assert report["status"] == "done" and "one higher" in report["detail"]
    assert fleet.describe(group)["DesiredCapacity"] == 3
    assert instance in fleet.members(group) and (instance, 80) in fleet.health(arn)
    assert fleet.own_tags(instance) == set()


def test_an_isolated_instance_does_not_rejoin_its_group(fleet):
    group, instance = fleet.member()
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)

    assert "release it first" in error(fleet.run("service-rejoin", event))

    assert instance not in fleet.members(group)
    assert recorded_group(fleet.scene.tags(instance)) == group


def test_a_group_without_room_is_told_and_the_record_is_kept(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(size=2, most=2, TargetGroupARNs=[arn])
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)

    assert f"Auto Scaling group {group}: " in error(fleet.run(RELEASE, event))

    assert (instance, 80) in fleet.health(arn)
    assert recorded_group(fleet.scene.tags(instance)) == group
    fleet.scaling.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=3)
    assert fleet.outcome("service-rejoin", event)["status"] == "done"
    assert instance in fleet.members(group)


def test_neither_group_nor_load_balancer(fleet):
    instance = fleet.scene.instance()
    event = fleet.scene.finding(instance)

    report = fleet.outcome("service", event)

    assert report["status"] == "unchanged" and "no Auto Scaling group" in report["detail"]
    assert fleet.own_tags(instance) == set()
    assert fleet.outcome(BACK, event)["status"] == "unchanged"


def test_a_second_finding_changes_nothing(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    first = fleet.outcome("service", fleet.scene.finding(instance))
    tags = fleet.scene.tags(instance)
    members = fleet.members(group)
    fleet.cloud.call_log.clear()

    again = fleet.outcome("service", fleet.scene.finding(instance))

    assert again["status"] == "unchanged" and again["facts"] == first["facts"]
    assert fleet.scene.tags(instance) == tags and fleet.members(group) == members
    assert fleet.writes("service") == []


def test_what_is_registered_since_is_added_to_the_record(fleet):
    instance = fleet.scene.instance()
    first = fleet.target_group(instance)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    second = fleet.target_group((instance, 8080))

    report = fleet.outcome("service", event)

    assert report["status"] == "done"
    assert report["registrations"] == [f"{tail(first)}/80", f"{tail(second)}/8080"]
    fleet.outcome(BACK, event)
    assert fleet.health(first) == {(instance, 80)} and fleet.health(second) == {(instance, 8080)}


@pytest.mark.parametrize(
    "operation", ["DetachInstances", "DeregisterTargets", "DeregisterInstancesFromLoadBalancer"]
)
def test_dying_at_any_change_loses_no_record(fleet, operation):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    fleet.target_group((instance, 8080))
    fleet.classic(instance)
    before = fleet.everything()[0][fleet.arns[1]], fleet.everything()[1]
    event = fleet.scene.finding(instance)

    def die(call):
        fleet.cloud.functions.kill("custodian-service")
        return ApiError("ServiceUnavailable", status=503)

    fleet.cloud.before(operation, die, times=None)
    assert "exited" in error(fleet.run("service", event))
    fleet.cloud.call_log.clear()

    assert fleet.outcome("service", event)["auto_scaling_group"] == group

    assert instance not in fleet.members(group)
    assert not any(i == instance for i, _ in fleet.health(arn) | fleet.health(fleet.arns[1]))
    fleet.outcome(BACK, event)
    assert (fleet.everything()[0][fleet.arns[1]], fleet.everything()[1]) == before
    assert (instance, 80) in fleet.health(arn)


@pytest.mark.parametrize(
    "operation, part",
    [
        ("DetachInstances", "Auto Scaling group"),
        ("DeregisterTargets", "target group web-"),
        ("DeregisterInstancesFromLoadBalancer", "classic load balancer classic-"),
        ("DescribeAutoScalingInstances", "Auto Scaling"),
        ("DescribeTargetGroups", "target groups"),
        ("DescribeTargetHealth", "target group web-"),
        ("DescribeLoadBalancers", "classic load balancers"),
        ("CreateTags", "the record"),
    ],
)
def test_one_part_is_refused_the_others_are_done_and_the_retry_completes(fleet, operation, part):
    group, instance = fleet.member()
    for _ in range(2):
        fleet.target_group(instance, (instance, 8080))
    fleet.classic(instance)
    event = fleet.scene.finding(instance)
    fleet.cloud.fail(
        operation,
        "UnauthorizedOperation",
        # a group that is not seen at the first look is left at the second
        times=None if operation == "DescribeAutoScalingInstances" else 1,
        when=lambda call: (
            call.caller == "custodian-service"
            and (operation != "CreateTags" or "load-balancers" in str(call.parameters))
        ),
    )

    failed = fleet.run("service", event)

    assert part in error(failed) and "UnauthorizedOperation" in error(failed)
    left = [
        ("Auto Scaling", instance in fleet.members(group)),
        *(("target group", instance in dict(fleet.health(arn))) for arn in fleet.arns),
        ("classic", instance in fleet.registered(fleet.names[0])),
    ]
    wrong = [name for name, present in left if present]
    assert all(part.startswith(name) for name in wrong)
    if operation == "CreateTags":
        assert wrong == [] and f"classic/{fleet.names[0]}" in error(failed)
        return
    assert bool(wrong)
    if not part.endswith("groups"):
        assert len(wrong) == 1
    fleet.cloud.call_log.clear()

    report = fleet.outcome("service", event)

    assert report["auto_scaling_group"] == group and len(report["registrations"]) == 5
    assert instance not in fleet.members(group)
    assert not fleet.registered(fleet.names[0])
    assert all(not fleet.health(arn) for arn in fleet.arns)
    detached = fleet.writes("service").count("DetachInstances")
    assert detached == (1 if part.startswith("Auto Scaling") else 0)


def test_a_group_that_is_terminating_the_instance_is_told(fleet):
    group, instance = fleet.member()
    put_into(instance, "Terminating:Wait", region=REGION, account_id=ACCOUNT)

    failed = fleet.run("service", fleet.scene.finding(instance))

    assert f"Auto Scaling group {group}" in error(failed)
    assert "terminating the instance already (Terminating:Wait)" in error(failed)
    assert "DetachInstances" not in fleet.writes("service")


@pytest.mark.parametrize("state", ["Pending", "Pending:Wait", "EnteringStandby"])
def test_what_cannot_be_detached_yet_is_not_terminated_and_the_retry_detaches_it(fleet, state):
    group, instance = fleet.member()
    put_into(instance, state, region=REGION, account_id=ACCOUNT)
    event = fleet.scene.finding(instance)

    failed = error(fleet.run("service", event))

    assert f"the instance is {state}, and only InService and Standby can be detached" in failed
    assert fleet.suspended(group) == {"ReplaceUnhealthy", "Terminate"}
    assert "DetachInstances" not in fleet.writes("service")
    put_into(instance, "InService", region=REGION, account_id=ACCOUNT)

    report = fleet.outcome("service", event)

    assert report["auto_scaling_group"] == group and instance not in fleet.members(group)
    assert f"of the WHOLE group {group} are suspended" in report["detail"]
    assert "Not suspended for it any more" in fleet.outcome(BACK, event)["detail"]
    assert fleet.suspended(group) == set() and fleet.own_tags(instance) == set()


@pytest.mark.parametrize("state", ["Warmed:Stopped", "Warmed:Pending:Wait"])
def test_an_instance_of_a_warm_pool_is_kept_by_suspending_what_would_terminate_it(fleet, state):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    put_into(instance, state, region=REGION, account_id=ACCOUNT)
    event = fleet.scene.finding(instance)
    first = fleet.outcome("service", event)
    assert first["status"] == "done"
    for told in (f"Not possible here: Auto Scaling group {group}", "warm pool", "WHOLE group"):
        assert told in first["detail"]
    assert fleet.suspended(group) == {"ReplaceUnhealthy", "Terminate"}

    again = fleet.outcome("service", event)
    assert again["status"] == "unchanged" and again["facts"] == first["facts"]

    back = fleet.outcome(RELEASE, event)

    assert f"It is in Auto Scaling group {group}." in back["detail"]
    assert fleet.suspended(group) == set() and instance in fleet.members(group)
    assert (instance, 80) in fleet.health(arn) and fleet.own_tags(instance) == set()


def test_what_a_person_suspended_before_stays_suspended(fleet):
    group, instance = fleet.member()
    fleet.suspend(group, "Terminate", "AZRebalance")
    put_into(instance, "Warmed:Stopped", region=REGION, account_id=ACCOUNT)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    assert fleet.suspended(group) == {"AZRebalance", "ReplaceUnhealthy", "Terminate"}

    fleet.outcome(RELEASE, event)

    assert fleet.suspended(group) == {"AZRebalance", "Terminate"}


def test_a_suspension_stays_as_long_as_another_instance_needs_it(fleet):
    group = fleet.group(size=2)
    events = [fleet.scene.finding(instance) for instance in fleet.members(group)]
    for event in events:
        instance = event["detail"]["resource"]["instanceDetails"]["instanceId"]
        put_into(instance, "Warmed:Stopped", region=REGION, account_id=ACCOUNT)
        fleet.outcome("service", event)

    first = fleet.outcome(RELEASE, events[0])

    assert f"Terminate stays suspended for {instance}" in first["detail"]
    assert fleet.suspended(group) == {"ReplaceUnhealthy", "Terminate"}
    fleet.outcome(RELEASE, events[1])
    assert fleet.suspended(group) == set()


def test_two_that_are_released_at_once_leave_nothing_suspended(fleet):
    group = fleet.group(size=2)
    one, other = fleet.members(group)
    events = [fleet.scene.finding(instance) for instance in (one, other)]
    for instance, event in zip((one, other), events, strict=True):
        put_into(instance, "Warmed:Stopped", region=REGION, account_id=ACCOUNT)
        fleet.outcome("service", event)
    # the other one's release, as soon as this one has looked who else needs the suspension
    fleet.cloud.before(
        "CreateTags",
        lambda call: fleet.outcome(RELEASE, events[1]),
        when=lambda call: call.parameters["Resources"] == [one],
    )

    fleet.outcome(RELEASE, events[0])

    assert fleet.suspended(group) == set()
    assert fleet.own_tags(one) == fleet.own_tags(other) == set()


def test_the_group_does_not_get_to_terminate_what_it_calls_unhealthy(fleet):
    group, instance = fleet.member()
    put_into(instance, "Warmed:Running", region=REGION, account_id=ACCOUNT)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    health = {"InstanceId": instance}
    fleet.scaling.set_instance_health(**health, HealthStatus="Unhealthy")

    assert "set-instance-health --instance-id" in error(fleet.run(RELEASE, event))
    assert fleet.suspended(group) == {"ReplaceUnhealthy", "Terminate"}

    fleet.scaling.set_instance_health(**health, HealthStatus="Healthy")
    fleet.outcome("service-rejoin", event)
    assert fleet.suspended(group) == set()


def test_what_the_group_retains_is_terminated_by_nobody(fleet):
    group, instance = fleet.member()
    put_into(instance, "Terminating:Retained", region=REGION, account_id=ACCOUNT)

    report = fleet.outcome("service", fleet.scene.finding(instance))

    assert report["status"] == "unchanged" and "Terminating:Retained" in report["detail"]
    assert not {"DetachInstances", "SuspendProcesses"} & set(fleet.writes("service"))


def test_the_group_comes_before_the_search_through_all_target_groups(fleet):
    own = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[own])
    others = [fleet.target_group((instance, port)) for port in (8080, 8081, 8082)]
    fleet.classic(instance)
    before = fleet.everything()
    event = fleet.scene.finding(instance)

    fleet.outcome("service", event)

    calls = fleet.cloud.call_log.by("custodian-service")
    detached = [c.operation for c in calls].index("DetachInstances")
    asked = [c.parameters["TargetGroupArn"] for c in calls[:detached] if "Health" in c.operation]
    assert asked == [own]
    assert not {"DescribeTargetGroups", "DescribeLoadBalancers"} & {
        c.operation for c in calls[:detached]
    }
    assert not any(instance in dict(fleet.health(arn)) for arn in (own, *others))
    fleet.outcome(BACK, event)
    after = fleet.everything()
    assert after[1] == before[1]
    assert all(after[0][arn] == before[0][arn] for arn in others)
    assert (instance, 80) in after[0][own]


@pytest.mark.parametrize("state", ["Standby", "Detaching"])
def test_standby_is_detached_and_detaching_counts_as_out(fleet, state):
    group, instance = fleet.member()
    put_into(instance, state, region=REGION, account_id=ACCOUNT)

    report = fleet.outcome("service", fleet.scene.finding(instance))

    assert report["status"] == ("done" if state == "Standby" else "unchanged")
    assert fleet.writes("service").count("DetachInstances") == (state == "Standby")


def test_a_pending_update_of_the_group_is_waited_for(fleet):
    group, instance = fleet.member()
    fleet.cloud.fail("DetachInstances", "ResourceContention", status=500)

    assert fleet.outcome("service", fleet.scene.finding(instance))["status"] == "done"

    assert instance not in fleet.members(group)


def test_somebody_else_detaches_it_at_the_same_moment(fleet):
    group, instance = fleet.member()
    fleet.cloud.before(
        "DetachInstances",
        lambda call: fleet.scaling.detach_instances(
            AutoScalingGroupName=group,
            InstanceIds=[instance],
            ShouldDecrementDesiredCapacity=False,
        ),
        when=lambda call: call.caller == "custodian-service",
    )

    assert fleet.outcome("service", fleet.scene.finding(instance))["status"] == "done"


def test_what_stays_registered_is_not_called_out_of_service(fleet):
    instance = fleet.scene.instance()
    arn = fleet.target_group(instance)

    def again(call):
        fleet.elbv2.register_targets(TargetGroupArn=arn, Targets=[{"Id": instance}])

    fleet.cloud.before(
        "DescribeTargetHealth",
        again,
        when=lambda call: call.caller == "custodian-service",
        times=None,
    )

    failed = fleet.run("service", fleet.scene.finding(instance))

    assert f"target group {tail(arn)}" in error(failed) and "still shows" in error(failed)


def test_a_target_group_that_is_deleted_meanwhile_is_no_error(fleet):
    instance = fleet.scene.instance()
    kept, deleted = fleet.target_group(instance), fleet.target_group()
    fleet.cloud.before(
        "DescribeTargetHealth",
        lambda call: fleet.elbv2.delete_target_group(TargetGroupArn=deleted),
        when=lambda call: call.parameters["TargetGroupArn"] == deleted,
    )

    assert fleet.outcome("service", fleet.scene.finding(instance))["status"] == "done"

    assert not fleet.health(kept)


def test_what_no_longer_exists_is_named_and_the_rest_is_registered(fleet):
    instance = fleet.scene.instance()
    kept, deleted = fleet.target_group(instance), fleet.target_group(instance)
    classic, gone = fleet.classic(instance), fleet.classic(instance)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    fleet.elbv2.delete_target_group(TargetGroupArn=deleted)
    fleet.elb.delete_load_balancer(LoadBalancerName=gone)

    failed = fleet.run(BACK, event)

    assert "no longer exists" in error(failed)
    assert tail(deleted) in error(failed) and gone in error(failed)
    assert tail(kept) not in error(failed)
    assert fleet.health(kept) == {(instance, 80)} and fleet.registered(classic) == {instance}
    assert fleet.own_tags(instance) == set()


def test_a_target_group_of_the_same_name_made_later_is_not_mistaken(fleet):
    instance = fleet.scene.instance()
    old = fleet.target_group(instance)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    fleet.elbv2.delete_target_group(TargetGroupArn=old)
    new = fleet.elbv2.create_target_group(
        Name=tail(old).partition("/")[0], Protocol="HTTP", Port=80, VpcId=fleet.scene.vpc_id
    )["TargetGroups"][0]["TargetGroupArn"]

    assert "no longer exists" in error(fleet.run(BACK, event))

    assert not fleet.health(new)


def test_an_address_that_is_no_longer_its_own_is_not_registered(fleet):
    instance = fleet.scene.instance(fleet.scene.groups, fleet.scene.groups[:1])
    first, second = fleet.addresses(instance)
    arn = fleet.target_group(first, second, kind="ip")
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    interface = list(fleet.scene.interfaces(instance))[1]
    shown = fleet.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
    attachment = shown["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    fleet.ec2.detach_network_interface(AttachmentId=attachment, Force=True)

    failed = fleet.run(BACK, event)

    assert f"no longer exists: {tail(arn)}/80/{second}" in error(failed)
    assert fleet.health(arn) == {(first, 80)}


@pytest.mark.parametrize("operation", ["RegisterTargets", "RegisterInstancesWithLoadBalancer"])
def test_a_revert_that_is_refused_keeps_the_record(fleet, operation):
    instance = fleet.scene.instance()
    fleet.target_group(instance), fleet.classic(instance)
    before = fleet.everything()
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    fleet.cloud.fail(operation, "UnauthorizedOperation")

    assert "UnauthorizedOperation" in error(fleet.run(BACK, event))

    assert fleet.own_tags(instance) == {"forensic:load-balancers"}
    fleet.outcome(BACK, event)
    assert fleet.everything() == before


def test_a_stopped_instance(fleet):
    instance = fleet.scene.instance()
    arn = fleet.target_group(instance)
    fleet.ec2.stop_instances(InstanceIds=[instance])
    event = fleet.scene.finding(instance)

    assert fleet.outcome("service", event)["status"] == "done"
    assert not fleet.health(arn)

    assert "InvalidTarget" in error(fleet.run(BACK, event))
    fleet.ec2.start_instances(InstanceIds=[instance])
    fleet.outcome(BACK, event)
    assert fleet.health(arn) == {(instance, 80)}


def test_a_terminated_instance(fleet):
    instance = fleet.scene.instance()
    fleet.ec2.terminate_instances(InstanceIds=[instance])

    assert fleet.outcome("service", fleet.scene.finding(instance))["status"] == "skipped"


def test_an_exempt_instance(fleet):
    group, instance = fleet.member()
    fleet.ec2.create_tags(Resources=[instance], Tags=[{"Key": "forensic:exempt", "Value": ""}])

    assert fleet.outcome("service", fleet.scene.finding(instance))["status"] == "exempt"

    assert instance in fleet.members(group)


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    classic = fleet.classic(instance)
    before = fleet.everything(), fleet.members(group), fleet.scene.tags(instance)

    report = fleet.outcome("service-plan", fleet.scene.finding(instance))

    assert report["status"] == "planned"
    for told in (group, tail(arn), f"classic/{classic}"):
        assert told in report["detail"]
    assert (fleet.everything(), fleet.members(group), fleet.scene.tags(instance)) == before
    assert fleet.writes("service-plan") == []


def test_a_dry_run_of_the_revert_changes_nothing(fleet):
    arn = fleet.target_group()
    group, instance = fleet.member(TargetGroupARNs=[arn])
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)

    report = fleet.outcome("service-back-plan", event)

    assert report["status"] == "planned" and group in report["detail"]
    assert tail(arn) in report["detail"] and fleet.writes("service-back-plan") == []


def test_a_record_longer_than_one_tag(fleet):
    instance = fleet.scene.instance()
    for _ in range(6):
        fleet.target_group(*[(instance, port) for port in (80, 8080)])
    before = fleet.everything()
    event = fleet.scene.finding(instance)

    assert len(fleet.outcome("service", event)["registrations"]) == 12
    assert "forensic:load-balancers:2" in fleet.own_tags(instance)

    fleet.outcome(BACK, event)
    assert fleet.everything() == before and fleet.own_tags(instance) == set()


@pytest.mark.parametrize("name", ["web", "web tier (blue) = 50% ~é", "x" * 255, "y z" * 85])
def test_any_name_of_a_group_fits_into_the_record(name):
    tags = record.as_tags(record.AUTO_SCALING_GROUP, [escaped(name)])

    assert recorded_group({t["Key"]: t["Value"] for t in tags}) == name
    assert all(len(t["Value"]) <= 256 for t in tags)


def test_a_name_with_blanks_is_recorded(fleet):
    group, instance = fleet.member(name=f"web tier {next(NUMBERS)}")
    event = fleet.scene.finding(instance)

    assert fleet.outcome("service", event)["auto_scaling_group"] == group

    assert f"NOT put back into Auto Scaling group {group}" in fleet.outcome(BACK, event)["detail"]


def test_one_call_for_each_target_group_of_the_vpc_and_few_more(fleet):
    instance = fleet.scene.instance()
    for _ in range(5):
        fleet.target_group()
    fleet.target_group(vpc_id=fleet.scene.vpc()[0])
    fleet.elbv2.create_target_group(Name=f"code-{next(NUMBERS)}", TargetType="lambda")

    fleet.outcome("service", fleet.scene.finding(instance))

    calls = [c.operation for c in fleet.cloud.call_log.by("custodian-service")]
    assert calls.count("DescribeTargetHealth") == 5
    assert calls.count("DescribeTargetGroups") == calls.count("DescribeLoadBalancers") == 1


@pytest.mark.parametrize(
    "key, word",
    [
        ("forensic:load-balancers", "x/y/notaport"),
        ("forensic:load-balancers", "web-1/0123456789abcdef/80/not-an-address"),
        ("forensic:load-balancers", "web-1/0123456789abcdef/99999"),
        ("forensic:load-balancers", "rubbish"),
        ("forensic:load-balancers", "classic/a/b"),
        ("forensic:auto-scaling-group", "=00"),
        ("forensic:suspended-processes", "Everything"),
    ],
)
def test_a_word_that_means_nothing_is_named_and_the_release_ends(fleet, key, word):
    instance = fleet.scene.instance()
    arn = fleet.target_group(instance)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    value = f"{fleet.scene.tags(instance).get(key, '')} {word}".strip()
    fleet.ec2.create_tags(Resources=[instance], Tags=[{"Key": key, "Value": value}])

    failed = error(fleet.run("service-rejoin" if "group" in key else BACK, event))

    assert f"in the record: {word}: means nothing" in failed
    assert fleet.own_tags(instance) == set()
    assert fleet.health(arn) == {(instance, 80)}


def test_a_group_that_does_not_exist_is_told_and_the_release_ends(fleet):
    group, instance = fleet.member()
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)
    fleet.scaling.delete_auto_scaling_group(AutoScalingGroupName=group, ForceDelete=True)

    assert f"{group}, which is recorded, does not exist" in fleet.outcome(BACK, event)["detail"]

    assert fleet.own_tags(instance) == set()


def test_processes_are_not_resumed_while_the_group_would_terminate_it(fleet):
    group, instance = fleet.member()
    put_into(instance, "Warmed:Stopped", region=REGION, account_id=ACCOUNT)
    event = fleet.scene.finding(instance)
    fleet.outcome("service", event)

    assert "release it first" in error(fleet.run(BACK, event))

    assert fleet.suspended(group) == {"ReplaceUnhealthy", "Terminate"}
    fleet.outcome(RELEASE, event)
    assert fleet.suspended(group) == set()
