"""What holds an isolation back: the brake, the last healthy member of a group, a release."""

import re

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


def outcomes(invocation):
    assert invocation.error is None, invocation.error
    return invocation.result["ec2-isolate"]


def headline(pack):
    (message,) = pack.messages()
    return message["event"]["c7n:notice"]["headline"]


def traces(scene, instance):
    """What the pack has left of an instance: on it, on its interfaces, on the forensic group."""
    found = [*scene.tags(instance)]
    for interface in scene.interfaces(instance):
        found += scene.tags(interface)
    if group := scene.forensic_group():
        found += [key for key in scene.tags(group) if instance in key]
    return [key for key in found if key.startswith("forensic:")]


def test_thirty_findings_within_a_minute_and_five_isolated(scene, pack):
    instances = [scene.instance() for _ in range(30)]
    before = {instance: scene.interfaces(instance) for instance in instances}
    findings = {instance: scene.finding(instance) for instance in instances}

    for instance in instances[:5]:
        pack.deliver(findings[instance])
    for instance in instances[5:]:  # these at once
        scene.cloud.put_event(findings[instance])
    scene.cloud.wait_idle()

    assert [i for i in instances if scene.is_isolated(i)] == instances[:5]
    for instance in instances[5:]:
        assert scene.interfaces(instance) == before[instance]
        assert traces(scene, instance) == []
    lines = {}
    for message in pack.messages():
        lines.setdefault(message["resources"][0].get("InstanceId"), []).append(
            message["event"]["c7n:notice"]["headline"]
        )
    assert len(lines.pop(None)) == 30  # the finding mails
    for instance in instances[5:]:
        (line,) = lines[instance]
        assert line.startswith("BRAKE HELD | GuardDuty Remediation | ID: ")
        assert "NOT isolated" in line and instances[0] in line
        finding = findings[instance]["detail"]["id"]
        assert f"make isolate INSTANCE={instance} REGION={REGION} FINDING={finding}" in line
    assert pack.dead_letters() == []
    # what is isolated already is not held
    again = outcomes(pack.isolate(findings[instances[0]]))
    assert again[0]["isolated"] and again[0]["status"] == "unchanged"

    pack.an_hour_passes()
    pack.deliver(findings[instances[5]])  # as GuardDuty updates it

    assert scene.is_isolated(instances[5])


def test_an_isolation_that_was_released_still_counts(scene, pack, release):
    released = scene.instance()
    pack.isolate(scene.finding(released))
    assert release(released)[0]
    for _ in range(4):
        pack.isolate(scene.finding(scene.instance()))
    pack.messages()

    held = outcomes(pack.isolate(scene.finding(scene.instance())))

    assert held[0]["withheld"] == "brake"
    assert {o["status"] for o in held[:-2]} == {"withheld"}
    assert released in headline(pack)


def test_where_the_brake_cannot_be_read_the_instance_is_isolated_and_it_is_told(scene, pack):
    instance = scene.instance()
    pack.isolate(scene.finding(scene.instance()))  # makes the group
    pack.messages()
    scene.cloud.fail(
        "DescribeSecurityGroups",
        "UnauthorizedOperation",
        status=403,
        when=lambda call: "tag:forensic:group" in str(call.parameters),
    )

    invocation = pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert "the brake: UnauthorizedOperation" in invocation.error["errorMessage"]
    assert headline(pack).endswith("NOT COMPLETE: a part of isolate-instance failed.")


@pytest.fixture
def balanced(scene):
    """A target group behind a load balancer; register(*instances) makes them its targets."""
    elb = scene.cloud.client("elbv2", ACCOUNT, REGION)
    name = f"lb-{scene.vpc_id[-8:]}"
    group = elb.create_target_group(
        Name=f"web-{scene.vpc_id[-8:]}", Protocol="HTTP", Port=80, VpcId=scene.vpc_id
    )["TargetGroups"][0]["TargetGroupArn"]
    balancer = elb.create_load_balancer(Name=name, Subnets=[scene.subnet_id])["LoadBalancers"][0]
    elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )

    def register(*instances):
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": i} for i in instances])
        return f"web-{scene.vpc_id[-8:]}"

    scene.cloud.functions.discard_warm()  # a warm function remembers which groups there are
    return register


def test_the_last_healthy_target_is_spared_and_named(scene, pack, balanced):
    instance, other = scene.instance(), scene.instance()
    before = scene.interfaces(instance)
    name = balanced(instance)
    finding = scene.finding(instance)

    held = outcomes(pack.isolate(finding))

    assert held[0]["withheld"] == "last-healthy"
    assert scene.interfaces(instance) == before and traces(scene, instance) == []
    line = headline(pack)
    assert line.startswith("LAST HEALTHY MEMBER | ")
    assert f"target group {name}" in line and f"make isolate INSTANCE={instance}" in line

    balanced(other)
    assert outcomes(pack.isolate(finding))[0]["isolated"]


