"""cut-tracked-connections: through the transition group, and never left in it."""

import pytest

import custom_actions.steps.isolate as isolate
from simulation import deploy
from simulation.calls import ApiError

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-cut"
SWAP = "ModifyNetworkInterfaceAttribute"

POLICY = """
policies:
  - name: cut
    resource: ec2
    mode:
      type: guard-duty
      role: guardduty-response-ec2-isolate
      packages: [custom_actions]
      handler: custom_actions.handler.run
      runtime: python3.13
      memory: 1769
      timeout: 300
      pattern:
        detail:
          type: ["Trojan:EC2/Example"]
    actions:
      - type: isolate-instance
        cut-tracked-connections: true
      - type: notify-once
        template: remediation.html
        to: [resource-owner]
        transport: {type: sns, topic: guardduty-response}
      - fail-unless-complete
"""


@pytest.fixture(scope="module")
def deployed(cloud, pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("policies") / "cut.yml"
    path.write_text(POLICY)
    deploy.deploy(cloud, [path], ACCOUNT, REGION)


@pytest.fixture
def cut(scene, deployed):
    """Invoke the policy once with a finding of the instance."""

    def run(instance):
        return scene.cloud.invoke(FUNCTION, scene.finding(instance), ACCOUNT, REGION)

    return run


@pytest.fixture
def cut_with_retries(scene, deployed):
    """Have the finding delivered as EventBridge does, retries of Lambda included."""

    def run(instance):
        event = scene.finding(instance)
        scene.cloud.functions.invoke_later(FUNCTION, event, ACCOUNT, REGION)
        scene.cloud.wait_idle()
        return scene.cloud.invocations

    return run


def outcome(invocation):
    assert invocation.error is None, invocation.error
    return invocation.result["cut"][0]


def error(invocation):
    return invocation.error["errorMessage"]


def transition_group(scene, vpc_id=None):
    """The transition group of the VPC, asserted to allow everything; None when there is none."""
    groups = scene.ec2.describe_security_groups(
        Filters=[
            {"Name": "group-name", "Values": ["ForensicTransitionGroup"]},
            {"Name": "vpc-id", "Values": [vpc_id or scene.vpc_id]},
        ]
    )["SecurityGroups"]
    for group in groups:
        for direction in ("IpPermissions", "IpPermissionsEgress"):
            ranges = [
                r.get("CidrIp") or r.get("CidrIpv6")
                for rule in group[direction]
                for r in [*rule["IpRanges"], *rule["Ipv6Ranges"]]
                if rule["IpProtocol"] == "-1"
            ]
            assert sorted(ranges) == ["0.0.0.0/0", "::/0"]
        assert {"Key": "forensic:group", "Value": "transition"} in group["Tags"]
    return groups[0]["GroupId"] if groups else None


def steps(scene, interface=None):
    """The groups that were set on an interface, one after the other, where EC2 accepted it."""
    return [
        call.parameters["Groups"]
        for call in scene.cloud.call_log.by(FUNCTION)
        if call.operation == SWAP
        and call.error_code is None
        and interface in (None, call.parameters["NetworkInterfaceId"])
    ]


def sets(group):
    """A predicate of the function's calls that set just this group."""
    return lambda call: call.caller == FUNCTION and call.parameters["Groups"] == [group]


def refuse(scene, group, **options):
    scene.cloud.fail(SWAP, "OperationNotPermitted", when=sets(group), **options)


def told(pack):
    return [m for m in pack.messages() if m["policy"]["name"] == "cut"]


def test_each_interface_goes_through_the_transition_group(scene, cut):
    instance = scene.instance(scene.groups, scene.groups[:1])
    vpc, subnet = scene.vpc()
    far = scene.attach(instance, [scene.group("elsewhere", vpc)], subnet)
    neighbour = scene.instance(scene.groups)
    before = scene.interfaces(neighbour)
    near = [i for i in scene.interfaces(instance) if i != far]

    report = outcome(cut(instance))

    assert report["status"] == "done" and report["isolated"]
    for interface in near:
        assert steps(scene, interface) == [[transition_group(scene)], [scene.forensic_group()]]
    assert steps(scene, far) == [[transition_group(scene, vpc)], [scene.forensic_group(vpc)]]
    assert scene.interfaces(instance)[far] == [scene.forensic_group(vpc)]
    assert scene.interfaces(neighbour) == before
    assert {g["id"] for g in report["interfaces"][0]["removed"]} == set(scene.groups)


def test_without_the_option_nothing_is_opened(scene, pack):
    instance = scene.instance()

    assert pack.isolate(scene.finding(instance)).error is None

    assert transition_group(scene) is None


def test_warm_it_takes_one_call_more_and_one_for_each_interface(scene, cut):
    cut(scene.instance())
    instance = scene.instance(scene.groups, scene.groups)
    scene.cloud.call_log.clear()

    cut(instance)

    names = [c.operation for c in scene.cloud.call_log.by(FUNCTION) if c.service == "ec2"]
    assert len(names) - names[::-1].index(SWAP) == 4 + 1 + 2 * 2


def test_an_instance_that_is_isolated_is_never_opened_again(scene, cut):
    instance = scene.instance()
    cut(instance)
    scene.cloud.call_log.clear()

    assert outcome(cut(instance))["status"] == "unchanged"

    assert steps(scene) == []


# Nothing is left in the transition group


def test_a_function_killed_in_between_is_finished_by_the_retry(scene, pack, cut_with_retries):
    instance = scene.instance(scene.groups, scene.groups[:1])
    forensic = scene.group("ForensicSecurityGroup")
    first, second = scene.interfaces(instance)
    seen = []

    def die(call):
        seen.append(scene.interfaces(instance)[first])
        scene.cloud.functions.kill(FUNCTION)
        return ApiError("Unavailable", status=503)

    scene.cloud.before(SWAP, die, when=sets(forensic))

    tries = cut_with_retries(instance)

    assert seen == [[transition_group(scene)]]  # it did die in between
    assert len(tries) == 2 and tries[1].error is None
    assert scene.is_isolated(instance)
    assert steps(scene, first) == [[transition_group(scene)], [forensic]]
    assert scene.tags(first)[f"forensic:original-groups:{first}"].split() == scene.groups
    assert scene.tags(second)[f"forensic:original-groups:{second}"] == scene.groups[0]
    (row, _) = told(pack)[-1]["resources"][0]["c7n:response"][0]["interfaces"]
    assert {g["id"] for g in row["removed"]} == set(scene.groups)


def test_the_retry_of_a_killed_function_gives_the_recorded_groups_back(scene, cut):
    """It dies in between, and then the forensic group is refused for good."""
    instance = scene.instance(scene.groups)
    (interface,) = scene.interfaces(instance)
    forensic = scene.group("ForensicSecurityGroup")

    def die(call):
        scene.cloud.functions.kill(FUNCTION)
        return ApiError("Unavailable", status=503)

    scene.cloud.before(SWAP, die, when=sets(forensic))
    assert cut(instance).error
    assert scene.interfaces(instance)[interface] == [transition_group(scene)]
    refuse(scene, forensic, times=None)

    assert "it has the groups again that it had" in error(cut(instance))

    assert scene.interfaces(instance)[interface] == scene.groups


def test_the_policy_without_the_option_finishes_it_too(scene, pack, cut):
    instance = scene.instance(scene.groups)
    (interface,) = scene.interfaces(instance)
    forensic = scene.group("ForensicSecurityGroup")
    scene.cloud.before(
        SWAP,
        lambda call: [scene.cloud.functions.kill(FUNCTION)] and ApiError("Unavailable", status=503),
        when=sets(forensic),
    )
    assert cut(instance).error
    assert scene.interfaces(instance)[interface] == [transition_group(scene)]

    pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert scene.tags(interface)[f"forensic:original-groups:{interface}"].split() == scene.groups


def test_the_transition_group_is_never_recorded_as_an_original_group(scene, pack, cut):
    """Found in it without any record: isolated, and said that the way back is not known."""
    cut(scene.instance())
    instance = scene.instance([transition_group(scene)])
    (interface,) = scene.interfaces(instance)

    invocation = cut(instance)

    assert scene.is_isolated(instance) and "NoRecord" in error(invocation)
    assert scene.tags(interface) == {}


def test_a_second_swap_refused_once_is_tried_again(scene, cut):
    instance = scene.instance(scene.groups)
    forensic = scene.group("ForensicSecurityGroup")
    refuse(scene, forensic)

    report = outcome(cut(instance))

    assert report["isolated"] and scene.is_isolated(instance)
    assert steps(scene) == [[transition_group(scene)], [forensic]]


def test_a_second_swap_refused_for_good_gives_the_groups_back(scene, pack, cut_with_retries):
    instance = scene.instance(scene.groups, scene.groups[:1])
    refused, other = scene.interfaces(instance)
    forensic = scene.group("ForensicSecurityGroup")
    scene.cloud.fail(
        SWAP,
        "OperationNotPermitted",
        times=None,
        when=lambda call: (
            call.parameters["Groups"] == [forensic]
            and call.parameters["NetworkInterfaceId"] == refused
        ),
    )

    tries = cut_with_retries(instance)

    assert scene.interfaces(instance) == {refused: scene.groups, other: [forensic]}
    assert len(tries) == 3
    for one in tries:
        assert refused in error(one) and "OperationNotPermitted" in error(one)
        assert "it has the groups again that it had" in error(one)
    assert steps(scene, refused)[-1] == scene.groups
    (message,) = told(pack)
    assert "NOT isolated" in message["event"]["c7n:notice"]["headline"]


def test_server_errors_at_the_second_swap_are_ridden_out(scene, cut):
    instance = scene.instance()
    forensic = scene.group("ForensicSecurityGroup")
    scene.cloud.fail(SWAP, "Unavailable", status=503, times=6, when=sets(forensic))

    assert outcome(cut(instance))["isolated"]

    assert scene.is_isolated(instance)


def test_a_first_answer_that_is_lost_does_not_leave_it_open(scene, cut):
    """EC2 makes the change and answers with an error; the forensic group is refused then."""
    cut(scene.instance())
    instance, transition = scene.instance(scene.groups), transition_group(scene)
    (interface,) = scene.interfaces(instance)
    forensic = scene.forensic_group()

    def lose(call):
        scene.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=[transition]
        )
        return ApiError("OperationNotPermitted")

    scene.cloud.before(SWAP, lose, when=sets(transition))
    refuse(scene, forensic, times=None)

    assert error(cut(instance))

    assert scene.interfaces(instance)[interface] == scene.groups


