"""ec2-isolate, deployed and run as in Lambda: what is changed, and what the message then says.

Without the steps behind isolate-instance: what one of these breaks fails in its own tests, and in
test_steps.py, which plays the policy as it is shipped.
"""

from pathlib import Path

import pytest
import yaml

from simulation import deploy
from simulation.ec2 import groups_per_interface, make_requester_managed

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-ec2-isolate"
SWAP = "ModifyNetworkInterfaceAttribute"


@pytest.fixture(scope="module")
def pack(stacks, tmp_path_factory):
    (policy,) = yaml.safe_load(Path("policies/ec2-isolate.yml").read_text())["policies"]
    policy["actions"] = [policy["actions"][0], *policy["actions"][-2:]]
    alone = tmp_path_factory.mktemp("policies") / "ec2-isolate.yml"
    alone.write_text(yaml.safe_dump({"policies": [policy]}))
    deploy.deploy(stacks.cloud, [alone, "policies/finding-notify.yml"], ACCOUNT, REGION)
    return stacks


def outcome(invocation, step="isolate-instance"):
    """What a step reports, in the answer of the function or, when it failed, in its error."""
    assert invocation.error is None, invocation.error
    return {o["step"]: o for o in invocation.result["ec2-isolate"]}[step]


def error(invocation):
    """The message of the error that the function ended in."""
    return invocation.error["errorMessage"]


def notice(messages):
    (message,) = messages
    return message["event"]["c7n:notice"]


def told(pack):
    """The messages of ec2-isolate on the mail queue."""
    return [m for m in pack.messages() if m["policy"]["name"] == "ec2-isolate"]


def by_isolate(call):
    return call.caller == FUNCTION


def operations(cloud):
    return [call.operation for call in cloud.call_log.by(FUNCTION)]


def test_all_groups_of_all_interfaces_are_replaced(scene, pack):
    instance = scene.instance(scene.groups, scene.groups[:1], scene.groups[1:])
    neighbour = scene.instance(scene.groups)
    before = scene.interfaces(neighbour)

    report = outcome(pack.isolate(scene.finding(instance)))

    assert scene.is_isolated(instance) and len(scene.interfaces(instance)) == 3
    assert scene.interfaces(neighbour) == before
    assert report["isolated"] and report["verified_at"]
    assert [{g["id"] for g in i["removed"]} for i in report["interfaces"]] == [
        set(scene.groups),
        set(scene.groups[:1]),
        set(scene.groups[1:]),
    ]
    assert scene.tags(instance)["forensic:state"] == "isolated"


def test_the_sentence_of_the_scenario_heads_the_message(scene, pack):
    instance = scene.instance()
    event = scene.finding(instance)

    pack.isolate(event)

    assert notice(told(pack))["headline"] == (
        f"GuardDuty Remediation | ID: {event['detail']['id']}: GuardDuty discovered an EC2 "
        f"instance (Instance ID: {instance}) that is communicating outbound with an IP Address on "
        "a threat list that you uploaded. All security groups have been removed and it has been "
        "isolated. Please follow up with any additional remediation actions."
    )


def test_another_type_is_told_with_its_own_title(scene, pack):
    instance = scene.instance()
    event = scene.finding(instance, "ec2-dns-crypto")

    pack.isolate(event)

    headline = notice(told(pack))["headline"]
    assert event["detail"]["title"] in headline and "threat list" not in headline
    assert "it has been isolated" in headline


def test_each_interface_gets_the_forensic_group_of_its_own_vpc(scene, pack):
    instance = scene.instance()
    other_vpc, other_subnet = scene.vpc()
    elsewhere = scene.attach(instance, [scene.group("elsewhere", other_vpc)], other_subnet)

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.interfaces(instance)[elsewhere] == [scene.forensic_group(other_vpc)]
    assert scene.forensic_group(other_vpc) != scene.forensic_group()


def test_rules_of_an_existing_group_are_all_revoked(scene, pack):
    ec2, instance = scene.ec2, scene.instance()
    forensic = scene.group("ForensicSecurityGroup")
    ipv6 = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ping = {
        "IpProtocol": "icmp",
        "FromPort": -1,
        "ToPort": -1,
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    }
    peers = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": scene.groups[0]}]}
    for rule in (ipv6, ping, peers):
        ec2.authorize_security_group_ingress(GroupId=forensic, IpPermissions=[rule])
    for rule in (ipv6, peers):
        ec2.authorize_security_group_egress(GroupId=forensic, IpPermissions=[rule])

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.forensic_group() == forensic  # which asserts that it is empty
    assert scene.is_isolated(instance)


