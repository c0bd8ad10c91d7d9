"""An attack sequence: one finding, several instances, each through the same steps, and one mail."""

import collections
import json
import random
import string
import uuid
from pathlib import Path

import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader

import custom_actions  # noqa: F401 - registers the actions

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "tests" / "findings"
ELSEWHERE = "444455556666"


def sequence(*uids, **detail):
    """A finding that names these instances: ids or ARNs, or entries of `resources` as they are."""
    event = json.loads((FINDINGS / "ec2-sequence-instance-group.json").read_text())
    event["detail"] |= {"id": uuid.uuid4().hex, **detail}
    found = event["detail"]["service"]["detection"]["sequence"]
    kind = {"resourceType": "EC2_INSTANCE", "accountId": ACCOUNT, "region": REGION}
    found["resources"] = [uid if isinstance(uid, dict) else {"uid": uid} | kind for uid in uids]
    return event


def arn(instance, account=ACCOUNT):
    return f"arn:aws:ec2:{REGION}:{account}:instance/{instance}"


def remediations(pack):
    return [m for m in pack.messages() if m["policy"]["name"] == "ec2-isolate"]


def steps(invocation, name):
    """{instance id: outcome} of one step."""
    outcomes = invocation.result["ec2-isolate"]
    return {o["resource"]: o for o in outcomes if o["step"] == name}


DICE, LETTERS = random.Random(1), string.ascii_letters + string.digits


def noise():
    """Tags that do not get smaller by packing: what an intruder with ec2:CreateTags could write."""
    return [{"Key": f"n{n}", "Value": "".join(DICE.choices(LETTERS, k=250))} for n in range(50)]


def it_fits_however_many_there_are(message):
    """message: a real one. Its isolated instance, many times over, with any tags."""
    (data,) = yaml.safe_load((ROOT / "policies" / "ec2-isolate.yml").read_text())["policies"]
    (policy,) = PolicyLoader(Config.empty(account_id=ACCOUNT, region=REGION)).load_data(
        {"policies": [data]}, "memory://"
    )
    notify = next(a for a in policy.resource_manager.actions if a.type == "notify-once")
    whole, *_ = message["resources"]
    some, many, all_details = (
        None,
        "the details of steps that went well",
        "all details of the steps",
    )
    for number, tags, errors, left_out in (
        (25, lambda: [*whole["Tags"]], 0, some),
        (100, lambda: [*whole["Tags"]], 0, some),
        (25, noise, 0, many),
        (400, noise, 3000, all_details),
    ):
        failed = {"step": "preserve-evidence", "status": "failed", "facts": [], "detail": ""}
        instances = [
            {
                "InstanceId": f"i-{n:017x}",
                "Tags": tags(),
                "c7n:response": [
                    *(
                        o | {"detail": f"{uuid.uuid4()} {o['detail']}"}
                        for o in whole["c7n:response"]
                    ),
                    *(
                        [failed | {"error": "".join(DICE.choices(LETTERS, k=errors))}]
                        if errors
                        else []
                    ),
                ],
            }
            for n in range(number)
        ]
        shown, event = notify.fitting(instances, message["event"])
        assert [i["InstanceId"] for i in shown] == [i["InstanceId"] for i in instances]
        said = event["c7n:notice"]["left_out"]
        assert said is left_out or said.startswith(left_out)
        assert {i["c7n:fate"] for i in shown} == {"isolated"}
        size = len(notify.pack(message | {"resources": shown, "event": event}))
        assert size < 256 * 1024 - 4096