def test_the_last_healthy_member_of_an_auto_scaling_group_is_spared(scene, pack):
    scaling = scene.cloud.client("autoscaling", ACCOUNT, REGION)
    name = f"group-{scene.vpc_id}"
    scaling.create_launch_configuration(
        LaunchConfigurationName=name, ImageId="ami-12c6146b", InstanceType="t3.micro"
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=2,
        VPCZoneIdentifier=scene.subnet_id,
    )
    (group,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ]
    first, second = (member["InstanceId"] for member in group["Instances"])
    scaling.set_instance_health(InstanceId=second, HealthStatus="Unhealthy")

    held = outcomes(pack.isolate(scene.finding(first)))

    assert held[0]["withheld"] == "last-healthy"
    assert f"Auto Scaling group {name}" in headline(pack)


def test_what_could_not_be_asked_is_no_reason_to_leave_an_intruder_alone(scene, pack):
    instance = scene.instance()
    scene.cloud.functions.discard_warm()
    scene.cloud.fail("DescribeTargetGroups", "Throttling", times=2)

    found = outcomes(pack.isolate(scene.finding(instance)))[0]

    assert found["isolated"]
    assert "last healthy member is not known of target groups: Throttling" in found["detail"]
    assert len([c for c in scene.cloud.calls if c.operation == "DescribeTargetGroups"]) <= 5


def test_what_was_released_is_isolated_by_a_new_finding_only(scene, pack, release):
    instance = scene.instance()
    first, later, new = (scene.finding(instance) for _ in range(3))
    pack.isolate(first)
    pack.isolate(later)  # another finding, while it is isolated
    assert release(instance)[0]
    before = scene.interfaces(instance), traces(scene, instance)
    pack.messages()

    for finding in (first, later):
        held = outcomes(pack.isolate(finding))
        assert held[0]["withheld"] == "release"
        line = headline(pack)
        assert line.startswith("RELEASED BEFORE | ")
        assert "released by assumed-role/" in line
        assert (scene.interfaces(instance), traces(scene, instance)) == before

    assert outcomes(pack.isolate(new))[0]["isolated"]
    assert release(instance)[0]
    assert outcomes(pack.isolate(first))[0]["withheld"] == "release"  # not forgotten


def test_a_release_that_cannot_be_remembered_says_so(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    pack.messages()
    group = scene.forensic_group()
    scene.cloud.fail(
        "CreateTags",
        "UnauthorizedOperation",
        status=403,
        when=lambda call: "forensic:released:" in str(call.parameters),
    )

    done, output = release(instance)

    assert done, output
    assert group not in sum(scene.interfaces(instance).values(), [])
    assert "could not be remembered" in headline(pack)


@pytest.fixture
def asking(pack):
    deploy.deploy(pack.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION, autonomy="ask")
    yield pack
    deploy.deploy(pack.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION)


def test_ask_changes_nothing_and_mails_the_command(asking, scene):
    instance = scene.instance()
    before = scene.interfaces(instance), scene.tags(instance)
    finding = scene.finding(instance)

    asking.isolate(finding)

    assert (scene.interfaces(instance), scene.tags(instance)) == before
    line = headline(asking)
    assert line.startswith("ASK | GuardDuty Remediation | ID: ")
    assert (
        f"make isolate INSTANCE={instance} REGION={REGION} FINDING={finding['detail']['id']}"
        in line
    )


def fill(scene, pack, number=5):
    """Isolate other instances, so that the brake holds for the next one."""
    for _ in range(number):
        pack.isolate(scene.finding(scene.instance()))
    pack.messages()


def test_held_while_another_response_isolates_the_very_instance_it_keeps_the_way_back(
    scene, pack, by_hand, release
):
    fill(scene, pack)
    instance = scene.instance()
    before = scene.interfaces(instance)
    scene.cloud.functions.discard_warm()

    def a_person(call):
        assert by_hand("policies/ec2-isolate-by-hand.yml", instance=instance, finding="")[0]

    scene.cloud.before("DescribeTargetGroups", a_person)

    found = outcomes(pack.isolate(scene.finding(instance)))

    assert scene.is_isolated(instance) and found[0]["isolated"]
    assert release(instance)[0] and scene.interfaces(instance) == before


def test_a_claim_that_cannot_be_taken_back_holds_all_the_same_and_is_told(scene, pack):
    fill(scene, pack)
    instance = scene.instance()
    before = scene.interfaces(instance), scene.tags(instance)
    scene.cloud.fail("DeleteTags", "UnauthorizedOperation", status=403)

    held = outcomes(pack.isolate(scene.finding(instance)))

    assert {o["status"] for o in held[:-2]} == {"withheld"}
    assert (scene.interfaces(instance), scene.tags(instance)) == before
    line = headline(pack)
    assert line.startswith("BRAKE HELD") and "could not be taken back" in line


@pytest.mark.slow
def test_what_could_not_be_isolated_does_not_count(scene, pack):
    fill(scene, pack, 1)
    pack.an_hour_passes()
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "OperationNotPermitted", times=5)
    fill(scene, pack)
    instance = scene.instance()

    assert outcomes(pack.isolate(scene.finding(instance)))[0]["isolated"]