def test_a_group_that_cannot_be_emptied_is_used_but_not_called_isolation(scene, pack):
    instance, forensic = scene.instance(), scene.group("ForensicSecurityGroup")
    scene.cloud.fail("RevokeSecurityGroupEgress", "UnauthorizedOperation", times=None)

    invocation = pack.isolate(scene.finding(instance))

    assert set(map(tuple, scene.interfaces(instance).values())) == {(forensic,)}
    assert "UnauthorizedOperation" in error(invocation)
    headline = notice(told(pack))["headline"]
    assert "NOT isolated" in headline and "has been isolated" not in headline
    assert scene.tags(instance)["forensic:state"] == "incomplete"


def test_another_invocation_makes_the_group_at_the_same_moment(scene, pack):
    instance = scene.instance()
    scene.cloud.before("CreateSecurityGroup", lambda call: scene.group("ForensicSecurityGroup"))

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.is_isolated(instance)


def test_isolated_already_means_nothing_to_do_and_nothing_to_tell(scene, pack):
    instance = scene.instance(scene.groups, scene.groups[:1])
    finding = scene.finding(instance)
    pack.isolate(finding)
    tags = scene.tags(instance)
    told(pack)
    scene.cloud.call_log.clear()

    update = scene.finding(instance, "ec2-malicious-ip-caller-update", id=finding["detail"]["id"])
    report = outcome(pack.isolate(update))

    assert report["status"] == "unchanged" and report["isolated"]
    assert {o for o in operations(scene.cloud) if not o.startswith(("Describe", "Assume"))} == set()
    assert scene.tags(instance) == tags
    assert told(pack) == []


def test_an_interface_attached_since_is_isolated_and_told(scene, pack):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    told(pack)
    late = scene.attach(instance, scene.groups[1:])

    report = outcome(pack.isolate(scene.finding(instance)))

    assert scene.is_isolated(instance) and late in scene.interfaces(instance)
    assert report["status"] == "done"
    assert "it has been isolated" in notice(told(pack))["headline"]


def test_an_interface_attached_during_the_isolation_is_isolated_too(scene, pack):
    instance = scene.instance()
    scene.cloud.before(
        "DescribeInstances",
        lambda call: scene.attach(instance, scene.groups),
        when=by_isolate,
        skip=1,  # the first is Custodian's, before the swap
    )

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.is_isolated(instance) and len(scene.interfaces(instance)) == 2


def test_a_second_finding_never_overwrites_the_record(scene, pack):
    instance = scene.instance(scene.groups)
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    record = scene.tags(interface)
    intruder = scene.group("intruder")
    scene.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[intruder])

    report = outcome(pack.isolate(scene.finding(instance)))

    assert scene.is_isolated(instance)
    assert scene.tags(interface) == record
    assert [g["id"] for g in report["interfaces"][0]["removed"]] == scene.groups


def test_a_record_that_cannot_be_read_at_once_does_not_keep_from_isolating(scene, pack):
    instance = scene.instance(scene.groups)
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    record = scene.tags(interface)
    scene.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=interface, Groups=scene.groups[:1]
    )
    scene.cloud.fail("DescribeNetworkInterfaces", "UnauthorizedOperation", when=by_isolate)

    report = outcome(pack.isolate(scene.finding(instance)))

    assert scene.is_isolated(instance) and report["isolated"]
    assert scene.tags(interface) == record


def test_sixteen_groups_fit_into_the_record(scene, pack):
    with groups_per_interface(16):
        groups = [scene.group(f"many-{n}") for n in range(16)]
        instance = scene.instance(groups, groups[:12])
        assert outcome(pack.isolate(scene.finding(instance)))["isolated"]
        first, second = scene.interfaces(instance)

    for interface, count in ((first, 16), (second, 12)):
        own = {k: v for k, v in scene.tags(interface).items() if interface in k}
        assert " ".join(own[k] for k in sorted(own)).split() == groups[:count]


@pytest.mark.parametrize("code, status", [("RequestLimitExceeded", 503), ("Unavailable", 503)])
def test_throttling_and_server_errors_are_ridden_out(scene, pack, code, status):
    instance = scene.instance()
    # more often than botocore tries by itself
    scene.cloud.fail(SWAP, code, status=status, times=6)

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.is_isolated(instance)