def test_of_25_the_brake_lets_five_pass_and_one_mail_names_the_rest(scene, pack):
    instances = [scene.instance() for _ in range(25)]
    before = {instance: scene.interfaces(instance) for instance in instances}
    event = sequence(*map(arn, instances), arn(instances[0]))

    pack.deliver(event)

    assert [i for i in instances if scene.is_isolated(i)] == instances[:5]
    for instance in instances[5:]:
        assert scene.interfaces(instance) == before[instance]
        assert not [key for key in scene.tags(instance) if key.startswith("forensic:")]
    assert pack.dead_letters() == []
    ((message),) = remediations(pack)
    notice = message["event"]["c7n:notice"]
    assert notice["headline"].startswith("BRAKE HELD | GuardDuty Remediation | ID: ")
    assert "names 25 EC2 instances" in notice["headline"]
    assert (
        "5 of 25 instances isolated; NOT isolated: 20 held back by the brake ("
        in (notice["headline"])
    )
    assert notice["isolated"] is False and notice["instances"] == 25
    assert notice["command"] == (
        f"for i in {' '.join(instances[5:])}; do make isolate INSTANCE=$i REGION={REGION} "
        f"FINDING={event['detail']['id']}; done"
    )
    assert [r["InstanceId"] for r in message["resources"]] == instances
    assert notice["left_out"] is None
    assert set(message["resources"][0]) == {"InstanceId", "Tags", "c7n:response", "c7n:fate"}
    it_fits_however_many_there_are(message)
    # what each costs does not grow with their number: of one that is held back
    calls = pack.cloud.call_log.by("custodian-ec2-isolate")
    of_each = collections.Counter(
        instance for c in calls for instance in instances[5:] if instance in str(c.parameters)
    )
    assert len(calls) < 420
    assert max(of_each.values()) <= 5  # with the one that reads all, and a mail
    first = next(n for n, c in enumerate(calls) if c.operation.startswith("ModifyNetworkInterface"))
    held = [n for n, c in enumerate(calls) if c.operation == "CreateSnapshots"]
    swaps = [n for n, c in enumerate(calls) if c.operation.startswith("ModifyNetworkInterface")]
    assert first == swaps[0] and max(swaps) < min(held)

    pack.deliver(event | {"id": "delivered-again"})

    assert remediations(pack) == [] and pack.dead_letters() == []
    assert [i for i in instances if scene.is_isolated(i)] == instances[:5]


def test_what_is_not_there_is_named_and_is_no_failure(scene, pack):
    here, exempt = scene.instance(), scene.instance(tags={"forensic:exempt": "yes"})
    gone, other, moved = "i-0123456789abcdef0", "i-0aaaaaaaaaaaaaaa1", "i-0aaaaaaaaaaaaaaa2"
    cluster = {"resourceType": "ECS_CLUSTER", "data": {"ecsCluster": {"ec2InstanceUids": [exempt]}}}
    entry = {"resourceType": "EC2_INSTANCE", "accountId": ACCOUNT, "region": "eu-west-1"}
    named = [gone, here, entry | {"uid": moved}, "i-1; reboot", arn(here), cluster, None]
    event = sequence(*(n for n in named if n), exempt)
    listed = event["detail"]["service"]["detection"]["sequence"]["resources"]
    listed += [None, {"uid": arn(other, ELSEWHERE), "resourceType": "EC2_INSTANCE"}]

    invocation = pack.isolate(event)

    assert invocation.error is None and scene.is_isolated(here)
    assert not scene.is_isolated(exempt)
    done = steps(invocation, "isolate-instance")
    assert {i: o["status"] for i, o in done.items()} == {
        gone: "skipped",
        here: "done",
        moved: "skipped",
        "i-1; reboot": "skipped",
        exempt: "exempt",
        other: "skipped",
    }
    assert done[gone]["detail"] == "Not done here: EC2 knows no such instance."
    assert f"in account {ELSEWHERE}, region {REGION}" in done[other]["detail"]
    assert "region eu-west-1" in done[moved]["detail"]
    assert "not the id of an EC2 instance" in done["i-1; reboot"]["detail"]
    assert {o["status"] for o in steps(invocation, "preserve-evidence").values()} == {
        "done",
        "skipped",
        "exempt",
    }
    (message,) = remediations(pack)
    headline = message["event"]["c7n:notice"]["headline"]
    assert "1 of 6 instances isolated; NOT isolated: 1 not done here: EC2 knows no" in headline
    assert "1 exempt" in headline and message["event"]["c7n:notice"]["left_out"] is None
    # one call for those that are of this place
    asked = [
        c.parameters["Filters"][0]["Values"]
        for c in pack.cloud.call_log.by("custodian-ec2-isolate")
        if c.operation == "DescribeInstances" and c.parameters.get("Filters")
    ]
    assert asked == [[gone, here, exempt]]

    assert pack.isolate(event).error is None and remediations(pack) == []


