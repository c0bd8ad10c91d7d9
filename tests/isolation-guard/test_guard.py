"""isolation-guard: what somebody changes on an isolated instance is put right, by the steps
isolate-instance, keep-denied and keep-protections.

The events are made by hand in the shape that CloudTrail documents; the simulation makes none.
"""

import pytest
from cloudtrail import INCIDENT, MALLORY, api_call, headline

from custom_actions.headline import guard_headline
from simulation import deploy
from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"


def change_of_groups(interface, groups, **options):
    items = {"items": [{"groupId": group} for group in groups]}
    parameters = {"networkInterfaceId": interface, "groupSet": items}
    return api_call("ModifyNetworkInterfaceAttribute", parameters, **options)


def change(scene, instance, groups):
    """Change the groups of the primary interface; returns the event of that call."""
    interface = next(iter(scene.interfaces(instance)))
    scene.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=groups)
    return change_of_groups(interface, groups)


def test_changed_groups_are_put_right_and_who_did_it_is_told(scene, guarded, isolated):
    guarded.deliver(change(scene, isolated, scene.groups))

    assert scene.is_isolated(isolated)
    assert [i.error for i in scene.cloud.invocations] == [None]
    line = headline(guarded.messages())
    assert line.startswith(f"GuardDuty Guard | {isolated}: {MALLORY} called ModifyNetwork")
    assert "put right and read back" in line


def test_changing_the_groups_through_the_instance_is_noticed(scene, guarded, isolated):
    scene.ec2.modify_instance_attribute(InstanceId=isolated, Groups=scene.groups[:1])
    items = {"items": [{"groupId": scene.groups[0]}]}

    guarded.deliver(
        api_call("ModifyInstanceAttribute", {"instanceId": isolated, "groupSet": items})
    )

    assert scene.is_isolated(isolated)


def test_a_role_that_is_only_called_like_the_packs_is_not_the_pack(scene, guarded, isolated):
    change(scene, isolated, scene.groups)
    (interface,) = scene.interfaces(isolated)

    guarded.deliver(change_of_groups(interface, scene.groups, role="guardduty-response-mallory"))

    assert scene.is_isolated(isolated)


def test_an_attached_interface_is_isolated(scene, guarded, isolated):
    attached = scene.attach(isolated, scene.groups)

    guarded.deliver(
        api_call("AttachNetworkInterface", {"instanceId": isolated, "networkInterfaceId": attached})
    )

    assert scene.is_isolated(isolated) and attached in scene.interfaces(isolated)
    assert "AttachNetworkInterface" in headline(guarded.messages())


def test_the_record_is_still_the_original_one(scene, guarded, isolated):
    (interface,) = scene.interfaces(isolated)
    record = scene.tags(interface)

    guarded.deliver(change(scene, isolated, [scene.group("intruder")]))

    assert scene.tags(interface) == record


def test_a_message_that_sns_refused_is_sent_by_the_retry_once(scene, guarded, isolated):
    scene.cloud.fail("sns:Publish", "AuthorizationError", status=403)
    event = change(scene, isolated, scene.groups)

    guarded.deliver(event)
    guarded.deliver(event)  # EventBridge delivers at least once

    assert "called ModifyNetworkInterfaceAttribute" in headline(guarded.messages())


def test_an_update_of_the_finding_sends_no_second_remediation_mail(scene, guarded, isolated):
    guarded.deliver(change(scene, isolated, scene.groups))
    guarded.messages()

    guarded.isolate(scene.finding(isolated, "ec2-malicious-ip-caller-update", id=INCIDENT))

    assert guarded.messages() == []


PROTECTIONS = {
    "DisableApiTermination": {"Value": False},
    "DisableApiStop": {"Value": False},
    "InstanceInitiatedShutdownBehavior": {"Value": "terminate"},
}


def protections(scene, instance):
    return {
        name: scene.ec2.describe_instance_attribute(
            InstanceId=instance, Attribute=name[0].lower() + name[1:]
        )[name]
        for name in PROTECTIONS
    }