def test_one_interface_that_refuses_does_not_stop_the_others(scene, pack):
    instance = scene.instance(scene.groups, scene.groups, scene.groups)
    first, managed, last = scene.interfaces(instance)
    make_requester_managed(managed, region=REGION, account_id=ACCOUNT)
    forensic = scene.group("ForensicSecurityGroup")

    invocation = pack.isolate(scene.finding(instance))

    shown = scene.interfaces(instance)
    assert shown[first] == shown[last] == [forensic] and shown[managed] == scene.groups
    for part in ("ec2-isolate", instance, "isolate-instance", managed):
        assert part in error(invocation)
    message = told(pack)
    assert "NOT isolated. isolate-instance failed." in notice(message)["headline"]
    assert "has been isolated" not in notice(message)["headline"]
    rows = message[0]["resources"][0]["c7n:response"][0]["interfaces"]
    assert [row["status"] for row in rows] == ["isolated", "failed", "isolated"]
    assert managed in message[0]["resources"][0]["c7n:response"][0]["error"]


def test_isolated_is_said_only_when_it_was_read_back(scene, pack):
    """Somebody puts the groups back between the swap and each look at the interface."""
    instance = scene.instance()
    (interface,) = scene.interfaces(instance)

    def put_back(call):
        scene.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=scene.groups
        )

    scene.cloud.before("DescribeNetworkInterfaces", put_back, times=None, when=by_isolate)

    invocation = pack.isolate(scene.finding(instance))

    assert "NotReadBack" in error(invocation)
    assert "NOT isolated" in notice(told(pack))["headline"]
    assert scene.tags(instance)["forensic:state"] == "incomplete"


def test_a_read_back_that_fails_is_not_called_isolation(scene, pack):
    instance = scene.instance()
    scene.cloud.fail("DescribeNetworkInterfaces", "UnauthorizedOperation", times=None)

    invocation = pack.isolate(scene.finding(instance))

    assert "UnauthorizedOperation" in error(invocation)
    assert "NOT isolated" in notice(told(pack))["headline"]


def test_an_instance_terminated_in_the_middle_is_not_called_isolated(scene, pack):
    """Nothing is left to read back, and nothing is not "all interfaces"."""
    instance = scene.instance()
    scene.cloud.before(
        "DescribeNetworkInterfaces",
        lambda call: scene.ec2.terminate_instances(InstanceIds=[instance]),
        when=by_isolate,
    )

    invocation = pack.isolate(scene.finding(instance))

    assert "NothingReadBack" in error(invocation)
    headline = notice(told(pack))["headline"]
    assert "NOT isolated" in headline and "has been isolated" not in headline


def test_eventual_consistency_of_the_read_back_is_waited_for(scene, pack):
    """EC2 shows the old groups once more after the swap."""
    instance = scene.instance()
    (interface,) = scene.interfaces(instance)
    forensic = scene.group("ForensicSecurityGroup")

    def show(groups):
        scene.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=groups)

    by_function = {"when": by_isolate}
    scene.cloud.before("DescribeNetworkInterfaces", lambda call: show(scene.groups), **by_function)
    scene.cloud.before(
        "DescribeNetworkInterfaces", lambda call: show([forensic]), skip=1, **by_function
    )

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]


def test_a_stopped_instance_is_isolated(scene, pack):
    instance = scene.instance()
    scene.ec2.stop_instances(InstanceIds=[instance])

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.is_isolated(instance)


def test_a_terminated_instance_is_reported(scene, pack):
    instance = scene.instance()
    scene.ec2.terminate_instances(InstanceIds=[instance])
    scene.cloud.call_log.clear()

    report = outcome(pack.isolate(scene.finding(instance)))

    assert report["status"] == "skipped" and not report["isolated"]
    headline = notice(told(pack))["headline"]
    assert "NOT isolated" in headline and "terminated" in headline
    assert changes(scene.cloud) == []


def test_an_exempt_instance_is_left_alone(scene, pack):
    instance = scene.instance(tags={"forensic:exempt": ""})
    before = scene.interfaces(instance)

    report = outcome(pack.isolate(scene.finding(instance)))

    assert report["status"] == "exempt"
    assert scene.interfaces(instance) == before
    assert scene.tags(instance) == {"forensic:exempt": ""}
    headline = notice(told(pack))["headline"]
    assert "NOT isolated" in headline and "forensic:exempt" in headline
    assert changes(scene.cloud) == []