def test_none_of_them_or_no_answer_is_an_error_and_no_instance_is_nothing_to_do(scene, pack):
    instance = scene.instance()
    gone = [f"i-0123456789abcde{n:02}" for n in range(15)]

    error = pack.isolate(sequence(*gone)).error["errorMessage"]
    assert f"{gone[9]} and 5 more could not be resolved in account {ACCOUNT} {REGION}" in error
    assert "EC2 knows no such instance. Nothing was changed." in error
    scene.cloud.fail("DescribeInstances", "UnauthorizedOperation", status=403)
    error = pack.isolate(sequence(instance, gone[0])).error["errorMessage"]
    assert "UnauthorizedOperation" in error and "Nothing was changed." in error
    nothing = pack.isolate(sequence())
    assert nothing.error is None
    assert nothing.result == {
        "ec2-isolate": "nothing to do: the attack sequence names no EC2 instance"
    }
    event = sequence(instance, "i-99999999")  # a sample names that one
    assert "leave this event out" in pack.isolate(event).result["ec2-isolate"]
    assert not scene.is_isolated(instance) and remediations(pack) == []


def test_one_that_fails_stops_no_other_and_a_changed_outcome_is_mailed_again(scene, pack):
    first, second = scene.instance(), scene.instance()
    event = sequence(first, second)
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "InternalError", status=400)

    failed = pack.isolate(event)

    assert not scene.is_isolated(first) and scene.is_isolated(second)
    assert f"resource:{first} step:isolate-instance" in failed.error["errorMessage"]
    (message,) = remediations(pack)
    headline = message["event"]["c7n:notice"]["headline"]
    assert f"1 of 2 instances isolated; NOT isolated: 1 FAILED ({first})" in headline
    assert f"NOT COMPLETE: {first} isolate-instance failed" in headline
    # the mark on one is enough; refused on the other, the run fails and mails no more
    scene.cloud.fail(
        "CreateTags",
        "UnauthorizedOperation",
        status=403,
        when=lambda call: (
            "forensic:notified" in str(call.parameters) and first in str(call.parameters)
        ),
    )
    again = pack.isolate(event)
    assert scene.is_isolated(first) and "step:notify-once" in again.error["errorMessage"]
    (message,) = remediations(pack)
    assert message["event"]["c7n:notice"]["headline"].endswith(
        "All security groups have been removed and all 2 have been isolated. Please follow up with "
        "any additional remediation actions."
    )
    assert pack.isolate(event).error is None and remediations(pack) == []
    # one instance alone, named by a sequence, has the words of one
    alone = scene.instance()
    pack.isolate(sequence(arn(alone)))
    (message,) = remediations(pack)
    assert (
        f"discovered an EC2 instance (Instance ID: {alone}): Potential EC2 instance"
        in (message["event"]["c7n:notice"]["headline"])
    )


def test_addresses_of_the_sequence_are_denied_and_no_more_than_an_acl_has_room_for(scene, pack):
    instances = [scene.instance() for _ in range(3)]
    event = sequence(*instances)
    found = event["detail"]["service"]["detection"]["sequence"]
    found["endpoints"] += [{"id": f"more{n}", "ip": f"203.0.113.{100 + n}"} for n in range(30)]

    invocation = pack.isolate(event)

    assert invocation.error is None, invocation.error
    (acl,) = scene.ec2.describe_network_acls(
        Filters=[{"Name": "association.subnet-id", "Values": [scene.subnet_id]}]
    )["NetworkAcls"]
    denied = {
        e["CidrBlock"]
        for e in acl["Entries"]
        if e["RuleAction"] == "deny" and e["RuleNumber"] < 32767
    }
    assert denied == {
        f"{address}/32"
        for address in ("203.0.113.7", "198.51.100.77", *(f"203.0.113.10{n}" for n in range(3)))
    }
    for outcome in steps(invocation, "block-remote-address").values():
        assert "'192.0.2.200' (the instance tries passwords on it)" in outcome["detail"]
        assert "'10.0.0.11' (private)" in outcome["detail"] and "more" in outcome["detail"]