def test_a_protection_that_is_taken_off_is_set_again_without_snapshots(scene, guarded, isolated):
    kept, tags = protections(scene, isolated), scene.tags(isolated)
    for name, value in PROTECTIONS.items():
        scene.ec2.modify_instance_attribute(InstanceId=isolated, **{name: value})
    scene.ec2.delete_tags(Resources=[isolated], Tags=[{"Key": "forensic:snapshots"}])

    guarded.deliver(
        api_call(
            "ModifyInstanceAttribute",
            {"instanceId": isolated, "disableApiTermination": {"value": False}},
        )
    )

    assert protections(scene, isolated) == kept != PROTECTIONS
    assert "put right and read back" in headline(guarded.messages())
    calls = [c.operation for c in scene.cloud.call_log.by("custodian-isolation-guard")]
    assert "CreateSnapshots" not in calls
    assert scene.tags(isolated)["forensic:settings"] == tags["forensic:settings"]


def acl(scene):
    (found,) = scene.ec2.describe_network_acls(
        Filters=[{"Name": "association.subnet-id", "Values": [scene.subnet_id]}]
    )["NetworkAcls"]
    return found


def denies(scene):
    """{(direction, address)}: what is denied before the first allow."""
    entries = sorted(acl(scene)["Entries"], key=lambda e: e["RuleNumber"])
    allows = {e["Egress"]: e["RuleNumber"] for e in reversed(entries) if e["RuleAction"] == "allow"}
    return {
        (e["Egress"], e["CidrBlock"])
        for e in entries
        if e["RuleAction"] == "deny" and e["RuleNumber"] < allows[e["Egress"]]
    }


def own_entries(scene):
    shown = [e for e in acl(scene)["Entries"] if e["RuleAction"] == "deny"]
    return [e for e in shown if e["RuleNumber"] < 32767]


def change_of_acl(scene, name):
    return api_call(name, {"networkAclId": acl(scene)["NetworkAclId"], "ruleNumber": 99})


def test_denies_that_are_taken_off_the_acl_are_made_again(scene, guarded, isolated):
    denied, tags, acl_id = denies(scene), scene.tags(isolated), acl(scene)["NetworkAclId"]
    assert len(denied) == 2
    ingress, egress = sorted(own_entries(scene), key=lambda e: e["Egress"])
    scene.ec2.delete_network_acl_entry(
        NetworkAclId=acl_id, RuleNumber=ingress["RuleNumber"], Egress=False
    )
    scene.ec2.replace_network_acl_entry(
        NetworkAclId=acl_id,
        **{k: egress[k] for k in ("RuleNumber", "Egress", "Protocol", "CidrBlock")},
        RuleAction="allow",
    )

    guarded.deliver(change_of_acl(scene, "DeleteNetworkAclEntry"))

    assert denied <= denies(scene)
    assert tags.items() <= scene.tags(isolated).items()  # beside the mark of the mail
    line = headline(guarded.messages())
    assert line.startswith(f"GuardDuty Guard | {isolated}: ") and "put right and read back" in line
    guarded.deliver(change_of_acl(scene, "ReplaceNetworkAclEntry"))
    assert "nothing had to be put right" in headline(guarded.messages())


def test_an_address_that_only_a_tag_names_is_not_denied_for_the_neighbours(
    scene, guarded, isolated
):
    before, acl_id = acl(scene)["Entries"], acl(scene)["NetworkAclId"]
    tags = [{"Key": "forensic:deny:8.8.8.8", "Value": acl_id}]
    scene.ec2.create_tags(Resources=[isolated], Tags=tags)

    guarded.deliver(change_of_acl(scene, "CreateNetworkAclEntry"))

    assert acl(scene)["Entries"] == before
    line = headline(guarded.messages())
    assert "NOTHING was put right" in line and "not what was sealed" in line