def changes(cloud):
    """What the function did to EC2 that is not a read."""
    return [
        call.operation
        for call in cloud.call_log.by(FUNCTION)
        if call.service == "ec2" and not call.operation.startswith("Describe")
    ]


def test_groups_that_cannot_be_recorded_are_in_the_message_and_in_the_log(scene, pack):
    instance = scene.instance(scene.groups)
    encoded = "xY4-" * 200
    said = f"You are not authorized. Encoded authorization failure message: {encoded}"
    scene.cloud.fail("CreateTags", "UnauthorizedOperation", message=said, times=None)

    invocation = pack.isolate(scene.finding(instance))

    assert set(map(tuple, scene.interfaces(instance).values())) == {(scene.forensic_group(),)}
    assert "could not be recorded" in error(invocation)
    assert all(group in invocation.log for group in scene.groups)
    (message,) = told(pack)
    (row,) = message["resources"][0]["c7n:response"][0]["interfaces"]
    assert [g["id"] for g in row["removed"]] == scene.groups
    headline = message["event"]["c7n:notice"]["headline"]
    assert "has been isolated" in headline and "NOT COMPLETE" in headline
    run = message["event"]["c7n:run"]
    assert run["log_group"] == f"/aws/lambda/{FUNCTION}" and run["log_stream"]
    assert run["account"] == ACCOUNT
    verified = message["resources"][0]["c7n:response"][0]["verified_at"]
    assert run["received"] < verified
    assert "You are not authorized" in error(invocation) and "xY4-xY4-" not in error(invocation)


def test_an_interface_full_of_tags_does_not_cost_the_others_their_record(scene, pack):
    instance = scene.instance(scene.groups, scene.groups[:1])
    full, other = scene.interfaces(instance)
    scene.ec2.create_tags(
        Resources=[full], Tags=[{"Key": f"own-{n}", "Value": "x"} for n in range(50)]
    )

    invocation = pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert full in error(invocation) and other not in error(invocation)
    assert scene.tags(other)[f"forensic:original-groups:{other}"] == scene.groups[0]


def test_forty_tags_and_fifteen_interfaces(scene, pack):
    nasty = {"Name": "<b>\"böse\" & 'rude'</b>", **{f"tag-{n}": "ü" * 250 for n in range(39)}}
    instance = scene.instance(*[scene.groups] * 15, tags=nasty)

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]

    assert scene.is_isolated(instance) and len(scene.interfaces(instance)) == 15


# The mail is tied to SNS's acceptance


def test_a_message_that_sns_refused_is_sent_by_the_retry_once(scene, pack):
    instance = scene.instance()
    scene.cloud.fail("sns:Publish", "AuthorizationError", status=403, when=by_isolate)

    pack.deliver(scene.finding(instance))

    tries = [i for i in scene.cloud.invocations if i.function_name == FUNCTION]
    assert len(tries) == 2 and "AuthorizationError" in error(tries[0]) and tries[1].error is None
    headline = notice(told(pack))["headline"]
    assert "it has been isolated" in headline


def test_a_function_that_dies_before_the_message_sends_it_when_tried_again(scene, pack):
    instance = scene.instance(scene.groups)
    scene.cloud.before(
        "sns:Publish",
        lambda call: scene.cloud.functions.kill(FUNCTION),
        when=by_isolate,
    )

    finding = scene.finding(instance)
    pack.deliver(finding)
    first = told(pack)
    pack.deliver(
        scene.finding(instance, "ec2-malicious-ip-caller-update", id=finding["detail"]["id"])
    )

    # The request that was under way when the function died may have been taken by SNS.
    assert 1 <= len(first) <= 2
    rows = first[-1]["resources"][0]["c7n:response"][0]["interfaces"]
    assert {g["id"] for g in rows[0]["removed"]} == set(scene.groups)
    assert told(pack) == []