def test_when_no_group_can_be_set_any_more_the_mail_cries(scene, pack, cut):
    cut(scene.instance())
    told(pack)
    instance, transition = scene.instance(scene.groups), transition_group(scene)
    scene.cloud.fail(
        SWAP,
        "OperationNotPermitted",
        times=None,
        when=lambda call: call.parameters["Groups"] != [transition],
    )

    invocation = cut(instance)

    assert "allows EVERYTHING" in error(invocation)
    message = told(pack)[-1]
    assert message["event"]["c7n:notice"]["headline"].startswith("NOT ISOLATED | ")
    (outcome, *_) = message["resources"][0]["c7n:response"]
    assert "allows EVERYTHING" in outcome["error"]  # the first thing in the mail's red box


# Isolated, but not through the transition group


@pytest.mark.parametrize("operation", ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress"])
def test_without_a_transition_group_it_is_isolated_and_said(
    scene, pack, cut_with_retries, operation
):
    instance, forensic = scene.instance(scene.groups), scene.group("ForensicSecurityGroup")
    scene.cloud.fail(
        operation, "UnauthorizedOperation", times=None, when=lambda call: call.caller == FUNCTION
    )

    tries = cut_with_retries(instance)

    assert scene.is_isolated(instance) and steps(scene) == [[forensic]]
    assert len(tries) == 3 and all("were not cut" in error(one) for one in tries)
    (message,) = told(pack)
    headline = message["event"]["c7n:notice"]["headline"]
    assert "has been isolated" in headline and "NOT COMPLETE" in headline
    assert message["resources"][0]["c7n:response"][0]["isolated"] is True


def test_a_transition_that_is_refused_does_not_stop_the_isolation(scene, cut):
    cut(scene.instance())
    instance = scene.instance(scene.groups, scene.groups[:1])
    first, second = scene.interfaces(instance)
    refuse(scene, transition_group(scene))

    message = error(cut(instance))

    assert scene.is_isolated(instance)
    assert "were not cut: OperationNotPermitted" in message
    assert first in message and second not in message
    assert scene.tags(instance)["forensic:connections-not-cut"] == first


def test_a_group_of_that_name_without_the_tag_is_not_opened(scene, cut):
    instance = scene.instance()
    theirs = scene.group("ForensicTransitionGroup")
    before = scene.ec2.describe_security_groups(GroupIds=[theirs])["SecurityGroups"]

    message = error(cut(instance))

    assert theirs in message and "forensic:group=transition" in message
    assert scene.is_isolated(instance)
    assert scene.ec2.describe_security_groups(GroupIds=[theirs])["SecurityGroups"] == before


def test_a_transition_group_that_lost_a_rule_is_completed(scene, cut):
    cut(scene.instance())
    scene.ec2.revoke_security_group_egress(
        GroupId=transition_group(scene),
        IpPermissions=[{"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}],
    )

    assert outcome(cut(scene.instance()))["isolated"]

    assert transition_group(scene)  # which asserts its rules


def test_the_calls_are_those_of_the_permissions(scene, cut):
    cut(scene.instance())

    made = {f"{c.service}:{c.operation}" for c in scene.cloud.call_log.by(FUNCTION)}
    named = {*isolate.IsolateInstance.permissions, *isolate.transition_group.PERMISSIONS}
    others = {"sts:AssumeRole", "sns:Publish", "iam:ListAccountAliases"}
    others |= {"elbv2:DescribeTargetGroups"}  # for the last healthy one: there is none
    # a new forensic group has egress rules only
    assert made - others == named - {"ec2:RevokeSecurityGroupIngress"}