def of_tags(name, resources, keys):
    items = {"items": [{"key": key} for key in keys]} if keys else {}
    return api_call(
        name, {"resourcesSet": {"items": [{"resourceId": r} for r in resources]}, "tagSet": items}
    )


GONE = ["i-0abc1234def567899", "eni-0abc1234def567899", "vol-0abc1234def567899"]


@pytest.mark.parametrize(
    "event, words",
    [
        (
            lambda i, eni: api_call(
                "AssociateIamInstanceProfile",
                {"AssociateIamInstanceProfileRequest": {"InstanceId": i}},
            ),
            "make isolate",
        ),
        (
            lambda i, eni: api_call(
                "ReplaceIamInstanceProfileAssociation",
                {},
                responseElements={
                    "ReplaceIamInstanceProfileAssociationResponse": {
                        "iamInstanceProfileAssociation": {"instanceId": i}
                    }
                },
            ),
            "credentials of another role",
        ),
        (lambda i, eni: of_tags("CreateTags", [*GONE, i], ["Name", "forensic:state"]), "edited"),
        (lambda i, eni: of_tags("DeleteTags", [*GONE, eni], []), "a release will ask"),
    ],
    ids=["profile", "profile by association", "tags of it and others", "all tags of an interface"],
)
def test_what_no_guard_can_put_right_is_told_with_what_to_do(
    scene, guarded, isolated, event, words
):
    (interface,) = scene.interfaces(isolated)

    guarded.deliver(event(isolated, interface))

    # the other guard hears of tags too
    assert {invocation.error for invocation in scene.cloud.invocations} == {None}
    line = headline(guarded.messages())
    assert isolated in line and "NOTHING was put right" in line and words in line


def test_calls_about_other_tags_and_instances_cost_no_call_to_aws(scene, guarded, isolated):
    guarded.deliver(of_tags("CreateTags", [isolated], ["Name"]))
    guarded.deliver(api_call("ModifyInstanceAttribute", {"instanceId": isolated, "userData": {}}))

    assert len(scene.cloud.invocations) == 3 and guarded.messages() == []
    for guard in ("custodian-isolation-guard", "custodian-forensic-group-guard"):
        assert list(scene.cloud.call_log.by(guard)) == []


def release(scene, instance, folder):
    return deploy.release(scene.cloud, folder, instance, ACCOUNT, REGION)


def test_a_release_is_not_fought_whenever_its_event_arrives(scene, guarded, isolated, tmp_path):
    """The event of each change of the release arrives at once, in the middle of it."""
    (interface,) = scene.interfaces(isolated)
    arrived = []

    def deliver(call):
        """Before the tags are deleted, the groups are back: the guard runs right now."""
        event = change_of_groups(interface, scene.groups)
        arrived.append(scene.cloud.invoke("custodian-isolation-guard", event, ACCOUNT, REGION))

    scene.cloud.before(
        "DeleteTags", deliver, when=lambda call: interface in call.parameters["Resources"]
    )
    release(scene, isolated, tmp_path)
    deliver(None)  # and once more afterwards
    released = protections(scene, isolated), acl(scene)["Entries"]
    guarded.deliver(
        api_call("ModifyInstanceAttribute", {"instanceId": isolated, "disableApiStop": {}})
    )
    guarded.deliver(change_of_acl(scene, "DeleteNetworkAclEntry"))
    guarded.deliver(of_tags("DeleteTags", [isolated], ["forensic:state"]))

    assert scene.interfaces(isolated)[interface] == scene.groups
    assert (protections(scene, isolated), acl(scene)["Entries"]) == released
    assert len(arrived) == 2 and all(i.error is None for i in scene.cloud.invocations)
    assert not [m for m in guarded.messages() if m["policy"]["name"] == "isolation-guard"]