def test_a_function_that_dies_between_the_swap_and_the_message(scene, pack):
    instance = scene.instance(scene.groups)
    scene.cloud.before(
        "ListAccountAliases",
        lambda call: scene.cloud.functions.kill(FUNCTION),
        when=by_isolate,
    )

    pack.deliver(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert "it has been isolated" in notice(told(pack))["headline"]


def test_the_same_failure_three_times_is_mailed_once_and_ends_in_the_dead_letter_queue(scene, pack):
    instance = scene.instance(scene.groups, scene.groups)
    _, managed = scene.interfaces(instance)
    make_requester_managed(managed, region=REGION, account_id=ACCOUNT)

    pack.deliver(scene.finding(instance))

    tries = [i for i in scene.cloud.invocations if i.function_name == FUNCTION]
    assert len(tries) == 3 and all(managed in error(i) for i in tries)
    assert len(told(pack)) == 1
    (letter,) = pack.dead_letters()
    assert managed in letter["MessageAttributes"]["ErrorMessage"]["StringValue"]


def test_a_failure_that_the_retry_mends_is_told(scene, pack):
    instance = scene.instance()
    scene.cloud.fail(SWAP, "OperationNotPermitted")

    pack.deliver(scene.finding(instance))

    assert scene.is_isolated(instance)
    headlines = [m["event"]["c7n:notice"]["headline"] for m in told(pack)]
    assert ["NOT isolated" in line for line in headlines] == [True, False]


# The number of calls


def calls_up_to_the_swap(cloud):
    names = operations(cloud)
    names = [n for n in names if n != "AssumeRole"]  # Lambda's own, not the function's
    return len(names) - names[::-1].index(SWAP)


@pytest.mark.parametrize("interfaces", [1, 2, 5])
def test_five_calls_up_to_the_swap_and_one_for_each_further_interface(scene, pack, interfaces):
    scene.group("warm")
    first = scene.instance()
    pack.isolate(scene.finding(first))  # makes the group, warms the container
    instance = scene.instance(*[scene.groups[: 1 + n % 3] for n in range(interfaces)])
    scene.cloud.call_log.clear()

    pack.isolate(scene.finding(instance))

    assert calls_up_to_the_swap(scene.cloud) <= 5 + (interfaces - 1)


def test_ten_calls_when_cold_and_the_group_has_to_be_made(scene, pack):
    instance = scene.instance()
    scene.cloud.functions.discard_warm()

    invocation = pack.isolate(scene.finding(instance))

    assert invocation.cold
    assert calls_up_to_the_swap(scene.cloud) <= 10


# Bad input: a clear error or a plain "nothing to do", and nothing is changed


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        "text",
        {"detail-type": "EC2 Instance State-change Notification", "detail": {"state": "running"}},
        {"detail-type": "GuardDuty Finding", "detail": {}},
        {"detail-type": "GuardDuty Finding", "detail": None},
    ],
)
def test_what_is_no_finding_is_answered_plainly(scene, pack, event):
    invocation = pack.isolate(event)

    assert invocation.error is None
    assert invocation.result["ec2-isolate"].startswith("nothing to do: ")
    assert operations(scene.cloud) in ([], ["AssumeRole"])


@pytest.mark.parametrize("instance_id", [None, "", "i-1", "i-0ABC1234def567890", 7, "i-*", ["i-0"]])
def test_an_id_that_is_none_is_a_clear_error(scene, pack, instance_id):
    invocation = pack.isolate(scene.finding(instance_id))

    assert "is not the id of an EC2 instance" in error(invocation)
    assert "ec2-isolate" in error(invocation) and "Nothing was changed" in error(invocation)
    assert changes(scene.cloud) == []


def test_a_finding_without_instance_details(scene, pack):
    event = scene.finding("i-0abc1234def567890")
    del event["detail"]["resource"]["instanceDetails"]

    assert "is not the id of an EC2 instance" in error(pack.isolate(event))


def test_an_unknown_instance_is_a_clear_error(scene, pack):
    invocation = pack.isolate(scene.finding("i-0abc1234def567899"))

    assert "InvalidInstanceID.NotFound" in error(invocation)
    assert "i-0abc1234def567899" in error(invocation)


def test_a_denied_describe_is_an_error_and_not_a_success(scene, pack):
    instance = scene.instance()
    scene.cloud.fail("DescribeInstances", "UnauthorizedOperation", status=403)

    invocation = pack.isolate(scene.finding(instance))

    assert "UnauthorizedOperation" in error(invocation) and instance in error(invocation)


def test_the_finding_of_another_account_is_not_acted_on(scene, pack):
    instance = scene.instance()
    event = scene.finding(instance, accountId="444455556666")

    invocation = pack.isolate(event)
    pack.deliver({**event, "account": ACCOUNT})

    assert "444455556666" in error(invocation)
    assert changes(scene.cloud) == []
    assert [i for i in scene.cloud.invocations if i.function_name == FUNCTION] == [invocation]