def test_without_a_look_nothing_is_taken_out_of_service(scene, pack, balanced):
    instance = scene.instance()
    balanced(instance)
    scene.cloud.fail("DescribeSecurityGroups", "UnauthorizedOperation", status=403)

    pack.isolate(scene.finding(instance))

    (message,) = pack.messages()
    steps = {o["step"]: o for o in message["resources"][0]["c7n:response"]}
    assert steps["isolate-instance"]["status"] == "failed"
    assert steps["leave-service"]["status"] == "skipped"
    elb = scene.cloud.client("elbv2", ACCOUNT, REGION)
    groups = elb.describe_target_groups()["TargetGroups"]
    (group,) = [g["TargetGroupArn"] for g in groups if g["VpcId"] == scene.vpc_id]
    (target,) = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    assert target["TargetHealth"]["State"] != "draining"


@pytest.mark.parametrize("call", ["CreateTags", "ModifyNetworkInterfaceAttribute"])
def test_two_last_members_do_not_go_together(scene, pack, balanced, call):
    """The other comes when the first one has looked, and before or after it has claimed."""
    first, second = scene.instance(), scene.instance()
    balanced(first, second)
    fill(scene, pack, 1)
    found = []
    scene.cloud.before(call, lambda _: found.append(pack.isolate(scene.finding(second))))

    found.append(pack.isolate(scene.finding(first)))

    spared = first if call == "CreateTags" else second
    assert [i for i in (first, second) if not scene.is_isolated(i)] == [spared]
    held = [o["withheld"] for run in found for o in outcomes(run) if "withheld" in o]
    assert held == ["last-healthy"] and traces(scene, spared) == []


@pytest.mark.parametrize("braked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_new_finding_in_the_middle_of_a_release_leaves_its_seal(scene, pack, release, braked):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    scene.cloud.fail("ModifyInstanceAttribute", "UnauthorizedOperation", status=403)
    assert not release(instance)[0]
    scene.cloud.call_log.clear()
    if braked:
        pack.an_hour_passes()
        fill(scene, pack)
    forged = {"Key": "forensic:load-balancers", "Value": "web-evil/f45d35fba6ab801a/80"}
    scene.ec2.create_tags(Resources=[instance], Tags=[forged])

    pack.isolate(scene.finding(instance))

    done, output = release(instance)
    assert not done and "load-balancers: not what this pack has sealed" in output
    assert "settings" not in output.split("not what this pack has sealed")[0].split("record:")[-1]


@pytest.mark.slow
def test_a_release_is_remembered_without_a_seal_and_beyond_ten_findings(scene, pack, release):
    instance = scene.instance()
    findings = [scene.finding(instance) for _ in range(12)]
    for finding in findings:
        pack.isolate(finding)
    pack.messages()
    (interface,) = scene.interfaces(instance)
    group = scene.forensic_group()
    scene.ec2.delete_tags(Resources=[group], Tags=[{"Key": f"forensic:record:{instance}"}])
    # too long for the tag that remembers, and no mark
    long = {"Key": "forensic:notified:3", "Value": "x" * 230 + ":y"}
    scene.ec2.create_tags(Resources=[instance], Tags=[long])

    word = re.search(r"RECORD=(\S+)", release(instance)[1])[1]
    assert release(instance, record=word)[0]

    assert scene.interfaces(instance)[interface] != [group]
    for finding in (findings[0], findings[-1]):
        assert outcomes(pack.isolate(finding))[0]["withheld"] == "release"


@pytest.mark.slow
def test_the_claim_of_a_function_that_died_hours_ago_is_none(scene, pack):
    fill(scene, pack)
    pack.an_hour_passes()
    instance = scene.instance()
    stale = {"Key": f"forensic:record:{instance}", "Value": "begun=2001-01-01T00:00:00.000Z"}
    scene.ec2.create_tags(Resources=[scene.forensic_group()], Tags=[stale])

    pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert "begun=20" in scene.tags(scene.forensic_group())[f"forensic:record:{instance}"]
    assert "begun=2001" not in scene.tags(scene.forensic_group())[f"forensic:record:{instance}"]