@pytest.mark.parametrize(
    "event",
    [
        lambda i: change_of_groups(i, ["sg-0"], role="guardduty-response-ec2-isolate"),
        lambda i: change_of_groups(i, ["sg-0"], role="guardduty-response-isolation-guard"),
        lambda i: change_of_groups(i, ["sg-0"], errorCode="Client.UnauthorizedOperation"),
        lambda i: api_call(
            "ModifyNetworkInterfaceAttribute",
            {"networkInterfaceId": i, "sourceDestCheck": {"value": False}},
        ),
        lambda i: change_of_groups("eni-0abc1234def567899", ["sg-0"]),
    ],
    ids=[
        "the response",
        "the guard itself",
        "a call that failed",
        "not about groups",
        "unknown interface",
    ],
)
def test_what_is_no_interference_is_left_alone(scene, guarded, isolated, event):
    (interface,) = scene.interfaces(isolated)

    guarded.deliver(event(interface))

    (invocation,) = scene.cloud.invocations
    assert invocation.error is None
    assert guarded.messages() == []


def test_an_instance_that_is_not_isolated_is_left_alone(scene, guarded):
    instance = scene.instance()

    guarded.deliver(change(scene, instance, scene.groups[1:]))

    assert list(scene.interfaces(instance).values()) == [scene.groups[1:]]
    assert guarded.messages() == []


@pytest.mark.parametrize("state", ["releasing", "", None])
def test_a_state_that_an_intruder_wrote_does_not_blind_the_guard(scene, guarded, isolated, state):
    scene.ec2.delete_tags(Resources=[isolated], Tags=[{"Key": "forensic:state"}])
    if state is not None:
        tags = [{"Key": "forensic:state", "Value": state}]
        scene.ec2.create_tags(Resources=[isolated], Tags=tags)

    guarded.deliver(change(scene, isolated, scene.groups))

    assert scene.is_isolated(isolated)


def test_a_state_that_an_intruder_wrote_takes_no_healthy_instance_down(scene, guarded):
    instance = scene.instance(tags={"forensic:state": "isolated"})

    guarded.deliver(change(scene, instance, scene.groups[1:]))

    assert list(scene.interfaces(instance).values()) == [scene.groups[1:]]
    assert guarded.messages() == []


def test_an_event_that_was_not_sent_by_ec2_is_nobodys_call(scene, guarded, isolated):
    """Whoever has events:PutEvents may send the rest of it, under any other source."""
    forged = change(scene, isolated, scene.groups) | {"source": "mallory.example"}

    guarded.deliver(forged)
    assert scene.cloud.invocations == []

    invocation = scene.cloud.invoke("custodian-isolation-guard", forged, ACCOUNT, REGION)
    assert "not sent by AWS" in invocation.result["isolation-guard"]
    assert guarded.messages() == []


@pytest.mark.parametrize(
    "status, words",
    [
        ("exempt", "NOTHING was put right: The instance is exempt."),
        ("planned", "OBSERVE ONLY"),
        ("skipped", "NOTHING was put right"),
    ],
)
def test_a_guard_that_did_nothing_does_not_say_that_the_isolation_holds(status, words):
    outcome = {"step": "isolate-instance", "status": status, "error": None}
    outcome["detail"] = "The instance is exempt."

    line = guard_headline(change_of_groups("eni-1", [])["detail"], "i-1", [outcome])

    assert words in line and "holds" not in line


def test_what_cannot_be_put_right_is_told_and_fails(scene, guarded, isolated):
    event = change(scene, isolated, scene.groups)
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "OperationNotPermitted", times=None)

    guarded.deliver(event)

    assert "NOT put right" in headline(guarded.messages())
    assert len(scene.cloud.invocations) == 3 and guarded.dead_letters()


def test_the_mail_shows_the_call_and_escapes_it(scene, guarded, isolated):
    guarded.deliver(change(scene, isolated, scene.groups))
    with MailSink() as sink:
        Mailer(scene.cloud, sink, ACCOUNT, REGION, guarded.queue_url).deliver_all()
        (mail,) = sink.wait_for(1)

    assert mail.subject.startswith("GuardDuty Guard | ") and MALLORY in mail.body
    assert "&lt;script&gt;" in mail.body and "<script>" not in mail.body
    assert "198.51.100.9" in mail.body