def test_an_untagged_instance_does_not_make_custodian_read_all_tags(scene, pack):
    instance = scene.instance()

    pack.isolate(scene.finding(instance))

    assert "DescribeTags" not in operations(scene.cloud)


def test_two_findings_updated_in_turn_are_mailed_once_each(scene, pack):
    instance = scene.instance()
    findings = [scene.finding(instance), scene.finding(instance, "ec2-dns-crypto")]

    for finding in findings * 4:
        pack.isolate(finding)

    mailed = [m["event"]["detail"]["id"] for m in told(pack)]
    assert sorted(mailed) == sorted(f["detail"]["id"] for f in findings)


def test_the_same_finding_after_a_release_is_another_incident(scene, pack):
    instance = scene.instance()
    finding = scene.finding(instance)
    pack.isolate(finding)
    first = notice(told(pack))
    scene.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=next(iter(scene.interfaces(instance))), Groups=scene.groups[:1]
    )
    forensic = [{"Key": k} for k in scene.tags(instance) if k.startswith("forensic:")]
    scene.ec2.delete_tags(Resources=[instance], Tags=forensic)
    scene.ec2.delete_tags(
        Resources=[scene.forensic_group()], Tags=[{"Key": f"forensic:record:{instance}"}]
    )

    pack.isolate(finding)

    second = notice(told(pack))
    assert first["headline"] == second["headline"]
    assert first["incident"]["forensic:isolated-at"] <= second["incident"]["forensic:isolated-at"]
    assert first["incident"]["forensic:finding"] == finding["detail"]["id"]


def test_the_alias_of_the_account_is_decoration(scene, pack):
    scene.cloud.fail("iam:ListAccountAliases", "AccessDenied", status=403, times=None)
    instance = scene.instance()

    pack.deliver(scene.finding(instance))

    assert [i.error for i in scene.cloud.invocations] == [None, None]
    policies = sorted(m["policy"]["name"] for m in pack.messages())
    assert policies == ["ec2-isolate", "finding-notify"]


def test_in_an_account_with_very_many_interfaces_they_are_asked_for_by_id(scene, pack):
    """There EC2 refuses a request that names neither interfaces, VPCs, subnets nor pages."""
    scene.cloud.fail(
        "DescribeNetworkInterfaces",
        "OperationNotPermitted",
        times=None,
        when=lambda call: by_isolate(call) and "NetworkInterfaceIds" not in call.parameters,
    )
    instance = scene.instance(scene.groups, scene.groups[:1])

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]


def test_an_interface_that_vanishes_costs_the_others_nothing(scene, pack):
    instance = scene.instance(scene.groups, scene.groups[:1])
    first, second = scene.interfaces(instance)

    def vanish(call):
        shown = scene.ec2.describe_network_interfaces(NetworkInterfaceIds=[second])
        attachment = shown["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
        scene.ec2.detach_network_interface(AttachmentId=attachment)
        scene.ec2.delete_network_interface(NetworkInterfaceId=second)

    scene.cloud.before("DescribeNetworkInterfaces", vanish, when=by_isolate)

    report = outcome(pack.isolate(scene.finding(instance)))

    assert report["isolated"] and scene.interfaces(instance) == {first: [scene.forensic_group()]}


def test_a_group_whose_tag_is_not_known_everywhere_yet_is_asked_for_once_more(scene, pack):
    scene.cloud.fail("RevokeSecurityGroupEgress", "UnauthorizedOperation", status=403, times=1)
    instance = scene.instance()

    assert outcome(pack.isolate(scene.finding(instance)))["isolated"]


def test_a_group_that_the_role_may_not_use_is_named_with_what_to_do(scene, pack):
    """IAM refuses what has not the mark; the simulation does not look at conditions."""
    instance, group = scene.instance(), scene.group("ForensicSecurityGroup")
    for operation in ("RevokeSecurityGroupEgress", "ModifyNetworkInterfaceAttribute"):
        scene.cloud.fail(operation, "UnauthorizedOperation", status=403, times=None)

    invocation = pack.isolate(scene.finding(instance))

    assert f"The group {group} has not the tag forensic:group=true" in error(invocation)


def test_a_new_groups_mark_may_come_late_to_iam(scene, pack):
    instance = scene.instance()
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", status=403)

    invocation = pack.isolate(scene.finding(instance))

    assert invocation.error is None and scene.is_isolated(instance)
